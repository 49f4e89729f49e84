"""The one thread of a process that writes: whatever waits when a transaction has begun shares it, its COMMIT and flush.

A work fails alone: a batch in which one fails is rolled back, and run again with a SAVEPOINT for each. A COMMIT that
fails, fails all. No caller hears of success before the COMMIT has returned.

What passes (a lost connection, a conflict) is tried again, but only what surely did not happen: a COMMIT whose answer
was lost may have, so its mark is looked for. If nobody can tell in time, callers hear `Temporary`, and it may stand.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import DBAPIError

from gateway import failpoints
from gateway.model import Temporary
from gateway.store.database import AnyMarks
from gateway.store.failures import is_lost, is_passing, translated

T = TypeVar("T")

BATCH = 64
"""Most works in one transaction."""
BACKLOG = 4096
"""Most works that wait; beyond, the store is busy."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds before something that passes is tried again."""


@dataclass(frozen=True, slots=True)
class _Done:
    value: Any


_PROBE = select(1)
"""It fails where a work has kept an error of the database to itself, while its SAVEPOINT can still be returned to."""

_Outcomes = Sequence[_Done | Exception]


class _Failed(Exception):
    """A work raised *error*; what was done beside it in the same transaction is undone."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class _Unanswered(Exception):
    """A COMMIT may have happened, and then has come to *outcomes*."""

    def __init__(self, outcomes: _Outcomes) -> None:
        super().__init__("a COMMIT was not answered")
        self.outcomes = outcomes


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[Connection], Any]
    deadline: float
    future: Future[Any] = field(default_factory=Future)

    def start(self) -> bool:
        """Whether the caller still waits. From here on cancelling comes too late."""
        if not self.future.set_running_or_notify_cancel():
            return False
        if time.monotonic() < self.deadline:
            return True
        self.future.set_exception(Temporary("the store is busy"))
        return False

    def finish(self, outcome: _Done | Exception) -> None:
        if isinstance(outcome, _Done):
            self.future.set_result(outcome.value)
        else:
            self.future.set_exception(outcome)


class Writer:
    """Runs works in order of arrival. Any thread may submit; the thread starts with the first work.

    Without *marks* a COMMIT that fails counts as one that has not happened.
    """

    def __init__(self, engine: Engine, patience: float, marks: AnyMarks | None = None) -> None:
        self._engine = engine
        self._marks = marks
        self._patience = patience
        self._waiting: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, work: Callable[[Connection], T]) -> Future[T]:
        """Queue *work*; the future is done once its transaction is durable. `Temporary` when too much waits.

        *work* may run twice, so it is to do the same again: see `Store.write`.
        """
        job = _Job(work, time.monotonic() + self._patience)
        with self._lock:
            if self._closed:
                raise Temporary("the store is closed")
            if self._waiting.qsize() >= BACKLOG:
                raise Temporary("the store is busy")
            self._ensure_thread()
            self._waiting.put(job)
        return job.future

    def close(self) -> None:
        """Finish what was submitted, then end the thread."""
        with self._lock:
            self._closed = True
            self._waiting.put(None)
        if self._thread is not None:
            self._thread.join()

    def _ensure_thread(self) -> None:
        if self._thread is not None:
            return
        thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            raise Temporary("no thread is free for the store") from None
        self._thread = thread

    def _run(self) -> None:
        while (job := self._waiting.get()) is not None:
            if job.start():
                self._commit([job])

    def _joined(self, jobs: list[_Job]) -> Sequence[_Job]:
        """Add to *jobs* what has come by now: the longer the wait for our turn, the more share what it leads to."""
        while len(jobs) < BATCH and not self._waiting.empty():
            job = self._waiting.get()
            if job is None:  # the end, before which there is nothing else
                self._waiting.put(None)
                break
            if job.start():
                jobs.append(job)
        return jobs

    def _commit(self, jobs: list[_Job]) -> None:
        outcomes: _Outcomes
        try:
            outcomes = self._persistently(jobs, time.monotonic() + self._patience)
            failpoints.hit("committed")
        except Exception as error:  # noqa: BLE001 - whatever went wrong, each caller has to hear of it
            outcomes = [translated(error)] * len(jobs)
            # After a failed flush the same descriptor may claim success for pages that were lost: take a new one.
            self._engine.dispose()
        for job, outcome in zip(jobs, outcomes, strict=True):
            job.finish(outcome)

    def _persistently(self, jobs: list[_Job], deadline: float) -> _Outcomes:
        """What the works came to in a transaction that is durable; what passes is tried again until *deadline*."""
        pauses = _pauses()
        while True:
            try:
                return self._transaction(jobs)
            except _Unanswered as lost:
                if self._stands(deadline):
                    return lost.outcomes
            except Exception as error:
                if not is_passing(error):
                    raise
                self._rest(next(pauses), deadline, error)

    def _stands(self, deadline: float) -> bool:
        """Whether the transaction whose COMMIT was not answered has happened; asked until there is an answer."""
        assert self._marks is not None  # noqa: S101 - only then there is such a transaction
        pauses = _pauses()
        while True:
            try:
                with self._engine.begin() as conn:
                    return self._marks.stands(conn)
            except Exception as error:  # noqa: BLE001 - until it is known, nothing may be done again
                self._rest(next(pauses), deadline, error)

    def _rest(self, pause: float, deadline: float, error: Exception) -> None:
        """Wait with new connections, or raise *error* where there is no time left, or no gateway."""
        self._engine.dispose()
        if self._closed or time.monotonic() + pause > deadline:
            raise error
        time.sleep(pause)

    def _transaction(self, jobs: list[_Job]) -> _Outcomes:
        patience = max(0.0, min(job.deadline for job in jobs) - time.monotonic())
        try:
            return self._durable(lambda conn: [_run(conn, job.work) for job in self._joined(jobs)], patience)
        except _Failed as failed:
            if is_passing(failed.error):
                raise failed.error from None
            if len(jobs) == 1:
                return [translated(failed.error)]
        try:
            return self._durable(lambda conn: [_attempt(conn, job.work) for job in jobs], patience)
        except _Failed as failed:
            raise failed.error from None

    def _durable(self, run: Callable[[Connection], _Outcomes], patience: float) -> _Outcomes:
        with self._engine.connect().execution_options(patience=patience) as conn, conn.begin() as transaction:
            outcomes = run(conn)
            if self._marks is not None:
                _run(conn, self._marks.leave)
            failpoints.hit("commit")
            try:
                transaction.commit()
            except DBAPIError as error:
                if self._marks is not None and is_lost(error):
                    raise _Unanswered(outcomes) from error
                raise
        return outcomes


def _pauses() -> Iterator[float]:
    pause = FIRST_PAUSE
    while True:
        yield pause
        pause = min(pause * 2, LONGEST_PAUSE)


def _run(conn: Connection, work: Callable[[Connection], Any]) -> _Done:
    """Run *work* without a SAVEPOINT, which would cost as much as the work itself."""
    try:
        return _Done(work(conn))
    except Exception as error:
        raise _Failed(error) from error


def _attempt(conn: Connection, work: Callable[[Connection], Any]) -> _Done | Exception:
    """Run *work* in a SAVEPOINT. Raises only when the whole transaction is lost."""
    savepoint = conn.begin_nested()
    try:
        value = work(conn)
        conn.execute(_PROBE)
        savepoint.commit()
        return _Done(value)
    except Exception as error:
        if is_passing(error):
            raise
        try:
            savepoint.rollback()
        except DBAPIError:
            # SQLite ends the whole transaction by itself on some errors (sqlite.org/lang_transaction.html, 2.3).
            raise error from None
        return translated(error)

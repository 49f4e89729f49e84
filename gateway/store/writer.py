"""The one thread of a process that writes: whatever waits shares one transaction, one COMMIT and one flush.

A work fails alone: a batch in which one fails is rolled back, and run again with a SAVEPOINT for each. A COMMIT that
fails, fails all. No caller hears of success before the COMMIT has returned.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from gateway import failpoints
from gateway.model import Temporary
from gateway.store.failures import translated

T = TypeVar("T")

BATCH = 64
"""Most works in one transaction."""
BACKLOG = 4096
"""Most works that wait; beyond, the store is busy."""


@dataclass(frozen=True, slots=True)
class _Done:
    value: Any


class _Failed(Exception):
    """A work raised *error*; what was done beside it in the same transaction is undone."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


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
    """Runs works in order of arrival. Any thread may submit; the thread starts with the first work."""

    def __init__(self, engine: Engine, patience: float) -> None:
        self._engine = engine
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
            self._waiting.put(job)
            self._ensure_thread()
        return job.future

    def close(self) -> None:
        """Finish what was submitted, then end the thread."""
        with self._lock:
            self._closed = True
            self._waiting.put(None)
        if self._thread is not None:
            self._thread.join()

    def _ensure_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        closing = False
        while not closing:
            batch = self._batch()
            closing = None in batch
            jobs = [job for job in batch if job is not None and job.start()]
            if jobs:
                self._commit(jobs)

    def _batch(self) -> list[_Job | None]:
        """Wait for one work, and take along what has come meanwhile."""
        batch = [self._waiting.get()]
        while len(batch) < BATCH and not self._waiting.empty():
            batch.append(self._waiting.get())
        return batch

    def _commit(self, jobs: Sequence[_Job]) -> None:
        outcomes: Sequence[_Done | Exception]
        try:
            outcomes = self._transaction(jobs)
            failpoints.hit("committed")
        except Exception as error:  # noqa: BLE001 - whatever went wrong, each caller has to hear of it
            outcomes = [translated(error)] * len(jobs)
            # After a failed flush the same descriptor may claim success for pages that were lost: take a new one.
            self._engine.dispose()
        for job, outcome in zip(jobs, outcomes, strict=True):
            job.finish(outcome)

    def _transaction(self, jobs: Sequence[_Job]) -> list[_Done | Exception]:
        try:
            with self._begun(jobs) as conn:
                return [_run(conn, job.work) for job in jobs]
        except _Failed as failed:
            if len(jobs) == 1:
                return [translated(failed.error)]
        with self._begun(jobs) as conn:
            return [_attempt(conn, job.work) for job in jobs]

    @contextmanager
    def _begun(self, jobs: Sequence[_Job]) -> Iterator[Connection]:
        patience = max(0.0, min(job.deadline for job in jobs) - time.monotonic())
        with self._engine.connect().execution_options(patience=patience) as conn, conn.begin():
            yield conn
            failpoints.hit("commit")


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
        savepoint.commit()
        return _Done(value)
    except Exception as error:  # noqa: BLE001 - it belongs to the caller of this one work
        try:
            savepoint.rollback()
        except DBAPIError:
            # SQLite ends the whole transaction by itself on some errors (sqlite.org/lang_transaction.html, 2.3).
            raise error from None
        return translated(error)

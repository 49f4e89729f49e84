"""The database: connections and transactions. `sqlite` and `postgres` say what only one of them needs, and nobody else
knows which it is.

Writes of one process go through one thread and share commits; what `write` has returned is on stable storage.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection

from gateway.model import Temporary
from gateway.store import migrations, sqlite
from gateway.store.database import Database, Remark
from gateway.store.failures import StorageFull, is_stale, translated
from gateway.store.writer import Writer

__all__ = ["StorageFull", "Store"]

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds that a write waits for its turn before it is `Temporary`."""
READERS = 4
WAITING_READS = 1000


class Store:
    """Where mail is kept. Making one opens nothing; `migrate` creates the tables, once, before the first use.

    `bell` is the path of the doorbell socket that `ring` and `wait` share between processes, where the database has
    no bell of its own. `password_file` holds the password for a database that asks for one.
    """

    def __init__(
        self, url: str, *, bell: Path | None = None, patience: float = PATIENCE, password_file: Path | None = None
    ) -> None:
        self._patience = patience
        self._database = _opened(url, patience, bell, password_file)
        self.engine = self._database.writing
        self._writer = Writer(self.engine, patience, self._database.marks)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._room = threading.BoundedSemaphore(WAITING_READS)

    def migrate(self) -> None:
        """Bring the tables to the newest version. Safe at any time, and in several processes at once."""
        with _named(), self._database.migrating(self.engine) as conn:
            migrations.upgrade(conn)

    def try_out(self) -> None:
        """Raise `Temporary` where the store cannot be used as it is; a database that answers stays as it is."""
        with _named(), self.engine.connect() as conn:
            self._database.try_out(conn)

    def remarks(self, conn: Connection) -> Sequence[Remark]:
        """What administrators want to know of the database that *conn* reads."""
        return self._database.remarks(conn)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run *work* in a transaction shared with others, and return its result when that is durable.

        *work* may run several times, each but the last undone: because another one failed beside it, or the connection
        was lost. It is run again only if it surely did not happen. It changes nothing but the database, and reads files
        from their start.

        Raises `Temporary` when the store is locked, busy or out of reach, `StorageFull` when there is no room, and
        whatever *work* raises. A caller that is cancelled early enough leaves no trace; later the write stands.
        """
        return await asyncio.wrap_future(self._writer.submit(work))

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run *work*, perhaps twice, on a snapshot in a thread. `Temporary` when the store is busy or out of reach."""
        if not self._room.acquire(blocking=False):
            raise Temporary("the store is busy")
        try:
            future = self._readers.submit(self._read, work, time.monotonic() + self._patience)
        except RuntimeError:
            self._room.release()
            raise Temporary("the store is closed") from None
        future.add_done_callback(self._leave)
        return await asyncio.wrap_future(future)

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A write transaction of the calling thread, for tools; durable when the block has ended."""
        with _named(), self.engine.begin() as conn:
            yield conn

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A snapshot to read from, in the calling thread."""
        with _named(), self._database.reading.begin() as conn:
            yield conn

    def ring(self) -> None:
        """Wake the process that waits for work. It cannot fail."""
        self._database.bell.ring()

    async def wait(self, timeout: float) -> None:  # noqa: ASYNC109 - the end of the wait is no error here
        """Return when somebody rings, at the latest after *timeout* seconds."""
        await self._database.bell.wait(timeout)

    def close(self) -> None:
        """Finish what was begun, and let go of files and threads."""
        self._writer.close()
        self._readers.shutdown()
        self._database.bell.close()
        self.engine.dispose()
        self._database.reading.dispose()

    async def aclose(self) -> None:
        """`close` without blocking the loop."""
        await asyncio.to_thread(self.close)

    def _read(self, work: Callable[[Connection], T], deadline: float) -> T:
        if time.monotonic() > deadline:
            raise Temporary("the store is busy")
        with _named():
            try:
                return self._read_once(work)
            except Exception as error:
                if not is_stale(error):
                    raise
            return self._read_once(work)  # the connection had died while nobody used it

    def _read_once(self, work: Callable[[Connection], T]) -> T:
        with self._database.reading.begin() as conn:
            return work(conn)

    def _leave(self, _future: Future[Any]) -> None:
        self._room.release()


@contextmanager
def _named() -> Iterator[None]:
    """Failures of the database by the gateway's names."""
    try:
        yield
    except Exception as error:
        cause = translated(error)
        if cause is error:
            raise
        raise cause from error


def _opened(url: str, patience: float, bell: Path | None, password_file: Path | None) -> Database:
    if url.startswith("sqlite:"):
        return sqlite.opened(url, READERS, patience, bell)
    from gateway.store import postgres  # noqa: PLC0415 - 10 MB that the others do not need

    return postgres.opened(url, READERS, patience, password_file)

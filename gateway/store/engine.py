"""The database: connections, transactions, and what only SQLite needs. No other module knows which database it is.

Writes of one process go through one thread and share commits; what `write` has returned is on stable storage.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Engine, create_engine, event, make_url

from gateway.model import Temporary
from gateway.store import migrations
from gateway.store.bell import Bell
from gateway.store.failures import StorageFull, translated
from gateway.store.turns import Turnstile
from gateway.store.writer import Writer

__all__ = ["StorageFull", "Store"]

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds that a write waits for its turn before it is `Temporary`."""
READERS = 4
WAITING_READS = 1000


class Store:
    """Where mail is kept. Making one opens nothing; `migrate` creates the tables, once, before the first use.

    `bell` is the path of the doorbell socket that `ring` and `wait` share between processes.
    """

    def __init__(self, url: str, *, bell: Path | None = None, patience: float = PATIENCE) -> None:
        self.engine = _open(url, patience, writes=True)
        self._reading = _open(url, patience, writes=False)
        self._writer = Writer(self.engine, patience)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._room = threading.BoundedSemaphore(WAITING_READS)
        self._bell = Bell(bell)

    def migrate(self) -> None:
        """Bring the tables to the newest version. Safe at any time, and in several processes at once."""
        with _named(), _alone(_file(self.engine)):
            _keep_wal(self.engine)
            with self.begin() as conn:
                migrations.upgrade(conn)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run *work* in a transaction shared with others, and return its result when that is durable.

        *work* may run twice, the first time undone because another one failed beside it: it changes nothing but the
        database, and reads files from their start.

        Raises `Temporary` when the store is locked, busy or out of reach, `StorageFull` when there is no room, and
        whatever *work* raises. A caller that is cancelled early enough leaves no trace; later the write stands.
        """
        return await asyncio.wrap_future(self._writer.submit(work))

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run *work* on a snapshot, in a thread. `Temporary` when the store is busy or out of reach."""
        if not self._room.acquire(blocking=False):
            raise Temporary("the store is busy")
        try:
            future = self._readers.submit(self._read, work)
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
        with _named(), self._reading.begin() as conn:
            yield conn

    def ring(self) -> None:
        """Wake the process that waits for work. It cannot fail."""
        self._bell.ring()

    async def wait(self, timeout: float) -> None:  # noqa: ASYNC109 - the end of the wait is no error here
        """Return when somebody rings, at the latest after *timeout* seconds."""
        await self._bell.wait(timeout)

    def close(self) -> None:
        """Finish what was begun, and let go of files and threads."""
        self._writer.close()
        self._readers.shutdown()
        self._bell.close()
        self.engine.dispose()
        self._reading.dispose()

    async def aclose(self) -> None:
        """`close` without blocking the loop."""
        await asyncio.to_thread(self.close)

    def _read(self, work: Callable[[Connection], T]) -> T:
        with self.reading() as conn:
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


def _open(url: str, patience: float, *, writes: bool) -> Engine:
    size = 1 if writes else READERS
    # Parameters are people's mail and the hashes of their passwords: no error message may quote them.
    engine = create_engine(url, pool_size=size, max_overflow=4, pool_timeout=patience, hide_parameters=True)
    if engine.dialect.name == "sqlite":
        _suit_sqlite(engine, patience, writes=writes)
    return engine


# ---- SQLite alone -------------------------------------------------------------------------------------------------


def _suit_sqlite(engine: Engine, patience: float, *, writes: bool) -> None:
    def connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        cursor = connection.cursor()
        for pragma in _pragmas(writes=writes):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def begin_reading(conn: Connection) -> None:
        _driver(conn).execute("BEGIN")

    turnstile = Turnstile(Path(f"{engine.url.database}-turn"))

    def begin_writing(conn: Connection) -> None:
        wait = conn.get_execution_options().get("patience", patience)
        turnstile.begin(_driver(conn), wait)

    event.listen(engine, "connect", connect)
    event.listen(engine, "begin", begin_writing if writes else begin_reading)


def _driver(conn: Connection) -> sqlite3.Connection:
    return cast("sqlite3.Connection", conn.connection.driver_connection)


def _pragmas(*, writes: bool) -> list[str]:
    """FULL: a commit returns after the flush of the log. Small caches: the file system keeps the pages anyway."""
    common = ["synchronous = FULL", "foreign_keys = ON", "mmap_size = 0", "trusted_schema = OFF"]
    return [*common, "cache_size = -4096"] if writes else [*common, "cache_size = -1024", "query_only = ON"]


def _file(engine: Engine) -> Path | None:
    url = make_url(engine.url)
    return Path(url.database) if engine.dialect.name == "sqlite" and url.database else None


@contextmanager
def _alone(path: Path | None) -> Iterator[None]:
    """Make the file, readable by us alone, and keep other processes from migrating it meanwhile.

    The folder is locked, not the file: closing any descriptor of the file would end SQLite's own locks on it.
    """
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if not path.exists():
            path.touch(mode=0o600)  # the log and its index get the same mode from SQLite
        yield
    finally:
        os.close(folder)


def _keep_wal(engine: Engine) -> None:
    """Write-ahead logging is kept in the file, and can only be switched on outside of a transaction."""
    if engine.dialect.name == "sqlite":
        connection = engine.raw_connection()
        try:
            connection.cursor().execute("PRAGMA journal_mode = WAL")
        finally:
            connection.close()

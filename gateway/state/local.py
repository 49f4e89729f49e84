"""The shared state in a file of this machine: for one node, and nothing to install.

One SQLite file in the run directory, written without waiting for the disk: a broken one is thrown away and made anew.
A question takes some ten microseconds, less than handing it to a thread; so it is asked at once, in the event loop,
and only waits, asleep, while another process writes.
"""

from __future__ import annotations

import asyncio
import fcntl
import random
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

from gateway.model import Temporary
from gateway.state.limits import MAX_COUNT, bounded, checked, counted

LOCK_TIMEOUT = 1.0
"""Seconds to wait for other processes."""

PAUSE = (0.0005, 0.003)
"""Seconds between two tries, chosen anew each time: processes that meet must not go on meeting."""

SWEPT = 100
"""Entries removed at once: the event loop waits for that."""

PAGE = 4096
"""Octets of a page of the file."""

_BROKEN = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_ERROR,  # a file without our table
    sqlite3.SQLITE_READONLY,  # a file that somebody has removed
}

_TABLE = (
    "CREATE TABLE IF NOT EXISTS entry (key TEXT PRIMARY KEY, value TEXT NOT NULL, expires REAL NOT NULL) WITHOUT ROWID"
)
_INDEX = "CREATE INDEX IF NOT EXISTS entry_expires ON entry (expires)"
_GET = "SELECT value FROM entry WHERE key = :key AND expires > :now"
_PUT = """INSERT INTO entry VALUES (:key, :value, :expires)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires = excluded.expires"""
_ADD = """INSERT INTO entry VALUES (:key, :amount, :expires) ON CONFLICT (key) DO UPDATE SET
    value = iif(expires <= :now, :amount, max(-:most, min(:most, CAST(value AS INTEGER) + :amount))),
    expires = iif(expires <= :now, :expires, min(expires, :expires)) RETURNING value"""
# A claim keeps when it was made: one from the future was made before somebody put the clock back. Of two processes at
# once, the second to write may have been the first to read the clock.
_CLAIM = """INSERT INTO entry VALUES (:key, :now, :expires)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires = excluded.expires
    WHERE entry.expires <= :now OR CAST(entry.value AS REAL) > :now + 5"""
_SWEEP = "DELETE FROM entry WHERE key IN (SELECT key FROM entry WHERE expires <= :now ORDER BY expires LIMIT :some)"
_TRIM = "DELETE FROM entry WHERE key IN (SELECT key FROM entry ORDER BY expires LIMIT :some)"
_PAGES = "SELECT page_count - freelist_count FROM pragma_page_count(), pragma_freelist_count()"

T = TypeVar("T")


class LocalState:
    """`gateway.model.Shared` on the file `path`; any number of processes may open it at the same time.

    About `max_size` octets are kept, some hundred thousand entries: past that, those that expire soonest go first.
    `clock` gives seconds since the epoch.
    """

    def __init__(self, path: Path, max_size: int = 64 << 20, clock: Callable[[], float] = time.time) -> None:
        self._path, self._max_size, self._clock = path, max_size, clock
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._unswept = 0

    @property
    def place(self) -> Path:
        """Where it is."""
        return self._path

    async def get(self, key: str) -> str | None:
        """The value of *key*, or None where there is none or its time is over."""
        row = await self._do(lambda connection: connection.execute(_GET, self._values(key)).fetchone())
        return None if row is None else str(row[0])

    async def put(self, key: str, value: str, ttl: float) -> None:
        """Keep *value* under *key* for *ttl* seconds. ValueError above `MAX_VALUE`."""
        values = self._values(key, ttl) | {"value": checked(value)}
        await self._write(lambda connection: connection.execute(_PUT, values))

    async def add(self, key: str, amount: int, ttl: float) -> int:
        """Add *amount* to the counter *key* and return it. The first amount starts the *ttl* seconds it lives."""
        return await self._write(lambda connection: self._added(connection, key, amount, ttl))

    async def add_all(self, amounts: Mapping[str, int], ttl: float) -> Sequence[int]:
        """`add` for each of *amounts*, all or none."""
        return await self._write(lambda connection: self._all_added(connection, amounts, ttl), len(amounts))

    async def claim(self, key: str, ttl: float) -> bool:
        """Whether the caller is the first to claim *key* within *ttl* seconds."""
        cursor = await self._write(lambda connection: connection.execute(_CLAIM, self._values(key, ttl)))
        return cursor.rowcount == 1

    async def aclose(self) -> None:
        """Let go of the file."""
        self.close()

    def close(self) -> None:
        """Let go of the file, from outside the event loop."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    def _values(self, key: str, ttl: float = 0.0) -> dict[str, str | float]:
        now = self._clock()
        return {"key": bounded(key), "now": now, "expires": now + ttl}

    def _added(self, connection: sqlite3.Connection, key: str, amount: int, ttl: float) -> int:
        if amount == 0:
            row = connection.execute(_GET, self._values(key)).fetchone()
            return 0 if row is None else int(row[0])
        values = self._values(key, ttl) | {"amount": counted(amount), "most": MAX_COUNT}
        return int(connection.execute(_ADD, values).fetchone()[0])

    def _all_added(self, connection: sqlite3.Connection, amounts: Mapping[str, int], ttl: float) -> list[int]:
        connection.execute("BEGIN IMMEDIATE")
        try:
            counts = [self._added(connection, key, amount, ttl) for key, amount in amounts.items()]
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        return counts

    async def _write(self, work: Callable[[sqlite3.Connection], T], entries: int = 1) -> T:
        self._unswept += entries
        if self._unswept >= SWEPT // 2:  # so that more goes than comes
            self._unswept = 0
            await self._do(self._sweep)
        return await self._do(work)

    def _sweep(self, connection: sqlite3.Connection) -> None:
        connection.execute(_SWEEP, {"now": self._clock(), "some": SWEPT})
        if connection.execute(_PAGES).fetchone()[0] * PAGE > self._max_size:
            connection.execute(_TRIM, {"some": SWEPT})

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run *work* as soon as no other process has the file."""
        deadline = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                return self._now(work)
            except (sqlite3.DatabaseError, OSError) as error:
                if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise Temporary("the shared state is out of reach") from None
            await asyncio.sleep(random.uniform(*PAUSE))  # noqa: S311  nothing secret

    def _now(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run *work*; on a broken file once more, on a new one."""
        try:
            return work(self._connected())
        except sqlite3.DatabaseError as error:
            if _code(error) not in _BROKEN:
                raise
        self._throw_away()
        return work(self._connected())

    def _connected(self) -> sqlite3.Connection:
        """The open connection; a new one where another process has replaced the file meanwhile."""
        if self._connection is None or _inode(self._path) != self._inode:
            self.close()
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.touch(mode=0o600)
        self._inode = _inode(self._path)
        connection = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            # No side files: a journal that outlived its database would be played into the next one.
            connection.execute(f"PRAGMA page_size = {PAGE}")
            for statement in ("PRAGMA journal_mode = MEMORY", "PRAGMA synchronous = OFF", _TABLE, _INDEX):
                connection.execute(statement)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _throw_away(self) -> None:
        """Remove the broken file, unless another process was quicker and has made a new one.

        A new one with the same inode number is taken for the old: then its first counts are lost, and no more.
        """
        lock = self._path.with_name(self._path.name + ".lock")
        with closing(lock.open("ab")) as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _inode(self._path) == self._inode:
                self._path.unlink(missing_ok=True)
        self.close()


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def _code(error: Exception) -> int:
    """The primary result code of SQLite; 0 where the error came from elsewhere."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF

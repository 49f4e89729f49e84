"""Small values and counters that all processes of this machine share, and that may be lost.

They live in one SQLite file of the run directory, written without waiting for the disk: a broken file is thrown away
and made anew. What must not be lost belongs to the store.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

from gateway.model import Temporary

MAX_KEY = 200
"""Characters of a key; a longer one is kept as its hash."""

MAX_VALUE = 4096
"""Characters of a value."""

MAX_COUNT = 1 << 53
"""No counter goes further from zero."""

LOCK_TIMEOUT = 1.0
"""Seconds to wait for another process."""

_BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_ERROR}
# SQLITE_ERROR is what a file without our table says.

_TABLE = (
    "CREATE TABLE IF NOT EXISTS entry (key TEXT PRIMARY KEY, value TEXT NOT NULL, expires REAL NOT NULL) WITHOUT ROWID"
)
_GET = "SELECT value FROM entry WHERE key = :key AND expires > :now"
_PUT = """INSERT INTO entry VALUES (:key, :value, :expires)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires = excluded.expires"""
_ADD = """INSERT INTO entry VALUES (:key, :amount, :expires) ON CONFLICT (key) DO UPDATE SET
    value = iif(expires <= :now, :amount, max(-:most, min(:most, CAST(value AS INTEGER) + :amount))),
    expires = iif(expires <= :now, :expires, expires) RETURNING value"""
_CLAIM = """INSERT INTO entry VALUES (:key, '1', :expires)
    ON CONFLICT (key) DO UPDATE SET value = '1', expires = excluded.expires WHERE entry.expires <= :now"""
_SWEEP = "DELETE FROM entry WHERE expires <= :now"
_TRIM = """DELETE FROM entry WHERE key IN (SELECT key FROM entry ORDER BY expires
    LIMIT max(0, (SELECT count(*) FROM entry) - :most))"""

T = TypeVar("T")


class LocalState:
    """`gateway.model.Shared` on the file `path`; any number of processes may open it at the same time.

    About `max_keys` keys are kept: past that, those that expire soonest go first. `clock` gives seconds since the
    epoch; the plain twins of the async methods are for callers without an event loop.
    """

    def __init__(self, path: Path, max_keys: int = 100_000, clock: Callable[[], float] = time.time) -> None:
        self._path, self._max_keys, self._clock = path, max_keys, clock
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._writes = 0
        self._thread = ThreadPoolExecutor(1, "state")

    async def get(self, key: str) -> str | None:
        """The value of *key*, or None where there is none or its time is over."""
        return await self._in_thread(self.get_now, key)

    async def put(self, key: str, value: str, ttl: float) -> None:
        """Keep *value* under *key* for *ttl* seconds. ValueError above `MAX_VALUE`."""
        await self._in_thread(self.put_now, key, value, ttl)

    async def add(self, key: str, amount: int, ttl: float) -> int:
        """Add *amount* to the counter *key* and return it. The first amount starts the *ttl* seconds it lives."""
        return await self._in_thread(self.add_now, key, amount, ttl)

    async def claim(self, key: str, ttl: float) -> bool:
        """Whether the caller is the first to claim *key* within *ttl* seconds."""
        return await self._in_thread(self.claim_now, key, ttl)

    def get_now(self, key: str) -> str | None:
        """`get`, at once. Use either the async or the plain methods of one object, never both."""
        row = self._do(lambda connection: connection.execute(_GET, self._values(key)).fetchone())
        return None if row is None else str(row[0])

    def put_now(self, key: str, value: str, ttl: float) -> None:
        """`put`, at once."""
        if len(value) > MAX_VALUE:
            raise ValueError(f"a shared value may have {MAX_VALUE} characters")
        self._write(lambda connection: connection.execute(_PUT, self._values(key, ttl) | {"value": value}))

    def add_now(self, key: str, amount: int, ttl: float) -> int:
        """`add`, at once."""
        values = self._values(key, ttl) | {"amount": max(-MAX_COUNT, min(MAX_COUNT, amount)), "most": MAX_COUNT}
        return int(self._write(lambda connection: connection.execute(_ADD, values).fetchone())[0])

    def claim_now(self, key: str, ttl: float) -> bool:
        """`claim`, at once."""
        values = self._values(key, ttl)
        return self._write(lambda connection: connection.execute(_CLAIM, values)).rowcount == 1

    def close(self) -> None:
        """Let go of the file."""
        self._thread.shutdown()
        self._disconnect()

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _values(self, key: str, ttl: float = 0.0) -> dict[str, str | float]:
        now = self._clock()
        return {"key": _bounded(key), "now": now, "expires": now + ttl}

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._writes += 1
        if self._writes % max(1, self._max_keys // 100) == 0:
            self._do(self._sweep)
        return self._do(work)

    def _sweep(self, connection: sqlite3.Connection) -> None:
        connection.execute(_SWEEP, {"now": self._clock()})
        connection.execute(_TRIM, {"most": self._max_keys})

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run *work*; on a broken file once more, on a new one."""
        try:
            return self._attempt(work)
        except sqlite3.DatabaseError as error:
            if _code(error) not in _BROKEN:
                raise Temporary("the shared state is out of reach") from None
        try:
            self._throw_away()
            return self._attempt(work)
        except (sqlite3.DatabaseError, OSError):
            raise Temporary("the shared state is out of reach") from None

    def _attempt(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return work(self._connected())
        except OSError:
            raise Temporary("the shared state is out of reach") from None

    def _connected(self) -> sqlite3.Connection:
        """The open connection; a new one where another process has replaced the file meanwhile."""
        if self._connection is None or _inode(self._path) != self._inode:
            self._disconnect()
            self._connect()
        assert self._connection is not None  # noqa: S101  (for the type checker: _connect set it)
        return self._connection

    def _connect(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.touch(mode=0o600)
        self._inode = _inode(self._path)
        self._connection = sqlite3.connect(
            self._path, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        # No side files: a journal that outlived its database would be played into the next one.
        self._connection.execute("PRAGMA journal_mode = MEMORY")
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute(_TABLE)

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    def _throw_away(self) -> None:
        """Remove the broken file, unless another process was quicker and has made a new one."""
        lock = self._path.with_name(self._path.name + ".lock")
        with closing(lock.open("ab")) as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            if _inode(self._path) == self._inode:  # still open here, so no new file can have got its number
                self._path.unlink(missing_ok=True)
        self._disconnect()


def _bounded(key: str) -> str:
    return key if len(key) <= MAX_KEY else hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def _code(error: sqlite3.Error) -> int:
    """The primary result code of SQLite; 0 where the error came from elsewhere."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF

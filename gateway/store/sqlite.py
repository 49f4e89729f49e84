"""What only SQLite needs: a file for us alone, a log that is flushed at every commit, turns between processes."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Connection, Engine, create_engine, event

from gateway.store.bell import Bell
from gateway.store.database import Database
from gateway.store.turns import Turnstile


def opened(url: str, readers: int, patience: float, bell: Path | None) -> Database:
    """The file of *url*, with *readers* connections to read it; a write waits for its turn for *patience* seconds.

    *bell* is the path of the doorbell socket that the processes of this node share.
    """
    writing = _engine(url, 1, patience, writes=True)
    reading = _engine(url, readers, patience, writes=False)
    return Database(writing, reading, _migrating, Bell(bell))


def _engine(url: str, size: int, patience: float, *, writes: bool) -> Engine:
    # Parameters are people's mail and the hashes of their passwords: no error message may quote them.
    engine = create_engine(url, pool_size=size, max_overflow=4, pool_timeout=patience, hide_parameters=True)

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
    return engine


@contextmanager
def _migrating(engine: Engine) -> Iterator[Connection]:
    """A transaction in which no other process migrates the file, which is made where there is none."""
    with _alone(Path(engine.url.database or "")):
        _keep_wal(engine)
        with engine.begin() as conn:
            yield conn


def _driver(conn: Connection) -> sqlite3.Connection:
    return cast("sqlite3.Connection", conn.connection.driver_connection)


def _pragmas(*, writes: bool) -> list[str]:
    """FULL: a commit returns after the flush of the log. Small caches: the file system keeps the pages anyway."""
    common = ["synchronous = FULL", "foreign_keys = ON", "mmap_size = 0", "trusted_schema = OFF"]
    return [*common, "cache_size = -4096"] if writes else [*common, "cache_size = -1024", "query_only = ON"]


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Make the file, readable by us alone, and keep other processes from migrating it meanwhile.

    The folder is locked, not the file: closing any descriptor of the file would end SQLite's own locks on it.
    """
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
    connection = engine.raw_connection()
    try:
        connection.cursor().execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()

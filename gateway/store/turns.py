"""Taking turns between processes that write to one SQLite file.

SQLite lets the first who asks have the lock, and who waits asks ever more rarely: a busy process would starve the
others. So whoever wants the lock first takes a place at a turnstile, and only the one inside asks. It is a courtesy
with a time limit: what keeps transactions apart is SQLite's lock alone.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

COURTESY = 0.25
"""Seconds to wait for a place. A child of a killed process could hold it for longer."""
PAUSE = 0.001


class Turnstile:
    """Who may ask for the lock next; *path* is a file for this alone, made when first used."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self, connection: sqlite3.Connection, patience: float) -> None:
        """Begin a write transaction, or raise `sqlite3.OperationalError` after *patience* seconds."""
        deadline = time.monotonic() + patience
        connection.execute("PRAGMA busy_timeout = 0")
        with self._place(min(deadline, time.monotonic() + COURTESY)):
            if not _until(deadline, lambda: _begins(connection)):
                connection.execute("BEGIN IMMEDIATE")
        connection.execute(f"PRAGMA busy_timeout = {int(patience * 1000)}")

    @contextmanager
    def _place(self, deadline: float) -> Iterator[None]:
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:  # no descriptor or no room for a courtesy
            yield
            return
        try:
            _until(deadline, lambda: _locks(file))
            yield
        finally:
            with suppress(OSError):  # closing alone would leave the lock to a child that was forked meanwhile
                fcntl.flock(file, fcntl.LOCK_UN)
            os.close(file)


def _until(deadline: float, succeeds: Callable[[], bool]) -> bool:
    """Try until it succeeds, or *deadline* has passed."""
    while not succeeds():
        if time.monotonic() >= deadline:
            return False
        time.sleep(PAUSE)
    return True


def _locks(file: int) -> bool:
    """Whether the wait has an end: the place is ours, or there are none to be had (flock(2), ENOLCK)."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _begins(connection: sqlite3.Connection) -> bool:
    """A transaction that begins as a reader and then writes cannot wait for its turn, so we say IMMEDIATE."""
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True

"""What the database's failures mean to the gateway: later, later when there is room again, or a fault of ours."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, NotSupportedError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from gateway.model import Temporary

_OURS = (DataError, IntegrityError, NotSupportedError, ProgrammingError)
_DISK_FULL = "53100"  # PostgreSQL's SQLSTATE disk_full


class StorageFull(Temporary):
    """There is no room on the disk, or none that the store may use."""


def translated(error: Exception) -> Exception:
    """`Temporary` in place of what the database could not do now; any other *error* as it is."""
    if isinstance(error, PoolTimeout):
        return Temporary("the store has no connection free")
    if not isinstance(error, (DBAPIError, sqlite3.Error)) or isinstance(error, _OURS):
        return error
    cause = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # the primary code; the rest is detail
    if code == sqlite3.SQLITE_FULL or getattr(cause, "sqlstate", "") == _DISK_FULL:
        return StorageFull("the store is full")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Temporary("the store is locked")
    name = getattr(cause, "sqlite_errorname", "") or getattr(cause, "sqlstate", "")  # constants; texts may quote values
    return Temporary(f"the store is out of reach ({name})" if name else "the store is out of reach")

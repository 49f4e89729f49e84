"""What the database's failures mean to the gateway: later, later when there is room again, or a fault of ours.

What `is_passing` may be done again soon. A COMMIT that `is_lost` leaves open whether it happened.
"""

from __future__ import annotations

import errno
import re
import sqlite3

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, NotSupportedError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from gateway.model import Temporary

_OURS = (DataError, IntegrityError, NotSupportedError, ProgrammingError)
# SQLSTATEs of PostgreSQL (its documentation, appendix A)
_DISK_FULL = "53100"
_LOCKED = {"55P03", "57014"}  # lock_not_available, query_canceled: by our own limits
_RIGHTS = {"42501", "28000", "28P01"}  # insufficient_privilege, invalid_authorization_specification, invalid_password
_CONFLICT = {"40001", "40P01"}  # serialization_failure, deadlock_detected
# read_only_sql_transaction: the primary has become a standby; admin_shutdown, crash_shutdown, cannot_connect_now
_AWAY = {"25006", "57P01", "57P02", "57P03"}


class StorageFull(Temporary):
    """There is no room on the disk, or none that the store may use."""


class Unfit(Temporary):
    """The database cannot be used as it is. The text says why, `key` where in gatepost.toml, `cure` what helps."""

    def __init__(self, problem: str, cure: str = "", key: str = "store.url") -> None:
        super().__init__(problem)
        self.cure = cure
        self.key = key


_START = "see that PostgreSQL runs there, and that this machine may reach it"
_FILE = "store.password_file"
_REFUSALS = (
    ("no password supplied", "the server asks for a password", "name a file that holds it", _FILE),
    ("password authentication failed", "the password is not that of the user", "correct the file", _FILE),
    ("pg_hba.conf", "the server does not let this user in from here", "add a line to pg_hba.conf", "store.url"),
    ('role ".*" does not exist', "the server does not know the user", "createuser", "store.url"),
    ('database ".*" does not exist', "the server has no such database", "createdb", "store.url"),
    ("read-only", "only a standby answers", "name the primary too, or promote the standby", "store.url"),
    ("too many clients|connection slots", "the server has no connection free", "raise max_connections", "store.url"),
    ("resolve host|translate host", "the name of the server is not known", "correct it, or the DNS", "store.url"),
    ("SSL|certificate", "TLS to the server fails", "see sslmode and sslrootcert of libpq", "store.url"),
    ("starting up|shutting down", "the server is about to start or stop", "wait", "store.url"),
    ("", "no server answers", _START, "store.url"),
)
"""What libpq says where it gets no connection: it has no codes for that. A server may say it in another language."""


def translated(error: Exception) -> Exception:
    """`Temporary` in place of what database or machine could not do now; any other *error* as it is."""
    if isinstance(error, PoolTimeout):
        return Temporary("the store has no connection free")
    if isinstance(error, OSError):  # a lock, a wait or a file that the kernel denied: it says nothing about the work
        name = errno.errorcode.get(error.errno or 0, type(error).__name__)
        return Temporary(f"the machine failed the store ({name})")
    if not isinstance(error, (DBAPIError, sqlite3.Error)):
        return error
    if is_refused(error):
        return _refusal(str(error))
    if sqlstate(error) in _RIGHTS:
        return Unfit(f"the store does not let us ({sqlstate(error)})", "grant our user the rights on its database")
    return error if isinstance(error, _OURS) else _temporary(error)


def _refusal(said: str) -> Unfit:
    problem, cure, key = next(words for pattern, *words in _REFUSALS if re.search(pattern, said))
    return Unfit(f"the store is out of reach: {problem}", cure, key)


def _temporary(error: DBAPIError | sqlite3.Error) -> Temporary:
    cause = error.orig if isinstance(error, DBAPIError) else error
    whole = getattr(cause, "sqlite_errorcode", 0)
    code = whole & 0xFF  # the primary code; the rest is detail
    state = sqlstate(error)
    # SHMSIZE: no room for the index of the log, the first thing that is made when the store is opened
    if code == sqlite3.SQLITE_FULL or whole == sqlite3.SQLITE_IOERR_SHMSIZE or state == _DISK_FULL:
        return StorageFull("the store is full")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or state in _LOCKED:
        return Temporary("the store is locked")
    name = getattr(cause, "sqlite_errorname", "") or state  # constants; texts may quote values
    return Temporary(f"the store is out of reach ({name})" if name else "the store is out of reach")


def sqlstate(error: BaseException) -> str:
    """The five characters by which PostgreSQL names *error*; "" where it has not named it."""
    return getattr(getattr(error, "orig", error), "sqlstate", "") or ""


def is_refused(error: BaseException) -> bool:
    """Whether the driver got no connection: what it says then has no code."""
    if not isinstance(error, OperationalError) or isinstance(error.orig, sqlite3.Error):
        return False
    return not error.connection_invalidated and not sqlstate(error)


def is_lost(error: BaseException) -> bool:
    """Whether there is no connection (any more), or only one to a server that takes no writes (any more)."""
    if not isinstance(error, DBAPIError) or isinstance(error.orig, sqlite3.Error):
        return False
    return error.connection_invalidated or is_refused(error) or sqlstate(error) in _AWAY


def is_stale(error: BaseException) -> bool:
    """Whether a connection turned out to be gone that was there before: a new one may be had at once."""
    return isinstance(error, DBAPIError) and error.connection_invalidated


def is_passing(error: BaseException) -> bool:
    """Whether the same work may succeed on another connection, or when others have finished theirs."""
    return is_lost(error) or (isinstance(error, DBAPIError) and sqlstate(error) in _CONFLICT)

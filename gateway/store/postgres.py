"""What only PostgreSQL needs: connections on which every wait has an end, and a server that keeps what it confirms.

Several hosts may be named; whichever of them takes writes is the one we talk to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, func, make_url, select

from gateway.store.failures import Unfit
from gateway.store.watch import Watch

OLDEST = 14
"""The oldest major version that we run on."""
CONNECT = 5.0
"""Seconds that one host has to let us in."""
SLACK = 1.2
"""How much longer than it may wait a connection is let be, so that the server can say itself that it was too long."""
IDLE_READING = 600.0
"""Seconds after which the server ends a snapshot in which nothing is asked."""
_MIGRATING = 0x67617465_706F7374
"""The advisory lock under which one process migrates; the number says "gatepost"."""


def opened(url: str, size: int, patience: float, *, writes: bool, password_file: Path | None = None) -> Engine:
    """Up to *size* connections to the server of *url*; none waits for longer than *patience* seconds.

    Reads see a snapshot. The password is read at each new connection, so that it can be changed meanwhile.
    """
    engine = create_engine(
        url,
        pool_size=size,
        max_overflow=4,
        pool_timeout=patience,
        hide_parameters=True,  # people's mail and the hashes of their passwords: no error message may quote them
        use_native_hstore=False,
        isolation_level="READ COMMITTED" if writes else "REPEATABLE READ",
        connect_args=_words(make_url(url).query, patience),
    )
    limits = _limits(patience, patience if writes else IDLE_READING)

    def authenticate(_dialect: object, _record: object, _words: object, words: dict[str, Any]) -> None:
        if password_file is not None:
            words["password"] = _password(password_file)

    def connect(connection: Any, _record: object) -> None:
        try:
            _prepare(connection, limits, writes=writes)
        except BaseException:
            connection.close()
            raise

    event.listen(engine, "do_connect", authenticate)
    event.listen(engine, "connect", connect)
    Watch(patience * SLACK).over(engine)
    return engine


@contextmanager
def migrating(engine: Engine) -> Iterator[Connection]:
    """A transaction in which nobody else migrates the database, on whichever node; it may take its time."""
    with engine.begin() as conn:
        conn.execute(select(func.pg_advisory_xact_lock(_MIGRATING)))
        conn.execute(select(func.set_config("statement_timeout", "0", True)))
        Watch.spare(conn)
        yield conn


def _words(named: Mapping[str, Any], patience: float) -> dict[str, str]:
    """Parameters of libpq (its documentation, 34.1.2), those that the URL names aside.

    A peer that is gone without a word is noticed by keepalives and by what it does not acknowledge; one that is there
    and says nothing, by the server's own limits and by `Watch`.
    """
    words = {
        "application_name": "gatepost",
        "client_encoding": "UTF8",
        "target_session_attrs": "read-write",
        "connect_timeout": f"{CONNECT:.0f}",
        "keepalives_idle": "10",
        "keepalives_interval": "5",
        "keepalives_count": "3",
        "tcp_user_timeout": f"{patience * 1000:.0f}",
    }
    return {name: value for name, value in words.items() if name not in named}


def _limits(patience: float, idle: float) -> dict[str, str]:
    """The server's own limits, in milliseconds: what we no longer wait for, it need not do."""
    wait = f"{patience * 1000:.0f}"
    return {
        "statement_timeout": wait,
        "lock_timeout": wait,
        "idle_in_transaction_session_timeout": f"{idle * 1000:.0f}",
    }


def _password(path: Path) -> str:
    try:
        return path.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeError):
        raise Unfit("the file that [store] password_file names cannot be read") from None


def _prepare(connection: Any, limits: Mapping[str, str], *, writes: bool) -> None:
    """Set the limits, and look whether what this server confirms will still be there after a power cut."""
    connection.autocommit = True
    setting = ", ".join("set_config(%s, %s, false)" for _ in limits)
    words = [word for limit in limits.items() for word in limit]
    row = connection.execute(
        f"SELECT current_setting('synchronous_commit'), current_setting('fsync'), {setting}",
        words,
    ).fetchone()
    connection.autocommit = False
    connection.read_only = not writes
    _check(connection.info.server_version, *row[:2])


def _check(version: int, synchronous_commit: str, fsync: str) -> None:
    if version < OLDEST * 10_000:
        raise Unfit(f"the database is PostgreSQL {version // 10_000}, and {OLDEST} is the oldest that will do")
    if synchronous_commit == "off":
        raise Unfit("the database confirms what it has not kept yet: its setting synchronous_commit is off")
    if fsync == "off":
        raise Unfit("the database confirms what it has not kept yet: its setting fsync is off")

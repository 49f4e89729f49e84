"""What only PostgreSQL needs: connections on which every wait has an end, and a server that keeps what it confirms.

Several hosts may be named; whichever of them takes writes is the one we talk to.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import psycopg
from psycopg.errors import Diagnostic
from sqlalchemy import Connection, Engine, create_engine, event, func, select

from gateway.store import migrations
from gateway.store.database import Database, Remark
from gateway.store.failures import Unfit
from gateway.store.marks import Marks
from gateway.store.notify import Notifications
from gateway.store.watch import Watch

OLDEST = 14
"""The oldest major version that we run on."""
CONNECT = 5.0
"""Seconds that one host has to let us in, at most; libpq knows no less than 2."""
SLACK = 1.2
"""How much longer than it may wait a connection is let be, so that the server can say itself that it was too long."""
IDLE_READING = 600.0
"""Seconds after which the server ends a snapshot in which nothing is asked."""
CLOCKS = 2.0
"""Seconds that the clocks of nodes and database may be apart: leases are told by them."""
_MIGRATING = 0x67617465_706F7374
"""The advisory lock under which one process migrates; the number says "gatepost"."""


def opened(url: str, readers: int, patience: float, password_file: Path | None = None) -> Database:
    """The database of *url*: one connection to write with, *readers* to read. None waits longer than *patience* s.

    The password is read at each new connection, so that it can be changed meanwhile.
    """
    writing, reading = (_engine(url, size, patience, password_file) for size in (1, readers))
    _limit(writing, _limits(patience, patience), "READ COMMITTED")
    _limit(reading, _limits(patience, IDLE_READING), "REPEATABLE READ", read_only=True)
    words = partial(_words, reading, patience, password_file)
    return Database(writing, reading, _migrating, Notifications(reading, words), Marks(), _try, _remarks)


class Connected(psycopg.Connection[Any]):
    """A connection on which a COMMIT that the server confirms with a warning counts as not answered.

    The server warns where the wait for a standby was cancelled: the transaction may be lost with the server.
    """

    _warned = False

    def heed(self, said: Diagnostic) -> None:
        """Note what the server remarks beside its answers."""
        self._warned = self._warned or said.severity_nonlocalized == "WARNING"

    def commit(self) -> None:
        """COMMIT; `OperationalError`, and no connection any more, where its outcome is in doubt."""
        self._warned = False
        super().commit()
        if self._warned:
            self.close()
            raise psycopg.OperationalError("the commit was confirmed with a warning")


def _engine(url: str, size: int, patience: float, password_file: Path | None) -> Engine:
    engine = create_engine(
        url,
        pool_size=size,
        max_overflow=4,
        pool_timeout=patience,
        hide_parameters=True,  # people's mail and the hashes of their passwords: no error message may quote them
        use_native_hstore=False,
    )

    def connect(*_: object) -> Connected:
        try:
            return Connected.connect(**_words(engine, patience, password_file))
        except psycopg.ProgrammingError:
            raise Unfit("the URL of the store has an unknown option", "use the parameters of libpq") from None

    event.listen(engine, "do_connect", connect)
    return engine


def _limit(engine: Engine, limits: Mapping[str, str], isolation: str, *, read_only: bool = False) -> None:
    def prepare(connection: Connected, _record: object) -> None:
        try:
            _prepare(connection, limits)
            connection.isolation_level = psycopg.IsolationLevel[isolation.replace(" ", "_")]
            connection.read_only = read_only
        except BaseException:
            connection.close()
            raise

    event.listen(engine, "connect", prepare)
    watch = Watch(float(limits["statement_timeout"]) / 1000 * SLACK)
    watch.over(engine)


@contextmanager
def _migrating(engine: Engine) -> Iterator[Connection]:
    """A transaction in which nobody else migrates the database, on whichever node; it may take its time."""
    with engine.begin() as conn:
        conn.execute(select(func.pg_advisory_xact_lock(_MIGRATING)))
        conn.execute(select(func.set_config("statement_timeout", "0", True)))
        Watch.spare(conn)
        yield conn


def _words(engine: Engine, patience: float, password_file: Path | None) -> dict[str, Any]:
    """Parameters of libpq (its documentation, 34.1.2); those that the URL names come first.

    A peer that is gone without a word is noticed by keepalives and by what it does not acknowledge; one that is there
    and says nothing, by the server's own limits and by `Watch`.
    """
    words: dict[str, Any] = {
        "application_name": "gatepost",
        "client_encoding": "UTF8",
        "target_session_attrs": "read-write",
        "connect_timeout": max(2, int(min(CONNECT, patience))),
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": int(patience * 1000),
        **engine.dialect.create_connect_args(engine.url)[1],
    }
    return words if password_file is None else {**words, "password": _password(password_file)}


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
        problem = "the store is out of reach: the file with its password cannot be read"
        raise Unfit(problem, "let our user read it", "store.password_file") from None


def _prepare(connection: Connected, limits: Mapping[str, str]) -> None:
    """Set the limits, and look whether what this server confirms will still be there after a power cut."""
    connection.add_notice_handler(connection.heed)
    connection.autocommit = True
    for name, value in limits.items():
        connection.execute("SELECT set_config(%s, %s, false)", (name, value))
    kept = {
        name: connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
        for name in ("synchronous_commit", "fsync")
    }
    connection.autocommit = False
    version = connection.info.server_version // 10_000
    if version < OLDEST:
        raise Unfit(f"the store is PostgreSQL {version}, and too old", f"move it to PostgreSQL {OLDEST} or newer")
    for name, row in kept.items():
        if row == ("off",):
            raise Unfit(f"the store confirms what it has not kept yet: {name} is off", f"set {name} = on there")


def _try(conn: Connection) -> None:
    """Raise what is wrong with the database beyond that it cannot be reached; leave no trace."""
    clock = conn.scalar(select(func.extract("epoch", func.clock_timestamp())))
    apart = abs(time.time() - float(clock or 0))
    if apart > CLOCKS:
        raise Unfit(f"the clock of this machine is {apart:.0f} s off that of the store", "set both by NTP")
    if migrations.is_current(conn):
        Marks().leave(conn)
    elif not conn.scalar(select(func.has_schema_privilege(func.current_schema(), "CREATE"))):
        raise Unfit("the store does not let us make our tables", "make our user the owner of the database")
    conn.rollback()


def _remarks(conn: Connection) -> Sequence[Remark]:
    """Which server it is, and, where several are named, whether another has what it confirms."""
    server = cast("Connected", conn.connection.driver_connection).info
    version, host = server.server_version, server.host
    remarks = [Remark("database", ok=True, text=f"PostgreSQL {version // 10_000}.{version % 10_000} at {host}")]
    if "," in str(_words(conn.engine, 0.0, None).get("host", "")):
        waits = conn.scalar(select(func.current_setting("synchronous_standby_names")))
        level = conn.scalar(select(func.current_setting("synchronous_commit")))
        ok = bool(waits) and level not in ("local", "remote_write")
        text = "commits wait for it" if ok else "no commit waits for one: mail may be lost in a failover"
        remarks.append(Remark("standby", ok, text))
    return remarks

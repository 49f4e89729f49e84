"""PostgreSQL from Debian: a cluster of its own on a unix socket, flushing as it does by itself, and standbys of it."""

import os
import secrets
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from tests.peers import processes

PROGRAMS = Path("/usr/lib/postgresql")
USER = "gatepost"
SYSTEM_USER = "postgres"  # the server refuses to run as root
PORT = 5432  # a part of the socket's name, and no port of this machine
GUARDED = "local all +guarded scram-sha-256"  # members of this role have to show a password
READY = 20.0


@dataclass(frozen=True)
class Postgres:
    """A server; `directory` holds its socket and `data` its files."""

    directory: Path
    process: processes.Process

    @property
    def data(self) -> Path:
        return self.directory / "data"

    def url(self, database: str = "postgres", user: str = USER, **options: str) -> str:
        """How the store names *database*."""
        return url([self], database, user, **options)

    @contextmanager
    def connect(self, database: str = "postgres", user: str = USER) -> Iterator["psycopg.Connection[tuple[object]]"]:
        """A connection without transactions."""
        with psycopg.connect(
            host=str(self.directory), port=PORT, dbname=database, user=user, autocommit=True
        ) as connection:
            yield connection

    def execute(self, statement: str, *values: object, database: str = "postgres") -> list[tuple[object, ...]]:
        """What *statement* returns; an empty list where it returns nothing."""
        with self.connect(database) as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def create(self, template: str = "template1") -> str:
        """The name of a new database."""
        name = f"test_{secrets.token_hex(6)}"
        words = map(sql.Identifier, (name, template))
        with self.connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*words))
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is connected to it."""
        with self.connect() as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def wait_for_standby(self, *, wait: bool = True) -> None:
        """From now on a COMMIT waits until a standby has it too, as a failover without loss needs; or no longer."""
        if wait:
            synchronous = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"
            self.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            self.execute("SELECT pg_reload_conf()")
            processes.wait_until(lambda: self.execute(synchronous), 20, "a synchronous standby")
        else:
            self.execute("ALTER SYSTEM RESET synchronous_standby_names")
            self.execute("SELECT pg_reload_conf()")

    def promote(self) -> None:
        """Make a standby a primary; returns when it takes writes."""
        done = processes.complete([*_as_server(), _program("pg_ctl"), "promote", "-D", self.data], self.directory)
        assert done.code == 0, done.text

    def pause(self) -> None:
        """Stop all processes of the server, as a machine that hangs."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def kill(self) -> None:
        """End all processes of the server at once, as a machine that loses its power."""
        self._signal_all(signal.SIGKILL)

    def shut_down(self) -> None:
        """End the server in order, without waiting for its clients: they are told so."""
        os.kill(self.process.pid, signal.SIGINT)
        processes.wait_until(lambda: not self.process.alive(), 20, "the server to end")

    def _signal_all(self, number: signal.Signals) -> None:
        """The postmaster first, that it starts no others; each child is in a group of its own."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        os.kill(self.process.pid, signal.SIGSTOP)
        for pid in [*map(int, children.read_text().split()), self.process.pid]:
            os.kill(pid, number)


def url(servers: Sequence[Postgres], database: str, user: str = USER, **options: str) -> str:
    """How the store names *database*, on whichever of *servers* is the primary."""
    hosts = ",".join(str(one.directory) for one in servers)
    words = [f"{key}={quote(value)}" for key, value in {"host": hosts, **options}.items()]
    return f"postgresql+psycopg://{user}@/{database}?{'&'.join(words)}"


@contextmanager
def run(settings: Mapping[str, str] | None = None) -> Iterator[Postgres]:
    """A new cluster whose superuser is `USER`, without a password on its socket."""
    _require()
    with _home() as home:
        options = ["--auth=trust", f"--username={USER}", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
        _complete("initdb", "-D", home / "data", *options, home=home)
        access = home / "data/pg_hba.conf"
        access.write_text(f"{GUARDED}\n{access.read_text()}")
        with _served(home, settings or {}) as server:
            server.execute("CREATE ROLE guarded")
            yield server


@contextmanager
def standby(primary: Postgres, in_place_of: Postgres | None = None) -> Iterator[Postgres]:
    """A copy of *primary* that follows it; it takes the place of a server that has ended where one is named."""
    if in_place_of is not None:
        in_place_of.process.popen.wait(20)  # as long as its pid exists, its socket counts as taken
    with nullcontext(in_place_of.directory) if in_place_of else _home() as home:
        shutil.rmtree(home / "data", ignore_errors=True)
        source = f"host={primary.directory} port={PORT} user={USER}"
        options = ["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"]
        _complete("pg_basebackup", "-D", home / "data", "-d", source, *options, home=home)
        with _served(home, {}) as server:
            yield server


@contextmanager
def _served(home: Path, settings: Mapping[str, str]) -> Iterator[Postgres]:
    values = {"listen_addresses": "", "unix_socket_directories": str(home), "port": str(PORT), **settings}
    options = [f"-c{key}={value}" for key, value in values.items()]
    argv = [*_as_server(), _program("postgres"), "-D", home / "data", *options]

    def ready() -> bool:
        return _complete("pg_isready", "-h", home, "-p", str(PORT), "-q", home=home, may_fail=True) == 0

    with processes.running(argv, home, ready, within=READY) as process:
        server = Postgres(home, process)
        try:
            yield server
        finally:
            process.signal(signal.SIGCONT)
            process.signal(signal.SIGQUIT)  # whoever is still connected is not waited for


@contextmanager
def _home() -> Iterator[Path]:
    with processes.workspace("postgres") as home:
        if os.geteuid() == 0:
            shutil.chown(home, SYSTEM_USER, SYSTEM_USER)
        yield home


def _require() -> None:
    if not PROGRAMS.is_dir():
        processes.unavailable("needs postgresql: see tests/packages.debian")


def _program(name: str) -> Path:
    """The newest version that is installed."""
    return max(PROGRAMS.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))


def _as_server() -> list[str | Path]:
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={SYSTEM_USER}", f"--regid={SYSTEM_USER}", "--init-groups"]


def _complete(program: str, *words: str | Path, home: Path, may_fail: bool = False) -> int:
    done = processes.complete([*_as_server(), _program(program), *words], home, within=60)
    assert may_fail or done.code == 0, done.text
    return done.code

"""The processes of the gateway: their names, the listening sockets they get, and the files by which they are known.

A role gets its sockets from the supervisor, which has bound them all; run alone, under systemd, it binds them itself.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from gateway import events
from gateway.store import owners

if TYPE_CHECKING:  # the supervisor needs nothing of it
    from gateway.config import Config, Listener, Pop3Listener

SOCKETS = "GATEPOST_SOCKETS"
"""The environment variable that names inherited sockets: "mx=5 submission=6"."""

NUMBER = "GATEPOST_NUMBER"
"""The environment variable that tells processes of one role apart: "1", "2"."""

SUPERVISED = "GATEPOST_SUPERVISED"
"""Set by the supervisor, whose end of our standard input closes when it dies."""

BACKLOG = 512
MAX_FILE = 64 << 10

AGAIN = 1.0
"""Seconds between two attempts to announce a process where there was no room."""

T = TypeVar("T")

_WHY = {
    errno.EADDRINUSE: "the port is taken; end the program that listens there, or change the address",
    errno.EACCES: "a port below 1024 needs root or CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "this machine has no such address",
}


class Role(StrEnum):
    """What a process does: take mail in, send it on, or serve mailboxes."""

    SMTP = "smtp"
    DELIVER = "deliver"
    POP3 = "pop3"


AnyListener: TypeAlias = "Listener | Pop3Listener"


class CannotListen(Exception):
    """A socket cannot be bound; the text names the listener, its address, and why."""


def make_folders(config: Config) -> None:
    """Make the data folder, and the run folder in it, for nobody but us."""
    config.server.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    config.run_dir.mkdir(exist_ok=True, mode=0o700)


def listeners(config: Config, role: Role) -> Sequence[AnyListener]:
    """What *role* listens on."""
    if role is Role.SMTP:
        return config.listeners
    return config.pop3 if role is Role.POP3 else ()


def processes(config: Config) -> Iterator[tuple[Role, int]]:
    """The processes that make up a gateway, each with its number from 1."""
    wanted = {Role.SMTP: config.server.smtp_processes if config.listeners else 0, Role.POP3: min(1, len(config.pop3))}
    for role in Role:
        for number in range(wanted.get(role, 1)):
            yield role, number + 1


def bind(listener: AnyListener) -> socket.socket:
    """A listening socket at the address of *listener*, or `CannotListen`.

    The protocol is named: asyncio turns TCP_NODELAY on for sockets of IPPROTO_TCP only, and without it replies wait.
    """
    host, port = listener.host_port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((host, port))
        bound.listen(BACKLOG)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        why = _WHY.get(error.errno or 0, os.strerror(error.errno or 0))
        raise CannotListen(f"cannot listen on {listener.address} (listener {listener.name}): {why}") from None
    return bound


def bind_all(wanted: Sequence[AnyListener]) -> dict[str, socket.socket]:
    """All of *wanted* bound, by the name of the listener; when one cannot be, none is."""
    bound: dict[str, socket.socket] = {}
    try:
        for listener in wanted:
            bound[listener.name] = bind(listener)
    except CannotListen:
        for one in bound.values():
            one.close()
        raise
    return bound


def take_sockets(wanted: Sequence[AnyListener], environ: Mapping[str, str]) -> dict[str, socket.socket]:
    """The sockets of *wanted* by name: those handed over in *environ*, or else bound here."""
    handed = dict(word.split("=", 1) for word in environ.get(SOCKETS, "").split())
    here = bind_all([listener for listener in wanted if listener.name not in handed])
    return {x.name: here.get(x.name) or _inherited(int(handed[x.name])) for x in wanted}


def _inherited(number: int) -> socket.socket:
    handed = socket.socket(fileno=number)
    handed.set_inheritable(False)
    handed.setblocking(False)
    return handed


@dataclass(frozen=True, slots=True)
class Process:
    """A process that is ready to work. `started` is seconds since the epoch, `ticks` the kernel's own idea of it."""

    role: str
    number: int
    pid: int
    started: float
    ticks: int
    listeners: dict[str, str]

    @property
    def alive(self) -> bool:
        """Whether this very process still runs: a pid that was given to another does not count."""
        return not owners.is_gone(self.pid, self.ticks)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended unbidden, how often it did of late, and when, in seconds since the epoch."""

    how: str
    times: int
    at: float


@asynccontextmanager
async def announced(
    run_dir: Path, role: Role, number: int, bound: Mapping[str, socket.socket]
) -> AsyncIterator[Process]:
    """While the block runs, a file in *run_dir* says that this process is ready; as soon as there is room for it."""
    addresses = {name: _shown(one.getsockname()) for name, one in bound.items()}
    process = Process(role.value, number, os.getpid(), time.time(), owners.ticks(os.getpid()), addresses)
    path = run_dir / f"{role.value}-{number}.pid"
    later = None if _is_written(path, process) else asyncio.create_task(_write_later(path, process))
    try:
        yield process
    finally:
        if later is not None:
            later.cancel()
        path.unlink(missing_ok=True)


async def _write_later(path: Path, process: Process) -> None:
    """A full disk keeps us from telling that we work, and from nothing else."""
    events.say("not announced", path=path)
    while not _is_written(path, process):  # noqa: ASYNC110 - room on a disk tells nobody that it is there
        await asyncio.sleep(AGAIN)


def _is_written(path: Path, value: Process | Ended) -> bool:
    temporary = path.with_suffix(".new")
    try:
        temporary.write_text(json.dumps(asdict(value)), "utf-8")
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        return False
    return True


def note_end(run_dir: Path, name: str, how: str, times: int) -> None:
    """Keep for `status` that the process *name* ("smtp-1") has ended, where there is room for it."""
    _is_written(run_dir / f"{name}.ended", Ended(events.clean(how), times, time.time()))


def forget_ends(run_dir: Path) -> None:
    """A new start: what was noted before counts no more."""
    for path in run_dir.glob("*.ended"):
        path.unlink(missing_ok=True)


def end_of(run_dir: Path, name: str) -> Ended | None:
    """How the process *name* last ended unbidden since the start of the gateway."""
    return _read(run_dir / f"{name}.ended", Ended)


def known(run_dir: Path) -> list[Process]:
    """The processes that have announced themselves in *run_dir*, dead ones that could not say goodbye included."""
    return [process for path in sorted(run_dir.glob("*-*.pid")) if (process := _read(path, Process)) is not None]


def running(run_dir: Path) -> set[tuple[str, int]]:
    """Role and number of every process that is ready now."""
    return {(process.role, process.number) for process in known(run_dir) if process.alive}


def _read(path: Path, kind: type[T]) -> T | None:
    with suppress(OSError, ValueError, TypeError), path.open("rb") as file:
        return kind(**json.loads(file.read(MAX_FILE)))
    return None


def _shown(address: tuple[object, ...]) -> str:
    host, port = str(address[0]), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

"""Keeps the processes of the gateway running: starts them, restarts what dies, and ends them all in order.

The rule: a child is only ever signalled by its own handle, SIGTERM comes first and once, and every wait has a deadline.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from gateway import events, roles

if TYPE_CHECKING:
    from gateway.config import Config

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
BURST, MEMORY = 5, 60.0
"""So many ends within so many seconds cost the first pause only; each one more doubles it: a start costs CPU."""

GRACE = 30.0
"""Seconds that a child has to finish what it does after SIGTERM."""

READY = 30.0
"""Seconds within which the children should have announced themselves."""

POLL = 0.05

HEARD = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
"""The signals that a supervisor listens to. They may be blocked when it begins, so that none is lost before."""


class AlreadyRunning(Exception):
    """Another gateway uses this data folder."""


@dataclass(frozen=True, slots=True)
class Child:
    """One program to keep running. `helper` is one that the others need: it ends after them."""

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    fds: Sequence[int] = ()
    helper: bool = False
    quiet: bool = False


def children(config: Config, path: Path | None, sockets: Mapping[str, int]) -> list[Child]:
    """The processes of *config*, each with the listening *sockets* (file descriptors by listener) of its role."""
    return [_child(config, path, role, number, sockets) for role, number in roles.processes(config)]


def _child(config: Config, path: Path | None, role: roles.Role, number: int, sockets: Mapping[str, int]) -> Child:
    # -P: the folder in which the gateway was started must not lend it modules.
    program = [sys.executable, "-P", "-m", "gateway"]
    option = [] if path is None else ["--config", str(path)]
    mine = {listener.name: sockets[listener.name] for listener in roles.listeners(config, role)}
    environment = {
        roles.SOCKETS: " ".join(f"{name}={fd}" for name, fd in mine.items()),
        roles.NUMBER: str(number),
        roles.SUPERVISED: "1",
    }
    return Child(f"{role}-{number}", [*program, *option, "run", role.value], environment, tuple(mine.values()))


def recent(ends: Sequence[float], now: float) -> list[float]:
    """The moments in *ends* that still count, and *now*; never more than the longest pause needs."""
    return [*(end for end in ends if now - end < MEMORY), now][-20:]


@contextmanager
def only_one(run_dir: Path) -> Iterator[IO[str]]:
    """Hold the run folder for this gateway by an open file, or raise `AlreadyRunning`."""
    with (run_dir / "gatepost.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(f"a gateway already runs with this data folder ({run_dir.parent})") from None
        yield lock


class Supervisor:
    """Runs `children` until it is told to stop. `grace` is how long each may take to end, in seconds."""

    def __init__(
        self,
        children: Sequence[Child],
        *,
        grace: float = GRACE,
        pause: float = FIRST_PAUSE,
        ended: Callable[[str, str, int], None] = lambda _name, _how, _times: None,
    ) -> None:
        """*ended* is called whenever a child ends unbidden: its name, how it ended, and how often it did of late."""
        self._children, self._grace, self._pause, self._ended = children, grace, pause, ended
        self._running: dict[str, Process] = {}
        self._stopping = asyncio.Event()

    async def run(self, is_ready: Callable[[], bool], ready: Callable[[], None]) -> None:
        """Keep the children running until SIGTERM or SIGINT; call *ready* once, when *is_ready*."""
        self._listen_to_signals()
        keepers = {child.name: asyncio.create_task(self._keep(child)) for child in self._children}
        greeting = asyncio.create_task(self._greet(is_ready, ready))
        await self._stopping.wait()
        greeting.cancel()
        for helper in (False, True):
            wave = [child.name for child in self._children if child.helper is helper]
            await self._end(wave, {keepers[name] for name in wave})

    def stop(self) -> None:
        """End everything in order."""
        self._stopping.set()

    def _interrupt(self) -> None:
        """Ctrl-C: in order the first time, at once the second time."""
        if self._stopping.is_set():
            self._signal(self._running, signal.SIGKILL)
        self.stop()

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        # With a terminal, SIGHUP says that its window was closed; without one, it asks to read the policies again.
        on_hangup = self.stop if sys.stderr.isatty() else self._reload
        loop.add_signal_handler(signal.SIGHUP, on_hangup)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)

    def _reload(self) -> None:
        self._signal([child.name for child in self._children if not child.helper], signal.SIGHUP)

    async def _greet(self, is_ready: Callable[[], bool], ready: Callable[[], None]) -> None:
        deadline = time.monotonic() + READY
        while not is_ready():
            if time.monotonic() > deadline:
                events.say("not all processes became ready", within=READY)
                return
            await asyncio.sleep(POLL)
        ready()

    async def _keep(self, child: Child) -> None:
        ends: list[float] = []
        while not self._stopping.is_set():
            how = await self._live(child)
            if self._stopping.is_set():
                return
            ends = recent(ends, time.monotonic())
            pause = min(self._pause * 2 ** max(0, len(ends) - BURST), LONGEST_PAUSE)
            events.say("process ended", process=child.name, how=how, restart_in=pause)
            self._ended(child.name, how, len(ends))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _live(self, child: Child) -> str:
        """Start *child* and wait for its end; return how it ended, in words."""
        try:
            process = await _start(child)
        except OSError as error:
            return f"cannot be started: {os.strerror(error.errno or 0)}"
        self._running[child.name] = process
        if self._stopping.is_set():
            self._signal([child.name], signal.SIGTERM)
        code = await process.wait()
        del self._running[child.name]
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    async def _end(self, names: Sequence[str], keepers: set[asyncio.Task[None]]) -> None:
        if not keepers:
            return
        self._signal(names, signal.SIGTERM)
        _, late = await asyncio.wait(keepers, timeout=self._grace)
        if late:
            still = [name for name in names if name in self._running]
            events.say("ended by force", processes=still, after=self._grace)
            self._signal(still, signal.SIGKILL)
            await asyncio.wait(late, timeout=self._grace)

    def _signal(self, names: Sequence[str] | Mapping[str, Process], number: signal.Signals) -> None:
        for name in list(names):
            if (process := self._running.get(name)) is not None:
                with suppress(ProcessLookupError):
                    process.send_signal(number)


async def _start(child: Child) -> Process:
    """Start *child* in a session of its own, so that Ctrl-C reaches it through us, in order.

    A role's standard input is a pipe that we never write to: it closes when we die, and the role ends. It hears SIGHUP
    when it unblocks that: before, nothing of it would catch the signal, and it would end.
    """
    with nullcontext() if child.helper else _blocked(signal.SIGHUP):
        return await asyncio.create_subprocess_exec(
            *child.argv,
            stdin=DEVNULL if child.helper else PIPE,
            stdout=DEVNULL if child.quiet else None,
            env={**os.environ, **child.environment},
            pass_fds=child.fds,
            start_new_session=True,
        )


@contextmanager
def _blocked(number: signal.Signals) -> Iterator[None]:
    """A program that is begun in the block, before its first wait, begins with *number* blocked."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})

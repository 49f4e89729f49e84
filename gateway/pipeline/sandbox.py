"""The gateway's side of the sandbox: hand a mail to a confined worker, take its answer, outlive its death.

Whatever a worker does (die, stall, answer nonsense) makes the one mail that it had `unscannable`; the worker is
replaced. Message bytes cross as a file that can only be read, answers as JSON that is validated like any stranger's
input. What was taken out of the mail follows it on the socket, so that no descriptor ever comes from a worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import BinaryIO, Self

from pydantic import ValidationError

from gateway import events, peers
from gateway.model import Content, Mail, Temporary
from gateway.pipeline import confinement, seccomp
from gateway.pipeline.crossing import ANSWER, FRAME, MAIL, MAX_REPLY, OUT_OF_MEMORY, SCANNED, Scanned, fits
from gateway.pipeline.places import Places
from gateway.pipeline.policy import Policies
from gateway.pipeline.think import declared

START_TIME = 30.0
"""Seconds that the parent of the workers may take to import what it needs."""
QUEUE_TIME = 30.0
"""Seconds that a mail waits for a free worker before its peer is told to come again."""
NETWORK = 24, 64
"""Bits of an IPv4 and an IPv6 address that mails which wait for a worker take turns by."""
MAILS_PER_WORKER = 1000
"""A worker is replaced after so many mails, so that what a parser leaks stays small."""
PROGRAM = "gateway.pipeline.confined"
_CAUSES: dict[int, str] = {
    signal.SIGPROF: ": it took too much processor time",
    signal.SIGALRM: ": it took too long",
}
_PIECE = 1 << 18


@dataclass(frozen=True, slots=True)
class Answer(Scanned):
    """What a worker answered, and a file of what it took out of the mail (`Part.stored`), if it took anything."""

    taken: BinaryIO | None = None


@dataclass
class Worker:
    """A confined process and the socket to it."""

    pid: int
    socket: socket.socket
    mails: int = 0
    last: bool = False
    """Whether it has said that it ends after the mail it had."""


class Nursery:
    """The parent of the workers: a process that has imported everything and forks on request."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self._process = process
        self._control = control

    @classmethod
    async def start(cls, specification: bytes, program: str = PROGRAM) -> Self:
        """Start the process and wait until it can fork. Raises `Temporary` where it cannot."""
        try:
            process, ours = await asyncio.to_thread(_spawn, specification, program)
        except OSError as error:  # no descriptor, no process or no memory is free
            events.failure("sandbox", error)
            raise Temporary("the confined parser cannot be started") from None
        nursery = cls(process, ours)
        try:
            async with asyncio.timeout(START_TIME):
                if await asyncio.get_running_loop().sock_recv(ours, 1) == b"!":
                    return nursery
        except (TimeoutError, OSError) as error:
            events.failure("sandbox", error)
        await nursery.close()
        raise Temporary("the confined parser did not start")

    async def fork(self) -> Worker:
        """A fresh worker; `Temporary` where none can be had now.

        `OSError`, `EOFError` or `TimeoutError` where the process is gone.
        """
        await asyncio.get_running_loop().sock_sendall(self._control, b"+\n")
        async with asyncio.timeout(START_TIME):
            await _readable(self._control)
        head, fds, _, _ = socket.recv_fds(self._control, FRAME.size, 1)
        if len(head) < FRAME.size:
            raise EOFError("the parent of the workers is gone")
        if not fds:  # it could not fork, or we have no descriptor free: its worker ends when nobody holds the socket
            raise Temporary("no process is free for a confined parser")
        connection = socket.socket(fileno=fds[0])
        connection.setblocking(False)
        return Worker(FRAME.unpack(head)[0], connection)

    async def fate(self, worker: Worker) -> int:
        """How *worker*, which is lost, has ended, as waitpid says it; 0 where nobody knows. Not while it forks."""
        try:
            await asyncio.get_running_loop().sock_sendall(self._control, b"?%d\n" % worker.pid)
            async with asyncio.timeout(START_TIME):
                return int(FRAME.unpack(await exactly(self._control, FRAME.size))[0])
        except (OSError, EOFError, TimeoutError):
            return 0

    def discard(self, worker: Worker) -> None:
        """Let *worker* go: it ends when its socket closes, and is killed where it does not read it."""
        worker.socket.close()
        with contextlib.suppress(OSError):  # a nursery that is gone has no workers left
            self._control.send(b"-%d\n" % worker.pid)

    async def close(self) -> None:
        """End the process."""
        self._control.close()
        await asyncio.to_thread(_ended, self._process)


def _spawn(specification: bytes, program: str) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """The process, and our end of its control socket."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    try:
        with theirs, os.fdopen(os.memfd_create("specification"), "wb+") as file:
            file.write(specification)
            file.seek(0)
            return _confined(theirs, file, program), ours
    except OSError:
        ours.close()
        raise


def _confined(control: socket.socket, specification: BinaryIO, program: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", program, str(control.fileno())],
        stdin=specification,
        pass_fds=[control.fileno()],
        env={"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "PATH": os.defpath, "LANG": "C.UTF-8"},
        cwd="/",
    )


def specification(policies: Policies) -> bytes:
    """What the parent of the workers is told on its standard input."""
    told = {
        "limits": policies.stages.content.settings.model_dump(),
        "filters": {policy.name: policy.settings for policy in policies.pure},
        "receive": [address.lower() for address in policies.stages.reports.receive],
    }
    return json.dumps(told).encode()


class Sandbox:
    """The confined workers of one set of policies."""

    def __init__(self, policies: Policies, processes: int) -> None:
        self._limits = policies.stages.content.settings
        self._pure = {policy.name: policy for policy in policies.pure}
        self._specification = specification(policies)
        # A place without a worker: one is forked when it is first needed.
        self._places = Places[Worker | None]([None] * processes)
        self._mails = 0  # in hand, or waiting for a place
        self._unused = asyncio.Event()
        self._forking = asyncio.Lock()
        self._nursery: Nursery | None = None

    async def start(self) -> Self:
        """Start what forks the workers. Raises `Temporary` where that fails, or the kernel lacks what it needs."""
        if lack := confinement.lack(self._limits):
            raise Temporary(lack)
        self._nursery = await Nursery.start(self._specification)
        return self

    async def scan(self, mail: Mail, message: BinaryIO) -> Answer:
        """What the parser and the pure filters see in *message*; `Temporary` when no worker gets free in time."""
        self._mails += 1
        try:
            return await self._scanned(mail, message)
        finally:
            self._mails -= 1
            if not self._mails:
                self._unused.set()

    async def _scanned(self, mail: Mail, message: BinaryIO) -> Answer:
        worker = await self._place(mail)
        sound = False
        try:
            if worker and not _alive(worker):
                worker.socket.close()
                worker = None
            worker = worker or await self._new_worker()
            async with asyncio.timeout(self._limits.timeout + 1):
                scanned = await self._ask(worker, mail, message)
            sound = worker.mails < MAILS_PER_WORKER and not worker.last
            return scanned
        except (TimeoutError, OSError, EOFError, ValidationError, LookupError) as error:
            why = await self._why(worker, error)
            events.say("parser lost", id=mail.id, why=why)
            return Answer(Content(unscannable=why, size=os.fstat(message.fileno()).st_size))
        finally:
            self._give_back(worker, sound)

    async def _place(self, mail: Mail) -> Worker | None:
        """A place to take: at once where one is free, as mostly, or when it is the turn of the peer's network."""
        if self._places.free:
            return self._places.take_free()
        try:
            async with asyncio.timeout(QUEUE_TIME):
                return await self._places.wait(peers.network(mail.session.peer, *NETWORK))
        except TimeoutError:
            raise Temporary("no confined parser is free") from None

    async def _why(self, worker: Worker | None, error: Exception) -> str:
        """What the mail of a lost worker is told to be, in our words."""
        if isinstance(error, TimeoutError):
            return "the parser did not finish in time"
        if not isinstance(error, (OSError, EOFError)):
            return "the parser answered nonsense"
        async with self._forking:
            fate = await self._nursery.fate(worker) if worker and self._nursery else 0
        return f"the parser died on it{_cause(fate)}"

    def _give_back(self, worker: Worker | None, sound: bool) -> None:
        if worker and self._nursery is None:
            worker.socket.close()
        elif worker and self._nursery and not sound:
            self._nursery.discard(worker)
        self._places.give_back(worker if sound and self._nursery else None)

    async def _new_worker(self) -> Worker:
        """A fresh worker, from a fresh nursery where the old one is gone."""
        async with self._forking:
            try:
                if self._nursery is not None:
                    return await self._nursery.fork()
            except (OSError, EOFError, TimeoutError) as error:
                events.failure("sandbox", error)
                await self.close()
            self._nursery = await Nursery.start(self._specification)
            return await self._nursery.fork()

    async def _ask(self, worker: Worker, mail: Mail, message: BinaryIO) -> Answer:
        worker.mails += 1
        await hand_over(worker, MAIL.dump_json(mail), message)
        return await self._answer(worker)

    async def _answer(self, worker: Worker) -> Answer:
        connection = worker.socket
        size, octets, worker.last = ANSWER.unpack(await exactly(connection, ANSWER.size))
        if size > MAX_REPLY or octets > self._limits.payload_size:
            raise EOFError("the reply is too large")
        reply = await exactly(connection, size)
        if not fits(reply):
            raise EOFError("the reply has too much in it")
        scanned = self._checked(SCANNED.validate_json(reply, strict=True), octets)
        taken = await _received(connection, octets) if octets else None
        if _silent(connection):
            return Answer(scanned.content, scanned.found, taken)
        if taken is not None:
            taken.close()
        raise EOFError("it says more than it was asked")

    def _checked(self, scanned: Scanned, octets: int = 0) -> Scanned:
        """*scanned*, if it speaks for pure filters alone: one that a mail took over says nothing for clamd or SPF.

        What it says to have taken out has to stand within the *octets* that it sent.
        """
        if not all(0 <= one.stored[0] <= one.stored[1] <= octets for one in scanned.content.parts if one.stored):
            raise LookupError("a part stands where nothing is")
        found = {name: tuple(declared(self._pure[name], findings)) for name, findings in scanned.found.items()}
        return Scanned(scanned.content, found)

    async def retire(self) -> None:
        """Let the mails in hand, and those that wait, come to their end (each has its deadline), then close."""
        while self._mails:
            self._unused.clear()
            await self._unused.wait()
        await self.close()

    async def close(self) -> None:
        """Let the idle workers go and end their parent; one that is busy ends when it is given back."""
        for worker in [self._places.take_free() for _ in range(self._places.free)]:
            if worker:
                worker.socket.close()
            self._places.give_back(None)
        nursery, self._nursery = self._nursery, None
        if nursery is not None:
            await nursery.close()


async def hand_over(worker: Worker, request: bytes, message: BinaryIO) -> None:
    """Send *request*, and *message* as a file that can only be read: ours could be written to."""
    data = FRAME.pack(len(request)) + request
    with FileIO(f"/proc/self/fd/{message.fileno()}") as readable:
        sent = socket.send_fds(worker.socket, [data], [readable.fileno()])
    await asyncio.get_running_loop().sock_sendall(worker.socket, data[sent:])


def _ended(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _alive(worker: Worker) -> bool:
    """Whether an idle worker is still there: one that was killed meanwhile must not cost a mail."""
    try:
        return bool(worker.socket.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except OSError:
        return False


def _silent(connection: socket.socket) -> bool:
    """Whether there is nothing more to read; that its worker has ended is nothing, too."""
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True


def _cause(fate: int) -> str:
    """What *fate*, as waitpid says it, tells about the mail."""
    if seccomp.is_violation(fate):
        return ": it tried what no parser may do"
    if os.WIFSIGNALED(fate):
        return _CAUSES.get(os.WTERMSIG(fate), "")
    return ": it took too much memory" if os.WEXITSTATUS(fate) == OUT_OF_MEMORY else ""


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(connection, _set, ready)
    try:
        await ready
    finally:
        loop.remove_reader(connection)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def exactly(connection: socket.socket, size: int) -> bytes:
    """The next *size* octets that *connection* brings; `EOFError` where it ends before."""
    loop = asyncio.get_running_loop()
    data = bytearray()
    while len(data) < size:
        piece = await loop.sock_recv(connection, min(size - len(data), _PIECE))
        if not piece:
            raise EOFError("the worker is gone")
        data += piece
    return bytes(data)


async def _received(connection: socket.socket, size: int) -> BinaryIO:
    """A file in memory with the next *size* octets."""
    loop = asyncio.get_running_loop()
    file = os.fdopen(os.memfd_create("taken"), "wb+", buffering=0)
    try:
        while size:
            piece = await loop.sock_recv(connection, min(size, _PIECE))
            if not piece:
                raise EOFError("the worker is gone")  # noqa: TRY301  whatever goes wrong, the file is closed
            file.write(piece)
            size -= len(piece)
    except BaseException:
        file.close()
        raise
    return file

"""The gateway's side of the sandbox: hand a mail to a confined worker, take its answer, outlive its death.

Whatever a worker does (die, stall, answer nonsense) makes the one mail that it had `unscannable`; the worker is
replaced. Message bytes cross as an open file, answers as JSON that is validated like any stranger's input.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Self

from pydantic import ValidationError

from gateway import events
from gateway.model import Content, Mail, Temporary
from gateway.pipeline.confined import FRAME, MAIL, MAX_REPLY, SCANNED, Scanned
from gateway.pipeline.inspect import declared
from gateway.pipeline.policy import Policies

START_TIME = 30.0
"""Seconds that the parent of the workers may take to import what it needs."""
QUEUE_TIME = 30.0
"""Seconds that a mail waits for a free worker before its peer is told to come again."""
MAILS_PER_WORKER = 1000
"""A worker is replaced after so many mails, so that what a parser leaks stays small."""


@dataclass
class _Worker:
    pid: int
    socket: socket.socket
    mails: int = 0


class _Nursery:
    """The parent of the workers: a process that has imported everything and forks on request."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self._process = process
        self._control = control

    @classmethod
    async def start(cls, specification: bytes) -> Self:
        """Start the process and wait until it can fork. Raises `Temporary` where it cannot."""
        try:
            process, ours = await asyncio.to_thread(_spawn, specification)
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

    async def fork(self) -> _Worker:
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
        return _Worker(FRAME.unpack(head)[0], connection)

    def discard(self, worker: _Worker) -> None:
        """Let *worker* go: it ends when its socket closes, and is killed where it does not read it."""
        worker.socket.close()
        with contextlib.suppress(OSError):  # a nursery that is gone has no workers left
            self._control.send(b"-%d\n" % worker.pid)

    async def close(self) -> None:
        """End the process."""
        self._control.close()
        await asyncio.to_thread(_ended, self._process)


def _spawn(specification: bytes) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """The process, and our end of its control socket."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    try:
        with theirs, os.fdopen(os.memfd_create("specification"), "wb+") as file:
            file.write(specification)
            file.seek(0)
            return _confined(theirs, file), ours
    except OSError:
        ours.close()
        raise


def _confined(control: socket.socket, specification: BinaryIO) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "gateway.pipeline.confined", str(control.fileno())],
        stdin=specification,
        pass_fds=[control.fileno()],
        env={"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "PATH": os.defpath, "LANG": "C.UTF-8"},
        cwd="/",
    )


class Sandbox:
    """The confined workers of one set of policies."""

    def __init__(self, policies: Policies, processes: int) -> None:
        self._limits = policies.stages.content.settings
        self._pure = {policy.name: policy for policy in policies.pure}
        filters = {name: policy.settings for name, policy in self._pure.items()}
        receive = [address.lower() for address in policies.stages.reports.receive]
        specification = {"limits": self._limits.model_dump(), "filters": filters, "receive": receive}
        self._specification = json.dumps(specification).encode()
        self._places: asyncio.LifoQueue[_Worker | None] = asyncio.LifoQueue()
        for _ in range(processes):
            self._places.put_nowait(None)  # a place without a worker: one is forked when it is first needed
        self._mails = 0  # in hand, or waiting for a place
        self._unused = asyncio.Event()
        self._forking = asyncio.Lock()
        self._nursery: _Nursery | None = None

    async def start(self) -> Self:
        """Start what forks the workers. Raises `Temporary` where that fails."""
        self._nursery = await _Nursery.start(self._specification)
        return self

    async def scan(self, mail: Mail, message: BinaryIO) -> Scanned:
        """What the parser and the pure filters see in *message*; `Temporary` when no worker gets free in time."""
        self._mails += 1
        try:
            return await self._scanned(mail, message)
        finally:
            self._mails -= 1
            if not self._mails:
                self._unused.set()

    async def _scanned(self, mail: Mail, message: BinaryIO) -> Scanned:
        try:
            async with asyncio.timeout(QUEUE_TIME):
                worker = await self._places.get()
        except TimeoutError:
            raise Temporary("no confined parser is free") from None
        sound = False
        try:
            if worker and not _alive(worker):
                worker.socket.close()
                worker = None
            worker = worker or await self._new_worker()
            async with asyncio.timeout(self._limits.timeout + 1):
                scanned = await self._ask(worker, mail, message)
            sound = worker.mails < MAILS_PER_WORKER
            return scanned
        except (TimeoutError, OSError, EOFError, ValidationError, LookupError) as error:
            events.say("parser lost", id=mail.id, why=type(error).__name__)
            return Scanned(Content(unscannable=_why(error), size=os.fstat(message.fileno()).st_size))
        finally:
            self._give_back(worker, sound)

    def _give_back(self, worker: _Worker | None, sound: bool) -> None:
        if worker and self._nursery is None:
            worker.socket.close()
        elif worker and self._nursery and not sound:
            self._nursery.discard(worker)
        self._places.put_nowait(worker if sound and self._nursery else None)

    async def _new_worker(self) -> _Worker:
        """A fresh worker, from a fresh nursery where the old one is gone."""
        async with self._forking:
            try:
                if self._nursery is not None:
                    return await self._nursery.fork()
            except (OSError, EOFError, TimeoutError) as error:
                events.failure("sandbox", error)
                await self.close()
            self._nursery = await _Nursery.start(self._specification)
            return await self._nursery.fork()

    async def _ask(self, worker: _Worker, mail: Mail, message: BinaryIO) -> Scanned:
        loop = asyncio.get_running_loop()
        worker.mails += 1
        request = MAIL.dump_json(mail)
        request = FRAME.pack(len(request)) + request
        sent = socket.send_fds(worker.socket, [request], [message.fileno()])
        await loop.sock_sendall(worker.socket, request[sent:])
        return self._checked(SCANNED.validate_json(await _reply(worker.socket), strict=True))

    def _checked(self, scanned: Scanned) -> Scanned:
        """*scanned*, if it speaks for pure filters alone: one that a mail took over says nothing for clamd or SPF."""
        found = {name: tuple(declared(self._pure[name], findings)) for name, findings in scanned.found.items()}
        return replace(scanned, found=found)

    async def retire(self) -> None:
        """Let the mails in hand, and those that wait, come to their end (each has its deadline), then close."""
        while self._mails:
            self._unused.clear()
            await self._unused.wait()
        await self.close()

    async def close(self) -> None:
        """Let the idle workers go and end their parent; one that is busy ends when it is given back."""
        for worker in [self._places.get_nowait() for _ in range(self._places.qsize())]:
            if worker:
                worker.socket.close()
            self._places.put_nowait(None)
        nursery, self._nursery = self._nursery, None
        if nursery is not None:
            await nursery.close()


def _ended(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _alive(worker: _Worker) -> bool:
    """Whether an idle worker is still there: one that was killed meanwhile must not cost a mail."""
    try:
        return bool(worker.socket.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except OSError:
        return False


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "the parser did not finish in time"
    return "the parser died on it" if isinstance(error, (OSError, EOFError)) else "the parser answered nonsense"


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


async def _reply(connection: socket.socket) -> bytes:
    """One reply, whole: its length comes first. `EOFError` where it is cut off, or too large, or another follows."""
    loop = asyncio.get_running_loop()
    data, wanted = bytearray(), FRAME.size
    while len(data) < wanted:
        piece = await loop.sock_recv(connection, 1 << 18)
        if not piece:
            raise EOFError("the worker is gone")
        data += piece
        if wanted == FRAME.size <= len(data):
            wanted += FRAME.unpack_from(data)[0]
        if max(wanted, len(data)) > MAX_REPLY + FRAME.size:
            raise EOFError("the reply is too large")
    if len(data) > wanted:
        raise EOFError("it says more than it was asked")
    return bytes(data[FRAME.size :])

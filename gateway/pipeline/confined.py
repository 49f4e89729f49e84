"""The confined side of the sandbox: parse a mail, run the pure filters on it, answer in JSON.

Run as a program. A single-threaded parent of workers imports everything once and forks a worker whenever the gateway
asks for one; a worker limits itself before it reads the first octet of a stranger, and serves until it is let go.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import signal
import socket
import struct
import sys
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from pydantic import TypeAdapter

from gateway.model import Content, Direction, Finding, Mail, Report
from gateway.pipeline.chain import chain
from gateway.pipeline.content import Buffer, parse
from gateway.pipeline.inspect import think
from gateway.pipeline.mapped import mapped
from gateway.pipeline.policy import Policy, Waves, build_settings, made_pure, waves
from gateway.pipeline.signed import Bodies, outermost, signatures
from gateway.pipeline.tray import Tray
from gateway.stages import Content as ContentPolicy

Limits = ContentPolicy.Settings
FRAME = struct.Struct("!I")
MAX_REQUEST = 1 << 20
MAX_REPLY = 8 << 20
_FEEDBACK = "gateway.pipeline.feedback"
_SIGNED = (b"dkim-signature", b"arc-")
"""Without these in its header, which is quick to see, a mail has no signature and no chain."""


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a worker answers: the content as parsed, and the findings of the pure filters by name."""

    content: Content = field(default_factory=Content)
    found: dict[str, tuple[Finding, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker does with every mail: parse it within *limits*, ask *policies*, read reports for *receive*."""

    limits: Limits
    policies: Waves
    receive: frozenset[str] = frozenset()


TRAY = Tray()
"""What the parts of the mail in hand hold. A worker has one mail at a time."""

MAIL = TypeAdapter(Mail)
SCANNED = TypeAdapter(Scanned)


def main() -> None:
    """Serve the gateway on the control socket (file descriptor in argv[1]); the specification is on standard input."""
    control = socket.socket(fileno=int(sys.argv[1]))
    specification = json.loads(sys.stdin.buffer.read())
    task = Task(
        Limits.model_validate(specification["limits"]),
        waves(_policy(name, settings) for name, settings in specification["filters"].items()),
        frozenset(specification["receive"]),
    )
    if task.receive:
        importlib.import_module(_FEEDBACK)
    gc.collect()
    gc.freeze()  # what is shared with the workers stays shared
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the gateway's to handle: it closes the control socket
    signal.signal(signal.SIGCHLD, lambda *_: _reap())
    with contextlib.suppress(ConnectionError):  # the gateway ended while we were getting ready, or forking
        _obey(control, task)
    _end()


def _obey(control: socket.socket, task: Task) -> None:
    """Fork and end workers as the gateway says, until it closes the control socket."""
    control.sendall(b"!")
    with control.makefile("rb") as commands:
        while command := commands.readline(32):
            if command == b"+\n":
                _answer(control, task)
            elif command.startswith(b"-"):
                _kill(int(command[1:]))


def _policy(name: str, settings: str) -> Policy:
    module: Any = importlib.import_module(f"filters.{name}")
    filter_ = made_pure(module, build_settings(module.Settings, settings), TRAY)
    return Policy(name, f"{name}.toml", filter_, 0.0, (), True)


_workers: set[int] = set()


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while (pid := os.waitpid(-1, os.WNOHANG)[0]) > 0:
            _workers.discard(pid)


def _kill(pid: int) -> None:
    if pid in _workers:  # only what is ours and not yet reaped, so the number cannot mean another process
        os.kill(pid, signal.SIGKILL)


def _end() -> None:
    """The gateway is gone, or done with us: take every worker along."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for pid in tuple(_workers):
        _kill(pid)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _answer(control: socket.socket, task: Task) -> None:
    """Send a fresh worker's pid and its socket; 0 and none where no process or descriptor is free."""
    try:
        pid, theirs = _fork(control, task)
    except OSError:
        control.sendall(FRAME.pack(0))
        return
    with theirs:
        socket.send_fds(control, [FRAME.pack(pid)], [theirs.fileno()])


def _fork(control: socket.socket, task: Task) -> tuple[int, socket.socket]:
    """A worker, and the gateway's end of its socket. SIGCHLD waits until the worker is known."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        pid = os.fork()
    except OSError:
        theirs.close()
        raise
    else:
        if pid == 0:
            _begin_work(control, theirs)
            _work(ours, task)
        _workers.add(pid)
        return pid, theirs
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        ours.close()


def _begin_work(control: socket.socket, theirs: socket.socket) -> None:
    """In the worker: let go of what is its parent's."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    os.close(control.fileno())  # not close(): the file made of it would keep the channel open to a stranger's parser
    theirs.close()


def _work(gateway: socket.socket, task: Task) -> NoReturn:
    """Serve until the gateway closes the socket; leave without running anything else of the parent's."""
    try:
        _confine(task.limits)
        while _serve(gateway, task):
            pass
    except MemoryError:
        os._exit(3)
    except BaseException:  # noqa: BLE001  the gateway sees the closed socket, and that is all it needs to know
        os._exit(2)
    os._exit(0)


def _confine(limits: Limits) -> None:
    """Give up what a parser does not need. Further confinement (seccomp, Landlock) belongs here, after the imports."""
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))
    for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_NPROC):
        resource.setrlimit(kind, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))


def _serve(gateway: socket.socket, task: Task) -> bool:
    """Scan one mail; False when the gateway has let us go."""
    head, fds, _, _ = socket.recv_fds(gateway, FRAME.size, 1)
    if len(head) < FRAME.size or not fds:
        return False
    _start_clocks(task.limits)
    mail = MAIL.validate_json(_read(gateway, min(FRAME.unpack(head)[0], MAX_REQUEST)))
    reply = SCANNED.dump_json(scan(mail, fds[0], task))
    os.close(fds[0])
    if len(reply) > MAX_REPLY:
        reply = SCANNED.dump_json(Scanned(Content(unscannable="what the parser saw is too large to report")))
    signal.setitimer(signal.ITIMER_REAL, 0)
    gateway.sendall(FRAME.pack(len(reply)) + reply)
    return True


def _start_clocks(limits: Limits) -> None:
    """End this process when one mail costs too much: by SIGXCPU after CPU time, by SIGALRM after wall time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime + limits.cpu) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))
    signal.setitimer(signal.ITIMER_REAL, limits.timeout)


def _read(gateway: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = gateway.recv(size - len(data))
        if not piece:
            raise EOFError("the gateway went away")
        data += piece
    return bytes(data)


def scan(mail: Mail, fd: int, task: Task) -> Scanned:
    """Parse the message behind *fd* and run the pure filters on it."""
    TRAY.clear()
    with mapped(fd) as data:
        content = parse(data, task.limits, TRAY)
        if any(one.address.lower() in task.receive for one in mail.envelope.recipients):
            content = replace(content, report=_report(data, content, task.limits))
        if mail.session.direction is Direction.INBOUND:
            content = _with_signatures(content, data, task.limits)
        found = think(replace(mail, content=content), task.policies)
        TRAY.clear()
    parts = tuple(replace(part, text="") if part.text else part for part in content.parts)
    return Scanned(replace(content, parts=parts), {name: tuple(findings) for name, findings in found.items()})


def _with_signatures(content: Content, data: Buffer, limits: Limits) -> Content:
    """What a mail from outside is signed with, and by whom."""
    fields, start = outermost(data, limits)
    seen = b"".join(fields).lower()
    if not any(one in seen for one in _SIGNED):
        return content
    bodies = Bodies(data, start)
    return replace(content, signatures=signatures(fields, bodies), arc=chain(fields, bodies))


def _report(data: Buffer, content: Content, limits: Limits) -> Report:
    """What reads reports was loaded before we were confined, where any are received; elsewhere it never is."""
    feedback: Any = importlib.import_module(_FEEDBACK)
    report: Report = feedback.read(data, content, limits)
    return report


if __name__ == "__main__":
    main()

"""The confined side of the sandbox: parse a mail, run the pure filters on it, answer in JSON.

Run as a program. A single-threaded parent of workers imports everything once, confines itself, and forks a worker
whenever the gateway asks for one; a worker confines itself further before it reads the first octet of a stranger, and
serves until it is let go. Nothing can be imported or opened from then on: see `prepare`.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import ModuleType
from typing import Any, NoReturn

from gateway import idn
from gateway.model import Content, Direction, Mail, Part, Report
from gateway.pipeline import confinement, mime
from gateway.pipeline import content as parser
from gateway.pipeline.chain import chain
from gateway.pipeline.content import Buffer
from gateway.pipeline.crossing import ANSWER, FRAME, MAIL, MAX_REQUEST, OUT_OF_MEMORY, SCANNED, Scanned, fits
from gateway.pipeline.mapped import mapped
from gateway.pipeline.policy import Policy, Waves, build_settings, made_pure, waves
from gateway.pipeline.signed import Bodies, outermost, signatures
from gateway.pipeline.think import think
from gateway.pipeline.tray import Tray, Unscannable
from gateway.stages import Content as ContentPolicy

Limits = ContentPolicy.Settings
COLLECT = 20_000
"""Objects after which garbage is looked for: mails leave none, so that to look more often only costs."""
MAX_GROWTH = 64 << 20
"""A worker that has needed so many octets more than it had at first is done: what it holds is not given back."""
_MAX_FATES = 64
_FEEDBACK = "gateway.pipeline.feedback"
_SIGNED = (b"dkim-signature", b"arc-")
"""Without these in its header, which is quick to see, a mail has no signature and no chain."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker does with every mail: parse it within *limits*, ask *policies*, read reports for *receive*."""

    limits: Limits
    policies: Waves
    receive: frozenset[str] = frozenset()


TRAY = Tray()
"""What the parts of the mail in hand hold. A worker has one mail at a time."""


@dataclass(slots=True)
class Luggage:
    """What is taken out of a mail to be scanned by itself: payloads one after another, each once, *room* octets."""

    room: int
    taken: list[bytes] = field(default_factory=list)
    size: int = 0
    _places: dict[bytes, tuple[int, int]] = field(default_factory=dict)

    def packed(self, part: Part) -> Part:
        """*part*, and where its octets stand. Raises `Unscannable` where there is no room for them."""
        octets = TRAY.of(part, self.room - self.size + 1)
        digest = hashlib.sha256(octets).digest()
        if digest not in self._places:
            self._places[digest] = self._added(octets)
        return replace(part, stored=self._places[digest])

    def _added(self, octets: bytes) -> tuple[int, int]:
        start, self.size = self.size, self.size + len(octets)
        if self.size > self.room:
            raise Unscannable("what it hides is too large to be scanned")
        self.taken.append(octets)
        return start, self.size

    def clear(self) -> None:
        """Leave everything behind."""
        self.taken.clear()
        self.size = 0


Serve = Callable[[socket.socket, Task, Callable[[], bool]], bool]
"""What a worker does with one request of the gateway; False when it is to end."""


def main(serve: Serve | None = None) -> None:
    """Serve the gateway on the control socket (file descriptor in argv[1]); the specification is on standard input."""
    control = socket.socket(fileno=int(sys.argv[1]))
    task = _task(json.loads(sys.stdin.buffer.read()))
    null = os.open(os.devnull, os.O_RDWR)
    confinement.enclose_parent(full=task.limits.confinement == "full")
    gc.collect()
    gc.freeze()  # what is shared with the workers stays shared
    gc.set_threshold(COLLECT)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the gateway's to handle: it closes the control socket
    signal.signal(signal.SIGCHLD, lambda *_: _reap())
    with contextlib.suppress(ConnectionError):  # the gateway ended while we were getting ready, or forking
        _obey(control, Workers(task, null, serve or _serve))
    _end()


def _task(specification: Mapping[str, Any]) -> Task:
    """What workers are to do, with everything loaded that they need for it."""
    receive = frozenset(specification["receive"])
    names = [f"filters.{name}" for name in specification["filters"]] + [_FEEDBACK] * bool(receive)
    prepare((idn, mime, parser, *map(importlib.import_module, names)))
    policies = (_policy(name, settings) for name, settings in specification["filters"].items())
    return Task(Limits.model_validate(specification["limits"]), waves(policies), receive)


def prepare(modules: Iterable[ModuleType]) -> None:
    """Have each module that has a `prepare()` load what it would load otherwise for the first mail that needs it."""
    for module in modules:
        getattr(module, "prepare", lambda: None)()


@dataclass(frozen=True, slots=True)
class Workers:
    """What every worker is forked with; *null* is a descriptor that leads nowhere."""

    task: Task
    null: int
    serve: Serve


def _obey(control: socket.socket, workers: Workers) -> None:
    """Fork and end workers as the gateway says, until it closes the control socket."""
    control.sendall(b"!")
    with control.makefile("rb") as commands:
        while command := commands.readline(32):
            if command == b"+\n":
                _answer(control, workers)
            elif command.startswith(b"-"):
                _kill(int(command[1:]))
            elif command.startswith(b"?"):
                control.sendall(FRAME.pack(_fate(int(command[1:]))))


def _policy(name: str, settings: str) -> Policy:
    module: Any = importlib.import_module(f"filters.{name}")
    filter_ = made_pure(module, build_settings(module.Settings, settings), TRAY)
    return Policy(name, f"{name}.toml", filter_, 0.0, (), True)


_workers: set[int] = set()
_fates: dict[int, int] = {}
"""How the last workers have ended, as waitpid says it."""


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0] > 0:
            _bury(*ended)


def _bury(pid: int, status: int) -> None:
    _workers.discard(pid)
    _fates[pid] = status
    if len(_fates) > _MAX_FATES:
        del _fates[next(iter(_fates))]


def _kill(pid: int) -> None:
    if pid in _workers:  # only what is ours and not yet reaped, so the number cannot mean another process
        os.kill(pid, signal.SIGKILL)


def _fate(pid: int) -> int:
    """How worker *pid* has ended, as waitpid says it; one that has closed its socket and lives on is ended now."""
    with _unreaped():
        if pid in _workers:
            _kill(pid)
            _bury(*os.waitpid(pid, 0))
        return _fates.pop(pid, 0)


@contextlib.contextmanager
def _unreaped() -> Iterator[None]:
    """While this lasts, SIGCHLD waits, so that nobody else learns of the end of a worker."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


def _end() -> None:
    """The gateway is gone, or done with us: take every worker along."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for pid in tuple(_workers):
        _kill(pid)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _answer(control: socket.socket, workers: Workers) -> None:
    """Send a fresh worker's pid and its socket; 0 and none where no process or descriptor is free."""
    try:
        pid, theirs = _fork(workers)
    except OSError:
        control.sendall(FRAME.pack(0))
        return
    with theirs:
        socket.send_fds(control, [FRAME.pack(pid)], [theirs.fileno()])


def _fork(workers: Workers) -> tuple[int, socket.socket]:
    """A worker, and the gateway's end of its socket. SIGCHLD waits until the worker is known."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, _unreaped():
        try:
            pid = os.fork()
        except OSError:
            theirs.close()
            raise
        if pid == 0:
            _work(ours.detach(), workers)
        _workers.add(pid)
        return pid, theirs


def _work(fd: int, workers: Workers) -> NoReturn:
    """Serve until the gateway closes the socket; leave without running anything else of the parent's."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        gateway, task = _confined(fd, workers), workers.task
        most = _peak() + MAX_GROWTH
        while workers.serve(gateway, task, lambda: _peak() >= most):
            pass
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except BaseException:  # noqa: BLE001  the gateway sees the closed socket, and that is all it needs to know
        os._exit(2)
    os._exit(0)


def _confined(fd: int, workers: Workers) -> socket.socket:
    """Give up all that a parser does not need; what is left is the socket *fd* to the gateway."""
    limits = workers.task.limits
    confinement.keep_descriptors(fd, workers.null)
    gateway = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=confinement.GATEWAY)
    confinement.enclose_worker(limits.memory, full=limits.confinement == "full")
    return gateway


def _peak() -> int:
    """The octets that this process has had in memory at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _serve(gateway: socket.socket, task: Task, worn: Callable[[], bool]) -> bool:
    """Scan one mail; False when the gateway has let us go, or was told that this one was our last."""
    head, fds, _, _ = socket.recv_fds(gateway, FRAME.size, 1)
    if len(head) < FRAME.size or not fds:
        return False
    start_clocks(task.limits)
    mail = MAIL.validate_json(read(gateway, min(FRAME.unpack(head)[0], MAX_REQUEST)))
    luggage = Luggage(task.limits.payload_size)
    reply = SCANNED.dump_json(scan(mail, fds[0], task, luggage))
    os.close(fds[0])
    if not fits(reply):
        luggage.clear()
        reply = SCANNED.dump_json(Scanned(Content(unscannable="what the parser saw is too large to report")))
    signal.setitimer(signal.ITIMER_REAL, 0)
    last = worn()
    gateway.sendall(ANSWER.pack(len(reply), luggage.size, last) + reply)
    for octets in luggage.taken:
        gateway.sendall(octets)
    return not last


def start_clocks(limits: Limits) -> None:
    """End this process when one mail costs too much: by SIGPROF after CPU time, by SIGALRM after wall time."""
    signal.setitimer(signal.ITIMER_PROF, limits.cpu)
    signal.setitimer(signal.ITIMER_REAL, limits.timeout)


def read(gateway: socket.socket, size: int) -> bytes:
    """The next *size* octets that the gateway sends."""
    data = bytearray()
    while len(data) < size:
        piece = gateway.recv(size - len(data))
        if not piece:
            raise EOFError("the gateway went away")
        data += piece
    return bytes(data)


def scan(mail: Mail, fd: int, task: Task, luggage: Luggage | None = None) -> Scanned:
    """Parse the message behind *fd*, run the pure filters on it, and take along in *luggage* what nobody else sees."""
    TRAY.clear()
    with mapped(fd) as data:
        gathered = parser.gathering(task.limits, TRAY)
        content = parser.parsed(data, gathered)
        if any(one.address.lower() in task.receive for one in mail.envelope.recipients):
            content = replace(content, report=_report(data, content, task.limits))
        if mail.session.direction is Direction.INBOUND:
            content = _with_signatures(content, data, task.limits)
        grown = partial(parser.grown, found=gathered)
        content, found = think(replace(mail, content=content), task.policies, grown)
        if luggage is not None:
            content = _packed(content, luggage)
        TRAY.clear()
    parts = tuple(replace(part, text="") if part.text else part for part in content.parts)
    return Scanned(replace(content, parts=parts), {name: tuple(findings) for name, findings in found.items()})


def _packed(content: Content, luggage: Luggage) -> Content:
    """*content*, with the places in *luggage* of the parts that a scanner would not see in the message as it is."""
    unseen = set(TRAY.unseen)
    if not unseen:
        return content
    try:
        parts = tuple(luggage.packed(part) if part.path in unseen else part for part in content.parts)
    except Unscannable as error:
        luggage.clear()
        return replace(content, unscannable=content.unscannable or str(error))
    return replace(content, parts=parts)


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

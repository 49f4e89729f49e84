"""Does clamd know a virus in this mail?

pyclamd writes what clamd is told; the event loop sends it and reads the answer, for pyclamd itself would wait in a
thread for each mail, and take silence and nonsense for "clean". Only the two answers that clamd's manual names count.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, ClassVar, NamedTuple, Self

import pyclamd

from gateway.model import Finding, Found, Mail, Stage, Temporary, Tools

CHUNK = 64 << 10
"""Octets of the mail that are held in memory at a time."""

MAX_ANSWER = 4096
"""Octets that an answer of clamd may have."""

VERSION_AGE = 30.0
"""Seconds for which clamd's word on its version and signatures is taken as still true."""

CONNECT_TIMEOUT = 3.0
"""Seconds that one clamd may take to accept a connection."""

_FOUND = re.compile(r"stream: (.+) FOUND")
_TOO_LARGE = "INSTREAM size limit exceeded. ERROR"
_CODES = (("Heuristics.Limits.Exceeded", "unscanned"), ("Heuristics.Encrypted", "encrypted"))


@dataclass(frozen=True, slots=True)
class Settings:
    """Where clamd is, and how long we wait for it."""

    sockets: tuple[str, ...] = ("unix:var/run/clamd.sock", "unix:/run/clamav/clamd.ctl", "127.0.0.1:3310")
    """Where clamd listens: "unix:PATH" or "ADDRESS:PORT". The next is tried where one cannot tell."""

    timeout: float = 60.0
    """Seconds for one mail, the wait for its turn and all sockets included."""

    threads: int = 4
    """Mails that are scanned at the same time. More than clamd's MaxThreads is of no use."""


class _Socket(NamedTuple):
    """A place where clamd listens: a path, or an address and a port."""

    written: str
    family: socket.AddressFamily
    address: str | tuple[str, int]


class _Scan(NamedTuple):
    """What clamd answered, and with which signatures."""

    answer: str
    version: str


class _Failed(Exception):
    """One clamd could not tell. The text says why."""


class Filter:
    """Asks the first clamd that can tell."""

    stage: ClassVar[Stage] = Stage.MESSAGE
    codes: ClassVar[frozenset[str]] = frozenset({"clean", "infected", "encrypted", "unscanned"})
    after: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, settings: Settings, tools: Tools) -> None:
        if settings.threads < 1 or not settings.sockets:
            raise ValueError("antivirus needs at least one thread and one socket")
        self._settings, self._tools = settings, tools
        self._sockets = [_socket(written) for written in settings.sockets]
        self._turns = asyncio.Semaphore(settings.threads)
        self._versions: dict[str, tuple[float, str]] = {}

    async def check(self, mail: Mail, found: Found) -> Sequence[Finding]:  # noqa: ARG002  it reads no other filter
        """Exactly one finding: what clamd said. `Temporary` where no clamd could tell."""
        deadline = asyncio.get_running_loop().time() + self._settings.timeout
        try:
            async with asyncio.timeout_at(deadline):
                await self._turns.acquire()
        except TimeoutError:
            raise Temporary(f"clamd had no time within {self._settings.timeout:g} s") from None
        try:
            return [_finding(await self._scan(mail, deadline))]
        finally:
            self._turns.release()

    async def _scan(self, mail: Mail, deadline: float) -> _Scan:
        """The answer of the first clamd that can tell."""
        failures = []
        for place in self._sockets:
            try:
                return await self._scan_at(place, mail, deadline)
            except _Failed as failure:
                failures.append(f"{place.written}: {failure}")
        raise Temporary(f"no clamd could tell ({'; '.join(failures)})")

    async def _scan_at(self, place: _Socket, mail: Mail, deadline: float) -> _Scan:
        with self._tools.open_message(mail) as message:
            answer = await _said(place, deadline, message)
        if answer != "stream: OK" and not _FOUND.fullmatch(answer):
            raise _Failed(_refusal(answer, "answered"))
        return _Scan(answer, await self._version(place, deadline))

    async def _version(self, place: _Socket, deadline: float) -> str:
        """Program and signatures as clamd names them; it may be set up not to tell, which is no fault."""
        at, version = self._versions.get(place.written, (0.0, ""))
        if not version or time.monotonic() - at > VERSION_AGE:
            try:
                version = _shown(await _said(place, deadline))
            except _Failed:
                version = "version unknown"
            self._versions[place.written] = (time.monotonic(), version)
        return version


async def _said(place: _Socket, deadline: float, message: BinaryIO | None = None) -> str:
    """What clamd says to *message*, or of its version where there is none; `_Failed` where it says nothing whole."""
    try:
        async with asyncio.timeout_at(deadline):
            with await _Wire.to(place) as wire:
                return await wire.ask_about(message)
    except OSError as error:  # TimeoutError is one
        raise _Failed(_why(error)) from None


class _Written(Exception):
    """pyclamd has written all that it has to say, and would wait for the answer now."""


class _Paper:
    """What pyclamd takes for its socket."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.pieces.append(data)


class _Pen(pyclamd.ClamdNetworkSocket):  # type: ignore[misc]  # pyclamd carries no type hints
    """pyclamd with paper in place of its socket."""

    def __init__(self) -> None:
        # pyclamd's own __init__ would connect, only to see whether it can.
        self.clamd_socket = self._paper = _Paper()

    @property
    def written(self) -> bytes:
        return b"".join(self._paper.pieces)

    def _init_socket(self) -> None:
        """There is none."""

    def _recv_response(self) -> str:
        raise _Written


def _version_command() -> bytes:
    pen = _Pen()
    with suppress(_Written):
        pen.version()
    return pen.written


def _stream_of(octets: bytes) -> bytes:
    """A whole stream that holds *octets*: the command, their length, the octets, and a length of zero for the end."""
    pen = _Pen()
    with suppress(_Written):
        pen.scan_stream(BytesIO(octets), CHUNK)
    return pen.written


_VERSION = _version_command()
_END = bytes(4)
_OPENING = _stream_of(b"").removesuffix(_END)


class _Wire:
    """A connection to clamd. Deadlines are the caller's."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def to(cls, place: _Socket) -> Self:
        """Connect to *place*."""
        wire = cls(socket.socket(place.family, socket.SOCK_STREAM))
        try:
            wire._socket.setblocking(False)
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await wire._loop.sock_connect(wire._socket, place.address)
        except BaseException:
            wire._socket.close()
            raise
        return wire

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    async def ask_about(self, message: BinaryIO | None) -> str:
        """Send *message*, or ask for the version; the answer. `OSError` where there is none or part was not taken."""
        try:
            if message is None:
                await self._send(_VERSION)
            else:
                await self._stream(message)
        except OSError:
            with suppress(OSError):  # it may have said why before it closed (its size limit)
                raise _Failed(_refusal(await self._line(), "closed early with")) from None
            raise
        return await self._line()

    async def _stream(self, message: BinaryIO) -> None:
        """The parts of a stream as pyclamd writes them, the end with the last."""
        waiting = _OPENING
        while octets := message.read(CHUNK):
            waiting += _stream_of(octets)[len(_OPENING) : -len(_END)]
            if len(octets) == CHUNK:
                await self._send(waiting)
                waiting = b""
        await self._send(waiting + _END)

    async def _send(self, octets: bytes) -> None:
        await self._loop.sock_sendall(self._socket, octets)

    async def _line(self) -> str:
        """One line, ended as the n form of commands wants it; `OSError` where there is none."""
        answer = b""
        while not answer.endswith(b"\n"):
            piece = await self._loop.sock_recv(self._socket, MAX_ANSWER)
            answer += piece
            if not piece or len(answer) > MAX_ANSWER:
                raise ConnectionAbortedError("closed without a whole answer" if not piece else "endless answer")
        return answer.decode("utf-8", "replace").rstrip("\n")


def _socket(written: str) -> _Socket:
    """Read "unix:PATH", "192.0.2.1:3310" or "[::1]:3310"; ValueError where it is none of them."""
    if written.startswith("unix:") and len(written) > 5:
        return _Socket(written, socket.AF_UNIX, written.removeprefix("unix:"))
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):(\d{1,5})", written)
    if not match:
        raise ValueError(
            f'a socket of clamd is written "unix:/run/clamav/clamd.ctl" or "127.0.0.1:3310", not {written!r}'
        )
    address = ipaddress.ip_address(match[1] or match[2])
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return _Socket(written, family, (str(address), int(match[3])))


def _finding(scan: _Scan) -> Finding:
    facts = (_shown(scan.answer), scan.version)
    match = _FOUND.fullmatch(scan.answer)
    if not match:
        return Finding("clean", scan.version, facts=facts)
    code = next((code for prefix, code in _CODES if match[1].startswith(prefix)), "infected")
    return Finding(code, re.sub(r"[^A-Za-z0-9._:/()+-]", "?", match[1][:100]), facts=facts)


def _refusal(answer: str, how: str) -> str:
    """What an *answer* means that is no result; *how* it came."""
    return "the mail is larger than its StreamMaxLength" if answer == _TOO_LARGE else f"{how} {_shown(answer)!r}"


def _why(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "took too long"
    return os.strerror(error.errno) if error.errno else _shown(str(error) or type(error).__name__)


def _shown(text: str) -> str:
    return re.sub(r"[^\x20-\x7e]", "?", text[:200])

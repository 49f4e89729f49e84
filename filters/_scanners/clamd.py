"""A clamd at one socket, asked by INSTREAM.

pyclamd writes what clamd is told; the event loop sends it and reads the answer, for pyclamd itself would wait in a
thread for each mail, and take silence and nonsense for "clean". Only the two answers that clamd's manual names count.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from contextlib import closing, suppress
from io import BytesIO
from typing import NamedTuple, Self

import pyclamd

from filters._scanners.said import CHUNK, Failed, Octets, Refused, Said, Version, name_of, shown, why

MAX_ANSWER = 4096
"""Octets that an answer of clamd may have."""

CONNECT_TIMEOUT = 3.0
"""Seconds that one clamd may take to accept a connection, and to tell its version."""

_FOUND = re.compile(r"stream: (.+) FOUND")
_ANSWERED = re.compile(r"(?:stream: .+|INSTREAM size limit exceeded\.) ERROR")
_TOO_LARGE = "INSTREAM size limit exceeded. ERROR"
_CODES = (("Heuristics.Limits.Exceeded", "unscanned"), ("Heuristics.Encrypted", "encrypted"))
_EXACT = re.compile(r"ClamAV [^/]+/[0-9]+/.+")


class Clamd:
    """One clamd. ValueError where *written* is no socket: "unix:PATH", "192.0.2.1:3310" or "[2001:db8::1]:3310"."""

    def __init__(self, written: str) -> None:
        self.written = written
        self._place = _place(written)

    async def version(self, deadline: float) -> Version:
        """Program and signatures as clamd names them; it may be set up not to tell, which is no fault."""
        deadline = min(deadline, asyncio.get_running_loop().time() + CONNECT_TIMEOUT)
        try:
            words = shown(await self._said(deadline))
        except Failed:
            return Version("version unknown")
        return Version(words, f"clamd {words}" if _EXACT.fullmatch(words) else "")

    async def scan(self, octets: Octets, deadline: float) -> Said:
        """What clamd says to *octets*. `Failed` where that is no result."""
        answer = await self._said(deadline, octets)
        if answer != "stream: OK" and not _FOUND.fullmatch(answer):
            raise (Refused if _ANSWERED.fullmatch(answer) else Failed)(_refusal(answer, "answered"))
        return understood(answer)

    async def _said(self, deadline: float, octets: Octets | None = None) -> str:
        """Its answer to *octets*, or on its version where there are none; `Failed` where it says nothing whole."""
        try:
            async with asyncio.timeout_at(deadline):
                with await _Wire.to(self._place) as wire:
                    return await wire.ask_about(octets)
        except OSError as error:  # TimeoutError is one
            raise Failed(why(error)) from None


def understood(answer: str) -> Said:
    """What a result of clamd means."""
    match = _FOUND.fullmatch(answer)
    if not match:
        return Said("clean", answer=shown(answer))
    code = next((code for prefix, code in _CODES if match[1].startswith(prefix)), "infected")
    return Said(code, name_of(match[1]), shown(answer))


def _refusal(answer: str, how: str) -> str:
    """What an *answer* means that is no result; *how* it came."""
    return "the mail is larger than its StreamMaxLength" if answer == _TOO_LARGE else f"{how} {shown(answer)!r}"


class _Place(NamedTuple):
    """Where a clamd listens: a path, or an address and a port."""

    family: socket.AddressFamily
    address: str | tuple[str, int]


def _place(written: str) -> _Place:
    if written.startswith("unix:") and len(written) > 5:
        return _Place(socket.AF_UNIX, written.removeprefix("unix:"))
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):(\d{1,5})", written)
    if not match:
        raise ValueError(
            f'a socket of clamd is written "unix:/run/clamav/clamd.ctl" or "127.0.0.1:3310", not {written!r}'
        )
    address = ipaddress.ip_address(match[1] or match[2])
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return _Place(family, (str(address), int(match[3])))


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
    async def to(cls, place: _Place) -> Self:
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

    async def ask_about(self, octets: Octets | None) -> str:
        """Send *octets*, or ask for the version; the answer. `OSError` where there is none or part was not taken."""
        try:
            if octets is None:
                await self._send(_VERSION)
            else:
                await self._stream(octets)
        except OSError:
            with suppress(OSError):  # it may have said why before it closed (its size limit)
                answer = await self._line()
                raise (Refused if answer == _TOO_LARGE else Failed)(_refusal(answer, "closed early with")) from None
            raise
        return await self._line()

    async def _stream(self, octets: Octets) -> None:
        """The parts of a stream as pyclamd writes them, the end with the last."""
        waiting = _OPENING
        with closing(octets.pieces()) as pieces:
            for piece in pieces:
                waiting += _stream_of(piece)[len(_OPENING) : -len(_END)]
                if len(piece) == CHUNK:
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

"""A connection to an ICAP service (RFC 3507): what is sent, and the grammar of replies. Everything read has a limit."""

from __future__ import annotations

import asyncio
import re
import socket
import time
import weakref
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, Self

from filters._scanners.said import Failed, shown

CONNECT_TIMEOUT = 3.0
"""Seconds that a service may take to accept a connection."""

MAX_HEAD = 16 << 10
"""Octets of a header."""

MAX_IDLE = 30.0
"""Seconds for which a connection is kept for the next scan."""

_PIECE = 64 << 10
_PORT = 1344
_URL = re.compile(r"icap://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?/[!-~]*")
_STATUS = re.compile(r"ICAP/1\.[01] (\d{3})(?: .*)?")
_FIELD = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+)[ \t]*:[ \t]*(.*)")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?")
_ENCAPSULATED = re.compile(r"(re[qs]-hdr|re[qs]-body|opt-body|null-body) *= *(\d{1,5})")


class Address(NamedTuple):
    """Where a service is: as written, and host and port."""

    written: str
    host: str
    port: int

    @classmethod
    def of(cls, written: str) -> Self:
        """Read "icap://192.0.2.1:1344/avscan"; ValueError where it is something else."""
        match = _URL.fullmatch(written)
        port = int(match[2] or _PORT) if match else 0
        if not match or not 0 < port < 65536:
            raise ValueError(f'an ICAP service is written "icap://127.0.0.1:1344/avscan", not {written!r}')
        return cls(written, match[1].strip("[]"), port)

    def head(self, method: str, *fields: str) -> bytes:
        """The header of a request."""
        host = self.written.split("/")[2]
        lines = (f"{method} {self.written} ICAP/1.0", f"Host: {host}", "User-Agent: Gatepost", *fields, "")
        return "".join(f"{line}\r\n" for line in lines).encode("ascii")


@dataclass(frozen=True, slots=True)
class Reply:
    """The status and the header fields of a reply; names in lower case, fields of one name joined by commas."""

    status: int
    fields: Mapping[str, str]

    @classmethod
    def of(cls, head: bytes) -> Self:
        """Read *head*; `Failed` where it is none."""
        first, *lines = re.sub(r"\r\n[ \t]+", " ", head.decode("latin-1")).split("\r\n")
        status = _STATUS.fullmatch(first)
        if not status:
            raise Failed(f"answered {shown(first)!r}")
        return cls(int(status[1]), _fields(lines))

    @property
    def blocks(self) -> Sequence[tuple[str, int]]:
        """What it encapsulates, and where each begins (4.4.1): ("res-hdr", 0), ("res-body", 120)."""
        written = self.fields.get("encapsulated", "")
        found = [_ENCAPSULATED.fullmatch(one.strip()) for one in written.split(",")]
        blocks = [(one[1], int(one[2])) for one in found if one]
        offsets = [offset for _, offset in blocks]
        if len(blocks) != len(found) or offsets != sorted(offsets) or offsets[0] != 0 or offsets[-1] > MAX_HEAD:
            raise Failed(f"encapsulates {shown(written)!r}")
        return blocks

    @property
    def closes(self) -> bool:
        """Whether the connection ends with it."""
        return "close" in self.fields.get("connection", "").lower()


def _fields(lines: Sequence[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in lines:
        if not (match := _FIELD.fullmatch(line)):
            raise Failed(f"answered with the header line {shown(line)!r}")
        name, value = match[1].lower(), match[2].strip()
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields


class Wire:
    """A connection. Deadlines are the caller's. `ConnectionError` where it ends too early."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._loop = asyncio.get_running_loop()
        self._read = b""
        self._since = time.monotonic()
        # One that was kept goes with the policy that it was kept for. In a cycle, `__del__` may come after the end of
        # the socket itself; this holds the socket until it has closed it.
        self._closed = weakref.finalize(self, connected.close)

    @classmethod
    async def to(cls, address: Address) -> Self:
        """Connect to *address*."""
        async with asyncio.timeout(CONNECT_TIMEOUT):
            found = await asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
            family, kind, _, _, place = found[0]
            wire = cls(socket.socket(family, kind))
            try:
                wire._socket.setblocking(False)
                await wire._loop.sock_connect(wire._socket, place)
            except BaseException:
                wire.close()
                raise
            return wire

    def close(self) -> None:
        """End it."""
        self._closed()

    def hang_up(self) -> None:
        """End it in both directions; who waits for a reply learns it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    @property
    def spoke(self) -> bool:
        """Whether there is something to read now, or the other side has closed."""
        if self._read:
            return True
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    @property
    def usable(self) -> bool:
        """Whether a connection that was kept is still good."""
        ours = self._loop is asyncio.get_running_loop()
        return ours and time.monotonic() - self._since < MAX_IDLE and not self.spoke

    async def send(self, octets: bytes) -> None:
        """Send *octets*."""
        await self._loop.sock_sendall(self._socket, octets)
        self._since = time.monotonic()

    async def reply(self) -> Reply:
        """The next reply, up to the end of its header."""
        return Reply.of(await self._until(b"\r\n\r\n", MAX_HEAD))

    async def exactly(self, size: int) -> bytes:
        """The next *size* octets."""
        while len(self._read) < size:
            await self._more()
        octets, self._read = self._read[:size], self._read[size:]
        return octets

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """A chunked body (RFC 9112 7.1), piece by piece, with what stands behind it."""
        while size := await self._size():
            while size:
                piece = await self.exactly(min(size, _PIECE))
                size -= len(piece)
                yield piece
            await self._demand_line()
        while await self._until(b"\r\n", MAX_HEAD):
            pass

    async def _size(self) -> int:
        line = await self._until(b"\r\n", MAX_HEAD)
        if not (match := _CHUNK.fullmatch(line)):
            raise Failed("sent a body that is not chunked")
        return int(match[1], 16)

    async def _demand_line(self) -> None:
        if await self.exactly(2) != b"\r\n":
            raise Failed("sent a chunk of another size than it said")

    async def _until(self, end: bytes, most: int) -> bytes:
        """What stands before *end*, which goes too."""
        while end not in self._read:
            if len(self._read) > most:
                raise Failed("sent a header without an end")
            await self._more()
        found, _, self._read = self._read.partition(end)
        return found

    async def _more(self) -> None:
        piece = await self._loop.sock_recv(self._socket, _PIECE)
        if not piece:
            raise ConnectionAbortedError("closed without a whole answer")
        self._read += piece

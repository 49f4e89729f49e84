"""A clamd of our own that errs in chosen ways; the real one (clamd.py) will not close, hang or stall on demand."""

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from tests.peers import loop, processes

PAUSE = 0.05  # seconds between the pieces of an answer, and before a slow reader reads on
MIDDLE = 8000  # bytes after which DIE_MID closes
SMALL_BUFFER = 65536  # bytes that the kernel holds for a slow reader


class Mode(StrEnum):
    """What the fake does when a mail comes in by INSTREAM."""

    OK = "ok"  # answers OK
    FOUND = "found"  # answers that it found the signature
    ERR = "err"  # answers with an error of the scan
    CLOSE_NOW = "close_now"  # closes at the command, before the mail
    HANG = "hang"  # neither reads nor answers
    DIE_AFTER = "die_after"  # takes the whole mail and closes without a word
    DIE_MID = "die_mid"  # closes in the middle of the mail
    LIMIT = "limit"  # answers "size limit exceeded" and closes as soon as the mail is longer than the limit
    FRAG = "frag"  # answers FOUND in several pieces
    SLOWREAD = "slowread"  # takes the mail in slowly, so that the client's writes block; then OK


@dataclass(frozen=True)
class Stream:
    """One mail as the fake saw it: `ended` by the empty chunk, and `extra` bytes after that, which are a fault."""

    data: bytes
    chunks: int
    ended: bool
    extra: bytes


@dataclass
class FakeClamd:
    """A running fake. `mode` may be changed while it runs, and holds from the next connection on."""

    mode: Mode
    signature: str
    stream_max_length: int
    port: int = 0
    unix_socket: Path | None = None
    streams: list[Stream] = field(default_factory=list)
    host: str = processes.HOST

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        command, end = await _command(reader)
        if command == b"INSTREAM":
            await self._instream(reader, writer, end)
        else:
            known = {b"PING": b"PONG", b"VERSION": b"ClamAV 1.4.6/1/Sun Nov 1 00:00:00 2026"}
            await _say(writer, known.get(command, b"UNKNOWN COMMAND") + end)

    async def _instream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, end: bytes) -> None:
        mode = self.mode
        if mode is Mode.CLOSE_NOW:
            return
        if mode is Mode.HANG:
            _transport(writer).pause_reading()
            await asyncio.Event().wait()
        if mode is Mode.SLOWREAD:
            await _read_nothing_for(PAUSE * 4, writer)
        stream = await self._read(reader, mode)
        self.streams.append(stream)
        for piece in self._answer(mode, len(stream.data), end):
            await _say(writer, piece)
            await asyncio.sleep(PAUSE if mode is Mode.FRAG else 0)

    async def _read(self, reader: asyncio.StreamReader, mode: Mode) -> Stream:
        """Up to the empty chunk, or up to where the mode stops."""
        data, chunks, ended = bytearray(), 0, False
        bounds = {Mode.DIE_MID: MIDDLE, Mode.LIMIT: self.stream_max_length}
        bound = bounds.get(mode, loop.LINE * 1000)
        while not ended and len(data) <= bound:
            size = struct.unpack("!L", await reader.readexactly(4))[0]
            data += await reader.readexactly(min(size, bound + 1 - len(data)))
            chunks, ended = chunks + (size > 0), size == 0
        return Stream(bytes(data), chunks, ended, await _extra(reader) if ended else b"")

    def _answer(self, mode: Mode, size: int, end: bytes) -> list[bytes]:
        found = f"stream: {self.signature} FOUND".encode() + end
        match mode:
            case Mode.DIE_AFTER | Mode.DIE_MID:
                return []
            case Mode.FOUND:
                return [found]
            case Mode.FRAG:
                return [found[:3], found[3:12], found[12:-1], found[-1:]]
            case Mode.ERR:
                return [b"stream: Heuristics.Limits.Exceeded.MaxScanTime ERROR" + end]
            case Mode.LIMIT if size > self.stream_max_length:
                return [b"INSTREAM size limit exceeded. ERROR" + end]
        return [b"stream: OK" + end]


@contextmanager
def run(
    mode: Mode = Mode.OK,
    *,
    signature: str = "Eicar-Test-Signature",
    stream_max_length: int = 100_000,
    path: Path | None = None,
) -> Iterator[FakeClamd]:
    """A fake clamd on a free TCP port or on the unix socket `path`; `signature` may be as hostile as a test likes."""
    fake = FakeClamd(mode, signature, stream_max_length, unix_socket=path)
    with loop.serving(fake.converse, path=path) as port:
        fake.port = port
        yield fake


async def _command(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The command and the byte that ends it and the answer: NUL after `z`, newline after `n` or nothing (clamd(8))."""
    first = await reader.readexactly(1)
    end = b"\0" if first == b"z" else b"\n"
    line = await reader.readuntil(end)
    return (b"" if first in b"zn" else first) + line.removesuffix(end).removesuffix(b"\r"), end


async def _say(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def _read_nothing_for(seconds: float, writer: asyncio.StreamWriter) -> None:
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    _transport(writer).pause_reading()
    await asyncio.sleep(seconds)
    _transport(writer).resume_reading()


def _transport(writer: asyncio.StreamWriter) -> asyncio.Transport:
    """A stream's transport goes both ways, though its type says only one."""
    assert isinstance(writer.transport, asyncio.Transport)
    return writer.transport


async def _extra(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(PAUSE):
            return await reader.read(100)
    except TimeoutError:
        return b""

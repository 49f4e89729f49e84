"""A scripted peer: says and expects what a script lists, for replies that no honest program gives.

A script is text, one step a line: `S: line` says it with CRLF, `R: text` says it with Python's escapes and nothing
added, `C: regex` expects such a line, `data` reads up to the final dot, `pause 0.1` waits, `starttls`, and at the end
`hang` (until the test ends), `reset` (RST), or nothing (an orderly close).
"""

import asyncio
import re
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

from tests.peers import loop, processes
from tests.peers.certificates import Certificate

STEP = 10.0  # seconds that a client may take for one line


class Unexpected(AssertionError):
    """The client said something that the script does not have at this place."""


@dataclass
class FakePeer:
    """A running script. `received` has the bytes of each connection, `completed` counts scripts run to their end."""

    scripts: Sequence[Sequence[str]]
    certificate: Certificate | None
    port: int = 0
    received: list[bytearray] = field(default_factory=list)
    completed: int = 0
    problems: list[str] = field(default_factory=list)
    host: str = processes.HOST
    _numbers: Iterator[int] = field(default_factory=count)

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The first connection runs the first script, and so on; the last script is for all that follow."""
        heard = bytearray()
        self.received.append(heard)
        for step in self.scripts[min(next(self._numbers), len(self.scripts) - 1)]:
            try:
                async with asyncio.timeout(None if step == "hang" else STEP):
                    await self._do(step, reader, writer, heard)
            except Unexpected as problem:
                self.problems.append(str(problem))
                return
        self.completed += 1

    async def _do(
        self, step: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: bytearray
    ) -> None:
        word, _, rest = step.partition(" ")
        match word:
            case "S:":
                await _say(writer, rest.encode() + b"\r\n")
            case "R:":
                await _say(writer, rest.encode("latin-1").decode("unicode_escape").encode("latin-1"))
            case "C:":
                await _expect(rest, reader, heard)
            case "data":
                await _read_data(reader, heard)
            case "pause":
                await asyncio.sleep(float(rest))
            case "starttls" if self.certificate:
                await writer.start_tls(self.certificate.server_context())
            case "hang":
                await asyncio.Event().wait()
            case "reset":
                _reset(writer)
            case _:
                raise ValueError(f"no such step: {step}")


@contextmanager
def run(*scripts: str, certificate: Certificate | None = None) -> Iterator[FakePeer]:
    """A peer that runs these scripts; raises Unexpected at the end if a client did not keep to them."""
    peer = FakePeer([_steps(script) for script in scripts], certificate)
    with loop.serving(peer.converse) as peer.port:
        yield peer
    if peer.problems:
        raise Unexpected("; ".join(peer.problems))


def _steps(script: str) -> list[str]:
    return [line.strip() for line in script.splitlines() if line.strip()]


async def _say(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def _expect(pattern: str, reader: asyncio.StreamReader, heard: bytearray) -> None:
    line = await reader.readuntil(b"\n")
    heard += line
    if not re.fullmatch(pattern.encode() + rb"\r\n", line, re.IGNORECASE):
        raise Unexpected(f"expected {pattern!r}, heard {line!r}")


async def _read_data(reader: asyncio.StreamReader, heard: bytearray) -> None:
    line = b""
    while line != b".\r\n":
        line = await reader.readuntil(b"\n")
        heard += line


def _reset(writer: asyncio.StreamWriter) -> None:
    """Lingering for no time makes the kernel send RST at close."""
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()

"""A mail host that plays a script: what it says, what it wants to hear, and when it hangs up.

A line of a script: `S: text` it says; `C: text` it wants to hear; `C= text` the message it wants to get after 354, as
it stands on the wire ("*": any); `X` it hangs up; `T` it begins TLS; `R: N text` it says N lines; `L: N text` it says
N times the text and never ends the line. "\\r" and "\\n" are escapes.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address

from gateway.delivery.paths import Hop


@dataclass
class Host:
    """A running scripted host; `heard` keeps what each connection said, `faults` where it left the script."""

    scripts: list[list[str]]
    tls: ssl.SSLContext | None = None
    port: int = 0
    heard: list[list[str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def hop(self, tls_: str = "may", **changes: object) -> Hop:
        changes["tls"] = tls_
        return Hop(**({"host": "localhost", "address": ip_address("127.0.0.1"), "port": self.port} | changes))

    async def play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines: list[str] = []
        self.tasks.append(asyncio.current_task())
        self.heard.append(lines)
        try:
            async with asyncio.timeout(10):
                for step in self.scripts[len(self.heard) - 1]:
                    await self._step(step, reader, writer, lines)
                with suppress(OSError):
                    await self._after(reader, writer, lines)
        except IndexError:
            self.faults.append("one connection too many")
        except asyncio.CancelledError:
            pass  # the test is over, and its client has not hung up
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            self.faults.append(f"{type(error).__name__} after {lines[-1:]}")
        finally:
            writer.transport.abort()

    async def _after(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lines: list[str]) -> None:
        """What comes after the script: QUIT mostly."""
        while line := await reader.readline():
            lines.append(line.decode("latin-1").rstrip("\r\n"))
            writer.write(b"221 2.0.0 bye\r\n" if line == b"QUIT\r\n" else b"502 5.5.1 not in the script\r\n")

    async def _step(
        self, step: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lines: list[str]
    ) -> None:
        kind, text = step[:2], step[3:]
        if kind == "S:":
            writer.write(unescaped(text) + b"\r\n")
            await writer.drain()
        elif kind in ("R:", "L:"):
            with suppress(OSError):  # the other side may have had enough
                writer.write(_much(text, b"\r\n" if kind == "R:" else b""))
                await writer.drain()
        elif kind == "C:":
            got = (await reader.readuntil(b"\r\n")).decode().removesuffix("\r\n")
            lines.append(got)
            if got != text:
                self.faults.append(f"wanted {text!r}, got {got!r}")
        elif kind == "C=":
            data = await reader.readuntil(b"\r\n.\r\n") if text != "." else await reader.readuntil(b".\r\n")
            lines.append(data.decode("latin-1"))
            if text != "*" and data != unescaped(text) + b"\r\n" * (text == "."):
                self.faults.append(f"wanted {text!r}, got {data!r}")
        elif kind == "T" and self.tls:
            await writer.start_tls(self.tls)
        elif kind == "X":
            writer.close()


def _much(text: str, end: bytes) -> bytes:
    number, _, what = text.partition(" ")
    return (unescaped(what) + end) * int(number)


def unescaped(text: str) -> bytes:
    return text.encode("latin-1", "backslashreplace").decode("unicode_escape").encode("latin-1")


@asynccontextmanager
async def host(*scripts: str | Sequence[str], tls: ssl.SSLContext | None = None) -> AsyncIterator[Host]:
    """Serve on a port of the system's choice; each connection plays the next of *scripts*."""
    peer = Host([script.strip().splitlines() if isinstance(script, str) else list(script) for script in scripts], tls)
    server = await asyncio.start_server(peer.play, "127.0.0.1", 0)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        if peer.tasks:
            await asyncio.wait(peer.tasks, timeout=0.2)
        for task in peer.tasks:
            task.cancel()
        await server.wait_closed()

"""Lines and octets over one TCP connection, bounded both ways. It knows TLS, and nothing of SMTP.

Our own buffer, not that of a StreamReader: before TLS begins it must be provably empty (STARTTLS injection).
"""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

from gateway.tls import abort

MAX_LINE = 4096
"""Octets of one line (RFC 5321 4.5.3.1.5 says 512; hosts are more talkative)."""
MAX_UNREAD = 64 << 10
"""Octets that wait unread before we stop listening."""


class Closed(Exception):
    """The connection is gone, or sends what is no line. The text is ours."""


class Wire(asyncio.Protocol):
    """One connection. Deadlines are the caller's (`asyncio.timeout`)."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._closed = False
        self._deaf = False
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    @classmethod
    async def connect(
        cls, address: str, port: int, source: str | None, context: ssl.SSLContext | None, name: str
    ) -> Wire:
        """Connect to an IP address, from the address *source*, with TLS at once if there is a *context*."""
        _, wire = await asyncio.get_running_loop().create_connection(
            cls,
            address,
            port,
            local_addr=(source, 0) if source else None,
            ssl=context,
            server_hostname=name if context else None,
        )
        return wire

    async def start_tls(self, context: ssl.SSLContext, name: str) -> None:
        """Go on under TLS; raise `Closed` when the peer said anything in clear that nobody has read."""
        if self._buffer or self._transport is None:
            raise Closed("it spoke in clear where TLS was to begin")
        loop = asyncio.get_running_loop()
        self._transport = await loop.start_tls(self._transport, self, context, server_hostname=name)

    @property
    def unread(self) -> bool:
        """Has the peer said something that nobody has read?"""
        return bool(self._buffer)

    @property
    def alive(self) -> bool:
        """Is it open, as far as we know, and the peer silent?"""
        return not self._closed and not self._buffer

    @property
    def tls(self) -> str:
        """The version of TLS in use ("TLSv1.3"), or empty."""
        tls = self._transport.get_extra_info("ssl_object") if self._transport else None
        return str(tls.version() or "") if tls else ""

    def line(self) -> bytes | None:
        """The next line without its end (CRLF, or the LF that some hosts send); None where it is not all there."""
        end = self._buffer.find(b"\n")
        if end < 0 and len(self._buffer) <= MAX_LINE:
            if self._closed:
                raise Closed("it closed the connection")
            return None
        if end < 0:
            raise Closed("it sent a line without end")
        if end > MAX_LINE:
            raise Closed("it sent too long a line")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._listen()
        return line.removesuffix(b"\r")

    async def more(self) -> None:
        """Wait until the peer has said something, or the connection has ended."""
        self._arrived.clear()
        if not self._closed:
            await self._arrived.wait()

    def write(self, data: bytes) -> bool:
        """Send *data*; False when there is no `room` for more yet."""
        if self._closed or self._transport is None:
            raise Closed("it closed the connection")
        self._transport.write(data)
        return self._writable.is_set()

    async def room(self) -> None:
        """Wait until more can be sent, or the connection has ended."""
        await self._writable.wait()

    def close(self) -> None:
        """Drop the connection at once, without a word."""
        self._closed = True
        if self._transport is not None:
            abort(self._transport)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self._buffer += data
        self._arrived.set()
        if len(self._buffer) > MAX_UNREAD and self._transport is not None:
            self._deaf = True
            self._transport.pause_reading()

    def _listen(self) -> None:
        if self._deaf and len(self._buffer) <= MAX_UNREAD and not self._closed and self._transport is not None:
            self._deaf = False
            self._transport.resume_reading()

    def eof_received(self) -> None:
        """Called by asyncio: the peer says no more; None closes our side too."""
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Called by asyncio."""
        self._end()

    def _end(self) -> None:
        self._closed = True
        self._arrived.set()
        self._writable.set()

    def pause_writing(self) -> None:
        """Called by asyncio."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Called by asyncio."""
        self._writable.set()

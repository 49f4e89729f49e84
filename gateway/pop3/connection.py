"""One TCP connection as lines in and octets out, each with a bound and a deadline. It knows nothing of POP3."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

from gateway.pop3.framing import Lines
from gateway.stages import Pop3
from gateway.tls import abort

READ_AHEAD = 16 << 10
"""Octets that may wait unread in a session; beyond, the peer has to wait. A SASL line has to fit in."""
WRITE_AHEAD = 64 << 10
"""Octets that gather before they are sent, and that may wait for the peer to read them."""


class Gone(Exception):
    """The peer has left, or has to: it did not read, or broke the rules of TLS."""


class Connection(asyncio.Protocol):
    """Commands come by `line`, answers go by `send`. *opened* is called first, and returns what to call at the end."""

    def __init__(self, limits: Pop3, longest_line: int, opened: Callable[[Connection], Callable[[], None]]) -> None:
        self._limits = limits
        self._lines = Lines(longest_line)
        self._opened = opened
        self._when_lost: Callable[[], None] = _nothing
        self._out = bytearray()
        self._transport: asyncio.Transport | None = None
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = asyncio.Event()
        self._ended = False

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._take(cast("asyncio.Transport", transport))
        self._when_lost = self._opened(self)

    def data_received(self, data: bytes) -> None:
        self._lines.feed(data)
        if len(self._lines) > READ_AHEAD and self._transport is not None:
            self._transport.pause_reading()
        self._readable.set()

    def eof_received(self) -> bool:
        """What the peer sent before it stopped sending is still answered; TLS cannot be closed by halves."""
        self.end()
        return not self.tls

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        self._lost.set()
        self._writable.set()
        self.end()
        self._when_lost()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # What a session calls

    @property
    def tls(self) -> str:
        """The version of TLS in use, or nothing."""
        wrapped = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        return (wrapped.version() or "TLS") if wrapped is not None else ""

    @property
    def has_unread(self) -> bool:
        """Whether octets have arrived that nobody has looked at."""
        return len(self._lines) > 0

    def end(self) -> None:
        """Let `line` say None once what has arrived is used up."""
        self._ended = True
        self._readable.set()

    async def line(self, seconds: float) -> bytes | None:
        """The next line with its end, cut where it is too long; None at the end; `TimeoutError` after *seconds*.

        What was said so far is sent before it waits.
        """
        await asyncio.sleep(0)  # a peer that sends commands by the thousand leaves room for the others
        line = self._next()
        if line is not None:
            return line
        await self.flush()
        async with asyncio.timeout(seconds):
            while (line := self._next()) is None and not self._ended:
                self._readable.clear()
                await self._readable.wait()
        return line

    async def send(self, data: bytes) -> None:
        """Say *data*, now or together with what follows soon."""
        self._out += data
        if len(self._out) >= WRITE_AHEAD:
            await self.flush()

    async def flush(self) -> None:
        """Hand over to the network what was said; wait while the peer is behind. `Gone` when it does not catch up."""
        if self._transport is None or self._transport.is_closing():
            raise Gone
        while self._out:
            self._transport.write(bytes(self._out[:WRITE_AHEAD]))
            del self._out[:WRITE_AHEAD]
            if not self._writable.is_set():
                await self._wait_for_reader()

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Go on under TLS. `Gone` when that fails, or when the peer said anything in the clear meanwhile."""
        await self.flush()
        if self._transport is None or self.has_unread:
            raise Gone
        try:
            # From here to its first wait this stops reading in the clear: nothing can slip in between.
            wrapped = await asyncio.get_running_loop().start_tls(
                self._transport,
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=self._limits.handshake_timeout,
                ssl_shutdown_timeout=self._limits.linger,
            )
        except OSError:  # ssl.SSLError is one of them
            self._lost.set()
            # The transport is closed; of a peer that left during the handshake asyncio tells nobody
            asyncio.get_running_loop().call_soon(self.connection_lost, None)
            raise Gone from None
        if wrapped is None or self._lost.is_set():
            raise Gone
        self._take(wrapped)

    async def close(self, within: float | None = None) -> None:
        """Send what is left, and hang up; whatever the peer does, it is over *within* seconds, by default `linger`."""
        if self._transport is None:
            return
        if self._out and not self._transport.is_closing():
            self._transport.write(bytes(self._out))
        self._out.clear()
        self._transport.close()
        try:
            async with asyncio.timeout(self._limits.linger if within is None else within):
                await self._lost.wait()
        except TimeoutError:
            pass
        finally:
            self._hang_up()

    def abort(self) -> None:
        """Hang up at once, so that nothing cut short looks complete."""
        self._out.clear()
        self._hang_up()

    def _hang_up(self) -> None:
        if self._transport is not None and not self._lost.is_set():
            abort(self._transport)

    def _take(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=WRITE_AHEAD)

    def _next(self) -> bytes | None:
        line = self._lines.next()
        if len(self._lines) <= READ_AHEAD and self._transport is not None and not self._ended:
            self._transport.resume_reading()
        return line

    async def _wait_for_reader(self) -> None:
        try:
            async with asyncio.timeout(self._limits.write_timeout):
                await self._writable.wait()
        except TimeoutError:
            raise Gone from None
        if self._lost.is_set():
            raise Gone


def _nothing() -> None:
    """There is nobody to tell."""

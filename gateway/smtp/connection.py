"""One connection of the SMTP edge, below the commands: turns, timers, replies in groups, TLS, and the end.

A subclass of aiosmtpd's `SMTP`, of which the loop over commands stays; `session.py` has the commands.
Rule: no wait is without an end. A peer that is silent, slow, or does not read what we say is told so, then cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import cache, partial
from socket import SO_SNDBUF, SOL_SOCKET
from typing import Any, cast

from aiosmtpd.smtp import SMTP, TLSSetupException

from gateway import events
from gateway.model import ListenerKind
from gateway.model import Session as Peer
from gateway.peers import Address
from gateway.smtp import replies
from gateway.smtp.pace import Pace
from gateway.smtp.replies import Reply
from gateway.smtp.wire import MAX_LINE, Reader
from gateway.stages import Edge
from gateway.tls import abort

GRACE = 5.0
"""Seconds that a peer has to read our last words."""

WRITE_AHEAD = 16 << 10
"""Octets of replies that may wait for the peer to read them."""

Verb = Callable[[str | None], Awaitable[None]]

_TICK = 0.001

_open: set[Connection] = set()


def connections() -> set[Connection]:
    """The connections of this process."""
    return set(_open)


def _tls_version(transport: asyncio.BaseTransport) -> str:
    secured = transport.get_extra_info("ssl_object")
    return secured.version() or "TLS" if secured is not None else ""


def _keep_little(transport: asyncio.BaseTransport) -> None:
    """Replies are short: of a peer that does not read them the kernel is not to keep megabytes."""
    if (socket := transport.get_extra_info("socket")) is not None:
        with contextlib.suppress(OSError):
            socket.setsockopt(SOL_SOCKET, SO_SNDBUF, 2 * WRITE_AHEAD)


class _AnyLength(dict[str, int]):
    """Lines are bounded by `Reader`; aiosmtpd's own table would grow with every word that a stranger invents."""

    def __missing__(self, verb: str) -> int:
        return MAX_LINE


class _Verbs:
    """aiosmtpd's table of commands, without its search through the whole class for each connection."""

    def __init__(self, obey: Callable[[str, str | None], Awaitable[None]]) -> None:
        self._obey = obey

    def get(self, verb: str) -> Verb:
        return partial(self._obey, verb)


@cache
def _stock_state() -> dict[str, Any]:
    """What aiosmtpd's constructor sets, without its price: it looks through all members of the class each time."""
    loop = asyncio.get_running_loop()
    base = vars(asyncio.StreamReaderProtocol(asyncio.StreamReader(loop=loop), loop=loop))
    stock = vars(SMTP(None, hostname="-", ident="ESMTP Gatepost", enable_SMTPUTF8=True, loop=loop))
    return {name: value for name, value in stock.items() if name not in base} | {"_auth_methods": {}}


class Connection(SMTP):
    """What a session stands on. Subclasses give `welcome`, `obey` and `patience`, and let go of things in `forget`.

    *address* is the peer's; *left* is called when the connection is gone.
    """

    command_size_limit = MAX_LINE
    command_size_limits = _AnyLength()
    transport: asyncio.Transport | None

    def __init__(
        self, edge: Edge, hostname: str, kind: ListenerKind, listener: str, address: Address, left: Callable[[], None]
    ) -> None:
        vars(self).update(_stock_state())
        self.loop = asyncio.get_running_loop()
        self._reader: Reader = Reader()
        asyncio.StreamReaderProtocol.__init__(self, self._reader, self._cb_client_connected, self.loop)
        self.edge = edge
        self.hostname = hostname
        self.peer = Peer(address, listener, kind)
        self._left = left
        self._smtp_methods = cast("dict[str, Any]", _Verbs(self.obey))
        self._said = bytearray()
        self._pace = Pace(0, 1.0, 0.0)
        self._late = replies.IDLE_TOO_LONG
        self._deadline = 0.0
        self._last_moment: asyncio.TimerHandle | None = None

    # What the commands bring

    async def welcome(self) -> bool:
        """Whether the peer is greeted; False after `leave`."""
        raise NotImplementedError

    async def obey(self, verb: str, argument: str | None) -> None:
        """Do what one command line asks."""
        raise NotImplementedError

    def patience(self) -> tuple[float, Reply]:
        """How many seconds we wait for a command, and what is said then."""
        raise NotImplementedError

    def forget(self) -> None:
        """The transaction is over, or the connection is gone."""
        raise NotImplementedError

    # Beginning and end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A peer may come in; over an implicit TLS listener, after the handshake."""
        self._session_end = self.loop.time() + self.edge.session_time
        self.peer = replace(self.peer, tls=_tls_version(transport))
        cast("asyncio.Transport", transport).set_write_buffer_limits(high=WRITE_AHEAD)
        _keep_little(transport)
        _open.add(self)
        super().connection_made(transport)

    def _set_rset_state(self) -> None:
        """Called by aiosmtpd at the beginning: there is nothing to reset, our state is our own."""

    def eof_received(self) -> bool:
        """The peer says no more, but may still listen: what it asked for is done first. TLS cannot be half closed."""
        self._reader.feed_eof()
        return not self.peer.tls

    def connection_lost(self, error: Exception | None) -> None:
        """It is over. aiosmtpd may call this a second time, after a failed handshake."""
        if self not in _open:
            return
        _open.discard(self)
        self._left()
        if self._last_moment is not None:
            self._last_moment.cancel()
        self.forget()
        super().connection_lost(error)

    async def _handle_client(self) -> None:
        with contextlib.suppress(ConnectionError):
            if await self.welcome():
                await super()._handle_client()

    def leave(self, reply: Reply) -> None:
        """Say *reply* as the last word. What the peer has sent and we have not read is never executed."""
        self._said += f"{reply}\r\n".encode("ascii")
        self._close()

    def _close(self) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        self.transport.write(self._taken())
        self.transport.close()
        self._reader.discard()
        if self._handler_coroutine is not None:
            self._handler_coroutine.cancel()
        self._last_moment = self.loop.call_later(GRACE, abort, self.transport)

    def retire(self) -> None:
        """The process is stopping: leave, unless a command is in hand. Ask again until it is done."""
        if self._reader.waiting:
            self.leave(replies.SHUTTING_DOWN)

    def cut(self) -> None:
        """End the connection without another word."""
        if self.transport is not None:
            abort(self.transport)

    # Saying

    async def push(self, status: str | bytes) -> None:
        """Say one reply. A group of pipelined commands is answered at once (RFC 2920 3.2); 421 ends the session."""
        self._said += (status.encode("ascii") if isinstance(status, str) else status) + b"\r\n"
        if status[:3] in ("421", b"421"):
            self._close()
        elif not self._reader.has_line or len(self._said) > WRITE_AHEAD:
            await self.flush()

    async def say(self, reply: Reply) -> None:
        """Say *reply*."""
        await self.push(str(reply))

    async def flush(self) -> None:
        """Send what was said, and wait while the peer does not read it."""
        if self._said and not self._writer.transport.is_closing():
            self._writer.write(self._taken())
        if self._writer.transport.get_write_buffer_size():
            self._late = replies.REPLIES_UNREAD
            self.allow(min(self.edge.write_timeout, self._session_end - self.loop.time()))
            await self._writer.drain()
            self._reset_timeout()

    def _taken(self) -> bytes:
        said = bytes(self._said)
        self._said.clear()
        return said

    # Time

    def _reset_timeout(self, duration: float | None = None) -> None:
        """Called by aiosmtpd at the beginning and before each command: the peer is heard, its time begins anew."""
        seconds, self._late = self.patience()
        self.allow(min(duration or seconds, self._session_end - self.loop.time()))

    def hurry(self) -> None:
        """There is less patience now than there was: it holds for a peer, too, that is awaited already."""
        seconds, late = self.patience()
        if self._reader.waiting and self._deadline > self.loop.time() + seconds:
            self._late = late
            self.allow(seconds)

    def begin_content(self) -> None:
        """From now on the peer is to send content, and not too slowly."""
        self._pace = Pace(self.edge.data_rate, self.edge.data_window, self.loop.time())

    async def octets(self, most: int) -> bytes:
        """The next octets of content, at most *most*; `ConnectionResetError` where there are no more."""
        if self._said and self._reader.is_empty:
            await self.flush()  # who waits, lets nobody wait for what he has said (RFC 2920 3.2)
        if self._reader.is_empty:
            self._allow_content(self.loop.time())
        if octets := await self._reader.read(most):
            self._pace.count(len(octets), self.loop.time())
            return octets
        raise ConnectionResetError

    def _allow_content(self, now: float) -> None:
        silent, slow = now + self.edge.data_timeout, self._pace.deadline
        self._late = replies.DATA_STOPPED if silent <= slow else replies.DATA_TOO_SLOW
        self.allow(min(silent, slow, self._session_end) - now)

    def allow(self, seconds: float) -> None:
        """Put the deadline *seconds* from now. The timer is only set anew where it would come too late."""
        self._deadline = self.loop.time() + seconds
        timer = self._timeout_handle
        if timer is None or self._deadline < timer.when():
            if timer is not None:
                timer.cancel()
            self._timeout_handle = self.loop.call_at(self._deadline, self._timeout_cb)

    def _timeout_cb(self) -> None:
        if self.loop.time() < self._deadline - _TICK:
            self._timeout_handle = self.loop.call_at(self._deadline, self._timeout_cb)
            return
        reply = replies.SESSION_TOO_LONG if self._deadline >= self._session_end - _TICK else self._late
        events.say("timeout", peer=self.peer.peer, listener=self.peer.listener, reply=reply)
        self.leave(reply)

    # TLS

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Say that we are ready, and shake hands. What the peer said in clear is forgotten (RFC 3207 4.2)."""
        transport = self.transport
        assert transport is not None  # noqa: S101 - only a command leads here
        transport.write(self._taken() + f"{replies.READY_FOR_TLS}\r\n".encode("ascii"))
        self._reader.discard()
        try:
            secured = await self.loop.start_tls(
                transport, self, context, server_side=True, ssl_handshake_timeout=self.edge.handshake_timeout
            )
        except OSError as error:
            events.say("handshake failed", peer=self.peer.peer, listener=self.peer.listener, error=type(error).__name__)
            raise TLSSetupException from error
        if secured is None:
            raise TLSSetupException
        self.transport = self._transport = secured
        vars(self._reader)["_transport"] = vars(self._writer)["_transport"] = secured
        self._over_ssl = True
        self.peer = replace(self.peer, tls=_tls_version(secured), helo="", user="")

"""What a connection passes before its dialog begins: it is counted, says whom it brings, and shakes hands.

The first protocol of every connection, SMTP and POP3 alike. It reads the PROXY header to the octet and nothing beyond,
so that what follows, TLS or commands, is read by those whom it concerns. Rule: whoever is here is counted, and nobody
stays without a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from socket import IPPROTO_TCP, TCP_NODELAY
from typing import Protocol, cast

from gateway import events, peers, proxy
from gateway.config import Networks
from gateway.peers import Address, Crowd, Full, Place, Room, TooMany
from gateway.tls import abort

EARLY = 16 << 10
"""Octets that may come before TLS has begun, and again between the handshake and the greeting."""


class Limits(Room, Protocol):
    """What of edge.toml and pop3.toml is needed here. Times are seconds."""

    @property
    def handshake_timeout(self) -> float: ...
    @property
    def proxy_timeout(self) -> float: ...


class Lobby:
    """What the doors of one process share: who is in, and who is still at the door."""

    def __init__(self) -> None:
        self.crowd = Crowd()
        self.entering: set[Door] = set()

    def clear(self) -> None:
        """The process is stopping: part from those whose dialog has not begun."""
        for one in list(self.entering):
            one.cut()


@dataclass(frozen=True, slots=True)
class Entrance:
    """One listener, as its doors see it.

    `limits` gives those in force now. `dialog` makes the protocol to talk to an address; it calls what it is given
    when its connection is lost. `refusals` is said where there is no room; `stranger` to whoever is not one of the
    `proxies`, where some are named. `context` is for implicit TLS.
    """

    name: str
    lobby: Lobby
    limits: Callable[[], Limits]
    dialog: Callable[[Address, Callable[[], None]], asyncio.Protocol]
    refusals: Mapping[Full, str]
    stranger: str
    proxies: Networks = ()
    context: ssl.SSLContext | None = None


class Door(asyncio.BufferedProtocol):
    """One connection on its way in."""

    __slots__ = (
        "_address", "_at", "_buffer", "_counted", "_deadline", "_early", "_header", "_limits", "_places", "_shaking",
        "_transport",
    )  # fmt: skip

    def __init__(self, entrance: Entrance) -> None:
        self._at = entrance
        self._limits = entrance.limits()
        self._places: tuple[Place, Place] | None = None
        self._counted = False
        self._header = b""
        self._buffer = bytearray()
        self._early = bytearray()
        self._address: Address | None = None
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._shaking: asyncio.Task[None] | None = None

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the peer in, and let it pass, or wait for what it has to say first."""
        self._transport = cast("asyncio.Transport", transport)
        self._address = peers.address_of(transport)
        _keep_prompt(transport)
        if self._address is None:
            self.cut()
            return
        try:
            self._at.lobby.crowd.enter(self._limits)
        except TooMany as error:
            self._turn_away(self._at.refusals[error.full])
            return
        self._counted = True
        self._at.lobby.entering.add(self)
        self._wait_for_header(self._address) if self._at.proxies else self._pass(self._address)

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - the signature is asyncio's
        """Room for what is wanted of the header, and not for one octet more."""
        self._buffer = bytearray(EARLY if self._shaking else proxy.wanted(self._header))
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """More of the header has come, or something before our greeting; who was turned away is not heard any more."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._shaking:
            self._keep(self._buffer[:nbytes])
            return
        self._header += self._buffer[:nbytes]
        try:
            if proxy.wanted(self._header) == 0:
                self._pass(proxy.source(self._header) or self._proxy)
        except proxy.Malformed as error:
            self._refuse(f"PROXY header: {error}")

    def eof_received(self) -> bool:
        """Who says no more at the door has not come in."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the signature is asyncio's
        """The peer is gone before its dialog has begun."""
        self._settle()
        self._gone()

    # On the way

    @property
    def _proxy(self) -> Address:
        assert self._address is not None  # noqa: S101 - who has none does not get so far
        return self._address

    def _wait_for_header(self, address: Address) -> None:
        if not any(address in network for network in self._at.proxies):
            self._turn_away(self._at.stranger)
        else:
            self._deadline = asyncio.get_running_loop().call_later(
                self._limits.proxy_timeout, self._refuse, "PROXY header: too late"
            )

    def _pass(self, address: Address) -> None:
        """The peer at *address* may come in, if there is room; over TLS where the listener says so."""
        self._address = address
        if self._deadline is not None:
            self._deadline.cancel()
        try:
            self._places = self._at.lobby.crowd.identify(address, self._limits)
        except TooMany as error:
            self._turn_away(self._at.refusals[error.full])
            return
        assert self._transport is not None  # noqa: S101 - `connection_made` came first
        if self._at.context is None:
            self._hand_over(self._transport)
        else:
            self._transport.pause_reading()  # what comes now is for TLS alone
            self._shaking = asyncio.get_running_loop().create_task(self._shake_hands(self._transport))

    async def _shake_hands(self, transport: asyncio.Transport) -> None:
        secured = None
        try:
            async with asyncio.timeout(self._limits.handshake_timeout):
                secured = await self._secured(transport)
        except OSError as error:  # ssl.SSLError and TimeoutError are some
            events.say("handshake failed", peer=self._address, listener=self._at.name, error=type(error).__name__)
        if secured is None:
            abort(transport)
            self._gone()
        elif self._counted:  # else the peer has left between the handshake and now
            self._transport = secured
            self._hand_over(secured)

    async def _secured(self, transport: asyncio.Transport) -> asyncio.Transport | None:
        """*transport* under TLS; None where the peer has left before TLS took over: TLS would wait for it for ever."""
        assert self._at.context is not None  # noqa: S101 - see `_pass`
        loop, timeout = asyncio.get_running_loop(), self._limits.handshake_timeout
        starting = loop.create_task(
            loop.start_tls(transport, self, self._at.context, server_side=True, ssl_handshake_timeout=timeout)
        )
        await self._pass_on(transport, starting)
        if self._counted:
            return await starting
        starting.cancel()
        return None

    async def _pass_on(self, transport: asyncio.Transport, starting: asyncio.Task[asyncio.Transport | None]) -> None:
        """What came before TLS took over is for TLS: uvloop reads once before it can be told to wait."""
        while transport.get_protocol() is self and not starting.done():  # noqa: ASYNC110 - it takes one turn
            await asyncio.sleep(0)
        begun, self._early = self._early, bytearray()
        if begun and not transport.is_closing():
            # Behind what makes the protocol ready, and before more is read
            asyncio.get_running_loop().call_soon(_feed, transport.get_protocol(), begun)

    def _hand_over(self, transport: asyncio.Transport) -> None:
        """Here the dialog begins. A fault of ours lets nobody in, and keeps nobody."""
        self._settle()
        try:
            self._begin(self._at.dialog(self._proxy, self._gone), transport)
        except Exception as error:  # noqa: BLE001 - see above
            events.failure("door", error, peer=self._address, listener=self._at.name)
            abort(transport)
            self._gone()

    def _begin(self, dialog: asyncio.Protocol, transport: asyncio.Transport) -> None:
        transport.set_protocol(dialog)
        dialog.connection_made(transport)
        if self._early:
            dialog.data_received(bytes(self._early))

    def _keep(self, octets: bytearray) -> None:
        self._early += octets
        if len(self._early) > EARLY:
            self.cut()

    # Away

    def _refuse(self, why: str) -> None:
        events.refused_connection(self._address, self._at.name, why)
        self.cut()

    def _turn_away(self, words: str) -> None:
        """Say *words*, in clear where nobody expects TLS, and hang up."""
        events.refused_connection(self._address, self._at.name, words)
        assert self._transport is not None  # noqa: S101 - `connection_made` came first
        if self._at.context is None:
            self._transport.write(f"{words}\r\n".encode("ascii"))
        self._transport.close()

    def cut(self) -> None:
        """Hang up without a word."""
        if self._transport is not None:
            abort(self._transport)

    def _settle(self) -> None:
        """What belongs to the door ends."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._at.lobby.entering.discard(self)

    def _gone(self) -> None:
        """The connection is lost: it no longer counts."""
        self._at.lobby.entering.discard(self)
        if self._counted:
            self._counted = False
            self._at.lobby.crowd.leave(self._places)


def _feed(protocol: asyncio.BaseProtocol, octets: bytearray) -> None:
    """Give *protocol* what was read for it, as an event loop does."""
    buffered = cast("asyncio.BufferedProtocol", protocol)
    while octets:
        room = memoryview(buffered.get_buffer(len(octets)))
        taken = min(len(room), len(octets))
        room[:taken] = octets[:taken]
        del octets[:taken]
        buffered.buffer_updated(taken)


def _keep_prompt(transport: asyncio.BaseTransport) -> None:
    """Without TCP_NODELAY each reply may wait 40 ms; asyncio sets it only where the listener names its protocol."""
    if (socket := transport.get_extra_info("socket")) is not None:
        with contextlib.suppress(OSError):
            socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)

"""Does somebody send more than they may: a user, a host, an address, a network, a sender, or all to one recipient?

Counted is in a sliding window: what was counted in this window, and of the window before as much as still lies within
the last `period`. "100 an hour" then means that in any hour; a token bucket would let twice that through after a
quiet hour. What is refused does not count, so that who tries again too early gets in all the same.
"""

from __future__ import annotations

import functools
import ipaddress
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import ClassVar, NamedTuple

from gateway.model import Direction, Finding, Found, Mail, Stage, Temporary, Tools

PRIVATE = (
    "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16",
    "::1/128", "fc00::/7", "fe80::/10",
)  # fmt: skip
"""Networks in which no stranger can be."""

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_SPANS = {60.0: "minute", 3600.0: "hour", 86400.0: "day"}


@dataclass(frozen=True, slots=True)
class Settings:
    """How many messages, and how many recipients in them, are allowed in `period` seconds. 0 is no limit."""

    period: float = 3600.0
    user_messages: int = 300
    user_recipients: int = 1000
    host_messages: int = 0
    host_recipients: int = 0
    address_messages: int = 2000
    address_recipients: int = 0
    network_messages: int = 10_000
    network_recipients: int = 0
    sender_messages: int = 0
    sender_recipients: int = 0
    recipient_messages: int = 0
    ipv4_network: int = 24
    ipv6_network: int = 48
    """Leading bits of the addresses that make a network."""

    own_relays: tuple[str, ...] = PRIVATE
    """Networks of hosts that hand other people's mail on to us: they count for nobody but their users."""


class _Limit(NamedTuple):
    """One limit that a mail may reach. `amount` is by how much this question brings it nearer."""

    code: str
    subject: str
    unit: str
    most: int
    amount: int = 1


class _Window(NamedTuple):
    """Where we are in time: the number of this window, and which share of the last one still counts."""

    number: int
    share: float


class Filter:
    """Asks at each RCPT, in one question to the shared state; a message counts with its first recipient."""

    stage: ClassVar[Stage] = Stage.RECIPIENT
    codes: ClassVar[frozenset[str]] = frozenset({"user", "host", "address", "network", "sender", "recipient"})
    after: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, settings: Settings, tools: Tools, clock: Callable[[], float] = time.time) -> None:
        _check(settings)
        self._settings, self._state, self._clock = settings, tools.state, clock
        self._own = [ipaddress.ip_network(network) for network in settings.own_relays]

    async def check(self, mail: Mail, found: Found) -> Sequence[Finding]:  # noqa: ARG002  it reads no other filter
        """A finding for each limit that the mail would go beyond. `Temporary` where nobody can count."""
        limits = [limit for limit in self._limits(mail) if limit.most and limit.amount]
        if not limits:
            return []
        window = self._window()
        used = await self._count(limits, window)
        over = [(limit, count) for limit, count in zip(limits, used, strict=True) if count > limit.most]
        if over:
            with suppress(Temporary):  # refused is refused
                await self._take_back(limits, window)
        return [Finding(limit.code, self._sentence(limit, count)) for limit, count in over]

    def _limits(self, mail: Mail) -> Iterator[_Limit]:
        """Every limit that *mail* counts for."""
        session, settings = mail.session, self._settings
        begins = int(len(mail.envelope.recipients) == 1)
        if session.user:
            yield _Limit("user", session.user, "messages", settings.user_messages, begins)
            yield _Limit("user", session.user, "recipients", settings.user_recipients)
        elif session.direction is Direction.OUTBOUND:
            yield _Limit("host", str(session.peer), "messages", settings.host_messages, begins)
            yield _Limit("host", str(session.peer), "recipients", settings.host_recipients)
        elif not any(session.peer in network for network in self._own):
            yield from self._limits_of_strangers(mail, begins)

    def _limits_of_strangers(self, mail: Mail, begins: int) -> Iterator[_Limit]:
        settings, sender = self._settings, mail.envelope.sender.lower()
        address, network = self._places(mail)
        yield _Limit("address", address, "messages", settings.address_messages, begins)
        yield _Limit("address", address, "recipients", settings.address_recipients)
        yield _Limit("network", network, "messages", settings.network_messages, begins)
        yield _Limit("network", network, "recipients", settings.network_recipients)
        if sender:  # all bounces of the world have the same
            yield _Limit("sender", sender, "messages", settings.sender_messages, begins)
            yield _Limit("sender", sender, "recipients", settings.sender_recipients)
        yield _Limit("recipient", mail.envelope.recipients[-1].address.lower(), "messages", settings.recipient_messages)

    def _places(self, mail: Mail) -> tuple[str, str]:
        """The peer's address and network. Who has one IPv6 address has all of its /64."""
        peer = mail.session.peer
        if isinstance(peer, ipaddress.IPv4Address):
            return str(peer), _network(peer, self._settings.ipv4_network)
        return _network(peer, 64), _network(peer, self._settings.ipv6_network)

    def _window(self) -> _Window:
        number, elapsed = divmod(self._clock(), self._settings.period)
        return _Window(int(number), 1.0 - elapsed / self._settings.period)

    async def _count(self, limits: Sequence[_Limit], window: _Window) -> list[float]:
        """Count this mail, and return what each limit then has counted within the last period."""
        now = {_key(limit, window.number): limit.amount for limit in limits}
        before = {_key(limit, window.number - 1): 0 for limit in limits}
        counts = await self._state.add_all(now | before, 2 * self._settings.period)
        pairs = zip(counts[: len(limits)], counts[len(limits) :], strict=True)
        return [current + last * window.share for current, last in pairs]

    async def _take_back(self, limits: Sequence[_Limit], window: _Window) -> None:
        amounts = {_key(limit, window.number): -limit.amount for limit in limits}
        await self._state.add_all(amounts, 2 * self._settings.period)

    def _sentence(self, limit: _Limit, count: float) -> str:
        verb = "was sent" if limit.code == "recipient" else "has sent to" if limit.unit == "recipients" else "has sent"
        span = _SPANS.get(self._settings.period, f"{self._settings.period:g} seconds")
        before = math.ceil(count) - limit.amount
        return f"{limit.subject} {verb} {before} {limit.unit} in the last {span}; {limit.most} are allowed"


def _key(limit: _Limit, window: int) -> str:
    return f"rate:{limit.code}:{limit.unit}:{limit.subject}:{window}"


@functools.lru_cache(4096)
def _network(address: _Address, bits: int) -> str:
    return str(ipaddress.ip_network((address, bits), strict=False))


def _check(settings: Settings) -> None:
    limits = [most for name, most in asdict(settings).items() if name.endswith(("_messages", "_recipients"))]
    if min(limits) < 0:
        raise ValueError("a limit is not below 0; 0 is no limit")
    if not 1 <= settings.period < math.inf:
        raise ValueError("period is a number of seconds, at least 1")
    if not (1 <= settings.ipv4_network <= 32 and 1 <= settings.ipv6_network <= 64):
        raise ValueError("ipv4_network is 1 to 32, ipv6_network 1 to 64 leading bits of an address")

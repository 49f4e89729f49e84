"""Will this unknown host try again, as a mail server does and a program that only floods does not? (RFC 6647)

A host's network, the sender and the recipient make a triple. A new triple is `greylisted`; who comes again after
`delay` seconds gets in. A network from which several mails have come in this way waits no more.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from gateway.model import Direction, Finding, Found, Mail, Stage, Tools

PRIVATE = (
    "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16",
    "::1/128", "fc00::/7", "fe80::/10",
)  # fmt: skip
"""Networks in which no stranger can be."""

BETWEEN_SUCCESSES = 3600.0
"""Seconds of which only one mail counts as a success of its network: many at once prove no more than one."""

RENEWED = 86400.0
"""Seconds after which it is noted anew that a known network still sends."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Who has to wait, and how long; all times are seconds."""

    everybody: bool = False
    suspects: tuple[str, ...] = (
        "dnsbl/*listed", "helo/no_ptr", "helo/unconfirmed_ptr", "helo/unknown_name", "helo/bad_syntax", "helo/no_dot",
        "helo/literal", "helo/foreign_literal", "spf/fail", "spf/softfail", "spf/temperror", "spf/helo_fail",
    )  # fmt: skip
    """Findings that make a mail wait, as FILTER/CODE; "*" stands for anything."""

    trusted: tuple[str, ...] = ("dnsbl/allowed",)
    """Findings with which it never waits."""

    null_sender: bool = False
    delay: float = 240.0
    retry_within: float = 172800.0
    successes: int = 3
    """Mails after which a network is known; 0: none ever is."""

    allow_for: float = 3024000.0
    ipv4_network: int = 24
    ipv6_network: int = 64
    """Leading bits of the addresses that make a network: large senders try again from another address."""

    own_relays: tuple[str, ...] = PRIVATE


class Filter:
    """Asks at each RCPT. Users, own hosts and own relays never wait."""

    stage: ClassVar[Stage] = Stage.RECIPIENT
    codes: ClassVar[frozenset[str]] = frozenset({"greylisted"})
    after: ClassVar[frozenset[str]] = frozenset({"dnsbl", "helo", "spf"})

    def __init__(self, settings: Settings, tools: Tools, clock: Callable[[], float] = time.time) -> None:
        _check(settings)
        self._settings, self._state, self._clock = settings, tools.state, clock
        self._trusted, self._suspects = _any_of(settings.trusted), _any_of(settings.suspects)
        self._own = [ipaddress.ip_network(network) for network in settings.own_relays]

    async def check(self, mail: Mail, found: Found) -> Sequence[Finding]:
        """`greylisted`, or nothing. `Temporary` where the shared state cannot tell."""
        why = self._why(mail, found)
        if not why:
            return []
        network = self._network(mail)
        if await self._is_known(network):
            return []
        sender, recipient = mail.envelope.sender, mail.envelope.recipients[-1].address
        wait = await self._wait(network, f"greylist:triple:{network}:{_stem(sender)}:{recipient.lower()}")
        if not wait:
            return []
        detail = f"the first mail of {network} from <{sender}> to {recipient}; it may come again in {wait} s"
        return [Finding("greylisted", detail, facts=tuple(why))]

    def _why(self, mail: Mail, found: Found) -> list[str]:
        """What makes *mail* wait; empty where nothing does."""
        settings = self._settings
        if mail.session.direction is not Direction.INBOUND or any(mail.session.peer in one for one in self._own):
            return []
        if not mail.envelope.sender and not settings.null_sender:
            return []
        seen = [f"{name}/{finding.code}" for name, findings in found.items() for finding in findings]
        if any(map(self._trusted.match, seen)):
            return []
        return ["everybody"] if settings.everybody else list(filter(self._suspects.match, seen))

    def _network(self, mail: Mail) -> str:
        peer = mail.session.peer
        is_old = isinstance(peer, ipaddress.IPv4Address)
        bits = self._settings.ipv4_network if is_old else self._settings.ipv6_network
        return str(ipaddress.ip_network((peer, bits), strict=False))

    async def _is_known(self, network: str) -> bool:
        """Whether *network* has proved itself. One that still sends stays known."""
        key = f"greylist:known:{network}"
        since = _seconds(await self._state.get(key))
        if since is not None and abs(self._clock() - since) > RENEWED:
            await self._state.put(key, f"{int(self._clock())}", self._settings.allow_for)
        return since is not None

    async def _wait(self, network: str, triple: str) -> int:
        """Seconds that the mail of *triple* has still to wait."""
        now, settings = self._clock(), self._settings
        first = _seconds(await self._state.get(triple))
        if first is None or first > now:  # the latter where somebody has put the clock back
            await self._state.put(triple, f"{int(now)}", settings.retry_within)  # up, it would lie ahead of us
            return max(1, round(settings.delay))
        if first + settings.delay > now:
            return max(1, round(first + settings.delay - now))
        await self._state.put(triple, f"{int(first)}", settings.allow_for)
        await self._count_success(network)
        return 0

    async def _count_success(self, network: str) -> None:
        settings = self._settings
        if not settings.successes or not await self._state.claim(f"greylist:counted:{network}", BETWEEN_SUCCESSES):
            return
        if await self._state.add(f"greylist:passed:{network}", 1, settings.allow_for) >= settings.successes:
            await self._state.put(f"greylist:known:{network}", f"{int(self._clock())}", settings.allow_for)


def _any_of(patterns: Sequence[str]) -> re.Pattern[str]:
    """What matches where one of *patterns*, which are as in a shell, does."""
    return re.compile("|".join(map(fnmatch.translate, patterns)) or "(?!)")


def _stem(sender: str) -> str:
    """*sender* without what changes from mail to mail: lists and forwarders write numbers into it (VERP, SRS)."""
    local, _, domain = sender.lower().rpartition("@")
    return re.sub(r"[a-z0-9]*[0-9][a-z0-9]*", "#", local.partition("+")[0]) + "@" + domain


def _seconds(value: str | None) -> float | None:
    return float(value) if value is not None and value.isdecimal() else None


def _check(settings: Settings) -> None:
    if not 0 < settings.delay < settings.retry_within:
        raise ValueError("delay is above 0, and below retry_within")
    if settings.allow_for <= 0 or settings.successes < 0:
        raise ValueError("allow_for is above 0, and successes not below it")
    if not (1 <= settings.ipv4_network <= 32 and 1 <= settings.ipv6_network <= 128):
        raise ValueError("ipv4_network is 1 to 32, ipv6_network 1 to 128 leading bits of an address")
    if strangers := [
        one for one in (*settings.suspects, *settings.trusted) if not re.fullmatch(r"[a-z_*?]+/[a-z_*?]+", one)
    ]:
        raise ValueError(f"{strangers[0]!r} is no finding: it is written like dnsbl/listed")

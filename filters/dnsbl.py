"""Is the peer on lists of hosts that send spam, or on a list of hosts known to be good? (DNSBL, RFC 5782)

All lists are asked at once, and their weights are added up. A list is believed only while it is sane: an answer that no
list may give, a refusal to serve us, or a list that lists everybody is `error`, never a listing. One that fails again
and again is left out for a while, and said to be.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from gateway.model import Direction, Finding, Found, Mail, Stage, Temporary, Tools

MAX_TEXT = 200
"""Characters of what a list says about the listing."""

PRIVATE = (
    "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16",
    "::1/128", "fc00::/7", "fe80::/10",
)  # fmt: skip
"""Networks of which no public list can know anything."""

_REFUSALS = {
    "127.255.255.252": "says that its name is misspelled in dnsbl.toml",
    "127.255.255.254": "does not answer public resolvers: name a resolver of your own in [dns]",
    "127.255.255.255": "says that we ask too much: its free service ends here",
}
_NOT_FOR_US = {"127.0.0.1", "127.0.0.255"}  # what URIBL, SURBL and DNSWL say to those whom they do not serve

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Answer:
    """What one answer of a list means: in `code`, an octet may be a number, "4-7", or "*"."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    code: str
    means: str
    weight: float


@dataclass(frozen=True, slots=True)
class List:
    """A list and what being on it counts; where `answers` are given, those alone count, and as much as they say.

    `tested` says that 127.0.0.2 is on it and 127.0.0.1 is not, as RFC 5782 5 demands of lists that work.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    zone: str
    weight: float = 0.0
    answers: tuple[Answer, ...] = ()
    tested: bool = True


@dataclass(frozen=True, slots=True)
class Settings:
    """The lists, from which sum of weights on a peer counts as listed, and how long a bad list is waited for."""

    listed_from: float = 2.0
    strongly_from: float = 5.0
    timeout: float = 4.0
    """Seconds for all lists together."""

    failures: int = 3
    """How often a list may fail in a row until it is left out."""

    pause: float = 300.0
    """Seconds for which it then is left out; afterwards one peer tries whether it is back."""

    own_relays: tuple[str, ...] = PRIVATE
    """Networks whose hosts are never asked about."""

    lists: tuple[List, ...] = (
        List(
            "zen.spamhaus.org",
            answers=(
                Answer("127.0.0.2", "SBL", 4.0),
                Answer("127.0.0.3", "CSS", 4.0),
                Answer("127.0.0.4-7", "XBL", 4.0),
                Answer("127.0.0.9", "DROP", 6.0),
                Answer("127.0.0.10-11", "PBL", 4.0),
            ),
        ),
        List("bl.spamcop.net", 2.0),
        List("psbl.surriel.com", 2.0),
        List(
            "list.dnswl.org",
            answers=(
                Answer("127.0.*.0", "none", 0.0),
                Answer("127.0.*.1", "low", -1.0),
                Answer("127.0.*.2", "medium", -2.0),
                Answer("127.0.*.3", "high", -4.0),
            ),
        ),
    )


class _Unusable(Exception):
    """The list has answered, but not to the question; the text goes on after its name."""


class _Breaker:
    """Whether a list is asked. After `limit` failures in a row it is left out, then tried by one peer at a time."""

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._limit, self._pause, self._trial = settings.failures, settings.pause, settings.timeout
        self._clock = clock
        self._failures, self._until = 0, 0.0
        self.why = ""

    @property
    def rest(self) -> float:
        """Seconds until somebody tries again."""
        return max(0.0, self._until - self._clock())

    def lets_through(self) -> bool:
        if self._failures < self._limit:
            return True
        if self.rest:
            return False
        self._until = self._clock() + self._trial  # the others wait for how this one fares
        return True

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self, why: str) -> None:
        self._failures += 1
        self._until, self.why = self._clock() + self._pause, why


class _Watched:
    """A list with its answers understood and its breaker."""

    def __init__(self, one: List, settings: Settings, clock: Callable[[], float]) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})+\.?", one.zone) or len(one.zone) > 180:
            raise ValueError(f"{one.zone!r} is no zone: it is written like zen.spamhaus.org")
        self.zone, self.tested, self._weight = one.zone.rstrip("."), one.tested, one.weight
        self._answers = [(_pattern(answer.code), answer) for answer in one.answers]
        self._named = {answer.code for answer in one.answers}
        self.breaker = _Breaker(settings, clock)

    def meaning(self, address: str) -> tuple[str, float]:
        """The name (it may be empty) and the weight of *address*; `_Unusable` where it is no listing."""
        octets = [int(octet) for octet in address.split(".")]
        if octets[0] != 127:
            raise _Unusable(f"answers {address}, which no list may say; perhaps its domain has changed hands")
        if address not in self._named and (octets[1:3] == [255, 255] or address in _NOT_FOR_US):
            raise _Unusable(f"{_REFUSALS.get(address, 'does not serve us')} ({address})")
        for pattern, answer in self._answers:
            if all(low <= octet <= high for octet, (low, high) in zip(octets, pattern, strict=True)):
                return answer.means, answer.weight
        return ("", 0.0) if self._answers else ("", self._weight)


@dataclass(frozen=True, slots=True)
class _Listing:
    """What one list says: where it weighs nothing, it does not know the peer."""

    zone: str
    weight: float = 0.0
    names: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()

    def __str__(self) -> str:
        named = f"{', '.join(self.names)} " if self.names else ""
        return f"{self.zone} ({named}{self.weight:+g})"


class Filter:
    """Asks once for each session from outside, from its first moment on."""

    stage: ClassVar[Stage] = Stage.CONNECT
    codes: ClassVar[frozenset[str]] = frozenset({"allowed", "weakly_listed", "listed", "strongly_listed", "left_out"})
    after: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, settings: Settings, tools: Tools, clock: Callable[[], float] = time.monotonic) -> None:
        _check(settings)
        self._settings, self._dns = settings, tools.dns
        self._own = [ipaddress.ip_network(network) for network in settings.own_relays]
        self._lists = [_Watched(one, settings, clock) for one in settings.lists]

    async def check(self, mail: Mail, found: Found) -> Sequence[Finding]:  # noqa: ARG002  it reads no other filter
        """At most one finding on the peer, and one on each list that did not say."""
        peer = mail.session.peer
        if mail.session.direction is not Direction.INBOUND or any(peer in network for network in self._own):
            return []
        name = peer.reverse_pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")
        answers = await asyncio.gather(*(self._ask(one, name) for one in self._lists))
        listings = [answer for answer in answers if isinstance(answer, _Listing)]
        gaps = [answer for answer in answers if isinstance(answer, Finding)]
        if gaps and not listings:
            gaps.append(Finding("error", "no list could be asked"))
        return [*self._judged(peer, [one for one in listings if one.facts]), *gaps]

    def _judged(self, peer: _Address, listings: Sequence[_Listing]) -> Iterator[Finding]:
        total = sum(one.weight for one in listings)
        if code := self._code(total):
            facts = tuple(fact for one in listings for fact in one.facts)
            yield Finding(code, f"{peer} is on {', '.join(map(str, listings))}: together {total:+g}", facts=facts)

    def _code(self, total: float) -> str:
        if total <= 0:
            return "allowed" if total < 0 else ""
        if total >= self._settings.listed_from:
            return "strongly_listed" if total >= self._settings.strongly_from else "listed"
        return "weakly_listed"

    async def _ask(self, one: _Watched, name: str) -> _Listing | Finding:
        """What *one* says, or the finding that it did not."""
        if not one.breaker.lets_through():
            why = f"{one.zone} is left out for another {one.breaker.rest:.0f} s: it {one.breaker.why}"
            return Finding("left_out", why)
        try:
            async with asyncio.timeout(self._settings.timeout):
                listing = await self._look(one, name)
        except TimeoutError:
            return _failed(one, f"did not answer within {self._settings.timeout:g} s")
        except Temporary as error:
            return _failed(one, f"could not be asked ({error})")
        except _Unusable as error:
            return _failed(one, str(error))
        one.breaker.succeeded()
        return listing

    async def _look(self, one: _Watched, name: str) -> _Listing:
        question = f"{name}.{one.zone}"
        addresses = await self._dns.a(question)
        meanings = [one.meaning(address) for address in addresses]
        if not addresses:
            await self._demand_test(one, listed=False)
            return _Listing(one.zone)
        _, text = await asyncio.gather(self._demand_test(one, listed=True), self._text(question))
        weight = max((weight for _, weight in meanings), key=abs)
        facts = (f"A {question}: {', '.join(addresses[:10])}", *(f"TXT {question}: {line}" for line in text))
        return _Listing(one.zone, weight, tuple(dict.fromkeys(name for name, _ in meanings if name)), facts)

    async def _demand_test(self, one: _Watched, *, listed: bool) -> None:
        """Ask for the test address that must not be there where the peer is *listed*, and must be where it is not."""
        if not one.tested:
            return
        if listed and await self._dns.a(f"1.0.0.127.{one.zone}"):
            raise _Unusable("lists everybody, so it says nothing")
        if not listed and not await self._dns.a(f"2.0.0.127.{one.zone}"):
            raise _Unusable("does not even list its test address: it is dead, or does not serve our resolver")

    async def _text(self, question: str) -> list[str]:
        """What the list says of the listing; for people only, so it may be missing."""
        try:
            return [_shown(text) for text in (await self._dns.txt(question))[:2]]
        except Temporary:
            return []


def _failed(one: _Watched, why: str) -> Finding:
    one.breaker.failed(why)
    return Finding("error", f"{one.zone} {why}")


def _check(settings: Settings) -> None:
    if not 0 < settings.listed_from <= settings.strongly_from:
        raise ValueError("listed_from is above 0, and not above strongly_from")
    if settings.timeout <= 0 or settings.pause <= 0 or settings.failures < 1:
        raise ValueError("timeout, pause and failures are above 0")
    for zone, count in Counter(one.zone.lower().rstrip(".") for one in settings.lists).items():
        if count > 1:
            raise ValueError(f"{zone} is named twice")


def _pattern(code: str) -> list[tuple[int, int]]:
    """The lowest and the highest value of each octet that *code* covers."""
    octets = [re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?|\*", octet) for octet in code.split(".")]
    ranges = [(int(o[1]), int(o[2] or o[1])) if o[1] else (0, 255) for o in octets if o]
    if len(octets) != 4 or len(ranges) != 4 or not all(low <= high <= 255 for low, high in ranges):
        raise ValueError(f'{code!r} is no answer of a list: it is written like "127.0.0.2", "127.0.0.4-7", "127.0.*.1"')
    return ranges


def _shown(text: bytes) -> str:
    """A list's text, printable and short."""
    return re.sub(r"[^\x20-\x7e]", "?", text[:MAX_TEXT].decode("ascii", "replace"))

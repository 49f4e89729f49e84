"""Does the peer say truly who it is: in HELO, in the reverse DNS, and in both directions? (RFC 5321 4.1.1.1, 4.1.4)

RFC 5321 lets nobody refuse a mail only because HELO and address do not match, so each mark is a finding of its own.
A name is proved where it leads back to the address (forward-confirmed reverse DNS); what the DNS could not tell is
`error`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from gateway.model import Direction, Finding, Found, Mail, Stage, Temporary, Tools

MAX_NAMES = 5
"""Names of the reverse DNS that are followed; a host has one."""

PRIVATE = (
    "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16",
    "::1/128", "fc00::/7", "fe80::/10",
)  # fmt: skip
"""Networks of which the public DNS can know nothing."""

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Settings:
    """Which names are ours, and whose mail is not asked about."""

    own_domains: tuple[str, ...] = ()
    """Domains under which no host of others can live; our own host name is known anyway."""

    own_relays: tuple[str, ...] = PRIVATE
    timeout: float = 5.0
    """Seconds for all questions about one peer."""


@dataclass(slots=True)
class _Look:
    """One side of a peer, what was found about it so far, and the answers that it rests on."""

    peer: _Address
    helo: str
    findings: list[Finding] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)

    def note(self, kind: str, name: str, answer: Sequence[str]) -> None:
        """Keep an answer of the DNS as a fact for what is found from now on."""
        self.facts.append(f"{kind} {_shown(name)}: {', '.join(map(_shown, answer[:10])) or 'none'}")

    def found(self, code: str, detail: str) -> None:
        """Say something that rests on the answers so far."""
        self.findings.append(Finding(code, detail, facts=tuple(self.facts)))


class Filter:
    """Asks once for each mail from outside, at MAIL FROM: later than this, HELO does not change."""

    stage: ClassVar[Stage] = Stage.SENDER
    codes: ClassVar[frozenset[str]] = frozenset(
        {
            "bad_syntax",
            "no_dot",
            "own_name",
            "literal",
            "foreign_literal",
            "unknown_name",
            "other_host",
            "no_ptr",
            "unconfirmed_ptr",
        }
    )
    after: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, settings: Settings, tools: Tools) -> None:
        if settings.timeout <= 0:
            raise ValueError("timeout is above 0")
        if strangers := [one for one in settings.own_domains if not _is_name(one.lower().strip("."))]:
            raise ValueError(f"{strangers[0]!r} is no domain: it is written like example.org, and means all under it")
        self._settings, self._dns = settings, tools.dns
        self._hostname = tools.hostname.lower()
        self._domains = tuple(domain.lower().strip(".") for domain in settings.own_domains)
        self._own = [ipaddress.ip_network(network) for network in settings.own_relays]

    async def check(self, mail: Mail, found: Found) -> Sequence[Finding]:  # noqa: ARG002  it reads no other filter
        """At most one finding on what HELO says, one on its name in the DNS, and one on the reverse DNS."""
        peer, name = mail.session.peer, mail.session.helo.lower().removesuffix(".")
        if mail.session.direction is not Direction.INBOUND or any(peer in network for network in self._own):
            return []
        helo, reverse = _Look(peer, name), _Look(peer, name)
        questions = [self._reverse(reverse)]
        if self._spelled(helo):
            questions.append(self._forward(helo))  # where both lead to the same name, the resolver asks once
        try:
            async with asyncio.timeout(self._settings.timeout):
                await asyncio.gather(*questions)
        except TimeoutError:
            reverse.found("error", f"the DNS did not answer within {self._settings.timeout:g} s")
        return [*helo.findings, *reverse.findings]

    def _spelled(self, look: _Look) -> bool:
        """Find what can be seen without the DNS; True where there is a name to ask about."""
        helo = look.helo
        if helo.startswith("["):
            _literal(look)
        elif not _is_name(helo):
            look.found("bad_syntax", f"HELO {_shown(helo)} is no host name")
        elif self._is_ours(helo):
            look.found("own_name", f"HELO {helo} is a name of ours")
        elif "." not in helo:
            look.found("no_dot", f"HELO {helo} is no full name")
        else:
            return True
        return False

    def _is_ours(self, name: str) -> bool:
        return name == self._hostname or any(name == own or name.endswith(f".{own}") for own in self._domains)

    async def _reverse(self, look: _Look) -> None:
        """Whether the peer has a name that leads back to it."""
        try:
            names = (await self._dns.ptr(str(look.peer)))[:MAX_NAMES]
        except Temporary as error:
            look.found("error", f"the name of {look.peer} could not be asked for ({error})")
            return
        look.note("PTR", str(look.peer), names)
        if not names:
            look.found("no_ptr", f"{look.peer} has no name")
            return
        questions = [self._leads_back(look, name) for name in names]
        answers = await asyncio.gather(*questions) if len(names) > 1 else [await questions[0]]
        if True not in answers:
            doubts = [answer for answer in answers if isinstance(answer, Temporary)]
            code, why = ("error", str(doubts[0])) if doubts else ("unconfirmed_ptr", "which does not lead back")
            look.found(code, f"{look.peer} is named {_shown(names[0])} ({why})")

    async def _leads_back(self, look: _Look, name: str) -> bool | Temporary:
        try:
            return str(look.peer) in await self._addresses(look, name, look.peer.version)
        except Temporary as error:
            return error

    async def _forward(self, look: _Look) -> None:
        """Whether the name in HELO is one of the peer's."""
        try:
            same = await self._addresses(look, look.helo, look.peer.version)
            if str(look.peer) in same:
                return
            exists = same or await self._addresses(look, look.helo, 10 - look.peer.version)
        except Temporary as error:
            look.found("error", f"HELO {look.helo} could not be asked about ({error})")
            return
        code, words = ("other_host", "is another host") if exists else ("unknown_name", "has no address")
        look.found(code, f"HELO {look.helo} {words}")

    async def _addresses(self, look: _Look, name: str, version: int) -> Sequence[str]:
        """The addresses of *name*, of IP *version* 4 or 6."""
        addresses = await (self._dns.a(name) if version == 4 else self._dns.aaaa(name))
        look.note("A" if version == 4 else "AAAA", name, addresses)
        return addresses


def _literal(look: _Look) -> None:
    try:
        address = ipaddress.ip_address(look.helo.removeprefix("[").removesuffix("]").removeprefix("ipv6:"))
    except ValueError:
        look.found("bad_syntax", f"HELO {_shown(look.helo)} is no address")
        return
    own = address == look.peer
    look.found("literal" if own else "foreign_literal", f"HELO [{address}] is {'its' if own else 'not its'} address")


def _is_name(helo: str) -> bool:
    """Whether *helo* is spelled like a host name, and is not a bare address (RFC 1123 2.1)."""
    labels = helo.split(".")
    return len(helo) <= 253 and all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdigit()


def _shown(text: str) -> str:
    """A stranger's *text*, printable and short."""
    return re.sub(r"[^\x20-\x7e]", "?", text[:100])

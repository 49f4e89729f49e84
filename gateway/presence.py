"""What the DNS says of us: where others find us, and how they tell that mail is ours. What `gatepost doctor dns` shows.

Rule: it looks as a receiver would, by the same filter and the same reading of records, and changes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from ipaddress import ip_address
from typing import cast

from gateway.dkim import published
from gateway.dkim.published import Published
from gateway.dkim.ring import KeyState, Ring
from gateway.dmarc import record, tree
from gateway.dmarc.record import Record
from gateway.model import AskingFilter, Dns, Envelope, Mail, Permanent, Session, Temporary
from gateway.pipeline.policy import Policies

SPF = "spf"


class State(StrEnum):
    """How one thing stands. `CHECK` is what may be meant so."""

    WELL = "well"
    CHECK = "look at it"
    WRONG = "wrong"
    UNKNOWN = "could not ask"


@dataclass(frozen=True, slots=True)
class Sight:
    """One thing that the DNS says of `name`, what of it (`kind`: "MX"), and in words what there is or what to do."""

    name: str
    kind: str
    state: State
    words: str


@dataclass(frozen=True, slots=True)
class Presence:
    """Who we are: what is looked at, and with what. `addresses` send our mail; none stands for those of `hostname`."""

    dns: Dns
    hostname: str
    domains: Sequence[str]
    ring: Ring
    policies: Policies
    addresses: Sequence[str] = ()

    async def sights(self) -> list[Sight]:
        """Everything, the host first."""
        addresses = self.addresses or await self._addresses()
        found = [one async for one in self._of_host(addresses)]
        for domain in self.domains:
            found += [one async for one in self._of_domain(domain, addresses)]
        return found

    async def _addresses(self) -> list[str]:
        try:
            return [*await self.dns.a(self.hostname), *await self.dns.aaaa(self.hostname)]
        except Temporary:
            return []

    async def _of_host(self, addresses: Sequence[str]) -> AsyncIterator[Sight]:
        yield await self._asked(self.hostname, "A, AAAA", self._host)
        for address in addresses:
            yield await self._asked(address, "PTR", partial(self._reverse, address))
            yield await self._asked(self.hostname, "SPF", partial(self._spf, address, ""))

    async def _of_domain(self, domain: str, addresses: Sequence[str]) -> AsyncIterator[Sight]:
        if domain != self.hostname:
            yield await self._asked(domain, "MX", partial(self._mx, domain))
        for address in addresses:
            yield await self._asked(domain, "SPF", partial(self._spf, address, domain))
        for one in await self._keys(domain):
            yield one
        yield await self._asked(domain, "DMARC", partial(self._dmarc, domain))

    @staticmethod
    async def _asked(name: str, kind: str, look: Callable[[], Awaitable[tuple[State, str]]]) -> Sight:
        try:
            return Sight(name, kind, *await look())
        except Temporary as error:
            return Sight(name, kind, State.UNKNOWN, str(error))

    async def _host(self) -> tuple[State, str]:
        found = [*await self.dns.a(self.hostname), *await self.dns.aaaa(self.hostname)]
        if not found:
            return State.WRONG, "there is no such host: publish its address, or mend hostname in gatepost.toml"
        strange = [one for one in self.addresses if one not in found]
        if strange:
            return State.CHECK, f"mail is sent from {', '.join(strange)}, which is not among {', '.join(found)}"
        return State.WELL, ", ".join(found)

    async def _reverse(self, address: str) -> tuple[State, str]:
        names = await self.dns.ptr(address)
        if self.hostname in names:
            return State.WELL, self.hostname
        said = f"it says {', '.join(names[:3])}" if names else "there is none"
        return State.WRONG, f"{said}: have your provider make it {self.hostname}; many refuse mail without it"

    async def _mx(self, domain: str) -> tuple[State, str]:
        hosts = [host for _, host in await self.dns.mx(domain)]
        if self.hostname in hosts:
            return State.WELL, ", ".join(hosts[:5])
        if not hosts:
            return State.WRONG, f"publish: {domain}. IN MX 10 {self.hostname}."
        return State.CHECK, f"its mail goes to {', '.join(hosts[:5])}, not to {self.hostname}"

    async def _spf(self, address: str, domain: str) -> tuple[State, str]:
        """What a receiver finds of mail from *address*: as a bounce, in the name of the host, where *domain* is ""."""
        if SPF not in self.policies.by_name:
            return State.UNKNOWN, "spf.toml is switched off"
        sender = f"postmaster@{domain}" if domain else ""
        mail = Mail("", Session(ip_address(address), helo=self.hostname), Envelope(sender))
        spf = cast("AskingFilter", self.policies.by_name[SPF].filter)  # it asks the DNS: neither pure nor `content`
        findings = await spf.check(mail, {})
        if not findings:
            return State.UNKNOWN, f"{address} is one of the own_relays of spf.toml, of which it is not asked"
        return _spf_state(findings[0].code), findings[0].detail

    async def _keys(self, domain: str) -> list[Sight]:
        """Those of *domain*, or of the nearest one above it that has some, which sign for it (signing.toml)."""
        above = tree.tree(domain)[:-1] if self.policies.stages.signing.subdomains else [domain]
        try:
            every = next(filter(None, map(self.ring.entries, above)), ())
            entries = [one for one in every if one.state is not KeyState.RETIRING]
        except Permanent as error:
            return [Sight(domain, "DKIM", State.WRONG, str(error))]
        if not entries:
            return [Sight(domain, "DKIM", State.WRONG, f"it has no key: gatepost dkim generate {domain}")]
        return [_key_sight(one.name, await published.look(self.dns, one)) for one in entries]

    async def _dmarc(self, domain: str) -> tuple[State, str]:
        found, _ = await tree.applying(domain, self._record)
        if found is None:
            return State.WRONG, f'publish: _dmarc.{domain}. IN TXT "v=DMARC1; p=none; rua=mailto:dmarc@{domain}"'
        if found.faulty:
            return State.WRONG, f"the record at _dmarc.{found.domain} has no valid p, or a wrong sp or np"
        wish = found.p if found.domain == domain else found.sp or found.p
        return _wish_state(found, wish), f"{wish}, by _dmarc.{found.domain}; {_reports(found)}"

    async def _record(self, domain: str) -> Record | None:
        return record.parse(domain, await self.dns.txt(f"_dmarc.{domain}"))


def worst(sights: Iterable[Sight]) -> State:
    """The worst of all: what is wrong before what nobody could tell."""
    return max((one.state for one in sights), key=[State.WELL, State.CHECK, State.UNKNOWN, State.WRONG].index)


def _spf_state(code: str) -> State:
    known = {"pass": State.WELL, "everyone": State.CHECK, "temperror": State.UNKNOWN}
    return known.get(code, State.WRONG)


def _key_sight(name: str, answer: Published) -> Sight:
    state = {Published.PUBLISHED: State.WELL, Published.UNKNOWN: State.UNKNOWN}.get(answer, State.WRONG)
    words = "" if state is State.WELL else ": gatepost dkim show says what to publish" if state is State.WRONG else ""
    return Sight(name, "DKIM", state, f"{answer}{words}")


def _wish_state(found: Record, wish: str) -> State:
    return State.WELL if wish != "none" and found.rua else State.CHECK


def _reports(found: Record) -> str:
    return f"reports go to {', '.join(found.rua[:3])}" if found.rua else "nobody gets reports (rua)"

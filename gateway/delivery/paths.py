"""Which hosts to try for a destination, best first: a fixed next hop, or what the DNS says (RFC 5321 5.1, RFC 7505).

A stranger's DNS never leads us to ourselves or into a private network. That is decided on the very address to which
the connection is then made: nothing is looked up again in between.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import groupby
from random import SystemRandom

from gateway.delivery.reply import Failed, Reply
from gateway.model import Dns, Temporary
from gateway.routes import normal
from gateway.stages import NextHop, NextHopTls, Relay

Address = IPv4Address | IPv6Address

MAX_MX = 100
"""Hosts of one MX answer that are looked at."""

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
_RANDOM = SystemRandom()


@dataclass(frozen=True, slots=True)
class Hop:
    """One address to connect to. `host` is the name that its certificate has to show; `source` is our end."""

    host: str
    address: Address
    port: int = 25
    tls: NextHopTls = "may"
    source: str = ""
    user: str = ""
    password_file: str = ""
    ca_file: str = ""

    def __str__(self) -> str:
        return f"{self.host} [{self.address}]"


def is_own(address: Address) -> bool:
    """Does *address* belong to this machine? The kernel then answers from that very address. Sends nothing."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return ip_address(str(probe.getsockname()[0]).partition("%")[0]) == address
    except OSError:
        return False


def is_private(address: Address) -> bool:
    """Is *address* none that a stranger's mail host can have: private, loopback, link-local, multicast, reserved?

    An IPv4 address inside an IPv6 one (mapped, 6to4, Teredo, NAT64) counts as what it leads to.
    """
    inner = _embedded(address)
    return not address.is_global or address.is_multicast or any(is_private(found) for found in inner)


def _embedded(address: Address) -> list[IPv4Address]:
    if isinstance(address, IPv4Address):
        return []
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if int(address) >> 32 in (0x0064FF9B0000000000000000, 0):  # NAT64 (RFC 6052), IPv4-compatible (RFC 4291 2.5.5.1)
        found.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return [one for one in found if one is not None]


class Paths:
    """The ways to other hosts. *hostname* is our own name, *owns* tells our own addresses."""

    def __init__(self, dns: Dns, hostname: str, owns: Callable[[Address], bool] = is_own) -> None:
        self._dns = dns
        self._hostname = normal(hostname)
        self._owns = owns

    async def find(self, domain: str, next_hop: NextHop | None, relay: Relay) -> list[Hop]:
        """The addresses to try for mail to *domain*, best first, one or more; raise `Failed` where there are none."""
        if next_hop is not None:
            return await self._fixed(next_hop, relay)
        if domain.startswith("["):
            return self._literal(domain, relay)
        try:
            return await self._by_dns(normal(domain), relay)
        except Temporary:
            raise Failed(Reply(451, "4.4.3", "the DNS does not answer for the domain of the address")) from None

    async def _fixed(self, next_hop: NextHop, relay: Relay) -> list[Hop]:
        """A mistake in routes.toml costs time, not mail: nothing here is permanent."""
        try:
            addresses = await self._addresses(next_hop.host)
        except Temporary:
            addresses = []
        if not addresses:
            raise Failed(Reply(451, "4.4.3", f"no address found for the next hop {next_hop.host}"))
        login = next_hop.user, next_hop.password_file, next_hop.ca_file
        return [
            Hop(next_hop.host, address, next_hop.port, next_hop.tls, _source(address, relay), *login)
            for address in addresses[: relay.hosts_tried]
        ]

    def _literal(self, domain: str, relay: Relay) -> list[Hop]:
        """RFC 5321 4.1.3: "[192.0.2.1]", "[IPv6:2001:db8::1]"."""
        try:
            address = ip_address(re.sub(r"^\[(?:ipv6:)?|\]$", "", domain, flags=re.IGNORECASE))
        except ValueError:
            raise Failed(Reply(550, "5.1.2", "the address names no host that we know how to reach")) from None
        return self._allowed([self._hop(str(address), address, relay)], relay)

    async def _by_dns(self, domain: str, relay: Relay) -> list[Hop]:
        if not _HOST.fullmatch(domain):
            raise Failed(Reply(550, "5.1.2", "the domain of the address is no domain name"))
        answer = [(rank, normal(host)) for rank, host in await self._dns.mx(domain)][:MAX_MX]
        if answer and all(not host for _, host in answer):
            raise Failed(Reply(556, "5.1.10", "the domain of the address takes no mail (null MX)"))  # RFC 7505 4.2
        if not answer:
            return await self._implicit(domain, relay)
        return await self._exchangers([(rank, host) for rank, host in answer if _HOST.fullmatch(host)], relay)

    async def _implicit(self, domain: str, relay: Relay) -> list[Hop]:
        """No MX: the domain is its own mail host (RFC 5321 5.1)."""
        addresses = await self._addresses(domain)
        if not addresses:
            raise Failed(Reply(550, "5.1.2", "the domain of the address does not exist, or has no mail host"))
        return self._allowed([self._hop(domain, address, relay) for address in addresses], relay)

    async def _exchangers(self, answer: Sequence[tuple[int, str]], relay: Relay) -> list[Hop]:
        """Resolve rank by rank until there are enough hops. Where we are named, that rank and all worse are dropped."""
        hops: list[Hop] = []
        unsure = False
        for _, hosts in groupby(sorted(answer), key=lambda pair: pair[0]):
            names = [host for _, host in hosts]
            _RANDOM.shuffle(names)
            if self._is_us(names, relay):
                return self._before_us(hops, relay)
            for name in names[: relay.hosts_tried]:
                try:
                    found = [self._hop(name, address, relay) for address in await self._addresses(name)]
                except Temporary:
                    unsure = True
                    continue
                if any(self._leads_to_us(hop.address, relay) for hop in found):
                    return self._before_us(_outside(hops, names), relay)
                hops += found
            if len(hops) >= relay.hosts_tried:
                break
        if unsure and not any(self._may_connect(hop.address, relay) for hop in hops):
            raise Temporary("no mail host of the domain could be looked up")
        return self._allowed(hops, relay)

    def _before_us(self, hops: list[Hop], relay: Relay) -> list[Hop]:
        """RFC 5321 5.1: mail only moves on to better hosts than us; being the best and not knowing it is a loop."""
        if not hops:
            raise Failed(Reply(554, "5.4.6", "the domain's best mail host is this one, which is not set up for it"))
        return self._allowed(hops, relay)

    def _is_us(self, names: Iterable[str], relay: Relay) -> bool:
        return not {self._hostname, normal(relay.helo_name)}.isdisjoint(names)

    def _leads_to_us(self, address: Address, relay: Relay) -> bool:
        if address in relay.own_addresses:
            return True
        return not (is_private(address) or _listed(address, relay)) and self._owns(address)

    def _allowed(self, hops: list[Hop], relay: Relay) -> list[Hop]:
        allowed = [hop for hop in hops if self._may_connect(hop.address, relay)]
        if not allowed:
            raise Failed(Reply(550, "5.4.4", "the mail hosts of the domain have no address that mail may be sent to"))
        return allowed[: relay.hosts_tried]

    def _may_connect(self, address: Address, relay: Relay) -> bool:
        if _listed(address, relay):
            return True
        return not is_private(address) and address not in relay.own_addresses and not self._owns(address)

    async def _addresses(self, host: str) -> list[Address]:
        """All addresses of *host* in random order; `Temporary` only where neither kind could be told."""
        if (literal := _literal(host)) is not None:
            return [literal]
        found: list[Address] = []
        failure: Temporary | None = None
        for ask in (self._dns.aaaa, self._dns.a):
            try:
                found += [ip_address(text) for text in await ask(host)]
            except Temporary as error:
                failure = error
        if failure and not found:
            raise failure
        _RANDOM.shuffle(found)
        return found

    def _hop(self, host: str, address: Address, relay: Relay) -> Hop:
        return Hop(host, address, relay.port, relay.tls, _source(address, relay))


@lru_cache(maxsize=256)
def _literal(host: str) -> Address | None:
    """The address that *host* is, where it is no name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def _outside(hops: list[Hop], names: Sequence[str]) -> list[Hop]:
    return [hop for hop in hops if hop.host not in names]


def _listed(address: Address, relay: Relay) -> bool:
    return any(address in network for network in relay.allow_private)


def _source(address: Address, relay: Relay) -> str:
    return next((str(own) for own in relay.source_addresses if own.version == address.version), "")

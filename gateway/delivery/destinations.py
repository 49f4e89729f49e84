"""To whom the report on a domain goes: the addresses that its owner names, as far as those who read them want it.

A domain can name anybody's address. One of another organisation counts only if that has said so in its own DNS
(RFC 9990 4), or reports would be a way to flood the innocent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from gateway.dmarc import record, tree
from gateway.dmarc.record import Record
from gateway.model import Dns, Temporary
from gateway.store.observations import Published

_DOMAIN = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.(?!\Z)|\Z))+")
_URI = re.compile(r"mailto:([^?!]{1,400})(?:\?[^!]*)?(?:!\d+[kmgt]?)?", re.IGNORECASE)
"""A size behind "!" is of RFC 7489 and counts no more (RFC 9989 4.7)."""
_LOCAL = re.compile(r"(?!\.)(?:[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]|\.(?![.@]|\Z)){1,64}")


@dataclass(frozen=True, slots=True)
class Destinations:
    """Where a report goes, and in our words why it does not go to other addresses that were named."""

    addresses: tuple[str, ...]
    ignored: tuple[str, ...]


async def find(dns: Dns, published: Published, limit: int, *, last_try: bool = False) -> Destinations:
    """Up to *limit* addresses for the report on *published*, in the order in which they are named.

    `Temporary` where the DNS cannot tell about one of them; at the *last_try* only that one is left out.
    """
    found: dict[str, None] = {}
    ignored = []
    for address in list(dict.fromkeys(_addresses(published.rua)))[:limit]:
        try:
            wanted = await _wanted(dns, published.domain, address)
        except Temporary as error:
            if not last_try:
                raise
            wanted, why = [], str(error)
        else:
            why = "its domain does not say that it wants these reports"
        found |= dict.fromkeys(wanted)
        ignored += [] if wanted else [f"{address}: {why}"]
    return Destinations(tuple(found)[:limit], tuple(ignored))


def is_domain(name: str) -> bool:
    """Whether *name* is a domain in A-labels and lower case."""
    return bool(_DOMAIN.fullmatch(name))


def _addresses(uris: Iterable[str]) -> Iterator[str]:
    """The mail addresses among *uris*, their domains in lower case (RFC 6068); what is malformed is left out."""
    for uri in uris:
        match = _URI.fullmatch(uri.strip())
        local, at, domain = unquote(match[1]).rpartition("@") if match else ("", "", "")
        if at and _LOCAL.fullmatch(local) and is_domain(domain.lower()):
            yield f"{local}@{domain.lower()}"


async def _wanted(dns: Dns, domain: str, address: str) -> list[str]:
    """The addresses that *address* stands for in the policy of *domain*: itself, others of that host, or none."""
    host = address.rpartition("@")[2]
    if host == domain or await _is_of_organisation(dns, host, domain):
        return [address]
    name = f"{domain}._report._dmarc.{host}"
    records = [record.tags(text) for text in await dns.txt(name) if record.is_record(text)]
    named = next((found["rua"].split(",") for found in records if "rua" in found), None)
    if named is None:
        return [address] if records else []
    others = list(_addresses(named))
    return others if all(one.rpartition("@")[2] == host for one in others) else []


async def _is_of_organisation(dns: Dns, host: str, domain: str) -> bool:
    """Whether *host* is the same organisation's as *domain*. Anybody can have a name below a public suffix."""
    if domain == tree.public_suffix(domain):
        return False

    async def ask(name: str) -> Record | None:
        return record.parse(name, await dns.txt(f"_dmarc.{name}"))

    return await tree.is_of_organisation(host, domain, ask)

"""To whom the report on a domain goes: the addresses that its owner names, as far as those who read them want it.

A domain can name anybody's address. One of another organisation counts only if that has said so in its own DNS
(RFC 9990 4), or reports would be a way to flood the innocent.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from gateway.dkim import tags
from gateway.model import Dns, Temporary
from gateway.store.observations import Published

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

MAX_LABELS = 7
"""Labels of the longest name at which a tree walk asks, after the domain itself (RFC 9989 4.10)."""
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
    if host == domain or await _is_within_organisation(dns, host, domain):
        return [address]
    texts = await dns.txt(f"{domain}._report._dmarc.{host}")
    records = [record for record in map(_record, texts) if record]
    named = next((record["rua"].split(",") for record in records if "rua" in record), None)
    if named is None:
        return [address] if records else []
    others = list(_addresses(named))
    return others if all(one.rpartition("@")[2] == host for one in others) else []


def _record(text: bytes) -> dict[str, str]:
    """The tags of a DMARC record; none where *text* is something else (RFC 9989 4.7)."""
    try:
        found = tags.parse(text)
    except tags.Malformed:
        return {}
    return found if next(iter(found.items()), None) == ("v", "DMARC1") else {}


# ---- Whose is a host? (RFC 9989 4.10) -----------------------------------------------------------------------------


async def _is_within_organisation(dns: Dns, host: str, domain: str) -> bool:
    """Whether *host* is at or below the organisational domain of *domain*, whose owner decides over all below it."""
    if host.split(".")[-2:] != domain.split(".")[-2:]:  # a shorter name is no organisation, and not worth the questions
        return False
    owner = await _organisation(dns, domain)
    if host == owner:
        return True
    return host.endswith(f".{owner}") and not _is_public(owner)


async def _organisation(dns: Dns, domain: str) -> str:
    """The organisational domain of *domain*: what the records above it say (RFC 9989 4.10.2)."""
    shortest = domain
    labels = domain.split(".")
    for count in [len(labels), *range(min(len(labels) - 1, MAX_LABELS), 0, -1)]:
        name = ".".join(labels[-count:])
        records = [record for record in map(_record, await dns.txt(f"_dmarc.{name}")) if record]
        if len(records) != 1:  # several are as good as none
            continue
        psd = records[0].get("psd")
        if psd == "n":
            return name
        if psd == "y" and name != domain:
            return ".".join(labels[-count - 1 :])
        shortest = name
    return domain if _is_public(shortest) else shortest


def _is_public(domain: str) -> bool:
    """Whether anybody can have a name below *domain*: a record there makes no organisation of all who have one."""
    return _public_suffixes().is_public(domain)


@functools.cache
def _public_suffixes() -> PublicSuffixList:
    """Read when first needed: 40 ms, and 4 MB for as long as the process lives."""
    from publicsuffixlist import PublicSuffixList  # noqa: PLC0415 - see above

    return PublicSuffixList()

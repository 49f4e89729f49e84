"""Whose a domain is: the tree walk, and the organisational domain that follows from it (RFC 9989 4.10, 4.10.2).

The public suffix list is a guard here: what a registry publishes must not make one organisation of all who have
registered there. Where the walk ends at a public suffix or above it ("co.uk", whose record has no psd; or "uk", whose
record has psd=y while "co.uk" has none), the organisation begins below the suffix. Only psd=n says otherwise.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from gateway.dmarc.record import Record

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

MAX_LABELS = 7
"""Labels of the longest name that a tree walk asks for after the domain itself: so it asks eight times (4.10)."""

Ask = Callable[[str], Awaitable[Record | None]]
"""Gives the record of a domain itself, None where it has none; `Temporary` where nobody could tell."""


class Organisation(NamedTuple):
    """An organisational domain, and whether the public suffix list had to say which it is."""

    domain: str
    listed: bool = False


def tree(domain: str) -> list[str]:
    """The names at which the tree walk for *domain* asks, in their order: eight at most (4.10)."""
    labels = domain.split(".")
    return [domain, *(".".join(labels[-count:]) for count in range(min(len(labels) - 1, MAX_LABELS), 0, -1))]


async def walk(domain: str, ask: Ask) -> list[Record]:
    """The records of *domain* and of the domains above it, up to one that says where to stop."""
    found = []
    for name in tree(domain):
        if (record := await ask(name)) is not None:
            found.append(record)
            if record.psd in {"y", "n"}:
                break
    return found


async def applying(domain: str, ask: Ask) -> tuple[Record | None, bool]:
    """The record that applies to *domain* (4.10.1), and whether the public suffix list had to say which it is.

    It is its own, that of its organisational domain, or that of the public suffix above.
    """
    if (own := await ask(domain)) is not None:
        return own, False
    records = await walk(domain, ask)
    ours, listed = organisation(domain, records)
    return next((record for record in records if is_within(ours, record.domain)), None), listed


def organisation(domain: str, records: Sequence[Record]) -> Organisation:
    """The organisational domain of *domain*, whose tree walk found *records*, longest name first (4.10.2)."""
    if not records or records[-1].psd == "n":
        return Organisation(records[-1].domain if records else domain)
    found = records[-1].domain
    if records[-1].psd == "y":
        found = _shortened(domain, count(found) + 1)
    if found == domain or count(found) > (suffix := count(public_suffix(domain))):
        return Organisation(found)
    private = [record.domain for record in records if count(record.domain) > suffix]
    return Organisation(private[-1] if private else _shortened(domain, suffix + 1), listed=True)


async def is_of_organisation(domain: str, other: str, ask: Ask) -> bool:
    """Whether *domain* is of the organisation of *other*. Only one that is at or under its domain is worth a walk."""
    if domain.rpartition(".")[2] != other.rpartition(".")[2]:
        return False
    theirs = organisation(other, await walk(other, ask)).domain
    return is_within(domain, theirs) and organisation(domain, await walk(domain, ask)).domain == theirs


def public_suffix(domain: str) -> str:
    """The part of *domain* below which anybody can register: "co.uk". The last label of domains that nobody lists."""
    return _public_suffixes().publicsuffix(domain) or domain


@functools.cache
def _public_suffixes() -> PublicSuffixList:
    """Read when first needed: it takes 40 ms, and 4 MB for as long as the process lives."""
    from publicsuffixlist import PublicSuffixList  # noqa: PLC0415  see above

    return PublicSuffixList()


def is_within(domain: str, other: str) -> bool:
    """Whether *domain* is *other* or lies below it."""
    return domain == other or domain.endswith(f".{other}")


def count(domain: str) -> int:
    """The labels of *domain*."""
    return domain.count(".") + 1


def _shortened(domain: str, labels: int) -> str:
    """The last *labels* of *domain*; all of it where it has no more."""
    return ".".join(domain.split(".")[-labels:])

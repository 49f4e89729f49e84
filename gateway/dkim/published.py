"""Whether the DNS has the record of a key of ours; a pending key signs as soon as it has.

Before that its signatures would be worth nothing, and those of the key it follows hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from gateway.dkim.ring import Entry, KeyState, Ring
from gateway.model import Dns, Temporary


class Published(StrEnum):
    """What the DNS has under the name of a key: its record, none, another one, or nobody could tell."""

    PUBLISHED = "published"
    MISSING = "missing"
    DIFFERENT = "different"
    UNKNOWN = "could not ask"


@dataclass(frozen=True, slots=True)
class Seen:
    """A key, what the DNS has of it, and whether it begins to sign now."""

    entry: Entry
    published: Published
    begins: bool = False


async def look(dns: Dns, entry: Entry) -> Published:
    """Ask for the record of *entry*."""
    try:
        found = await dns.txt(entry.name)
    except Temporary:
        return Published.UNKNOWN
    if not found:
        return Published.MISSING
    return Published.PUBLISHED if _is_ours(found, entry) else Published.DIFFERENT


async def look_at_all(ring: Ring, dns: Dns, domain: str, *, pending: bool = False) -> list[Seen]:
    """What the DNS has of the keys of *domain*; those that waited for it begin to sign, in place of older ones.

    With *pending* only those that wait are asked about.
    """
    asked = [one for one in ring.entries(domain) if not pending or one.state is KeyState.PENDING]
    answers = {one.selector: await look(dns, one) for one in asked}
    begin = {
        one.selector for one in asked if one.state is KeyState.PENDING and answers[one.selector] is Published.PUBLISHED
    }
    for selector in sorted(begin):
        await asyncio.to_thread(ring.activate, domain, selector)
    now = (one for one in ring.entries(domain) if one.selector in answers)
    return [Seen(one, answers[one.selector], one.selector in begin) for one in now]


def _is_ours(found: Sequence[bytes], entry: Entry) -> bool:
    """One record alone counts (RFC 6376 3.6.2.2), with our key, for mail that is signed as we sign it."""
    from gateway.dkim import keys  # noqa: PLC0415 - it loads `cryptography`, see private.py

    try:
        (text,) = found
        return keys.parse(text).public == keys.parse(entry.record.encode()).public
    except ValueError:  # several, or one that nobody can use
        return False

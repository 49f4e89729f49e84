"""Checks signatures with the keys that their domains publish (RFC 6376 6.1). One question to the DNS for each."""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from gateway.events import clean
from gateway.model import Checked, Dns, Oversized, Signature, Temporary

if TYPE_CHECKING:
    from gateway.dkim.keys import Key

EARLY = 12 * 3600.0
"""Seconds by which a signature may be made in the future: clocks are set to the wrong zone, and forge nothing."""

CACHED = 256
"""Keys that are kept as they were read."""

MOST_RECORDS = 4
"""Records at one name that are tried: a new key beside an old one, and what was left there."""

SHOWN = 400
"""Characters of a key record that are kept as evidence."""

_WORTH = {"pass": 2, "fail": 1}

BROKEN = "the body is not the signed one"


class Checker:
    """`gateway.model.Signatures`, with keys asked of *dns*."""

    def __init__(self, dns: Dns) -> None:
        self._dns = dns

    async def check(self, signature: Signature, now: float) -> Checked:
        """What became of *signature*: what is wrong with itself is told before its key is asked for."""
        if signature.fault:
            return Checked("permerror", signature.fault)
        if why := _outside_its_time(signature, now):
            return Checked("fail", why)
        name = f"{signature.selector}._domainkey.{signature.domain}"
        try:
            records = await self._dns.txt(name)
        except Oversized as error:
            return Checked("permerror", f"its key cannot be read: {error}", fact=f"TXT {name}: too large")
        except Temporary as temporary:
            return _unasked(signature, str(temporary), f"TXT {name}: nobody could tell")
        return replace(_with(records, signature), fact=_fact(name, records))


def _outside_its_time(signature: Signature, now: float) -> str:
    if signature.expires and signature.expires < now:
        return "it has expired"
    return "it is of the future" if signature.signed_at > now + EARLY else ""


def _unasked(signature: Signature, why: str, fact: str) -> Checked:
    """Where the body is not the signed one, no key would change anything."""
    if signature.broken:
        return Checked("fail", BROKEN, fact=fact)
    return Checked("temperror", f"its key cannot be asked for: {why}", fact=fact)


def _with(records: Sequence[bytes], signature: Signature) -> Checked:
    if not records:
        return Checked("permerror", "there is no key")
    if len(records) > MOST_RECORDS:
        return Checked("permerror", f"there are {len(records)} key records, so none that counts")
    # Any may be chosen (RFC 6376 6.1.2): all are the owner's. So their order, which servers change, decides nothing
    return max((_with_one(one, signature) for one in sorted(records)), key=lambda found: _WORTH.get(found.result, 0))


def _with_one(record: bytes, signature: Signature) -> Checked:
    key = _key(record)
    if isinstance(key, str):
        return Checked("permerror", key)
    result, why = _judged(key, signature)
    return Checked(result, why, key.bits, key.testing)


def _judged(key: Key, signature: Signature) -> tuple[str, str]:
    if key.algorithm != signature.algorithm:
        return "permerror", f"its key is for {key.algorithm}"
    if key.same_domain and signature.identity.rpartition("@")[2] not in {"", signature.domain}:
        return "permerror", "it signs for a domain below its own, which its key does not allow"  # RFC 6376 3.6.1, t=s
    if signature.broken:
        return "fail", BROKEN
    if not key.verifies(binascii.a2b_base64(signature.value), binascii.a2b_base64(signature.digest)):
        return "fail", "the signed header fields are not these, or the key is another"
    return "pass", ""


@lru_cache(maxsize=CACHED)
def _key(record: bytes) -> Key | str:
    """The key in *record*, or in our words why there is none.

    `cryptography` comes into memory with the first signature: many processes never see one.
    """
    from gateway.dkim import keys  # noqa: PLC0415 - see above

    try:
        return keys.parse(record)
    except keys.Unusable as unusable:
        return str(unusable)


def _fact(name: str, records: Sequence[bytes]) -> str:
    shown = ", ".join(clean(record.decode("ascii", "replace"), SHOWN) for record in records[:3])
    return f"TXT {name}: {shown or 'none'}"

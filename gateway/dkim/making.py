"""The header fields that signatures are: DKIM-Signature (RFC 6376 3.5), and the three of an ARC set (RFC 8617 4.1).

Everything is relaxed/relaxed; the time of signing is given. Nothing here reads a file, or decides what is signed.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from gateway.dkim import reading, tags
from gateway.dkim.reading import Named
from gateway.dkim.ring import Signer

WIDTH = 76
"""Columns of a line, where it can be broken."""
MOST_NAMES = 200
"""Names in h=; a header of which more would have to be signed is not signed."""
ADDED = frozenset({"date", "message-id"})
"""Fields that honest hosts add where there are none (RFC 6409 8.1, 8.2); a second one is as false as of the others."""
MOST_SETS = 50
"""ARC sets that a message can have (RFC 8617 5.1.1.1)."""

ARC = ("arc-authentication-results", "arc-message-signature", "arc-seal")
_INSTANCE = re.compile(rb"[ \t\r\n]*i[ \t\r\n]*=[ \t\r\n]*(\d{1,3})[ \t\r\n]*;")

Tags = Sequence[tuple[str, str]]


class NotSigned(ValueError):
    """This header cannot be signed, or not sealed. The text says why, in our words."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which fields are signed, by name in lower case: as often as they stand there, and `sealed` ones once more.

    A name that is signed once more than it stands there cannot be added on the way; some may, where there is none.
    """

    sealed: Sequence[str]
    signed: Sequence[str]

    def names(self, named: Named) -> tuple[str, ...]:
        """h= for a header."""
        names: list[str] = []
        for name in self.sealed:
            if name in named or name not in ADDED:
                names += [name] * (len(named.get(name, ())) + 1)
        for name in self.signed:
            names += [name] * len(named.get(name, ()))
        if len(names) > MOST_NAMES:
            raise NotSigned("the header has too many fields to be signed")
        return tuple(names)


@lru_cache(maxsize=8)
def chosen(sealed: Sequence[str], signed: Sequence[str]) -> Chosen:
    """`Chosen`, from lists that may have names in common."""
    return Chosen(sealed, tuple(name for name in dict.fromkeys(signed) if name not in sealed))


def signature(named: Named, body: bytes, signer: Signer, chosen: Chosen, now: int, expires: int) -> bytes:
    """The DKIM-Signature field of *signer* for a header (`reading.by_name`) over a body with the digest *body*.

    Times are seconds since the epoch; *expires* is 0 for a signature that does not.
    """
    names = chosen.names(named)
    about = [("v", "1"), ("a", signer.key.algorithm), ("c", "relaxed/relaxed"), ("d", signer.domain)]
    about += [("s", signer.selector), ("t", str(now)), *([("x", str(expires))] if expires else [])]
    return _signed("DKIM-Signature", about, signer, reading.taken(named, names), (names, body))


def arc_set(
    fields: Sequence[bytes], body: bytes, results: bytes, cv: str, signer: Signer, chosen: Chosen, now: int
) -> bytes:
    """The ARC set that follows those in *fields*: seal, signature and *results*, as they come to stand on top.

    *results* is the value of our Authentication-Results; *cv* what became of the chain so far: "none", "pass", "fail".
    `NotSigned` where the chain has ended, or is not the one that *cv* tells of.
    """
    sets = _sets(fields)
    instance = max(sets, default=0) + 1
    _object(sets, cv)
    found = b"ARC-Authentication-Results: i=%d; %s\r\n" % (instance, results.strip(b" \t\r\n"))
    named = reading.by_name(fields)
    names = chosen.names(named)
    about = [("i", str(instance)), ("a", signer.key.algorithm)]
    of = [("d", signer.domain), ("s", signer.selector), ("t", str(now))]
    message = [*about, ("c", "relaxed/relaxed"), *of]
    over = _signed("ARC-Message-Signature", message, signer, reading.taken(named, names), (names, body))
    # RFC 8617 5.1.2: nothing certain can be said over a broken chain, so the seal of that is over our own set alone
    chain = [] if cv == "fail" else [sets[number][name] for number in sorted(sets) for name in ARC]
    return _signed("ARC-Seal", [*about, *of, ("cv", cv)], signer, [*chain, found, over]) + over + found


def _object(sets: Sets, cv: str) -> None:
    """Is there a chain to go on with? (RFC 8617 5.1, 5.1.1.1)"""
    newest = sets.get(max(sets, default=0), {})
    if _tag(newest.get("arc-seal", b""), "cv") == "fail":
        raise NotSigned("its ARC chain was sealed as broken before")
    if max(sets, default=0) >= MOST_SETS:
        raise NotSigned("its ARC chain is as long as it may be")
    whole = sorted(sets) == list(range(1, len(sets) + 1)) and all(len(one) == len(ARC) for one in sets.values())
    if (sets and cv == "none") or (cv == "pass" and not (sets and whole)):
        raise NotSigned("its ARC chain is not the one that was checked")


Sets = dict[int, dict[str, bytes]]
"""The fields of ARC sets, by instance and by name."""


def _sets(fields: Sequence[bytes]) -> Sets:
    """The sets of *fields*; those that cannot be told apart make no chain that passes."""
    sets: Sets = {}
    for field in fields:
        if (name := reading.name_of(field)) in ARC:
            match = _INSTANCE.match(field.partition(b":")[2])
            number = int(match[1]) if match else _number(_tag(field, "i"))
            if name in sets.setdefault(number, {}):
                sets.setdefault(0, {})
            sets[number][name] = field
    return sets


def _tag(field: bytes, name: str) -> str:
    """The value of one tag of a signature; empty where there is none, or the field is malformed."""
    try:
        return tags.parse(field.partition(b":")[2].removesuffix(b"\r\n")).get(name, "")
    except tags.Malformed:
        return ""


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0


# ---- Writing a field ----------------------------------------------------------------------------------------------


def _signed(
    name: str, about: Tags, signer: Signer, signed: Sequence[bytes], over: tuple[tuple[str, ...], bytes] | None = None
) -> bytes:
    """The field *name* with these tags and, last, b=: the signature over the fields *signed* and this one.

    *over* is what h= and bh= say, in fields that have them.
    """
    lines = [_folded(f"{name}:", [f" {tag}={value};" for tag, value in about])]
    lines += [_list(over[0]), f"bh={_base64(over[1])};"] if over else []
    bare = "\r\n\t".join([*lines, "b="]).encode()
    value = _base64(signer.key.sign(reading.digest(signed, bare + b"\r\n", relaxed=True)))
    pieces = [value[start : start + WIDTH - 3] for start in range(0, len(value), WIDTH - 3)]
    return bare + "\r\n\t".join(pieces).encode() + b"\r\n"


@lru_cache(maxsize=256)
def _list(names: tuple[str, ...]) -> str:
    """h=, folded behind colons (RFC 6376 3.5)."""
    *first, last = names
    return _folded("h=", [*(f"{name}:" for name in first), f"{last};"])


def _folded(start: str, words: Iterable[str]) -> str:
    """*start* and *words*, on lines that are no longer than need be."""
    lines, line = [], start
    for word in words:
        if len(line) + len(word) > WIDTH:
            lines.append(line)
            line = word.lstrip()
        else:
            line += word
    return "\r\n\t".join([*lines, line])


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()

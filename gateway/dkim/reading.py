"""What a signature signs of a header: the fields it names, and itself without its value (RFC 6376 3.7, 5.4.2)."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from gateway.dkim import canonical

COMMON = 40
"""Octets of a name that may be remembered: headers have the same ones again and again."""


def name_of(field: bytes) -> str:
    """The name of a field in lower case; white space around it, which some readers look past, does not count."""
    end = field.find(b":")
    name = field if end < 0 else field[:end]
    return _known(name) if len(name) <= COMMON else _normal(name)


def _normal(name: bytes) -> str:
    return name.strip(b" \t\r\n").lower().decode("latin-1")


_known = lru_cache(maxsize=1024)(_normal)


def header_digest(fields: Sequence[bytes], names: Iterable[str], own_field: bytes, relaxed: bool) -> bytes:
    """The SHA-256 that a signature with h= *names* is made of. *own_field* is the signature itself, or what it will be.

    All fields end in CRLF (`canonical.fields`).
    """
    return digest(selected(fields, names, own_field), own_field, relaxed)


def selected(fields: Sequence[bytes], names: Iterable[str], own_field: bytes) -> list[bytes]:
    """Those of *fields* that *names* name, from the bottom up; a name without a field left names nothing.

    A signature never names itself (RFC 6376 3.5, h=).
    """
    return taken(by_name(field for field in fields if field is not own_field), names)


Named = Mapping[str, Sequence[bytes]]
"""The fields of a header by name (`name_of`), from the top."""


def by_name(fields: Iterable[bytes]) -> Named:
    """*fields*, sorted once for all signatures over them."""
    named: defaultdict[str, list[bytes]] = defaultdict(list)
    for field in fields:
        named[name_of(field)].append(field)
    return named


def taken(named: Named, names: Iterable[str]) -> list[bytes]:
    """What *names* name, each time the lowest field of that name that is left."""
    left = {name: len(stack) for name, stack in named.items()}
    found = []
    for name in map(str.lower, names):
        if at := left.get(name, 0):
            left[name] = at = at - 1
            found.append(named[name][at])
    return found


def digest(signed: Iterable[bytes], own_field: bytes, relaxed: bool) -> bytes:
    """The SHA-256 over the fields *signed*, in this order, and a signature over them, without its value and CRLF."""
    own = canonical.field(without_value(own_field), relaxed=relaxed).removesuffix(canonical.CRLF)
    return hashlib.sha256(b"".join([*(canonical.field(one, relaxed=relaxed) for one in signed), own])).digest()


def without_value(field: bytes) -> bytes:
    """A signature with the value of its b= taken out, and the white space around that (RFC 6376 3.7)."""
    name, colon, value = field.removesuffix(canonical.CRLF).partition(b":")
    tags = [_emptied(tag) for tag in value.split(b";")]
    return name + colon + b";".join(tags) + canonical.CRLF


def _emptied(tag: bytes) -> bytes:
    name, equals, _ = tag.partition(b"=")
    return name + equals if name.strip(b" \t\r\n") == b"b" else tag

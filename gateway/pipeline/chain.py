"""The ARC chain of a message, as far as it can be judged without a key (RFC 8617 5.2). In the confined child.

Rule: a chain is whole, or it is none. Each field is put into canonical form once, however many signatures cover it.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from gateway.dkim import canonical, reading, tags
from gateway.model import Arc, ArcSet, Signature
from gateway.pipeline.aar import Said, said
from gateway.pipeline.signed import Bodies, Claims, Fault, check_named, claims_of, named, value_of

MAX_SETS = 50
"""Sets of a chain (RFC 8617 5.1)."""

_RESULTS, _MESSAGE, _SEAL = "arc-authentication-results", "arc-message-signature", "arc-seal"
_INSTANCE = re.compile("[1-9][0-9]?")
_TIME = re.compile("[0-9]{1,12}")
_OF_MESSAGES = {"h", "bh", "l"}
"""Tags that a seal must not have: RFC 8617 4.1.3 forbids the first, the others would speak of what it does not sign."""

_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class _Hop:
    """One set as it stands there: its three fields, and what they say."""

    instance: int
    results_field: bytes
    message_field: bytes
    seal_field: bytes
    said: Said
    message: Mapping[str, str]
    seal: Mapping[str, str]


def chain(fields: Sequence[bytes], bodies: Bodies) -> Arc:
    """The chain in the header *fields*; one with a fault where there are fields of ARC that make none."""
    header = _Header(fields)
    if not any(header.all(name) for name in (_RESULTS, _MESSAGE, _SEAL)):
        return Arc()
    try:
        hops = _hops(header)
        cvs = [_cv(hop, len(hops)) for hop in hops]
    except (tags.Malformed, Fault) as error:
        return Arc(fault=str(error))
    parts = zip(hops, cvs, _messages(hops, header, bodies), _seals(hops, header), strict=True)
    return Arc(
        tuple(
            ArcSet(hop.instance, cv, message, seal, hop.said.results, hop.said.author)
            for hop, cv, message, seal in parts
        )
    )


class _Header:
    """The fields that signatures choose from, and their canonical forms."""

    def __init__(self, fields: Sequence[bytes]) -> None:
        self._fields: defaultdict[str, list[bytes]] = defaultdict(list)
        for field in fields:
            self._fields[reading.name_of(field)].append(field)
        self._relaxed: dict[bytes, bytes] = {}

    def all(self, name: str) -> list[bytes]:
        """The fields of *name* (lower case), from the top."""
        return self._fields.get(name, [])

    def relaxed(self, field: bytes) -> bytes:
        """*field* in relaxed form, with its CRLF."""
        if field not in self._relaxed:
            self._relaxed[field] = canonical.field(field, relaxed=True)
        return self._relaxed[field]

    def digest(self, claims: Claims, own: bytes) -> bytes:
        """As `reading.header_digest` for the signature *own*, which claims *claims*."""
        total = hashlib.sha256()
        for field in self._chosen(claims.names, own):
            total.update(self.relaxed(field) if claims.header_relaxed else field)
        total.update(_unsigned(own, relaxed=claims.header_relaxed))
        return total.digest()

    def _chosen(self, names: Iterable[str], own: bytes) -> Iterator[bytes]:
        """What *names* name, from the bottom up; a signature never names itself (RFC 6376 5.4.2, 3.5)."""
        left: dict[str, Iterator[bytes]] = {}
        for name in names:
            if name not in left:
                left[name] = (field for field in reversed(self.all(name)) if field is not own)
            if (field := next(left[name], None)) is not None:
                yield field


def _unsigned(own: bytes, *, relaxed: bool) -> bytes:
    """A signature as it covers itself: without its value, and without CRLF (RFC 6376 3.7)."""
    return canonical.field(reading.without_value(own), relaxed=relaxed).removesuffix(canonical.CRLF)


def _hops(header: _Header) -> list[_Hop]:
    """The sets, oldest first; `Fault` or `Malformed` unless each of them is there once and whole (5.2, step 3)."""
    if max(len(header.all(name)) for name in (_RESULTS, _MESSAGE, _SEAL)) > MAX_SETS:
        raise Fault(f"there are more than {MAX_SETS} sets")
    words = _by_instance(map(_said, header.all(_RESULTS)))
    messages = _by_instance(map(_tagged, header.all(_MESSAGE)))
    seals = _by_instance(map(_tagged, header.all(_SEAL)))
    instances = range(1, len(seals) + 1)
    if not words.keys() == messages.keys() == seals.keys() == set(instances):
        raise Fault("a set is missing, or a part of one")
    return [
        _Hop(one, words[one][0], messages[one][0], seals[one][0], words[one][1], messages[one][1], seals[one][1])
        for one in instances
    ]


def _by_instance(read: Iterable[tuple[int, bytes, _Read]]) -> dict[int, tuple[bytes, _Read]]:
    found: dict[int, tuple[bytes, _Read]] = {}
    for instance, field, what in read:
        if instance in found:
            raise Fault(f"a part of set {instance} stands there twice")
        found[instance] = field, what
    return found


def _said(field: bytes) -> tuple[int, bytes, Said]:
    words = said(value_of(field))
    if words is None:
        raise Fault("results without an instance (i=)")
    return words.instance, field, words


def _tagged(field: bytes) -> tuple[int, bytes, Mapping[str, str]]:
    found = tags.parse(value_of(field))
    if not _INSTANCE.fullmatch(found.get("i", "")):
        raise Fault("a signature without an instance (i=)")
    return int(found["i"]), field, found


def _cv(hop: _Hop, last: int) -> str:
    """What the seal says of the chain that it got. Nobody seals behind one who said "fail" (RFC 8617 5.1.2)."""
    cv = hop.seal.get("cv", "")
    if cv != ("none" if hop.instance == 1 else "pass") and not (cv == "fail" and hop.instance == last):
        raise Fault(f"the state of the chain (cv=) in seal {hop.instance} is none that can be")
    return cv


def _messages(hops: Sequence[_Hop], header: _Header, bodies: Bodies) -> list[Signature]:
    """The signatures over the message."""
    authors = len(header.all("from"))
    read = [_claims(hop, authors) for hop in hops]
    for _, claims in read:
        if claims:
            bodies.want(claims.body_relaxed)
    return [
        _measured(signature, claims, hop.message_field, header, bodies) if claims else signature
        for hop, (signature, claims) in zip(hops, read, strict=True)
    ]


def _claims(hop: _Hop, authors: int) -> tuple[Signature, Claims | None]:
    """The signature of *hop* over the message, and its claims where it has no fault. *authors* counts From fields."""
    signature = named(hop.message)
    try:
        claims = claims_of(hop.message, signature)
        _check(claims, authors)
    except Fault as error:
        return replace(signature, fault=str(error)), None
    return signature, claims


def _check(claims: Claims, authors: int) -> None:
    """What is to be the mail of the author must cover all that readers may take for the author, and the whole body."""
    if _SEAL in claims.names:
        raise Fault("it covers a seal (RFC 8617 4.1.2)")
    if claims.names.count("from") < max(authors, 1):
        raise Fault("a From field is not signed")
    if claims.length is not None:
        raise Fault("it covers a part of the body only (l=)")


def _measured(signature: Signature, claims: Claims, own: bytes, header: _Header, bodies: Bodies) -> Signature:
    return replace(
        signature,
        digest=_base64(header.digest(claims, own)),
        broken=bodies.digest(claims.body_relaxed) != claims.body_hash,
        signed_at=claims.signed_at,
        expires=claims.expires,
    )


def _seals(hops: Sequence[_Hop], header: _Header) -> Iterator[Signature]:
    """The seals. Each covers all sets up to its own, so each goes on from the one before (RFC 8617 5.1.1)."""
    total = hashlib.sha256()
    for hop in hops:
        total.update(header.relaxed(hop.results_field))
        total.update(header.relaxed(hop.message_field))
        own = total.copy()
        own.update(_unsigned(hop.seal_field, relaxed=True))
        yield _seal(hop.seal, own.digest())
        total.update(header.relaxed(hop.seal_field))


def _seal(found: Mapping[str, str], digest: bytes) -> Signature:
    signature, signed_at = named(found), found.get("t", "0")
    try:
        check_named(signature)
    except Fault as error:
        return replace(signature, fault=str(error))
    if _OF_MESSAGES & found.keys():
        return replace(signature, fault="a seal covers no message (h=, bh=, l=)")
    if not _TIME.fullmatch(signed_at):
        return replace(signature, fault="its t= is no number, or too large")
    return replace(signature, digest=_base64(digest), signed_at=int(signed_at))


def _base64(octets: bytes) -> str:
    return binascii.b2a_base64(octets, newline=False).decode()

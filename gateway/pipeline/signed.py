"""The DKIM signatures of a message, as far as they can be judged without a key (RFC 6376 6.1.1). In the confined child.

Rule: what the grammar does not allow, or two readers may take for two things, is a fault; no fault, no doubt.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from mmap import mmap

from gateway.dkim import canonical, reading, tags
from gateway.dkim.canonical import Body
from gateway.idn import a_labels
from gateway.model import Signature
from gateway.pipeline.mapped import WINDOW, Passing
from gateway.stages import Content

MAX_SIGNATURES = 8
"""Signatures that are read, from the top; those that came last stand there (RFC 6376 4.2)."""

MAX_VALUE = 1024
"""Octets of a signature; those of an RSA key of 4096 bits have 512."""

ALGORITHMS = frozenset({"rsa-sha256", "ed25519-sha256"})
_ALGORITHM = re.compile(r"[a-z0-9]{1,20}-[a-z0-9]{1,20}")
_NUMBER = re.compile(r"[0-9]{1,12}")
_LABEL = r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)+(?!\d+$){_LABEL}")  # RFC 6376 has no "_", but all others check such signatures
_SELECTOR = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,62})(?:\.[a-z0-9_](?:[a-z0-9_-]{0,62}))*")  # "_" is in wide use
_FIELD_NAME = re.compile(r"[!-9;-~]+")
_FORMS = {"simple": False, "relaxed": True}


class Fault(ValueError):
    """A signature cannot count, whatever its key. The text says why, in our words."""


class Bodies:
    """The hashes of one body, the octets of *data* from *start* on, in all the forms that signatures want.

    All that is announced by `want` is computed together, in one reading, when the first is asked for.
    """

    def __init__(self, data: bytes | mmap, start: int) -> None:
        self._data, self._start = data, start
        self._wanted: set[tuple[bool, int | None]] = set()
        self._digests: dict[tuple[bool, int | None], bytes | None] = {}
        self._sizes: dict[bool, int] = {}

    def want(self, relaxed: bool, length: int | None = None) -> None:
        """Announce that this digest will be asked for."""
        self._wanted.add((relaxed, length))

    def digest(self, relaxed: bool, length: int | None = None) -> bytes | None:
        """The SHA-256 of the canonical body, or of its first *length* octets; None where it has fewer."""
        if (relaxed, length) not in self._digests:
            self.want(relaxed, length)
            self._read()
        return self._digests[relaxed, length]

    def size(self, relaxed: bool) -> int:
        """Octets of the canonical body."""
        self.digest(relaxed)
        return self._sizes[relaxed]

    def _read(self) -> None:
        missing = self._wanted - self._digests.keys()
        bodies = {
            relaxed: Body(relaxed=relaxed, cuts=(cut for form, cut in missing if form is relaxed and cut is not None))
            for relaxed in {relaxed for relaxed, _ in missing}
        }
        self._feed(list(bodies.values()))
        for relaxed, length in missing | {(relaxed, None) for relaxed in bodies}:
            self._digests[relaxed, length] = bodies[relaxed].digest(length)
            self._sizes[relaxed] = bodies[relaxed].size

    def _feed(self, bodies: Sequence[Body]) -> None:
        for start in range(self._start, len(self._data), WINDOW):
            window = self._data[start : start + WINDOW]
            for body in bodies:
                body.update(window)
            if isinstance(self._data, Passing):
                self._data.let_go(start, start + len(window))


def outermost(data: bytes | mmap, limits: Content.Settings) -> tuple[list[bytes], int]:
    """The fields of the message's own header, and where its body begins. No fields where they exceed the *limits*."""
    if data[:2] == canonical.CRLF:
        return [], 2
    stop = data.find(b"\r\n\r\n", 0, min(len(data), limits.header_size + 4))
    if stop < 0 and len(data) > limits.header_size:
        return [], len(data)
    end = stop + 4 if stop >= 0 else len(data)
    fields = canonical.fields(bytes(data[:end]))
    return (fields, end) if len(fields) <= limits.fields else ([], end)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a DKIM-Signature or ARC-Message-Signature says of what it signs (RFC 6376 3.5).

    `names` are the fields of h= in lower case; `length` is l=, None where it is not there.
    """

    names: tuple[str, ...]
    header_relaxed: bool
    body_relaxed: bool
    body_hash: bytes
    length: int | None
    signed_at: int
    expires: int


def signatures(fields: Sequence[bytes], bodies: Bodies) -> tuple[Signature, ...]:
    """The DKIM signatures in the header *fields*, from the top; a last one with a fault where there are too many."""
    names = [reading.name_of(field) for field in fields]
    own = [field for field, name in zip(fields, names, strict=True) if name == "dkim-signature"]
    read = [_read(field, names.count("from")) for field in own[:MAX_SIGNATURES]]
    for _, claims in read:
        if claims:
            bodies.want(claims.body_relaxed, claims.length)
    found = [
        measured(signature, claims, field, fields, bodies) if claims else signature
        for field, (signature, claims) in zip(own, read, strict=False)
    ]
    if len(own) > MAX_SIGNATURES:
        found.append(Signature(fault=f"more than {MAX_SIGNATURES} signatures"))
    return tuple(found)


def measured(signature: Signature, claims: Claims, field: bytes, fields: Sequence[bytes], bodies: Bodies) -> Signature:
    """*signature*, which stands in *field*, with what its *claims* amount to for this header and body."""
    body_hash = bodies.digest(claims.body_relaxed, claims.length)
    if body_hash is None:
        return replace(signature, fault="it covers more than there is (l=)")
    header_hash = reading.header_digest(fields, claims.names, field, claims.header_relaxed)
    return replace(
        signature,
        digest=binascii.b2a_base64(header_hash, newline=False).decode(),
        signed_at=claims.signed_at,
        expires=claims.expires,
        partial=claims.length is not None and claims.length < bodies.size(claims.body_relaxed),
        broken=body_hash != claims.body_hash,
    )


def _read(field: bytes, authors: int) -> tuple[Signature, Claims | None]:
    """A signature as far as it can be read, and its claims where it has no fault. *authors* counts From fields."""
    signature = Signature()
    try:
        found = tags.parse(value_of(field))
        signature = named(found)
        claims = _claims(found, signature, authors)
        return replace(signature, identity=_identity(found, signature.domain)), claims
    except (tags.Malformed, Fault) as error:
        return replace(signature, fault=str(error)), None


def _claims(found: Mapping[str, str], signature: Signature, authors: int) -> Claims:
    """What is more in a DKIM-Signature. Who reads one From must not see another than the signed one (RFC 6376 8.15)."""
    if found.get("v") != "1":
        raise Fault("its version is not 1")
    claims = claims_of(found, signature)
    if claims.names.count("from") < max(authors, 1):
        raise Fault("a From field is not signed")
    return claims


def value_of(field: bytes) -> bytes:
    """What stands behind the colon of *field*, without the last CRLF."""
    return field.partition(b":")[2].removesuffix(canonical.CRLF)


def named(found: Mapping[str, str]) -> Signature:
    """Who signs and how, of the tags *found*, whatever else is wrong: each empty where its grammar forbids it."""
    algorithm = found.get("a", "")
    return Signature(
        domain=_domain(found.get("d", "")),
        selector=_selector(found.get("s", "")),
        algorithm=algorithm if _ALGORITHM.fullmatch(algorithm) else "",
        value=_base64(found.get("b", ""), MAX_VALUE),
    )


def claims_of(found: Mapping[str, str], signature: Signature) -> Claims:
    """What the tags *found*, of which *signature* was `named`, claim; `Fault` where that cannot count."""
    check_named(signature)
    if "dns/txt" not in _items(found.get("q", "dns/txt")):
        raise Fault("its key is not in the DNS (q=)")
    body_hash = binascii.a2b_base64(_base64(found.get("bh", ""), 32))
    if len(body_hash) != 32:
        raise Fault("its hash of the body (bh=) is none")
    signed_at, expires = _number(found, "t") or 0, _number(found, "x") or 0
    if "x" in found and expires < max(signed_at, 1):
        raise Fault("it expires before it is made")
    return Claims(_names(found), *_forms(found), body_hash, _number(found, "l"), signed_at, expires)


def check_named(signature: Signature) -> None:
    """`Fault` where *signature*, as `named`, does not say who signs and how; an ARC-Seal says no more than this."""
    if signature.algorithm == "rsa-sha1":
        raise Fault("it is made with SHA-1 (RFC 8301)")
    if signature.algorithm not in ALGORITHMS:
        raise Fault("its algorithm (a=) is not known")
    if not signature.domain:
        raise Fault("its domain (d=) is none that signs")
    if not signature.selector or len(f"{signature.selector}._domainkey.{signature.domain}") > 253:
        raise Fault("its selector (s=) is none")
    if not signature.value:
        raise Fault("its value (b=) is none")


def _domain(text: str) -> str:
    """*text* in A-labels (RFC 8616 4); empty where it is no domain name, or one of a single label."""
    try:
        domain = a_labels(text) if len(text) <= 253 else ""
    except ValueError:
        return ""
    return domain if len(domain) <= 253 and _DOMAIN.fullmatch(domain) else ""


def _selector(text: str) -> str:
    try:
        selector = a_labels(text) if len(text) <= 253 else ""
    except ValueError:
        return ""
    return selector if _SELECTOR.fullmatch(selector) else ""


def _identity(found: Mapping[str, str], domain: str) -> str:
    """The i= of a signature without its local part; its domain is d= or lies below (RFC 6376 3.5)."""
    if "i" not in found:
        return f"@{domain}"
    identity = _domain(found["i"].rpartition("@")[2]) if "@" in found["i"] else ""
    if identity != domain and not identity.endswith(f".{domain}"):
        raise Fault("its identity (i=) is not within its domain")
    return f"@{identity}"


def _names(found: Mapping[str, str]) -> tuple[str, ...]:
    names = tuple(name.lower() for name in _items(found.get("h", "").removesuffix(":")))  # some write "from:to:"
    if not all(map(_FIELD_NAME.fullmatch, names)):
        raise Fault("what it signs (h=) is no list of fields")
    return names


def _forms(found: Mapping[str, str]) -> tuple[bool, bool]:
    """Whether header and body are in relaxed form (RFC 6376 3.5, c=)."""
    header, slash, body = found.get("c", "simple").partition("/")
    try:
        return _FORMS[header], _FORMS[body if slash else "simple"]
    except KeyError:
        raise Fault("its canonical form (c=) is not known") from None


def _items(value: str) -> list[str]:
    return [item.strip(" \t") for item in value.split(":")]


def _number(found: Mapping[str, str], name: str) -> int | None:
    if name not in found:
        return None
    if not _NUMBER.fullmatch(found[name]):
        raise Fault(f"its {name}= is no number, or too large")
    return int(found[name])


def _base64(value: str, most: int) -> str:
    """*value* in the one way to write it; empty where it is not base64, or of more than *most* octets."""
    try:
        octets = tags.octets(value)
    except ValueError:
        return ""
    return binascii.b2a_base64(octets, newline=False).decode() if len(octets) <= most else ""

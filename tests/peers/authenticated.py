"""What we make of signatures and ARC chains, from the octets to the result; and keys for those who sign."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
from collections.abc import Mapping, Sequence
from functools import cache

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import filters.arc
import filters.dkim
from gateway.dkim import canonical, making, private, reading
from gateway.dkim.checker import Checker
from gateway.dkim.making import Chosen
from gateway.dkim.ring import Signer
from gateway.dns import Resolver
from gateway.model import AskingFilter, Mail, Session, Tools
from gateway.model import Content as Read
from gateway.pipeline.chain import chain
from gateway.pipeline.signed import Bodies, outermost, signatures
from gateway.stages import Content, Signing
from tests.peers import signer
from tests.peers.signing_programs import Identity

DOMAIN = "example.org"
NOW = 1_750_000_000


@cache
def identity(selector: str, domain: str = DOMAIN) -> Identity:
    """Who signs with the key of *selector*."""
    bits = 1024 if selector == "other" else 2048
    return Identity(domain, selector, signer.ed25519_key() if selector == "ed" else signer.rsa_key(bits))


@cache
def records() -> Mapping[str, Sequence[str]]:
    """The key records of all domains, by selector; those that are not "ed" have the same RSA key."""
    usual = signer.record(signer.rsa_key(2048)).decode()
    key = usual.rpartition("p=")[2]
    pkcs1 = signer.rsa_key(2048).public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
    return {
        "rsa": [usual],
        "ed": [signer.record(signer.ed25519_key()).decode()],
        "other": [usual],
        "testing": [f"v=DKIM1; t=y; p={key}"],
        "strict": [f"v=DKIM1; t=s; p={key}"],
        "spaced": [f"v = DKIM1 ; k = rsa ; n=a note ; s = email : other;p = {key[:40]} {key[40:]} ;"],
        "bare": [f"v=DKIM1; p={base64.b64encode(pkcs1).decode()}"],
        "unversioned": [f"p={key}"],
        "revoked": ["v=DKIM1; p="],
        "sha1_only": [f"v=DKIM1; h=sha1; p={key}"],
        "not_mail": [f"v=DKIM1; s=other; p={key}"],
        "other_version": [f"v=DKIM2; p={key}"],
        "unknown_kind": [f"v=DKIM1; k=dsa; p={key}"],
        "double": [f"v=DKIM1; n=one; p={key}", f"v=DKIM1; n=two; p={key}"],
    }


def zone(*domains: str) -> dict[tuple[str, str], Sequence[str]]:
    """The records as `tests.peers.dns` wants them."""
    return {(f"{name}._domainkey.{one}", "TXT"): texts for one in domains for name, texts in records().items()}


def ask(name: bytes, **_: object) -> bytes | None:
    """The DNS as dkimpy asks it; it takes the first of several records."""
    found = records().get(name.decode().partition(".")[0])
    return found[0].encode() if found else None


# ---- Making: as `gateway.delivery.sign` does, with the fields of the shipped policy ---------------------------------


def sign(message: bytes, who: Identity) -> bytes:
    """*message* with our signature."""
    fields, body = _parted(message)
    chosen = Chosen(Signing().oversigned, Signing().signed)
    return making.signature(reading.by_name(fields), body, _signer(who), chosen, NOW, 0) + message


def seal(message: bytes, who: Identity, results: str, cv: str) -> bytes:
    """*message* with our ARC set, which tells of *results*; *cv* is what its seal says of the chain so far."""
    fields, body = _parted(message)
    chosen = Chosen(("from",), (*Signing().oversigned, *Signing().signed, "dkim-signature"))
    return making.arc_set(fields, body, results.encode(), cv, _signer(who), chosen, NOW) + message


def _signer(who: Identity) -> Signer:
    return Signer(who.domain, who.selector, private.read(who.pem))


def _parted(message: bytes) -> tuple[list[bytes], bytes]:
    """The fields, and the digest of the body."""
    head, _, rest = message.partition(b"\r\n\r\n")
    body = canonical.Body(relaxed=True)
    body.update(rest)
    return canonical.fields(head + b"\r\n"), body.digest() or b""


# ---- Checking ------------------------------------------------------------------------------------------------------


def signatures_of(messages: Sequence[bytes], port: int) -> list[list[str]]:
    """What our filter finds of each signature of each message, with our own resolver: results of RFC 8601."""
    return asyncio.run(_all(messages, port, filters.dkim.Filter, filters.dkim.Settings()))


def chains_of(messages: Sequence[bytes], port: int) -> list[str]:
    """The same of the ARC chain of each message."""
    found = asyncio.run(_all(messages, port, filters.arc.Filter, filters.arc.Settings()))
    return [results[0] if results else "none" for results in found]


async def _all(messages: Sequence[bytes], port: int, kind: type, settings: object) -> list[list[str]]:
    tools = Tools(None, None, "gw.test", None, Checker(Resolver([f"127.0.0.1:{port}"], 5.0)), None, None)  # type: ignore[arg-type]
    return [await _found(kind(settings, tools), message) for message in messages]


async def _found(checked_by: AskingFilter, message: bytes) -> list[str]:
    fields, start = outermost(message, Content.Settings())
    bodies = Bodies(message, start)
    read = Read(signatures=signatures(fields, bodies), arc=chain(fields, bodies))
    findings = await checked_by.check(Mail("id", Session(ipaddress.ip_address("192.0.2.1")), content=read), {})
    return [one.result.result for one in findings if one.result]

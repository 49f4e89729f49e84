"""Mails and DNS records that are made to cost: what authentication must answer, and what it must not ask.

Every bomb has domains of its own below "test", so that nothing is in a cache. Signatures that hold are made here, by
`cryptography` alone: a header of one field needs no more.
"""

import base64
import functools
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.e2e import mails
from tests.peers.hostile_dns import FAULTS, HARMLESS
from tests.peers.wire import crlf

Records = Mapping[tuple[str, str], Sequence[str]]

HONEST = "x@honest.test"
FROM = "From: Ann Other <{author}>"
TEXT = "Nothing to say.\n"
JUNK = base64.b64encode(b"x" * 256).decode()


@dataclass(frozen=True)
class Bomb:
    """A mail, and the records that make it one.

    Each of `expected` is a regular expression that our Authentication-Results must match, and none of `refused` may;
    no question may match `unasked`. `faults` are those of `hostile_dns`, by the name below which they rule.
    """

    expected: Sequence[str]
    raw: Callable[[], bytes] = mails.mail
    records: Records = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)
    sender: str = HONEST
    helo: str = "client.test"
    peer: str = "127.0.6.1"
    unasked: str = r"\Z."
    refused: Sequence[str] = ()


# ---- SPF: records that ask more than anybody should answer -----------------------------------------------------------


def _spf(name: str, record: str, expected: str, records: Records | None = None, **more: object) -> Bomb:
    about = rf"\bspf={expected}\b.*smtp\.mailfrom=\S*{re.escape(name)}.test"
    zone = {(f"{name}.test", "TXT"): [record], **(records or {})}
    return Bomb([about], records=zone, sender=f"x@{name}.test", **more)  # type: ignore[arg-type]


def _many_hosts(name: str) -> Records:
    exchanges: dict[tuple[str, str], Sequence[str]] = {}
    for number in range(10):
        hosts = [f"h{number}x{one}.{name}.test" for one in range(10)]
        exchanges[f"m{number}.{name}.test", "MX"] = [f"{one} {host}." for one, host in enumerate(hosts)]
        exchanges |= {(host, "A"): ["203.0.113.1"] for host in hosts}
    return exchanges


FLOODER = "127.0.6.99"
FLOOD = {
    ("99.6.0.127.in-addr.arpa", "PTR"): [f"p{number}.flood.test." for number in range(400)],
    **{(f"p{number}.flood.test", "A"): ["203.0.113.1"] for number in range(400)},
}
SPF = {
    "ten exchangers with ten hosts": _spf(
        "tens",
        "v=spf1 " + " ".join(f"mx:m{one}.tens.test" for one in range(10)) + " -all",
        "permerror",
        _many_hosts("tens"),
    ),
    "includes in a ring": _spf(
        "ring", "v=spf1 include:gnir.test -all", "permerror", {("gnir.test", "TXT"): ["v=spf1 include:ring.test -all"]}
    ),
    "redirects in a ring": _spf("circle", "v=spf1 redirect=circle.test", "permerror"),
    "four hundred names of the peer": _spf("flooded", "v=spf1 ptr -all", "fail", FLOOD, peer=FLOODER),
    "names that are not there": _spf(
        "voids", "v=spf1 " + " ".join(f"a:v{one}.voids.test" for one in range(10)) + " -all", "permerror"
    ),
    "60 KB of macros": _spf("sixty", "v=spf1 " + "exists:%{l}.%{s}.sixty.test " * 2100, "permerror"),
    "4 KB of macros": _spf("four", "v=spf1 " + " ".join(["x=" + "%{s}%{ir}%{p}" * 39] * 8) + " -all", "permerror"),
    "macros in every term": _spf(
        "terms",
        "v=spf1 " + " ".join(f"exists:%{{ir}}.%{{s}}.%{{lr-}}.{one}.terms.test" for one in range(60)) + " -all",
        "permerror",
    ),
    "aliases in a ring": _spf("alias", "v=spf1 -all", "temperror", faults={"alias.test": "loop"}),
    "an explanation with line ends": _spf(
        "explained",
        "v=spf1 exp=why.explained.test -all",
        "fail",
        {("why.explained.test", "TXT"): ["no\r\n250 ok\x1b[2J"]},
        unasked="^why",
    ),
    "everybody": _spf("world", "v=spf1 +all", "pass"),
    "a HELO that wants to know the sender": Bomb(
        [r"spf=fail\b.*smtp\.helo=spy\.test"],
        records={("spy.test", "TXT"): ["v=spf1 exists:%{l}.%{s}.leak.test -all"]},
        sender="secret.person@honest.test",
        helo="spy.test",
        unasked="secret",
    ),
    "a bounce, and a costly HELO": Bomb(
        [r"spf=permerror\b.*smtp\.helo=deep\.test"],
        records={("deep.test", "TXT"): ["v=spf1 include:deep.test include:peed.test ?all"]},
        sender="",
        helo="deep.test",
    ),
}


# ---- DKIM: signatures and keys -----------------------------------------------------------------------------------------


@functools.cache
def _key(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def _record(key: bytes) -> str:
    return f"v=DKIM1; k=rsa; p={base64.b64encode(key).decode()}"


def _public(bits: int) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return _record(_key(bits).public_key().public_bytes(serialization.Encoding.DER, form))


def _shaped(bits: int, exponent: int = 65537) -> str:
    """A record with a key of that size, whose factors nobody knows."""
    numbers = b"\x30" + _sized(_integer((1 << (bits - 1)) + 3) + _integer(exponent))
    algorithm = bytes.fromhex("300d06092a864886f70d0101010500")
    return _record(b"\x30" + _sized(algorithm + b"\x03" + _sized(b"\0" + numbers)))


def _integer(number: int) -> bytes:
    return b"\x02" + _sized(number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _sized(octets: bytes) -> bytes:
    """DER: the length, then the octets."""
    if len(octets) < 128:
        return bytes([len(octets)]) + octets
    length = len(octets).to_bytes((len(octets).bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(length)]) + length + octets


def _digest(body: bytes) -> str:
    return base64.b64encode(hashlib.sha256(body).digest()).decode()


BODY = crlf(TEXT.encode())
TAGS = "v=1; a=rsa-sha256; c=relaxed/relaxed; d={domain}; s={selector}; h=from; bh={digest}; b="


def _unsigned(domain: str, selector: str, **changed: str) -> str:
    """A signature that is well-formed and does not hold; tags may be *changed*."""
    tags = dict(
        one.strip().split("=", 1)
        for one in TAGS.format(domain=domain, selector=selector, digest=_digest(BODY)).split(";")
    )
    return "DKIM-Signature: " + "; ".join(f"{name}={value}" for name, value in (tags | {"b": JUNK} | changed).items())


def _signed(author: str, domain: str, selector: str, body: bytes, bits: int = 2048) -> str:
    """One that holds, over From and the canonical *body*."""
    tags = TAGS.format(domain=domain, selector=selector, digest=_digest(body))
    head = f"from:{FROM.format(author=author).partition(': ')[2]}\r\ndkim-signature:{tags}"
    value = _key(bits).sign(head.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"DKIM-Signature: {tags}{base64.b64encode(value).decode()}"


def _mail(*fields: str, author: str = "ann@out.example", text: bytes = TEXT.encode()) -> bytes:
    """A mail with *fields*, each a line of the header, on top."""
    return b"".join(f"{one}\r\n".encode() for one in fields) + mails.mail(text, sender=author)


def _dkim(name: str, record: Sequence[str], expected: str, **more: object) -> Bomb:
    """A mail with one signature of name.test, with these records in place of its key."""
    return Bomb(
        [rf"\bdkim={expected}\b.*header\.d={name}\.test"],
        lambda: _mail(_unsigned(f"{name}.test", "s")),
        {(f"s._domainkey.{name}.test", "TXT"): record} if record else {},
        **more,  # type: ignore[arg-type]
    )


def _spaces() -> bytes:
    """25 MB of blanks, which relaxed canonicalisation makes almost nothing of: 2,500 lines of one blank and a dot."""
    signature = _signed("ann@out.example", "spaces.test", "s", b" .\r\n" * 25_000)
    return _mail(signature, text=(b" " * 990 + b" \t \t .\n") * 25_000)


FAULTY = (
    {"h": "to:subject"},
    {"a": "rsa-sha1"},
    {"d": "test", "i": "@test"},
    {"s": "a..b"},
    {"s": ".".join(["l"] * 70)},
    {"s": "x" * 64},
    {"i": "@elsewhere.test"},
    {"x": "1000000000", "t": "900000000"},
)

DKIM = {
    "five hundred signatures": Bomb(
        [r"dkim=fail\b.*header\.d=many\.test"],
        lambda: _mail(*(_unsigned("many.test", f"s{number}") for number in range(500))),
        {(f"s{number}._domainkey.many.test", "TXT"): [_shaped(4096)] for number in range(500)},
        refused=["dkim=pass"],
    ),
    "a key of 16 kbit": _dkim("k16", [_shaped(16384)], "permerror"),
    "a key of 32 kbit": _dkim("k32", [_shaped(32768)], "permerror"),
    "a key with a huge exponent": _dkim("exponent", [_shaped(2048, (1 << 2040) + 1)], "permerror"),
    "a key with a tiny modulus": _dkim("tiny", [_shaped(512, 3)], "permerror"),
    "a key of 64 KB": _dkim("k64", [], "permerror", faults={"_domainkey.k64.test": "huge"}),
    "twenty keys": _dkim("twenty", [_public(2048)] * 19 + ["v=DKIM1; p="], "fail"),
    "25 MB of blanks": Bomb(
        [r"dkim=pass\b.*header\.d=spaces\.test"], _spaces, {("s._domainkey.spaces.test", "TXT"): [_public(2048)]}
    ),
    "signatures with a fault each": Bomb(
        ["dkim=permerror"],
        lambda: _mail(*(_unsigned("faulty.test", "s", **changed) for changed in FAULTY)),
        {
            (f"{name}._domainkey.{domain}", "TXT"): [_public(2048)]
            for name in ("s", "l")
            for domain in ("faulty.test", "test")
        },
        refused=["dkim=pass"],
    ),
    "one that holds": Bomb(
        [r"dkim=pass\b.*header\.d=holds\.test", r"dmarc=pass\b.*header\.from=holds\.test"],
        lambda: _mail(_signed("ann@holds.test", "holds.test", "s", BODY), author="ann@holds.test"),
        {("s._domainkey.holds.test", "TXT"): [_public(2048)], ("_dmarc.holds.test", "TXT"): ["v=DMARC1; p=reject"]},
    ),
}


# ---- ARC: chains ----------------------------------------------------------------------------------------------------------


def _chain(domains: Sequence[str]) -> Iterator[str]:
    """One set of each of *domains*, newest first; nothing of it holds."""
    for number, domain in reversed(list(enumerate(domains, 1))):
        yield f"ARC-Seal: i={number}; a=rsa-sha256; cv={'pass' if number > 1 else 'none'}; d={domain}; s=s; b={JUNK}"
        message = _unsigned(domain, "s").partition("v=1; ")[2]
        yield f"ARC-Message-Signature: i={number}; {message}"
        yield f"ARC-Authentication-Results: i={number}; {domain}; dmarc=pass header.from=out.example"


def _keys(domains: Sequence[str], bits: int = 2048) -> Records:
    return {(f"s._domainkey.{domain}", "TXT"): [_public(bits)] for domain in domains}


HOPS = [f"hop{number}.test" for number in range(1, 51)]
ARC = {
    "two hundred sets": Bomb([r"arc=fail"], lambda: _mail(*_chain(["hop1.test"] * 200)), _keys(HOPS)),
    "fifty sets of one sealer": Bomb([r"arc=fail"], lambda: _mail(*_chain(["hop2.test"] * 50)), _keys(HOPS)),
    "fifty sets of fifty sealers": Bomb([r"arc=fail"], lambda: _mail(*_chain(HOPS)), _keys(HOPS)),
}


# ---- DMARC: names and records ---------------------------------------------------------------------------------------------

LONG = ".".join(["l"] * 100) + ".long.test"
SIGNERS = [f"{'s.' * 60}a{number}.worst.test" for number in range(8)]
WORST = "w." * 60 + "worst.test"


def _dmarc(name: str, records: Sequence[str], expected: str, **more: object) -> Bomb:
    return Bomb(
        [rf"dmarc={expected}\b"],
        lambda: _mail(author=f"ann@{name}"),
        {(f"_dmarc.{name}", "TXT"): records} if records else {},
        refused=[] if expected == "pass" else ["dmarc=pass"],
        **more,  # type: ignore[arg-type]
    )


DMARC = {
    "a hundred labels": _dmarc(LONG, [], "none"),
    "an alias of itself": _dmarc("itself.test", [], "temperror", faults={"_dmarc.itself.test": "loop"}),
    "64 KB of DMARC": _dmarc("huge.test", [], "none", faults={"_dmarc.huge.test": "huge"}),
    "twenty records": _dmarc(
        "records.test", [f"v=DMARC1; p=reject; sp={one}" for one in ("none", "reject")] * 10, "none"
    ),
    "all at once": Bomb(
        [r"arc=fail", r"dmarc=fail\b"],
        lambda: _mail(
            *(_signed(f"ann@{WORST}", one, "s", BODY, 1024) for one in SIGNERS),
            *_chain(HOPS[:6]),
            author=f"ann@{WORST}",
        ),
        {**_keys(SIGNERS, 1024), **_keys(HOPS), ("_dmarc.worst.test", "TXT"): ["v=DMARC1; p=none; adkim=r; np=reject"]},
    ),
}


# ---- Forged results -------------------------------------------------------------------------------------------------------


def forgeries(own: str) -> Iterator[str]:
    """Fields by which a stranger would have us, or our reader, believe that *own* (our name) has found `forged.example`."""
    claim = "dmarc=pass header.from=forged.example"
    for name in (
        "Authentication-Results",
        "AUTHENTICATION-RESULTS",
        "authentication-results ",
        "Authentication-Results\t",
    ):
        yield f"{name}: {own}; {claim}"
    yield f"Authentication-Results: {own.upper()} 1; {claim}"
    yield f"Authentication-Results:\r\n\t{own}\r\n ; {claim}"
    yield f"Authentication-Results: (a (nested) comment) {own} (another) ; {claim}"
    yield f'Authentication-Results: "{own}"; {claim}'
    yield f'Authentication-Results: {own}; {claim} reason="{"x" * 900}"' + "".join(
        f"\r\n {'y' * 900}" for _ in range(6)
    )
    yield f"X-Gatepost-Verdict: accept {claim}"
    yield f"x-gatepost-id : {claim}"


FORGED = {"forged results": Bomb([r"dmarc=none\b"], lambda: _mail(*forgeries("gw.peer.example")), refused=["forged"])}

SILENT = Bomb(
    [r"spf=temperror\b.*smtp\.mailfrom=\S*silent\.test", r"dkim=temperror\b", r"dmarc=temperror\b"],
    lambda: _mail(*(_unsigned("silent.test", f"s{number}") for number in range(8)), author="ann@silent.test"),
    faults={"silent.test": "silent"},
    sender="x@silent.test",
    helo="silent.test",
)
"""Nobody answers a question about it."""

ALL: Mapping[str, Bomb] = {**SPF, **DKIM, **ARC, **DMARC, **FORGED}

assert {fault for bomb in (*ALL.values(), SILENT) for fault in bomb.faults.values()} <= {*FAULTS, *HARMLESS}

"""Signatures of others: the examples of RFC 6376 and RFC 8463, and the messages that Mail::DKIM is tested with."""

import asyncio
import base64
import binascii
import hashlib
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from gateway.dkim import canonical, reading, tags
from gateway.dkim.checker import Checker
from gateway.model import Temporary
from gateway.pipeline.signed import Bodies, outermost, signatures
from gateway.stages import Content

SHARED = Path(os.environ.get("GATEPOST_SHARED", Path(__file__).parents[4] / "shared"))
SUITE = SHARED / "suites" / "dkim"
NOW = 1_800_000_000.0


class Zone:
    """A DNS of TXT records by name; a `Temporary` in place of a record is raised."""

    def __init__(self, records: dict[str, bytes | Temporary]) -> None:
        self.records = records

    async def txt(self, name: str) -> tuple[bytes, ...]:
        found = self.records.get(name)
        if isinstance(found, Temporary):
            raise found
        return () if found is None else (found,)


def results(message: bytes, zone: Zone) -> list[tuple[str, str]]:
    """Result and ground of each signature in *message*."""
    fields, start = outermost(message, Content.Settings())

    async def check() -> list[tuple[str, str]]:
        checked = [await Checker(zone).check(one, NOW) for one in signatures(fields, Bodies(message, start))]
        return [(one.result, one.why) for one in checked]

    return asyncio.run(check())


# --- RFC 6376, appendix A ------------------------------------------------------------------------------------------

RFC_6376 = b"""\
DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;
      c=simple/simple; q=dns/txt; i=joe@football.example.com;
      h=Received : From : To : Subject : Date : Message-ID;
      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
      b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB
        4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut
        KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV
        4bmp/YzhwvcubU4=;
Received: from client1.football.example.com  [192.0.2.1]
      by submitserver.example.com with SUBMISSION;
      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game. Are you hungry yet?

Joe.
""".replace(b"\n", b"\r\n")

RFC_6376_KEY = (
    b"v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYt"
    b"IxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhi"
    b"tdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB"
)


def test_the_example_of_rfc_6376_holds():
    zone = Zone({"brisbane._domainkey.example.com": RFC_6376_KEY})
    assert results(RFC_6376, zone) == [("pass", "")]
    assert results(RFC_6376.replace(b"Is dinner", b"is dinner"), zone)[0][0] == "fail"
    assert results(RFC_6376.replace(b"We lost", b"We  lost"), zone)[0][0] == "fail"


# --- RFC 8463, appendix A ------------------------------------------------------------------------------------------

RFC_8463 = b"""\
DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.

""".replace(b"\n", b"\r\n")

RFC_8463_KEYS = {
    "brisbane._domainkey.football.example.com": b"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "test._domainkey.football.example.com": (
        b"v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQi"
        b"Y/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kr"
        b"yOTIKT+l/K4w3QIDAQAB"
    ),
}


def test_the_two_signatures_of_rfc_8463_hold_and_each_for_itself():
    zone = Zone(dict(RFC_8463_KEYS))
    assert results(RFC_8463, zone) == [("pass", ""), ("pass", "")]
    assert [one for one, _ in results(RFC_8463.replace(b"dinner", b"lunch"), zone)] == ["fail", "fail"]
    added = b"From: x@attack.example\r\n" + RFC_8463
    assert [one for one, _ in results(added, zone)] == ["fail", "fail"]  # both sign From twice


# --- the messages of Mail::DKIM ------------------------------------------------------------------------------------

SHA_1, DRAFT = "it is made with SHA-1 (RFC 8301)", "its version is not 1"
NAMES = sorted(path.stem for path in (SUITE / "mail-dkim").glob("*.txt"))

EXPECTED = {
    "goodkey_ed25519": [("pass", "")],
    "badkey1_ed25519": [("permerror", "its key is no Ed25519 key")],
    "badkey2_ed25519": [("fail", "the signed header fields are not these, or the key is another")],
    "badkey3_ed25519": [("fail", "the body is not the signed one")],
    "badkey4_ed25519": [("permerror", "there is no key")],
    "badkey5_ed25519": [("permerror", "its key record cannot be read: a list of tags is malformed")],  # it is empty
    "badkey_11": [("permerror", "its key is not for SHA-256")],
    "multiple_1": [("permerror", DRAFT)] * 4,
    "multiple_2": [("permerror", SHA_1)] * 3 + [("permerror", "a list of tags is malformed")],
}
"""All others have no signature but a DomainKey-Signature (RFC 4870), one of a draft (no v=1), or one by SHA-1."""

DOMAIN_KEYS = {name for name in NAMES if name.startswith(("bad_dk_", "good_dk_", "dk_"))}
DRAFTS = {name for name in NAMES if "_ietf0" in name or name.startswith("no_body_")} | {
    "bad_1", *(f"badkey_{number}" for number in range(1, 8)), *(f"ignore_{number}" for number in range(1, 5)),
}  # fmt: skip


def zone_of_the_suite() -> Zone:
    records: dict[str, bytes | Temporary] = {}
    for line in (SUITE / "FAKE_DNS.dat").read_text().splitlines():
        name, _, text = line.partition(" ")
        if name and not name.startswith("#") and text != "NXDOMAIN":
            records[name] = Temporary("silence") if "~~" in text else text.strip().strip('"').encode()
    return Zone(records)


def message_of(name: str) -> bytes:
    octets = (SUITE / "mail-dkim" / f"{name}.txt").read_bytes()
    return octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def test_the_suite_of_mail_dkim_is_here():
    if not NAMES and not os.environ.get("CI"):
        pytest.skip("the outside suites are not here: set GATEPOST_SHARED")
    assert len(NAMES) == 79


@pytest.mark.parametrize("name", NAMES)
def test_a_message_of_mail_dkim_is_judged_as_expected(name):
    usual = [] if name in DOMAIN_KEYS else [("permerror", DRAFT if name in DRAFTS else SHA_1)]
    assert results(message_of(name), zone_of_the_suite()) == EXPECTED.get(name, usual)


HELD_THEN = [
    *(
        name
        for name in NAMES
        if name.startswith(("good_1", "good_8", "good_ietf01", "good_qp", "good_rfc", "mine_", "no_body_"))
    ),
    *(f"goodkey_{number}" for number in range(1, 5)),
    *(f"badkey_{number}" for number in range(8, 14)),  # the message is good, the record of the key is not
    *(f"ignore_{number}" for number in range(5, 9)),  # a tag is not as it ought to be
]
"""Messages whose signature held when SHA-1, small keys and drafts counted. (Those of the first draft hash otherwise.)"""

FAILED_THEN = [name for name in NAMES if name in {"bad_1", "bad_1878954"} or name.startswith("bad_ietf01")]


@pytest.mark.parametrize("name", HELD_THEN + FAILED_THEN)
def test_in_our_canonical_forms_the_old_signatures_hold_that_held_then(name, monkeypatch):
    assert held_then(name, monkeypatch) is (name in HELD_THEN)


def held_then(name: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the first signature of message *name* holds in our canonical forms, by the rules of its day."""
    message = message_of(name)
    fields, start = outermost(message, Content.Settings())
    own = next(field for field in fields if reading.name_of(field) == "dkim-signature")
    found = tags.parse(own.partition(b":")[2].removesuffix(b"\r\n"))
    sha_1 = found["a"] == "rsa-sha1"
    if sha_1:
        for module in (canonical, reading):
            monkeypatch.setattr(module, "hashlib", SimpleNamespace(sha256=hashlib.sha1))
    header, _, body = found.get("c", "simple").partition("/")
    bodies = Bodies(message, start)
    length = int(found["l"]) if "l" in found else None
    body_hash = bodies.digest(body == "relaxed", length)
    names = [one.strip() for one in found["h"].split(":")]
    digest = reading.header_digest(fields, names, own, header == "relaxed")
    record = zone_of_the_suite().records[f"{found['s']}._domainkey.{found['d']}"]
    key = load_der_public_key(binascii.a2b_base64(tags.parse(record)["p"]))
    try:
        key.verify(base64.b64decode(found["b"]), digest, PKCS1v15(), Prehashed(SHA1() if sha_1 else SHA256()))
    except InvalidSignature:
        return False
    return body_hash == binascii.a2b_base64(found["bh"])

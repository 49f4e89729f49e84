"""Signatures against published keys: what each record makes of a good one, and what the DNS may say or keep silent."""

import asyncio
import base64
import hashlib
from dataclasses import replace

import pytest

from gateway.dkim.checker import EARLY, Checker
from gateway.model import Checked, Oversized, Signature, Temporary
from tests.peers.signer import ed25519_key, record, rsa_key, signature

NOW = 1_800_000_000.0
NAME = "sel._domainkey.example.org"
DIGEST = hashlib.sha256(b"the signed fields").digest()


class Zone:
    """A DNS of TXT records that counts its questions."""

    def __init__(self, *records: bytes, error: Temporary | None = None) -> None:
        self.records, self.error, self.asked = records, error, []

    async def txt(self, name: str) -> tuple[bytes, ...]:
        self.asked.append(name)
        if self.error:
            raise self.error
        return self.records


def good(key=None, **changes) -> Signature:
    """A signature of DIGEST by *key* that holds."""
    key = key or rsa_key()
    algorithm = "ed25519-sha256" if key is ed25519_key() else "rsa-sha256"
    made = Signature(
        domain="example.org",
        selector="sel",
        algorithm=algorithm,
        identity="@example.org",
        value=base64.b64encode(signature(key, DIGEST)).decode(),
        digest=base64.b64encode(DIGEST).decode(),
    )
    return replace(made, **changes)


def checked(signature_: Signature, *records: bytes, error: Temporary | None = None) -> Checked:
    zone = Zone(*records, error=error)
    result = asyncio.run(Checker(zone).check(signature_, NOW))
    assert zone.asked in ([], [NAME])
    return result


@pytest.mark.parametrize(("key", "bits"), [(rsa_key, 1024), (ed25519_key, 256)])
def test_a_signature_that_holds_is_pass_with_the_size_of_its_key_and_its_record(key, bits):
    result = checked(good(key()), record(key()))
    assert (result.result, result.why, result.bits, result.testing) == ("pass", "", bits, False)
    assert result.fact == f"TXT {NAME}: {record(key()).decode()[:399]}" + "…" * (len(record(key())) > 400)


def test_a_partial_signature_is_checked_like_any_other():
    assert checked(good(partial=True), record(rsa_key())).result == "pass"


def test_a_fault_is_told_and_nobody_is_asked():
    zone = Zone()
    result = asyncio.run(Checker(zone).check(good(fault="its version is not 1"), NOW))
    assert (result.result, result.why, zone.asked) == ("permerror", "its version is not 1", [])


@pytest.mark.parametrize(
    ("changes", "result"),
    [
        ({"expires": int(NOW) - 1}, "fail"),
        ({"expires": int(NOW) + 1}, "pass"),
        ({"signed_at": int(NOW + EARLY) + 1}, "fail"),
        ({"signed_at": int(NOW + EARLY)}, "pass"),
        ({"broken": True}, "fail"),
        ({"digest": base64.b64encode(bytes(32)).decode()}, "fail"),
        ({"value": base64.b64encode(bytes(128)).decode()}, "fail"),
        ({"value": base64.b64encode(b"short").decode()}, "fail"),
        ({"algorithm": "ed25519-sha256"}, "permerror"),
        ({"identity": "@below.example.org"}, "pass"),
        ({"identity": ""}, "pass"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_times_body_digest_and_algorithm_have_to_be_right(changes, result):
    assert checked(good(**changes), record(rsa_key())).result == result


def test_a_key_may_forbid_signatures_for_domains_below():
    strict = record(rsa_key(), t="s")
    assert checked(good(), strict).result == "pass"
    assert checked(good(identity=""), strict).result == "pass"  # ARC has no i= of this kind
    assert checked(good(identity="@below.example.org"), strict).result == "permerror"


def test_an_owner_who_is_testing_is_told_whatever_comes_of_it():
    testing = record(rsa_key(), t="y")
    assert checked(good(), testing).testing
    assert checked(good(broken=True), testing).testing
    assert not checked(good(), record(rsa_key())).testing


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ([], "no key"),
        ([b"v=DKIM1; p="], "revoked"),
        ([b"v=spf1 -all"], "another version"),
        ([b"v=DKIM1; k=rsa; p=AAAA"], "no RSA key"),
        ([b"v=DKIM1; p=A"] * 20, "20 key records"),
    ],
)
def test_without_one_usable_key_it_is_permerror(records, why):
    result = checked(good(), *records)
    assert result.result == "permerror"
    assert why in result.why


def test_a_dns_that_cannot_tell_is_temperror_but_not_where_the_body_settles_it():
    result = checked(good(), error=Temporary("no name server answered"))
    assert (result.result, result.why) == ("temperror", "its key cannot be asked for: no name server answered")
    assert checked(good(broken=True), error=Temporary("x")).result == "fail"


def test_a_stranger_s_record_is_evidence_without_control_characters():
    result = checked(good(), b"v=DKIM1; p=\r\n\x1b[2J" + b"x" * 4000)
    assert result.result == "permerror"
    assert result.fact.isprintable()
    assert len(result.fact) < 500


def test_of_several_records_the_one_that_fits_counts_whatever_their_order():
    good_one, others = record(rsa_key()), (b"v=spf1 -all", b"v=DKIM1; p=", record(ed25519_key()))
    for records in ((good_one, *others), (*others, good_one)):
        assert checked(good(), *records).result == "pass"
    assert checked(good(digest=base64.b64encode(bytes(32)).decode()), good_one, *others).result == "fail"
    assert checked(good(), *others).result == "permerror"


def test_an_answer_that_is_too_large_is_no_key():
    result = checked(good(), error=Oversized("the answer has more than 16 KB"))
    assert (result.result, result.fact) == ("permerror", f"TXT {NAME}: too large")

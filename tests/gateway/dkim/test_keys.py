"""Key records: what is a key, what is none, and that keys made to keep us busy are not computed with."""

import base64
import hashlib
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from gateway.dkim import keys
from gateway.dkim.keys import Unusable, parse
from tests.peers.signer import ed25519_key, record, rsa_key, signature


def tlv(tag: int, octets: bytes) -> bytes:
    """One element in DER."""
    size = len(octets)
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag]) + (bytes([size]) if size < 128 else bytes([0x80 | len(length)]) + length) + octets


def integer(number: int) -> bytes:
    return tlv(2, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def rsa_record(modulus: int, exponent: int) -> bytes:
    """A bare key as PKCS#1 has it; nobody has to know its factors."""
    return b"v=DKIM1; p=" + base64.b64encode(tlv(0x30, integer(modulus) + integer(exponent)))


def spki(public) -> bytes:
    return b"p=" + base64.b64encode(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def good() -> str:
    """What stands in the p= of a key that may be used."""
    return record(rsa_key()).partition(b"p=")[2].decode()


def modulus() -> int:
    return rsa_key().public_key().public_numbers().n


def test_a_key_is_read_in_both_forms_in_which_it_is_published():
    assert parse(record(rsa_key())).public == parse(rsa_record(modulus(), 65537)).public == rsa_key().public_key()


@pytest.mark.parametrize(
    ("text", "testing", "same_domain"),
    [
        ("p={key}", False, False),
        ("v=DKIM1; k=rsa; s=*; h=sha1:sha256; n=a note; x9=?; g=*; p={key};", False, False),
        ("v=DKIM1; s = web : email; t = y : s : more; p={key:.30} {rest}", True, True),
        ("v=DKIM1; t=y; p={key}", True, False),
        ("v=DKIM1; t=s; p={key}", False, True),
    ],
)
def test_the_other_tags_are_understood_and_unknown_ones_passed_over(text, testing, same_domain):
    key = parse(text.format(key=good(), rest=good()[30:]).encode())
    assert (key.algorithm, key.bits, key.testing, key.same_domain) == ("rsa-sha256", 1024, testing, same_domain)


def test_a_key_for_ed25519_is_32_octets():
    assert (parse(record(ed25519_key())).algorithm, parse(record(ed25519_key())).bits) == ("ed25519-sha256", 256)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "cannot be read"),
        (b"v=spf1 -all", "another version"),
        (b"v=DKIM1; p=" + b"A" * (64 << 10), "too large"),
        (b"any text", "cannot be read"),
        (b"v=DKIM1; p=\xff", "cannot be read"),
        (b"v=DKIM1; p=a; p=b", "cannot be read"),
        (b"v=DKIM1; t; p={key}", "cannot be read"),
        (b"v=DKIM2; p={key}", "another version"),
        (b"v=dkim1; p={key}", "another version"),
        (b"p={key}; v=DKIM1", "another version"),
        (b"v=DKIM1; k=dsa; p={key}", "not known"),
        (b"v=DKIM1; k=ed25519; p={key}", "no Ed25519 key"),
        (b"v=DKIM1; k=ed25519; p=" + base64.b64encode(bytes(31)), "no Ed25519 key"),
        (b"v=DKIM1; s=tlsrpt; p={key}", "not for mail"),
        (b"v=DKIM1; s=; p={key}", "not for mail"),
        (b"v=DKIM1; h=sha1; p={key}", "not for SHA-256"),
        (b"v=DKIM1; p=", "revoked"),
        (b"v=DKIM1; p= \t", "revoked"),
        (b"v=DKIM1; k=rsa", "no key"),
        (b"v=DKIM1; p=*", "not base64"),
        (b"v=DKIM1; p={key}A", "not base64"),
        (b"v=DKIM1; p=" + base64.b64encode(bytes(32)), "no RSA key"),
    ],
    ids=lambda value: repr(value[:40]),
)
def test_what_is_no_key_says_why(text, why):
    with pytest.raises(Unusable, match=why):
        parse(text.replace(b"{key}", good().encode()))


@pytest.mark.parametrize("private", [ec.generate_private_key(ec.SECP256R1()), ed25519_key()], ids=["ECDSA", "Ed25519"])
def test_a_key_of_another_kind_is_no_rsa_key(private):
    with pytest.raises(Unusable, match="no RSA key"):
        parse(spki(private.public_key()))


@pytest.mark.parametrize(
    ("bits", "exponent", "why"),
    [
        (512, 65537, "has 512 bits"),
        (768, 65537, "has 768 bits"),
        (1023, 65537, "has 1023 bits"),
        (4097, 65537, "has 4097 bits"),
        (22001, 3, "has 22001 bits"),
        (32768, 3, "too large"),
        (2048, 1, "no RSA key"),
        (2048, 0, "no RSA key"),
        (2048, 65536, "no RSA key"),
        (2048, 2**33 + 1, "exponent"),
        (2048, 2**2000 + 1, "exponent"),
        (1024, 2**2000 + 1, "no RSA key"),
    ],
)
def test_rsa_keys_of_other_sizes_cost_nothing(bits, exponent, why):
    octets, began = rsa_record(2 ** (bits - 1) + 111, exponent), time.process_time()
    with pytest.raises(Unusable, match=why):
        parse(octets)
    assert time.process_time() - began < 0.05


@pytest.mark.parametrize("exponent", [3, 17, 65537, 2**32 + 15])
def test_usual_exponents_are_taken(exponent):
    assert parse(rsa_record(modulus(), exponent)).bits == 1024


def test_the_slowest_key_that_is_taken_is_quick():
    key, began = parse(rsa_record(2**4096 - 111, 2**33 - 1)), time.process_time()
    for _ in range(8):
        assert not key.verifies(bytes(511) + b"\2", bytes(32))
    assert time.process_time() - began < 0.1


def test_a_signature_holds_for_its_digest_and_key_only():
    for private in (rsa_key(), ed25519_key()):
        key, digest = parse(record(private)), hashlib.sha256(b"x").digest()
        value = signature(private, digest)
        assert key.verifies(value, digest)
        assert not key.verifies(value, hashlib.sha256(b"y").digest())
        assert not key.verifies(value[:-1] + bytes([value[-1] ^ 1]), digest)
        for odd in (b"", value[:-1], value + b"\0", bytes(600)):
            assert not key.verifies(odd, digest)


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=100).map(lambda octets: b"p=" + base64.b64encode(octets))))
def test_any_octets_are_a_key_or_unusable(octets):
    try:
        bits = parse(octets).bits
    except Unusable:
        return
    assert keys.MIN_BITS <= bits <= keys.MAX_BITS or bits == 256

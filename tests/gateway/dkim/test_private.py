"""Private keys: what is made can be read, others can check what it signs, and what is no key of ours is told."""

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from gateway.dkim import keys, private
from gateway.model import Permanent

DIGEST = hashlib.sha256(b"signed").digest()


def pem(key, password=None) -> bytes:
    kind = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, kind)


@pytest.mark.parametrize(("kind", "bits"), [("rsa", 2048), ("ed25519", 256)])
def test_what_a_key_signs_holds_by_the_record_that_it_publishes(kind, bits):
    key = private.read(private.new(kind, bits))
    assert (key.kind, key.bits, key.algorithm) == (kind, bits, f"{kind}-sha256")
    published = keys.parse(key.record.encode())
    assert (published.algorithm, published.bits) == (key.algorithm, bits)
    assert published.verifies(key.sign(DIGEST), DIGEST)
    assert not published.verifies(key.sign(DIGEST), hashlib.sha256(b"another").digest())


def test_keys_differ_and_show_nothing_of_themselves():
    one, other = private.read(private.new("ed25519")), private.read(private.new("ed25519"))
    assert one.public != other.public
    assert one.sign(DIGEST) != other.sign(DIGEST)
    assert "sign" not in repr(one)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n",
        private.new("ed25519")[:60],
        pem(rsa.generate_private_key(65537, 1024), b"password"),
    ],
    ids=["empty", "nonsense", "half", "password"],
)
def test_what_is_no_key_is_told(content):
    with pytest.raises(Permanent, match="holds no private key"):
        private.read(content)


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP256R1()), ed448.Ed448PrivateKey.generate()], ids=["elliptic", "ed448"]
)
def test_a_key_of_another_kind_is_told(key):
    with pytest.raises(Permanent, match="neither ed25519 nor RSA of 1024 to 4096 bits"):
        private.read(pem(key))


def test_an_rsa_key_that_is_too_small_or_too_large_is_told(monkeypatch):
    made = private.new("rsa", 1024)
    monkeypatch.setattr(private, "FEWEST_BITS", 1025)
    with pytest.raises(Permanent, match="RSA of 1025 to"):
        private.read(made)
    monkeypatch.setattr(private, "FEWEST_BITS", 512)
    monkeypatch.setattr(private, "MOST_BITS", 1023)
    with pytest.raises(Permanent, match="to 1023 bits"):
        private.read(made)


def test_keys_of_other_programs_are_taken_in_their_forms():
    made = rsa.generate_private_key(65537, 1024)
    old = made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    assert old.startswith(b"-----BEGIN RSA PRIVATE KEY-----")
    assert private.converted(old) == private.converted(pem(made)) == pem(made)
    made = ed25519.Ed25519PrivateKey.generate()
    seed, public = made.private_bytes_raw(), made.public_key().public_bytes_raw()
    for octets in (seed, seed + public):
        assert private.converted(base64.encodebytes(octets)) == pem(made)


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"", "neither a key in PEM nor"),
        (base64.b64encode(b"x" * 33), "neither a key in PEM nor"),
        (base64.b64encode(b"x" * 64), "two halves"),
        (b"nonsense!", "holds no private key"),
    ],
)
def test_what_is_no_key_of_another_program_is_told(octets, why):
    with pytest.raises(Permanent, match=why):
        private.converted(octets)

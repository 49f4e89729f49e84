"""The ciphers of documents give what their specifications say, for keys of every length that documents have."""

import hashlib

import pytest

from filters import _ciphers as ciphers


@pytest.mark.parametrize(
    ("key", "clear", "packed"),  # RFC 6229 has keys of these lengths; the texts are those of the first publication
    [
        (b"Key", b"Plaintext", "bbf316e8d940af0ad3"),
        (b"Wiki", b"pedia", "1021bf0420"),
        (b"Secret", b"Attack at dawn", "45a01f645fc35b383552544b9bf5"),
        (bytes.fromhex("0102030405"), bytes(16), "b2396305f03dc027ccc3524a0a1118a8"),
        (bytes.fromhex("0102030405060708090a0b0c0d0e0f10"), bytes(16), "9ac7cc9a609d1ef7b2932899cde41b97"),
    ],
)
def test_rc4_is_as_published_and_its_own_inverse(key: bytes, clear: bytes, packed: str) -> None:
    assert ciphers.rc4(key, clear).hex() == packed
    assert ciphers.rc4(key, bytes.fromhex(packed)) == clear


KEY = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
VECTOR = bytes(range(16))
CLEAR = bytes.fromhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51")


def test_aes_is_that_of_sp_800_38a() -> None:
    chained = bytes.fromhex("7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2")
    alone = bytes.fromhex("3ad77bb40d7a3660a89ecaf32466ef97f5d3d58503b9699de785895a96fdbaaf")
    assert ciphers.encrypted_cbc(KEY, VECTOR, CLEAR) == chained  # F.2.1
    assert ciphers.cbc(KEY, VECTOR, chained) == CLEAR  # F.2.2
    assert ciphers.ecb(KEY, alone) == CLEAR  # F.1.2


def test_of_a_block_that_breaks_off_nothing_is_given() -> None:
    assert ciphers.cbc(KEY, VECTOR, CLEAR[:-1]) == ciphers.cbc(KEY, VECTOR, CLEAR[:16])
    assert ciphers.ecb(KEY, CLEAR[:15]) == b""
    assert ciphers.encrypted_cbc(KEY, VECTOR, b"") == b""


@pytest.mark.parametrize("size", [0, 1, 15, 17, 33])
def test_keys_and_vectors_of_no_length_that_there_is_are_a_value_error(size: int) -> None:
    with pytest.raises(ValueError):
        ciphers.cbc(bytes(size), VECTOR, CLEAR)
    with pytest.raises(ValueError):
        ciphers.cbc(KEY, bytes(size), CLEAR)
    with pytest.raises(ValueError):
        ciphers.ecb(bytes(size), CLEAR)


def test_rc4_has_no_empty_key() -> None:
    with pytest.raises(ValueError):
        ciphers.rc4(b"", b"x")


@pytest.mark.parametrize("name", ["md5", "sha1", "sha256", "sha384", "sha512"])
def test_hashes_are_those_of_their_names(name: str) -> None:
    assert ciphers.digest(name, b"abc") == hashlib.new(name, b"abc").digest()

"""The ciphers and hashes that office documents and PDFs are locked with. Old ones too: it is not we who chose them.

Nothing is kept secret here, and nothing that is encrypted is trusted for it.
"""

from __future__ import annotations

import hashlib

from cryptography.hazmat.decrepit.ciphers.algorithms import ARC4
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB

BLOCK = 16
"""Octets of a block of AES."""


def digest(algorithm: str, octets: bytes) -> bytes:
    """The hash of *octets*, by the name that hashlib has for *algorithm*."""
    return hashlib.new(algorithm, octets, usedforsecurity=False).digest()


def cbc(key: bytes, vector: bytes, octets: bytes) -> bytes:
    """Whole blocks of *octets*, decrypted. ValueError for a key or a vector of no length that there is."""
    return Cipher(AES(key), CBC(vector)).decryptor().update(octets[: len(octets) // BLOCK * BLOCK])


def encrypted_cbc(key: bytes, vector: bytes, octets: bytes) -> bytes:
    """Whole blocks of *octets*, encrypted."""
    return Cipher(AES(key), CBC(vector)).encryptor().update(octets[: len(octets) // BLOCK * BLOCK])


def ecb(key: bytes, octets: bytes) -> bytes:
    """Whole blocks of *octets*, decrypted each by itself."""
    whole = octets[: len(octets) // BLOCK * BLOCK]
    return Cipher(AES(key), ECB()).decryptor().update(whole)  # noqa: S305  see above


def rc4(key: bytes, octets: bytes) -> bytes:
    """*octets*, encrypted or decrypted. ValueError for an empty key."""
    if not key:
        raise ValueError("no key")
    cipher = ARC4(bytes(BLOCK))
    cipher.key = key  # any number of octets, as PDFs have them; the constructor takes but a few
    return Cipher(cipher, None).decryptor().update(octets)


def prepare() -> None:
    """Have each load what it loads when it is used first, which cannot be loaded in confinement."""
    nothing = bytes(BLOCK)
    ecb(nothing, cbc(nothing, nothing, encrypted_cbc(nothing, nothing, rc4(nothing, nothing))))
    for algorithm in ("md5", "sha1", "sha256", "sha384", "sha512"):
        digest(algorithm, nothing)

"""The keys that domains publish (RFC 6376 3.6.1, RFC 8463), and signatures checked with them.

Rule: what a key is made of is looked at before anything is computed with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from gateway.dkim import tags

MAX_RECORD = 4096
"""Octets of a key record."""

MIN_BITS, MAX_BITS = 1024, 4096
"""Bits of an RSA key (RFC 8301 3.2)."""

MIN_EXPONENT, MAX_EXPONENT = 3, 2**33
"""Between these lies the public exponent of an RSA key: the larger, the longer each check takes."""

_SCHEME = PKCS1v15(), Prehashed(SHA256())


class Unusable(ValueError):
    """There is no key in the record. The text says why, in our words."""


@dataclass(frozen=True, slots=True)
class Key:
    """A public key of `bits` bits, as its record gives it.

    `testing` is t=y; with `same_domain` (t=s) it signs for its own domain only, not for those below.
    """

    public: RSAPublicKey | Ed25519PublicKey
    bits: int
    testing: bool = False
    same_domain: bool = False

    @property
    def algorithm(self) -> str:
        """The a= of the signatures that it makes."""
        return "rsa-sha256" if isinstance(self.public, RSAPublicKey) else "ed25519-sha256"

    def verifies(self, value: bytes, digest: bytes) -> bool:
        """Whether *value* is this key's signature of the SHA-256 *digest*."""
        try:
            if isinstance(self.public, RSAPublicKey):
                self.public.verify(value, digest, *_SCHEME)
            else:
                self.public.verify(value, digest)  # RFC 8463 3: what is signed is the digest itself
        except InvalidSignature:
            return False
        return True


def parse(record: bytes) -> Key:
    """The key in a TXT *record*; `Unusable` where there is none, or none that may be used."""
    if len(record) > MAX_RECORD:
        raise Unusable("its key record is too large")
    try:
        found = tags.parse(record)
    except tags.Malformed as error:
        raise Unusable(f"its key record cannot be read: {error}") from None
    _check_use(found)
    octets = _octets(found)
    flags = _list(found, "t", "")
    public, bits = _ed25519(octets) if found.get("k") == "ed25519" else _rsa(octets)
    return Key(public, bits, "y" in flags, "s" in flags)


def _check_use(found: Mapping[str, str]) -> None:
    """Whether the record is of this version, and its key for mail, for SHA-256, and of a kind that we know."""
    if "v" in found and (found["v"] != "DKIM1" or next(iter(found)) != "v"):
        raise Unusable("its key record is of another version")
    if found.get("k", "rsa") not in {"rsa", "ed25519"}:
        raise Unusable("its key is of a kind that is not known")
    if not {"*", "email"} & _list(found, "s", "*"):
        raise Unusable("its key is not for mail")
    if "sha256" not in _list(found, "h", "sha256"):
        raise Unusable("its key is not for SHA-256")


def _list(found: Mapping[str, str], name: str, default: str) -> set[str]:
    return {item.strip(" \t") for item in found.get(name, default).split(":")}


def _octets(found: Mapping[str, str]) -> bytes:
    if "p" not in found:
        raise Unusable("its key record holds no key")
    if not found["p"]:
        raise Unusable("its key is revoked")
    try:
        return tags.octets(found["p"])
    except ValueError:
        raise Unusable("its key is not base64") from None


def _ed25519(octets: bytes) -> tuple[Ed25519PublicKey, int]:
    try:
        return Ed25519PublicKey.from_public_bytes(octets), 256
    except ValueError:
        raise Unusable("its key is no Ed25519 key") from None


def _rsa(octets: bytes) -> tuple[RSAPublicKey, int]:
    """An RSA key in a SubjectPublicKeyInfo, or bare as PKCS#1 has it: both are published (RFC 6376, erratum 3017)."""
    try:
        public = load_der_public_key(octets)
    except (ValueError, UnsupportedAlgorithm):
        raise Unusable("its key is no RSA key") from None
    if not isinstance(public, RSAPublicKey):
        raise Unusable("its key is no RSA key")
    if not MIN_BITS <= public.key_size <= MAX_BITS:
        raise Unusable(f"its RSA key has {public.key_size} bits, not {MIN_BITS} to {MAX_BITS}")
    if not MIN_EXPONENT <= public.public_numbers().e < MAX_EXPONENT:
        raise Unusable("its RSA key has an exponent that is too large")
    return public, public.key_size

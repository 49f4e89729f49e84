"""Private keys: made, read, and signed with (RFC 6376 3.3, RFC 8463). No key is ever shown.

`cryptography` is imported where a key is made or read: a gateway that signs nothing does without it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from gateway.model import Permanent

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

KeyType = Literal["rsa", "ed25519"]
"""As k= in a key record says it."""

BITS = (2048, 3072, 4096)
"""The sizes of RSA keys that we make: smaller ones are no longer trusted, larger ones need not be (RFC 8301 3.2)."""
FEWEST_BITS = 1024
MOST_BITS = 4096
MAX_FILE = 64 << 10
"""Octets of a file with a key."""


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A key that signs. `public` is what p= of its record says, in base64; `sign` makes a signature of a SHA-256."""

    kind: KeyType
    bits: int
    public: str
    sign: Callable[[bytes], bytes] = field(repr=False, compare=False)

    @property
    def algorithm(self) -> str:
        """What a= of its signatures says."""
        return f"{self.kind}-sha256"

    @property
    def record(self) -> str:
        """The text of the TXT record that lets others check its signatures (RFC 6376 3.6.1)."""
        return f"v=DKIM1; k={self.kind}; h=sha256; p={self.public}"


def new(kind: KeyType, bits: int = BITS[0]) -> bytes:
    """A new key, as PEM."""
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa  # noqa: PLC0415 - see above

    return _pem(
        ed25519.Ed25519PrivateKey.generate()
        if kind == "ed25519"
        else rsa.generate_private_key(public_exponent=65537, key_size=bits)
    )


def read(pem: bytes) -> PrivateKey:
    """The key in *pem*; `Permanent` where it is none that we can sign with."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - see above
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa  # noqa: PLC0415

    try:
        found = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Permanent("holds no private key in PEM without a password") from None
    if isinstance(found, ed25519.Ed25519PrivateKey):
        return _ed25519(found)
    if isinstance(found, rsa.RSAPrivateKey) and FEWEST_BITS <= found.key_size <= MOST_BITS:
        return _rsa(found)
    raise Permanent(f"holds a key that is neither ed25519 nor RSA of {FEWEST_BITS} to {MOST_BITS} bits")


def converted(octets: bytes) -> bytes:
    """A key that another program made, as we keep it; `Permanent` where it is none that we can sign with.

    It is PEM (PKCS #1 or #8), or base64 of an ed25519 key: its seed, or the seed and the public key, as rspamd writes.
    """
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - see above
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415

    with suppress(ValueError):
        bare = base64.b64decode(b"".join(octets.split()), validate=True)
        if len(bare) not in {32, 64}:
            raise Permanent("holds neither a key in PEM nor the 32 or 64 octets of an ed25519 key in base64")
        found = ed25519.Ed25519PrivateKey.from_private_bytes(bare[:32])
        if bare[32:] not in {b"", found.public_key().public_bytes_raw()}:
            raise Permanent("holds an ed25519 key whose two halves do not belong together")
        octets = _pem(found)
    read(octets)
    return _pem(serialization.load_pem_private_key(octets, password=None))


def _pem(key: PrivateKeyTypes) -> bytes:
    """PKCS #8, not encrypted: the gateway has to read it with nobody at hand."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - see above

    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _rsa(key: RSAPrivateKey) -> PrivateKey:
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415 - see above
    from cryptography.hazmat.primitives.asymmetric import padding  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.utils import Prehashed  # noqa: PLC0415

    form, hashed = padding.PKCS1v15(), Prehashed(hashes.SHA256())
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return PrivateKey("rsa", key.key_size, _base64(public), lambda digest: key.sign(digest, form, hashed))


def _ed25519(key: Ed25519PrivateKey) -> PrivateKey:
    """Its signatures are of the SHA-256 itself, and its record has the bare 32 octets (RFC 8463 3, 4)."""
    return PrivateKey("ed25519", 256, _base64(key.public_key().public_bytes_raw()), key.sign)


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()

"""A signer that puts any tags into a DKIM-Signature and signs them in earnest, with dkimpy's canonical forms.

So a hostile signature differs from a good one by what is hostile in it, and by nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from dkim.canonicalization import Relaxed, Simple

FORMS = {"relaxed": Relaxed, "simple": Simple}


@cache
def rsa_key(bits: int = 1024) -> rsa.RSAPrivateKey:
    """One key of each size: making them takes long."""
    return rsa.generate_private_key(65537, bits)


@cache
def ed25519_key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def record(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey, **tags: str) -> bytes:
    """The key record of *key*, with *tags* before its p=."""
    if isinstance(key, rsa.RSAPrivateKey):
        public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    else:
        tags = {"k": "ed25519", **tags}
        public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    text = "; ".join(f"{name}={value}" for name, value in {"v": "DKIM1", **tags}.items())
    return f"{text}; p={base64.b64encode(public).decode()}".encode()


def signed(
    message: bytes, key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | None = None, **tags: str | None
) -> bytes:
    """*message* with a DKIM-Signature on top: the usual tags, changed as *tags* say; None leaves one out."""
    key = key or rsa_key()
    block, _, body = message.partition(b"\r\n\r\n")
    fields = [(name, value + b"\r\n") for name, _, value in (line.partition(b":") for line in _unfolded(block))]
    algorithm = "rsa-sha256" if isinstance(key, rsa.RSAPrivateKey) else "ed25519-sha256"
    usual = {"v": "1", "a": algorithm, "c": "relaxed/relaxed", "d": "example.org", "s": "sel", "h": "from:subject"}
    wanted = {**usual, **tags}
    form = [FORMS.get(one, Simple) for one in f"{wanted['c'] or 'simple'}/simple".split("/")]
    canonical = form[1].canonicalize_body(body)[: int(tags["l"]) if (tags.get("l") or "").isdigit() else None]
    wanted = {"bh": base64.b64encode(hashlib.sha256(canonical).digest()).decode(), **wanted}
    wanted = {name: wanted[name] for name in wanted if name != "b"} | {"b": ""}
    text = "; ".join(f"{name}={value}" for name, value in wanted.items() if value is not None).encode()
    digest = hashlib.sha256()
    for name in (wanted["h"] or "").split(":"):
        _add(digest, fields, name.strip().lower().encode(), form[0])
    ((own, value),) = form[0].canonicalize_headers([(b"DKIM-Signature", b" " + text + b"\r\n")])
    digest.update(own + b":" + value.removesuffix(b"\r\n"))
    value = tags.get("b") or base64.b64encode(signature(key, digest.digest())).decode()
    return b"DKIM-Signature: " + text + value.encode() + b"\r\n" + message


def _unfolded(block: bytes) -> list[bytes]:
    fields: list[bytes] = []
    for line in block.split(b"\r\n"):
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1] += b"\r\n" + line
        else:
            fields.append(line)
    return fields


def _add(digest: hashlib._Hash, fields: list[tuple[bytes, bytes]], wanted: bytes, form: type) -> None:
    for index in range(len(fields) - 1, -1, -1):
        if fields[index][0].strip().lower() == wanted:
            ((name, value),) = form.canonicalize_headers([fields.pop(index)])
            digest.update(name + b":" + value)
            return


def signature(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey, digest: bytes) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(digest, padding.PKCS1v15(), utils.Prehashed(SHA256()))
    return key.sign(digest)

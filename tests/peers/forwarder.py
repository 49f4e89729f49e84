"""A forwarder that puts any ARC set on a mail and seals it in earnest (RFC 8617).

Its fields, and those of the mail, stand on one line each with single spaces: their canonical form can be seen at once.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"a key for tests").digest())
RECORD = b"v=DKIM1; k=ed25519; p=" + base64.b64encode(KEY.public_key().public_bytes_raw())
"""The key of all forwarders, as s._domainkey.<domain> has to give it."""


@dataclass
class Forwarder:
    """What `domain` puts on top of a mail that it passes on: a set with *tags* of one's own; "-" leaves a tag out."""

    domain: str
    results: str = "dmarc=pass header.from=author.test"
    names: str = "from:to:subject"
    message_tags: Mapping[str, str] = field(default_factory=dict)
    seal_tags: Mapping[str, str] = field(default_factory=dict)

    def passes_on(self, message: bytes) -> bytes:
        """*message* with one more set on top."""
        head, _, body = message.partition(b"\r\n\r\n")
        fields = [line.split(b": ", 1) for line in head.split(b"\r\n")]
        sets = [one for one in fields if one[0].startswith(b"ARC-")]
        number = len(sets) // 3 + 1
        words = [b"ARC-Authentication-Results", f"i={number}; {self.domain}; {self.results}".encode()]
        last = {name.lower(): b"%s:%s\r\n" % (name.lower(), value) for name, value in fields}
        signed = b"".join(last.get(name.encode(), b"") for name in self.names.split(":"))
        body_hash = base64.b64encode(hashlib.sha256(body).digest()).decode()
        about = {"i": str(number), "a": "ed25519-sha256", "c": "relaxed/relaxed", "d": self.domain, "s": "s"}
        about |= {"h": self.names, "bh": body_hash, **self.message_tags}
        mine = self._signed(b"ARC-Message-Signature", about, signed)
        older = [*sets[::-1], words, mine]
        about = {"i": str(number), "a": "ed25519-sha256", "d": self.domain, "s": "s"}
        about |= {"cv": "pass" if number > 1 else "none", **self.seal_tags}
        covered = b"".join(b"%s:%s\r\n" % (name.lower(), value) for name, value in older)
        new = [self._signed(b"ARC-Seal", about, covered), mine, words]
        return b"".join(b"%s: %s\r\n" % (name, value) for name, value in new) + message

    def _signed(self, name: bytes, about: Mapping[str, str], covered: bytes) -> list[bytes]:
        value = "; ".join(f"{tag}={text}" for tag, text in about.items() if text != "-").encode() + b"; b="
        digest = hashlib.sha256(covered + name.lower() + b":" + value).digest()
        return [name, value + base64.b64encode(KEY.sign(digest))]

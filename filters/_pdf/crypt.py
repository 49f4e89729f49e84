"""Encrypted PDFs that open without asking (ISO 32000-1, 7.6; ISO 32000-2, 7.6.4): the password is empty, as it is where
somebody only wants to forbid printing, or a word of the mail.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from filters._ciphers import BLOCK, cbc, digest, encrypted_cbc, rc4
from filters._pdf.lexer import Name, Value, number

MAX_TRIED = 20
"""Words of the mail that are tried on one lock."""

_PAD = bytes.fromhex("28bf4e5e4e758a4164004e56fffa01082e2e00b6d0683e802f0ca9fe6453697a")
_MARKS = (b"\xfe\xff", b"\xff\xfe", b"\xef\xbb\xbf")
_PRINTABLE = bytes({*range(32, 127), 9, 10, 13})
_HASHES = ("sha256", "sha384", "sha512")


@dataclass(frozen=True, slots=True)
class Key:
    """What opens strings and streams. `in_mail` says that its password stands in the mail.

    `strings` and `streams` name the cipher of each: "V2" is RC4, "AESV2" and "AESV3" are AES, "" is none.
    """

    octets: bytes
    strings: str
    streams: str
    in_mail: bool = False

    def string(self, octets: bytes, place: tuple[int, int]) -> bytes:
        """The string *octets* of the object whose number and generation are *place*."""
        clear = self._clear(self.strings, octets, place)
        return clear[: -clear[-1]] if self.strings.startswith("AES") and clear and 0 < clear[-1] <= BLOCK else clear

    def stream(self, octets: bytes, place: tuple[int, int]) -> bytes:
        """The stream *octets* of that object; behind its end there may be some that are none of it."""
        return self._clear(self.streams, octets, place)

    def _clear(self, cipher: str, octets: bytes, place: tuple[int, int]) -> bytes:
        if cipher == "V2":
            return rc4(self._of(place, b""), octets)
        if not cipher or len(octets) < 2 * BLOCK:
            return octets
        key = self.octets if cipher == "AESV3" else self._of(place, b"sAlT")
        return cbc(key, octets[:BLOCK], octets[BLOCK:])

    def _of(self, place: tuple[int, int], salt: bytes) -> bytes:
        """Algorithm 1: each object has a key of its own."""
        object_, generation = (struct.pack("<I", one & 0xFFFFFFFF) for one in place)
        return digest("md5", self.octets + object_[:3] + generation[:2] + salt)[: min(len(self.octets) + 5, 16)]


def key(lock: Mapping[str, Value], identifier: bytes, words: Iterable[bytes]) -> Key | None:
    """What opens *lock*, the dictionary of the encryption, in a file with that *identifier*; None for nothing."""
    tried = (b"", *[word for word, _ in zip(words, range(MAX_TRIED), strict=False)])
    revision = number(lock.get("R"))
    if lock.get("Filter") != "Standard" or not 2 <= revision <= 6:
        return None
    for password in tried:
        try:
            octets = _new(lock, password) if revision > 4 else _old(lock, password, identifier)
        except ValueError:  # keys and vectors of no length that there is
            return None
        if octets:
            return _usable(Key(octets, _cipher(lock, "StrF"), _cipher(lock, "StmF"), bool(password)))
    return None


def _usable(found: Key) -> Key | None:
    """*found*, unless its length is one that no cipher here takes."""
    try:
        found.stream(found.string(bytes(3 * BLOCK), (1, 0)), (1, 0))
    except ValueError:
        return None
    return found


def is_text(octets: bytes) -> bool:
    """Whether *octets* may be a string that nobody has encrypted."""
    return octets.startswith(_MARKS) or not octets.translate(None, _PRINTABLE)


def _cipher(lock: Mapping[str, Value], name: str) -> str:
    """The cipher of strings or of streams (7.6.5)."""
    if number(lock.get("V")) < 4:
        return "V2"
    filters, chosen = lock.get("CF"), lock.get(name)
    found = filters.get(chosen) if isinstance(filters, dict) and isinstance(chosen, Name) else None
    method = found.get("CFM") if isinstance(found, dict) else None
    return str(method) if method in ("V2", "AESV2", "AESV3") else ""


def _string(lock: Mapping[str, Value], name: str) -> bytes:
    value = lock.get(name)
    return value if isinstance(value, bytes) else b""


def _old(lock: Mapping[str, Value], password: bytes, identifier: bytes) -> bytes:
    """Algorithms 2, 4 and 5: RC4, or AES with 128 bits; b"" where *password* is not the one."""
    revision = number(lock.get("R"))
    size = 5 if revision == 2 else min(16, number(lock.get("Length")) // 8 or (16 if revision == 4 else 5))
    permissions = struct.pack("<I", int(_string(lock, "P") or b"0") & 0xFFFFFFFF)
    unclear = revision >= 4 and _string(lock, "EncryptMetadata") == b"false"
    seed = (password + _PAD)[:32] + _string(lock, "O")[:32] + permissions + identifier + b"\xff" * 4 * unclear
    octets = digest("md5", seed)
    for _ in range(50 if revision > 2 else 0):
        octets = digest("md5", octets[:size])
    octets = octets[:size]
    return octets if _proof(octets, identifier, revision) == _string(lock, "U")[: 32 if revision == 2 else 16] else b""


def _proof(octets: bytes, identifier: bytes, revision: int) -> bytes:
    """What the entry U begins with, if *octets* are the key."""
    if revision == 2:
        return rc4(octets, _PAD)
    proof = digest("md5", _PAD + identifier)
    for number_ in range(20):
        proof = rc4(bytes(one ^ number_ for one in octets), proof)
    return proof


def _new(lock: Mapping[str, Value], password: bytes) -> bytes:
    """Algorithm 2.A: AES with 256 bits; b"" where *password* is not the one."""
    expected, wrapped, revision = _string(lock, "U"), _string(lock, "UE"), number(lock.get("R"))
    if _hashed(password, expected[32:40], revision) != expected[:32]:
        return b""
    return cbc(_hashed(password, expected[40:48], revision), bytes(BLOCK), wrapped[:32])


def _hashed(password: bytes, salt: bytes, revision: int) -> bytes:
    """Algorithm 2.B; before revision 6 its first line alone."""
    octets = digest("sha256", password + salt)
    rounds = 0
    last = 0
    while revision > 5 and (rounds < 64 or last > rounds - 32):
        mixed = encrypted_cbc(octets[:16], octets[16:32], (password + octets) * 64)
        octets = digest(_HASHES[sum(mixed[:16]) % 3], mixed)
        rounds, last = rounds + 1, mixed[-1]
    return octets[:32]

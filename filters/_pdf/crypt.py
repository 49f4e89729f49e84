"""Encrypted PDFs that open without asking (ISO 32000-1, 7.6; ISO 32000-2, 7.6.4): the password is empty, as it is where
somebody only wants to forbid printing, or a word of the mail.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from filters._ciphers import BLOCK, cbc, digest, encrypted_cbc, rc4
from filters._pdf.lexer import Name, Reference, Unreadable, Value, number

MAX_TRIED = 20
MAX_SIZES = 6
"""Words of the mail that are tried on one lock, and sizes of its key."""

_PAD = bytes.fromhex("28bf4e5e4e758a4164004e56fffa01082e2e00b6d0683e802f0ca9fe6453697a")
_MARKS = (b"\xfe\xff", b"\xff\xfe", b"\xef\xbb\xbf")
_PRINTABLE = bytes({*range(32, 127), 9, 10, 13})
_HASHES = ("sha256", "sha384", "sha512")


@dataclass(frozen=True, slots=True)
class Key:
    """What opens strings and streams. `in_mail` says that its password stands in the mail.

    `strings` names the cipher of strings: "V2" is RC4, "AESV2" and "AESV3" are AES, "" is none. `streams` names
    every one that a stream may have: each can choose, and files inside can have their own (7.6.5).
    """

    octets: bytes
    strings: str
    streams: tuple[str, ...]
    in_mail: bool = False

    def string(self, octets: bytes, place: tuple[int, int]) -> bytes:
        """The string *octets* of the object whose number and generation are *place*."""
        clear = self._clear(self.strings, octets, place)
        return clear[: -clear[-1]] if self.strings.startswith("AES") and clear and 0 < clear[-1] <= BLOCK else clear

    def stream(self, octets: bytes, place: tuple[int, int]) -> Iterator[bytes]:
        """What the stream *octets* of that object may be; behind its end there may be some that are none of it."""
        return (self._clear(cipher, octets, place) for cipher in self.streams)

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
    """What opens *lock*, the dictionary of the encryption, in a file with that *identifier*; None where it asks.

    `Unreadable` where it cannot be told what it asks for: others may understand it.
    """
    if lock.get("Filter") != "Standard" and isinstance(lock.get("Filter"), Name):
        return None  # certificates, or a program of somebody's own
    try:
        return _opened(lock, identifier, words)
    except ValueError:  # keys and vectors of no length that there is
        raise Unreadable("has a lock that is broken") from None


def _opened(lock: Mapping[str, Value], identifier: bytes, words: Iterable[bytes]) -> Key | None:
    revision = number(lock.get("R"))
    if not 2 <= revision <= 6 or _is_scattered(lock):
        raise ValueError(revision)
    for password in (b"", *itertools.islice(words, MAX_TRIED)):
        if octets := _new(lock, password) if revision > 4 else _old(lock, password, identifier):
            found = Key(octets, _cipher(lock, lock.get("StrF")), tuple(_ciphers(lock)), bool(password))
            list(found.stream(found.string(bytes(3 * BLOCK), (1, 0)), (1, 0)))  # ValueError, if it will raise any
            return found
    return None


def _is_scattered(value: Value | Mapping[str, Value]) -> bool:
    """Whether something of it stands elsewhere in the file: nobody writes locks like that, and readers read them."""
    inner = list(value.values()) if isinstance(value, Mapping) else []
    return isinstance(value, Reference) or any(map(_is_scattered, inner))


def is_text(octets: bytes) -> bool:
    """Whether *octets* may be a string that nobody has encrypted."""
    return octets.startswith(_MARKS) or not octets.translate(None, _PRINTABLE)


def _cipher(lock: Mapping[str, Value], chosen: Value) -> str:
    """The cipher of the crypt filter that is *chosen* (7.6.5)."""
    if number(lock.get("V")) < 4:
        return "V2"
    found = _crypt_filters(lock).get(chosen) if isinstance(chosen, Name) else None
    method = found.get("CFM") if isinstance(found, dict) else None
    return str(method) if method in ("V2", "AESV2", "AESV3") else ""


def _ciphers(lock: Mapping[str, Value]) -> Iterable[str]:
    """Each that a stream may have."""
    chosen = [lock.get("StmF"), *map(Name, _crypt_filters(lock))]
    return dict.fromkeys(_cipher(lock, one) for one in chosen)


def _crypt_filters(lock: Mapping[str, Value]) -> Mapping[str, Value]:
    filters = lock.get("CF")
    return filters if isinstance(filters, dict) else {}


def _string(lock: Mapping[str, Value], name: str) -> bytes:
    value = lock.get(name)
    return value if isinstance(value, bytes) else b""


def _old(lock: Mapping[str, Value], password: bytes, identifier: bytes) -> bytes:
    """Algorithms 2, 4 and 5: RC4, or AES with 128 bits; b"" where *password* is not the one."""
    revision, expected = number(lock.get("R")), _string(lock, "U")
    permissions = struct.pack("<I", int(_string(lock, "P") or b"0") & 0xFFFFFFFF)
    unclear = revision >= 4 and _string(lock, "EncryptMetadata") == b"false"
    seed = (password + _PAD)[:32] + _string(lock, "O")[:32] + permissions + identifier + b"\xff" * 4 * unclear
    for size in _sizes(lock):
        octets = digest("md5", seed)
        for _ in range(50 if revision > 2 else 0):
            octets = digest("md5", octets[:size])
        if _proof(octets[:size], identifier, revision) == expected[: 32 if revision == 2 else 16]:
            return octets[:size]
    return b""


def _sizes(lock: Mapping[str, Value]) -> Iterable[int]:
    """How many octets the key may have: readers believe different entries, and count bits or octets."""
    filters = [one for one in _crypt_filters(lock).values() if isinstance(one, dict)]
    said = [number(one.get("Length")) for one in (lock, *filters)]
    sizes = dict.fromkeys([*(one // 8 for one in said), *said, 16, 5])
    return [size for size in sizes if 0 < size <= 16][:MAX_SIZES]


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

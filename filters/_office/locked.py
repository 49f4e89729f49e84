"""What opens without asking, though it is encrypted ([MS-OFFCRYPTO] 2.3): under a password that Office tries by itself.

The words of the mail are tried as well. What a password costs to try is said by the file, and counted before.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from filters._ciphers import BLOCK, cbc, digest, ecb, rc4
from filters._office.compound import MAGIC
from filters._office.seen import Meter, Unreadable

OWN = ("VelvetSweatshop", "/01Hannes Ruescher/01")
"""What Excel and PowerPoint write where somebody only wants to forbid changes, and try before they ask."""

_SEGMENT = 4096
_SECTOR = 1024
_MAX_KEY = 32
_STANDARD_SPINS = 50_000
_TRIED = 100
"""What a password costs besides its spins, in rounds of hashing."""
_EOF, _FILEPASS, _BOUNDSHEET = 0x0A, 0x2F, 0x85
_HASHES = {"SHA1": "sha1", "SHA-1": "sha1", "SHA256": "sha256", "SHA384": "sha384", "SHA512": "sha512"}
_ENCRYPTED_KEY = re.compile(rb"<(?:\w{1,20}:)?encryptedKey\s([^<>]{1,4000})>")
_KEY_DATA = re.compile(rb"<(?:\w{1,20}:)?keyData\s([^<>]{1,4000})>")
_ATTRIBUTE = re.compile(rb"""([\w:]{1,40})\s{0,9}=\s{0,9}["']([^"']{0,1000})["']""")
# Blocks of 2.3.4.13: what is hashed behind the password for the verifier, its hash, and the key.
_INPUT = bytes.fromhex("fea7d2763b4b9e79")
_VALUE = bytes.fromhex("d7aa0f6d3061344e")
_KEY = bytes.fromhex("146e0be7abacd0d6")

_XOR = bytes.fromhex("876b9ae21ee305621e699660986e9404")
_XOR_LOCK = b"\x59\xb3\x0a\x9a"
"""The array, key and verifier that 2.3.7 makes of Excel's own password; none is read that has another."""
_TURNED = bytes(octet >> 5 | (octet << 3) & 0xFF for octet in range(256))
_IN_CLEAR = {0x0809, 0x0194, 0x0195, 0xE1, 0x0138, 0x0196}
"""Records that are never encrypted ([MS-XLS] 2.2.10)."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What was encrypted, and whether the password to it stands in the mail."""

    octets: bytes
    in_mail: bool


def package(info: bytes, packed: bytes, meter: Meter) -> Opened | None:
    """The document in the streams EncryptionInfo and EncryptedPackage; None where no password opens it."""
    if info[2:4] not in {b"\4\0", b"\2\0"}:
        return None
    try:
        lock = _Agile(info, packed) if info[2:4] == b"\4\0" else _Standard(info, packed)
        for password, in_mail in _passwords(meter, lock.spins):
            if octets := lock.opened(password):
                return Opened(_document(octets, int.from_bytes(packed[:8], "little")), in_mail)
    except (ValueError, struct.error):  # keys of no length that there is, texts that are no base64
        raise Unreadable("has a lock that is broken") from None
    return None


def _document(octets: bytes, size: int) -> bytes:
    """The first *size* of *octets*; behind them there may be padding, and no more that another reader could find."""
    if not octets.startswith((b"PK\3\4", MAGIC)):
        raise Unreadable("has a password, and behind it no document")
    if not 0 <= len(octets) - size <= _SEGMENT:
        raise Unreadable("has a password, and lies about the size of what is behind it")
    return octets[:size]


def _passwords(meter: Meter, spins: int) -> Iterator[tuple[bytes, bool]]:
    """Office's own, then words of the mail, as far as *meter* has room for what each costs."""
    cost = max(0, spins) + _TRIED
    for password in OWN:
        if meter.rounds(cost):
            yield password.encode("utf-16-le"), False
    for word in meter.words():
        if not meter.rounds(cost):
            return
        yield word.decode("utf-8", "replace").encode("utf-16-le"), True


class _Agile:
    """2.3.4.10 to 2.3.4.15: the lock is described in XML."""

    def __init__(self, info: bytes, packed: bytes) -> None:
        self._packed = packed
        self._key = _attributes(_ENCRYPTED_KEY, info)
        self._data = _attributes(_KEY_DATA, info)
        self.spins = _whole(self._key, "spinCount")
        self._size = _whole(self._key, "keyBits") // 8
        if self._size > _MAX_KEY:
            raise ValueError(self._size)

    def opened(self, password: bytes) -> bytes:
        """The package, with padding behind it; b"" where *password* is not the one."""
        salt = _octets(self._key, "saltValue")
        hashed = _spun(_hash(self._key), salt + password, self.spins)
        given = self._unlocked(hashed, _INPUT, "encryptedVerifierHashInput")[: _whole(self._key, "saltSize")]
        expected = self._unlocked(hashed, _VALUE, "encryptedVerifierHashValue")
        if not expected.startswith(digest(_hash(self._key), given)):
            return b""
        key = self._unlocked(hashed, _KEY, "encryptedKeyValue")[: self._size]
        return b"".join(self._segments(key))

    def _unlocked(self, hashed: bytes, block: bytes, name: str) -> bytes:
        key = _fitted(digest(_hash(self._key), hashed + block), self._size)
        return cbc(key, _fitted(_octets(self._key, "saltValue"), BLOCK), _octets(self._key, name))

    def _segments(self, key: bytes) -> Iterator[bytes]:
        salt, algorithm = _octets(self._data, "saltValue"), _hash(self._data)
        for number, at in enumerate(range(8, len(self._packed), _SEGMENT)):
            vector = _fitted(digest(algorithm, salt + struct.pack("<I", number)), BLOCK)
            yield cbc(key, vector, self._packed[at : at + _SEGMENT])


class _Standard:
    """2.3.4.5 to 2.3.4.9: AES with SHA-1, as Office 2007 writes it."""

    spins = _STANDARD_SPINS

    def __init__(self, info: bytes, packed: bytes) -> None:
        self._packed = packed
        self._verifier = _Verifier.of_header(info[8:], 32)

    def opened(self, password: bytes) -> bytes:
        """The package, with padding behind it; b"" where *password* is not the one."""
        spun = _spun("sha1", self._verifier.salt + password, self.spins)
        decrypted = partial(ecb, self._derived(digest("sha1", spun + bytes(4))))
        return decrypted(self._packed[8:]) if self._verifier.is_met(decrypted, "sha1") else b""

    def _derived(self, hashed: bytes) -> bytes:
        """2.3.4.7, from where on the hash has been made."""
        inner, outer = (bytes(one ^ pad for one in hashed.ljust(64, b"\0")) for pad in (0x36, 0x5C))
        return (digest("sha1", inner) + digest("sha1", outer))[: self._verifier.bits // 8]


def workbook(stream: bytes, meter: Meter) -> Opened | None:
    """The stream of a workbook with locked globals (FILEPASS), with those as they were; None where nothing opens it."""
    records = list(_records(stream, meter))
    lock = next((stream[at : at + size] for kind, at, size in records if kind == _FILEPASS), b"")
    if lock[:2] == b"\0\0":
        return Opened(_cleared(stream, records, partial(_unmasked, stream)), False) if lock[2:6] == _XOR_LOCK else None
    if len(lock) < 6:
        return None
    try:
        found = _sector_keys(lock, meter)
    except (ValueError, struct.error):
        raise Unreadable("has a lock that is broken") from None
    if found is None:
        return None
    keys, in_mail = found
    sectors = range(-(-sum(records[-1][1:]) // _SECTOR))
    meter.steps(100 * len(sectors))
    clear = b"".join(rc4(keys(one), stream[one * _SECTOR : (one + 1) * _SECTOR]) for one in sectors)
    return Opened(_cleared(stream, records, lambda at, size: clear[at : at + size]), in_mail)


def _records(stream: bytes, meter: Meter) -> Iterator[tuple[int, int, int]]:
    """Type, place and size of the body of each record of the globals: these three are never encrypted."""
    at = kind = 0
    while kind != _EOF and at + 4 <= len(stream):
        meter.steps(5)
        kind, size = struct.unpack_from("<HH", stream, at)
        yield kind, at + 4, size
        at += 4 + size


def _cleared(stream: bytes, records: list[tuple[int, int, int]], clear: Callable[[int, int], bytes]) -> bytes:
    """*stream* with the bodies that *clear* gives, by place and size; its lock is made a record that says nothing."""
    whole = bytearray(stream)
    for kind, at, size in records:
        if kind == _FILEPASS:
            whole[at - 4 : at - 2] = b"\0\0"
        elif kind not in _IN_CLEAR:
            kept = 4 if kind == _BOUNDSHEET else 0  # where its sheet begins
            whole[at + kept : at + size] = clear(at, size)[kept:]
    return bytes(whole)


def _unmasked(stream: bytes, at: int, size: int) -> bytes:
    """2.3.7.3: where in the array to begin, place and size of the record say."""
    body = stream[at : at + size]
    mask = (_XOR * (size // 16 + 2))[(at + size) % 16 :][: len(body)]
    clear = int.from_bytes(body, "little") ^ int.from_bytes(mask, "little")  # a hundred times as fast as octet by octet
    return clear.to_bytes(len(body), "little").translate(_TURNED)


Keys = Callable[[int], bytes]
"""The key of each sector, by its number."""


def _sector_keys(lock: bytes, meter: Meter) -> tuple[Keys, bool] | None:
    """How the workbook that *lock* locks is opened, and whether with a word of the mail."""
    plain = lock[2:6] == b"\1\0\1\0"
    verifier = _Verifier.read(lock[6:], 16) if plain else _Verifier.of_header(lock[10:], 20)
    for password, in_mail in _passwords(meter, 0):
        keys = partial(_old_key if plain else _new_key, verifier, password)
        if verifier.is_met(partial(rc4, keys(0)), "md5" if plain else "sha1"):
            return keys, in_mail
    return None


def _old_key(verifier: _Verifier, password: bytes, sector: int) -> bytes:
    """2.3.6.2, for RC4 with 40 bits."""
    first = digest("md5", password)[:5]
    second = digest("md5", (first + verifier.salt) * 16)[:5]
    return digest("md5", second + struct.pack("<I", sector))


def _new_key(verifier: _Verifier, password: bytes, sector: int) -> bytes:
    """2.3.5.2, for RC4 of the CryptoAPI."""
    first = digest("sha1", verifier.salt + password)
    key = digest("sha1", first + struct.pack("<I", sector))[: (verifier.bits or 40) // 8]
    return key.ljust(16, b"\0") if len(key) == 5 else key


@dataclass(frozen=True, slots=True)
class _Verifier:
    """What only the right password makes sense of: `challenge`, and its hash (2.3.3). `bits` is the size of the key."""

    bits: int
    salt: bytes
    challenge: bytes
    expected: bytes

    @classmethod
    def of_header(cls, octets: bytes, digest: int) -> _Verifier:
        """The one behind the header that *octets* begin with (2.3.2)."""
        size, bits = struct.unpack_from("<I16xI", octets)
        _, salt, challenge, _, expected = struct.unpack_from(f"<I16s16sI{digest}s", octets, 4 + size)
        return cls(bits, salt, challenge, expected)

    @classmethod
    def read(cls, octets: bytes, digest: int) -> _Verifier:
        """The one that *octets* are, without a header."""
        return cls(0, *struct.unpack_from(f"<16s16s{digest}s", octets))

    def is_met(self, decrypted: Callable[[bytes], bytes], algorithm: str) -> bool:
        """Whether *decrypted*, with the key in question, makes sense of it."""
        clear = decrypted(self.challenge + self.expected)
        return clear[16:].startswith(digest(algorithm, clear[:16]))


def _attributes(element: re.Pattern[bytes], info: bytes) -> Mapping[str, str]:
    match = element.search(info)
    return {key.decode(): value.decode("latin-1") for key, value in _ATTRIBUTE.findall(match[1])} if match else {}


def _whole(attributes: Mapping[str, str], name: str) -> int:
    """The number that the attribute *name* is; ValueError where it is none, or a larger one than there is."""
    return int(attributes.get(name, "")[:9])


def _octets(attributes: Mapping[str, str], name: str) -> bytes:
    return base64.b64decode(attributes.get(name, ""))


def _hash(attributes: Mapping[str, str]) -> str:
    if (name := attributes.get("hashAlgorithm", "")) not in _HASHES:
        raise ValueError(name)
    return _HASHES[name]


def _spun(algorithm: str, seed: bytes, spins: int) -> bytes:
    """*seed* hashed, and what comes out again and again, with the number of the round before it."""
    make, number = getattr(hashlib, algorithm), struct.Struct("<I").pack
    octets: bytes = make(seed).digest()
    for spin in range(spins):
        octets = make(number(spin) + octets).digest()
    return octets


def _fitted(octets: bytes, size: int) -> bytes:
    return octets[:size].ljust(size, b"\x36")

"""How one file of a zip is packed and locked (APPNOTE.TXT 4.4.5): what unpacks it, and whether a word is its password.

The rule: nobody gets more octets at a time than he asks for, and no dictionary is larger than the memory we have.
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import struct
import zlib
from typing import BinaryIO, Protocol

STORED, DEFLATED, BZIP2, LZMA, XZ, AES = 0, 8, 12, 14, 95, 99
UNPACKED = frozenset({STORED, DEFLATED, BZIP2, LZMA, XZ})
"""What can be unpacked here."""

KNOWN = frozenset({0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 14, 16, 18, 19, 20, 93, 94, 95, 96, 97, 98, 99})
"""What the specification has a name for."""

_MAX_DICTIONARY = 64 << 20


class Stream(Protocol):
    """What unpacks: `decompress` gives at most so many octets, and keeps what it did not get to."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, packed: bytes, most: int, /) -> bytes: ...


class Inflate:
    """zlib, with the manners of bz2 and lzma."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(-15)

    @property
    def eof(self) -> bool:
        """Whether the last block has been unpacked."""
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        """Whether nothing is kept of what came."""
        return not self._stream.unconsumed_tail

    @property
    def rest(self) -> bool:
        """Whether octets came behind the last block."""
        return bool(self._stream.unused_data)

    def decompress(self, packed: bytes, most: int, /) -> bytes:
        """At most *most* octets of what was kept, and of *packed*."""
        return self._stream.decompress(self._stream.unconsumed_tail + packed, most)


def stream(method: int, file: BinaryIO) -> Stream:
    """What unpacks *method*, of which *file* stands at the first octet; `ValueError` where nothing here does."""
    if method == DEFLATED:
        return Inflate()
    if method == BZIP2:
        return bz2.BZ2Decompressor()
    if method == XZ:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, _MAX_DICTIONARY)
    if method == LZMA:
        return _lzma(file.read(9))
    raise ValueError("nobody here can unpack that")


def _lzma(head: bytes) -> lzma.LZMADecompressor:
    """LZMA with the properties before it (5.8.8); its dictionary has to fit into the memory that we have."""
    _, size, packed, dictionary = struct.unpack("<HHBI", head)
    if size != 5 or packed >= 225 or dictionary > _MAX_DICTIONARY:
        raise ValueError("these are no properties of LZMA")
    properties = {"lc": packed % 9, "lp": packed // 9 % 5, "pb": packed // 45, "dict_size": dictionary}
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1, **properties}])


def is_aes_key(file: BinaryIO, strength: bytes, password: bytes) -> bool:
    """Whether *password* fits the salt and the two octets at *file* (AE-x of WinZip): sure to one in 65536."""
    size = {b"\1": 16, b"\2": 24, b"\3": 32}.get(strength, 0)
    head = file.read(size // 2 + 2)
    key = hashlib.pbkdf2_hmac("sha1", password, head[:-2], 1000, 2 * size + 2)
    return size > 0 and key[-2:] == head[-2:]


def is_pkware_key(file: BinaryIO, wanted: int, password: bytes) -> bool:
    """Whether the encryption header at *file* ends in *wanted*, decrypted in PKWARE's own way: sure to one in 256."""
    return _last_of_head(file.read(12), password) == wanted


def _last_of_head(head: bytes, password: bytes) -> int:
    """The last octet of the encryption header *head*, decrypted in PKWARE's own way (6.1); -1 where it is torn."""
    keys = [0x12345678, 0x23456789, 0x34567890]
    for octet in password:
        _turn(keys, octet)
    plain = -1
    for octet in head:
        mask = keys[2] & 0xFFFF | 2
        plain = octet ^ (mask * (mask ^ 1) >> 8 & 0xFF)
        _turn(keys, plain)
    return plain if len(head) == 12 else -1


def _turn(keys: list[int], octet: int) -> None:
    keys[0] = _crc(keys[0], octet)
    keys[1] = (keys[1] + (keys[0] & 0xFF)) * 134775813 + 1 & 0xFFFFFFFF
    keys[2] = _crc(keys[2], keys[1] >> 24)


def _crc(value: int, octet: int) -> int:
    """One step of CRC-32 without the inversions that zlib puts around it."""
    return zlib.crc32(bytes((octet,)), value ^ 0xFFFFFFFF) ^ 0xFFFFFFFF

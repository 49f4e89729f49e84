"""A Windows shortcut ([MS-SHLLINK]): what it starts, and with what. Lengths are checked, and nothing is followed."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

SIGNATURE = b"L\0\0\0\x01\x14\x02\0"

_HAS_IDS, _HAS_INFO, _ARGUMENTS, _UNICODE = 0x1, 0x2, 0x20, 0x80
_STRINGS = (0x4, 0x8, 0x10, _ARGUMENTS, 0x40)
"""Flags of the strings in their order (2.4): name, relative path, working directory, arguments, icon."""
_PATHS = {0xA0000001, 0xA0000006, 0xA0000007}
"""Blocks of extra data that name a target (2.5.4), a component, or an icon (2.5.5)."""
_ASCII = re.compile(rb"[\x20-\x7e]{3,}")
_WIDE = re.compile(rb"(?:[\x20-\x7e]\0){3,}")


class Torn(Exception):
    """It breaks off, or its lengths contradict each other."""


@dataclass(frozen=True, slots=True)
class Shortcut:
    """What it starts: `target` holds every path that it names. `behind` counts the octets after its end."""

    target: str = ""
    arguments: str = ""
    behind: int = 0


@dataclass(slots=True)
class _Cursor:
    octets: bytes
    at: int = 0

    def take(self, size: int) -> bytes:
        piece = self.octets[self.at : self.at + size]
        if len(piece) < size:
            raise Torn
        self.at += size
        return piece

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])


def read(octets: bytes) -> Shortcut:
    """The shortcut in *octets*; `Torn` where it is none."""
    cursor = _Cursor(octets)
    flags = int(struct.unpack_from("<I", cursor.take(76), 20)[0])
    named = [_texts(cursor.take(cursor.number("<H")))] if flags & _HAS_IDS else []
    if flags & _HAS_INFO:
        named.append(_texts(cursor.take(max(0, cursor.number("<I") - 4))))
    strings = {flag: _string(cursor, wide=bool(flags & _UNICODE)) for flag in _STRINGS if flags & flag}
    arguments = strings.pop(_ARGUMENTS, "")
    return Shortcut(" ".join([*named, *strings.values(), *_extra(cursor)]), arguments, len(octets) - cursor.at)


def _string(cursor: _Cursor, *, wide: bool) -> str:
    count = cursor.number("<H")
    return cursor.take(count * 2).decode("utf-16-le", "replace") if wide else cursor.take(count).decode("latin-1")


def _extra(cursor: _Cursor) -> Iterator[str]:
    """The paths in the blocks behind the strings; a block of less than 4 octets is the last (2.5)."""
    while cursor.at + 4 <= len(cursor.octets):
        size = cursor.number("<I")
        if size < 8:
            return
        block = cursor.take(size - 4)
        if struct.unpack_from("<I", block)[0] in _PATHS:
            yield _texts(block[4:])


def _texts(octets: bytes) -> str:
    """Every name in *octets*, written with one or two octets a letter."""
    wide = (match[0].decode("utf-16-le") for match in _WIDE.finditer(octets))
    return " ".join([*wide, *(match[0].decode("ascii") for match in _ASCII.finditer(octets))])

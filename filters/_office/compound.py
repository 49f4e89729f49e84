"""Compound files ([MS-CFB], "OLE2"): what streams and storages they hold.

The directory is read as a list, not as the tree that it is: whatever tree a reader sees, its streams are in the list.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from filters._office.seen import Meter, Unreadable

MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
MAX_ENTRIES = 20_000
STORAGE, STREAM, ROOT = 1, 2, 5

_ENTRY = struct.Struct("<64sHB13x16s20xIQ")
_MINI_SHIFT = 6
_CUTOFF = 4096
"""Streams shorter than that lie in the mini stream (2.2: other values of the header are invalid)."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A stream, or a storage: then `clsid` may say what program it belongs to (16 octets, as they stand there)."""

    name: str
    kind: int
    clsid: bytes
    start: int
    size: int


class Compound:
    """One compound file of that name; `Unreadable` where it is none."""

    def __init__(self, data: bytes, meter: Meter, name: str = "") -> None:
        if len(data) < 512 or not data.startswith(MAGIC):
            raise Unreadable("is no whole compound file")
        self._data, self.meter, self.name = data, meter, name
        self._shift, mini = struct.unpack_from("<HH", data, 30)
        directory, cutoff, mini_fat = struct.unpack_from("<I4xII", data, 48)
        if self._shift not in {9, 12} or mini != _MINI_SHIFT or cutoff != _CUTOFF:
            raise Unreadable("has sectors of a size that there is not")
        self._fat = self._table()
        self.entries = list(_entries(self._sectors(directory, len(data)), self._shift))
        if not self.entries or self.entries[0].kind != ROOT:
            raise Unreadable("has no directory")
        self._mini_fat = _numbers(self._sectors(mini_fat, len(data)))
        self._mini = self._sectors(self.entries[0].start, self.entries[0].size)

    def streams(self) -> Iterator[Entry]:
        """Every stream, whether or not a path leads to it."""
        return (entry for entry in self.entries if entry.kind == STREAM)

    def read(self, entry: Entry, most: int) -> bytes:
        """At most *most* octets of the stream *entry*; `Unreadable` where the file ends before them."""
        wanted = min(entry.size, most)
        if entry.size >= _CUTOFF:
            octets = self._sectors(entry.start, wanted)
        else:
            starts = _chain(self._mini_fat, entry.start, wanted, _MINI_SHIFT)
            self.meter.octets(wanted)
            octets = b"".join(self._mini[n << _MINI_SHIFT : (n + 1) << _MINI_SHIFT] for n in starts)
        if len(octets) < wanted:
            raise Unreadable("ends in the middle of what it holds")
        return octets[:wanted]

    def _sector(self, number: int) -> bytes:
        return self._data[(number + 1) << self._shift : (number + 2) << self._shift]

    def _sectors(self, start: int, most: int) -> bytes:
        numbers = _chain(self._fat, start, most, self._shift)
        self.meter.octets(len(numbers) << self._shift)
        return b"".join(map(self._sector, numbers))

    def _table(self) -> array[int]:
        """The FAT: for each sector the next one. What it says of sectors behind the end of the file is of no use."""
        count = (len(self._data) >> self._shift) + 1
        table = array("I")
        for number in self._table_sectors(count):
            table.extend(_numbers(self._sector(number)))
            if len(table) >= count:
                break
        return table[:count]

    def _table_sectors(self, count: int) -> Iterator[int]:
        """The sectors that the FAT stands in (2.5: 109 in the header, the others in a chain of sectors)."""
        yield from (number for number in struct.unpack_from("<109I", self._data, 76) if number < count)
        next_ = struct.unpack_from("<I", self._data, 68)[0]
        for _ in range(count):
            if next_ >= count:
                return
            *numbers, next_ = _numbers(self._sector(next_)) or [count]
            yield from (number for number in numbers if number < count)
        raise Unreadable("has a directory that leads back to itself")


def _entries(directory: bytes, shift: int) -> Iterator[Entry]:
    if len(directory) // _ENTRY.size > MAX_ENTRIES:
        raise Unreadable(f"has more than {MAX_ENTRIES} entries in its directory")
    whole = len(directory) - len(directory) % _ENTRY.size
    for name, length, kind, clsid, start, size in _ENTRY.iter_unpack(directory[:whole]):
        if kind in {STORAGE, STREAM, ROOT}:
            text = name[: max(0, min(length, 64) - 2)].decode("utf-16-le", "replace")
            yield Entry(text, kind, clsid, start, size if shift == 12 else size & 0xFFFFFFFF)


def _chain(table: array[int], start: int, most: int, shift: int) -> list[int]:
    """The sectors from *start* on that hold *most* octets, or fewer where the chain ends."""
    wanted = min(-(-most >> shift), len(table) + 1)
    numbers: list[int] = []
    while start < len(table) and len(numbers) < wanted:
        numbers.append(start)
        start = table[start]
    if len(set(numbers)) < len(numbers):
        raise Unreadable("holds something that leads back to itself")
    return numbers


def _numbers(octets: bytes) -> array[int]:
    numbers = array("I", octets[: len(octets) & ~3])
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers

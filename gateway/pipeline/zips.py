"""A zip file read both ways (APPNOTE.TXT 4.3): by its directory, and by the headers that stand before its files.

The rule: programs differ in which of the two they follow, so wherever the two differ it is said, in our words.
"""

from __future__ import annotations

import lzma
import re
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import BinaryIO, NamedTuple

from gateway.pipeline import methods
from gateway.pipeline.methods import AES, DEFLATED, STORED

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_FULL = 0xFFFFFFFF
_MARK = re.compile(rb"PK(?:\x03\x04|\x05\x06)")
_CHUNK = 1 << 20
PORTION = 64 << 10
_MAX_MARKS = 200_000
"""Signatures of headers in one file: an archive of archives has many, and each is looked at."""

_MAX_STRAYS = 20_000
"""Those of them that no directory names."""

_MOST_LOOKED_AT = 65_535
"""Files of a zip behind other octets, while it is looked for."""

_MAX_HIDDEN = 100
_MAX_DOUBT = 32 << 20
_FARTHEST = 1 << 62
"""No file reaches so far; more than that is no place that could be sought."""
_TWO_ENDS = "it has two directories"
_DESCRIPTOR = 24
"""Octets that may stand behind a file: its sizes, where they were not known before (4.3.9)."""

_GAP = "octets stand between its files that belong to none"
_LINK = 0o120000


class Broken(Exception):
    """It is no zip, or not a whole one; or a file in it cannot be unpacked by us."""


class Locked(Exception):
    """The directory itself is encrypted: not even names can be told."""


class TooMany(Exception):
    """There are more files than may be looked at."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the zip. `packed` and `size` are octets, as declared; `start` is where its packed octets begin."""

    name: str
    offset: int
    start: int
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    link: bool = False
    time: int = 0
    extra: bytes = b""

    @property
    def encrypted(self) -> bool:
        """Whether it says so."""
        return bool(self.flags & 1)

    @property
    def folder(self) -> bool:
        """Whether it is only a folder: nothing can stand in it."""
        return self.name.endswith("/") and not self.size and self.packed <= 12


class _End(NamedTuple):
    """Where the directory stands, and what is to be added to each offset in it (octets before the zip)."""

    start: int
    stop: int
    files: int
    shift: int
    at: int


class _Header(NamedTuple):
    """The header before a file; `start` is where its octets begin."""

    flags: int
    method: int
    time: int
    crc: int
    packed: int
    size: int
    name: str
    extra: bytes
    start: int


@dataclass
class Zip:
    """A zip as two readers see it: `entries` by its directory, `hidden` only without it; `differences` in our words."""

    file: BinaryIO
    entries: list[Entry] = field(default_factory=list)
    hidden: list[Entry] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    overlapping: bool = False

    def read(self, entry: Entry, most: int) -> bytes:
        """The first octets of *entry*, unpacked, at most *most*; `Broken` where there are none to be had."""
        self.file.seek(entry.start)
        if entry.method == STORED:
            return self.file.read(min(entry.packed, most))
        data = bytearray()
        try:
            stream = methods.stream(entry.method, self.file)
            for piece in self._pieces(stream, entry, most):
                data += piece
        except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError, struct.error):
            if not data:
                raise Broken from None
        return bytes(data)

    def _pieces(self, stream: methods.Stream, entry: Entry, most: int) -> Iterator[bytes]:
        left = entry.packed - (self.file.tell() - entry.start)
        while most > 0 and not stream.eof:
            packed = self.file.read(min(left, PORTION)) if stream.needs_input and left > 0 else b""
            left -= len(packed)
            piece = stream.decompress(packed, min(most, _CHUNK))
            if not packed and not piece:
                return
            most -= len(piece)
            yield piece

    def ends_early(self, entry: Entry, most: int) -> bool:
        """Whether the deflated octets of *entry* end before they should, as one who unpacks to *most* octets sees."""
        self.file.seek(entry.start)
        stream = methods.Inflate()
        try:
            size = sum(len(piece) for piece in self._pieces(stream, entry, most))
        except zlib.error:
            return True
        return size < most and (not stream.eof or stream.rest or self.file.tell() < entry.start + entry.packed)

    def is_key(self, entry: Entry, password: bytes) -> bool:
        """Whether *password* seems to open *entry*: sure to one in 256 (PKWARE's own way), or in 65536 (AES)."""
        self.file.seek(entry.start)
        if entry.method == AES:
            return methods.is_aes_key(self.file, _extra(entry.extra, 0x9901)[4:5], password)
        wanted = entry.time >> 8 if entry.flags & 8 else entry.crc >> 24
        return methods.is_pkware_key(self.file, wanted & 0xFF, password)


def is_zip(file: BinaryIO) -> bool:
    """Whether *file* begins like a zip, or ends like one."""
    size = file.seek(0, 2)
    tail = _at(file, max(0, size - _END.size - 0xFFFF), size)
    return _at(file, 0, 2) == b"PK" or tail.rfind(b"PK\5\6") >= 0


def place(file: BinaryIO) -> tuple[int, int] | None:
    """Where the zip begins and ends whose end stands at the end of *file*, if its directory fits: other octets may
    stand before it, and behind it."""
    found = Zip(file)
    try:
        end = _end(found, file.seek(0, 2))
        start = min((entry.offset for entry in _directory(found, end, _MOST_LOOKED_AT)), default=end.start)
    except (Broken, Locked, TooMany):
        return None
    comment = int.from_bytes(_at(file, end.at + 20, 2), "little")
    return (start, end.at + _END.size + comment) if is_file(file, start) else None


def is_file(file: BinaryIO, at: int) -> bool:
    """Whether the header of a file of a zip stands at *at*."""
    return _local(file, at, file.seek(0, 2)) is not None


def opened(file: BinaryIO, most: int) -> Zip:
    """The zip in *file*, at most *most* files of it (`TooMany`); `Broken` and `Locked` as they say."""
    found = Zip(file)
    size = file.seek(0, 2)
    end = _end(found, size)
    found.entries = list(_directory(found, end, most))
    if not found.entries and _at(file, 0, 4) == b"PK\3\4":
        found.differences.append("it begins with a file, and its directory names none")
    _compare(found, end.start)
    _search(found, end, size)
    return found


def loose(file: BinaryIO, most: int) -> Zip:
    """What the headers before the files tell, where there is no directory; `TooMany` as it says."""
    found = Zip(file)
    size = file.seek(0, 2)
    number = 0
    for offset in _marks(file, size, b"PK\3\4"):
        if (number := number + 1) > _MAX_STRAYS:
            raise TooMany
        if entry := _local(file, offset, size):
            found.hidden.append(entry)
        if len(found.hidden) > most:
            raise TooMany
    return found


def _end(found: Zip, size: int) -> _End:
    """The end record (4.3.16), or its larger form (4.3.14); the last one, as nearly all readers take it."""
    first = max(0, size - _END.size - 0xFFFF)
    found.file.seek(first)
    tail = found.file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        raise Broken
    _, _, _, _, count, length, offset, _ = _END.unpack_from(tail, at)
    stop = first + at
    found.file.seek(max(0, stop - _LOCATOR.size))
    if found.file.read(4) == b"PK\6\7":
        count, length, offset, stop = _end64(found, stop, (count, length, offset))
    shift = stop - length - offset
    if shift < 0:
        raise Broken
    if shift and _at(found.file, offset, 4) == b"PK\1\2":
        found.differences.append("its directory can be found in two places")
    return _End(stop - length, stop, count, shift, first + at)


def _end64(found: Zip, stop: int, small: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """What the zip64 end record before *stop* says; readers differ on when it counts."""
    at = stop - _LOCATOR.size - _END64.size
    raw = _at(found.file, max(0, at), _END64.size)
    if at < 0 or len(raw) < _END64.size or not raw.startswith(b"PK\6\6"):
        raise Broken
    _, _, _, _, _, _, _, count, length, offset = _END64.unpack(raw)
    for one, other, full in zip(small, (count, length, offset), (0xFFFF, _FULL, _FULL), strict=True):
        if one not in {other, full}:
            found.differences.append("it has two ends, which say different things")
    return count, length, offset, at


def _directory(found: Zip, end: _End, most: int) -> Iterator[Entry]:
    found.file.seek(end.start)
    at = number = 0
    raw = found.file.read(min(end.stop - end.start, (most + 1) * 4096 + _CHUNK))
    while end.start + at < end.stop:
        if number >= most:
            raise TooMany
        if raw[at : at + 4] != b"PK\1\2" or len(raw) - at < _CENTRAL.size:
            raise Locked if at == 0 and _is_locked(found.file, end) else Broken
        _, made, _, flags, method, time, _, crc, packed, size, name, extra, comment, _, _, mode, offset = (
            _CENTRAL.unpack_from(raw, at)
        )
        at += _CENTRAL.size
        octets, fields = raw[at : at + name], raw[at + name : at + name + extra]
        at += name + extra + comment
        number += 1
        size, packed, offset = _large(fields, size, packed, offset)
        is_link = made >> 8 == 3 and mode >> 16 & 0o170000 == _LINK
        text = _text(found, octets, flags, fields)
        yield Entry(
            text, min(offset + end.shift, _FARTHEST), 0, flags, method, crc, packed, size, is_link, time, fields
        )
    if number & 0xFFFF != end.files & 0xFFFF:
        found.differences.append("its directory does not hold as many files as it says")


def _is_locked(file: BinaryIO, end: _End) -> bool:
    """Whether a record of encryption stands at the directory (4.3.11), or its end has the form for that (7.3.3)."""
    end64 = _at(file, end.stop, 12)
    is_second_form = end64.startswith(b"PK\6\6") and int.from_bytes(end64[4:], "little") > _END64.size - 12
    return is_second_form or b"PK\6\x08" in _at(file, max(0, end.start - _CHUNK), 2 * _CHUNK)


def _large(fields: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """The three numbers, taken from the zip64 extra field where they are too large for their own (4.5.3)."""
    values = _extra(fields, 1)
    numbers = []
    for number in (size, packed, offset):
        if number == _FULL and len(values) >= 8:
            numbers.append(int.from_bytes(values[:8], "little"))
            values = values[8:]
        else:
            numbers.append(number)
    return numbers[0], numbers[1], numbers[2]


def _extra(fields: bytes, wanted: int) -> bytes:
    """The data of extra field *wanted* (4.5.1), or b""."""
    at = 0
    while at + 4 <= len(fields):
        tag, size = struct.unpack_from("<2H", fields, at)
        if tag == wanted:
            return fields[at + 4 : at + 4 + size]
        at += 4 + size
    return b""


def _text(found: Zip, octets: bytes, flags: int, fields: bytes) -> str:
    """The name, in Unicode where the extra field for it fits (4.6.9), which not every reader knows."""
    name = octets.decode("utf-8" if flags & 0x800 else "cp437", "replace")
    unicode = _extra(fields, 0x7075)
    if unicode[:1] != b"\1" or unicode[1:5] != zlib.crc32(octets).to_bytes(4, "little"):
        return name
    other = unicode[5:].decode("utf-8", "replace")
    if _suffix(other) != _suffix(name):
        found.differences.append("a file in it has two names")
    return other


def _suffix(name: str) -> str:
    return re.sub(r"[^\x20-\x7e]", "", name).rpartition(".")[2].lower()


def _compare(found: Zip, directory: int) -> None:
    """Find the header before each file, and say where it and the directory, which begins at *directory*, differ."""
    reached = -1
    for number, entry in sorted(enumerate(found.entries), key=lambda pair: pair[1].offset):
        header = _header(found.file, entry.offset, named=True)
        start = header.start if header else entry.offset + _LOCAL.size
        found.entries[number] = replace(entry, start=start)
        if differences := [*_differences(entry, header)]:
            found.differences += differences
            _stray(found, entry.offset, found.file.seek(0, 2))
        found.overlapping |= entry.offset < reached
        if 0 <= reached < entry.offset - _DESCRIPTOR:
            found.differences.append(_GAP)
        reached = max(reached, start + entry.packed)
    if 0 <= reached < directory - _DESCRIPTOR:
        found.differences.append(_GAP)
    found.differences = list(dict.fromkeys(found.differences))


def _differences(entry: Entry, header: _Header | None) -> Iterator[str]:
    """How *entry*, which stands in the directory, differs from the *header* before its file."""
    if not header:
        yield "its directory names a file where there is none"
        return
    if header.name.replace("\\", "/") != entry.name.replace("\\", "/") and not _extra(entry.extra, 0x7075):
        yield "a file in it has two names"
    if header.method != entry.method or (header.flags ^ entry.flags) & 1:
        yield "a file in it is packed in one way by its directory, in another by its header"
    later = header.flags & 8 and not header.packed  # then they stand behind the file (4.3.9)
    is_torn = entry.method == STORED and not entry.encrypted and entry.packed != entry.size
    if is_torn or (not later and (header.packed, header.size) != (entry.packed, entry.size)):
        yield "a file in it has two sizes"


def _search(found: Zip, end: _End, size: int) -> None:
    """Look for headers of files and for ends that the directory knows nothing of."""
    entries = sorted(found.entries, key=lambda entry: entry.offset)
    offsets = [entry.offset for entry in entries]
    doubted: dict[int, Entry] = {}
    strays = 0
    for at in _marks(found.file, size):
        entry = entries[bisect_right(offsets, at) - 1] if offsets and offsets[0] <= at else None
        if at == end.at or (entry and at == entry.offset):
            continue
        if entry and entry.start <= at < entry.start + entry.packed:
            if entry.method == DEFLATED and not entry.encrypted:
                doubted[entry.offset] = entry
            continue
        strays += 1
        if strays > _MAX_STRAYS:
            raise TooMany
        _stray(found, at, size)
    if any(found.ends_early(entry, _MAX_DOUBT) for entry in [*doubted.values()][:_MAX_HIDDEN]):
        found.differences.append("a file in it ends before its header says so")
    if found.hidden:
        found.differences.append("it holds files that its directory does not name")


def _stray(found: Zip, at: int, size: int) -> None:
    """Keep what stands at *at*, where the directory names nothing, if it is more than chance."""
    if len(found.hidden) < _MAX_HIDDEN and (entry := _local(found.file, at, size)):
        found.hidden.append(entry)
    elif _is_end(found.file, at) and _TWO_ENDS not in found.differences:
        found.differences.append(_TWO_ENDS)


def _marks(file: BinaryIO, size: int, mark: bytes = b"") -> Iterator[int]:
    """Where signatures of local headers and of ends stand in *file*; only *mark*, where it is given."""
    at = number = 0
    while at < size:
        chunk = _at(file, at, _CHUNK + 3)
        for match in _MARK.finditer(chunk):
            number += 1
            if number > _MAX_MARKS:
                raise TooMany
            if match.start() < _CHUNK and (not mark or match[0] == mark):
                yield at + match.start()
        at += _CHUNK


def _header(file: BinaryIO, at: int, *, named: bool) -> _Header | None:
    """What stands at *at*, if it begins like the header before a file (4.3.7), and, where no directory has *named* it,
    if it is more than chance."""
    head = _at(file, at, _LOCAL.size)
    if len(head) < _LOCAL.size or not head.startswith(b"PK\3\4"):
        return None
    _, need, flags, method, time, _, crc, packed, size, length, extra = _LOCAL.unpack(head)
    if not named and (need & 0xFF > 63 or method not in methods.KNOWN or not 0 < length <= 4096):
        return None
    tail = file.read(length + extra)
    name = tail[:length].decode("utf-8" if flags & 0x800 else "cp437", "replace")
    size, packed, _ = _large(tail[length:], size, packed, 0)
    start = at + _LOCAL.size + length + extra
    return _Header(flags, method, time, crc, packed, size, name, tail[length:], start)


def _local(file: BinaryIO, at: int, size: int) -> Entry | None:
    """The file whose header stands at *at*, or None where those four octets are chance."""
    header = _header(file, at, named=False)
    if not header:
        return None
    left = size - header.start
    packed = left if header.flags & 8 and not header.packed else header.packed
    return Entry(
        *(header.name, at, header.start, header.flags, header.method, header.crc, max(0, min(packed, left))),
        *(header.size, False, header.time, header.extra),
    )


def _is_end(file: BinaryIO, at: int) -> bool:
    """Whether what stands at *at* could be an end record: the directory it speaks of would stand before it."""
    raw = _at(file, at, _END.size)
    if len(raw) < _END.size or not raw.startswith(b"PK\5\6"):
        return False
    _, disk, _, here, count, length, offset, _ = _END.unpack(raw)
    return bool(disk == 0 and here == count and length + offset <= at and length >= count * _CENTRAL.size)


def _at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)

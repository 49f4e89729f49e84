"""Which kinds of archive a file is, by its octets: the first ones, the last ones, and those within.

The rule: a file may be of several kinds at once, and each program that unpacks takes the one that it knows, so all
count; a name says something only where the octets are silent.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

from gateway.pipeline import zips
from gateway.pipeline.seekable import Seekable
from gateway.pipeline.sniff import TNEF, sniff

ZIP = "application/zip"
ISO = "application/x-iso9660-image"
TAR = "application/x-tar"
LZMA = "application/x-lzma"
WITHIN = 1 << 20
"""So many octets may stand before an archive: programs that unpack look no farther for one behind a program."""


class Form(NamedTuple):
    """How libarchive reads a kind of file."""

    formats: tuple[str, ...]
    packing: str = ""
    without: tuple[str, ...] = ()


_IN_IT = ("tar", "cpio", "raw")
FORMS = {
    "application/x-7z-compressed": Form(("7zip",)),
    "application/x-rar": Form(("rar", "rar5")),
    "application/vnd.ms-cab-compressed": Form(("cab",)),
    TAR: Form(("tar",)),
    "application/x-cpio": Form(("cpio",)),
    "application/x-archive": Form(("ar",)),
    "application/x-xar": Form(("xar",)),
    "application/x-lha": Form(("lha",)),
    ISO: Form(("iso9660",)),
    "application/x-rpm": Form(("raw",), "rpm"),
    "application/gzip": Form(_IN_IT, "gzip"),
    "application/x-bzip2": Form(_IN_IT, "bzip2"),
    "application/x-xz": Form(_IN_IT, "xz"),
    LZMA: Form(_IN_IT, "lzma"),
    "application/x-lzip": Form(_IN_IT, "lzip"),
    "application/x-compress": Form(_IN_IT, "compress"),
    "application/x-lz4": Form(_IN_IT, "lz4"),
    "application/zstd": Form(_IN_IT, "zstd"),
}
_TREES = (Form(("iso9660",), "", ("rockridge",)), Form(("iso9660",), "", ("rockridge", "joliet")))
_ARJ = "application/x-arj"
_DISK = "application/x-disk-image"
_UDF = "application/x-udf-image"
_MACBINARY = "application/x-macbinary"
CLOSED = {
    "application/x-ace": "an archive of the kind ACE",
    _ARJ: "an archive of the kind ARJ",
    "application/x-szdd": "packed by COMPRESS.EXE",
    "application/x-zoo": "an archive of the kind ZOO",
    "application/x-stuffit": "an archive of the kind StuffIt",
    "application/x-alz": "an archive of the kind ALZip",
    "application/x-freearc": "an archive of the kind FreeARC",
    "application/x-zpaq": "an archive of the kind ZPAQ",
    "application/x-rar-1": "an archive of the oldest kind of RAR",
    "application/x-installshield": "an archive of InstallShield",
    "application/x-skippable": "packed by zstd or LZ4, behind a frame that is to be skipped",
    "application/x-lrzip": "packed by lrzip",
    "application/x-lzop": "packed by lzop",
    "application/x-pack": "packed by pack or LZH",
    "application/applefile": "a file with what belongs to it, of the kind AppleSingle",
    _MACBINARY: "a file with what belongs to it, of the kind MacBinary",
    "application/vnd.ms-outlook-pst": "a folder of Outlook",
    "application/x-ms-wim": "an image of Windows",
    "application/x-squashfs": "an image of the kind SquashFS",
    "application/x-vhd": "the disk of a virtual machine",
    "application/x-vm-disk": "the disk of a virtual machine",
    "application/x-apple-diskimage": "an image of a disk",
    _DISK: "an image of a disk",
    _UDF: "an image with a UDF file system",
}
"""What nobody here can open, in words."""

_WEAK = {*("application/x-cpio", LZMA, "application/x-compress", "application/x-lha")}
"""Kinds whose first bytes a text or a number may have: where not even one file can be read, it is something else."""
_WITH_FOOTER = {"application/x-vhd", "application/x-apple-diskimage"}
_READ_ELSEWHERE = {"application/pdf", "application/x-ole-storage", TNEF}
"""Files in which others look for files; honest ones have zips within, in pieces."""
_ARCHIVES = re.compile(
    r"\.(?:zipx?|7z|rar|cab|jar|tar|cpio|[tc]?(?:gz|bz2?|xz|lz|z|lzma|zst)|lz4|lzh|lha|arj|ace|arc|a|deb|rpm|xar|pkg|wim|esd"
    r"|iso|img|udf|vhdx?|vmdk|dmg|br|zoo|sitx?|alz|egg|0\d\d|[rz]\d\d)"
)
_PACKED_DOCUMENTS = re.compile(r"\.(?:doc[xm]|xls[xmb]|ppt[xm]|od[tsp]|epub)")
_BY_NAME = {
    **dict.fromkeys((".iso", ".img", ".udf"), ISO),
    ".tar": TAR,
    ".lzma": LZMA,
}
_BEHIND = (b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07\0", b"Rar!\x1a\x07\1", b"MSCF\0\0\0\0")
_LOCAL = b"PK\3\4"
_PACKED_BEHIND = (*(b"BZh%d1AY&SY" % level for level in range(1, 10)), b"\xfd7zXZ\0")
_GZIP = b"\x1f\x8b\x08"
_USTAR = b"ustar"
_MAX_LOOKALIKES = 1000
_DISC = b"\1CD001\1"
_SECTOR = 2048
_NEVER_IN_TEXT = bytes({*range(32)} - {*b"\b\t\n\f\r\x1a\x1b"})


class Kind(NamedTuple):
    """An archive in a file, from octet `start` to `stop` (None: to its end); whether it is one for `certain`."""

    name: str
    certain: bool = True
    start: int = 0
    stop: int | None = None


def may_hold(first: bytes, sniffed: str, names: Iterable[str]) -> bool:
    """Whether it is worth while to ask for the kinds of a file that begins with *first* (`sniff.PREFIX` octets)."""
    if sniffed in FORMS or sniffed in CLOSED or sniffed == ZIP or (not sniffed and is_binary(first)):
        return True
    return any(is_named(name) or _PACKED_DOCUMENTS.fullmatch(_suffix(name)) for name in names)


def is_named(name: str) -> bool:
    """Whether *name* is one that archives have, so that a program that unpacks is what opens it."""
    return bool(_ARCHIVES.fullmatch(_suffix(name)))


def is_binary(first: bytes) -> bool:
    """Whether what begins with *first* is no text."""
    return len(first.translate(None, _NEVER_IN_TEXT)) < len(first)


def of(file: BinaryIO, sniffed: str, name: str) -> list[Kind]:
    """All kinds that *file* is, which begins with what is *sniffed*; none where it only bears the *name* of one."""
    first = _at(file, 0, WITHIN)
    found = [*_from_start(file, first, sniffed)]
    if not found and not sniffed and (by_name := _BY_NAME.get(_suffix(name))):
        found.append(Kind(by_name, certain=False))
    if sniffed != ZIP:
        found += _zip(file, sniffed, name)
    return [*found, *_behind(file, first, found, sniffed)]


def forms(file: BinaryIO, kind: Kind) -> list[Form]:
    """How to read *file*: a disc may have up to three trees of files, and programs differ in which they show."""
    others = _TREES if kind.name == ISO and _has_trees(file) else ()
    return [FORMS[kind.name], *others]


def _has_trees(file: BinaryIO) -> bool:
    """Whether a disc has a tree of Joliet (a supplementary descriptor, ECMA-119 8.5) or of Rock Ridge (SUSP 5.3)."""
    first = _at(file, 16 * _SECTOR, WITHIN)
    return b"\2CD001" in first or b"SP\7\1\xbe\xef" in first


def cut(file: BinaryIO, kind: Kind) -> BinaryIO:
    """The part of *file* that is the archive."""
    if not kind.start and kind.stop is None:
        return file
    stop = file.seek(0, 2) if kind.stop is None else kind.stop
    return io.BufferedReader(Seekable(stop - kind.start, lambda place, most: _at(file, kind.start + place, most)))


def _from_start(file: BinaryIO, first: bytes, sniffed: str) -> Iterator[Kind]:
    if sniffed == LZMA:
        yield Kind(LZMA, _is_lzma(first))
    elif sniffed == ZIP or sniffed in FORMS or (sniffed in CLOSED and (sniffed != _ARJ or _is_arj(first))):
        yield Kind(sniffed, sniffed not in _WEAK)
    if sniffed != TAR and _is_tar(first):
        yield Kind(TAR)
    if not sniffed and _is_lzma(first):
        yield Kind(LZMA, certain=False)
    if _is_disk(first):
        yield Kind(_DISK)
    if _is_macbinary(first, file.seek(0, 2)):
        yield Kind(_MACBINARY)
    if (last := sniff(_at(file, max(0, file.seek(0, 2) - 512), 8))) in _WITH_FOOTER and last != sniffed:
        yield Kind(last)  # the disk itself comes first, and may begin with anything
    yield from _volumes(file)


def _volumes(file: BinaryIO) -> Iterator[Kind]:
    """The file systems of a disc, behind 16 sectors that may hold anything (ECMA-119 8.1.2, ECMA-167 2/8.3, 3/9.1)."""
    descriptors = _at(file, 16 * _SECTOR, 64 * _SECTOR)
    marks = {descriptors[at + 1 : at + 6] for at in range(0, len(descriptors), _SECTOR)}
    if b"CD001" in marks:
        yield Kind(ISO)
    anchor = _at(file, 256 * _SECTOR, 16)  # by which some programs look, whatever the marks say (3/10.2)
    is_anchor = anchor[:2] == b"\2\0" and len(anchor) == 16 and (sum(anchor) - anchor[4]) & 0xFF == anchor[4]
    if is_anchor or marks & {b"NSR02", b"NSR03"}:
        yield Kind(_UDF)


def _zip(file: BinaryIO, sniffed: str, name: str) -> Iterator[Kind]:
    """The zip that *file* is by its end (a zip may stand behind anything)."""
    if not sniffed and (is_named(name) or _PACKED_DOCUMENTS.fullmatch(_suffix(name)) or _at(file, 0, 2) == b"PK"):
        if zips.is_zip(file):
            yield Kind(ZIP)
    elif place := zips.place(file):
        yield Kind(ZIP, True, *place)


def _behind(file: BinaryIO, first: bytes, found: list[Kind], sniffed: str) -> Iterator[Kind]:
    """The first of each kind that stands behind other octets."""
    for mark in _BEHIND:
        if (at := first.find(mark, 1)) > 0:
            yield Kind(sniff(mark), True, at)
    is_zip = any(kind.name == ZIP for kind in found)
    if sniffed != TAR and (at := _tar_behind(first)) > 0:
        yield Kind(TAR, True, at)
    if not any(kind.certain for kind in found):
        yield from _packed_behind(first)
        if (at := first.find(_DISC) - 16 * _SECTOR) > 0:
            yield Kind(ISO, True, at)
    honest = is_zip or sniffed in _READ_ELSEWHERE or (sniffed in FORMS and sniffed not in _WEAK)
    if not honest and (at := _local(file, first)) > 0:
        yield Kind(ZIP, True, at)


def _packed_behind(first: bytes) -> Iterator[Kind]:
    for mark in _PACKED_BEHIND:
        if (at := first.find(mark, 1)) > 0:
            yield Kind(sniff(mark), True, at)
    at = first.find(_GZIP, 1)
    for _ in range(_MAX_LOOKALIKES):
        if at < 0 or _inflates(first[at : at + 4096]):
            break
        at = first.find(_GZIP, at + 1)
    if at > 0:
        yield Kind(sniff(_GZIP), False, at)


def _inflates(octets: bytes) -> bool:
    try:
        return bool(zlib.decompressobj(31).decompress(octets, 4096))
    except zlib.error:
        return False


def _tar_behind(first: bytes) -> int:
    """Where the first header of a tar stands behind other octets, or -1."""
    at = first.find(_USTAR, 258)
    for _ in range(_MAX_LOOKALIKES):
        if at < 0 or _is_tar(first[at - 257 : at + 255]):
            break
        at = first.find(_USTAR, at + 1)
    return at - 257


def _local(file: BinaryIO, first: bytes) -> int:
    """Where the first header of a file of a zip stands behind other octets, or -1."""
    at = first.find(_LOCAL, 1)
    for _ in range(_MAX_LOOKALIKES):
        if at < 0 or zips.is_file(file, at):
            break
        at = first.find(_LOCAL, at + 1)
    return at


def _is_tar(first: bytes) -> bool:
    """Whether the header fits its checksum (POSIX pax, "ustar Interchange Format"), with signed octets or without."""
    head, field = first[:512], first[148:156].strip(b" \0")
    if len(head) < 512 or not head.strip(b"\0") or not re.fullmatch(rb"[0-7]{1,7}", field):
        return False
    rest = head[:148] + b" " * 8 + head[156:]
    return int(field, 8) in {sum(rest), sum(octet - 256 * (octet > 127) for octet in rest)}


def _is_lzma(first: bytes) -> bool:
    """Whether it has the header of a .lzma: properties, a dictionary of 2^n or 3 * 2^n octets, a size, then a 0."""
    dictionary, size = int.from_bytes(first[1:5], "little"), first[5:13]
    is_usual = dictionary >= 4096 and dictionary.bit_count() <= 2
    return first[:1] < b"\xe1" and is_usual and (size == b"\xff" * 8 or size[5:] == bytes(3)) and first[13:14] == b"\0"


def _is_disk(first: bytes) -> bool:
    """Whether it begins with a boot sector, or with a table of partitions."""
    if first[510:512] != b"\x55\xaa":
        return False
    table = [first[at : at + 16] for at in range(446, 510, 16)]
    if all(entry[0] in {0, 128} for entry in table) and any(entry[4] for entry in table):
        return True
    return first[0] in {0xEB, 0xE9} and first[11:13] in {b"\0\2", b"\0\4", b"\0\x08", b"\0\x10", b"\0\0"}


def _is_macbinary(first: bytes, size: int) -> bool:
    """Whether the header of 128 octets has a name, three zeros, and the lengths of two forks that make up the file."""
    zeros = {first[0], first[74], first[82]} if len(first) >= 128 else set()
    if zeros != {0} or not 1 <= first[1] <= 63 or 0 in first[2 : 2 + first[1]]:
        return False
    forks = [int.from_bytes(first[at : at + 4], "big") for at in (83, 87)]
    padded = 128 + sum(fork + -fork % 128 for fork in forks)
    return sum(forks) > 0 and padded - 128 < size <= padded


def _is_arj(first: bytes) -> bool:
    """Whether the header fits its checksum (ARJ TECHNOTE): two octets alone are no proof."""
    size = int.from_bytes(first[2:4], "little")
    return 0 < size <= 2600 and zlib.crc32(first[4 : 4 + size]) == int.from_bytes(first[4 + size : 8 + size], "little")


def _suffix(name: str) -> str:
    name = name.rstrip(" .").lower()
    return name[max(0, name.rfind(".")) :]


def _at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)

"""What stands inside documents: packages ([MS-OLEDS]), files in notebooks ([MS-ONESTORE]), objects of exploits."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

from filters._office.seen import Inner, Seen, Sight, Unreadable, remote

MAX_FILES = 1000
MAX_LINK = 65_536

_NOTE = bytes.fromhex("e716e3bd65261145a4c48d4d0b7a9eac")
"""FileDataStoreObject (2.6.13): this, eight octets of length, twelve of nothing, and then the file."""

PACKAGED = bytes.fromhex("2fe98d63d4a6c14b9a36b3fc2511a5b7")
"""The format of a notebook that is packaged otherwise."""

# Classes of objects that exploits use and documents of today have no use for: CLSID, name in rich text, what it is, and
# what made it known.
_CLASSES = (
    ("0002CE02-0000-0000-C000-000000000046", "equation.3", "Equation Editor", "CVE-2017-11882"),
    ("00021700-0000-0000-C000-000000000046", "equation.2", "Equation Editor", "CVE-2017-11882"),
    ("0003000B-0000-0000-C000-000000000046", "equation", "Equation Editor", "CVE-2018-0802"),
    ("BDD1F04B-858B-11D1-B16A-00C0F0283628", "mscomctllib.listviewctrl", "ListView", "CVE-2012-0158"),
    ("996BF5E0-8044-4650-ADEB-0B013914E99C", "comctllib.listviewctrl", "ListView", "CVE-2012-0158"),
    ("C74190B6-8589-11D1-B16A-00C0F0283628", "mscomctllib.treectrl", "TreeView", "CVE-2012-0158"),
    ("1EFB6596-857C-11D1-B16A-00C0F0283628", "mscomctllib.tabstrip", "TabStrip", "CVE-2012-1856"),
    ("A08A033D-1A75-4AB6-A166-EAD02F547959", "otkloadr.wrassembly", "Otkloadr", "CVE-2015-1641"),
    ("05741520-C4EB-440A-AC3F-9643BBC9F847", "otkloadr.wrloader", "Otkloadr", "CVE-2015-1641"),
    ("25336920-03F9-11CF-8FD0-00AA00686F13", "htmlfile", "HTML page", "CVE-2021-40444"),
    ("EAB22AC3-30C1-11CF-A7EB-0000C05BAE0B", "shell.explorer", "web browser", "CVE-2016-0199"),
)
_EQUATIONS = ("equation", "equation.2", "equation.3")
_BY_NAME = {name: (what, known) for _, name, what, known in _CLASSES}
_BY_CLSID = {guid: name for guid, name, _, _ in _CLASSES}
_NAMED = re.compile(rf"(?<![a-z.])(?:{'|'.join(sorted(map(re.escape, _BY_NAME), reverse=True))})".encode())

_ADDRESS = re.compile(
    rb"(?:https?|ftp|mhtml|script):[^\s\0\"<>]{3,300}|\\\\[\w.-]{1,100}[\\@][^\0\r\n\"<>]{1,200}", re.IGNORECASE
)
_FONT_NAME = re.compile(rb"\x08..[^\0]{41}", re.DOTALL)


def guid(octets: bytes) -> str:
    """Sixteen octets of a file as a class is written: the first three numbers of it are little-endian."""
    first, second, third = struct.unpack_from("<IHH", octets)
    return f"{first:08X}-{second:04X}-{third:04X}-{octets[8:10].hex().upper()}-{octets[10:16].hex().upper()}"


def of_class(guid: str) -> Iterator[Sight]:
    """An object of that class, if it is one that exploits use; formulas have a look of their own."""
    name = _BY_CLSID.get(guid, "")
    if name and name not in _EQUATIONS:
        yield _exploit(name)


def classes(octets: bytes, updates: bool) -> Iterator[Sight]:
    """What the head of an object in rich text names: an equation is an exploit where it wants to run at once."""
    for name in dict.fromkeys(match[0].decode() for match in _NAMED.finditer(octets[:4096].lower())):
        if name not in _EQUATIONS or updates:
            yield _exploit(name)
    if re.search(rb"ole2link", octets[:4096], re.IGNORECASE):
        yield from link(octets)


def _exploit(name: str) -> Sight:
    what, known = _BY_NAME[name]
    return Sight("exploit", f"has an object of {what}, as exploits do ({known})")


def link(octets: bytes) -> Iterator[Sight]:
    """Where a linked object ([MS-OLEDS] 2.3.3) comes from."""
    head = octets[:MAX_LINK]
    for plain in (head, head[::2], head[1::2]):  # which reads UTF-16 too
        if match := _ADDRESS.search(plain):
            yield from remote("an object", match[0].decode("latin-1"))
            return


def equation(native: bytes) -> Iterator[Sight]:
    """A formula whose font has a name that the old editor has no room for (a record FONT of MTEF 3, type 8)."""
    if _FONT_NAME.search(native[28:600]):
        yield _exploit("equation.3")


def packed(octets: bytes) -> Seen:
    """The file in an OLE 1 object of class Package, where there is one ([MS-OLEDS] 2.2.5)."""
    at = octets.find(b"Package\0")
    if 0 <= at < 4096 and len(octets) > at + 20:
        yield from package(octets[at + 20 :])


def package(native: bytes) -> Iterator[Inner]:
    """The file in a package, without the length before it: label, path, path again, length, octets (all ANSI)."""
    words = native[2:2048].split(b"\0", 2)
    names = [word.decode("latin-1") for word in words[:2]]
    rest = words[2] if len(words) > 2 else b""
    at = 2 + sum(len(word) + 1 for word in words[:2])
    if len(rest) < 12:
        yield Inner(native, whole=True)
        return
    path = struct.unpack_from("<I", native, at + 4)[0]
    name = next(
        (
            name
            for name in (*names, native[at + 8 : at + 8 + min(path, 512)].decode("latin-1").rstrip("\0"))
            if "." in name
        ),
        names[0],
    )
    yield Inner(native[at + 12 + path :], re.split(r"[\\/]", name)[-1], whole=True)


def notebook(data: bytes) -> Seen:
    """The files in a OneNote section, wherever they stand in it."""
    at = data.find(_NOTE)
    for _ in range(MAX_FILES):
        if at < 0:
            return
        size = int.from_bytes(data[at + 16 : at + 24], "little")
        yield Inner(data[at + 36 : at + 36 + size], whole=True)
        at = data.find(_NOTE, at + 16)
    raise Unreadable(f"holds more than {MAX_FILES} files")


def active_mime(data: bytes, most: int) -> Inner:
    """The compound file in an "ActiveMime" blob, which Word 2003 XML and web archives hold macros in."""
    for at in (int.from_bytes(data[30:32], "little") + 46, 50, 0x22A):
        unpacker = zlib.decompressobj()
        try:
            octets = unpacker.decompress(data[at:], most + 1)
        except zlib.error:
            continue
        if octets and len(octets) <= most:
            return Inner(octets)
    raise Unreadable("holds macros that cannot be unpacked")

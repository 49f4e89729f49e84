"""One file, of whatever kind its first octets say -> what it does. Files inside it are read in the same way.

The rule: what one reader cannot read is the sight `unreadable`, and the others go on.
"""

from __future__ import annotations

import io
import itertools
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from filters._office import inside, locked, lzfu, markup, rtf, sheets, vba
from filters._office.compound import MAGIC, ROOT, STORAGE, Compound, Entry
from filters._office.seen import Exhausted, Inner, Meter, Seen, Sight, Unreadable, fields, remote, shown

MAX_DEPTH = 4
MAX_STREAM = 64 << 20
MAX_HEAD = 512
MAX_INFO = 16_384

ONENOTE = b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d"
_FIRST = (MAGIC, b"{\\rt", ONENOTE, b"ActiveMim", b"ID;", *sheets.BEGINNINGS)
_SHEETS = (".csv", ".tsv", ".slk", ".xls", ".xlt", ".dif")
_NAMES = (
    *(".doc", ".docx", ".docm", ".dot", ".dotx", ".dotm", ".rtf", ".xlsx", ".xlsm", ".xlsb", ".xltx", ".xltm", ".xlam"),
    *(".xla", ".xlw", ".ppt", ".pptx", ".pptm", ".pps", ".ppsx", ".ppsm", ".pot", ".potx", ".potm", ".ppa", ".ppam"),
    *(
        ".odt",
        ".ods",
        ".odp",
        ".odg",
        ".odb",
        ".fodt",
        ".fods",
        ".fodp",
        ".ott",
        ".ots",
        ".pub",
        ".vsd",
        ".vsdm",
        ".one",
        ".mpp",
    ),
    *(".mht", ".mhtml", ".xml", ".msg", *_SHEETS),
)
_ATTACHED = "__substg1.0_37010102"
_CODECS_OF_NAMES = {"__substg1.0_3707001f": "utf-16-le", "__substg1.0_3707001e": "latin-1"}
_SCRIPTS = (".py", ".js", ".bsh")
"""Languages of macros in OpenDocument besides Basic: no box holds them."""
_TEXT_FIELD = re.compile(rb"\x13([^\x13-\x15]{1,2000})")
_WIDE_FIELD = re.compile(rb"\x13\0((?:[^\x13-\x15\0]\0){1,2000})")
_OBJECT = re.compile(rb"[\x00\x10]\0\x11\x10", re.DOTALL)
_SCRIPT = re.compile(
    rb"<script|<hta:|<job|^#!|wscript\.|createobject\s*\(|powershell|activexobject|^@?echo off|cmd(?:\.exe)? /c",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Words:
    """What speaks against a macro, and how the names of files end that run (lower case)."""

    calls: vba.Calls
    programs: tuple[str, ...]


def is_document(head: bytes, name: str) -> bool:
    """Whether a file that begins with *head* (`MAX_HEAD` octets) is one that an office program opens."""
    is_first = head.startswith(_FIRST) or lzfu.is_packed(head)
    return is_named(name) or is_first or _is_link(head, name) or b"mime-version:" in head.lower()


def is_named(name: str) -> bool:
    """Whether an office program opens a file of that name, whatever it holds."""
    return name.lower().rstrip(" .").endswith((*_NAMES, ".iqy"))


def look(inner: Inner, words: Words, meter: Meter, depth: int = 0) -> Seen:
    """What the file *inner* does, and what files in it do; and those of them that are `whole`."""
    try:
        meter.file()
        meter.octets(len(inner.octets))
        _demand_depth(depth)
        if depth and (what := _program(inner, words)):
            yield Sight("program", f"holds {what}")
        if inner.whole:
            yield inner  # which comes back as a part
            return
        for seen in _read(inner, words, meter):
            if isinstance(seen, Sight):
                yield seen
            else:
                yield from look(seen, words, meter, depth + 1)
    except Unreadable as error:
        if depth and isinstance(error, Exhausted):
            raise
        yield Sight("unreadable", str(error))


def _demand_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise Unreadable(f"holds files nested more than {MAX_DEPTH} deep")


def _read(inner: Inner, words: Words, meter: Meter) -> Seen:
    """By the first octets; where they say nothing, by the name as well."""
    data, name = inner.octets, inner.name.lower()
    if data.startswith(MAGIC):
        yield from _compound(Compound(data, meter, inner.name), words)
    elif data.startswith(b"{\\rt"):
        yield from rtf.look(data, meter)
    elif lzfu.is_packed(data):
        yield Inner(lzfu.unpacked(data, meter))
    elif data.startswith(ONENOTE):
        yield from inside.notebook(data)
        yield from _packaged(data, words, meter)
    elif data.startswith(b"ActiveMim"):
        yield inside.active_mime(data, MAX_STREAM)
    elif data.startswith(sheets.BEGINNINGS):
        yield from sheets.look(data, meter)
    elif data.startswith(b"PK\3\4"):
        yield from _archive(data, meter)
    elif _is_link(data, name):
        yield from sheets.binary_link(data)
    elif is_script(name):
        yield Sight("macro_suspicious", "holds macros in a language that may do anything")
    else:
        yield from _text(data, name, words, meter)


def is_script(name: str) -> bool:
    """Whether a file of that name in an OpenDocument is one of macros (1.3, part 2, 3.16)."""
    return name.lower().startswith("scripts/") and name.lower().endswith(_SCRIPTS)


def _is_link(data: bytes, name: str) -> bool:
    return name.lower().endswith(".bin") and sheets.LINK.match(data) is not None


def _packaged(data: bytes, words: Words, meter: Meter) -> Iterator[Sight]:
    """A notebook as it comes from the cloud has no mark before the files in it ([MS-ONESTORE] 2.8), but their names."""
    if data[48:64] == inside.PACKAGED:
        meter.steps(data.count(b".\0"))
        endings = b"|".join(re.escape(f"{suffix[1:]}\0".encode("utf-16-le")) for suffix in words.programs)
        if end := re.search(rb"\.\0(?:" + endings + rb")", data.lower()):
            name = data[max(0, end.start() - 40) : end.end()].decode("utf-16-le", "replace")
            yield Sight("program", f"holds the file {shown(name.rstrip(chr(0)).rpartition(chr(0))[2])}")


def _text(data: bytes, name: str, words: Words, meter: Meter) -> Seen:
    if name.endswith((".xml", ".rels")) or re.match(
        rb"(?:\xef\xbb\xbf)?\s{0,100}<\?(?:xml|mso)|\xff\xfe<\0|\xfe\xff\0<", data
    ):
        yield from markup.look(data, words.calls, meter)
    if name.endswith(_SHEETS) or data.startswith(b"ID;"):
        yield from sheets.text(data, meter)
    if name.endswith(".iqy"):
        yield from sheets.query(data)
    if name.endswith(_NAMES) or b"mime-version:" in data[:MAX_HEAD].lower():
        yield from markup.encoded(data)
        if b"PK\5\6" in data[-65_600:]:
            yield from _archive(data, meter)


def _program(inner: Inner, words: Words) -> str:
    """What of a program the embedded file is, in words, or ""."""
    data = inner.octets
    if inner.name.lower().rstrip(" .").endswith(words.programs):
        return f"the file {shown(inner.name)}"
    if data.startswith(b"MZ") and b"PE\0\0" in data[:4096]:
        return "a program"
    if data.startswith((b"\x7fELF", b"L\0\0\0\x01\x14\x02\0")):
        return "a program" if data.startswith(b"\x7f") else "a shortcut"
    if not data.startswith((MAGIC, b"PK", b"{\\rt", b"<?xml")) and _SCRIPT.search(data[:4096].replace(b"\0", b"")):
        return "a script"
    return ""


def _archive(data: bytes, meter: Meter) -> Seen:
    """An OOXML or ODF document that lies in another one, where the parser of the mail does not see it."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                if info.flag_bits & 1:
                    yield Sight("encrypted", "holds files with a password")
                elif not info.filename.endswith("/"):
                    yield Inner(_member(archive, info, meter), info.filename)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, OSError) as error:
        raise Unreadable(f"cannot be unpacked ({type(error).__name__})") from None


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, meter: Meter) -> bytes:
    with archive.open(info) as member:
        octets = member.read(MAX_STREAM + 1)
    if len(octets) > MAX_STREAM:
        raise Unreadable(f"holds a file of more than {MAX_STREAM} octets")
    meter.octets(len(octets))
    return octets


def _compound(file: Compound, words: Words) -> Seen:
    """Each thing that can be in a compound file; one that cannot be read keeps none from the others."""
    faults: list[str] = []
    for reader in (_declared, _streams, _attached):
        try:
            yield from reader(file)
        except Unreadable as error:
            faults.append(str(error))
    yield from vba.look(file, words.calls)
    if faults:
        raise Unreadable(faults[0])


def _declared(file: Compound) -> Iterator[Sight]:
    """What the names and classes in the directory say."""
    names = {entry.name.lower() for entry in file.entries}
    if names & {"encryptedsummary", "\tdrmcontent"}:
        yield Sight("encrypted", "has a password")
    for entry in file.entries:
        if entry.kind in {STORAGE, ROOT} and any(entry.clsid):
            yield from inside.of_class(inside.guid(entry.clsid))


def _streams(file: Compound) -> Seen:
    for entry in file.streams():
        name = entry.name.lower()
        if reader := _READERS.get(name):
            yield from reader(file, entry)
        elif (
            name != _ATTACHED
            and entry.size > 64
            and (head := file.read(entry, 8)).startswith((MAGIC, b"PK\3\4", b"{\\rt", b"MZ", b"\x7fELF"))
        ):
            octets = file.read(entry, MAX_STREAM)
            if not head.startswith(b"MZ") or b"PE\0\0" in octets[:4096]:
                yield Inner(octets)


def _attached(file: Compound) -> Iterator[Inner]:
    """The files that are attached to a mail of Outlook ([MS-OXMSG] 2.2.2), and their names, each in their order."""
    streams = [(entry, entry.name.lower()) for entry in file.streams()]
    files = (file.read(entry, MAX_STREAM) for entry, name in streams if name == _ATTACHED)
    codecs = ((entry, _CODECS_OF_NAMES.get(name)) for entry, name in streams)
    names = (file.read(entry, MAX_HEAD).decode(codec, "replace") for entry, codec in codecs if codec)
    for octets, name in itertools.zip_longest(files, names):
        yield Inner(octets or b"", name or "", whole=True)


def _body(file: Compound, entry: Entry) -> Seen:
    """The text of a mail of Outlook, with the objects in it."""
    yield Inner(file.read(entry, MAX_STREAM))


def _word(file: Compound, entry: Entry) -> Iterator[Sight]:
    """The main stream of a Word file: the FIB ([MS-DOC] 2.5.2), and field codes where they stand in the text."""
    data = file.read(entry, MAX_STREAM)
    flags = int.from_bytes(data[10:12], "little")
    if flags & 0x0100:
        yield Sight("encrypted", "has a password")
        return
    codes: list[bytes] = []
    for match in chain(_TEXT_FIELD.finditer(data), _WIDE_FIELD.finditer(data)):
        file.meter.steps(10)
        codes.append(match[1].replace(b"\0", b""))
    yield from fields(b"".join(codes).decode("latin-1"))
    yield from _template(file, data, "1table" if flags & 0x0200 else "0table")


def _template(file: Compound, data: bytes, table: str) -> Iterator[Sight]:
    """The template that the document names: the second string of SttbfAssoc ([MS-DOC] 2.9.277)."""
    at, size = int.from_bytes(data[410:414], "little"), int.from_bytes(data[414:418], "little")
    for entry in file.streams():
        if entry.name.lower() == table and size > 10 and at < entry.size:
            strings = file.read(entry, min(at + size, MAX_STREAM))[at:]
            first = 6 + 2 + 2 * int.from_bytes(strings[6:8], "little")
            length = 2 * int.from_bytes(strings[first : first + 2], "little")
            if strings.startswith(b"\xff\xff"):
                yield from remote("a template", strings[first + 2 : first + 2 + length].decode("utf-16-le", "replace"))


def _slides(file: Compound, entry: Entry) -> Seen:
    """The objects of a PowerPoint file, its macros among them: ExOleObjStg ([MS-PPT] 2.10.34), packed or not."""
    data = file.read(entry, MAX_STREAM)
    for match in _OBJECT.finditer(data):
        file.meter.steps(5)
        begin = match.end() + 4
        end = begin + int.from_bytes(data[match.end() : begin], "little")
        if data.startswith(MAGIC, begin):
            yield Inner(data[begin:end])
        elif data.startswith(b"\x78", begin + 4):
            yield Inner(_unpacked(data[begin + 4 : end]))


def _unpacked(packed: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, MAX_STREAM)
    except zlib.error:
        raise Unreadable("holds an object that cannot be unpacked") from None


def _sheets(file: Compound, entry: Entry) -> Iterator[Sight]:
    stream = file.read(entry, MAX_STREAM)
    sights = list(sheets.look(stream, file.meter))
    if any(sight.code == "encrypted" for sight in sights) and (opened := locked.workbook(stream, file.meter)):
        yield from _unlocked(opened)
        sights = list(sheets.look(opened.octets, file.meter))
    yield from sights


def _package(file: Compound, entry: Entry) -> Seen:
    """A document of today under a password ([MS-OFFCRYPTO] 2.3.4)."""
    infos = (file.read(one, MAX_INFO) for one in file.streams() if one.name.lower() == "encryptioninfo")
    if opened := locked.package(next(infos, b""), file.read(entry, MAX_STREAM), file.meter):
        yield from _unlocked(opened)
        yield Inner(opened.octets, file.name, whole=True)
    else:
        yield Sight("encrypted", "has a password")


def _unlocked(opened: locked.Opened) -> Iterator[Sight]:
    if opened.in_mail:
        yield Sight("password_in_mail", "opens with a password that stands in the mail")


def _native(file: Compound, entry: Entry) -> Iterator[Inner]:
    yield from inside.package(file.read(entry, MAX_STREAM)[4:])


def _equation(file: Compound, entry: Entry) -> Iterator[Sight]:
    yield from inside.equation(file.read(entry, MAX_HEAD * 2))


def _link(file: Compound, entry: Entry) -> Iterator[Sight]:
    yield from inside.link(file.read(entry, MAX_HEAD * 8))


_READERS = {
    "__substg1.0_10090102": _body,
    "worddocument": _word,
    "workbook": _sheets,
    "book": _sheets,
    "encryptedpackage": _package,
    "powerpoint document": _slides,
    "\1ole10native": _native,
    "equation native": _equation,
    "\1ole": _link,
}

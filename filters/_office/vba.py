"""VBA projects ([MS-OVBA]): the source of their modules, what of it runs by itself, and what it calls.

A module is stored twice: as source, compressed, and as what was made of it last ("p-code"), which Office may run
instead. Where the source is not what the rest of the project speaks of, that is a sight of its own.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from filters._office.compound import Compound, Entry
from filters._office.seen import Sight, Unreadable, shown

MAX_SOURCE = 2 << 20
"""Octets of source in one module."""
MAX_STREAM = 16 << 20
EMPTY = 1150
"""Octets that Office writes before the source of a module without a line."""
MAX_CACHE = 1 << 20

_CONTINUED = re.compile(r"[ \t]_[ \t]*\r?\n[ \t]*")
_PROCEDURE = re.compile(
    r"^[ \t]*(?:(?:public|private|friend|static)[ \t]+){0,2}(?:sub|function|property[ \t]+[gls]et)[ \t]+(\w{1,255})",
    re.IGNORECASE | re.MULTILINE,
)
_LIBRARY = re.compile(
    r"^[ \t]*(?:(?:public|private)[ \t]+)?declare[ \t]+(?:ptrsafe[ \t]+)?(?:sub|function)[ \t]+(\w{1,255})",
    re.IGNORECASE | re.MULTILINE,
)
# Word's Auto names and Excel's, the events of documents, and those of controls that fire while nobody does anything.
_AUTO = re.compile(
    r"auto_?(?:exec|open|close|exit|new|activate|deactivate)\w*"
    r"|newdocument|(?:document|workbook|worksheet|presentation|application|app|project|slide)_(?:(?:before|after|sheet"
    r"|window|pivot|xml|contentcontrol|document|protectedview|buildingblock|slideshow|addin)\w+|(?:auto)?open\w*|close\w*"
    r"|new\w*|activate|deactivate|change|calculate|selectionchange|followhyperlink|sync|quit|startup|initialize|save)"
    r"|\w+_(?:painted|painting|gotfocus|lostfocus|layout|change|resize|mousemove|mousehover|mouseenter|mouseleave"
    r"|beforenavigate2|beforescriptexecute|documentcomplete|download(?:begin|complete)|filedownload"
    r"|navigate(?:complete2|error)|progresschange|propertychange|statustextchange|titlechange|setsecurelockicon"
    r"|onconnecting)",
    re.IGNORECASE,
)
_IDENTIFIER = re.compile(rb"[A-Za-z]\w{6,80}")
_BEGINS = re.compile(rb"\x01..\0Attribut", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Module:
    """The name of a module, its source ("" where none can be read), and how many octets of p-code stand before that."""

    name: str
    source: str
    compiled: int


@dataclass(frozen=True, slots=True)
class Calls:
    """The words that speak against a macro, as one pattern."""

    pattern: re.Pattern[str]

    @classmethod
    def of(cls, words: tuple[str, ...]) -> Calls:
        """*words* as whole words, in any case; none are never found."""
        joined = "|".join(sorted(map(re.escape, words), reverse=True)) or "(?!)"
        return cls(re.compile(rf"(?<!\w)(?:{joined})(?!\w)", re.IGNORECASE))

    def within(self, source: str) -> list[str]:
        """What *source* calls of them, each once."""
        found = (match[0] for match in self.pattern.finditer(source))
        return list({word.lower(): word for word in (*found, *_LIBRARY.findall(source))}.values())


def look(file: Compound, calls: Calls) -> Iterator[Sight]:
    """What the VBA in *file* does; nothing where it has no procedure. `Unreadable` behind what could be seen."""
    modules: list[Module] = []
    fault = ""
    try:
        modules.extend(_modules(file))
    except Unreadable as error:
        fault = str(error)
    source = "\n".join(_CONTINUED.sub(" ", module.source) for module in modules)
    autos, called = list(_autos(modules)), calls.within(source)
    hidden = _hidden(file, modules, source)
    by = f", and calls {_some(called)}" if called else ""
    if hidden:
        yield Sight("macro_hidden", f"holds macros whose source is not what runs: {hidden}")
    if autos:
        yield Sight("macro_auto", f"runs {_some(autos)} by itself{by}")
    elif called:
        yield Sight("macro_suspicious", f"holds macros that call {_some(called)}")
    elif _PROCEDURE.search(source):
        yield Sight("macro", "holds macros")
    if fault:
        raise Unreadable(fault)


def _some(names: list[str]) -> str:
    return ", ".join(map(shown, names[:3])) + (" and more" if len(names) > 3 else "")


def _autos(modules: list[Module]) -> Iterator[str]:
    """The procedures that nobody has to start. `Main` in a module that is named like one is one, in Word."""
    for module in modules:
        for name in dict.fromkeys(_PROCEDURE.findall(_CONTINUED.sub(" ", module.source))):
            if _AUTO.fullmatch(name):
                yield name
            elif name.lower() == "main" and _AUTO.fullmatch(module.name):
                yield f"{module.name}.{name}"


def _hidden(file: Compound, modules: list[Module], source: str) -> str:
    """Why what runs may not be what the source says, or ""."""
    readable = {module.name.lower() for module in modules if module.source}
    if missing := [module.name for module in modules if module.name.lower() not in readable]:
        return f"that of {shown(missing[0])} cannot be read"
    if not any(_is_outgrown(module) for module in modules):
        return ""
    written = {name.lower() for name in _PROCEDURE.findall(source)}
    absent = sorted(name for name in set(_identifiers(file)) if _AUTO.fullmatch(name) and not _is_among(name, written))
    return f"it says nothing of {shown(absent[0])}" if absent else ""


def _is_outgrown(module: Module) -> bool:
    """Whether there is more p-code than the source of *module* can have been made into, as measured on honest files."""
    written = sum(len(line) for line in module.source.splitlines() if not line.startswith("Attribute "))
    return module.compiled > EMPTY + 4 * written


def _is_among(name: str, written: set[str]) -> bool:
    """Whether *name*, behind which up to four letters may stand that are not its own, is one of those *written*."""
    return any(name[: len(name) - tail].lower() in written for tail in range(5))


def _identifiers(file: Compound) -> Iterator[str]:
    """The names that the p-code uses: plain text in a stream whose form nobody vouches for (2.3.4.1)."""
    for entry in file.streams():
        if entry.name.lower() == "_vba_project":
            yield from (match.decode("ascii") for match in _IDENTIFIER.findall(file.read(entry, MAX_CACHE)))


def _modules(file: Compound) -> Iterator[Module]:
    """Every source that stands anywhere, and what the project's dir stream names besides."""
    seen: set[tuple[int, int]] = set()
    for entry, name, at in chain(_found(file), _named(file)):
        if (entry.start, at) not in seen:
            seen.add((entry.start, at))
            source = _source(file, entry, at)
            file.meter.steps(len(source) + 500)
            yield Module(name, source, at)


def _source(file: Compound, entry: Entry, at: int) -> str:
    """The source at *at* of a stream; "" where none can be read there."""
    try:
        return decompress(file.read(entry, MAX_STREAM), at, MAX_SOURCE).decode("latin-1")
    except Unreadable:
        return ""


def _named(file: Compound) -> Iterator[tuple[Entry, str, int]]:
    """Stream, module name and offset of the source of each module in a dir stream (2.3.4.2)."""
    streams: dict[str, list[Entry]] = {}
    for entry in file.streams():
        streams.setdefault(entry.name.lower(), []).append(entry)
    for directory in streams.get("dir", []):
        records = _records(file.read(directory, MAX_STREAM))
        file.meter.steps(len(records) + 500)
        for name, at in _listed(records):
            yield from ((entry, name, at) for entry in streams.get(name.lower(), [_NOWHERE]))


_NOWHERE = Entry("", 0, b"", 0xFFFFFFFF, 0)


def _records(directory: bytes) -> bytes:
    """What a stream of that name holds; nothing where it is none of VBA's."""
    return decompress(directory, 0, MAX_SOURCE) if directory.startswith(b"\x01") else b""


def _listed(records: bytes) -> Iterator[tuple[str, int]]:
    """Stream name and offset of each module: records of type and size (2.3.4.2.3.2), all of one form but one."""
    at, name = 0, ""
    while at + 6 <= len(records):
        kind, size = struct.unpack_from("<HI", records, at)
        body = records[at + 6 : at + 6 + size]
        if kind == 0x1A:
            name = body.decode("latin-1")
        elif kind == 0x32:
            name = body.decode("utf-16-le", "replace")
        elif kind == 0x31 and size == 4:
            yield name, int.from_bytes(body, "little")
        at += 6 + size + (2 if kind == 0x09 else 0)  # PROJECTVERSION has two octets more than it says


def _found(file: Compound) -> Iterator[tuple[Entry, str, int]]:
    """Every place where a source begins, as it does with an attribute of the module, in any stream of a VBA storage."""
    if any(entry.name.lower() in {"_vba_project", "dir", "vba"} for entry in file.entries):
        for entry in file.streams():
            for match in _BEGINS.finditer(_head(file, entry)):
                yield entry, entry.name, match.start()


def _head(file: Compound, entry: Entry) -> bytes:
    """A stream in which nobody vouches for macros; the broken ones are for those who need them."""
    try:
        return file.read(entry, MAX_CACHE)
    except Unreadable:
        return b""


def decompress(data: bytes, start: int, most: int) -> bytes:
    """The container at *start* (2.4.1), at most *most* octets and the rest of a chunk; `Unreadable` where none is."""
    if data[start : start + 1] != b"\x01":
        raise Unreadable("has macros that cannot be unpacked")
    out = bytearray()
    at = start + 1
    while at + 2 < len(data) and len(out) < most:
        head = int.from_bytes(data[at : at + 2], "little")
        if head >> 12 & 7 != 3:
            break
        end = at + 2 + ((head & 0xFFF) + 1 if head & 0x8000 else 4096)
        if head & 0x8000:
            _chunk(data[at + 2 : end], out)
        else:
            out += data[at + 2 : end]
        at = end
    if not out:
        raise Unreadable("has macros that cannot be unpacked")
    return bytes(out)


def _chunk(tokens: bytes, out: bytearray) -> None:
    """Add what *tokens* stand for (2.4.1.3.4): after each octet of flags eight tokens, literal or copied."""
    begin, at = len(out), 0
    while at < len(tokens):
        flags = tokens[at]
        at += 1
        if not flags:
            out += tokens[at : at + 8]
            at += 8
            continue
        for bit in range(8):
            if not flags >> bit & 1:
                out += tokens[at : at + 1]
                at += 1
            elif at + 2 <= len(tokens):
                _copy(tokens[at] | tokens[at + 1] << 8, out, begin)
                at += 2
            if len(out) - begin > 4096:
                raise Unreadable("has macros that cannot be unpacked")


def _copy(token: int, out: bytearray, begin: int) -> None:
    """Copy what stands some octets before (2.4.1.3.19): how many bits say where, the place in the chunk says."""
    bits = max((len(out) - begin - 1).bit_length(), 4)
    length = (token & (0xFFFF >> bits)) + 3
    back = (token >> (16 - bits)) + 1
    if back > len(out) - begin:
        raise Unreadable("has macros that cannot be unpacked")
    piece = out[-back:] if back <= length else out[-back : len(out) - back + length]
    out += (piece * (length // len(piece) + 1))[:length]

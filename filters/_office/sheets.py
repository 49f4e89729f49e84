"""Excel workbooks ([MS-XLS], and the formats before it): Excel 4 macro sheets, DDE, passwords. SYLK and CSV besides.

Only the globals of a workbook are walked, where all of that is declared, and the beginning of each sheet.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from filters._office.seen import Meter, Sight, remote, shown

BEGINNINGS = (b"\x09\0\4\0", b"\x09\0\6\0", b"\x09\2\6\0", b"\x09\4\6\0", b"\x09\x08\x08\0", b"\x09\x08\x10\0")
"""How a workbook begins that stands in no compound file (BOF of BIFF 2, 3, 4, 5 and 8)."""

_BOF = {0x0009, 0x0209, 0x0409, 0x0809}
_EOF, _NAME, _FILEPASS, _BOUNDSHEET, _SUPBOOK, _EXTERNSHEET = 0x0A, 0x18, 0x2F, 0x85, 0x1AE, 0x17
LINK = re.compile(rb"\xe8\x02(?:[\x80-\xff][\0-\x7f]|[\x06-\x7f])\x01\0")
"""How the part of a link to a program begins: BrtBeginSupBook, its size in seven bits an octet, and 1."""

_HIDDEN = ("", "hidden ", "very hidden ", "hidden ")
_MACRO_SHEET = 0x40
_AUTO = re.compile(rb"auto_?(?:open|close|activate|deactivate)", re.IGNORECASE)
_BUILT_IN = {1: "Auto_Open", 2: "Auto_Close", 10: "Auto_Activate", 11: "Auto_Deactivate"}

# A cell that begins like a formula and names a program and what to ask of it: =cmd|'/C calc'!A0
_CALL = re.compile(rb"\|[^\r\n|!]{1,400}+!")
_FORMULA = re.compile(
    rb"(?:^|[\r\n\t,;>\"'])[\" ]{0,9}[=+@-][^\r\n\t;]{0,120}?(?<![\w.])([A-Za-z][\w.]{0,60})$",
)


def look(workbook: bytes, meter: Meter) -> Iterator[Sight]:
    """What a Workbook (or Book) stream does."""
    found: dict[str, str] = {}
    version = 0
    for kind, body in _globals(workbook, meter):
        if kind in _BOF:
            version = int.from_bytes(body[:2], "little") if kind == 0x0809 else 0
        if sight := _of(kind, body, version, workbook):
            found.setdefault(*sight)
        if kind == _FILEPASS:
            break  # what follows is not readable
    if "auto" in found and "xlm" in found:
        found["xlm"] += f", and runs {found['auto']} by itself"
    yield from (Sight(code, words) for code, words in found.items() if code != "auto")


def _globals(workbook: bytes, meter: Meter) -> Iterator[tuple[int, bytes]]:
    """Type and body of each record up to the end of the globals."""
    at = 0
    kind = 0
    while kind != _EOF and at + 4 <= len(workbook):
        meter.steps(5)
        kind, size = struct.unpack_from("<HH", workbook, at)
        yield kind, workbook[at + 4 : at + 4 + size]
        at += 4 + size


def _of(kind: int, body: bytes, version: int, workbook: bytes) -> tuple[str, str] | None:
    """What one record says, as a code and words; the code "auto" is for Excel 4 macros only."""
    if kind == _FILEPASS:
        return "encrypted", "has a password"
    if kind in _BOF and int.from_bytes(body[2:4], "little") == _MACRO_SHEET:
        return "xlm", "is an Excel 4 macro sheet"
    if kind == _BOUNDSHEET and len(body) >= 6:
        return _sheet(body, workbook)
    if kind == _NAME and len(body) > 14:
        return _name(body)
    is_link = kind == _SUPBOOK or (kind == _EXTERNSHEET and version == 0x0500)
    return _link(_path(kind, body)) if is_link else None


def _sheet(body: bytes, workbook: bytes) -> tuple[str, str] | None:
    """A sheet of macros says so twice: in its entry here (2.4.28), and where it begins (2.4.21)."""
    at, state, kind = struct.unpack_from("<IBB", body)
    begins = int.from_bytes(workbook[at : at + 2], "little") in _BOF
    if kind == 1 or (begins and int.from_bytes(workbook[at + 6 : at + 8], "little") == _MACRO_SHEET):
        return "xlm", f"has a {_HIDDEN[state & 3]}sheet of Excel 4 macros"
    return None


def _name(body: bytes) -> tuple[str, str] | None:
    """A defined name (2.4.150): a flag says that it is built in, and then it is a number."""
    text = body[14:].lstrip(b"\0\1")
    if body[0] & 0x20 and (name := next((_BUILT_IN[one] for one in body[14:16] if one in _BUILT_IN), "")):
        return "auto", name
    match = _AUTO.match(text.replace(b"\0", b""))
    return ("auto", match[0].decode("ascii")) if match else None


def _path(kind: int, body: bytes) -> bytes:
    """The path in a record that links to something: a count of characters, and how wide they are, stand before it."""
    if kind == _EXTERNSHEET:
        return body[1 : 1 + body[0]] if body else b""
    count = int.from_bytes(body[2:4], "little")
    return body[5 : 5 + count * (2 if body[4:5] == b"\1" else 1)]


def _link(path: bytes) -> tuple[str, str] | None:
    """A link to a program (2.5.277): its name, the octet 3, and what it is asked for; paths of files begin with 1."""
    program, mark, _ = path.replace(b"\0", b"").partition(b"\3")
    return ("dde", f"starts {shown(program.decode('latin-1'))} by DDE") if mark and program[:1] > b"\2" else None


def binary_link(octets: bytes) -> Iterator[Sight]:
    """What a part that links to something does in a workbook of binary records ([MS-XLSB] 2.4.146: 1 is DDE)."""
    if link := LINK.match(octets):
        begin = link.end() + 4
        size = 2 * min(int.from_bytes(octets[link.end() : begin], "little"), 100)
        yield Sight("dde", f"starts {shown(octets[begin : begin + size].decode('utf-16-le', 'replace'))} by DDE")


_SYLK = re.compile(rb"(?:^|[\r\n])C;[^\r\n]{0,200};E=?([A-Za-z][\w.]{0,60})\|[^\r\n|!]{1,400}!")


def text(octets: bytes, meter: Meter) -> Iterator[Sight]:
    """What a spreadsheet that is written as text (CSV, SYLK) does."""
    for match in _CALL.finditer(octets):
        meter.steps(200)
        if formula := _FORMULA.search(octets[max(0, match.start() - 190) : match.start()]):
            yield Sight("dde", f"starts {shown(formula[1].decode('latin-1'))} by DDE, in a cell")
            break
    if octets.startswith(b"ID;") and (call := _SYLK.search(octets)):
        yield Sight("dde", f"starts {shown(call[1].decode('latin-1'))} by DDE, in a cell")
    if octets.startswith(b"ID;") and re.search(
        rb"(?:^|[\r\n])(?:O;(?:[^\r\n]{0,80};)?E|NN;N_?auto_?)", octets, re.IGNORECASE
    ):
        yield Sight("xlm", "holds Excel 4 macros, written as text")


def query(octets: bytes) -> Iterator[Sight]:
    """What a web query (.iqy) fetches: its third line is an address."""
    lines = octets[:4096].split(b"\n")
    if lines[0].strip().upper() == b"WEB" and len(lines) > 2:
        yield from remote("a table", lines[2].decode("latin-1"))

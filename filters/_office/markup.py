"""XML of office documents (OOXML, ODF, and the flat forms of both): fields, links, scripts, and files in base64.

Names of elements are searched, which nothing can write in another way; so a document costs a few searches, and values
are read only where there is something to read. What is in no encoding that we know is `Unreadable`.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Mapping
from html import unescape

from filters._office import inside, sheets
from filters._office.seen import Inner, Meter, Seen, Sight, Unreadable, fields, remote, shown
from filters._office.vba import Calls

MAX_INSIDE = 64 << 20

_ENCODING = re.compile(rb"""^\s*<\?xml[^<>]{0,100}encoding\s*=\s*["']([^"']{1,40})["']""")
_KNOWN = re.compile(rb"(?i)utf-?8|utf-?16(?:le|be)?|us-ascii|ascii|iso-8859-\d+|windows-125\d")
_STRANGE = (b"\x4c\x6f\xa7\x94", b"\0\0\0<", b"\0\0\xfe\xff", b"+ADw-")  # EBCDIC, UTF-32 and UTF-7 (XML 1.0, F.1)
# Neither "<" nor a quote of its own kind stands in the value of an attribute (XML 1.0, 2.3), so no search runs away.
_TAG = r"""<(?:[^\s<>/:"'=]++:)?(?:%s)\s((?>[^<>"']++|"[^"<]*+"|'[^'<]*+')*+)>"""
_ATTRIBUTE = re.compile(r"""([\w.-]+)\s*=\s*("[^"]*"|'[^']*')""")
_FIELD_TEXT = re.compile(r"<(?:[^\s<>/:]++:)?instrText\b[^<>]*>([^<]*(?:<[!?][^<]*)*)")
# Letters, digits and most signs; none that means something to XML itself.
_LETTER = re.compile(
    rb"&#(?:[xX]0*(2[89A-Da-fEF]|3[0-9aA]|4[1-9a-fA-F]|5[0-9aA]|5[fF]|6[1-9a-fA-F]|7[0-9aA]|7[cC])"
    rb"|0*(4[0-9]|5[0-8]|6[5-9]|[78]\d|90|95|9[7-9]|1[01]\d|12[0-24]));"
)
_BASE64 = re.compile(rb"(?:QWN0aXZlTWlt|0M8R4KGxGuE)[A-Za-z0-9+/]*")

_FETCHED = {
    "attachedTemplate": "a template",
    "oleObject": "an object",
    "package": "an object",
    "frame": "a page",
    "subDocument": "a document",
    "aFChunk": "a document",
    "control": "a control",
    "vbaProject": "macros",
}
"""What Office fetches by itself for relationships (ISO 29500-1) that lead out of the file; pictures run nothing."""
_SHARE = re.compile(r"\s*(?:file:)?[\\/]{2,}+(?![a-z][:|])", re.IGNORECASE)
"""Pictures from the web run nothing; asked for one on a share, Windows sends the name and the hashed password."""
_OWN = "object|object-ole|floating-frame|plugin|applet|template|section-source|cell-range-source"
_ASKED = ("performaction", "click", "dblclick", "mousedown", "mouseup", "press")
_MACRO_SHEET = re.compile(r"vnd\.ms-excel\.(?:intl)?macrosheet|relationships/xl(?:Intl)?Macrosheet", re.IGNORECASE)


def look(data: bytes, calls: Calls, meter: Meter) -> Seen:
    """What the XML *data* does, and the files in it."""
    octets = _spelt(_plain(data), meter)
    for mark, reader in _READERS:
        if mark in octets:
            yield from reader(octets.decode("utf-8", "replace"), meter)
    if b":module" in octets:
        yield from _basic(octets.decode("utf-8", "replace"), calls)
    if b"inaryData" in octets or b"binData" in octets or b"binary-data" in octets:
        yield from encoded(re.sub(rb"&#(?:x0*([0-9A-Fa-f]{2})|0*(\d{2,3}));", _character, octets))


def _spelt(octets: bytes, meter: Meter) -> bytes:
    """*octets* with letters where there were references to them, which may stand in every value."""
    meter.steps(3 * octets.count(b"&#"))
    return _LETTER.sub(_character, octets) if b"&#" in octets else octets


def _character(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 16) if match[1] else int(match[2]) & 255])


def _plain(data: bytes) -> bytes:
    """*data* in UTF-8, or in an encoding that has ASCII where ASCII has it."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace").encode("utf-8", "replace")
    if data[:2] in {b"<\0", b"\0<"}:
        return data.decode("utf-16-le" if data[1] == 0 else "utf-16-be", "replace").encode("utf-8", "replace")
    octets = data.removeprefix(b"\xef\xbb\xbf")
    declared = _ENCODING.match(octets[:300])
    if octets.startswith(_STRANGE) or (declared and not _KNOWN.fullmatch(declared[1])):
        raise Unreadable("has XML in an encoding that office documents do not have")
    return octets


def _tags(name: str, text: str, meter: Meter) -> Iterator[Mapping[str, str]]:
    """The attributes of each element *name*, by their names without prefix."""
    for match in re.finditer(_TAG % name, text):
        meter.steps(40)
        yield {key.rpartition(":")[2]: unescape(value[1:-1]) for key, value in _ATTRIBUTE.findall(match[1])}


def _relationships(text: str, meter: Meter) -> Iterator[Sight]:
    """What lies outside the file and is fetched (ISO 29500-2, 9.3)."""
    for tag in _tags("Relationship", text, meter):
        if tag.get("TargetMode", "").lower() == "external":
            target = tag.get("Target", "")
            what = _FETCHED.get(tag.get("Type", "").rpartition("/")[2], "")
            if not what and re.match(r"\s*(?:mhtml|x-usc|ms-\w+|search-ms|script):", target, re.IGNORECASE):
                what = "a page"
            if not what and tag.get("Type", "").endswith("/image") and _SHARE.match(target):
                what = "a picture"
            if what:
                yield from remote(what, target)


def _fields(text: str, meter: Meter) -> Iterator[Sight]:
    """The codes of all fields, in one piece: a program may be spread over many elements."""
    pieces = []
    for match in _FIELD_TEXT.finditer(text):
        meter.steps(10)
        if "<!--" in match[1] or "<?" in match[1]:
            raise Unreadable("has field codes that are torn apart by what nobody writes there")
        pieces.append(match[1].replace("<![CDATA[", "").replace("]]>", ""))
    pieces += [f" {tag.get('instr', '')} " for tag in _tags("fldSimple", text, meter)]
    yield from fields(unescape("".join(pieces)))


def _formulas(text: str, meter: Meter) -> Iterator[Sight]:
    yield from sheets.text(unescape(text).encode("utf-8", "replace"), meter)


def _calls_of_the_web(_text: str, _meter: Meter) -> Iterator[Sight]:
    yield Sight("remote", "fetches what a formula asks the web for")


def _connections(text: str, meter: Meter) -> Iterator[Sight]:
    """Pages that a workbook reads its figures from (ISO 29500-1, 18.13); few do so before anybody asks."""
    if any(tag.get("refreshOnLoad") in {"1", "true"} for tag in _tags("connection", text, meter)):
        for tag in _tags("webPr", text, meter):
            yield from remote("a page", tag.get("url", ""))


def _dde_links(text: str, meter: Meter) -> Iterator[Sight]:
    for tag in _tags("ddeLink", text, meter):
        yield Sight("dde", f"starts {shown(tag.get('ddeService', ''))} by DDE")


def _dde_sources(text: str, meter: Meter) -> Iterator[Sight]:
    for tag in _tags("dde-source|dde-connection-decl|dde-link", text, meter):
        if program := tag.get("dde-application", ""):
            yield Sight("dde", f"starts {shown(program)} by DDE")


def _macro_sheets(text: str, _meter: Meter) -> Iterator[Sight]:
    if _MACRO_SHEET.search(text):
        yield Sight("xlm", "has a sheet of Excel 4 macros")


def _ribbon(text: str, meter: Meter) -> Iterator[Sight]:
    for tag in _tags("customUI", text, meter):
        if name := tag.get("onLoad", ""):
            yield Sight("macro_auto", f"runs {shown(name)} by itself")


def _actions(_text: str, _meter: Meter) -> Iterator[Sight]:
    yield Sight("program", "starts a program where it is clicked or pointed at")


def _controls(text: str, _meter: Meter) -> Iterator[Sight]:
    for match in re.finditer(r"""classid\s*=\s*["'](?:clsid:)?\{?([0-9A-F-]{36})""", text, re.IGNORECASE):
        yield from inside.of_class(match[1].upper())


def _listeners(text: str, meter: Meter) -> Iterator[Sight]:
    """What an event of an ODF document starts (OpenDocument 1.3, 14.4)."""
    for tag in _tags("event-listener", text, meter):
        event = tag.get("event-name", "").rpartition(":")[2].lower()
        if event not in _ASKED and "script" in tag.get("href", tag.get("macro-name", "script")):
            yield Sight("macro_auto", f"runs a macro by itself ({shown(event)})")


def _fetched(text: str, meter: Meter) -> Iterator[Sight]:
    for tag in _tags(_OWN, text, meter):
        yield from remote("a part of itself", tag.get("href", ""))


def _basic(text: str, calls: Calls) -> Iterator[Sight]:
    """The source of a Basic module of an ODF document."""
    if re.search(r"<(?:[^\s<>/:]++:)?module\s[^<>]*language\s*=", text):
        called = calls.within(unescape(text))
        if called:
            yield Sight("macro_suspicious", f"holds macros that call {', '.join(map(shown, called[:3]))}")
        else:
            yield Sight("macro", "holds macros")


_READERS = (
    (b"Relationship", _relationships),
    (b"instrText", _fields),
    (b"fldSimple", _fields),
    (b"ddeLink", _dde_links),
    (b"Formula", _formulas),
    (b"WEBSERVICE(", _calls_of_the_web),
    (b"refreshOnLoad", _connections),
    (b"dde-application", _dde_sources),
    (b"acrosheet", _macro_sheets),
    (b"customUI", _ribbon),
    (b"ppaction://program", _actions),
    (b"classid", _controls),
    (b"event-listener", _listeners),
    (b"opendocument", _fetched),
)


def encoded(data: bytes) -> Iterator[Inner]:
    """The compound files that stand in *data* in base64, as themselves or as ActiveMime, across line ends."""
    left = MAX_INSIDE
    for match in _BASE64.finditer(data.translate(None, b" \t\r\n")):
        octets = binascii.a2b_base64(match[0][: len(match[0]) & ~3])
        inner = inside.active_mime(octets, left) if octets.startswith(b"ActiveMim") else Inner(octets)
        left -= len(inner.octets)
        yield inner

"""The grammar of MIME header fields (RFC 2045, 2047, 2183, 2231), read tolerantly and within bounds. No bodies."""

from __future__ import annotations

import binascii
import codecs
import encodings.aliases
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, wraps
from typing import Any, NamedTuple, TypeVar, cast
from urllib.parse import unquote, unquote_to_bytes

MAX_VALUE = 16384
MAX_WORDS = 200
MAX_SHOWN = 4096
MAX_NAME = 1000
COMMON = 200
"""Characters of a value that may be remembered: each is asked for several times, and most mails have the same."""

_Reader = TypeVar("_Reader", bound=Callable[..., Any])


def _remembered(reader: _Reader) -> _Reader:
    """*reader*, which remembers what it made of the last short values."""
    known = lru_cache(maxsize=64)(reader)

    def read(value: str, *more: str) -> Any:
        return known(value, *more) if len(value) <= COMMON else reader(value, *more)

    return cast("_Reader", wraps(reader)(read))


_BYTE_ORDER = b"\xff\xfe\xef\xbb\xbf"
_EBCDIC = frozenset({"cp037", "cp273", "cp424", "cp500", "cp875", "cp1026", "cp1140"})
_ALLOWED = frozenset(
    {
        *("ascii", "utf_8", "utf_16", "utf_16_be", "utf_16_le", "utf_32", "utf_32_be", "utf_32_le", "latin_1"),
        *(f"iso8859_{number}" for number in (*range(2, 12), *range(13, 17))),
        *(f"cp125{number}" for number in range(9)),
        *("cp437", "cp850", "cp852", "cp855", "cp866", "cp874", "koi8_r", "koi8_u", "mac_roman", "tis_620"),
        *("gb2312", "gbk", "gb18030", "hz", "big5", "big5hkscs", "cp949", "cp950", "euc_jp", "euc_kr", "iso2022_jp"),
        *_EBCDIC,
        *("iso2022_jp_1", "iso2022_jp_2", "iso2022_jp_3", "iso2022_kr", "shift_jis", "cp932", "johab"),
    }
)
"""Codecs that only make text of octets, as Python names them. Never utf-7, idna, unicode_escape, zlib ..."""

_MEDIA_TYPE = re.compile(r"\s*([A-Za-z0-9!#$&^_.+-]{1,80})/([A-Za-z0-9!#$&^_.+-]{1,80})")
_WORD = re.compile(r"=\?([A-Za-z0-9_-]{1,40})(?:\*[A-Za-z-]{1,20})?\?([BbQq])\?([^? ]{0,1000})\?=")
_PARAMETER = re.compile(r';\s*([^\s=;"]{1,80})\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)', re.DOTALL)
_LOOSE_NAME = re.compile(r'name[*0-9]{0,5}\s{0,20}=\s{0,20}"?([^";]{1,1000})', re.IGNORECASE)
_BARE_NAME = re.compile(
    r'name\*?\s{0,20}=\s{0,20}(?:\([^)]{0,100}\)\s{0,20}"?)?([^\s\x00-\x1f()<>@,;:\\"/\[\]?=]{1,1000})', re.IGNORECASE
)
_PLACE = re.compile(r"[^\s:/]{1,1000}")
_OUT_OF_PLACE = "\"'" + "".join(map(chr, range(32)))
"""What stands around a name where it is quoted wrongly."""
_UTF_7 = re.compile("utf-?7", re.IGNORECASE)
_SECTION = re.compile(r"([^*]+)(?:\*(\d{1,3}))?(\*)?")


_SHOWN = re.compile(rb"^(subject|from|message-id)[ \t]*:((?:[^\r\n]+|\r\n[ \t])*)", re.IGNORECASE | re.MULTILINE)


_SHOWN_NAMES = (b"subject", b"from", b"message-id")


class Shown(NamedTuple):
    """What lists of mail show of a header, on one line each and as people read it."""

    subject: str
    sender: str
    message_id: str


def shown(block: bytes) -> Shown:
    """The first Subject, From and Message-ID of the header *block*, whatever else stands there; "" for each missing."""
    found: dict[bytes, bytes] = {}
    for name, value in _SHOWN.findall(block):
        found.setdefault(name.lower(), value[:MAX_SHOWN])
    subject, sender, message_id = (found.get(name, b"").replace(b"\r\n", b"").strip() for name in _SHOWN_NAMES)
    return Shown(decode_words(raw_text(subject)), raw_text(sender), raw_text(message_id))


def raw_text(value: bytes) -> str:
    """The octets of a field as text: UTF-8 (RFC 6532), or what old programs write instead."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


class Field(NamedTuple):
    """One header field, unfolded."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Header:
    """The fields of an entity; `body` is the offset at which its body begins."""

    fields: tuple[Field, ...]
    body: int
    by_name: dict[str, list[str]] = field(init=False, repr=False, compare=False, default_factory=dict)
    """The values of each field, in order, by its name in lower case."""

    def __post_init__(self) -> None:
        for one in self.fields:
            self.by_name.setdefault(one.name.lower(), []).append(one.value)

    def all(self, name: str) -> list[str]:
        """Every value of the field *name* (lower case), in order."""
        return self.by_name.get(name, [])

    def first(self, name: str) -> str:
        """The first value of the field *name*, or ""."""
        return self.by_name.get(name, [""])[0]


def media_type(value: str) -> str:
    """The type and subtype of a Content-Type value in lower case, or "" where it has none."""
    match = _MEDIA_TYPE.match(value)
    return f"{match[1]}/{match[2]}".lower() if match else ""


@_remembered
def parameters(value: str) -> Mapping[str, str]:
    """The parameters of a Content-Type or Content-Disposition value, the forms of RFC 2231 joined; the first wins."""
    pieces: dict[str, dict[int, tuple[str, bool]]] = {}
    for name, place, text, extended in _sections(value):
        pieces.setdefault(name, {}).setdefault(place or 0, (text, extended))
    return {name: _joined(parts) for name, parts in pieces.items()}


@_remembered
def readings(value: str, wanted: str) -> tuple[str, ...]:
    """Every distinct value that the parameter *wanted* is given: readers differ on which of several counts."""
    alone: list[str] = []
    first: dict[int, tuple[str, bool]] = {}
    last: dict[int, tuple[str, bool]] = {}
    for name, place, text, extended in _sections(value):
        if name == wanted and place is None:
            alone.append(_joined({0: (text, extended)}))
        elif name == wanted and place is not None:
            first.setdefault(place, (text, extended))
            last[place] = (text, extended)
    return tuple(dict.fromkeys([*alone, *(_joined(sections) for sections in (first, last) if sections)]))


def _sections(value: str) -> Iterator[tuple[str, int | None, str, bool]]:
    """Name, number (None where it has none), text, and whether it is extended, of each parameter (RFC 2231 3, 4)."""
    for name, raw in _PARAMETER.findall(value[:MAX_VALUE]):
        if section := _SECTION.fullmatch(name.lower()):
            yield section[1], int(section[2]) if section[2] else None, _unquoted(raw), bool(section[3])


def _unquoted(raw: str) -> str:
    raw = raw.strip()
    return re.sub(r"\\(.)", r"\1", raw[1:-1]) if len(raw) > 1 and raw[0] == raw[-1] == '"' else raw


def _joined(parts: dict[int, tuple[str, bool]]) -> str:
    """Put the sections of one parameter together (RFC 2231 3, 4): an extended first one names the charset."""
    charset, joined = "utf-8", b""
    for place in sorted(parts):
        text, extended = parts[place]
        if extended and place == min(parts) and text.count("'") >= 2:
            charset, _, text = text.split("'", 2)
        joined += unquote_to_bytes(text) if extended else text.encode("utf-8", "replace")
    return decode_text(joined, charset)


def decode_text(raw: bytes, charset: str) -> str:
    """*raw* by a codec of the allow-list, UTF-8 where *charset* is "", Latin-1 where it names another; never raises."""
    codec = codec_of(charset or "utf-8")
    try:
        return raw.decode(codec or "latin-1", "replace")
    except UnicodeError:  # UTF-16 without a second octet and the like, which "replace" does not mend
        return raw.decode("latin-1")


def in_ascii(raw: bytes, charset: str) -> bytes:
    """The text *raw* so that what is ASCII in it stands there as ASCII: of UTF-16 and UTF-32, in whatever order and
    under whatever name, without its NUL octets. What tells the order is gone, so that a line begins there."""
    codec = codec_of(charset) if charset else ""
    if codec in _EBCDIC:
        return decode_text(raw, charset).replace("\x85", "\n").encode("utf-8")
    if charset and _UTF_7.search(charset):
        return raw.decode("utf-7", "replace").encode("utf-8", "replace")
    return (raw.replace(b"\0", b"") if b"\0" in raw else raw).lstrip(_BYTE_ORDER)


@_remembered
def codec_of(charset: str) -> str:
    """The codec of the allow-list that *charset* means, or ""."""
    return _BY_NAME.get(_bare(charset), "")


def _bare(charset: str) -> str:
    return re.sub("[^a-z0-9]", "", charset[:60].lower())


_BY_NAME = {
    **{_bare(codec): codec for codec in _ALLOWED},
    **{_bare(alias): codec for alias, codec in encodings.aliases.aliases.items() if codec in _ALLOWED},
    "iso88598i": "iso8859_8",
    "iso88598e": "iso8859_8",
    "xsjis": "shift_jis",
    "xgbk": "gbk",
}


def prepare() -> None:
    """Import every codec that a mail may name: later nothing can be imported."""
    for codec in (*_ALLOWED, "utf-7"):
        codecs.lookup(codec)


def boundary_of(header: Header) -> bytes:
    """The boundary of a multipart as octets, or b"" where it has none that can be used (RFC 2046 5.1.1)."""
    boundary = next(iter(readings(header.first("content-type"), "boundary")), "").rstrip()
    return boundary.encode("utf-8") if 0 < len(boundary) <= 200 else b""


def exceeds(header: Header, most: int) -> bool:
    """Whether a field of *header* that describes the content has more than *most* parameters."""
    values = [value for name in ("content-type", "content-disposition") for value in header.all(name)]
    return any(value.count(";") > most < len(_PARAMETER.findall(value)) for value in values)


def is_ambiguous(header: Header) -> bool:
    """Whether the fields can be read as different types or boundaries, so that readers see different parts."""
    values = header.all("content-type")
    if not values and not header.all("content-disposition"):
        return False
    boundaries = {boundary.rstrip() for value in values for boundary in readings(value, "boundary")}
    doubtful = any(re.search(r'"|=\?', boundary) for boundary in boundaries)
    bare = [
        one for one in boundaries for value in values if f'"{one}' not in value
    ]  # blank or comment: its end, or not
    doubtful |= any(re.search(r" |\(.*\)$", boundary) for boundary in bare)
    described = values + header.all("content-disposition")
    too_long = any(len(value) > MAX_VALUE or value.count("=?") > MAX_WORDS for value in described)
    return len({media_type(value) for value in values}) > 1 or len(boundaries) > 1 or doubtful or too_long


def filenames(header: Header) -> list[str]:
    """Every distinct name that the fields give to a part: one, if all is well."""
    named = [name for value in header.all("content-disposition") for name in _names(value, "filename")]
    named += [name for value in header.all("content-type") for name in _names(value, "name")]
    named = named or [value for value in header.all("content-location") if _PLACE.fullmatch(value)]
    return list(dict.fromkeys(shown for name in named if name for shown in _shown_as(name))) if named else []


def _shown_as(name: str) -> list[str]:
    """*name* decoded; where that leaves an encoded word, decoded twice, or with blanks, which it may not have; in
    UTF-7, which some know; and where it is written as in an address, as a page would link to it."""
    names = [decode_words(name)]
    if "=?" in names[0]:
        names.append(decode_words(names[0].replace(" ", "_")))
    if "%" in names[0] and suffix(unquoted := unquote(names[0])) != suffix(names[0]):
        names.append(unquoted)
    if _UTF_7.search(name):
        decoded = names[0].encode("latin-1", "replace").decode("utf-7", "replace")
        names.append(decoded.encode("utf-8", "replace").decode("utf-8"))  # it makes halves of characters, too
    return names


@_remembered
def _names(value: str, parameter: str) -> Sequence[str]:
    """The values of *parameter*; where the grammar shows none, what a forgiving reader would take for one."""
    named = readings(value, parameter) or [match.strip() for match in _LOOSE_NAME.findall(value[:MAX_VALUE])]
    named = [name.strip(_OUT_OF_PLACE) for name in named]
    kinds = {"", *map(suffix, named)}
    return named + [name for name in _BARE_NAME.findall(value[:MAX_VALUE]) if suffix(name) not in kinds]


def suffix(name: str) -> str:
    """What tells the kind of a file, in lower case and without its dot; "" where *name* has none."""
    name = file_name(decode_words(name)).rstrip(" .").lower()
    return name.rpartition(".")[2] if "." in name else ""


def decode_words(value: str) -> str:
    """*value* with its encoded words decoded (RFC 2047), the white space between two of them gone."""
    if "=?" not in value:
        return value
    joined = re.sub(r"(\?=)\s+(=\?)", r"\1\2", value[:MAX_VALUE])
    return _WORD.sub(lambda match: _word(match[1], match[2], match[3]), joined, count=MAX_WORDS)


def _word(charset: str, encoding: str, text: str) -> str:
    try:
        if encoding in "Bb":
            return decode_text(binascii.a2b_base64(text + "=" * (-len(text) % 4)), charset)
        return decode_text(binascii.a2b_qp(text, header=True), charset)
    except (binascii.Error, ValueError):
        return text


def file_name(text: str) -> str:
    """A file's name without control characters, and without the middle of a long one. Bidirectional ones stay: that a
    name turns round is for filters."""
    text = text if len(text) <= MAX_NAME else text[: MAX_NAME // 2] + text[-MAX_NAME // 2 :]
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", text)

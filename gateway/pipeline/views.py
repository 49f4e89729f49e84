"""What do others see in an odd mail, that we do not? Two parsers of others, and whatever stands in it at all.

The rule: what anybody sees is a part, and scanned by itself; where one program sees a file and another does not, that
is said (`ambiguities`). What others get to read is bounded: of base64 that can be read in one way only, the beginning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from email import message_from_bytes
from itertools import islice
from mmap import mmap
from typing import NamedTuple

import fast_mail_parser

from gateway.pipeline import embedded
from gateway.pipeline.embedded import loose_base64, loose_quoted, otherwise
from gateway.pipeline.gathered import Gathered, digest_of
from gateway.pipeline.mime import Field, Header, filenames, raw_text, suffix
from gateway.pipeline.sniff import PREFIX, sniff
from gateway.pipeline.tray import Unscannable

Buffer = bytes | mmap

LONG = 64 << 10
"""Octets of plain base64 that others get to read of each part."""
MAX_READ = 4 << 20
"""Octets of an odd mail that are read in every way; what is larger is not scanned."""
MAX_SECTIONS = 2000
MAX_PADDINGS = 200_000
"""Places at which base64 may be padded: some writers do so at the end of every line."""
MAX_HEADERS = 4
"""Header blocks behind one another that a section may begin with: those of messages in messages."""
MAX_KINDS = 50
MAX_NO_FIELDS = 2
"""Lines in a header that are no fields, at which it may end."""

_LINE_OF_DASHES = re.compile(rb"\n[ \t>]{0,4}--[^\r\n]*")
_BORDER = re.compile(
    rb"\n[ \t>]{0,4}--"
    rb"(?:[^\r\n]+--[ \t]*(?=\r?\n|\Z)|[^\r\n]*(?=\r?\n[!-9;-~]{1,80}[ \t]*:)|[^\r\n]+(?=\r?\n\r?\n))"
)
"""Such a line that closes, or has a header behind it: others may stand in a body."""
_EMPTY_LINE = re.compile(rb"\r?\n[ \t]*\r?\n")
_ENTITY = re.compile(rb"content[-_][a-z]", re.IGNORECASE)
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_BASE64 = _ALPHABET + b"=\r\n"
_FIELD = re.compile(rb"[ \t]|[!-9;-~]{1,80}[ \t]*:")
"""Where a header goes on behind what may be its end: in a field, or in the next line of one."""
_HOLDS_PARTS = re.compile("multipart/.*|message/(?:rfc822|global|news|partial|external-body)")
_NO_FIELD = re.compile(rb"\r?\n(?=[^\r\n: \t]{1,1000}(?:\r?\n|\Z))")
_KIND = re.compile(rb"content-type\s{0,20}:\s{0,20}([a-z]{1,40}/[a-z0-9.+_-]{1,80})", re.IGNORECASE)


class Leaf(NamedTuple):
    """Where a body stands that we have read, how it is encoded, and what is known of it.

    `plain`: it can be read in one way only; `is_file`: people would open it rather than read it.
    """

    path: str
    start: int
    end: int
    encoding: str
    plain: bool
    is_file: bool


class Seen(NamedTuple):
    """What somebody sees, decoded. `kind` and `name` are as he reads them, "" for none."""

    octets: bytes
    kind: str = ""
    name: str = ""

    @property
    def is_file(self) -> bool:
        """Whether people would open it rather than read it."""
        return bool(self.octets.strip()) and is_file(self.name, self.kind, sniff(self.octets[:PREFIX]))


def is_file(name: str, kind: str, sniffed: str) -> bool:
    """Whether people would open what is called, declared and begins so, rather than read it."""
    return bool(name) or not kind.startswith("text/") or not f"{sniffed}text/".startswith("text/")


def prepare() -> None:
    """Have the parsers of others import what they import when they are first used."""
    for encoding in ("base64", "quoted-printable", "x-uuencode"):
        mail = f"Content-Type: a/b; name*=utf-8''a\nContent-Transfer-Encoding: {encoding}\n\nQQ==\n".encode()
        for reader in READERS.values():
            list(reader(mail))


def compare(data: Buffer, leaves: list[Leaf], found: Gathered) -> None:
    """Add to *found* what others see in the message *data*, and we do not in *leaves*, and say where they differ."""
    message, leaves = _abridged(data, leaves)
    if len(message) > MAX_READ:
        raise Unscannable("an odd mail is too large to be read as others may read it")
    found.known.update(_readings(message, leaves))
    bodies = [(message[leaf.start : leaf.end], leaf.encoding) for leaf in leaves if leaf.is_file]
    files = {digest_of(_decoded(*body)) for body in bodies if not _is_torn(*body)}
    for name, reader in READERS.items():
        _compare(name, read_by(reader, message), files, found)
    for seen in _anywhere(message, leaves):
        _add(seen, "anywhere", found)


def _compare(view: str, seen: list[Seen] | None, files: set[bytes], found: Gathered) -> None:
    """What one reader sees beside what we see. One that cannot read the mail shows nothing to anybody."""
    if seen is None:
        return
    if files - {digest_of(one.octets) for one in seen}:
        found.ambiguous("one mail program does not see a file that another sees")
    for one in seen:
        if one.is_file and digest_of(one.octets) not in found.known:
            found.ambiguous(f"one mail program sees a file that another does not ({view})")
        elif one.is_file and _is_new(one.name, found):
            found.ambiguous(f"one mail program sees another kind of name than the next ({view})")
        _add(one, view, found)


def _add(seen: Seen, view: str, found: Gathered) -> None:
    """Make a part of what is new, or has a kind of name that is new."""
    if seen.octets.strip() and (digest_of(seen.octets) not in found.known or _is_new(seen.name, found)):
        found.file(seen.name, seen.octets, view, view)


def _is_new(name: str, found: Gathered) -> bool:
    return bool(name) and suffix(name) not in found.kinds() | {""}


def _abridged(data: Buffer, leaves: list[Leaf]) -> tuple[bytes, list[Leaf]]:
    """*data* without the ends of long plain base64, and where *leaves* stand in that."""
    pieces, moved, at, gone = [], [], 0, 0
    for leaf in leaves:
        stop = _cut(data, leaf)
        moved.append(leaf._replace(start=leaf.start - gone, end=stop - gone))
        if stop < leaf.end:
            pieces.append(bytes(data[at:stop]))
            at, gone = leaf.end, gone + leaf.end - stop
    if len(data) - at + sum(map(len, pieces)) > MAX_READ:
        raise Unscannable("an odd mail is too large to be read as others may read it")
    return b"".join([*pieces, bytes(data[at:])]), moved


def _cut(data: Buffer, leaf: Leaf) -> int:
    """Where the beginning of *leaf* ends: behind a line and a group of four, or at its end."""
    if leaf.encoding != "base64" or not leaf.plain or leaf.end - leaf.start <= LONG:
        return leaf.end
    head = bytes(data[leaf.start : leaf.start + LONG])
    for _ in range(4):
        head = head[: max(0, head.rfind(b"\r\n"))]
        if head and len(head.translate(None, b"\r\n")) % 4 == 0:
            return leaf.start + len(head)
    return leaf.end


def _readings(message: bytes, leaves: list[Leaf]) -> Iterator[bytes]:
    """The digests of what we see, as it stands there and decoded."""
    for leaf in leaves:
        raw = message[leaf.start : leaf.end]
        yield digest_of(raw)
        yield digest_of(_decoded(raw, leaf.encoding))


def _decoded(raw: bytes, encoding: str) -> bytes:
    if encoding == "base64":
        return loose_base64(raw)
    return loose_quoted(raw) if encoding == "quoted-printable" else raw


def _is_torn(raw: bytes, encoding: str) -> bool:
    """Whether *raw* breaks off where some readers give up decoding: in mails that a bounce gives back in part."""
    return encoding == "base64" and (len(raw) - len(raw.translate(None, _ALPHABET))) % 4 == 1


def read_by(reader: Callable[[bytes], Iterator[Seen]], message: bytes) -> list[Seen] | None:
    """Everything that *reader* sees; None where it cannot read the message."""
    try:
        return list(reader(message))
    except (fast_mail_parser.ParseError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _library(message: bytes) -> Iterator[Seen]:
    """As Python's standard library reads mail, and many programs with it."""
    for part in message_from_bytes(message).walk():
        if not part.is_multipart():
            payload = part.get_payload(decode=True)
            octets = payload if isinstance(payload, bytes) else b""
            yield Seen(octets, part.get_content_type(), str(part.get_filename() or ""))


def _mailparse(message: bytes) -> Iterator[Seen]:
    """As mailparse reads it, on which programs in Rust are built."""
    waiting = [fast_mail_parser.parse_email_tree(message, mode="lazy")]
    while waiting:
        part = waiting.pop()
        waiting += reversed(part.children)
        if not part.children and part.content is not None:
            yield Seen(part.content, part.content_type.lower(), part.filename)


READERS: dict[str, Callable[[bytes], Iterator[Seen]]] = {"library": _library, "mailparse": _mailparse}


def _anywhere(message: bytes, leaves: list[Leaf]) -> Iterator[Seen]:
    """What stands in *message* at all, whatever its fields and boundaries say: between any two lines that begin with
    dashes, behind anything like a header, in every encoding that one of its fields may mean."""
    for leaf in leaves:
        if leaf.encoding == "base64" and not leaf.plain:
            yield from map(Seen, _otherwise(message[leaf.start : leaf.end]))
    for file in embedded.files(message, MAX_READ):
        yield Seen(file.octets, "", file.name)
    for start, end in dict.fromkeys([*_sections(_LINE_OF_DASHES, message), *_sections(_BORDER, message)]):
        yield from _section(message, start, end, leaves)


def _sections(border: re.Pattern[bytes], message: bytes) -> Iterator[tuple[int, int]]:
    """Where what stands between two borders begins and ends."""
    lines = border.finditer(b"\n" + message)  # a border begins with one octet: such are found far quicker
    ends = [(_line_end(message, line.start() - 1), line.end() - 1) for line in islice(lines, MAX_SECTIONS + 1)]
    if len(ends) > MAX_SECTIONS:
        raise Unscannable("an odd mail has too many lines that may part it")
    for (_, start), (end, _) in zip([(0, 0), *ends], [*ends, (len(message), 0)], strict=True):
        yield start, end


def _line_end(message: bytes, at: int) -> int:
    """Where the line ends whose LF stands *at* (-1: before the first line): at its CR, if it has one."""
    return max(0, at - (message[max(0, at - 1) : at] == b"\r"))


def _section(message: bytes, start: int, end: int, leaves: list[Leaf]) -> Iterator[Seen]:
    """Each way to part a header from a body, up to four headers deep; some end a header at a line that is no field."""
    at = start
    for _ in range(MAX_HEADERS):
        blank = _EMPTY_LINE.search(message, at, end)
        for line in islice(_NO_FIELD.finditer(message, at, blank.start() if blank else end), MAX_NO_FIELDS):
            if _ENTITY.search(head := message[start : line.start()]):
                yield from _body(head, message[line.end() : end], _is_read(line.end(), end, leaves))
        if not blank:
            break
        head = message[start : blank.start()]
        if _ENTITY.search(head):
            yield from _body(head, message[blank.end() : end], _is_read(blank.end(), end, leaves))
        if not _FIELD.match(message, blank.end()):
            break
        at = blank.end()


def _is_read(start: int, end: int, leaves: list[Leaf]) -> bool:
    """Whether the octets from *start* to *end* are part of what we have read as it stands there."""
    return any(leaf.start <= start and end <= leaf.end for leaf in leaves if leaf.encoding not in {"base64", "x"})


def _body(head: bytes, body: bytes, is_read: bool) -> Iterator[Seen]:
    """*body* in every encoding that *head* may mean, and by every name."""
    kinds, names = _KIND.findall(head), _names(head)
    kind = (kinds[-1] if kinds else b"").decode("ascii").lower()
    meant = head.translate(None, b" \t\r\n").lower()
    bodies = [loose_base64(body), *_otherwise(body)] if b"base64" in meant else []
    if b"quoted" in meant:
        bodies.append(loose_quoted(body))
    if not ((is_read and not names) or _is_encoded(body)) and not _HOLDS_PARTS.fullmatch(kind):
        bodies.append(body)
    for octets in bodies:
        yield from (Seen(octets, kind, name) for name in names or [""])


def _names(head: bytes) -> list[str]:
    """The names that stand in *head*, whatever the fields are called, one of each kind."""
    lines = [line for line in re.split(rb"\r?\n(?![ \t])", head) if b"name" in line.lower()]
    fields = (Field(field, raw_text(line)) for line in lines for field in ("content-disposition", "content-type"))
    names = {suffix(name): name for name in filenames(Header(tuple(fields), 0))}
    if len(names) > MAX_KINDS:
        raise Unscannable("an odd mail gives one file too many kinds of name")
    return list(names.values())


def _otherwise(body: bytes) -> list[bytes]:
    if body.count(b"=") > MAX_PADDINGS:
        raise Unscannable("base64 in an odd mail is padded in too many places")
    return otherwise(body)


def _is_encoded(body: bytes) -> bool:
    return b"=" not in body[:-4] and not body.translate(None, _BASE64)

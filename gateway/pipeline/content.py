"""The bytes of a message -> `Content`. The only place that decodes MIME; it runs in the confined child.

A scanner of our own walks the bytes and keeps to its limits; what exceeds one makes the mail `unscannable`, and what
contradicts the grammar becomes a defect. Nothing here trusts a name, a length or a type that the message declares.
What is odd is read again as others would read it (`views.py`).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from mmap import mmap
from typing import BinaryIO

from gateway.events import clean
from gateway.model import Content, Part
from gateway.pipeline import author, decoded, libarchive, openpgp, views
from gateway.pipeline.embedded import loose_base64, loose_quoted
from gateway.pipeline.gathered import SIGNED, Gathered
from gateway.pipeline.mime import (
    Field,
    Header,
    boundary_of,
    codec_of,
    decode_text,
    decode_words,
    exceeds,
    file_name,
    filenames,
    in_ascii,
    is_ambiguous,
    media_type,
    parameters,
    raw_text,
    suffix,
)
from gateway.pipeline.plain import plain_around, plain_base64, plain_boundary, plain_header, plain_quoted
from gateway.pipeline.sniff import OPENED, PREFIX, is_message, sniff
from gateway.pipeline.tray import Tray, Unscannable
from gateway.stages import Content as ContentPolicy

Buffer = bytes | mmap
Limits = ContentPolicy.Settings

_MESSAGES = {"message/rfc822", "message/global", "message/news"}
_ENCODED = {"base64", "quoted-printable"}
_ENCODINGS = {"", "7bit", "8bit", "binary", *_ENCODED}
_UU = {"x-uuencode", "uuencode", "x-uue", "uue"}
_SIGNED = {"application/pkcs7-mime", "application/x-pkcs7-mime"}
_PACKED_TEXTS = {"application/mac-binhex40", "application/x-uuencode", "application/x-yenc"}
_PACKED_NAMES = (".uu", ".uue", ".xxe", ".hqx", ".b64", ".mim", ".yenc", ".ntx")
_PAGES = {"text/html", "image/svg+xml"}
_PAGE_NAMES = (".htm", ".html", ".xhtml", ".shtml", ".svg", ".hta", ".mht", ".mhtml")
_MAIL_NAMES = (".eml", ".mht", ".mhtml", ".nws")
_FIELDS = re.compile(rb"\n[ \t>]{0,4}content-[a-z]")  # in lower case: far quicker
_USUAL = re.compile(rb"\s{0,9}this is an? [a-z -]{0,40}message in mime format[ .\r\n-]{0,20}", re.IGNORECASE)
_LINE_END = re.compile(rb"\r\n(?![ \t])")
_FIELD = re.compile(rb"([!-9;-~]+)([ \t]*):")
_MEANT = re.compile("base64|quoted|uu|yenc|binhex", re.IGNORECASE)
SCANNED_DEPTH = 8
"""So deep a scanner looks for certain, with archives in archives as well: clamd looks 17 deep, and counts them all."""
MAX_LINE = 1000
MAX_LOOKALIKES = 100_000
LARGE = 1 << 20
"""Octets from which on an archive is decoded piece by piece: that takes longer than at once."""


def parse(data: Buffer, limits: Limits, tray: Tray | None = None) -> Content:
    """What *data*, a message with CRLF line ends, holds; what its parts hold is laid out on *tray*.

    Never raises for what the message says; see `unscannable`.
    """
    return parsed(data, gathering(limits, tray or Tray()))


def gathering(limits: Limits, tray: Tray) -> Gathered:
    """What has been gathered of a mail before it is parsed; its limits are for all that is found in it ever after."""
    return Gathered(limits, tray, _message)


def parsed(data: Buffer, found: Gathered) -> Content:
    """`parse`, into *found*."""
    walk = _Walk(data, found)
    try:
        header = walk.header(0, len(data))
    except Unscannable as error:
        return Content(unscannable=str(error), size=len(data))
    return Content(
        unscannable=_gather(walk, header),
        headers=tuple((field.name, clean(field.value, 16384)) for field in header.fields),
        subject=clean(decode_words(header.first("subject")), 998),
        parts=tuple(found.parts),
        defects=tuple(found.defects),
        ambiguities=tuple(found.ambiguities),
        size=len(data),
        author=author.read(bytes(data[: header.body]), header),
    )


def _gather(walk: _Walk, header: Header) -> str:
    """Walk the whole message; return why that cannot be done, or ""."""
    found = walk.found
    try:
        walk.entity(header, 0, len(walk.data), "", 0)
        walk.compare()
        found.tray.texts = [
            decode_words(header.first("subject")),
            *(part.text for part in found.parts if part.text),
        ]
        found.archives.unlock(found.tray.texts)
    except Unscannable as error:
        return str(error)
    except RecursionError:
        return "parts are nested too deeply"
    return ""


def grown(content: Content, found: Gathered) -> Content:
    """*content*, which *found* has gathered, with the files that filters have found in its parts since, and with what
    those hold in turn."""
    if not (taken := found.tray.taken()):
        return content
    before, why = len(found.parts), content.unscannable
    try:
        for path, name, octets in taken:
            found.file(name, octets, path.partition("/")[0])
        found.archives.unlock(found.tray.texts)
    except Unscannable as error:
        why = why or str(error)
    except RecursionError:
        why = why or "parts are nested too deeply"
    ambiguities = tuple(dict.fromkeys((*content.ambiguities, *found.ambiguities)))
    parts = (*content.parts, *found.parts[before:])
    return replace(content, parts=parts, ambiguities=ambiguities, unscannable=why)


def prepare() -> None:
    """Load what could not be loaded later, when the process is confined."""
    libarchive.prepare()
    views.prepare()


def opened(data: Buffer, span: tuple[int, int], limits: Limits) -> BinaryIO:
    """What the part of *data* at *span* holds, decoded, as a file; `Unscannable` where that cannot be said."""
    walk = _Walk(data, gathering(limits, Tray()))
    header = walk.header(*span)
    return walk.file(walk.encoding(header), header.body, span[1])


@dataclass
class _Walk:
    """One walk through one message. *encoded*: these are not the octets of the mail, but decoded ones."""

    data: Buffer
    found: Gathered
    encoded: bool = False
    leaves: list[views.Leaf] = field(default_factory=list)

    @property
    def limits(self) -> Limits:
        return self.found.limits

    def compare(self) -> None:
        """Read what is odd as others read it. Who knows then which parts a scanner sees? It gets each by itself."""
        if self.found.odd:
            views.compare(self.data, self.leaves, self.found)
            for leaf in self.leaves:
                self.found.tray.hide(leaf.path)

    def header(self, start: int, end: int) -> Header:
        """The header block of the entity at *start*; `Unscannable` where it exceeds a limit."""
        if self.data[start : start + 2] == b"\r\n":
            return Header((), start + 2)
        stop = self.data.find(b"\r\n\r\n", start, min(end, start + self.limits.header_size + 4))
        if stop < 0:
            if end - start > self.limits.header_size:
                raise Unscannable(f"a header is larger than {self.limits.header_size} octets")
            stop = body = end
        else:
            body = stop + 4
        block = bytes(self.data[start:stop])
        header = Header(tuple(self._fields(block)), body)
        if exceeds(header, self.limits.parameters):
            raise Unscannable(f"a field has more than {self.limits.parameters} parameters")
        self.found.odd = self.found.odd or not plain_header(header, block)
        return header

    def _fields(self, block: bytes) -> Iterator[Field]:
        lines = _LINE_END.split(block)
        if len(lines) > self.limits.fields:
            raise Unscannable(f"a header has more than {self.limits.fields} fields")
        for line in lines:
            field = _FIELD.match(line)
            if not field:
                if line.strip():
                    self.found.defect("a header line is no field")
                continue
            name, blank, value = field[1], field[2], line[field.end() :]
            if blank:
                self.found.defect("white space stands before the colon of a field")
            if value.count(b"=?") > self.limits.encoded_words:
                raise Unscannable(f"a field has more than {self.limits.encoded_words} encoded words")
            yield Field(name.decode("ascii"), raw_text(value.replace(b"\r\n", b"").strip()))

    def entity(self, header: Header, start: int, end: int, path: str, depth: int, default: str = "text/plain") -> None:
        """Walk one entity, its header already read: a multipart, a message, or a leaf; *default* is its type."""
        if depth > self.limits.depth:
            raise Unscannable(f"parts are nested more than {self.limits.depth} deep")
        kind = self._media_type(header) or default
        if is_ambiguous(header):
            self.found.ambiguous("the type of a part, or its boundary, can be read in two ways")
        if kind == "message/partial":
            self.found.ambiguous("it is a fragment of a message (RFC 2046 5.2.2), the rest of which comes in others")
        if kind.startswith("multipart/") and (boundary := boundary_of(header)):
            self._multipart(header, boundary, end, path, depth)
        elif kind in _MESSAGES and self.encoding(header) not in _ENCODED:
            self._add(Part(path or "1", kind, size=end - header.body), header, start, end)
            self.message(header.body, end, path or "1", depth)
        else:
            if kind.startswith("multipart/"):
                self._unreadable_multipart("a multipart has no usable boundary", header.body, end)
            self._leaf(header, kind, start, end, path or "1", depth)

    def message(self, start: int, end: int, path: str, depth: int) -> None:
        """Walk the message that stands there."""
        inner = self.header(start, end)
        leaf = not media_type(inner.first("content-type")).startswith("multipart/")
        self.entity(inner, start, end, path + (".1" if leaf else ""), depth + 1)

    def _media_type(self, header: Header) -> str:
        if len(header.all("content-type")) > 1:
            self.found.defect("a part has several Content-Type fields")
        kind = media_type(header.first("content-type"))
        if not kind and header.first("content-type"):
            self.found.defect("a Content-Type cannot be read")
            if re.search("multipart|message|boundary", header.first("content-type"), re.IGNORECASE):
                self.found.ambiguous("a Content-Type that speaks of several parts cannot be read")
        return kind

    def encoding(self, header: Header) -> str:
        """The encoding of a body in lower case, "" for none; what is not known is read as none."""
        declared = [value.strip().lower() for value in header.all("content-transfer-encoding")]
        encoding = declared[0] if declared else ""
        if len(declared) > 1:
            self.found.defect("a part has several Content-Transfer-Encoding fields")
        if encoding not in _ENCODINGS:
            self.found.defect("a Content-Transfer-Encoding is not known")
        doubtful = encoding not in _ENCODINGS and encoding not in _UU and _MEANT.search(encoding)
        if doubtful or (len({*declared, encoding}) > 1 and any(map(_MEANT.search, declared))):
            self.found.ambiguous("the encoding of a part can be read in two ways")
        return encoding

    def _multipart(self, header: Header, boundary: bytes, end: int, path: str, depth: int) -> None:
        encoded = _MEANT.search(header.first("content-transfer-encoding"))
        digest = media_type(header.first("content-type")) == "multipart/digest"  # RFC 2046 5.1.5
        self.found.odd = self.found.odd or bool(encoded) or digest or not plain_boundary(boundary)
        default = "message/rfc822" if digest else "text/plain"
        spans = self._between(boundary, header.body, end)
        if not spans and encoded:
            self._encoded_multipart(header, end, path, depth)
        if not spans:
            self._unreadable_multipart("a multipart has no parts", header.body, end)
        for number, (start, stop) in enumerate(spans, 1):
            inner = f"{path}.{number}" if path else str(number)
            self.entity(self.header(start, stop), start, stop, inner, depth + 1, default)

    def _encoded_multipart(self, header: Header, end: int, path: str, depth: int) -> None:
        """A multipart that is itself encoded, against RFC 2045 6.4."""
        kind = header.first("content-type").encode("utf-8", "replace")
        octets = self._decoded(self.encoding(header), header.body, end)
        self._encoded_message(b"Content-Type: " + kind + b"\r\n\r\n" + octets, path or "1", depth)

    def _unreadable_multipart(self, words: str, start: int, end: int) -> None:
        """We see no parts; in a body with text, other readers may."""
        self.found.defect(words)
        if self.data[start:end].strip():
            self.found.ambiguous(words)

    def _between(self, boundary: bytes, start: int, end: int) -> list[tuple[int, int]]:
        """Start and end of each body part between the delimiter lines of *boundary* (RFC 2046 5.1.1).

        What opens behind the closing one is a part as well: some readers go on there.
        """
        spans: list[tuple[int, int]] = []
        opened, around = -1, start
        for number, (line, after, closing) in enumerate(self._delimiters(b"--" + boundary, start, end)):
            if opened >= 0:
                spans.append((opened, max(line, opened)))
            else:
                self._around(around, line, first=not number)
            if max(len(spans), number // 2) > self.limits.parts:
                raise Unscannable(f"there are more than {self.limits.parts} parts")
            opened, around = -1 if closing else after, after
        if opened >= 0:
            self.found.defect("a multipart is not closed")
            spans.append((opened, end))
        elif spans:
            self._around(around, end, first=True)
        return spans

    def _around(self, start: int, end: int, *, first: bool) -> None:
        """What stands before the first part, or behind the last; parts that open behind that are odd.

        Hardly any program shows it. No scanner may take it for a part, so that it is one here.
        """
        text = bytes(self.data[start : max(start, end)])
        self.found.odd = self.found.odd or not first or not plain_around(text)
        if text.strip() and not _USUAL.fullmatch(text):
            self.found.file("", text, "around", "around")

    def _delimiters(self, mark: bytes, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """Each line that is *mark*, perhaps with a closing "--" and white space behind: where it begins (with the CRLF
        before it), where it ends (with its own CRLF), and whether it closes. One CRLF may serve two such lines."""
        lookalikes = 0
        at = start if self.data[start : start + len(mark)] == mark else self.data.find(b"\r\n" + mark, start - 2, end)
        while 0 <= at < end:
            text = at + len(mark) + (2 if self.data[at : at + 2] == b"\r\n" else 0)
            stop = self.data.find(b"\r\n", text, min(end, text + MAX_LINE))
            whole = bytes(self.data[text : stop if stop >= 0 else min(end, text + MAX_LINE)])
            tail = whole.rstrip(b" \t")
            self.found.odd = self.found.odd or whole not in {b"", b"--"}
            lookalikes += tail not in {b"", b"--"}
            if lookalikes > MAX_LOOKALIKES:
                raise Unscannable("there are too many lines that look like a boundary")
            if tail in {b"", b"--"}:
                yield at, min(stop + 2, end) if stop >= 0 else end, tail == b"--"
            at = self.data.find(b"\r\n" + mark, max(stop, text), end)

    def _add(self, part: Part, header: Header, start: int, end: int) -> None:
        """Add *part* once for each name that it is given: readers differ on which one they use."""
        names, span = filenames(header) or [""], None if self.encoded else (start, end)
        if len(set(map(suffix, names))) > 1:  # else one of them may be a plainer form of the other (RFC 2231, 5987)
            self.found.defect("a part is given different names")
        for name in map(file_name, names):
            self.found.keep(Part(part.path, part.media_type, name, part.sniffed, part.size, text=part.text, span=span))

    def _leaf(self, header: Header, kind: str, start: int, end: int, path: str, depth: int) -> None:
        encoding, body = self.encoding(header), header.body
        path = self.found.tray.free(path) if self.encoded else path
        sniffed = sniff(self._decoded(encoding, body, min(end, body + 2 * PREFIX))[:PREFIX])
        text = self._text(header, encoding, end) if kind.startswith("text/") else ""
        self._add(Part(path, kind, "", sniffed, end - body, text=text), header, start, end)
        leaf = self.found.parts[-1]
        unseen = self.encoded or depth > SCANNED_DEPTH
        self.found.tray.put(path, partial(self._start, encoding, body, end), unseen=unseen)
        plain = self._is_plain(encoding, body, end)
        self.found.odd = self.found.odd or not plain
        shown = not kind.startswith("message/") and encoding not in _UU
        is_file = shown and views.is_file("".join(filenames(header)), kind, sniffed)
        self.leaves.append(views.Leaf(path, body, end, encoding, plain, is_file))
        if kind == "message/external-body":
            phantom = self.header(body, end).body  # nobody needs it, and some show it (RFC 2046 5.2.3)
            self.leaves.append(views.Leaf(path, phantom, end, encoding, plain, False))
        self._opened(header, kind, sniffed, end, path, depth)
        self.found.archive(partial(self.file, encoding, body, end), leaf, filenames(header))
        if not kind.startswith("text/") and _is_page(sniffed, filenames(header)):
            self.found.text(self._decoded(encoding, body, end), path)  # what its script would build a file of
        if kind.startswith("text/"):
            self._files_in_text(header, encoding, end, path)
        elif encoding == "base64" and not plain:
            self._whole_base64(body, end)
        elif not sniffed and (encoding not in _ENCODED or _is_packed_text(kind, filenames(header))):
            self.found.text(self._decoded(encoding, body, end), path)
        if encoding in _UU:
            self.found.uuencoded(bytes(self.data[body:end]), path)

    def _opened(self, header: Header, kind: str, sniffed: str, end: int, path: str, depth: int) -> None:
        """What a mail program opens itself: a mail, one that is signed, a winmail.dat."""
        encoding, body, names = self.encoding(header), header.body, filenames(header)
        if sniffed in OPENED:
            self.found.opens(self._decoded(encoding, body, end), path, next(iter(names), ""))
        elif kind in _SIGNED or any(name.lower().endswith(SIGNED) for name in names):
            self._unreadable_cms(kind, self._decoded(encoding, body, end), path, next(iter(names), ""))
        elif kind in _MESSAGES:
            self.found.defect("an attached message is encoded")
            self._encoded_message(self._decoded(encoding, body, end), path, depth)
        elif not sniffed and (name := next(filter(openpgp.is_named, names), "")):
            self.found.openpgp(self._decoded(encoding, body, end), path, name)
        elif not sniffed and _may_be_mail(kind, names) and is_message(self._start(encoding, body, end, PREFIX)):
            self._encoded_message(self._decoded(encoding, body, end), path, depth)

    def _unreadable_cms(self, kind: str, octets: bytes, path: str, name: str) -> None:
        """What says that it is a signed message, and is none, or one in base64 once more."""
        before = len(self.found.parts)
        self.found.text(octets, path, name)
        if kind in _SIGNED and octets.strip() and len(self.found.parts) == before:
            self.found.ambiguous("a signed message (S/MIME) cannot be read")

    def _text(self, header: Header, encoding: str, end: int) -> str:
        stop = min(end, header.body + 4 * self.limits.text_size)
        raw = self._decoded(encoding, header.body, stop)[: self.limits.text_size]
        charset = _charset(header)
        if charset and not codec_of(charset):
            self.found.defect("a charset is not known")
        return decode_text(raw, charset)

    def _is_plain(self, encoding: str, start: int, end: int) -> bool:
        if encoding == "base64":
            return plain_base64(self.data, start, end)
        return encoding != "quoted-printable" or plain_quoted(bytes(self.data[start:end]))

    def _whole_base64(self, start: int, end: int) -> None:
        """Padding in the middle: some readers stop there, some go on."""
        padding = self.data.find(b"=", start, end)
        if padding >= 0 and bytes(self.data[padding:end]).strip(b"= \t\r\n-"):
            self.found.ambiguous("base64 goes on behind its end")

    def _files_in_text(self, header: Header, encoding: str, end: int, path: str) -> None:
        """Files that stand in the text itself, as mail programs before MIME sent them, and some still show them."""
        text = in_ascii(self._decoded(encoding, header.body, end), _charset(header))
        self.found.odd = self.found.odd or bool(_FIELDS.search(text.lower()))
        self.found.text(text, path)

    def _decoded(self, encoding: str, start: int, end: int) -> bytes:
        raw = bytes(self.data[start:end])
        if encoding == "base64":
            return loose_base64(raw)
        return loose_quoted(raw) if encoding == "quoted-printable" else raw

    def _start(self, encoding: str, start: int, end: int, most: int) -> bytes:
        """The first *most* octets of what stands there, decoded: nearly always in four times as many."""
        first = self._decoded(encoding, start, min(end, start + 4 * most))
        if len(first) < most and start + 4 * most < end:
            first = self._decoded(encoding, start, end)
        return first[:most]

    def file(self, encoding: str, start: int, end: int) -> BinaryIO:
        """What stands there, decoded, as a file; where it is large, it is decoded as it is read."""
        if encoding != "base64" or end - start < LARGE:
            return io.BytesIO(self._decoded(encoding, start, end))
        try:
            return io.BufferedReader(decoded.base64(self.data, start, end), decoded.PORTION)
        except ValueError as error:
            raise Unscannable(f"an attachment says that it is base64, but {error}") from None

    def _encoded_message(self, octets: bytes, path: str, depth: int) -> None:
        """A message that is itself encoded: a file that people open as a mail, or one against RFC 2046 5.2.1."""
        _message(self.found, octets, path, depth)


def _message(found: Gathered, octets: bytes, path: str, depth: int = 0) -> None:
    """Walk a message that was taken out of something; *path* is that of what held it."""
    octets = octets.removeprefix(b"\xef\xbb\xbf")  # which editors put before a text
    inner = _Walk(re.sub(rb"\r\n?|\n", b"\r\n", octets), found, encoded=True)
    inner.message(0, len(inner.data), path, depth)
    inner.compare()


def _is_page(sniffed: str, names: list[str]) -> bool:
    """Whether a browser opens it. What is a picture, an archive or a program is none, whatever its name says."""
    return sniffed in _PAGES or (not sniffed and any(name.lower().endswith(_PAGE_NAMES) for name in names))


def _is_packed_text(kind: str, names: list[str]) -> bool:
    """Whether a program that unpacks archives finds a file in the text that this is."""
    return kind in _PACKED_TEXTS or any(name.lower().endswith(_PACKED_NAMES) for name in names)


def _may_be_mail(kind: str, names: list[str]) -> bool:
    """Whether a mail program may open it as a mail: no text, unless by its name."""
    named = any(name.lower().endswith(_MAIL_NAMES) for name in names)
    return kind != "message/external-body" and (named or not kind.startswith("text/"))


def _charset(header: Header) -> str:
    return parameters(header.first("content-type")).get("charset", "")

"""The bytes of a message -> `Content`. The only place that decodes MIME; it runs in the confined child.

A scanner of our own walks the bytes and keeps to its limits; what exceeds one makes the mail `unscannable`, and what
contradicts the grammar becomes a defect. Nothing here trusts a name, a length or a type that the message declares.
"""

from __future__ import annotations

import binascii
import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from mmap import mmap
from typing import BinaryIO

from gateway.events import clean
from gateway.model import Content, Part
from gateway.pipeline import author, libarchive, mapped
from gateway.pipeline.archives import Archives, claimed
from gateway.pipeline.decoded import PORTION, Base64
from gateway.pipeline.mime import (
    Field,
    Header,
    boundary_of,
    decode_text,
    decode_words,
    file_name,
    filenames,
    is_ambiguous,
    media_type,
    parameters,
    raw_text,
)
from gateway.pipeline.sniff import PREFIX, sniff
from gateway.pipeline.tray import Tray, Unscannable
from gateway.stages import Content as ContentPolicy

Buffer = bytes | mmap
Limits = ContentPolicy.Settings

_MESSAGES = {"message/rfc822", "message/global", "message/news"}
_UUENCODED = re.compile(rb"(?:^|\r\n)begin(?:-base64)? [0-7]{3,4} ([^\r\n]{1,200})\r\n")
_ENCODINGS = {"", "7bit", "8bit", "binary", "base64", "quoted-printable"}
MAX_DEFECTS = 20
MAX_LINE = 1000
MAX_LOOKALIKES = 100_000
LARGE = 1 << 20
"""Octets from which on an archive is decoded piece by piece: that takes longer than at once."""


def prepare() -> None:
    """Load what could not be loaded later, when the process is confined."""
    libarchive.prepare()


def parse(data: Buffer, limits: Limits, tray: Tray | None = None) -> Content:
    """What *data*, a message with CRLF line ends, holds; what its parts hold is laid out on *tray*.

    Never raises for what the message says; see `unscannable`.
    """
    scan = _Scan(data, limits, tray or Tray())
    try:
        header = scan.header(0, len(data))
    except Unscannable as error:
        return Content(unscannable=str(error), size=len(data))
    try:
        scan.entity(header, 0, len(data), "", 0)
        scan.archives.unlock([decode_words(header.first("subject")), *(part.text for part in scan.parts if part.text)])
    except Unscannable as error:
        scan.unscannable = str(error)
    except RecursionError:
        scan.unscannable = "parts are nested too deeply"
    return Content(
        headers=tuple((field.name, clean(field.value, 16384)) for field in header.fields),
        subject=clean(decode_words(header.first("subject")), 998),
        parts=tuple(scan.parts),
        defects=tuple(dict.fromkeys(scan.defects)),
        ambiguities=tuple(dict.fromkeys(scan.ambiguities)),
        unscannable=scan.unscannable,
        size=len(data),
        author=author.read(bytes(data[: header.body]), header),
    )


def opened(data: Buffer, span: tuple[int, int], limits: Limits) -> BinaryIO:
    """What the part of *data* at *span* holds, decoded, as a file; `Unscannable` where that cannot be said."""
    scan = _Scan(data, limits, Tray())
    header = scan.header(*span)
    return scan.file(scan.encoding(header), header.body, span[1])


@dataclass
class _Scan:
    """One walk through one message: what it found so far, and what is left of its limits."""

    data: Buffer
    limits: Limits
    tray: Tray
    parts: list[Part] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)
    ambiguities: list[str] = field(default_factory=list)
    unscannable: str = ""

    def __post_init__(self) -> None:
        self.archives = Archives(self.limits, self.tray, self.parts, self.ambiguous)

    def defect(self, words: str) -> None:
        if len(self.defects) < MAX_DEFECTS:
            self.defects.append(words)

    def doubt(self, words: str) -> None:
        """Readers may see what we do not: the mail is unscannable, but what we do see is still looked at."""
        self.unscannable = self.unscannable or words

    def ambiguous(self, words: str) -> None:
        """Mail programs may read it in two ways, and what each sees is not for certain among the parts."""
        if len(self.ambiguities) < MAX_DEFECTS:
            self.ambiguities.append(words)

    def header(self, start: int, end: int) -> Header:
        """The header block of the entity at *start*; `Unscannable` where it is too large or has too many fields."""
        if self.data[start : start + 2] == b"\r\n":
            return Header((), start + 2)
        stop = self.data.find(b"\r\n\r\n", start, min(end, start + self.limits.header_size + 4))
        if stop < 0:
            if end - start > self.limits.header_size:
                raise Unscannable(f"a header is larger than {self.limits.header_size} octets")
            stop = body = end
        else:
            body = stop + 4
        fields = list(self._fields(bytes(self.data[start:stop])))
        return Header(tuple(fields), body)

    def _fields(self, block: bytes) -> Iterator[Field]:
        lines = re.split(rb"\r\n(?![ \t])", block)
        if len(lines) > self.limits.fields:
            raise Unscannable(f"a header has more than {self.limits.fields} fields")
        for line in lines:
            name, colon, value = line.partition(b":")
            if not line.strip():
                continue
            if not colon or not re.fullmatch(rb"[!-9;-~]+[ \t]*", name):
                self.defect("a header line is no field")
                continue
            if name[-1:] in b" \t":
                self.defect("white space stands before the colon of a field")
            yield Field(name.rstrip().decode("ascii"), raw_text(value.replace(b"\r\n", b"").strip()))

    def entity(self, header: Header, start: int, end: int, path: str, depth: int) -> None:
        """Walk one entity, its header already read: a multipart, a message, or a leaf."""
        if depth > self.limits.depth:
            raise Unscannable(f"parts are nested more than {self.limits.depth} deep")
        kind = self._media_type(header)
        if is_ambiguous(header):
            self.doubt("the type of a part, or its boundary, can be read in two ways")
        if kind == "message/partial":
            self.doubt("it is a fragment of a message (RFC 2046 5.2.2), the rest of which comes in others")
        if kind.startswith("multipart/") and (boundary := boundary_of(header)):
            self._multipart(header, boundary, end, path, depth)
        elif kind in _MESSAGES and self.encoding(header) not in {"base64", "quoted-printable"}:
            self._add(Part(path or "1", kind, size=end - header.body, span=(start, end)), header)
            inner = self.header(header.body, end)
            leaf = not media_type(inner.first("content-type")).startswith("multipart/")
            self.entity(inner, header.body, end, (path or "1") + (".1" if leaf else ""), depth + 1)
        else:
            if kind.startswith("multipart/"):
                self._unreadable_multipart("a multipart has no usable boundary", header.body, end)
            self._leaf(header, kind, start, end, path or "1")

    def _media_type(self, header: Header) -> str:
        if len(header.all("content-type")) > 1:
            self.defect("a part has several Content-Type fields")
        kind = media_type(header.first("content-type"))
        if not kind and header.first("content-type"):
            self.defect("a Content-Type cannot be read")
            if re.search("multipart|message|boundary", header.first("content-type"), re.IGNORECASE):
                self.doubt("a Content-Type that speaks of several parts cannot be read")
        return kind or "text/plain"

    def encoding(self, header: Header) -> str:
        declared = header.all("content-transfer-encoding")
        if len(declared) > 1:
            self.defect("a part has several Content-Transfer-Encoding fields")
        encoding = declared[0].strip().lower() if declared else ""
        if encoding not in _ENCODINGS:
            self.defect("a Content-Transfer-Encoding is not known")
        return encoding

    def _multipart(self, header: Header, boundary: bytes, end: int, path: str, depth: int) -> None:
        spans = self._between(boundary, header.body, end)
        if not spans:
            self._unreadable_multipart("a multipart has no parts", header.body, end)
        for number, (start, stop) in enumerate(spans, 1):
            inner = f"{path}.{number}" if path else str(number)
            self.entity(self.header(start, stop), start, stop, inner, depth + 1)

    def _unreadable_multipart(self, words: str, start: int, end: int) -> None:
        """We see no parts; in a body with text, other readers may."""
        self.defect(words)
        if self.data[start:end].strip():
            self.doubt(words)

    def _between(self, boundary: bytes, start: int, end: int) -> list[tuple[int, int]]:
        """Start and end of each body part between the delimiter lines of *boundary* (RFC 2046 5.1.1).

        What opens behind the closing one is a part as well: some readers go on there.
        """
        spans: list[tuple[int, int]] = []
        opened = -1
        for number, (line, after, closing) in enumerate(self._delimiters(b"--" + boundary, start, end)):
            if opened >= 0:
                spans.append((opened, max(line, opened)))
            if max(len(spans), number // 2) > self.limits.parts:
                raise Unscannable(f"there are more than {self.limits.parts} parts")
            opened = -1 if closing else after
        if opened >= 0:
            self.defect("a multipart is not closed")
            spans.append((opened, end))
        return spans

    def _delimiters(self, mark: bytes, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """Each line that is *mark*, perhaps with a closing "--" and white space behind: where it begins (with the CRLF
        before it), where it ends (with its own CRLF), and whether it closes. One CRLF may serve two such lines."""
        lookalikes = 0
        at = start if self.data[start : start + len(mark)] == mark else self.data.find(b"\r\n" + mark, start - 2, end)
        while 0 <= at < end:
            text = at + len(mark) + (2 if self.data[at : at + 2] == b"\r\n" else 0)
            stop = self.data.find(b"\r\n", text, min(end, text + MAX_LINE))
            tail = bytes(self.data[text : stop if stop >= 0 else min(end, text + MAX_LINE)]).rstrip(b" \t")
            lookalikes += tail not in {b"", b"--"}
            if lookalikes > MAX_LOOKALIKES:
                raise Unscannable("there are too many lines that look like a boundary")
            if tail in {b"", b"--"}:
                yield at, min(stop + 2, end) if stop >= 0 else end, tail == b"--"
            at = self.data.find(b"\r\n" + mark, max(stop, text), end)

    def _add(self, part: Part, header: Header) -> None:
        """Add *part* once for each name that it is given: readers differ on which one they use."""
        names = filenames(header) or [""]
        if len(names) > 1:
            self.defect("a part is given different names")
        for name in names:
            self.keep(replace(part, filename=file_name(name)))

    def keep(self, part: Part) -> None:
        if len(self.parts) >= self.limits.parts + self.limits.archive_members:
            raise Unscannable(f"there are more than {self.limits.parts} parts")
        self.parts.append(part)

    def _leaf(self, header: Header, kind: str, start: int, end: int, path: str) -> None:
        encoding = self.encoding(header)
        size = end - header.body
        first = self._decoded(encoding, header.body, min(end, header.body + 2 * PREFIX))[:PREFIX]
        sniffed = sniff(first)
        text = ""
        if kind.startswith("text/"):
            stop = min(end, header.body + 4 * self.limits.text_size)
            raw = self._decoded(encoding, header.body, stop)[: self.limits.text_size]
            text = decode_text(raw, parameters(header.first("content-type")).get("charset", ""))
        self._add(Part(path, kind, "", sniffed, size, text=text, span=(start, end)), header)
        self.tray.put(path, lambda most: self._decoded(encoding, header.body, min(end, header.body + 4 * most))[:most])
        if encoding == "base64" and not kind.startswith("text/"):
            self._whole_base64(header.body, end)
        if claimed(sniffed, kind, filenames(header)):
            self.archives.look(self.file(encoding, header.body, end), self.parts[-1])
        elif kind in _MESSAGES:
            self._inner_message(self._decoded(encoding, header.body, end), path)
        elif kind.startswith("text/") and encoding not in {"base64", "quoted-printable"}:
            self._uuencoded(header.body, end, path)

    def _whole_base64(self, start: int, end: int) -> None:
        """Padding in the middle: some readers stop there, some go on."""
        padding = self.data.find(b"=", start, end)
        if padding >= 0 and bytes(self.data[padding:end]).strip(b"= \t\r\n-"):
            self.doubt("base64 goes on behind its end")

    def _uuencoded(self, start: int, end: int, path: str) -> None:
        """Files that stand in the text itself, as mail programs before MIME sent them, and some still show them."""
        for match in self._each(_UUENCODED, start, end):
            line = bytes(self.data[match.end() : match.end() + 100]).partition(b"\r\n")[0]
            with contextlib.suppress(binascii.Error):
                self.keep(Part(path, "", file_name(raw_text(match[1].strip())), sniff(binascii.a2b_uu(line))))

    def _each(self, pattern: re.Pattern[bytes], start: int, end: int) -> Iterator[re.Match[bytes]]:
        """The matches of *pattern*, none longer than `MAX_LINE`; searched in portions that memory can hold."""
        while start < end:
            stop = min(end, start + mapped.WINDOW)
            for match in pattern.finditer(self.data, start, min(end, stop + MAX_LINE)):
                if match.start() < stop:
                    yield match
            if isinstance(self.data, mapped.Passing):
                self.data.let_go(start, stop)
            start = stop

    def _decoded(self, encoding: str, start: int, end: int) -> bytes:
        raw = bytes(self.data[start:end])
        if encoding == "base64":
            return _base64(raw)
        return binascii.a2b_qp(raw) if encoding == "quoted-printable" else raw

    def file(self, encoding: str, start: int, end: int) -> BinaryIO:
        """What stands there, decoded, as a file; where it is large, it is decoded as it is read."""
        if encoding != "base64" or end - start < LARGE:
            return io.BytesIO(self._decoded(encoding, start, end))
        try:
            return io.BufferedReader(Base64(self.data, start, end), PORTION)
        except ValueError as error:
            raise Unscannable(f"an attachment says that it is base64, but {error}") from None

    def _inner_message(self, data: bytes, path: str) -> None:
        """A message that is itself encoded, against RFC 2046 5.2.1: read it all the same, as mail programs do."""
        self.defect("an attached message is encoded")
        inner = parse(data, self.limits)
        if "an attached message is encoded" in inner.defects:
            self.doubt("an encoded message holds another")  # which clamd does not follow
        for defect in inner.defects:
            self.defect(defect)
        for part in inner.parts:
            self.keep(replace(part, path=f"{path}.{part.path}", span=None))
        if inner.unscannable:
            self.doubt(inner.unscannable)


def _base64(raw: bytes) -> bytes:
    """Decode as mail programs do: characters outside the alphabet are passed over, a torn end is dropped."""
    try:
        return binascii.a2b_base64(raw)
    except binascii.Error:
        kept = re.sub(rb"[^A-Za-z0-9+/]", b"", raw)
        whole = len(kept) - (len(kept) % 4 == 1)
        return binascii.a2b_base64(kept[:whole] + b"=" * (-whole % 4))

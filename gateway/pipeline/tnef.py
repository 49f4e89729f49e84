"""Files in winmail.dat: the attachments of a TNEF stream (MS-OXTNEF), as Outlook sends them. Octets in, files out.

The rule: a length is believed only as far as there are octets; a stream that breaks off is `Torn`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.pipeline.embedded import File

SIGNATURE = b"\x78\x9f\x3e\x22"
MAX_PROPERTIES = 10_000

_TITLE, _DATA, _PROPERTIES, _ATTACHMENT, _RENDERING = 0x18010, 0x6800F, 0x69003, 0x69005, 0x69002
_DATA_BINARY, _FILE_NAME, _LONG_NAME = 0x3701, 0x3704, 0x3707
_BODIES = {0x1013: "body.html", 0x1009: "body.rtf"}
"""Texts in which there may be objects; rich text comes packed (MS-OXRTFCP)."""
_SIZES = {2: 4, 3: 4, 4: 4, 5: 8, 6: 8, 7: 8, 0xA: 4, 0xB: 4, 0x14: 8, 0x40: 8, 0x48: 16}
_VARIABLE = {0x1E, 0x1F, 0x0D, 0x102}
_UNICODE, _OBJECT = 0x1F, 0x0D


class Torn(Exception):
    """The stream is no TNEF from some place on."""


@dataclass
class _Attachment:
    names: list[str]
    octets: bytes = b""


def files(stream: bytes) -> Iterator[File]:
    """Each attachment of *stream* once for each name that it is given; `Torn` behind the last one that can be read."""
    reader = _Reading()
    try:
        for attribute, data in _attributes(stream):
            yield from reader.take(attribute, data)
    except Torn:
        yield from _files_of(reader.current)
        raise
    yield from _files_of(reader.current)


class _Reading:
    """The attachment in hand: what describes it comes in several attributes."""

    def __init__(self) -> None:
        self.current: _Attachment | None = None

    def take(self, attribute: int, data: bytes) -> Iterator[File]:
        """Note one attribute; yield what is complete with it."""
        if attribute == _RENDERING or (self.current is None and attribute in {_TITLE, _DATA, _ATTACHMENT}):
            yield from _files_of(self.current)
            self.current = _Attachment([])
        if attribute == _PROPERTIES:
            yield from (File(_BODIES[tag], value) for tag, value in _properties(data) if tag in _BODIES)
        elif self.current is not None:
            _note(self.current, attribute, data)


def _note(attachment: _Attachment, attribute: int, data: bytes) -> None:
    if attribute == _TITLE:
        attachment.names.append(_text(data))
    elif attribute == _DATA:
        attachment.octets = data
    elif attribute == _ATTACHMENT:
        for tag, value in _properties(data):
            if tag in {_LONG_NAME, _FILE_NAME}:
                attachment.names.append(_text(value))
            elif tag == _DATA_BINARY:
                attachment.octets = value if len(value) > len(attachment.octets) else attachment.octets


def _files_of(attachment: _Attachment | None) -> Iterator[File]:
    if attachment and (attachment.octets or attachment.names):
        names = dict.fromkeys(name for name in attachment.names if name)
        yield from (File(name, attachment.octets) for name in names or [""])


def _text(raw: bytes) -> str:
    wide = len(raw) > 1 and raw[1::2].count(0) * 2 > len(raw[1::2])
    return raw.decode("utf-16-le" if wide else "cp1252", "replace").rstrip("\0")


def _attributes(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """The number and the value of each attribute: level, number, length, value, checksum (MS-OXTNEF 2.1.3.3)."""
    at, count = 6, 0
    while at < len(stream):
        count += 1
        if at + 9 > len(stream) or count > MAX_PROPERTIES:
            raise Torn
        attribute, length = struct.unpack_from("<II", stream, at + 1)
        yield attribute, stream[at + 9 : at + 9 + length]
        if at + 9 + length > len(stream):
            raise Torn
        at += 9 + length + 2


def _properties(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The number and each value of MAPI properties in one attribute (MS-OXTNEF 2.1.3.4)."""
    reader = _Reader(data)
    for _ in range(min(reader.word(), MAX_PROPERTIES)):
        kind, tag = struct.unpack("<HH", reader.take(4))
        if tag >= 0x8000:
            _skip_name(reader)
        many, kind = bool(kind & 0x1000), kind & 0xFFF
        count = reader.word() if many or kind in _VARIABLE else 1
        if count > len(data):
            raise Torn
        for _ in range(count):
            yield tag, _value(reader, kind)


def _skip_name(reader: _Reader) -> None:
    reader.take(16)
    if reader.word():
        reader.padded(reader.word())
    else:
        reader.word()


def _value(reader: _Reader, kind: int) -> bytes:
    if kind in _SIZES:
        return reader.take(_SIZES[kind])
    if kind not in _VARIABLE:
        raise Torn
    value = reader.padded(reader.word())
    return value[16:] if kind == _OBJECT else value  # an object's class stands before it


class _Reader:
    """Takes octets from the front; `Torn` where there are none left."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        piece = self._data[self._at : self._at + count]
        if len(piece) < count:
            raise Torn
        self._at += count
        return piece

    def word(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def padded(self, count: int) -> bytes:
        piece = self.take(count)
        self._at += -count % 4
        return piece

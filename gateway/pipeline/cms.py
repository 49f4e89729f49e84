"""What a CMS message that is not encrypted holds (RFC 5652, 3274), as S/MIME sends it: every mail program shows that.

The rule: nothing is verified, and a length is believed only as far as there are octets. What is encrypted stays so.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

MAX_DEPTH = 16
MAX_ELEMENTS = 500_000
"""Elements of a message in pieces: programs write some kilobytes in each."""

_COMPRESSED = bytes.fromhex("2a864886f70d0109100109")
_ENCRYPTED = {
    bytes.fromhex(kind)
    for kind in ("2a864886f70d010703", "2a864886f70d010704", "2a864886f70d010706", "2a864886f70d0109100117")
}
_OCTETS, _OBJECT, _SEQUENCE, _CONTENT = 0x04, 0x06, 0x30, 0xA0
_CONSTRUCTED = 0x20


class Torn(Exception):
    """This is no BER from some place on, or holds more than it may."""


class Sealed(Exception):
    """It is encrypted for its reader."""


class _Element(NamedTuple):
    """One element of BER: its first octet, and where its value stands; `open` where two octets of nothing end it."""

    tag: int
    start: int
    end: int
    open: bool


def content(data: bytes, most: int) -> bytes | None:
    """The content of the message *data*, at most *most* octets; None where it stands elsewhere. `Sealed` and `Torn` as
    they say."""
    reader = _Reader(data)
    kind, wrapped = (*islice(reader.inside(reader.first(0, len(data))), 2), None, None)[:2]
    if not kind or not wrapped:
        return None
    identifier = data[kind.start : kind.end]
    if identifier in _ENCRYPTED:
        raise Sealed
    held = _encapsulated(reader, wrapped)
    return _inflated(held, most) if held and identifier == _COMPRESSED else held


def _encapsulated(reader: _Reader, wrapped: _Element) -> bytes | None:
    """The octets in the first sequence that begins with an object identifier and has content behind it (5.2)."""
    message = reader.first(wrapped.start, wrapped.end)
    if message.tag != _SEQUENCE:
        return b"".join(reader.octets(wrapped))  # of the kind that is nothing but data
    held = _content_of(reader, message)
    return b"".join(reader.octets(held)) if held else None


def _content_of(reader: _Reader, message: _Element) -> _Element | None:
    """What stands in *message* beside the identifier of its kind. Where there is nothing, it may break off later."""
    identified = False
    try:
        for element in reader.inside(message):
            members = list(islice(reader.inside(element), 2)) if element.tag == _SEQUENCE else []
            if len(members) > 1 and members[0].tag == _OBJECT and members[1].tag == _CONTENT:
                return members[1]
            identified = identified or (bool(members) and members[0].tag == _OBJECT)
    except Torn:
        if not identified:
            raise
    return None


def _inflated(packed: bytes, most: int) -> bytes:
    try:
        octets = zlib.decompressobj().decompress(packed, most + 1)
    except zlib.error as error:
        raise Torn from error
    if len(octets) > most:
        raise Torn
    return octets


class _Reader:
    """Reads elements with lengths that are said, and without (X.690 8.1.3)."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._count = 0

    def first(self, start: int, end: int) -> _Element:
        """The element at *start*. One that is made of others may be said to be longer than there is."""
        self._count += 1
        if start + 2 > end or self._count > MAX_ELEMENTS:
            raise Torn
        tag, length, at = self._data[start], self._data[start + 1], start + 2
        if length == 0x80:
            return _Element(tag, at, end, open=True)
        if length > 0x80:
            at += length & 0x7F
            length = int.from_bytes(self._data[start + 2 : at], "big")
        if at + length > end and not tag & _CONSTRUCTED:
            raise Torn
        return _Element(tag, at, min(at + length, end), open=False)

    def inside(self, outer: _Element, depth: int = 0) -> Iterator[_Element]:
        """The elements of which *outer* is made."""
        at = outer.start
        while at < outer.end and not (outer.open and self._data[at : at + 2] == b"\0\0"):
            element = self.first(at, outer.end)
            yield element
            at = self._behind(element, depth)
        if outer.open and at >= outer.end:
            raise Torn

    def octets(self, outer: _Element, depth: int = 0) -> Iterator[bytes]:
        """What the octet strings in *outer* hold, whole or in pieces (X.690 8.7)."""
        if depth > MAX_DEPTH:
            raise Torn
        for element in self.inside(outer):
            if element.tag & _CONSTRUCTED:
                yield from self.octets(element, depth + 1)
            elif element.tag == _OCTETS:
                yield self._data[element.start : element.end]

    def _behind(self, element: _Element, depth: int) -> int:
        """Where the next element begins."""
        if not element.open:
            return element.end
        if depth > MAX_DEPTH:
            raise Torn
        at = element.start
        while self._data[at : at + 2] != b"\0\0":
            at = self._behind(self.first(at, element.end), depth + 1)
        return at + 2

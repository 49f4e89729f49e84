"""What an OpenPGP message that is not encrypted holds (RFC 9580): signed or packed, every program with keys shows that.

The rule: nothing is verified, and a length is believed only as far as there are octets. What is encrypted stays so.
"""

from __future__ import annotations

import bz2
import re
import zlib
from collections.abc import Iterator

from gateway.pipeline.embedded import File, loose_base64

NAMES = (".pgp", ".gpg", ".asc", ".sig")
MAX_DEPTH = 4
MAX_PACKETS = 1000
MAX_PIECES = 100_000

_ARMOUR = re.compile(
    rb"-----BEGIN PGP MESSAGE[^\r\n]{0,40}-----[ \t]*+\r?\n(?:[ \t]*+[^\s][^\r\n]*+\r?\n){0,20}+[ \t]*+\r?\n"
)
_END = re.compile(rb"\n=[A-Za-z0-9+/]{4}[ \t]*+\r?\n|-----(?:END|BEGIN) PGP")
_ENCRYPTED = {1, 3, 9, 18, 20}
"""Packets of what is encrypted, and of the keys for it (5.1, 5.3, 5.7, 5.13, and OCB of GnuPG)."""
_SIGNATURE, _ONE_PASS, _COMPRESSED, _MARKER, _LITERAL, _PADDING = 2, 4, 8, 10, 11, 21
_BEFORE = {_SIGNATURE, _ONE_PASS, _MARKER, _PADDING}
"""Packets that may stand before what the message holds, and behind."""


def is_named(name: str) -> bool:
    """Whether a file of that name is opened by a program with keys."""
    return name.lower().endswith(NAMES)


class Torn(Exception):
    """The message breaks off, or holds more than it may."""


class Sealed(Exception):
    """It is encrypted for its reader."""


def armoured(text: bytes) -> Iterator[bytes]:
    """The messages that stand in *text* in their armour (6.2), with its base64 undone."""
    if b"-----BEGIN PGP MESSAGE" not in text:  # quick to see, and nearly always so
        return
    for match in _ARMOUR.finditer(text):
        end = _END.search(text, match.end() - 1)
        yield loose_base64(text[match.end() : end.start() if end else len(text)])


def files(data: bytes, most: int, depth: int = 0) -> Iterator[File]:
    """Each file in the message *data*, at most *most* octets unpacked; none where it is no message. `Sealed` and `Torn`
    as they say."""
    if depth > MAX_DEPTH:
        raise Torn
    for kind, body in _packets(data):
        if kind == _LITERAL:
            yield _literal(body)
        elif kind == _COMPRESSED:
            yield from files(_unpacked(body, most), most, depth + 1)
            return  # there is one, and what stands behind it would only cost (10.3)
        elif kind in _ENCRYPTED:
            raise Sealed
        elif kind not in _BEFORE:
            return


def _literal(body: bytes) -> File:
    """A format, the length of a name, the name, a date, then the file (5.9)."""
    name = body[2 : 2 + body[1]] if len(body) > 1 else b""
    return File(name.decode("utf-8", "replace"), body[6 + len(name) :])


def _unpacked(body: bytes, most: int) -> bytes:
    """What is packed in *body*, by the algorithm in its first octet (5.6, 9.4)."""
    try:
        match body[:1]:
            case b"\0":
                return body[1:]
            case b"\1":
                octets = zlib.decompressobj(-15).decompress(body[1:], most + 1)
            case b"\2":
                octets = zlib.decompressobj().decompress(body[1:], most + 1)
            case b"\3":
                octets = bz2.BZ2Decompressor().decompress(body[1:], most + 1)
            case _:
                return b""
    except (zlib.error, OSError) as error:
        raise Torn from error
    if len(octets) > most:
        raise Torn
    return octets


def _packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The kind and the body of each packet (4.2), up to what is none."""
    at = 0
    for _ in range(MAX_PACKETS):
        if at >= len(data) or not data[at] & 0x80:
            return
        if data[at] & 0x40:
            kind, (body, at) = data[at] & 0x3F, _new(data, at + 1)
        else:
            kind, (body, at) = (data[at] >> 2) & 15, _old(data, at + 1, data[at] & 3)
        yield kind, body


def _old(data: bytes, at: int, size: int) -> tuple[bytes, int]:
    """A body with a length of one, two or four octets, or up to the end (4.2.2); and where the next begins."""
    start = at + (0, 1, 2, 4)[(size + 1) % 4]
    stop = len(data) if size == 3 else start + int.from_bytes(data[at:start], "big")
    return data[start:stop], stop


def _new(data: bytes, at: int) -> tuple[bytes, int]:
    """A body whose length says how long it is itself, whole or in pieces (4.2.1); and where the next begins."""
    pieces = []
    for _ in range(MAX_PIECES):
        first = data[at] if at < len(data) else 0
        if first < 192:
            start, size = at + 1, first
        elif first < 224:
            start, size = at + 2, ((first - 192) << 8) + int.from_bytes(data[at + 1 : at + 2], "big") + 192
        elif first == 255:
            start, size = at + 5, int.from_bytes(data[at + 1 : at + 5], "big")
        else:
            start, size = at + 1, 1 << (first & 31)
        pieces.append(data[start : start + size])
        at = start + size
        if not 224 <= first < 255:
            return b"".join(pieces), at
    raise Torn

"""Is a mail so plain that every program reads it as we do? Then nobody needs to ask the others.

The rule: where it is not certain, it is odd. What is odd costs time and nothing else.
"""

from __future__ import annotations

import re
from mmap import mmap

from gateway.pipeline import mapped
from gateway.pipeline.mime import Header

Buffer = bytes | mmap

_BARE = r"[A-Za-z0-9!#$%&'+./:?=_^`{|}~@-]+"  # with those that have to be quoted (RFC 2045 5.1), and seldom are
_PARAMETERS = rf"(?:;[ \t]*[A-Za-z0-9-]+=(?:\"[^\"\\\x00-\x1f]*\"|{_BARE})[ \t]*)*;?[ \t]*"
_TYPE = re.compile(rf"[A-Za-z0-9.+-]+/[A-Za-z0-9.+_-]+[ \t]*{_PARAMETERS}")
_DISPOSITION = re.compile(rf"[A-Za-z-]+[ \t]*{_PARAMETERS}")
_PARAMETER_NAME = re.compile(r";[ \t]*([A-Za-z0-9-]+)=")
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=?-](?:[0-9A-Za-z'()+_,./:=? -]{0,68}[0-9A-Za-z'()+_,./:=?-])?")
_DESCRIBING = re.compile(r"content-[a-z0-9]+(?:-[a-z0-9]+)*|x-[a-z0-9-]+")
_ENCODINGS = {"7bit", "8bit", "binary", "base64", "quoted-printable"}
_CONTROLS = bytes({*range(0x20)} - {*b"\t\r\n"})
_EMPTY_FOLD = re.compile(rb"\r\n[ \t]+(?:\r\n|\Z)")
_MARKS = re.compile(rb"(?:^|\n)(?:--|content-|begin |=ybegin)|[A-Za-z0-9+/]{60}", re.IGNORECASE)
_NOT_QUOTED = re.compile(rb"=(?![0-9A-Fa-f]{2}|\r\n|\Z)")
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/\r\n"
MAX_AROUND = 4096
"""Octets that may stand before the first and behind the last part of a multipart."""


def plain_header(header: Header, block: bytes) -> bool:
    """Whether the fields that describe the content can be read in one way only."""
    described = [(name, field.value) for field in header.fields if "content" in (name := field.name.lower())]
    values = dict(described)
    kind, encoding, disposition = (
        values.get(f"content-{name}") for name in ("type", "transfer-encoding", "disposition")
    )
    return (
        len(values) == len(described)
        and all(map(_DESCRIBING.fullmatch, values))
        and (kind is None or (_TYPE.fullmatch(kind) is not None and _is_unique(kind)))
        and (encoding is None or encoding.lower() in _ENCODINGS)
        and (disposition is None or (_DISPOSITION.fullmatch(disposition) is not None and _is_unique(disposition)))
        and len(block) == len(block.translate(None, _CONTROLS))
        and not _EMPTY_FOLD.search(block)
    )


def _is_unique(value: str) -> bool:
    names = [name.lower() for name in _PARAMETER_NAME.findall(value)]
    return len(names) == len(set(names)) and value.count('"') % 2 == 0


def plain_boundary(boundary: bytes) -> bool:
    """Whether *boundary* is one by RFC 2046 5.1.1."""
    return _BOUNDARY.fullmatch(boundary) is not None


def plain_around(text: bytes) -> bool:
    """Whether nobody sees anything but text before the first part of a multipart, or behind its last."""
    return len(text) <= MAX_AROUND and not _MARKS.search(text)


def plain_quoted(raw: bytes) -> bool:
    """Whether *raw* is quoted-printable throughout."""
    return not _NOT_QUOTED.search(raw)


def plain_base64(data: Buffer, start: int, end: int) -> bool:
    """Whether *data* from *start* to *end* is base64 throughout: whole groups, padded at the end or not at all."""
    others, lines = b"", 0
    for at in range(start, end, mapped.WINDOW):
        piece = bytes(data[at : min(end, at + mapped.WINDOW)])
        others += piece.translate(None, _ALPHABET)
        lines += len(piece) - len(piece.translate(None, b"\r\n"))
        if isinstance(data, mapped.Passing):
            data.let_go(at, at + len(piece))
        if len(others) > 2:
            return False
    tail = bytes(data[max(start, end - 8) : end]).translate(None, b"\r\n")
    return others in {b"", b"=", b"=="} and tail.endswith(others) and (end - start - lines) % 4 == 0

"""The pages in a web archive (MHT, RFC 2557) or in a message that is attached as a file: its parts, decoded.

The rule: whatever looks like a part is one, in linear time; nesting is not followed but cut through.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator

from filters._html.seen import Exhausted

MAX_PARTS = 500

_BOUNDARY = re.compile(rb"(?:^|\n)--[^\r\n]{1,200}(?:\r?\n|\Z)")
_HEADER = re.compile(rb"\r?\n\r?\n")
_MESSAGE = re.compile(rb"[A-Za-z][A-Za-z0-9-]{0,60}:")
_ENCODING = re.compile(rb"^content-transfer-encoding[ \t]*:[ \t]*([a-z0-9-]{1,40})", re.IGNORECASE | re.MULTILINE)


def is_archive(octets: bytes) -> bool:
    """Whether *octets* begin with the header of a message that has a body in MIME."""
    head = octets[:8192].lstrip()
    return b"content-type" in head.lower() and bool(_MESSAGE.match(head))


def parts(octets: bytes) -> Iterator[bytes]:
    """What each part holds, decoded."""
    for number, piece in enumerate(_BOUNDARY.split(octets)):
        if number > MAX_PARTS:
            raise Exhausted
        header, body = _split(piece)
        yield _decoded(header, body)


def _split(piece: bytes) -> tuple[bytes, bytes]:
    end = _HEADER.search(piece)
    return (piece[: end.start()], piece[end.end() :]) if end else (b"", piece)


def _decoded(header: bytes, body: bytes) -> bytes:
    match = _ENCODING.search(header)
    encoding = match[1].lower() if match else b""
    if encoding == b"base64":
        kept = re.sub(rb"[^A-Za-z0-9+/]", b"", body)
        return binascii.a2b_base64(kept[: len(kept) - (len(kept) % 4 == 1)] + b"=" * (-len(kept) % 4))
    return _unquoted(body) if encoding == b"quoted-printable" else body


def _unquoted(body: bytes) -> bytes:
    """*body* decoded. White space at the end of a line does not count (RFC 2045 6.7, rule 3)."""
    return binascii.a2b_qp(re.sub(rb"=[ \t]++(?=\r?\n)", b"=", body))

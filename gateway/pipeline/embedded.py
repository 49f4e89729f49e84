"""Files that stand in a text: uuencode, yEnc, BinHex, and base64 that no field announces. Octets in, files out.

The rule: each reader is linear, raises for nothing that a stranger writes, and gives no more than it is asked for.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from typing import NamedTuple

from gateway.pipeline.sniff import PREFIX, sniff

MIN_RUN = 88
"""Characters of base64 that may be a file: EICAR's 68 octets need 92."""

_UU = re.compile(rb"(?:^|\n)[ \t>]{0,4}begin(-base64)?[ \t]+([0-9a-z]{1,20})(?:[ \t]+([^\r\n]*))?\r?\n", re.IGNORECASE)
_UU_LINE = re.compile(rb"^[ \t]*+([!-_][ -`]++)([^\r\n]?)", re.MULTILINE)
_UU_END = re.compile(rb"\n[ \t]{0,4}(?:end|====)[ \t]*\r?(?:\n|\Z)", re.IGNORECASE)
_YENC = re.compile(rb"(?:^|\n)=ybegin [^\r\n]{0,300}?name=([^\r\n]{1,200})\r?\n(?:=ypart [^\r\n]{0,200}\r?\n)?")
_YENC_END = re.compile(rb"\n=yend")
_BINHEX = re.compile(rb"must be converted with BinHex[^\r\n]{0,40}\s{1,20}:")
_RUN = re.compile(
    rb"(?<![A-Za-z0-9+/=_.%&?-])[A-Za-z0-9+/]{40,}+(?:[ \t]?\r?\n[A-Za-z0-9+/]++(?=[=\r\n]|\Z))*+(?:\r?\n)?={0,2}"
)
_TOKEN = b"x" * 40
_LIKE_TOKENS = bytes(0x78 if re.match(rb"[A-Za-z0-9+/]", bytes([octet])) else 0x20 for octet in range(256))
"""Makes an x of each character of base64: a run of them is found many times quicker than by an expression."""
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_PRINTABLE = bytes({*range(32, 127), 9, 10, 13})
_XX = b"+-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_XX_TO_UU = bytes.maketrans(_XX, b"`" + bytes(range(33, 96)))
_SHIFTED = bytes((octet - 42) % 256 for octet in range(256))
_BINHEX_TO_BASE64 = bytes.maketrans(
    b"!\"#$%&'()*+,-012345689@ABCDEFGHIJKLMNPQRSTUVXYZ[`abcdefhijklmpqr",
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
)


class File(NamedTuple):
    """A file as it stood in a text. `name` is a stranger's, "" where it has none."""

    name: str
    octets: bytes


def files(text: bytes, most: int) -> Iterator[File]:
    """Every file that stands in *text*; no more than *most* octets of each."""
    if b"begin" in text.lower():  # quick to see, and seldom so
        yield from _uuencoded(text, most)
    if b"=ybegin" in text:
        yield from _yencoded(text, most)
    if b"BinHex" in text:
        yield from _binhexed(text, most)
    yield from _runs(text, most)


def _name(raw: bytes) -> str:
    return raw.strip().strip(b'"').decode("utf-8", "replace")


def _pieces(begin: re.Pattern[bytes], end: re.Pattern[bytes], text: bytes) -> Iterator[tuple[re.Match[bytes], bytes]]:
    """What stands between each *begin* and the *end* behind it, or the next *begin*, or the end of *text*."""
    begins = begin.finditer(text)
    match = next(begins, None)
    while match:
        following = next(begins, None)
        last = following.start() if following else len(text)
        stop = end.search(text, match.end() - 1, last)
        yield match, text[match.end() : stop.start() if stop else last]
        match = following


def _uuencoded(text: bytes, most: int) -> Iterator[File]:
    for match, body in _pieces(_UU, _UU_END, text):
        read = [loose_base64(body[: most * 2])] if match[1] else _decoded(body[: most * 2])
        name = _name(match[3] or b"") if match[2].isdigit() else ""  # else people may have begun a sentence so
        yield from (File(name, octets[:most]) for octets in read)


def _decoded(body: bytes) -> list[bytes]:
    """What *body* holds as uuencode; where it can be xxencode, which is the same in other letters, as that as well."""
    is_xx = not body.translate(None, _XX + b"\r\n")
    return uudecoded(body) + (uudecoded(body.translate(_XX_TO_UU)) if is_xx else [])


def uudecoded(body: bytes) -> list[bytes]:
    """What the uuencoded lines of *body* hold; where others look nearly so, with those as well and without them."""
    whole, exact = bytearray(), bytearray()
    for match in _UU_LINE.finditer(body):
        line, count = match[1], match[1][0] - 32
        size = 1 + (count * 4 + 2) // 3  # only what the length says: some pad a line
        if len(line) >= size or not match[2]:  # and some cut the blanks at its end
            octets = binascii.a2b_uu(line[:size])
            whole += octets
            exact += octets if (len(line) - 1) // 4 == (count + 2) // 3 else b""
    return list(dict.fromkeys(bytes(octets) for octets in (whole, exact) if octets))


def _yencoded(text: bytes, most: int) -> Iterator[File]:
    for match, body in _pieces(_YENC, _YENC_END, text):
        yield File(_name(match[1]), _yenc(body[: most * 2])[:most])


def _yenc(body: bytes) -> bytes:
    """Each octet is 42 too much, one behind "=" 64 more (yEnc 1.3)."""
    first, *escaped = body.replace(b"\r", b"").replace(b"\n", b"").split(b"=")
    out = [first.translate(_SHIFTED)]
    out += [bytes([(piece[0] - 106) % 256]) + piece[1:].translate(_SHIFTED) for piece in escaped if piece]
    return b"".join(out)


def _binhexed(text: bytes, most: int) -> Iterator[File]:
    for match in _BINHEX.finditer(text):
        stop = text.find(b":", match.end())
        body = text[match.end() : stop if stop >= 0 else len(text)][: most * 2].translate(_BINHEX_TO_BASE64, b"\r\n \t")
        plain = _repeated(loose_base64(body), most)
        name, header = plain[1 : 1 + plain[0]] if plain else b"", plain[1 + plain[0] :] if plain else b""
        size = int.from_bytes(header[11:15], "big")  # NUL, type 4, creator 4, flags 2, then the length of the data fork
        yield File(_name(name), header[21 : 21 + size])


def _repeated(packed: bytes, most: int) -> bytes:
    """Undo BinHex's run lengths: octet, 0x90, count; 0x90 0x00 is a 0x90 itself (RFC 1741, appendix A)."""
    out, at = bytearray(), 0
    while at < len(packed) and len(out) < most:
        mark = packed.find(b"\x90", at)
        if mark < 0 or mark + 1 >= len(packed):
            out += packed[at:]
            break
        out += packed[at:mark]
        count = packed[mark + 1]
        out += b"\x90" if not count else bytes(out[-1:]) * (count - 1)
        at = mark + 2
    return bytes(out[:most])


def _runs(text: bytes, most: int) -> Iterator[File]:
    for match in _long_runs(text):
        if match.end() - match.start() >= MIN_RUN:
            octets = loose_base64(match[0][: most * 2])[:most]
            if sniff(octets[:PREFIX]) or is_text(octets[:PREFIX]):
                yield File("", octets)


def _long_runs(text: bytes) -> Iterator[re.Match[bytes]]:
    """Each match of `_RUN`: one begins where a long run does, or nowhere in that."""
    tokens = text.translate(_LIKE_TOKENS)
    at = tokens.find(_TOKEN)
    while at >= 0:
        if match := _RUN.match(text, at):
            yield match
        end = match.end() if match else tokens.find(b" ", at)
        at = tokens.find(_TOKEN, end) if end >= 0 else -1


def is_text(octets: bytes) -> bool:
    """Whether *octets* are lines of ASCII, as scripts and EICAR are, and keys and hashes are not."""
    return len(octets) >= 32 and not octets.translate(None, _PRINTABLE)


def loose_base64(raw: bytes) -> bytes:
    """Decode as mail programs do: characters outside the alphabet are passed over, a torn end is dropped."""
    try:
        return binascii.a2b_base64(raw)
    except binascii.Error:
        kept = re.sub(rb"[^A-Za-z0-9+/]", b"", raw)
        whole = len(kept) - (len(kept) % 4 == 1)
        return binascii.a2b_base64(kept[:whole] + b"=" * (-whole % 4))


def loose_quoted(raw: bytes) -> bytes:
    """Decode quoted-printable. White space at the end of a line does not count (RFC 2045 6.7, rule 3)."""
    if b"= " in raw or b"=\t" in raw:
        raw = re.sub(rb"=[ \t]+(?=\r?\n)", b"=", raw)
    return binascii.a2b_qp(raw)


def otherwise(raw: bytes) -> list[bytes]:
    """What else readers see in odd base64: without the lines that have other characters in them; and where it goes on
    behind its "=", each piece by itself, or no padding at all."""
    lines = [line for line in raw.split(b"\n") if not line.strip().translate(None, _BASE64)]
    out = [loose_base64(b"\n".join(lines))]
    padding = raw.find(b"=")
    if padding >= 0 and raw[padding:].strip(b"= \t\r\n"):
        out += [b"".join(loose_base64(match[0] + b"==") for match in re.finditer(rb"[^=]+", raw))]
        out += [loose_base64(raw.replace(b"=", b""))]
    return out

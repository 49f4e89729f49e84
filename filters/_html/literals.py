"""What stands encoded in the script of a page: base64, hexadecimal, lists of numbers, escapes; joined and decoded.

The rule: no script is run. Each reader is linear and decodes what stands there whatever a script would do with it.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator

from filters._html.seen import Exhausted, Meter

MIN_RUN = 53
"""Characters of base64 that are worth decoding: some 40 octets. And so many numbers in a list."""
MIN_NUMBERS = 40
MANY = 12
"""Escapes in a page from which on it is read without them too."""
MAX_ESCAPES = 200_000

_JOINS = re.compile(r"""(["'`])\s*+(?:\+|\.concat\()\s*+["'`]""")
_LIST = re.compile(r"""(["'`])\s*+,\s*+["'`]""")
_CONTINUED = re.compile(r"\\\r?\n")
_WRAPPED = re.compile(r"(?<![A-Za-z0-9+/])([A-Za-z0-9+/]{40,}+)(?:\\r)?(?:\\n|\r?\n)[ \t]{0,16}(?=[A-Za-z0-9+/]{4})")
_HEX = re.compile(rb"[0-9A-Fa-f]*+\Z")
_LIST_OF_NUMBERS = re.compile(r"(?<![0-9A-Fa-fx,\s-])[0-9A-Fa-fx,\s-]{80,}+")
_NUMBER = re.compile(r"-?(?:0x[0-9A-Fa-f]{1,2}|\d{1,3})")
_ESCAPE = re.compile(
    r"\\x([0-9A-Fa-f]{2})|\\u\{?00([0-9A-Fa-f]{2})\}?|%u00([0-9A-Fa-f]{2})|%([0-9A-Fa-f]{2})|&#x0{0,4}([0-9A-Fa-f]{2});"
)
_DECIMAL = re.compile(r"&#0{0,4}(\d{2,3})(?!\d);?")
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"
_TOKENS = bytes(octet if octet in _ALPHABET else 0x20 for octet in range(256)).translate(bytes.maketrans(b"-_", b"+/"))
"""Turns what is not base64 into spaces, and the alphabet for addresses (RFC 4648, 5) into the other one."""


def joined(text: str) -> str:
    """*text* with the pieces of its literals put together."""
    text = _CONTINUED.sub("", text) if "\\\n" in text or "\\\r" in text else text
    text = _JOINS.sub("", text)
    text = _LIST.sub("", text) if ".join(" in text else text
    return _WRAPPED.sub(r"\1", text)


def runs(text: str, meter: Meter) -> Iterator[bytes]:
    """What each long run in *text* decodes to, where it does at all; several readings of one run."""
    backwards = "reverse" in text
    tokens = text.encode("latin-1", "replace").translate(_TOKENS).split()
    for run in (token for token in tokens if len(token) >= MIN_RUN):
        meter.count(len(run))
        yield base64_of(run)
        if backwards:
            yield base64_of(run[::-1])
        if _HEX.match(run):
            yield binascii.a2b_hex(run[: len(run) & ~1])
    if text.count(",") >= MIN_NUMBERS:
        for match in _LIST_OF_NUMBERS.finditer(text):
            meter.count(2 * len(match[0]))
            yield bytes(_number(one) & 255 for one in _NUMBER.findall(match[0]))


def unescaped(text: str) -> str:
    """*text* with its escapes resolved; "" where it has hardly any."""
    count = sum(text.count(mark) for mark in ("%", "\\x", "\\u", "&#"))
    if count > MAX_ESCAPES:
        raise Exhausted
    if count < MANY:
        return ""
    plain = _ESCAPE.sub(lambda match: chr(int(match[match.lastindex or 1], 16)), text)
    return _DECIMAL.sub(lambda match: chr(int(match[1]) & 255), plain)


def _number(text: str) -> int:
    return int(text, 16) if "x" in text else int(text)


def base64_of(run: bytes) -> bytes:
    """What *run*, whose padding may be missing, decodes to."""
    whole = run[: len(run) - (len(run) % 4 == 1)]
    return binascii.a2b_base64(whole + b"=" * (-len(whole) % 4))

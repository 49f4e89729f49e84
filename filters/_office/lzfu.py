"""Rich text as Outlook packs it for the bodies of mails (MS-OXRTFCP): octets in, octets out.

The rule: what breaks off ends there, and each step is counted.
"""

from __future__ import annotations

from filters._office.seen import Meter, Unreadable

MARKS = (b"LZFu", b"MELA")
"""Stand at octet 8: packed, or as it is."""
_HEADER = 16
_WINDOW = 4096
_MAX = 8 << 20
_KNOWN = (
    rb"{\rtf1\ansi\mac\deff0\deftab720{\fonttbl;}{\f0\fnil \froman \fswiss \fmodern \fscript \fdecor MS Sans Serif"
    rb"SymbolArialTimes New RomanCourier{\colortbl\red0\green0\blue0"
    b"\r\n"
    rb"\par \pard\plain\f0\fs20\b\i\u\tab\tx"
)
"""What both sides have seen before the first octet (2.1.2.1)."""


def is_packed(head: bytes) -> bool:
    """Whether what begins with *head* is such a text."""
    return head[8:12] in MARKS


def unpacked(data: bytes, meter: Meter) -> bytes:
    """The rich text in *data*; `Unreadable` where it is too much."""
    if data[8:12] == MARKS[1]:
        return data[_HEADER:]
    out, at = bytearray(_KNOWN), _HEADER
    while at < len(data) and len(out) < _MAX:
        meter.steps(40)
        control, at = data[at], at + 1
        for bit in range(8):
            if not control >> bit & 1:
                out += data[at : at + 1]
                at += 1
            elif at + 2 <= len(data) and _repeat(out, int.from_bytes(data[at : at + 2], "big")):
                at += 2
            else:
                return bytes(out[len(_KNOWN) :])
    if len(out) >= _MAX:
        raise Unreadable("has a text that unpacks to more than is read")
    return bytes(out[len(_KNOWN) :])


def _repeat(out: bytearray, reference: int) -> bool:
    """Append what *reference* points to in the window: 12 bits say where, 4 how much; False where it is the end."""
    place, size = reference >> 4, (reference & 15) + 2
    back = (len(out) - place) % _WINDOW
    if not back or back > len(out):
        return False
    piece = out[-back:][:size]
    out += (piece * (size // len(piece) + 1))[:size]
    return True

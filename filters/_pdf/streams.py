"""What the streams of a PDF hold, unpacked (ISO 32000-1, 7.4), never more than is asked for."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Callable, Iterator

from filters._pdf.lexer import SKIPPED, Name, Unreadable, Value, number

MAX_SLOW = 1 << 18
"""Octets that decoders written in Python give."""
MAX_PACKED = 16 << 20
MAX_FILTERS = 4

_BEGIN = re.compile(SKIPPED + rb"stream(?:\r\n|\n|\r)?")
_NOT_HEXADECIMAL = re.compile(rb"[^0-9A-Fa-f]")
_NOT_BASE85 = re.compile(rb"[^!-uz]")


def beginning(data: bytes, position: int) -> int:
    """Where the octets of the stream begin whose dictionary ends at *position*; -1 where no stream follows."""
    match = _BEGIN.match(data, position)
    return match.end() if match else -1


def unpacked(data: bytes, start: int, dictionary: dict[str, Value], most: int) -> bytes:
    """At most *most* octets of the stream at *start*. `Unreadable` where a filter is not known, or its input is not."""
    names = _listed(dictionary.get("Filter"))
    parameters = _listed(dictionary.get("DecodeParms"))
    if len(names) > MAX_FILTERS:
        raise Unreadable("packs a stream more often than is read")
    octets = _raw(data, start, most, packed=bool(names))
    for index, one in enumerate(names):
        decode = _DECODERS.get(one) if isinstance(one, Name) else None
        if decode is None:
            raise Unreadable("packs a stream in a way that is not read")
        octets = decode(octets, most)
        if decode is not inflated and MAX_SLOW <= len(octets) < most:
            raise Unreadable("unpacks to more than is read")
        octets = _predicted(octets, parameters[index] if index < len(parameters) else None)
    return octets[:most]


def inflated(octets: bytes, most: int) -> bytes:
    """At most *most* octets; what a broken stream gives up to where it breaks, and b"" where it is none."""
    for window, packed in ((zlib.MAX_WBITS, octets), (-zlib.MAX_WBITS, octets[2:])):
        if found := _inflated(packed, most, window):
            return found
    return b""


def _inflated(octets: bytes, most: int, window: int) -> bytes:
    """In steps, so that what stands before a fault is kept."""
    machine, found, view = zlib.decompressobj(window), bytearray(), memoryview(octets)
    try:
        for at in range(0, len(octets), 4096):
            found += machine.decompress(view[at : at + 4096], most - len(found))
            if machine.eof or len(found) >= most:
                break
    except zlib.error:
        pass
    return bytes(found)


def _listed(value: Value) -> list[Value]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _raw(data: bytes, start: int, most: int, *, packed: bool) -> bytes:
    """The octets of the stream, or more: how long it is said to be does not count, and filters know their end."""
    limit = min(len(data), start + 2 * min(most, MAX_PACKED) + 1024)
    end = -1 if packed else data.find(b"endstream", start, limit)
    return data[start : end if end >= 0 else limit]


def _hexadecimal(octets: bytes, most: int) -> bytes:
    digits = _NOT_HEXADECIMAL.sub(b"", octets.partition(b">")[0])[: 2 * most]
    return bytes.fromhex((digits + b"0" * (len(digits) % 2)).decode())


def _base85(octets: bytes, most: int) -> bytes:
    digits = _NOT_BASE85.sub(b"", octets.partition(b"~>")[0])[: min(most, MAX_SLOW) * 5 // 4]
    try:
        return base64.a85decode(digits)
    except ValueError:
        raise Unreadable("has a stream that is broken") from None


def _run_lengths(octets: bytes, most: int) -> bytes:
    found, at = bytearray(), 0
    while at + 1 < len(octets) and octets[at] != 128 and len(found) < min(most, MAX_SLOW):
        length = octets[at]
        found += octets[at + 1 : at + 2 + length] if length < 128 else octets[at + 1 : at + 2] * (257 - length)
        at += length + 2 if length < 128 else 2
    return bytes(found)


def _lzw(octets: bytes, most: int) -> bytes:
    """LZW with early change (7.4.4), which is all that is seen in the wild."""
    table, found, last = _first_table(), bytearray(), b""
    for code in _codes(octets, table):
        if code == 257 or len(found) >= min(most, MAX_SLOW):
            break
        if code == 256:
            del table[258:]
            last = b""
            continue
        if code > len(table) or (code == len(table) and not last):
            break
        entry = table[code] if code < len(table) else last + last[:1]
        if last:
            table.append(last + entry[:1])
        found += entry
        last = entry
    return bytes(found)


def _first_table() -> list[bytes]:
    return [*(bytes([octet]) for octet in range(256)), b"", b""]


def _codes(octets: bytes, table: list[bytes]) -> Iterator[int]:
    """The codes in *octets*, each as wide as *table*, which grows meanwhile, is long."""
    held = bits = 0
    for octet in octets:
        held, bits = held << 8 | octet, bits + 8
        width = min(12, (len(table) + 1).bit_length())
        if bits >= width:
            bits -= width
            yield held >> bits
            held &= (1 << bits) - 1


def _predicted(octets: bytes, parameters: Value) -> bytes:
    """*octets* as they were before a PNG predictor made them easier to pack (7.4.4.4)."""
    given = parameters if isinstance(parameters, dict) else {}
    predictor = number(given.get("Predictor"))
    if predictor < 2:
        return octets
    if predictor < 10:
        raise Unreadable("packs a stream in a way that is not read")
    colours, depth, columns = (number(given.get(key)) or usual for key, usual in _USUAL)
    width = (colours * depth * columns + 7) // 8
    if max(width, len(octets)) > MAX_SLOW:
        raise Unreadable("unpacks to more than is read")
    return _rows(octets, max(1, colours * depth // 8), width)


_USUAL = (("Colors", 1), ("BitsPerComponent", 8), ("Columns", 1))


def _rows(octets: bytes, pixel: int, width: int) -> bytes:
    found, above = bytearray(), bytes(width)
    for at in range(0, len(octets), width + 1):
        row = bytearray(octets[at + 1 : at + 1 + width].ljust(width, b"\0"))
        _restore(row, above, octets[at], pixel)
        found += row
        above = bytes(row)
    return bytes(found)


def _restore(row: bytearray, above: bytes, kind: int, pixel: int) -> None:
    """Undo the PNG filter *kind* (PNG, 9.2) in place."""
    for index in range(len(row)):
        left = row[index - pixel] if index >= pixel else 0
        corner = above[index - pixel] if index >= pixel else 0
        guess = (0, left, above[index], (left + above[index]) // 2, _paeth(left, above[index], corner))[min(kind, 4)]
        row[index] = (row[index] + guess) & 255


def _paeth(left: int, above: int, corner: int) -> int:
    guess = left + above - corner
    return min((left, above, corner), key=lambda one: abs(guess - one))


_DECODERS: dict[str, Callable[[bytes, int], bytes]] = {
    "FlateDecode": inflated,
    "Fl": inflated,
    "ASCIIHexDecode": _hexadecimal,
    "AHx": _hexadecimal,
    "ASCII85Decode": _base85,
    "A85": _base85,
    "LZWDecode": _lzw,
    "LZW": _lzw,
    "RunLengthDecode": _run_lengths,
    "RL": _run_lengths,
    "Crypt": lambda octets, most: octets[:most],
}

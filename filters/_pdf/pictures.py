"""The pictures of a PDF (ISO 32000-1, 8.9.5), as far as a common decoder, or none at all, makes pixels of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from filters._pdf import streams
from filters._pdf.lexer import REGULAR, Meter, Unreadable, Value, holder, number, occurrences

_IMAGE = re.compile(rb"/Image(?!" + REGULAR + rb")")
_MODES = {1: "L", 3: "RGB", 4: "CMYK"}


@dataclass(frozen=True, slots=True)
class Picture:
    """The octets of a JPEG, where `mode` is ""; else rows of pixels, as Pillow names them: "1", "L", "RGB", "CMYK"."""

    octets: bytes
    mode: str = ""
    size: tuple[int, int] = (0, 0)


def pictures(data: bytes, meter: Meter, pixels: int) -> Iterator[Picture]:
    """Those of at most *pixels* pixels. What is packed in other ways is passed over; `Unreadable` where *meter* is."""
    for match in occurrences(_IMAGE, data, meter):
        dictionary, end = holder(data, match.end(), meter)
        width, height = number(dictionary.get("Width")), number(dictionary.get("Height"))
        start = streams.beginning(data, end)
        if start >= 0 and 0 < width * height <= pixels and (found := _picture(data, start, dictionary, meter)):
            yield found


def _picture(data: bytes, start: int, dictionary: dict[str, Value], meter: Meter) -> Picture | None:
    if dictionary.get("Filter") in ("DCTDecode", ["DCTDecode"]):
        end = data.find(b"endstream", start)
        return Picture(data[start:] if end < 0 else data[start:end])
    size = number(dictionary.get("Width")), number(dictionary.get("Height"))
    try:
        octets = streams.unpacked(data, start, dictionary, min(4 * size[0] * size[1] + 1, meter.octets + 1))
    except Unreadable:
        return None
    meter.unpacked(len(octets))
    return _of_pixels(octets, size)


def _of_pixels(octets: bytes, size: tuple[int, int]) -> Picture | None:
    """How many octets there are says what they are: a bit for each pixel, or one octet for each of its colours."""
    width, height = size
    if mode := _MODES.get(len(octets) // (width * height)):
        return Picture(octets[: len(octets) // (width * height) * width * height], mode, size)
    return Picture(octets, "1", size) if len(octets) >= (width + 7) // 8 * height else None

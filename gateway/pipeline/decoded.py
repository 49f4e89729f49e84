"""An attachment in base64 as a file that is decoded where it is read: a large one never stands in memory whole."""

from __future__ import annotations

import binascii
from bisect import bisect_right
from collections.abc import Iterator
from mmap import mmap
from typing import NamedTuple

from gateway.pipeline.mapped import Passing
from gateway.pipeline.seekable import Seekable

PORTION = 64 << 10
"""Octets of base64 that are decoded at a time."""

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_OTHERS = bytes({*range(256)} - {*_ALPHABET})


class _Portion(NamedTuple):
    """Base64 from `start` to `stop`, which begins at a group of four; `at` is where what it means begins."""

    at: int
    start: int
    stop: int


def base64(data: bytes | mmap, start: int, end: int) -> Seekable:
    """What *data*, from *start* to *end*, means in base64: to the first "=", other characters passed over.

    `ValueError` where there are so many others that nobody would take it for base64.
    """
    found = _Base64(data, start, end)
    return Seekable(found.size, found.read)


class _Base64:
    """Base64 in portions, of which the last one that was decoded is kept."""

    def __init__(self, data: bytes | mmap, start: int, end: int) -> None:
        self._data = data
        self._portions = list(_portions(data, start, end))
        self._starts = [portion.at for portion in self._portions]
        self._last: tuple[int, bytes] = -1, b""
        self.size = self._starts[-1] + len(self._decoded(len(self._starts) - 1)) if self._starts else 0

    def read(self, place: int, most: int) -> bytes:
        """At most *most* octets of the portion in which *place* is, from there on."""
        number = bisect_right(self._starts, place) - 1
        first = place - self._starts[number]
        return self._decoded(number)[first : first + most]

    def _decoded(self, number: int) -> bytes:
        if self._last[0] != number:
            _, start, stop = self._portions[number]
            groups = self._data[start:stop].translate(None, _OTHERS)
            if isinstance(self._data, Passing):
                self._data.let_all_go()
            whole = len(groups) - (len(groups) % 4 == 1)  # one character alone means nothing
            self._last = number, binascii.a2b_base64(groups[:whole] + b"=" * (-whole % 4))
        return self._last[1]


def _portions(data: bytes | mmap, start: int, end: int) -> Iterator[_Portion]:
    padding = data.find(b"=", start, end)
    end = end if padding < 0 else padding
    at = 0
    while start < end:
        piece = data[start : min(end, start + PORTION)]
        stop = start + len(piece)
        if stop < end:
            stop -= _torn(piece)
            if stop <= start:
                raise ValueError("this is no base64")
        if count := len(data[start:stop].translate(None, _OTHERS)):
            yield _Portion(at, start, stop)
        if isinstance(data, Passing):
            data.let_go(start, stop)
        at, start = at + count * 3 // 4, stop


def _torn(piece: bytes) -> int:
    """How many octets at the end of *piece* begin a group of four that goes on behind it."""
    torn = len(piece.translate(None, _OTHERS)) % 4
    border = len(piece)
    while torn:
        border -= 1
        torn -= piece[border] in _ALPHABET
    return len(piece) - border

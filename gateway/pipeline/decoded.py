"""An attachment in base64 as a file that is decoded where it is read: a large one never stands in memory whole."""

from __future__ import annotations

import binascii
import io
from bisect import bisect_right
from collections.abc import Iterator
from mmap import mmap
from typing import NamedTuple

from typing_extensions import Buffer

from gateway.pipeline.mapped import Passing

PORTION = 64 << 10
"""Octets of base64 that are decoded at a time."""

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_OTHERS = bytes({*range(256)} - {*_ALPHABET})


class _Portion(NamedTuple):
    """Base64 from `start` to `stop`, which begins at a group of four; `at` is where what it means begins."""

    at: int
    start: int
    stop: int


class Base64(io.RawIOBase):
    """What *data*, from *start* to *end*, means in base64: to the first "=", other characters passed over.

    `ValueError` where there are so many others that nobody would take it for base64.
    """

    def __init__(self, data: bytes | mmap, start: int, end: int) -> None:
        super().__init__()
        self._data = data
        self._portions = list(_portions(data, start, end))
        self._starts = [portion.at for portion in self._portions]
        self._position = 0
        self._last: tuple[int, bytes] = -1, b""
        self._size = self._starts[-1] + len(self._decoded(len(self._starts) - 1)) if self._starts else 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to *offset* from the start, from here or from the end; return the position."""
        self._position = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence])
        return self._position

    def readinto(self, buffer: Buffer, /) -> int:
        """Fill *buffer* from one portion; 0 at the end."""
        if self._position >= self._size:
            return 0
        view, number = memoryview(buffer).cast("B"), bisect_right(self._starts, self._position) - 1
        first = self._position - self._starts[number]
        octets = self._decoded(number)[first : first + len(view)]
        view[: len(octets)] = octets
        self._position += len(octets)
        return len(octets)

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

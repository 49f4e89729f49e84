"""Octets that stand nowhere by themselves, as a file: they are made, or fetched, where it is read."""

from __future__ import annotations

import io
from collections.abc import Callable

from typing_extensions import Buffer

Read = Callable[[int, int], bytes]
"""Gives what stands at a place within the file: at most so many octets, and as few as are at hand; none is the end."""


class Seekable(io.RawIOBase):
    """A file of *size* octets, of which *read* gives what stands where."""

    def __init__(self, size: int, read: Read) -> None:
        super().__init__()
        self._size, self._read = size, read
        self._position = 0

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
        """Fill *buffer* as far as there is something at hand; 0 at the end."""
        view = memoryview(buffer).cast("B")
        most = min(len(view), self._size - self._position)
        octets = self._read(self._position, most) if most > 0 else b""
        view[: len(octets)] = octets
        self._position += len(octets)
        return len(octets)

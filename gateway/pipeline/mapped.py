"""A message mapped into memory. Of a large one, what was looked at is let go, so that it never stands there whole."""

from __future__ import annotations

import mmap
import os
from contextlib import AbstractContextManager, nullcontext

WINDOW = 1 << 20
"""Octets that stay in memory at a time, a multiple of a page; smaller messages stay whole."""


class Passing(mmap.mmap):
    """Looks like its octets. What a search has passed is let go, and comes back from the file when it is read again."""

    def find(self, octets: bytes, start: int = 0, end: int | None = None) -> int:  # type: ignore[override]
        """As that of `bytes`, for a *start* and *end* that are no less than 0."""
        last = len(self) if end is None else min(end, len(self))
        while start < last:
            stop = min(last, start - start % WINDOW + WINDOW)
            found = super().find(octets, start, min(last, stop + len(octets) - 1))
            self.let_go(start, stop if found < 0 else found)
            if found >= 0:
                return found
            start = stop
        return -1

    def let_go(self, start: int, stop: int) -> None:
        """Let go what stands from *start* to *stop*, but for the window in which *stop* is."""
        first, behind = start - start % WINDOW, stop - stop % WINDOW
        if behind > first:
            self.madvise(mmap.MADV_DONTNEED, first, behind - first)

    def let_all_go(self) -> None:
        """Let everything go."""
        self.madvise(mmap.MADV_DONTNEED)


def mapped(fd: int) -> AbstractContextManager[bytes | mmap.mmap]:
    """The octets of the open file *fd*, for as long as the block lasts."""
    size = os.lseek(fd, 0, os.SEEK_END)  # fstat is a way to look at other files too, and refused
    if not size:
        return nullcontext(b"")  # nothing cannot be mapped
    kind = Passing if size > WINDOW else mmap.mmap
    return kind(fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)  # the confined child may map nothing shared

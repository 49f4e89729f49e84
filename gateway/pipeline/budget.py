"""What is left of the limits that the archives of one mail share, however many they are and however they lie in each
other.

The rule: what exceeds one of them makes the mail `Unscannable`, and says so in our words.
"""

from __future__ import annotations

import time

from gateway.pipeline.tray import Unscannable
from gateway.stages import Content as ContentPolicy

Limits = ContentPolicy.Settings

LARGE = 10 << 20
"""Octets from which on the ratio of unpacked to packed ones counts: what is small may be as dense as it likes."""

_SHARE = 0.7
"""Of the CPU time of a mail: the rest is for what looks at the files."""


class Budget:
    """The limits of one mail. *deadline* is by the clock of `time.process_time`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._members = 0
        self._octets = 0
        self._packed = 0
        self._promised = 0
        self.deadline = time.process_time() + limits.cpu * _SHARE

    @property
    def members_left(self) -> int:
        """How many files there may still be."""
        return self._limits.archive_members - self._members

    @property
    def octets_left(self) -> int:
        """How many octets files may still hold."""
        return self._limits.archive_size - self._octets

    def archive(self, size: int, depth: int) -> None:
        """An archive of *size* octets, so many deep; only those in no other count as what the mail has brought."""
        if depth > self._limits.archive_depth:
            raise Unscannable(f"archives are nested more than {self._limits.archive_depth} deep")
        self._packed += size if depth == 1 else 0

    def member(self, container: str) -> None:
        """One more file, of the archive at the path *container*."""
        self._members += 1
        if self._members > self._limits.archive_members:
            raise self.too_many()
        if self.is_late():
            raise self.too_long(container)

    def counted(self, data: bytes) -> bytes:
        """*data*, which was unpacked."""
        self._octets += len(data)
        if self._octets > self._limits.archive_size:
            raise Unscannable(f"archives hold more than {self._limits.archive_size} octets")
        return data

    def promise(self, octets: int) -> None:
        """So much more comes out of the archives, if somebody unpacks them."""
        self._promised += octets
        if self._promised > max(LARGE, self._packed * self._limits.archive_ratio):
            raise Unscannable(f"archives unpack to more than {self._limits.archive_ratio} times their size")

    def is_late(self) -> bool:
        """Whether no time is left."""
        return time.process_time() > self.deadline

    def too_many(self) -> Unscannable:
        """That there are more files than there may be."""
        return Unscannable(f"archives hold more than {self._limits.archive_members} files")

    def too_long(self, path: str) -> Unscannable:
        """That no time is left for the archive at *path*."""
        return Unscannable(f"{where(path)} takes too long to unpack")


def where(path: str) -> str:
    """The archive, by the part of the message that it is in: names inside are a stranger's."""
    return f"the archive in part {path.partition('/')[0]}"

"""How fast the content of a message comes. Pure: the caller brings the clock.

Rule: whoever sends too few octets in a window of time is too slow; a stall in a window that had enough is none.
"""

from __future__ import annotations

import math


class Pace:
    """Counts octets in windows of *window* seconds, each of which needs *rate* octets a second on average."""

    __slots__ = ("_end", "_needed", "_octets", "_window")

    def __init__(self, rate: int, window: float, now: float) -> None:
        self._needed = rate * window
        self._window, self._end = window, now + window
        self._octets = 0

    def count(self, octets: int, now: float) -> None:
        """So many more have come. A window that is over had enough, or the peer would be gone."""
        if now >= self._end:
            self._end, self._octets = now + self._window, 0
        self._octets += octets

    @property
    def deadline(self) -> float:
        """When the peer has been too slow, if nothing more comes; infinity where this window has enough already."""
        return math.inf if self._octets >= self._needed else self._end

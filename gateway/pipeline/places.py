"""The places of the confined workers, and who waits for one.

Whoever waits stands in the line of his network, and the lines take turns: a peer with a hundred costly mails holds up
nobody with a single one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Places(Generic[T]):
    """What one mail at a time may have, given out as it is free; what was used last goes out first."""

    def __init__(self, free: Iterable[T]) -> None:
        self._free = list(free)
        self._lines: dict[str, deque[asyncio.Future[T]]] = {}  # in the order of their turns

    @property
    def free(self) -> int:
        """How many can be taken at once; nobody waits while there are any."""
        return len(self._free)

    def take_free(self) -> T:
        """One of those."""
        return self._free.pop()

    async def wait(self, line: str) -> T:
        """One, when it is the turn of *line* and of those before us in it."""
        if self._free:
            return self._free.pop()
        place: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(line, deque()).append(place)
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # ours at the very moment at which we gave up
                self.give_back(place.result())
            raise

    def give_back(self, one: T) -> None:
        """*one* goes to the first in the line whose turn it is, or is free."""
        while self._lines:
            place = self._next()
            if not place.done():
                place.set_result(one)
                return
        self._free.append(one)

    def _next(self) -> asyncio.Future[T]:
        """Who has waited longest in the line whose turn it is; the line goes behind all others."""
        name, line = next(iter(self._lines.items()))
        del self._lines[name]
        place = line.popleft()
        if line:
            self._lines[name] = line
        return place

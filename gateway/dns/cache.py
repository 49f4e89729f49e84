"""Answers of the DNS, kept for as long as they say, within a bound of octets."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeAlias

Value: TypeAlias = str | bytes | tuple[int, str]
Key: TypeAlias = tuple[str, str]
"""Name (lower case, no final dot) and type."""

_ENTRY_SIZE = 512  # what an entry costs beside its texts


class Cache:
    """Answers by question. The least recently used are thrown out until the rest fits into `limit` octets."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._clock = limit, clock
        self._entries: OrderedDict[Key, tuple[float, tuple[Value, ...]]] = OrderedDict()
        self.size = 0

    def get(self, key: Key) -> tuple[Value, ...] | None:
        """The answer kept, or None. An answer of no records is the empty tuple."""
        if (entry := self._entries.get(key)) is None:
            return None
        if entry[0] <= self._clock():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry[1]

    def put(self, key: Key, values: tuple[Value, ...], ttl: float) -> None:
        """Keep *values* for *ttl* seconds."""
        if ttl <= 0:
            return
        if key in self._entries:
            self._drop(key)
        self._entries[key] = (self._clock() + ttl, values)
        self.size += _cost(values)
        while self.size > self._limit:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: Key) -> None:
        self.size -= _cost(self._entries.pop(key)[1])


def _cost(values: tuple[Value, ...]) -> int:
    return _ENTRY_SIZE + sum(64 + (len(value) if isinstance(value, (str, bytes)) else 320) for value in values)

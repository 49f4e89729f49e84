"""What engines said of octets that they have seen before, kept in the shared state.

The rule: the same octets, and the same signatures. A cache that cannot be reached, or holds nonsense, knows nothing.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress

from filters._scanners.said import CODES, Said
from gateway.model import Shared, Temporary

_PREFIX = "antivirus"


class Cache:
    """Verdicts by the SHA-256 of the octets and the version of who said it; forgotten after *ttl* seconds."""

    def __init__(self, state: Shared, ttl: float) -> None:
        self._state, self._ttl = state, ttl

    @property
    def kept(self) -> bool:
        """Whether anything is."""
        return self._ttl > 0

    async def get(self, digest: str, version: str) -> Said | None:
        """What was said, if it is known."""
        try:
            value = await self._state.get(_key(digest, version))
        except Temporary:
            return None
        return _read(value) if value else None

    async def put(self, digest: str, version: str, said: Said) -> None:
        """Keep what was *said*."""
        with suppress(Temporary):
            await self._state.put(_key(digest, version), json.dumps(said), self._ttl)


def _key(digest: str, version: str) -> str:
    return f"{_PREFIX}:{digest}:{hashlib.sha256(version.encode()).hexdigest()[:32]}"


def _read(value: str) -> Said | None:
    with suppress(ValueError, TypeError, RecursionError):  # the last, of lists in lists by the thousand
        said = Said(*json.loads(value))
        if said.code in CODES and all(isinstance(word, str) and word.isprintable() for word in said):
            return said
    return None

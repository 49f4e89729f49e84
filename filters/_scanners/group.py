"""Several engines of one kind, which share the load: the least busy is asked, and the next where it cannot tell.

One that fails is rested, and tried again after a while by one mail alone; where all rest, they are asked all the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from filters._scanners.cache import Cache
from filters._scanners.said import Engine, Failed, Octets, Refused, Said, Version
from gateway.model import Temporary

VERSION_AGE = 30.0
"""Seconds for which an engine's word on its version and signatures is taken as still true."""


@dataclass(slots=True)
class _Seat:
    """One engine, how many scans it has in hand, and how it fared: it rests `until` then."""

    engine: Engine
    busy: int = 0
    sound: bool = False
    failed: bool = False
    until: float = 0.0
    version: Version = field(default_factory=Version)
    asked: float = field(default=float("-inf"))


class Group:
    """Engines that are as good as each other. At most *at_once* scans go to each; one that fails rests *pause* s."""

    def __init__(
        self,
        name: str,
        engines: Sequence[Engine],
        cache: Cache,
        *,
        at_once: int,
        pause: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._seats = [_Seat(engine) for engine in engines]
        self._cache, self._at_once, self._pause, self._clock = cache, at_once, pause, clock
        self._line = asyncio.Lock()  # first come, first served
        self._freed = asyncio.Event()

    async def scan(self, octets: Octets, deadline: float) -> tuple[Said, str]:
        """What the first engine that can tell says, and its version. `Temporary` where none can by *deadline*."""
        failures: list[str] = []
        untried = list(self._seats)
        while untried:
            seat = await self._turn(untried, deadline, failures)
            untried.remove(seat)
            try:
                return await self._scan_at(seat, octets, self._share(untried, deadline))
            except Failed as failure:
                failures.append(f"{seat.engine.written}: {failure}")
            finally:
                seat.busy -= 1
                self._freed.set()
        raise self._cannot_tell(failures)

    def _cannot_tell(self, failures: Sequence[str]) -> Temporary:
        return Temporary(f"no {self.name} could tell ({'; '.join(failures)})")

    async def _turn(self, untried: Sequence[_Seat], deadline: float, failures: Sequence[str]) -> _Seat:
        """The seat to take now, taken; waits where all have their hands full."""
        try:
            async with asyncio.timeout_at(deadline), self._line:
                while (seat := self._next(untried)).busy >= self._at_once:
                    self._freed.clear()
                    await self._freed.wait()
        except TimeoutError:
            raise self._cannot_tell([*failures, "had no time"]) from None
        seat.busy += 1
        if seat.failed:
            seat.until = self._clock() + self._pause  # the others wait for how this one fares
        return seat

    def _next(self, untried: Sequence[_Seat]) -> _Seat:
        now = self._clock()
        awake = [seat for seat in untried if seat.until <= now]
        return min(awake or untried, key=lambda seat: seat.busy)

    def _share(self, others: Sequence[_Seat], deadline: float) -> float:
        """The deadline of one try: where another engine is known to be well, some time is left for it."""
        now = asyncio.get_running_loop().time()
        return now + (deadline - now) / (1 + sum(seat.sound for seat in others))

    async def _scan_at(self, seat: _Seat, octets: Octets, deadline: float) -> tuple[Said, str]:
        # Its version first: signatures that come in the meantime make the verdict better than its label, never worse.
        version = await self._version(seat, deadline)
        key = version.label if self._cache.kept else ""  # a scanner that does not tell its signatures has none
        if key and (known := await self._cache.get(await octets.digest(), key)):
            return known, version.words
        try:
            said = await seat.engine.scan(octets, deadline)
        except Refused:
            raise
        except Failed:
            seat.sound, seat.failed, seat.until = False, True, self._clock() + self._pause
            raise
        seat.sound, seat.failed, seat.until = True, False, 0.0
        if key:
            await self._cache.put(await octets.digest(), key, said)
        return said, version.words

    async def _version(self, seat: _Seat, deadline: float) -> Version:
        if self._clock() - seat.asked > VERSION_AGE:
            seat.asked = self._clock()  # first: those who come meanwhile go by the last word
            seat.version = await seat.engine.version(deadline)
        return seat.version

"""How often somebody may guess a password, counted over all sessions, processes and protocols.

After some wrong passwords each further one doubles a pause in which none is looked at. A user is only held back at the
address that guessed, so nobody locks another out from elsewhere. Rule: where the shared state is out of reach, what
this process remembers counts; nobody guesses freely because we cannot count.

To check a password is work. Strangers take turns at it, a few at a time; who has logged in from there before goes past
them, so that a crowd of guessers does not keep our own people out.
"""

from __future__ import annotations

import asyncio
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

from gateway import events
from gateway.model import Shared, Temporary
from gateway.peers import Address, network
from gateway.stages import Logins

REMEMBERED = 10_000
"""Counters that one process keeps while the shared state is out of reach."""
_AT_ONCE = 0.001
_DOUBLED = 32
"""Times that a pause is doubled at most, before `longest_pause` bounds it."""


class HeldBack(Temporary):
    """There were too many wrong passwords: this one was not looked at."""


class Backoff:
    """Counts wrong passwords. *settings* gives logins.toml as it is in force now."""

    def __init__(
        self, state: Shared, settings: Callable[[], Logins], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._state, self._settings = state, settings
        self._own = _Memory(clock)
        self._turns = asyncio.Semaphore(settings().threads)

    async def checked(self, peer: Address, login: str, check: Callable[[], Awaitable[str]]) -> str:
        """The account that *check* finds, or "" where it finds none, which takes `delay` seconds whatever is wrong.

        `HeldBack`, and no check, where *peer* has guessed too often; `Temporary` where its turn does not come. An
        attempt counts as wrong until it is proved right, so that many at once are no way around.
        """
        settings = self._settings()
        until = time.monotonic() + settings.delay
        user, place = keys = _keys(peer, login)
        counts = await self._add(dict.fromkeys(keys, 1), settings.memory)
        begun = await self._begun(keys, counts, settings)
        try:
            account = await self._in_turn(user, check, settings)
        except Temporary:
            await self._forgive({user: -1, place: -1}, begun, settings)
            raise
        if account:
            await self._forgive({place: -1}, [user, *begun], settings)
            await self._remember(user, settings)
        else:
            await asyncio.sleep(until - time.monotonic())
        return account

    async def _in_turn(self, user: str, check: Callable[[], Awaitable[str]], settings: Logins) -> str:
        if await self._is_known(user):
            return await check()
        try:
            async with asyncio.timeout(settings.turn):
                await self._turns.acquire()
        except TimeoutError:
            raise Temporary("too many passwords wait to be checked") from None
        try:
            return await check()
        finally:
            self._turns.release()

    async def _is_known(self, user: str) -> bool:
        with suppress(Temporary):
            return await self._state.get(f"known:{user}") is not None
        return False

    async def _remember(self, user: str, settings: Logins) -> None:
        with suppress(Temporary):
            await self._state.put(f"known:{user}", "1", settings.known)

    async def _begun(self, keys: Sequence[str], counts: Sequence[int], settings: Logins) -> Sequence[str]:
        """The pauses that begin with the attempt that *counts* has in it; `HeldBack` while an earlier one lasts."""
        begun: list[str] = []
        free = (settings.free_per_user, settings.free_per_peer)
        for key, count, most in zip(keys, counts, free, strict=True):
            if count < most:
                continue
            pause = min(settings.pause * 2.0 ** min(count - most, _DOUBLED), settings.longest_pause)
            if not await self._claim(f"pause:{key}", pause):
                await self._forgive(dict.fromkeys(keys, -1), begun, settings)  # what is not looked at prolongs nothing
                raise HeldBack("too many wrong passwords")
            begun.append(f"pause:{key}")
        return begun

    async def _forgive(self, amounts: Mapping[str, int], over: Sequence[str], settings: Logins) -> None:
        """The attempt was not wrong: it does not count, and what is *over*, the pauses that it began, ends.

        What is to be nothing is not reckoned down to it: of many right ones at once each would take off all the others.
        """
        await self._add(amounts, settings.memory)
        for key in over:
            self._own.release(key)
            with suppress(Temporary):
                await self._state.put(key, "0", _AT_ONCE)

    async def _add(self, amounts: Mapping[str, int], ttl: float) -> Sequence[int]:
        try:
            return await self._state.add_all(amounts, ttl)
        except Temporary as error:
            events.failure("counting logins", error)
            return self._own.add_all(amounts, ttl)

    async def _claim(self, key: str, ttl: float) -> bool:
        try:
            return await self._state.claim(key, ttl)
        except Temporary as error:
            events.failure("counting logins", error)
            return self._own.claim(key, ttl)


def _keys(peer: Address, login: str) -> tuple[str, str]:
    """What is counted: the user as guessed from there, and all guesses from there."""
    place = network(peer)
    return f"login:{place}:{unicodedata.normalize('NFC', login.lower())}", f"login:{place}"


class _Memory:
    """The part of `Shared` that is needed here, for one process, and no more than `REMEMBERED` keys."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kept: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def add_all(self, amounts: Mapping[str, int], ttl: float) -> Sequence[int]:
        """Add to the counters; none falls below zero."""
        return [self._add(key, amount, ttl) for key, amount in amounts.items()]

    def claim(self, key: str, ttl: float) -> bool:
        """Whether nobody has claimed *key* within its time."""
        return key not in self._alive(key) and self._add(key, 1, ttl) == 1

    def release(self, key: str) -> None:
        """*key* is as if it had never been."""
        self._kept.pop(key, None)

    def _add(self, key: str, amount: int, ttl: float) -> int:
        count, ends = self._alive(key).get(key, (0, self._clock() + ttl))
        self._kept[key] = max(0, count + amount), ends
        self._kept.move_to_end(key)
        while len(self._kept) > REMEMBERED:
            self._kept.popitem(last=False)
        return self._kept[key][0]

    def _alive(self, key: str) -> Mapping[str, tuple[int, float]]:
        if key in self._kept and self._kept[key][1] <= self._clock():
            del self._kept[key]
        return self._kept

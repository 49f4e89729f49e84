"""The exclusive lock on a maildrop, across processes, held by a lease that is renewed while the session lives.

Where a session or its whole process is known to have ended, the next one takes its maildrop over at once.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from gateway.model import Temporary
from gateway.store import mailbox, owners

T = TypeVar("T")

_living: set[str] = set()
"""The owners in this process whose sessions go on."""


class Store(Protocol):
    """What of `gateway.store.engine.Store` POP3 needs."""

    async def read(self, work: Callable[[Connection], T]) -> T: ...
    async def write(self, work: Callable[[Connection], T]) -> T: ...


class Lease:
    """The maildrop of *account* for one session. *lost* is called when it may have passed to somebody else."""

    def __init__(self, store: Store, account: str, seconds: float, lost: Callable[[], None]) -> None:
        self.account = account
        self._store = store
        self._seconds = seconds
        self._lost = lost
        self._owner = f"{owners.myself('pop3')}/{secrets.token_hex(8)}"
        _living.add(self._owner)
        self._keeper: asyncio.Task[None] | None = None

    async def take(self) -> bool:
        """Whether the maildrop is ours now. After any other outcome, `give_back` undoes a lock that came too late."""
        asked = time.monotonic()
        try:
            ours = await self._hold(partial(mailbox.lock, is_there=_is_there))
        except Temporary:
            self._abandon()
            raise
        if not ours:
            return False
        self._keeper = asyncio.get_running_loop().create_task(self._keep(asked + self._seconds))
        return True

    async def delete(self, ids: Sequence[int]) -> bool:
        """Delete the messages *ids* and give the maildrop back, in one transaction. False, if it was no longer ours.

        `Temporary` where the store cannot do it now; nothing is deleted then, and the maildrop is left to the next.
        """

        def work(conn: Connection) -> bool:
            done = not ids or mailbox.delete(conn, self.account, self._owner, ids)
            mailbox.unlock(conn, self.account, self._owner)
            return done

        self._stop_keeping()
        try:
            return await self._store.write(work)
        finally:
            self._abandon()

    async def give_back(self) -> None:
        """Let others in. Where the store cannot do it now, other processes have to wait until the lease runs out."""
        if self._owner not in _living:
            return
        self._abandon()
        with suppress(Temporary):
            await self._store.write(lambda conn: mailbox.unlock(conn, self.account, self._owner))

    async def _hold(self, act: Callable[[Connection, str, str, float, float], bool]) -> bool:
        return await self._store.write(lambda conn: act(conn, self.account, self._owner, time.time(), self._seconds))

    async def _keep(self, until: float) -> None:
        """Renew in time. A store out of reach leaves the lease ours until it may have passed to another."""
        held = True
        while held:
            await asyncio.sleep(self._seconds / 3)
            asked = time.monotonic()
            try:
                held = await self._hold(mailbox.renew)
                until = asked + self._seconds
            except Temporary:
                held = time.monotonic() < until
        self._lost()

    def _abandon(self) -> None:
        """The session is over, whether or not the store could be told: its process lets the next one in."""
        _living.discard(self._owner)
        self._stop_keeping()

    def _stop_keeping(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()


def _is_there(owner: str) -> bool | None:
    """Whether the session of a holder goes on: known of our own process, and where a process has died."""
    if owner.startswith(f"{owners.myself('pop3')}/"):
        return owner in _living
    return False if owners.is_dead(owner) else None

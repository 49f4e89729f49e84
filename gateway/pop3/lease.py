"""The exclusive lock on a maildrop, across processes, held by a lease that is renewed while the session lives."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from gateway.model import Temporary
from gateway.store import mailbox

T = TypeVar("T")


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
        self._owner = secrets.token_hex(16)
        self._keeper: asyncio.Task[None] | None = None
        self._given_back = False

    async def take(self) -> bool:
        """Whether the maildrop is ours now. After any other outcome, `give_back` undoes a lock that came too late."""
        asked = time.monotonic()
        if not await self._hold(mailbox.lock):
            return False
        self._keeper = asyncio.get_running_loop().create_task(self._keep(asked + self._seconds))
        return True

    async def delete(self, ids: Sequence[int]) -> bool:
        """Delete the messages *ids* and give the maildrop back, in one transaction. False, if it was no longer ours."""

        def work(conn: Connection) -> bool:
            done = not ids or mailbox.delete(conn, self.account, self._owner, ids)
            mailbox.unlock(conn, self.account, self._owner)
            return done

        self._stop_keeping()
        done = await self._store.write(work)
        self._given_back = True
        return done

    async def give_back(self) -> None:
        """Let others in; where the store cannot do it now, the lease runs out by itself."""
        self._stop_keeping()
        if self._given_back:
            return
        self._given_back = True
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

    def _stop_keeping(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()

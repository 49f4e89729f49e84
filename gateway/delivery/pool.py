"""Connections that wait for the next mail to the same host (RFC 5321 3.3 lets one session carry many).

One that turns out dead before a mail has begun costs one more connection, and never an answer to that mail. A host gets
a limited number of connections at once, however many domains it serves.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from gateway.delivery.paths import Address, Hop
from gateway.delivery.relay import Connection, connect
from gateway.delivery.transaction import Outgoing, Result, Stale, send
from gateway.stages import Relay

MAX_IDLE = 50
"""Connections that wait at once; beyond that the one at hand is closed."""


class Pool:
    """Sends mail over connections of its own. *name* is what we call ourselves in EHLO."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._idle: dict[Connection, asyncio.TimerHandle] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._rooms: dict[Address, asyncio.Semaphore] = {}
        self._guests: Counter[Address] = Counter()

    async def send(self, hop: Hop, mail: Outgoing, relay: Relay) -> Sequence[Result]:
        """Send *mail* to *hop*; one result for each recipient. Raise `Failed` where no session comes about."""
        async with self._room(hop.address, relay.connections_per_host):
            used = self._take(hop)
            if used is not None:
                try:
                    return await self._send(used, mail)
                except Stale:
                    used.drop()
            return await self._send(await connect(hop, relay.helo_name or self._name, relay), mail)

    @asynccontextmanager
    async def _room(self, address: Address, most: int) -> AsyncIterator[None]:
        """Wait for a turn with the host. A changed limit counts when nobody talks to it."""
        room = self._rooms.setdefault(address, asyncio.Semaphore(most))
        self._guests[address] += 1
        try:
            async with room:
                yield
        finally:
            self._guests[address] -= 1
            if not self._guests[address]:
                del self._guests[address], self._rooms[address]

    async def _send(self, connection: Connection, mail: Outgoing) -> Sequence[Result]:
        try:
            results = await send(connection, mail)
        except BaseException:
            connection.drop()
            raise
        self._keep(connection)
        return results

    def _take(self, hop: Hop) -> Connection | None:
        """A live connection to *hop* that nobody uses, the one used last first: the others may leave meanwhile."""
        for connection in reversed([one for one in self._idle if one.target == hop]):
            self._idle.pop(connection).cancel()
            if connection.alive:
                return connection
            connection.drop()
        return None

    def _keep(self, connection: Connection) -> None:
        relay = connection.relay
        if not connection.alive:
            connection.drop()
        elif (
            connection.messages < relay.messages_per_connection and relay.idle_connection and len(self._idle) < MAX_IDLE
        ):
            loop = asyncio.get_running_loop()
            self._idle[connection] = loop.call_later(relay.idle_connection, self._expire, connection)
        else:
            self._leave(connection)

    def _leave(self, connection: Connection) -> None:
        """QUIT, while the results of the last mail are already written down."""
        task = asyncio.create_task(connection.quit())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def _expire(self, connection: Connection) -> None:
        del self._idle[connection]
        self._leave(connection)

    async def close(self) -> None:
        """Leave all hosts."""
        for connection, timer in self._idle.items():
            timer.cancel()
            self._leave(connection)
        self._idle.clear()
        await asyncio.gather(*self._leaving)

"""Connections that wait for the next mail to the same host (RFC 5321 3.3 lets one session carry many).

One that turns out dead before a mail has begun costs one more connection, and never an answer to that mail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gateway.delivery.paths import Hop
from gateway.delivery.relay import Connection, connect
from gateway.delivery.transaction import Outgoing, Result, Stale, send
from gateway.stages import Relay

MAX_IDLE = 50
"""Connections that wait at once; beyond that the one at hand is closed."""


class Pool:
    """Sends mail over connections of its own. *name* is what we call ourselves in EHLO."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._idle: dict[Connection, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    async def send(self, hop: Hop, mail: Outgoing, relay: Relay) -> Sequence[Result]:
        """Send *mail* to *hop*; one result for each recipient. Raise `Failed` where no session comes about."""
        used = self._take(hop)
        if used is not None:
            try:
                return await self._send(used, mail)
            except Stale:
                used.drop()
        return await self._send(await connect(hop, relay.helo_name or self._name, relay), mail)

    async def _send(self, connection: Connection, mail: Outgoing) -> Sequence[Result]:
        try:
            results = await send(connection, mail)
        except BaseException:
            connection.drop()
            raise
        self._keep(connection)
        return results

    def _take(self, hop: Hop) -> Connection | None:
        """A live connection to *hop* that nobody uses."""
        for connection in [one for one in self._idle if one.target == hop]:
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
            self._idle[connection] = asyncio.create_task(self._expire(connection, relay.idle_connection))
        else:
            self._leave(connection)

    def _leave(self, connection: Connection) -> None:
        """QUIT, while the results of the last mail are already written down."""
        task = asyncio.create_task(connection.quit())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _expire(self, connection: Connection, seconds: float) -> None:
        await asyncio.sleep(seconds)
        del self._idle[connection]
        self._leave(connection)

    async def close(self) -> None:
        """Leave all hosts."""
        for connection, task in self._idle.items():
            task.cancel()
            self._leave(connection)
        self._idle.clear()
        await asyncio.gather(*self._leaving)

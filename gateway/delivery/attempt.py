"""One attempt at one mail for the recipients that share a way: host after host, until each recipient has a result."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial

from gateway.delivery.paths import Hop, Paths
from gateway.delivery.pool import Pool
from gateway.delivery.reply import Failed, Reply
from gateway.delivery.transaction import Outgoing, Result
from gateway.model import Delivery, Temporary
from gateway.stages import NextHop, Relay
from gateway.store import messages
from gateway.store.engine import Store

Lane = str | NextHop
"""Where mail queues together: a domain, or a fixed next hop."""
Octets = Callable[[], AsyncGenerator[bytes, None]]
Sign = Callable[[Delivery, Octets], Awaitable[bytes]]
Results = AsyncGenerator[tuple[Delivery, Result], None]


@dataclass(frozen=True, slots=True)
class Work:
    """One mail for recipients on the same lane, with the same header of their own.

    `body` is the message without that header, where it is short; None where it is to be read from the store.
    """

    lane: Lane
    deliveries: tuple[Delivery, ...]
    body: bytes | None = field(default=None, repr=False)

    @property
    def next_hop(self) -> NextHop | None:
        """The fixed next hop, if it is one."""
        return self.lane if isinstance(self.lane, NextHop) else None


class Unreachable(Exception):
    """No host of the lane held a conversation with us; `reply` is about the last one, or about the domain."""

    def __init__(self, reply: Reply, *, temporary: bool) -> None:
        super().__init__(str(reply))
        self.result = Result(reply, elsewhere=temporary)


async def attempt(
    work: Work, store: Store, paths: Paths, pool: Pool, relay: Relay, sign: Sign | None = None
) -> Results:
    """Try to deliver: each of the deliveries with its result, as soon as no other host can change it.

    *sign* gives what is to stand on top. Raise `Unreachable` where no host would talk to us.
    """
    try:
        hops = await paths.find(work.deliveries[0].destination, work.next_hop, relay)
    except Failed as failed:
        raise Unreachable(failed.reply, temporary=not failed.reply.permanent) from None
    left = {one.id: one for one in work.deliveries}
    results: dict[int, Result] = {}
    failure = Reply(451, "4.4.1", "no host was tried")
    octets = partial(_octets, store, work.deliveries[0], work.body)
    try:
        top = await sign(work.deliveries[0], octets) if sign else b""
    except Temporary as error:
        for one in work.deliveries:
            yield one, Result(Reply(451, "4.3.0", str(error)))
        return
    for hop in hops:
        try:
            async for one, result in _try(hop, tuple(left.values()), top, octets, pool, relay):
                results[one.id] = result
                if not result.elsewhere:
                    yield left.pop(one.id), result
        except Failed as failed:
            failure = failed.reply
    if not results:
        raise Unreachable(failure, temporary=True)
    for one in left.values():
        yield one, results.get(one.id, Result(failure, elsewhere=True))


async def _try(hop: Hop, left: Sequence[Delivery], top: bytes, octets: Octets, pool: Pool, relay: Relay) -> Results:
    """One host, in as many transactions as its recipients need."""
    for start in range(0, len(left), relay.recipients_per_message):
        some = left[start : start + relay.recipients_per_message]
        for pair in zip(some, await pool.send(hop, _outgoing(some, top, octets), relay), strict=True):
            yield pair


def _outgoing(deliveries: Sequence[Delivery], top: bytes, octets: Octets) -> Outgoing:
    first = deliveries[0]
    return Outgoing(
        sender=first.sender,
        recipients=tuple(one.recipient for one in deliveries),
        size=len(top) + first.size,
        chunks=partial(_under, top, octets) if top else octets,
        eight_bit=first.eight_bit,
        smtputf8=first.smtputf8,
        ret=first.ret,
        envid=first.envid,
    )


async def _under(top: bytes, octets: Octets) -> AsyncGenerator[bytes, None]:
    async with aclosing(octets()) as chunks:
        async for chunk in chunks:
            yield top + chunk
            top = b""


async def _octets(store: Store, delivery: Delivery, body: bytes | None) -> AsyncGenerator[bytes, None]:
    """The mail as this recipient gets it. `Temporary` where the store has not all of it: no half of a mail goes out."""
    if body is not None:
        if len(delivery.header) + len(body) != delivery.size:
            raise Temporary("the store has not all of the message")
        yield delivery.header + body
        return
    if delivery.header:
        yield delivery.header
    async for chunk in _chunks(store, delivery.message_id, delivery.size - len(delivery.header)):
        yield chunk


async def _chunks(store: Store, message_id: str, size: int) -> AsyncGenerator[bytes, None]:
    for n in range(-(-size // messages.CHUNK)):
        try:
            chunk = await store.read(partial(messages.chunk, message_id=message_id, n=n))
        except LookupError:
            chunk = b""
        size -= len(chunk)
        if not chunk or size < 0:
            break
        yield chunk
    if size:
        raise Temporary("the store has not all of the message")

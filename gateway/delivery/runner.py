"""The loop that empties the queue: claim what is due, send it, settle each recipient, tell the senders.

Everything claimed stands under a lease of ours that is renewed while we have it. A process that dies leaves leases that
run out, and the next one takes over: that costs time, and perhaps a second copy, never mail.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from random import SystemRandom

from sqlalchemy import Connection

from gateway import events, failpoints, routes
from gateway.delivery.attempt import Lane, Unreachable, Work, attempt
from gateway.delivery.notices import Intake, Notices
from gateway.delivery.paths import Paths
from gateway.delivery.pool import Pool
from gateway.delivery.reply import Reply
from gateway.delivery.schedule import Step, step
from gateway.delivery.transaction import Result
from gateway.model import Delivery, Dns, State, Temporary
from gateway.stages import Stages
from gateway.store import messages, quarantine, queue
from gateway.store.engine import Store

HELD = 20
"""Deliveries that we hold leases on at once, for each connection we may open; most of them wait for their turn."""
PAUSE = 1.0
"""Seconds before a loop goes on after something went wrong in it."""
SETTLE_AGAIN = (0.1, 0.5, 2.0, 5.0)
"""Seconds between attempts to write down what came of a mail: to forget that it was sent would send it twice."""


@dataclass
class _Line:
    """The mail of one lane: what waits, and how much of it is under way."""

    waiting: deque[Work] = field(default_factory=deque)
    running: int = 0


class Runner:
    """Empties the queue of *store*. *stages* gives the policies in force, *now* the time of day in seconds."""

    def __init__(
        self,
        store: Store,
        intake: Intake,
        resolver: Dns,
        stages: Callable[[], Stages],
        hostname: str,
        *,
        now: Callable[[], float] = time.time,
        paths: Paths | None = None,
        pool: Pool | None = None,
    ) -> None:
        self.owner = f"{hostname[:64]}/{os.getpid()}/{secrets.token_hex(4)}"
        self._store = store
        self._stages = stages
        self._now = now
        self._paths = paths or Paths(resolver, hostname)
        self._pool = pool or Pool(hostname)
        self._notices = Notices(store, intake, hostname, self.owner, now)
        self._chance = SystemRandom().random
        self._lines: dict[Lane, _Line] = {}
        self._held: dict[int, Delivery] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._unreachable: dict[Lane, tuple[float, Result]] = {}
        self._bell: asyncio.Task[None] | None = None
        self._more = False
        self._stopping = False
        self._freed = asyncio.Event()
        self._owed = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until *stop* is set; then finish what is on the wire, within `drain` seconds, and give back the rest."""
        claims = asyncio.create_task(self._repeat(self._claim_all, self._until_due))
        others = {
            asyncio.create_task(self._repeat(self.keep_leases, self._until_renewal)),
            asyncio.create_task(self._repeat(self._tell_all, self._until_owed)),
            asyncio.create_task(self._repeat(self.tidy, self._until_untidy)),
        }
        try:
            await stop.wait()
            self._stopping = True
            self._freed.set()
            await claims
            await self._drain()
        finally:
            await _end({claims, *others, *self._tasks, *([self._bell] if self._bell else [])})
            await self._pool.close()

    async def work_off(self) -> None:
        """Deliver what is due now, once, and tell the senders whom it concerns."""
        await self._claim_all()
        while self._tasks:
            await asyncio.wait(self._tasks)
            await self._claim_all()
        await self._tell_all()

    # ---- Loops ----------------------------------------------------------------------------------------------------

    async def _repeat(self, work: Callable[[], Awaitable[None]], pause: Callable[[], Awaitable[None]]) -> None:
        """Do *work* again and again; trouble in it is told, and ends nothing."""
        while not self._stopping:
            try:
                await work()
                await pause()
            except Temporary as error:
                events.say("delivery waits", why=str(error))
                await asyncio.sleep(PAUSE)
            except Exception as error:  # noqa: BLE001 - the queue is emptied whatever happens
                events.failure("delivery", error)
                await asyncio.sleep(PAUSE)

    async def _until_due(self) -> None:
        """Wait for the bell, for the next look, or for room where there was none."""
        if self._bell is None or self._bell.done():
            self._bell = asyncio.create_task(self._store.wait(self._stages().queue.poll))
        freed = asyncio.create_task(self._freed.wait())
        try:
            await asyncio.wait({self._bell, freed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            freed.cancel()
        self._freed.clear()
        if self._bell.done():
            self._bell.result()

    async def _until_owed(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._stages().queue.poll):
                await self._owed.wait()
        self._owed.clear()

    async def _until_renewal(self) -> None:
        await asyncio.sleep(self._stages().queue.lease / 3)

    async def _until_untidy(self) -> None:
        await asyncio.sleep(self._stages().queue.housekeeping)

    # ---- Claims and leases ----------------------------------------------------------------------------------------

    async def _claim_all(self) -> None:
        while await self._claim():
            pass

    async def _claim(self) -> bool:
        """Claim and start what is due. True when there may be more that we have room for."""
        policy = self._stages().queue
        limit = min(policy.concurrency, HELD * policy.concurrency - len(self._held))
        busy = self._busy(policy.per_destination)
        self._more = limit <= 0 or bool(busy)
        if limit <= 0:
            return False
        found = await self._store.write(
            partial(queue.claim, owner=self.owner, limit=limit, now=self._now(), lease=policy.lease, busy=busy)
        )
        self._admit(found)
        self._start()
        return len(found) == limit

    def _busy(self, per_destination: int) -> set[str]:
        """The domains of which enough mail waits already: their slowness must not fill our hands."""
        full = [line for line in self._lines.values() if len(line.waiting) >= per_destination]
        return {one.destination for line in full for work in line.waiting for one in work.deliveries}

    def _admit(self, found: Iterable[Delivery]) -> None:
        """Put what we have claimed into the lines, one work for each mail, lane and header of its own."""
        works: dict[tuple[str, Lane, bytes], list[Delivery]] = {}
        for one in found:
            self._held[one.id] = one
            works.setdefault((one.message_id, self._lane(one), one.header), []).append(one)
        claimed = asyncio.get_running_loop().time()
        for (_, lane, _), deliveries in works.items():
            self._lines.setdefault(lane, _Line()).waiting.append(Work(lane, tuple(deliveries), claimed))

    def _lane(self, delivery: Delivery) -> Lane:
        return routes.route(self._stages().routes, delivery.destination) or routes.normal(delivery.destination)

    def _start(self) -> None:
        """Begin as much of what waits as the limits allow."""
        policy = self._stages().queue
        for line in self._lines.values():
            while line.waiting and line.running < policy.per_destination and len(self._tasks) < policy.concurrency:
                work = line.waiting.popleft()
                line.running += 1
                task = asyncio.create_task(self._work(work))
                self._tasks.add(task)
                task.add_done_callback(partial(self._ended, work))

    def _ended(self, work: Work, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        for one in work.deliveries:
            self._held.pop(one.id, None)
        line = self._lines[work.lane]
        line.running -= 1
        if not line.running and not line.waiting:
            del self._lines[work.lane]
            self._unreachable.pop(work.lane, None)
        if not self._stopping:
            self._start()
        if self._more:
            self._freed.set()

    async def keep_leases(self) -> None:
        """Renew the leases on all that we hold. What another has taken over is not ours to begin any more."""
        ids = list(self._held)
        if not ids:
            return
        renewal = partial(queue.renew, owner=self.owner, ids=ids, now=self._now(), lease=self._stages().queue.lease)
        ours = set(await self._store.write(renewal))
        for id_ in ids:
            if id_ not in ours and (lost := self._held.pop(id_, None)):
                events.say("lease lost", id=lost.message_id, recipient=lost.recipient.address)

    # ---- One mail -------------------------------------------------------------------------------------------------

    async def _work(self, work: Work) -> None:
        ours = tuple(one for one in work.deliveries if one.id in self._held)
        if not ours:
            return
        try:
            failpoints.hit("claimed")
            results = await self._results(replace(work, deliveries=ours))
            failpoints.hit("sent")
            await self._settle(ours, results)
            failpoints.hit("settled")
        except Temporary as error:
            events.say("result not written down", id=ours[0].message_id, why=str(error))
        except Exception as error:  # noqa: BLE001 - one mail's trouble is not the others'; its lease runs out
            events.failure("delivery", error, id=ours[0].message_id)

    async def _results(self, work: Work) -> Sequence[Result]:
        """One result for each delivery, whatever happens."""
        relay, count = self._stages().relay, len(work.deliveries)
        when, known = self._unreachable.get(work.lane, (0.0, None))
        if known is not None and when >= work.claimed:  # it waited behind one that found nobody: no need to ask again
            return [known] * count
        if routes.is_local(self._stages().routes, work.deliveries[0].destination):
            return [Result(Reply(451, "4.3.5", "the domain became local while its mail was in the queue"))] * count
        try:
            return await attempt(work, self._store, self._paths, self._pool, relay)
        except Unreachable as error:
            self._unreachable[work.lane] = asyncio.get_running_loop().time(), error.result
            return [error.result] * count
        except Exception as error:  # noqa: BLE001 - a mail that breaks our code is kept, and tried again
            events.failure("delivery", error, id=work.deliveries[0].message_id)
            return [Result(Reply(451, "4.3.0", "trouble inside the gateway"))] * count

    async def _settle(self, deliveries: Sequence[Delivery], results: Sequence[Result]) -> None:
        """Write down what came of each delivery."""
        policy, now = self._stages().queue, self._now()
        steps = [
            (one, step(one, result, policy, now, self._chance()))
            for one, result in zip(deliveries, results, strict=True)
        ]
        kept = await self._patiently(partial(self._write_down, steps, now))
        for (one, then), done in zip(steps, kept, strict=True):
            state = then.state if done else State.QUEUED
            said = str(then.reply) if done else f"lease lost; {then.reply}"
            events.attempted(one.message_id, one.recipient.address, then.reply.host, state, said, one.attempts + 1)
        if any(then.notice for _, then in steps):
            self._owed.set()

    def _write_down(self, steps: Iterable[tuple[Delivery, Step]], now: float, conn: Connection) -> list[bool]:
        done = [self._enter(conn, one.id, then, now) for one, then in steps]
        failpoints.hit("settle")
        return done

    def _enter(self, conn: Connection, id_: int, then: Step, now: float) -> bool:
        said = str(then.reply)
        if then.state is State.SENT:
            return queue.sent(conn, id_, self.owner, said, now, then.notice)
        if then.state is State.FAILED:
            return queue.failed(conn, id_, self.owner, said, now, then.notice)
        return queue.retry(conn, id_, self.owner, said, now, then.next_attempt, then.notice)

    async def _patiently(self, work: Callable[[Connection], list[bool]]) -> list[bool]:
        for pause in SETTLE_AGAIN:
            with suppress(Temporary):
                return await self._store.write(work)
            await asyncio.sleep(pause)
        return await self._store.write(work)

    # ---- Notices, housekeeping, the end ---------------------------------------------------------------------------

    async def _tell_all(self) -> None:
        while await self._notices.tell(self._stages().queue):
            pass

    async def tidy(self) -> None:
        """Drop what was held too long; forget bytes and records that nothing needs."""
        now, keep = self._now(), self._stages().quarantine
        while await self._store.write(partial(quarantine.expire, now=now, keep=keep.keep)):
            pass
        while await self._store.write(partial(messages.sweep, now=now, keep_records=keep.keep_records)):
            pass

    async def _drain(self) -> None:
        """Begin nothing more, wait for what is on the wire, and give back what did not get done."""
        waiting = [one.id for line in self._lines.values() for work in line.waiting for one in work.deliveries]
        for line in self._lines.values():
            line.waiting.clear()
        await self._give_back(waiting)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._stages().queue.drain)
        left = list(self._held)
        await _end(set(self._tasks))
        await self._give_back(left)

    async def _give_back(self, ids: Sequence[int]) -> None:
        with suppress(Temporary):  # then the leases run out
            await self._store.write(partial(queue.release_claims, owner=self.owner, ids=ids))
        for id_ in ids:
            self._held.pop(id_, None)


async def _end(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

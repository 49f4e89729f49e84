"""The loops that empty the queue: claim what is due, send it, write down what came of it, tell the senders.

Everything claimed stands under a lease of ours that is renewed while we have it. A process that dies leaves leases that
its successor ends, or that run out: that costs time, and perhaps a second copy, never mail.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from itertools import count, groupby
from random import SystemRandom

from sqlalchemy import Connection

from gateway import events, failpoints, routes
from gateway.delivery.attempt import Lane, Results, Sign, Unreachable, Work, attempt
from gateway.delivery.clerk import Clerk, Outcome, Turn, Wish
from gateway.delivery.lines import Lines
from gateway.delivery.notices import Intake, Notices
from gateway.delivery.paths import Paths
from gateway.delivery.pool import Pool
from gateway.delivery.reply import Reply
from gateway.delivery.schedule import Step, horizon, step
from gateway.delivery.transaction import Result
from gateway.model import Delivery, Dns, State, Temporary
from gateway.stages import Stages
from gateway.store import messages, owners, quarantine, queue, reports
from gateway.store.engine import Store

HELD = 10
"""Deliveries that we hold leases on at once, for each connection we may open; most of them wait for their turn."""
SHARE = 4
"""Of these, so many go to one destination for each connection that it may have: the slow must not fill our hands."""
PAUSE = 1.0
"""Seconds before a loop goes on after something went wrong in it."""
LAST_PAUSES = (0.1, 0.5, 2.0, 5.0)
"""Seconds between the attempts to write down the last results before the end. Until then no attempt is the last: to
forget that a mail was sent would send it twice."""
DEAD = 1000
"""Destinations that we remember as dead, before we forget those of which it is more than `MOURNED` seconds ago."""
MOURNED = 300.0
PACE = 0.02
"""Seconds between two turns with the store, unless hands are idle: a commit costs as much as all else, and those who
store new mail wait for their turn while we have ours. The bell is heard as rarely: many rings are one."""
LATE = 10.0
"""Seconds after which mail is stored, at most, that says it came now; what takes longer is found by the next poll."""

_OTHERS = "*"
"""In a route: every domain that no other route names."""
_LOCAL = Result(Reply(451, "4.3.5", "the domain became local while its mail was in the queue"))
_TROUBLE = Result(Reply(451, "4.3.0", "trouble inside the gateway"))


class Runner:
    """Empties the queue of *store*. *stages* gives the policies in force, *now* the time of day in seconds.

    *sign* gives what is to stand on top of a mail.
    """

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
        sign: Sign | None = None,
    ) -> None:
        self.owner = f"{owners.myself(hostname)}/{secrets.token_hex(4)}"
        self._store = store
        self._stages = stages
        self._now = now
        self._paths = paths or Paths(resolver, hostname)
        self._pool = pool or Pool(hostname)
        self._sign = sign
        self._notices = Notices(store, intake, hostname, self.owner, now)
        self._chance = SystemRandom().random
        self._clerk = Clerk(store, now)
        self._claims = count(1)
        self._lines = Lines()
        self._held: dict[int, tuple[str, Delivery]] = {}
        self._workers: set[asyncio.Task[None]] = set()
        self._unreachable: dict[Lane, tuple[float, Result]] = {}
        self._suspect = 0
        self._busy: frozenset[str] = frozenset()
        self._sweep = 0.0
        self._cramped = False
        self._due = True
        self._rung = False
        self._looked = 0.0
        self._stopping = False
        self._woken = asyncio.Event()
        self._hurry = asyncio.Event()
        self._turned = 0.0
        self._owed = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until *stop* is set; then finish what is on the wire, within `drain` seconds, and give back the rest."""
        loops = {
            asyncio.create_task(self._converse()),
            asyncio.create_task(self._repeat(self._listen, partial(asyncio.sleep, PACE))),
            asyncio.create_task(self._repeat(self.keep_leases, self._until_renewal)),
            asyncio.create_task(self._repeat(self._tell_all, self._until_owed)),
            asyncio.create_task(self._repeat(self.tidy, self._until_untidy)),
        }
        try:
            await stop.wait()
            await self._drain()
        finally:
            await _end({*loops, *self._workers})
            await self._notices.give_back()
            await self._pool.close()

    async def work_off(self) -> None:
        """Deliver what is due now, once, and tell the senders whom it concerns."""
        self._due = True
        await self._turn_around()
        while self._workers:
            await asyncio.wait(self._workers, return_when=asyncio.FIRST_COMPLETED)
            await self._turn_around()
        await self._tell_all()

    # ---- Loops ----------------------------------------------------------------------------------------------------

    async def _repeat(self, work: Callable[[], Awaitable[object]], pause: Callable[[], Awaitable[object]]) -> None:
        """Do *work* again and again; trouble in it is told, and ends nothing."""
        while True:
            try:
                await work()
                await pause()
            except Temporary as error:
                events.say("delivery waits", why=str(error))
                await asyncio.sleep(PAUSE)
            except Exception as error:  # noqa: BLE001 - the queue is emptied whatever happens
                events.failure("delivery", error)
                await asyncio.sleep(PAUSE)

    async def _converse(self) -> None:
        """Take turns with the store whenever there is something to say. What the dead have left is ours at once."""
        inherited = False

        async def turn() -> None:
            nonlocal inherited
            if not inherited:
                await self._store.write(partial(queue.take_over, is_dead=owners.is_dead))
                inherited = True
            while await self._turn() and self._due:
                pass

        await self._repeat(turn, self._until_woken)

    async def _listen(self) -> None:
        """Wait until somebody rings, or it is time to look at everything."""
        poll = self._stages().queue.poll
        await self._store.wait(poll)
        self._rung = True
        self._due = self._due or asyncio.get_running_loop().time() - self._looked > poll / 2
        self._woken.set()

    async def _until_woken(self) -> None:
        await self._woken.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._turned + PACE):
                await self._hurry.wait()
        self._woken.clear()
        self._hurry.clear()

    async def _until_owed(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._stages().queue.poll):
                await self._owed.wait()
        self._owed.clear()

    async def _until_renewal(self) -> None:
        await asyncio.sleep(self._stages().queue.lease / 3)

    async def _until_untidy(self) -> None:
        await asyncio.sleep(self._stages().queue.housekeeping)

    # ---- Turns with the store: results go in, what is due comes out -----------------------------------------------

    async def _turn_around(self) -> None:
        while await self._turn():
            pass

    async def _turn(self) -> bool:
        """Write down what came of attempts, and claim what there is room for. False when there was nothing to do."""
        wish = self._wish()
        if wish is None and not self._clerk.waiting:
            return False
        rung, self._rung, self._due = self._rung, False, False
        try:
            turn = await self._clerk.turn(wish)
        except BaseException:
            self._due = True
            raise
        self._entered(turn)
        if wish is None:
            self._rung = self._rung or rung
        else:
            self._claimed(wish, turn)
        self._turned = asyncio.get_running_loop().time()
        return True

    def _wish(self) -> Wish | None:
        """What to claim now, if anything: mail for which there is room, of destinations that are not busy.

        When somebody rings while some are, only what came lately is looked at: to step over all the rest costs time.
        """
        policy = self._stages().queue
        room = HELD * policy.concurrency - len(self._held)
        # When our hands are rather full, what is left of them is for those of whom we have nothing yet.
        busy = self._full(policy.per_destination if 2 * room > HELD * policy.concurrency else 1)
        freed = self._busy - busy or (self._cramped and room >= policy.concurrency)
        self._due = self._due or bool(freed)
        self._cramped = room <= 0
        only = self._named() - busy if _OTHERS in busy else frozenset[str]()
        if _OTHERS in busy and not only:
            self._busy = busy
            return None
        if self._stopping or self._cramped or not (self._due or self._rung):
            return None
        since = self._sweep if self._due or not busy else self._now() - LATE - policy.poll
        owner, limit = f"{self.owner}/{next(self._claims)}", min(policy.concurrency, room)
        suspects = self._suspect not in self._held
        share = SHARE * policy.per_destination
        return Wish(owner, limit, policy.lease, busy, share, since, suspects, horizon(policy), only)

    def _full(self, enough: int) -> frozenset[str]:
        """The domains on whose way *enough* mails wait; `_OTHERS` stands for all that no route names."""
        lanes = self._lines.full(enough)
        routed = (route.domains for route in self._stages().routes.routes if route.via in lanes)
        return frozenset().union(*lanes.values(), *routed)

    def _named(self) -> frozenset[str]:
        """The domains that have a route of their own."""
        return frozenset(name for route in self._stages().routes.routes for name in route.domains) - {_OTHERS}

    def _claimed(self, wish: Wish, turn: Turn) -> None:
        """Put what we have claimed into the lines, and begin."""
        full = len(turn.claimed) == wish.limit
        shares = Counter(one.destination for one in turn.claimed)
        served = {name for name, number in shares.items() if number == wish.share}
        self._busy = wish.busy | served
        if wish.since == self._sweep:
            self._swept(turn.claimed, full=full)
        self._suspect = next((one.id for one in turn.claimed if one.claims >= queue.SUSPECT), self._suspect)
        self._due = self._due or full
        self._admit(turn.claimed, wish.owner, turn.bodies)
        self._start()

    def _swept(self, claimed: Sequence[Delivery], *, full: bool) -> None:
        """The next claim goes on where this one ended: who waits farther back has his turn before others have a second
        one. At the end it begins anew."""
        if not full:
            self._due = self._due or self._sweep > 0
            self._looked = asyncio.get_running_loop().time()
        self._sweep = claimed[-1].next_attempt if full else 0.0

    def _admit(self, claimed: Iterable[Delivery], owner: str, bodies: Mapping[str, bytes]) -> None:
        """One work for each mail, lane and header of its own. What we hold already, for its lease ran out, goes on."""
        works: dict[tuple[str, Lane, bytes], list[Delivery]] = {}
        for one in claimed:
            if one.id in self._held:
                self._clerk.hand_on(one.id, owner)
            else:
                works.setdefault((one.message_id, self._lane(one), one.header), []).append(one)
            self._held[one.id] = owner, one
        for (message_id, lane, _), deliveries in works.items():
            self._lines.add(Work(lane, tuple(deliveries), bodies.get(message_id)))

    def _lane(self, delivery: Delivery) -> Lane:
        return routes.route(self._stages().routes, delivery.destination) or routes.normal(delivery.destination)

    def _start(self) -> None:
        """Begin as much of what waits as the limits allow."""
        if self._stopping:  # what was claimed at the last moment is given back
            return
        policy = self._stages().queue
        while len(self._workers) < policy.concurrency and (work := self._lines.next(policy.per_destination)):
            task = asyncio.create_task(self._work(work))
            self._workers.add(task)
            task.add_done_callback(self._workers.discard)

    def _entered(self, turn: Turn) -> None:
        """Tell what was written down, and let go of it."""
        for outcome, done in turn.entered:
            one, then = outcome.delivery, outcome.step
            if self._held.get(one.id, ("",))[0] == outcome.owner:
                del self._held[one.id]
            self._due = self._due or one.id == self._suspect
            _tell(one, then, done)
            if then.notice:
                self._owed.set()
        if turn.entered:
            failpoints.hit("settled")

    async def keep_leases(self) -> None:
        """Renew the leases on all that we hold. What another has taken over is not ours to begin any more."""
        held = sorted((owner, id_) for id_, (owner, _) in self._held.items())
        if not held:
            return
        ours = await self._store.write(partial(_renew, held, self._now, self._stages().queue.lease))
        for owner, id_ in held:
            if id_ not in ours and self._held.get(id_, ("",))[0] == owner:
                _, lost = self._held.pop(id_)
                events.say("lease lost", id=lost.message_id, recipient=lost.recipient.address)

    # ---- One mail -------------------------------------------------------------------------------------------------

    async def _work(self, first: Work) -> None:
        """Deliver *first*, and what is next, until nothing is."""
        work: Work | None = first
        while work is not None:
            try:
                await self._deliver(work)
            except Exception as error:  # noqa: BLE001 - one mail's trouble is not the others'; its lease runs out
                events.failure("delivery", error, id=work.deliveries[0].message_id)
                for one in work.deliveries:
                    self._held.pop(one.id, None)
            if self._lines.done(work) < self._stages().queue.per_destination and self._was_busy(work):
                self._hurry.set()
            work = None if self._stopping else self._lines.next(self._stages().queue.per_destination)

    def _was_busy(self, work: Work) -> bool:
        return any(one.destination in self._busy for one in work.deliveries)

    async def _deliver(self, work: Work) -> None:
        ours = tuple(one for one in work.deliveries if one.id in self._held)
        if not ours:
            return
        failpoints.hit("claimed")
        work = work if len(ours) == len(work.deliveries) else replace(work, deliveries=ours)
        async with aclosing(self._results(work)) as results:
            async for one, result in results:
                failpoints.hit("sent")
                self._note(one, result)

    async def _results(self, work: Work) -> Results:
        """Each delivery with its result, whatever happens: what one host took is known while we wait for another."""
        left = {one.id: one for one in work.deliveries}
        result = self._known(work)
        if result is None:
            try:
                relay = self._stages().relay
                async for one, found in attempt(work, self._store, self._paths, self._pool, relay, self._sign):
                    yield left.pop(one.id), found
            except Unreachable as error:
                self._remember(work.lane, error.result)
                result = error.result
            except Exception as error:  # noqa: BLE001 - a mail that breaks our code is kept, and tried again
                events.failure("delivery", error, id=work.deliveries[0].message_id)
                result = _TROUBLE
        for one in left.values():
            yield one, result or _TROUBLE

    def _known(self, work: Work) -> Result | None:
        """The result for all, where nothing is to be tried: the domain is ours, or was found dead while they waited."""
        first, (when, dead) = work.deliveries[0], self._unreachable.get(work.lane, (0.0, None))
        if dead is not None and first.next_attempt <= when <= self._now():
            return dead
        return _LOCAL if routes.is_local(self._stages().routes, first.destination) else None

    def _remember(self, lane: Lane, result: Result) -> None:
        """What waits for a dead host need not find out one by one; what is due later tries again."""
        now = self._now()
        if len(self._unreachable) >= DEAD:
            self._unreachable = {key: one for key, one in self._unreachable.items() if 0 <= now - one[0] < MOURNED}
        self._unreachable[lane] = now, result

    def _note(self, one: Delivery, result: Result) -> None:
        """Have written down what came of *one*; what another has taken over meanwhile is his."""
        now = self._now()
        then = step(one, result, self._stages().queue, now, self._chance())
        if one.id in self._held:
            self._clerk.note([Outcome(one, self._held[one.id][0], then, now)])
        else:
            _tell(one, then, done=False)
        self._woken.set()

    # ---- Notices, housekeeping, the end ---------------------------------------------------------------------------

    async def _tell_all(self) -> None:
        while not self._stopping and await self._notices.tell(self._stages().queue):
            pass

    async def tidy(self) -> None:
        """Drop what was held too long; forget bytes, records and reports that nothing needs."""
        now, keep, told = self._now(), self._stages().quarantine, self._stages().reports
        while await self._store.write(partial(quarantine.expire, now=now, keep=keep.keep)):
            pass
        while await self._store.write(partial(messages.sweep, now=now, keep_records=keep.keep_records)):
            pass
        while await self._store.write(partial(reports.forget, before=now - told.keep)):
            pass

    async def _drain(self) -> None:
        """Begin nothing more, wait for what is on the wire, and give back what did not get done."""
        self._stopping = True
        await self._give_back([one.id for one in self._lines.clear()])
        if self._workers:
            await asyncio.wait(self._workers, timeout=self._stages().queue.drain)
        await _end(set(self._workers))
        await self._write_down_the_last()
        await self._give_back(list(self._held))

    async def _write_down_the_last(self) -> None:
        for pause in LAST_PAUSES:
            with suppress(Temporary):
                await self._turn()
            if not self._clerk.waiting:
                return
            await asyncio.sleep(pause)
        events.say("results not written down", deliveries=len(self._held))

    async def _give_back(self, ids: Sequence[int]) -> None:
        """Let others have what we did not get to; where the store cannot do it now, the leases run out."""
        leases = sorted((self._held.pop(id_)[0], id_) for id_ in ids if id_ in self._held)
        with suppress(Temporary):
            await self._store.write(partial(_release, leases))


Leases = Sequence[tuple[str, int]]
"""Owner and delivery, sorted by owner: each claim has an owner of its own."""


def _renew(leases: Leases, now: Callable[[], float], lease: float, conn: Connection) -> set[int]:
    at = now()  # not when it was asked: it may have waited long for the store
    groups = groupby(leases, key=lambda pair: pair[0])
    return {id_ for owner, pairs in groups for id_ in queue.renew(conn, owner, [id_ for _, id_ in pairs], at, lease)}


def _release(leases: Leases, conn: Connection) -> None:
    for owner, pairs in groupby(leases, key=lambda pair: pair[0]):
        queue.release_claims(conn, owner, [id_ for _, id_ in pairs])


def _tell(one: Delivery, then: Step, done: bool) -> None:
    state = then.state if done else State.QUEUED
    said = str(then.reply) if done else f"lease lost; {then.reply}"
    events.attempted(one.message_id, one.recipient.address, then.reply.host, state, said, one.attempts + 1)


async def _end(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

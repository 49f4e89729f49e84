"""The one conversation with the store: what came of each attempt is written down, and what is due is claimed, in the
same transaction.

What cannot be written down is kept here until it can: what was sent is never sent again because the disk was full.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from sqlalchemy import Connection

from gateway import events, failpoints
from gateway.delivery.schedule import Step
from gateway.model import Delivery, State, Temporary
from gateway.store import messages, queue
from gateway.store.engine import Store

SMALL = 64 << 10
"""Octets of a message that is fetched together with its delivery."""
FETCHED = 2 << 20
"""Octets of all messages that are fetched in one transaction."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is to be written down about a delivery. `owner` is who has the lease, `at` seconds since the epoch."""

    delivery: Delivery
    owner: str
    step: Step
    at: float


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be claimed: see `queue.claim`."""

    owner: str
    limit: int
    lease: float
    busy: frozenset[str] = frozenset()
    share: int = 0
    since: float = 0.0
    suspects: bool = True
    horizon: float = queue.HORIZON
    only: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Turn:
    """What one transaction did: for each outcome whether it could be entered, what was claimed, and short messages."""

    entered: Sequence[tuple[Outcome, bool]] = ()
    claimed: Sequence[Delivery] = ()
    bodies: Mapping[str, bytes] = field(default_factory=dict)


class Clerk:
    """Writes down and claims, one transaction at a time. *now* is the time of day in seconds."""

    def __init__(self, store: Store, now: Callable[[], float]) -> None:
        self._store = store
        self._now = now
        self._outcomes: list[Outcome] = []
        self._talking = asyncio.Lock()

    @property
    def waiting(self) -> bool:
        """Is there anything to write down?"""
        return bool(self._outcomes)

    def note(self, outcomes: Sequence[Outcome]) -> None:
        """Write *outcomes* down at the next turn."""
        self._outcomes += outcomes

    def hand_on(self, delivery: int, owner: str) -> None:
        """We have claimed a delivery again, as *owner*: what is noted about it is written down under the new lease."""
        self._outcomes = [replace(one, owner=owner) if one.delivery.id == delivery else one for one in self._outcomes]

    async def turn(self, wish: Wish | None) -> Turn:
        """Write down all that was noted, and claim what *wish* says. `Temporary` where the store cannot do it now."""
        async with self._talking:
            outcomes = self._outcomes[:]
            try:
                work = partial(_turn, outcomes=outcomes, wish=wish, asked=self._now(), now=self._now)
                turn = await self._store.write(work)
            except Temporary:
                raise
            except Exception as error:  # noqa: BLE001 - one of them breaks our code; the others must not suffer
                events.failure("writing down results", error)
                turn = Turn([pair for one in outcomes for pair in await self._alone(one)])
            del self._outcomes[: len(outcomes)]
            return turn

    async def _alone(self, outcome: Outcome) -> Sequence[tuple[Outcome, bool]]:
        """Write down one outcome; one that cannot ever be is given up, and its lease runs out."""
        try:
            work = partial(_turn, outcomes=[outcome], wish=None, asked=self._now(), now=self._now)
            return (await self._store.write(work)).entered
        except Temporary:
            raise
        except Exception as error:  # noqa: BLE001 - it breaks our code, alone now
            events.failure("writing down a result", error, id=outcome.delivery.message_id)
            return [(outcome, False)]


def _turn(
    conn: Connection, outcomes: Sequence[Outcome], wish: Wish | None, asked: float, now: Callable[[], float]
) -> Turn:
    """What was due, and free, when it was *asked*; leases begin *now*, for all may have waited long for the store."""
    entered = [(one, _enter(conn, one)) for one in outcomes]
    if outcomes:
        failpoints.hit("settle")
    if wish is None:
        return Turn(entered)
    claimed = queue.claim(
        conn,
        wish.owner,
        wish.limit,
        asked,
        wish.lease + max(0.0, now() - asked),
        wish.busy,
        share=wish.share,
        since=wish.since,
        suspects=wish.suspects,
        horizon=wish.horizon,
        only=wish.only,
    )
    return Turn(entered, claimed, _bodies(conn, claimed))


def _enter(conn: Connection, outcome: Outcome) -> bool:
    """False where the lease is no longer ours."""
    then, words = outcome.step, (outcome.delivery.id, outcome.owner, str(outcome.step.reply), outcome.at)
    if then.state is State.SENT:
        return queue.sent(conn, *words, then.notice)
    if then.state is State.FAILED:
        return queue.failed(conn, *words, then.notice)
    return queue.retry(conn, *words, then.next_attempt, then.notice)


def _bodies(conn: Connection, claimed: Sequence[Delivery]) -> dict[str, bytes]:
    """The short ones among the messages: they need not be asked for one by one."""
    found: dict[str, bytes] = {}
    room = FETCHED
    for one in claimed:
        if one.message_id not in found and one.size <= min(SMALL, room):
            body = messages.whole(conn, one.message_id)
            room -= len(body)
            found[one.message_id] = body
    return found

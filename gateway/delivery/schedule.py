"""What follows from the result of an attempt: settled, tried again when, and what the sender is to hear. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.delivery.reply import Reply
from gateway.delivery.transaction import Result
from gateway.model import Delivery, Notice, State
from gateway.stages import Queue

SPREAD = 0.05
"""The share of a waiting time that chance adds to it, so that what failed together does not come back together."""


@dataclass(frozen=True, slots=True)
class Step:
    """The next state of a delivery: SENT, FAILED, or QUEUED until `next_attempt`; and the notice owed for it."""

    state: State
    reply: Reply
    next_attempt: float = 0.0
    notice: Notice | None = None


def step(delivery: Delivery, result: Result, policy: Queue, now: float, chance: float) -> Step:
    """What becomes of *delivery* after *result*. *chance* is a random number from 0 to 1."""
    reply = result.reply
    if reply.ok:
        notice = None if result.dsn else wanted(delivery, Notice.RELAYED)
        return Step(State.SENT, reply, notice=notice)
    if reply.permanent and not result.elsewhere:
        return Step(State.FAILED, reply, notice=wanted(delivery, Notice.FAILED))
    age = now - delivery.queued_at
    if age >= policy.expire_after:
        return Step(State.FAILED, reply, notice=wanted(delivery, Notice.FAILED))
    wait = _wait(delivery.attempts, policy) * (1 + SPREAD * chance)
    due = min(now + wait, delivery.queued_at + policy.expire_after)
    late = age >= policy.warn_after and not delivery.warned
    return Step(State.QUEUED, reply, due, wanted(delivery, Notice.DELAYED) if late else None)


def horizon(policy: Queue) -> float:
    """Seconds from now beyond which nothing is ever planned: what is, comes from a clock that was wrong."""
    return max(policy.retry_every, *policy.first_retries, 0.0) * (1 + SPREAD) + 60.0


def _wait(attempts: int, policy: Queue) -> float:
    """Seconds to the next attempt after *attempts* earlier ones and this one."""
    first = policy.first_retries
    return first[attempts] if attempts < len(first) else policy.retry_every


_ASKED_BY = {
    Notice.FAILED: "FAILURE",
    Notice.DELAYED: "DELAY",
    Notice.DELIVERED: "SUCCESS",
    Notice.RELAYED: "SUCCESS",
}


def wanted(delivery: Delivery, notice: Notice) -> Notice | None:
    """*notice*, if the sender is to get it: never a bounce about a bounce, else by NOTIFY (RFC 3461 4.1).

    Without NOTIFY the sender hears of failure and of delay.
    """
    if not delivery.sender:
        return None
    asked = delivery.recipient.notify or frozenset({"FAILURE", "DELAY"})
    return notice if _ASKED_BY[notice] in asked else None

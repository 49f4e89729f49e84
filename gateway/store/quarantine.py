"""The quarantine: deliveries in the state `held`. Release is a change of state; no byte is copied."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlalchemy import Connection, select

from gateway.model import Notice, State
from gateway.store import queue, schema, tracking

_EXPIRED = 500  # in one transaction
_delivery = schema.delivery


def list(conn: Connection, limit: int = 100, before: float | None = None) -> Sequence[tracking.Tracked]:  # noqa: A001
    """Up to *limit* held deliveries, newest mail first; of mail received before *before*."""
    return tracking.find(conn, state=State.HELD, until=before, limit=limit)


def show(conn: Connection, delivery_id: int) -> tracking.Life | None:
    """The whole life of the mail of a held delivery; None where it is not held."""
    delivery = queue.get(conn, delivery_id)
    return tracking.life(conn, delivery.message_id) if delivery and delivery.state is State.HELD else None


def of_mail(conn: Connection, message_id: str) -> Sequence[int]:
    """The numbers of what is held of one mail."""
    held = _delivery.c.message_id == message_id, _delivery.c.state == State.HELD
    return conn.scalars(select(_delivery.c.id).where(*held).order_by(_delivery.c.id)).all()


def release(conn: Connection, delivery_id: int, by: str, now: float | None = None) -> bool:
    """Let a held delivery go on, into its mailbox or the queue. False where it is not held (any more)."""
    delivery = queue.get(conn, delivery_id)
    if delivery is None:
        return False
    at = time.time() if now is None else now
    which, text = _delivery.c.id == delivery_id, f"by {by}"
    if not delivery.mailbox:
        return bool(queue.move(conn, "release_to_queue", which, now=at, text=text, next_attempt=at))
    # RFC 3461 4.1: who asked to hear of success hears of it when the mail has reached its mailbox.
    told = {"notice": Notice.DELIVERED} if "SUCCESS" in delivery.recipient.notify else {}
    return bool(queue.move(conn, "release_to_mailbox", which, now=at, text=text, **told))


def drop(conn: Connection, delivery_id: int, by: str, now: float | None = None) -> bool:
    """Give a held delivery up. False where it is not held (any more)."""
    at = time.time() if now is None else now
    held = (_delivery.c.id == delivery_id, _delivery.c.state == State.HELD)
    return bool(queue.move(conn, "drop", *held, now=at, text=f"by {by}"))


def expire(conn: Connection, now: float, keep: float) -> int:
    """Drop what has been held for more than *keep* seconds; return how many.

    One call does a bounded amount of work: call it again in another transaction until it returns 0.
    """
    held = _delivery.c.state == State.HELD, _delivery.c.since < now - keep
    ids = conn.scalars(select(_delivery.c.id).where(*held).limit(_EXPIRED)).all()
    return len(queue.move(conn, "expire", _delivery.c.id.in_(ids), now=now))

"""Mailboxes: deliveries in the state `mailbox`, seen by one session at a time (RFC 1939 4).

The lock is a lease, so a session that dies keeps nobody out for long.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, func, insert, select, update
from sqlalchemy import delete as delete_from
from sqlalchemy.exc import IntegrityError

from gateway.model import State
from gateway.store import queue, schema

LONGEST_LEASE = queue.LONGEST_LEASE
LISTED = 20_000
"""Most mails that one session sees; the oldest ones. The others come when those are gone."""

_lock = schema.maildrop_lock
_delivery = schema.delivery


class Message(NamedTuple):
    """A mail in a mailbox. `uid` is stable for ever, `size` counts octets with the delivery's own header."""

    id: int
    uid: str
    size: int
    message_id: str


def lock(
    conn: Connection,
    account: str,
    owner: str,
    now: float,
    lease: float,
    is_there: Callable[[str], bool | None] = lambda _owner: None,
) -> bool:
    """Give *owner* the mailbox of *account* for *lease* seconds; False while somebody else has it.

    *is_there* says of a holder whether its session goes on, where that is known (else None); only where it is not, the
    clock decides. A lease from an implausible future is none.
    """
    values = {"owner": owner, "until": now + min(lease, LONGEST_LEASE)}
    holder = conn.execute(
        select(_lock.c.owner, _lock.c.until).where(_lock.c.account == account).with_for_update()
    ).first()
    if holder is None:
        return _entered(conn, {"account": account, **values})
    there = is_there(holder.owner)
    if now < holder.until <= now + LONGEST_LEASE if there is None else there:
        return False
    conn.execute(update(_lock).where(*_held_by(account, holder.owner)).values(values))
    return True


def _entered(conn: Connection, values: dict[str, Any]) -> bool:
    try:
        with conn.begin_nested():
            conn.execute(insert(_lock).values(values))
    except IntegrityError:  # somebody else was quicker
        return False
    return True


def renew(conn: Connection, account: str, owner: str, now: float, lease: float) -> bool:
    """Prolong the lease; False when it has passed to somebody else."""
    prolonged = update(_lock).where(*_held_by(account, owner)).values(until=now + min(lease, LONGEST_LEASE))
    return bool(conn.execute(prolonged).rowcount)


def unlock(conn: Connection, account: str, owner: str) -> None:
    """Let others in."""
    conn.execute(delete_from(_lock).where(*_held_by(account, owner)))


def listing(conn: Connection, account: str, limit: int = LISTED) -> list[Message]:
    """The mails of *account*, oldest first."""
    size = schema.message.c.size + func.length(_delivery.c.header)
    query = (
        select(_delivery.c.id, _delivery.c.message_id, size)
        .join(schema.message, schema.message.c.id == _delivery.c.message_id)
        .where(*_mails_of(account))
        .order_by(_delivery.c.id)
        .limit(limit)
    )
    return [Message(id_, f"{message_id}.{id_}", size, message_id) for id_, message_id, size in conn.execute(query)]


def header(conn: Connection, delivery_id: int) -> bytes:
    """What stands before the chunks of the message for this delivery."""
    return bytes(conn.scalar(select(_delivery.c.header).where(_delivery.c.id == delivery_id)) or b"")


def delete(conn: Connection, account: str, owner: str, delivery_ids: Collection[int], now: float | None = None) -> bool:
    """Delete mails from the mailbox. False, and nothing deleted, when the lock has passed to somebody else."""
    if conn.scalar(select(_lock.c.account).where(*_held_by(account, owner)).with_for_update()) is None:
        return False
    at = time.time() if now is None else now
    for some in queue.slices(delivery_ids):
        queue.move(conn, "delete", _delivery.c.id.in_(some), *_mails_of(account), now=at)
    return True


def clear(conn: Connection, account: str, by: str, now: float | None = None) -> int:
    """Drop all that lies in, or is held for, the mailbox of an account that is no more, and end its session."""
    conn.execute(delete_from(_lock).where(_lock.c.account == account))
    at = time.time() if now is None else now
    mails = (_delivery.c.mailbox == account, schema.in_mailbox)
    return len(queue.move(conn, "drop", *mails, now=at, text=f"by {by}"))


def _held_by(account: str, owner: str) -> tuple[ColumnElement[bool], ...]:
    return _lock.c.account == account, _lock.c.owner == owner


def _mails_of(account: str) -> tuple[ColumnElement[bool], ...]:
    return _delivery.c.mailbox == account, schema.in_mailbox, _delivery.c.state == State.MAILBOX

"""The states of a delivery. `TRANSITIONS` says what can become of it, and `enter` and `move` alone change it.

A delivery is worked on under a lease, by one owner at a time, be it to send it or to tell its sender. A lease that runs
out hands the work to whoever claims next.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Double,
    Executable,
    Integer,
    Row,
    Select,
    bindparam,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from gateway.events import clean
from gateway.model import Delivery, Notice, Recipient, State
from gateway.store import journal, schema
from gateway.store.statements import Statement

TRANSITIONS: Mapping[tuple[State | None, str], State] = MappingProxyType(
    {
        (None, "queue"): State.QUEUED,
        (None, "hold"): State.HELD,
        (None, "store"): State.MAILBOX,
        (None, "refuse"): State.REFUSED,
        (State.QUEUED, "sent"): State.SENT,
        (State.QUEUED, "failed"): State.FAILED,
        (State.QUEUED, "retry"): State.QUEUED,
        (State.QUEUED, "retry_now"): State.QUEUED,
        (State.QUEUED, "hold"): State.HELD,
        (State.QUEUED, "drop"): State.DROPPED,
        (State.HELD, "release_to_queue"): State.QUEUED,
        (State.HELD, "release_to_mailbox"): State.MAILBOX,
        (State.HELD, "drop"): State.DROPPED,
        (State.HELD, "expire"): State.DROPPED,
        (State.MAILBOX, "delete"): State.DROPPED,
        (State.MAILBOX, "drop"): State.DROPPED,
    }
)
"""What can happen to a delivery: (state before, event) -> state after. None stands before the first state."""

LIVE = frozenset(state for state, _ in TRANSITIONS if state is not None)
"""The states that something can still happen to: they need the bytes of the mail."""

FIRST: Mapping[State, str] = MappingProxyType(
    {after: event for (before, event), after in TRANSITIONS.items() if not before}
)
"""By which event a delivery begins in a state."""

HORIZON = 7 * 86400.0
"""Seconds. Whatever is planned for later than that comes from a clock that was wrong."""
LONGEST_LEASE = 3600.0
"""Seconds. The same for leases."""

_IDS = 500  # in one statement
_delivery = schema.delivery
_message = schema.message
# Statements made once, for making one costs more than running it.
_PULL_BACK = update(_delivery).where(
    _delivery.c.state == State.QUEUED,
    _delivery.c.next_attempt > bindparam("horizon"),
)
_ADD = Statement(insert(_delivery).returning(_delivery.c.id), *({*_delivery.columns.keys()} - {"id", "claims"}))
_LISTED = _delivery.c.id.in_(bindparam("ids", expanding=True))
_SET_LEASE = update(_delivery).where(_LISTED).returning(_delivery.c.id)


def diagram() -> str:
    """`TRANSITIONS` as a mermaid state diagram."""
    steps = [f"    {before or '[*]'} --> {after}: {event}" for (before, event), after in TRANSITIONS.items()]
    ends = [f"    {state} --> [*]" for state in State if state not in LIVE]
    return "\n".join(["stateDiagram-v2", *steps, *ends]) + "\n"


# ---- The two functions that change a state ------------------------------------------------------------------------


def enter(conn: Connection, rows: Sequence[Mapping[str, Any]], now: float) -> None:
    """Insert deliveries; each row names its first `state` and all columns that have no beginning of their own."""
    beginning = {"since": now, "next_attempt": now, "attempts": 0, "lease_owner": "", "lease_until": 0.0}
    beginning |= {"warned": False, "notice": None, "last_reply": ""}
    entries = []
    for row in rows:
        ((id_,),) = _ADD.rows(conn, {**beginning, **row})
        entries.append(journal.Entry(row["message_id"], id_, now, FIRST[row["state"]]))
    journal.record(conn, entries)


def move(
    conn: Connection, event: str, *which: ColumnElement[bool], now: float, text: str = "", **values: Any
) -> Sequence[int]:
    """Take the deliveries that *which* matches through *event*; return the ids of those that moved. Their leases end.

    A delivery whose state knows no such event stays as it is. *values* are other columns to set.
    """
    return _moved(conn, event, _moving(event).where(*which).values(**values), now, text, {})


@cache
def _moving(event: str) -> ReturningUpdate[tuple[int, str]]:
    """The statement that takes deliveries through *event*; made once, for making one costs more than running it."""
    origins, after = _step(event)
    statement = update(_delivery).where(or_(*(_delivery.c.state == before for before in origins)))
    changed = statement.values(state=after, lease_owner="", lease_until=0.0)
    return changed.returning(_delivery.c.id, _delivery.c.message_id)


def _moved(
    conn: Connection, event: str, statement: Executable, now: float, text: str, parameters: dict[str, Any]
) -> Sequence[int]:
    """Run a statement of `_moving`; parameters with the name of a column set it."""
    origins, after = _step(event)
    entered = {} if after in origins else {"since": now}
    moved = conn.execute(statement, {**entered, **parameters}).all()
    journal.record(conn, [journal.Entry(message_id, id_, now, event, text) for id_, message_id in moved])
    return [id_ for id_, _ in moved]


@cache
def _step(event: str) -> tuple[tuple[State, ...], State]:
    """From where *event* leads, and where to: each event has one end."""
    steps = {before: after for (before, name), after in TRANSITIONS.items() if name == event and before}
    (after,) = set(steps.values())
    return tuple(steps), after


# ---- Leases -------------------------------------------------------------------------------------------------------


def claim(
    conn: Connection, owner: str, limit: int, now: float, lease: float, busy: Collection[str] = ()
) -> list[Delivery]:
    """Lease to *owner*, for *lease* seconds, up to *limit* due deliveries to other destinations than the *busy* ones.

    Those that are due longest come first.
    """
    _pull_back(conn, now)
    return _lease(conn, _due(), owner, limit, now, lease, busy=sorted(busy))


def owed_notices(conn: Connection, owner: str, limit: int, now: float, lease: float) -> list[Delivery]:
    """Lease to *owner* up to *limit* deliveries whose sender is still to be told something (`notice`)."""
    return _lease(conn, _owing(), owner, limit, now, lease)


def renew(conn: Connection, owner: str, ids: Collection[int], now: float, lease: float) -> list[int]:
    """Prolong the leases of *owner*; return the ids that are still its own."""
    return _set_lease(conn, ids, is_owned(owner), lease_until=now + min(lease, LONGEST_LEASE))


def release_claims(conn: Connection, owner: str, ids: Collection[int]) -> None:
    """Give back what *owner* claimed and did not get to; it is due as before."""
    _set_lease(conn, ids, is_owned(owner), lease_owner="", lease_until=0.0)


def is_free(now: float | BindParameter[float]) -> ColumnElement[bool]:
    """No lease holds the delivery. A lease from an implausible future is none."""
    until = _delivery.c.lease_until
    return or_(until <= now, until > now + LONGEST_LEASE)


def is_owned(owner: str) -> ColumnElement[bool]:
    """The lease is *owner*'s: nobody has taken the delivery over."""
    return _delivery.c.lease_owner == _named(owner)


def _named(owner: str) -> str:
    if not owner:
        raise ValueError("a lease needs an owner")
    return owner


def _pull_back(conn: Connection, now: float) -> None:
    """What a wrong clock has planned for a far future is due now."""
    conn.execute(_PULL_BACK, {"next_attempt": now, "horizon": now + HORIZON})


@cache
def _due() -> Select[int]:
    """What a claim leases, by "now", "busy" and "most"."""
    now: BindParameter[float] = bindparam("now", type_=Double())
    due = (_delivery.c.state == State.QUEUED, _delivery.c.next_attempt <= now, is_free(now))
    other = _delivery.c.destination.not_in(bindparam("busy", expanding=True))
    return _first(select(_delivery.c.id).where(*due, other).order_by(_delivery.c.next_attempt, _delivery.c.id))


@cache
def _owing() -> Select[int]:
    """The deliveries whose sender is to be told something, by "now" and "most"."""
    owed = (_delivery.c.notice.is_not(None), is_free(bindparam("now", type_=Double())))
    return _first(select(_delivery.c.id).where(*owed).order_by(_delivery.c.id))


def _first(ids: Select[int]) -> Select[int]:
    """The first "most" of *ids*, without those that another process is leasing at this moment."""
    return ids.limit(bindparam("most", type_=Integer())).with_for_update(skip_locked=True)


def _lease(
    conn: Connection, wanted: Select[int], owner: str, limit: int, now: float, lease: float, **which: Any
) -> list[Delivery]:
    until = now + min(lease, LONGEST_LEASE)
    ids = conn.scalars(wanted, {"now": now, "most": limit, **which}).all()
    _set_lease(conn, ids, lease_owner=_named(owner), lease_until=until)
    found = {delivery.id: delivery for some in slices(ids) for delivery in _found(conn, _listed(), ids=some)}
    return [found[id_] for id_ in ids]


def _set_lease(conn: Connection, ids: Collection[int], *which: ColumnElement[bool], **values: Any) -> list[int]:
    statement = _SET_LEASE.where(*which) if which else _SET_LEASE
    return [id_ for some in slices(ids) for id_ in conn.scalars(statement, {"ids": some, **values})]


def slices(ids: Collection[int]) -> Iterator[list[int]]:
    """*ids* in portions that fit into one statement."""
    ordered = list(ids)
    return (ordered[start : start + _IDS] for start in range(0, len(ordered), _IDS))


# ---- What came of an attempt --------------------------------------------------------------------------------------


def sent(conn: Connection, id_: int, owner: str, reply: str, now: float, notice: Notice | None = None) -> bool:
    """The next host has taken the delivery. False when the lease is no longer *owner*'s; then nothing changed."""
    return _settle(conn, "sent", id_, owner, reply, now, notice=notice)


def failed(conn: Connection, id_: int, owner: str, reply: str, now: float, notice: Notice | None) -> bool:
    """Nobody will ever take the delivery. False when the lease is no longer *owner*'s; then nothing changed."""
    return _settle(conn, "failed", id_, owner, reply, now, notice=notice)


def retry(
    conn: Connection, id_: int, owner: str, reply: str, now: float, next_attempt: float, notice: Notice | None = None
) -> bool:
    """The delivery is to be tried again at *next_attempt*. False when the lease is no longer *owner*'s.

    A `Notice.DELAYED` also marks that the sender has been warned. A notice already owed stays owed.
    """
    values: dict[str, Any] = {"next_attempt": min(next_attempt, now + HORIZON)}
    if notice is not None:
        values |= {"notice": notice, "warned": True}
    return _settle(conn, "retry", id_, owner, reply, now, **values)


def _settle(conn: Connection, event: str, id_: int, owner: str, reply: str, now: float, **values: Any) -> bool:
    values |= {"last_reply": clean(reply, journal.TEXT), "settled": id_, "holder": _named(owner)}
    return bool(_moved(conn, event, _settling(event), now, reply, values))


@cache
def _settling(event: str) -> Executable:
    """`_moving` for the one delivery "settled", if "holder" still has its lease."""
    mine = (_delivery.c.id == bindparam("settled"), _delivery.c.lease_owner == bindparam("holder"))
    return _moving(event).where(*mine).values(attempts=_delivery.c.attempts + 1)


def notice_sent(conn: Connection, ids: Collection[int], owner: str = "", now: float | None = None) -> bool:
    """The senders of *ids* have been told. With *owner*: False, and nothing changed, unless it holds all the leases.

    Call it in the transaction that stores the notice, and raise there when it is False: then nobody is told twice.
    """
    which = [_delivery.c.notice.is_not(None), *([is_owned(owner)] if owner else [])]
    owed = [row for some in slices(ids) for row in _owed(conn, some, which)]
    if owner and len(owed) < len(set(ids)):
        return False
    _set_lease(conn, [id_ for id_, _, _ in owed], notice=None, lease_owner="", lease_until=0.0)
    at = time.time() if now is None else now
    journal.record(
        conn, [journal.Entry(message_id, id_, at, "notice", notice or "") for id_, message_id, notice in owed]
    )
    return bool(owed)


def _owed(conn: Connection, ids: list[int], which: list[ColumnElement[bool]]) -> Sequence[Row[int, str, str | None]]:
    columns = select(_delivery.c.id, _delivery.c.message_id, _delivery.c.notice)
    return conn.execute(columns.where(_delivery.c.id.in_(ids), *which).with_for_update()).all()


# ---- What administrators do ---------------------------------------------------------------------------------------


def hold(conn: Connection, id_: int, by: str = "", now: float | None = None) -> bool:
    """Take a queued delivery out of the queue. False where it is not queued, or is being sent at this moment."""
    return bool(_by_hand(conn, "hold", now, by, _delivery.c.id == id_))


def drop(conn: Connection, id_: int, by: str, now: float | None = None) -> bool:
    """Give a delivery up; nobody is told. False where it is settled already, or is being sent at this moment."""
    return bool(_by_hand(conn, "drop", now, by, _delivery.c.id == id_))


def retry_now(conn: Connection, id_: int | None = None, by: str = "", now: float | None = None) -> int:
    """Make one queued delivery due, or all of them (None). Return how many are due earlier than before."""
    at = time.time() if now is None else now
    later = select(_delivery.c.id).where(_delivery.c.state == State.QUEUED, _delivery.c.next_attempt > at)
    ids = [id_] if id_ is not None else conn.scalars(later).all()
    by_hand = (_by_hand(conn, "retry_now", at, by, _delivery.c.id.in_(some), next_attempt=at) for some in slices(ids))
    return sum(len(moved) for moved in by_hand)


def _by_hand(
    conn: Connection, event: str, now: float | None, by: str, which: ColumnElement[bool], **values: Any
) -> Sequence[int]:
    at = time.time() if now is None else now
    return move(conn, event, which, is_free(at), now=at, text=f"by {by}" if by else "", **values)


# ---- Looking ------------------------------------------------------------------------------------------------------


def get(conn: Connection, id_: int) -> Delivery | None:
    """The delivery *id_*."""
    return next(iter(_load(conn, _delivery.c.id == id_)), None)


def of_message(conn: Connection, message_id: str) -> list[Delivery]:
    """All deliveries of one mail, in the order of its recipients."""
    return _load(conn, _delivery.c.message_id == message_id)


def list_deliveries(
    conn: Connection, states: Collection[State], limit: int, before: int | None = None
) -> list[Delivery]:
    """Up to *limit* deliveries in *states* with ids below *before*, newest first."""
    older = [] if before is None else [_delivery.c.id < before]
    ids = select(_delivery.c.id).where(_delivery.c.state.in_(sorted(states)), *older)
    return _load(conn, newest(ids, limit))[::-1]


def newest(ids: Select[int], limit: int) -> ColumnElement[bool]:
    """The condition that a delivery is among the last *limit* of *ids*: numbers are sorted here, not whole rows."""
    return _delivery.c.id.in_(ids.order_by(_delivery.c.id.desc()).limit(limit).scalar_subquery())


def counts(conn: Connection) -> dict[State, int]:
    """How many deliveries are in each state."""
    rows = conn.execute(select(_delivery.c.state, func.count()).group_by(_delivery.c.state))
    return dict.fromkeys(State, 0) | {State(state): number for state, number in rows}


def oldest(conn: Connection) -> float:
    """Since when the delivery that is queued for longest is queued, in seconds since the epoch; 0 where none is."""
    return conn.scalar(select(func.min(_delivery.c.since)).where(_delivery.c.state == State.QUEUED)) or 0.0


def _load(conn: Connection, which: ColumnElement[bool]) -> list[Delivery]:
    return _found(conn, _selected().where(which))


def _found(conn: Connection, statement: Select[Any], **words: Any) -> list[Delivery]:
    return [_delivery_of(row) for row in conn.execute(statement, words)]


@cache
def _listed() -> Select[Any]:
    """The deliveries "ids"."""
    return _selected().where(_LISTED)


@cache
def _selected() -> Select[Any]:
    columns = (_message.c[name] for name in ("sender", "received_at", "size", "eight_bit", "smtputf8", "ret", "envid"))
    joined = select(_delivery, *columns).join(_message, _message.c.id == _delivery.c.message_id)
    return joined.order_by(_delivery.c.id)


def _delivery_of(row: Row[Any]) -> Delivery:
    return Delivery(
        id=row.id,
        message_id=row.message_id,
        sender=row.sender,
        recipient=Recipient(row.recipient, frozenset(row.notify.split()), row.orcpt),
        state=State(row.state),
        destination=row.destination,
        mailbox=row.mailbox,
        header=row.header,
        size=row.size + len(row.header),
        attempts=row.attempts,
        accepted_at=row.received_at,
        queued_at=row.since,
        next_attempt=row.next_attempt,
        warned=row.warned,
        notice=Notice(row.notice) if row.notice else None,
        last_reply=row.last_reply,
        eight_bit=row.eight_bit,
        smtputf8=row.smtputf8,
        ret=row.ret,
        envid=row.envid,
    )

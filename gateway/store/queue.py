"""The states of a delivery. `TRANSITIONS` says what can become of it, and `enter` and `move` alone change it.

A delivery is worked on under a lease, by one owner at a time, be it to send it or to tell its sender. A lease that runs
out hands the work to whoever claims next; how many in a row did so, `claims` counts.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Double,
    Integer,
    Row,
    Select,
    bindparam,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from gateway.events import clean
from gateway.model import Delivery, ListenerKind, Notice, Recipient, State
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

SUSPECT = 2
"""After so many leases that ended with their owner a mail may be what ends them: one such is leased at a time."""
POISON = 3
"""After so many, the last of them beside no other suspect, it is worked on no more."""
_POISONED = "451 4.3.0 held: each of three processes that worked on this mail died of it"

_IDS = 500  # in one statement
_delivery = schema.delivery
_message = schema.message
# Statements made once, for making one costs more than running it.
_PULL_BACK = Statement(
    update(_delivery).where(
        _delivery.c.state == State.QUEUED,
        _delivery.c.next_attempt > bindparam("horizon"),
    ),
    "next_attempt",
)
_ADD = Statement(insert(_delivery).returning(_delivery.c.id), *({*_delivery.columns.keys()} - {"id", "claims"}))
_SUSPECT_QUEUED = select(exists().where(_delivery.c.state == State.QUEUED, _delivery.c.claims >= SUSPECT))
_LISTED = _delivery.c.id.in_(bindparam("ids", expanding=True))
_LEASE = Statement(
    update(_delivery).where(_delivery.c.id == bindparam("which")).values(claims=_delivery.c.claims + 1),
    *("lease_owner", "lease_until", "which"),
)
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
    origins, after = _step(event)
    entered = {} if after in origins else {"since": now}
    moved: Any = conn.execute(_moving(event).where(*which).values(**entered, **values)).all()
    journal.record(conn, [journal.Entry(message_id, id_, now, event, text) for id_, message_id in moved])
    return [id_ for id_, _ in moved]


@cache
def _moving(event: str) -> ReturningUpdate[tuple[int, str]]:
    """The statement that takes deliveries through *event*; made once, for making one costs more than running it."""
    origins, after = _step(event)
    statement = update(_delivery).where(or_(*(_delivery.c.state == before for before in origins)))
    changed = statement.values(state=after, lease_owner="", lease_until=0.0, claims=0)
    return changed.returning(_delivery.c.id, _delivery.c.message_id)


@cache
def _step(event: str) -> tuple[tuple[State, ...], State]:
    """From where *event* leads, and where to: each event has one end."""
    steps = {before: after for (before, name), after in TRANSITIONS.items() if name == event and before}
    (after,) = set(steps.values())
    return tuple(steps), after


# ---- Leases -------------------------------------------------------------------------------------------------------


def claim(
    conn: Connection,
    owner: str,
    limit: int,
    now: float,
    lease: float,
    busy: Collection[str] = (),
    *,
    share: int = 0,
    since: float = 0.0,
    suspects: bool = True,
    horizon: float = HORIZON,
    only: Collection[str] = (),
) -> list[Delivery]:
    """Lease to *owner*, for *lease* seconds, up to *limit* due deliveries to other destinations than the *busy* ones.

    *only* names those that may be, where not all others may. Those that are due longest come first, but no more than
    *share* (0: any number) to one destination; of those that became due before *since*, none. Of the `SUSPECT` ones
    there is one at most, and none without *suspects*; what has proved to be `POISON` is held. What is planned for later
    than *horizon* seconds from now is due now: a clock that was wrong has planned it.
    """
    _PULL_BACK.run(conn, {"next_attempt": now, "horizon": now + horizon})
    choice = _Choice(share or limit, suspects, set(busy), only)
    there_is_more = True
    while there_is_more and (room := limit - len(choice.leased)) > 0:
        most = min(room, 2 * choice.share)
        found = choice.due(conn, now, since, most)
        there_is_more = len(found) == most
        since = max([since, *(one.next_attempt for one in found[-1:])])  # what comes before is leased or passed over
        _hold_poison(conn, found, now)
        _lease(conn, choice.of(found), owner, now, lease)
    return choice.leased


def _hold_poison(conn: Connection, found: Sequence[Delivery], now: float) -> None:
    if poison := [one.id for one in found if one.claims >= POISON]:
        move(conn, "hold", _delivery.c.id.in_(poison), now=now, text=_POISONED[10:], last_reply=_POISONED)


@dataclass
class _Choice:
    """What to lease of all that is due: nothing to those `passed` over, and if `only` names some, to no others."""

    share: int
    suspects: bool
    passed: set[str]
    only: Collection[str] = ()
    leased: list[Delivery] = field(default_factory=list)
    shares: Counter[str] = field(default_factory=Counter)

    def due(self, conn: Connection, now: float, since: float, most: int) -> list[Delivery]:
        """The next *most* that may be chosen from."""
        names, others = _padded(self.passed), _padded(self.only)
        words: dict[str, Any] = {f"busy{n}": name for n, name in enumerate(names)}
        words |= {f"only{n}": name for n, name in enumerate(others)}
        words |= {"now": now, "since": since, "most": most, "claims": _ALL if self.suspects else SUSPECT}
        return _rows(_due(len(names), len(others)), conn, words)

    def of(self, found: Sequence[Delivery]) -> list[Delivery]:
        """Those of *found* that are chosen."""
        chosen = [one for one in found if self._takes(one)]
        self.leased += chosen
        return chosen

    def _takes(self, one: Delivery) -> bool:
        if one.claims >= POISON or (one.claims >= SUSPECT and not self.suspects):
            return False
        if self.shares[one.destination] == self.share:
            self.passed.add(one.destination)
            return False
        self.shares[one.destination] += 1
        self.suspects = self.suspects and one.claims < SUSPECT
        return True


def owed_notices(conn: Connection, owner: str, limit: int, now: float, lease: float) -> list[Delivery]:
    """Lease to *owner* up to *limit* deliveries whose sender is still to be told something (`notice`).

    Of the `SUSPECT` ones there is one at most, and none while one is to be sent: that may be what they died beside.
    Those that have proved to be `POISON` come too, to be given up.
    """
    found = _rows(_owing(), conn, {"now": now, "most": limit})
    poison = [one for one in found if one.claims >= POISON]
    suspects = any(one.claims >= SUSPECT for one in found) and not conn.scalar(_SUSPECT_QUEUED)
    leased = poison + _Choice(limit, suspects, passed=set()).of(found)
    _lease(conn, leased, owner, now, lease)
    return leased


def renew(conn: Connection, owner: str, ids: Collection[int], now: float, lease: float) -> list[int]:
    """Prolong the leases of *owner*; return the ids that are still its own."""
    return _set_lease(conn, ids, is_owned(owner), lease_until=now + min(lease, LONGEST_LEASE))


def absolve(conn: Connection, owner: str, ids: Collection[int]) -> list[int]:
    """Count no death for what *owner*, who lives, has in hand; return the ids. The leases run on, and may run out."""
    return _set_lease(conn, ids, is_owned(owner), claims=0)


def release_claims(conn: Connection, owner: str, ids: Collection[int]) -> None:
    """Give back what *owner* claimed and did not get to; it is due as before."""
    _set_lease(conn, ids, is_owned(owner), lease_owner="", lease_until=0.0, claims=0)


def take_over(conn: Connection, is_dead: Callable[[str], bool]) -> int:
    """End the leases of the owners that are dead; how many. What they worked on is due as before, and suspect."""
    leased = (_delivery.c.lease_owner != "", or_(_delivery.c.state == State.QUEUED, _delivery.c.notice.is_not(None)))
    owners = conn.scalars(select(_delivery.c.lease_owner).where(*leased).distinct()).all()
    dead = sorted(owner for owner in owners if is_dead(owner))
    ended = update(_delivery).where(*leased, _delivery.c.lease_owner.in_(dead)).values(lease_owner="", lease_until=0.0)
    return conn.execute(ended).rowcount if dead else 0


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


_ALL = 1 << 30  # more claims than there will ever be


def _padded(some: Collection[str]) -> list[str]:
    """*some* in as many places as the next power of two, so that few statements do for all numbers of them."""
    names = sorted(some)
    places = 1 << (len(names) - 1).bit_length() if names else 0
    return names + names[-1:] * (places - len(names))


@cache
def _due(busy: int, only: int) -> Statement:
    """What may be leased for sending, by "now", "since", "claims", "most", and so many *busy* and *only* domains."""
    now: BindParameter[float] = bindparam("now", type_=Double())
    due = (_delivery.c.state == State.QUEUED, _delivery.c.next_attempt <= now, is_free(now))
    recent = (_delivery.c.next_attempt >= bindparam("since"), _delivery.c.claims < bindparam("claims"))
    other = [_delivery.c.destination.not_in([bindparam(f"busy{n}") for n in range(busy)])] if busy else []
    named = [_delivery.c.destination.in_([bindparam(f"only{n}") for n in range(only)])] if only else []
    return _first(_selected().where(*due, *recent, *other, *named).order_by(_delivery.c.next_attempt, _delivery.c.id))


@cache
def _owing() -> Statement:
    """The deliveries whose sender is to be told something, by "now" and "most"."""
    owed = (_delivery.c.notice.is_not(None), is_free(bindparam("now", type_=Double())))
    return _first(_selected().where(*owed).order_by(_delivery.c.id))


def _first(deliveries: Select[Any]) -> Statement:
    """The first "most" of *deliveries*, without those that another process is leasing at this moment."""
    few = deliveries.limit(bindparam("most", type_=Integer()))
    return Statement(few.with_for_update(skip_locked=True, of=_delivery))


def _rows(statement: Statement, conn: Connection, words: dict[str, Any]) -> list[Delivery]:
    return [_delivery_of(row) for row in statement.rows(conn, words)]


def _lease(conn: Connection, chosen: Sequence[Delivery], owner: str, now: float, lease: float) -> None:
    words = {"lease_owner": _named(owner), "lease_until": now + min(lease, LONGEST_LEASE)}
    _LEASE.run_many(conn, [{**words, "which": one.id} for one in chosen])


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
    said = clean(reply, journal.TEXT)
    origins, after = _step(event)
    entered = {} if after in origins else {"since": now}
    words = {"last_reply": said, **entered, **values, "settled": id_, "holder": _named(owner)}
    moved = _settling(event, tuple(words)).rows(conn, words)
    journal.record(conn, [journal.Entry(message_id, id_, now, event, said) for _, message_id in moved])
    return bool(moved)


@cache
def _settling(event: str, words: tuple[str, ...]) -> Statement:
    """`_moving` for the one delivery "settled", if "holder" still has its lease; the other *words* are columns."""
    mine = (_delivery.c.id == bindparam("settled"), _delivery.c.lease_owner == bindparam("holder"))
    return Statement(_moving(event).where(*mine).values(attempts=_delivery.c.attempts + 1), *words)


def notice_sent(conn: Connection, ids: Collection[int], owner: str = "", now: float | None = None) -> bool:
    """The senders of *ids* have been told. With *owner*: False, and nothing changed, unless it holds all the leases.

    Call it in the transaction that stores the notice, and raise there when it is False: then nobody is told twice.
    """
    which = [_delivery.c.notice.is_not(None), *([is_owned(owner)] if owner else [])]
    owed = [row for some in slices(ids) for row in _owed(conn, some, which)]
    if owner and len(owed) < len(set(ids)):
        return False
    _set_lease(conn, [id_ for id_, _, _ in owed], notice=None, lease_owner="", lease_until=0.0, claims=0)
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
    rows = conn.execute(_selected().where(which).order_by(_delivery.c.id))
    return [_delivery_of(row) for row in rows]


@cache
def _selected() -> Select[Any]:
    """The columns that `_delivery_of` takes, in its order."""
    of_message = ("sender", "received_at", "size", "eight_bit", "smtputf8", "ret", "envid", "kind", "login")
    columns = [*(_delivery.c[name] for name in _COLUMNS), *(_message.c[name] for name in of_message)]
    return select(*columns).join(_message, _message.c.id == _delivery.c.message_id)


_COLUMNS = (
    *("id", "message_id", "recipient", "notify", "orcpt", "state", "destination", "mailbox", "header", "attempts"),
    *("since", "next_attempt", "warned", "notice", "last_reply", "claims"),
)


def _delivery_of(row: Sequence[Any]) -> Delivery:
    id_, message_id, recipient, notify, orcpt, state, destination, mailbox, header, attempts, *more = row
    since, next_attempt, warned, notice, last_reply, claims, *of_message = more
    sender, received_at, size, eight_bit, smtputf8, ret, envid, kind, login = of_message
    return Delivery(
        id=id_,
        message_id=message_id,
        sender=sender,
        recipient=Recipient(recipient, frozenset(notify.split()), orcpt),
        state=State(state),
        destination=destination,
        mailbox=mailbox,
        header=bytes(header),
        size=size + len(header),
        attempts=attempts,
        accepted_at=received_at,
        queued_at=since,
        next_attempt=next_attempt,
        warned=bool(warned),
        notice=Notice(notice) if notice else None,
        last_reply=last_reply,
        eight_bit=bool(eight_bit),
        smtputf8=bool(smtputf8),
        ret=ret,
        envid=envid,
        claims=claims,
        outbound=kind != ListenerKind.MX or bool(login),
    )

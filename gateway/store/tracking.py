"""What became of a mail: found by what people remember of it, and its whole life."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, func, or_, select

from gateway import idn
from gateway.model import Action, Delivery, Envelope, ListenerKind, Session, State, Verdict
from gateway.store import messages, queue, schema, verdicts

LIMIT = 1000
"""Most deliveries that one search returns."""

_message = schema.message
_delivery = schema.delivery


@dataclass(frozen=True, slots=True)
class Tracked:
    """One delivery in a list. `why` has what decided about it, as "macros/dde", the weightiest first."""

    message_id: str
    delivery_id: int
    received_at: float
    peer: str
    sender: str
    recipient: str
    subject: str
    size: int
    state: State
    action: Action
    score: float
    why: tuple[str, ...]
    last_reply: str


@dataclass(frozen=True, slots=True)
class Record:
    """A mail as it came. `size` counts octets; `has_bytes` is whether they are still kept.

    The recipients are in the deliveries, not in `envelope`.
    """

    id: str
    received_at: float
    session: Session
    envelope: Envelope
    subject: str
    header_from: str
    header_message_id: str
    size: int
    has_bytes: bool


@dataclass(frozen=True, slots=True)
class Fate:
    """A delivery, and the verdict that sent it there."""

    delivery: Delivery
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Happening:
    """One event; `delivery_id` is None where it is about the whole mail."""

    at: float
    kind: str
    delivery_id: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Life:
    """Everything that is known of one mail; the events in the order in which they happened."""

    message: Record
    evidence: Mapping[str, Any]
    deliveries: Sequence[Fate]
    events: Sequence[Happening]


def find(
    conn: Connection,
    *,
    sender: str = "",
    recipient: str = "",
    id: str = "",  # noqa: A002 - the word that people type
    since: float | None = None,
    until: float | None = None,
    state: State | None = None,
    action: Action | None = None,
    subject: str = "",
    from_domain: str = "",
    finding: tuple[str, str] | None = None,
    limit: int = 100,
) -> list[Tracked]:
    """Deliveries that match everything given, the latest first, at most *limit*.

    *sender*, *recipient* and *subject* match any part, in either case; *id* is the mail's own or its Message-ID.
    *from_domain* is one that From shows, or one above it. *finding* is a filter and a code, "" for any code of it.
    """
    parts = {_message.c.sender: sender, _delivery.c.recipient: recipient, _message.c.subject: subject}
    which = [column.icontains(part, autoescape=True) for column, part in parts.items() if part]
    which += [*_by_id(id), *_by_time(since, until), *_by_outcome(state, action)]
    which += [*_by_from(from_domain), *_by_finding(finding)]
    ids = select(_delivery.c.id).join(_message, _message.c.id == _delivery.c.message_id).where(*which)
    query = _tracked().where(queue.newest(ids, min(limit, LIMIT))).order_by(_delivery.c.id.desc())
    return [_tracked_of(row) for row in conn.execute(query)]


def life(conn: Connection, message_id: str) -> Life | None:
    """Everything about one mail, or None where there is no such mail."""
    row = conn.execute(select(_message).where(_message.c.id == message_id)).one_or_none()
    if row is None:
        return None
    return Life(
        message=_record_of(row),
        evidence=messages.evidence(conn, message_id),
        deliveries=tuple(_fates(conn, message_id)),
        events=tuple(_happenings(conn, message_id)),
    )


def _tracked() -> Any:
    message = (_message.c[name] for name in ("received_at", "peer", "sender", "subject", "size"))
    return select(_delivery, *message).join(_message, _message.c.id == _delivery.c.message_id)


def _by_id(wanted: str) -> Iterator[ColumnElement[bool]]:
    if wanted:
        yield (_message.c.header_message_id if "@" in wanted else _message.c.id) == wanted


def _by_time(since: float | None, until: float | None) -> Iterator[ColumnElement[bool]]:
    if since is not None:
        yield _message.c.received_at >= since
    if until is not None:
        yield _message.c.received_at < until


def _by_outcome(state: State | None, action: Action | None) -> Iterator[ColumnElement[bool]]:
    if state is not None:
        yield _delivery.c.state == state
    if action is not None:
        yield _delivery.c.action == action


def _by_from(domain: str) -> Iterator[ColumnElement[bool]]:
    """In A-labels or as people write it: a header may have either."""
    if domain:
        yield or_(*map(_shows, dict.fromkeys((domain.lower(), idn.u_labels(domain.lower())))))


def _shows(domain: str) -> ColumnElement[bool]:
    """The first condition is quick, and leaves little to the second, which sees where the domain begins and ends."""
    shown = func.lower(_message.c.header_from)
    whole = rf"@([^@.\s]+[.])*{re.escape(domain)}($|[^a-z0-9.-])"
    return and_(shown.contains(domain, autoescape=True), shown.regexp_match(whole))


def _by_finding(wanted: tuple[str, str] | None) -> Iterator[ColumnElement[bool]]:
    """No text of a stranger passes for a finding: the quotes in it are escaped."""
    if wanted is not None:
        yield _delivery.c.verdict.contains(verdicts.mark(*wanted), autoescape=True)


def _why(verdict: Verdict) -> tuple[str, ...]:
    """The findings that lead to what was done; where only their sum did, or nothing was done, those that add to it."""
    added = [one for one in verdict.reasons if not isinstance(one.effect, Action) and one.effect > 0]
    decided = [one for one in verdict.reasons if one.effect is verdict.action]
    ordered = decided or sorted(added, key=lambda one: one.effect, reverse=True)
    return tuple(dict.fromkeys(f"{one.filter}/{one.finding.code}" for one in ordered))


def _tracked_of(row: Row[Any]) -> Tracked:
    return Tracked(
        message_id=row.message_id,
        delivery_id=row.id,
        received_at=row.received_at,
        peer=row.peer,
        sender=row.sender,
        recipient=row.recipient,
        subject=row.subject,
        size=row.size,
        state=State(row.state),
        action=Action(row.action),
        score=row.score,
        why=_why(verdicts.loads(row.verdict)),
        last_reply=row.last_reply,
    )


def _record_of(row: Row[Any]) -> Record:
    kind = ListenerKind(row.kind)
    return Record(
        id=row.id,
        received_at=row.received_at,
        session=Session(ip_address(row.peer), row.listener, kind, row.helo, row.tls, row.login, row.esmtp),
        envelope=Envelope(row.sender, (), row.eight_bit, row.smtputf8, row.ret, row.envid),
        subject=row.subject,
        header_from=row.header_from,
        header_message_id=row.header_message_id,
        size=row.size,
        has_bytes=row.chunks > 0,
    )


def _fates(conn: Connection, message_id: str) -> Iterator[Fate]:
    query = select(_delivery.c.id, _delivery.c.verdict).where(_delivery.c.message_id == message_id)
    judged = {id_: verdicts.loads(text) for id_, text in conn.execute(query)}
    return (Fate(delivery, judged[delivery.id]) for delivery in queue.of_message(conn, message_id))


def _happenings(conn: Connection, message_id: str) -> Iterator[Happening]:
    event = schema.event.c
    query = select(event.at, event.kind, event.delivery_id, event.text).where(event.message_id == message_id)
    return (Happening(*row) for row in conn.execute(query.order_by(event.id)))

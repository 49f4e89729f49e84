"""What mails showed of domains whose owners want to hear of it, and the reports that went out to them (RFC 9990).

A domain's day (UTC) is settled by its row of `dmarc_sent`, entered in the transaction that puts the report into the
queue: what was observed until the end of that day is never told again, and is forgotten a piece at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, insert, select
from sqlalchemy.exc import IntegrityError

from gateway.store import schema
from gateway.store.statements import Statement

DAY = 86400.0
_FORGOTTEN = 1000  # rows in one transaction
_FETCHED = 500  # groups that are in memory at once

_seen = schema.dmarc_observation
_sent = schema.dmarc_sent
_ADD = Statement(insert(_seen), "at", "domain", "document")
_next = select(_seen.c.domain, _seen.c.at).where(_seen.c.domain > bindparam("domain"))
# One step along the index for each domain, however many mails it has.
_NEXT = Statement(_next.order_by(_seen.c.domain, _seen.c.at).limit(1))


@dataclass(frozen=True, slots=True)
class Published:
    """The DMARC policy that a domain had published (RFC 9989 4.7), "" where a tag is missing.

    `method` is "treewalk" or "psl"; `rua` holds the URIs to report to.
    """

    domain: str
    method: str = ""
    p: str = ""
    sp: str = ""
    np: str = ""
    adkim: str = ""
    aspf: str = ""
    t: str = ""
    fo: str = ""
    rua: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One way in which mail came: what reports count (RFC 9990 3.1.1.6). Mails that were alike have equal rows.

    `disposition` is none, pass, quarantine or reject; `dkim` and `spf` are pass or fail, aligned ones alone. `reasons`
    holds (type, comment), `signatures` (domain, selector, result), `checked` the (domain, result) of SPF, or nothing.
    `envelope_to` is "" where the recipients are in several domains.
    """

    source: str
    disposition: str
    dkim: str
    spf: str
    header_from: str
    envelope_from: str = ""
    envelope_to: str = ""
    reasons: tuple[tuple[str, str], ...] = ()
    signatures: tuple[tuple[str, str, str], ...] = ()
    checked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Observation:
    """What one mail showed at *at*, in seconds since the epoch, under which policy."""

    at: float
    published: Published
    row: Row


@dataclass(frozen=True, slots=True)
class Waiting:
    """A domain with something to tell: when its oldest mail came, and up to when (exclusive) all is settled.

    `settled` is 0 where nothing is, and where all mail came in the day that has begun.
    """

    domain: str
    oldest: float
    settled: float


@dataclass(frozen=True, slots=True)
class Sent:
    """A day of a domain that is settled: `outcome` says in our words to whom its report went, or why to nobody."""

    domain: str
    begins: float
    ends: float
    at: float
    mails: int
    outcome: str


def add(conn: Connection, seen: Observation) -> None:
    """Keep *seen*, in the transaction that keeps the mail."""
    document = json.dumps([_plain(seen.published), _plain(seen.row)], separators=(",", ":"))
    _ADD.run(conn, {"at": seen.at, "domain": seen.published.domain, "document": document})


def _plain(value: Published | Row) -> list[Any]:
    return [getattr(value, name) for name in value.__slots__]


def waiting(conn: Connection, after: str, limit: int, now: float) -> list[Waiting]:
    """Up to *limit* domains with observations, in order, those that come after the name *after*."""
    found: list[Waiting] = []
    while len(found) < limit and (rows := _NEXT.rows(conn, {"domain": after})):
        ((after, oldest),) = rows
        has_ended = oldest < now // DAY * DAY
        found.append(Waiting(after, oldest, _settled(conn, after, now) if has_ended else 0.0))
    return found


def _settled(conn: Connection, domain: str, now: float) -> float:
    """Days that end after *now* are of a clock that was wrong, and settle nothing."""
    query = select(func.max(_sent.c.ends)).where(_sent.c.domain == domain, _sent.c.ends <= now)
    return conn.scalar(query) or 0.0


def published(conn: Connection, domain: str, begins: float, ends: float) -> Published | None:
    """The policy of *domain* that was found last between *begins* and *ends*; None where nothing was observed."""
    query = select(_seen.c.document).where(*_of(domain, begins, ends)).order_by(_seen.c.at.desc(), _seen.c.id.desc())
    document = conn.scalar(query.limit(1))
    return _parsed(document)[0] if document is not None else None


def count(conn: Connection, domain: str, begins: float, ends: float) -> int:
    """How many mails were observed of *domain* from *begins* until before *ends*."""
    return conn.scalar(select(func.count()).select_from(_seen).where(*_of(domain, begins, ends))) or 0


def rows(conn: Connection, domain: str, begins: float, ends: float, limit: int) -> Iterator[tuple[Row, int]]:
    """Up to *limit* ways in which mail came, and how many mails each, the most frequent first.

    The database does the counting, and a few rows at a time are in memory. What came under two policies in one day
    can be there twice.
    """
    mails = func.count().label("mails")
    query = select(_seen.c.document, mails).where(*_of(domain, begins, ends)).group_by(_seen.c.document)
    ordered = query.order_by(mails.desc(), _seen.c.document).limit(limit)
    for document, number in conn.execute(ordered.execution_options(yield_per=_FETCHED)):
        yield _parsed(document)[1], number


def _of(domain: str, begins: float, ends: float) -> Sequence[ColumnElement[bool]]:
    return _seen.c.domain == domain, _seen.c.at >= begins, _seen.c.at < ends


def _parsed(document: str) -> tuple[Published, Row]:
    policy, row = json.loads(document)
    return Published(*_frozen(policy)), Row(*_frozen(row))


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def settle(conn: Connection, done: Sent) -> bool:
    """Enter that the day is done with. False where somebody else has done it: then nothing may be sent."""
    same = _sent.c.domain == done.domain, _sent.c.begins < done.ends, _sent.c.ends > done.begins
    if conn.execute(select(_sent.c.at).where(*same).limit(1)).first() is not None:
        return False
    try:
        with conn.begin_nested():
            conn.execute(insert(_sent).values({column.name: getattr(done, column.name) for column in _sent.c}))
    except IntegrityError:  # at the same moment, on another node
        return False
    return True


def sent(conn: Connection, limit: int, domain: str = "") -> list[Sent]:
    """The reports that went out last, and those that could not, the latest first; of *domain*, where one is named."""
    query = select(*_sent.c).order_by(_sent.c.at.desc(), _sent.c.domain).limit(limit)
    return [Sent(*row) for row in conn.execute(query.where(_sent.c.domain == domain) if domain else query)]


def forget_settled(conn: Connection, domain: str, before: float) -> int:
    """Delete observations of *domain* from before *before*, which are told; how many. Call it until it returns 0."""
    ids = select(_seen.c.id).where(_seen.c.domain == domain, _seen.c.at < before).limit(_FORGOTTEN)
    return conn.execute(delete(_seen).where(_seen.c.id.in_(ids))).rowcount


def forget(conn: Connection, observed: float, told: float) -> int:
    """Delete what was observed before *observed*, and what is known of reports from before *told*; how many rows.

    One call does a bounded amount of work: call it again in another transaction until it returns 0.
    """
    old = select(_seen.c.id).where(_seen.c.at < observed).limit(_FORGOTTEN)
    gone = conn.execute(delete(_seen).where(_seen.c.id.in_(old))).rowcount
    return gone + conn.execute(delete(_sent).where(_sent.c.at < told)).rowcount

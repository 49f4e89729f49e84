"""The DMARC reports that others sent about domains of ours (RFC 9990), and what they tell together.

A report is known by who made it, its id, its domain and who sent it, and is kept once. Anybody can write one: where its
sender is not proved it is kept as such, counts for nothing unless it is asked for, and gives way to one that is proved.
Nobody can stand in the way of the report of another, though ids can be guessed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    cast,
    delete,
    func,
    insert,
    or_,
    select,
    true,
)
from sqlalchemy.exc import IntegrityError

from gateway.model import Report, ReportRecord
from gateway.store import schema
from gateway.store.statements import Statement


class Proof(StrEnum):
    """How it is known who sent a report."""

    DMARC = "dmarc"
    BY_HAND = "by hand"
    NONE = ""


LIMIT = 10_000
"""Most lines that one question returns."""
_FORGOTTEN = 20_000  # records in one transaction
_DAY = 86400.0
_DAILY = {Proof.DMARC: 100_000, Proof.NONE: 20_000}
"""Records that are kept in a day of one sender, and of all together who are not proved.

All names below one domain are one sender: whoever has the domain has as many as they like.
"""
_report = schema.dmarc_report
_record = schema.dmarc_record
_ADD_RECORD = Statement(insert(_record), *({*_record.columns.keys()} - {"id"}))


@dataclass(frozen=True, slots=True)
class Received:
    """A report as it came: in which mail ("" where it was read from a file), from which domain, and who says so."""

    report: Report
    received_at: float
    message_id: str = ""
    sender: str = ""
    proof: Proof = Proof.NONE


@dataclass(frozen=True, slots=True)
class Listed:
    """A report in a list. `number` is ours; `mails` counts those that it tells of."""

    number: int
    received_at: float
    message_id: str
    org: str
    sender: str
    proof: Proof
    id: str
    domain: str
    begins: float
    ends: float
    mails: int


@dataclass(frozen=True, slots=True)
class Tally:
    """How many mails came alike from one address, in all reports together; `reporters` counts who tells of them."""

    domain: str
    source: str
    header_from: str
    disposition: str
    dkim: str
    spf: str
    mails: int
    reporters: int

    @property
    def passed(self) -> bool:
        """Whether these mails passed DMARC: one aligned identifier is enough (RFC 9989 4.4)."""
        return "pass" in {self.dkim, self.spf}


def keep(conn: Connection, received: Received) -> bool:
    """Keep a report, in the transaction that keeps its mail. False where it is there, or too many came that day."""
    report = received.report
    alike = _report.c.org == report.org, _report.c.report_id == report.id, _report.c.domain == report.domain
    if _is_known(conn, received, alike) or _is_flood(conn, received):
        return False
    try:
        with conn.begin_nested():
            conn.execute(delete(_report).where(*alike, _report.c.proof == Proof.NONE))
            number = conn.scalar(insert(_report).values(_report_values(received)).returning(_report.c.id))
    except IntegrityError:  # at the same moment, on another node
        return False
    _ADD_RECORD.run_many(conn, [_record_values(number, one) for one in report.records])
    return True


def _is_known(conn: Connection, received: Received, alike: Sequence[ColumnElement[bool]]) -> bool:
    """Whether one of those *alike* is the same report: what one sender proved is not what another says of it."""
    proof, sender = _report.c.proof, _report.c.sender
    same = {
        Proof.NONE: true(),
        Proof.BY_HAND: proof != Proof.NONE,
        Proof.DMARC: or_(proof == Proof.BY_HAND, and_(proof == Proof.DMARC, sender == received.sender)),
    }
    return conn.execute(select(_report.c.id).where(*alike, same[received.proof]).limit(1)).first() is not None


def _is_flood(conn: Connection, received: Received) -> bool:
    """Whether the sender of *received* has had its share of this day; those who are not proved have one together.

    A small mail can bring a large report, so without this anybody could fill the disk.
    """
    if received.proof is Proof.BY_HAND:
        return False
    recent = [_report.c.received_at > received.received_at - _DAY, _report.c.proof == received.proof]
    if received.proof:
        recent.append(_is_within(_report.c.sender, ".".join(received.sender.split(".")[-2:])))
    count = select(func.count()).select_from(_record).join(_report, _record.c.report == _report.c.id).where(*recent)
    return (conn.scalar(count) or 0) + len(received.report.records) > _DAILY[received.proof]


def _report_values(received: Received) -> Mapping[str, Any]:
    report = received.report
    return {
        "received_at": received.received_at,
        "message_id": received.message_id,
        "org": report.org,
        "email": report.email,
        "sender": received.sender,
        "proof": received.proof,
        "report_id": report.id,
        "domain": report.domain,
        "begins": report.begins,
        "ends": report.ends,
        "policy": json.dumps(
            {
                "published": report.policy,
                "errors": report.errors,
                "faulty": report.faulty,
                "left": report.left,
                "left_mails": report.left_mails,
            }
        ),
    }


def _record_values(number: int | None, record: ReportRecord) -> Mapping[str, Any]:
    return {
        "report": number,
        "source": record.source,
        "count": record.count,
        "disposition": record.disposition,
        "dkim": record.dkim,
        "spf": record.spf,
        "header_from": record.header_from,
        "envelope_from": record.envelope_from,
        "document": json.dumps({"reasons": record.reasons, "results": record.results}, separators=(",", ":")),
    }


# ---- Reading ------------------------------------------------------------------------------------------------------


def listed(conn: Connection, since: float, domain: str = "", sender: str = "", limit: int = 100) -> list[Listed]:
    """Reports that tell of times after *since*, the latest first.

    Only those about *domain* and domains below it, and of *sender*, where these are named.
    """
    mails = select(func.coalesce(func.sum(_record.c.count), 0)).where(_record.c.report == _report.c.id)
    query = select(_report, mails.scalar_subquery().label("mails")).where(*_about(since, domain, sender))
    return [_listed(row) for row in conn.execute(query.order_by(_report.c.id.desc()).limit(min(limit, LIMIT)))]


def _listed(row: Row[Any]) -> Listed:
    return Listed(
        number=row.id,
        received_at=row.received_at,
        message_id=row.message_id,
        org=row.org,
        sender=row.sender,
        proof=Proof(row.proof),
        id=row.report_id,
        domain=row.domain,
        begins=row.begins,
        ends=row.ends,
        mails=int(row.mails) + json.loads(row.policy)["left_mails"],
    )


def one(conn: Connection, number: int) -> Received | None:
    """A report in full; None where there is none of this number."""
    row = conn.execute(select(_report).where(_report.c.id == number)).one_or_none()
    if row is None:
        return None
    records = conn.execute(select(_record).where(_record.c.report == number).order_by(_record.c.id))
    report = Report(
        org=row.org,
        email=row.email,
        id=row.report_id,
        domain=row.domain,
        begins=int(row.begins),
        ends=int(row.ends),
        records=tuple(map(_record_of, records)),
        **_unpacked(row.policy),
    )
    return Received(report, row.received_at, row.message_id, row.sender, Proof(row.proof))


def _unpacked(policy: str) -> dict[str, Any]:
    told = json.loads(policy)
    published = tuple((tag, value) for tag, value in told.pop("published"))
    return {**told, "policy": published, "errors": tuple(told["errors"])}


def _record_of(row: Row[Any]) -> ReportRecord:
    told = json.loads(row.document)
    return ReportRecord(
        source=row.source,
        count=row._mapping["count"],  # every row has a method of that name
        disposition=row.disposition,
        dkim=row.dkim,
        spf=row.spf,
        header_from=row.header_from,
        envelope_from=row.envelope_from,
        reasons=tuple(told["reasons"]),
        results=tuple(map(tuple, told["results"])),
    )


def tallies(
    conn: Connection, since: float, domain: str = "", *, sender: str = "", unproved: bool = False
) -> list[Tally]:
    """All mails that reports tell of, those that came alike together, the most frequent first; at most `LIMIT`.

    *domain* and *sender* as for `listed`. Reports whose sender is not proved count only where *unproved* says so.
    """
    alike = (_report.c.domain, *(_record.c[name] for name in ("source", "header_from", "disposition", "dkim", "spf")))
    mails = cast(func.sum(_record.c.count), BigInteger)  # PostgreSQL's sum would be a decimal
    query = _counted(
        select(*alike, mails, func.count(_report.c.sender.distinct())), since, domain, sender, unproved=unproved
    ).group_by(*alike)
    ordered = query.order_by(mails.desc(), *alike).limit(LIMIT)
    return [Tally(*row) for row in conn.execute(ordered)]


def totals(
    conn: Connection, since: float, domain: str = "", *, sender: str = "", unproved: bool = False
) -> dict[str, tuple[int, int]]:
    """By domain: how many mails there are reports of, and how many of these passed; whatever their number."""
    passed = or_(_record.c.dkim == "pass", _record.c.spf == "pass")
    sums = func.sum(_record.c.count), func.sum(_record.c.count).filter(passed)
    query = _counted(select(_report.c.domain, *sums), since, domain, sender, unproved=unproved)
    rows = conn.execute(query.group_by(_report.c.domain).order_by(_report.c.domain))
    return {name: (int(mails), int(well or 0)) for name, mails, well in rows}


def unproved_count(conn: Connection, since: float, domain: str = "", sender: str = "") -> int:
    """How many reports there are whose sender is not proved."""
    which = *_about(since, domain, sender), _report.c.proof == Proof.NONE
    return conn.scalar(select(func.count()).select_from(_report).where(*which)) or 0


def _counted(query: Select[Any], since: float, domain: str, sender: str, *, unproved: bool) -> Select[Any]:
    joined = query.join_from(_report, _record, _record.c.report == _report.c.id).where(*_about(since, domain, sender))
    return joined if unproved else joined.where(_report.c.proof != Proof.NONE)


def _about(since: float, domain: str, sender: str = "") -> Iterator[ColumnElement[bool]]:
    yield _report.c.ends > since
    if sender:
        yield _report.c.sender == sender
    if domain:
        yield _is_within(_report.c.domain, domain)


def _is_within(column: ColumnElement[str], domain: str) -> ColumnElement[bool]:
    return or_(column == domain, column.endswith(f".{domain}", autoescape=True))


# ---- Forgetting ---------------------------------------------------------------------------------------------------


def forget(conn: Connection, before: float) -> int:
    """Delete reports that came before *before*; how many rows.

    One call does a bounded amount of work: call it again in another transaction until it returns 0.
    """
    old = conn.scalars(
        select(_report.c.id).where(_report.c.received_at < before).order_by(_report.c.id).limit(50)
    ).all()
    records = select(_record.c.id).where(_record.c.report.in_(old)).limit(_FORGOTTEN)
    gone = conn.execute(delete(_record).where(_record.c.id.in_(records))).rowcount
    if gone == _FORGOTTEN:
        return gone
    return gone + conn.execute(delete(_report).where(_report.c.id.in_(old))).rowcount

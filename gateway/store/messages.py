"""Mail and its bytes. `accept` is the instant at which responsibility changes hands: when its transaction is durable.

Bytes are kept in chunks, and no function here ever holds more than one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import SEEK_END, BytesIO
from typing import Any, BinaryIO

from sqlalchemy import Connection, bindparam, delete, exists, insert, or_, select, update

from gateway import failpoints
from gateway.events import clean
from gateway.model import Envelope, Notice, Recipient, Session, State, Verdict
from gateway.store import observations, queue, reports, schema, verdicts
from gateway.store.observations import Observation
from gateway.store.reports import Received
from gateway.store.statements import Statement

CHUNK = 256 << 10
"""Octets in one row."""
EVIDENCE = 4 << 20
"""Octets of evidence kept with one mail."""
HEADER_TEXT = 998
"""Characters kept of a header field (the longest line of RFC 5322 2.1.1)."""
_SWEPT = 500  # mails in one transaction ...
_SWEPT_OCTETS = 16 << 20  # ... and octets: others wait meanwhile, and SQLite's log needs room for what is deleted
# Statements made once, for making one costs more than running it.
_CHUNKS = select(schema.message.c.chunks).where(schema.message.c.id == bindparam("message"))
_CHUNK = Statement(
    select(schema.chunk.c.data).where(
        schema.chunk.c.message_id == bindparam("message"), schema.chunk.c.n == bindparam("number")
    )
)
_ADD_MESSAGE, _ADD_EVIDENCE, _ADD_CHUNK = (
    Statement(insert(table), *table.columns.keys()) for table in (schema.message, schema.evidence, schema.chunk)
)


@dataclass(frozen=True, slots=True)
class Draft:
    """A mail about to be stored: *header* is what we put on top, *body* the rest, read from its start.

    `size` counts the octets that were offered; it is kept where there is no body. `evidence` is JSON-able.
    `observation` is for the report to the owner of the domain in its From, `report` a report that the mail brought us.
    """

    id: str
    received_at: float
    session: Session
    envelope: Envelope
    header: bytes = b""
    body: BinaryIO = field(default_factory=BytesIO)
    size: int = 0
    subject: str = ""
    header_from: str = ""
    header_message_id: str = ""
    evidence: Mapping[str, object] = field(default_factory=dict)
    observation: Observation | None = None
    report: Received | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What is to become of a mail for one recipient: QUEUED, HELD, MAILBOX or REFUSED.

    `mailbox` is the account, for HELD too where a release leads there. `header` stands on top for this one alone.
    """

    recipient: Recipient
    state: State
    mailbox: str = ""
    header: bytes = b""
    verdict: Verdict = field(default_factory=Verdict)
    notice: Notice | None = None


def accept(conn: Connection, draft: Draft, rows: Sequence[Row]) -> None:
    """Store the mail, its bytes and one delivery for each of *rows*. It is ours when the transaction is durable."""
    if all(row.state is State.REFUSED for row in rows):
        raise ValueError("nobody accepts this mail")
    size = len(draft.header) + draft.body.seek(0, SEEK_END)
    _store(conn, draft, rows, size=size, chunks=-(-size // CHUNK))
    if draft.report is not None:
        reports.keep(conn, draft.report)
    failpoints.hit("entered")
    if sum(_store_chunks(conn, draft)) != size:
        raise ValueError("the body changed while it was read")
    failpoints.hit("stored")


def refuse(conn: Connection, draft: Draft, rows: Sequence[Row]) -> None:
    """Keep a record of a mail that was refused or deferred, without its bytes."""
    if any(row.state is not State.REFUSED for row in rows):
        raise ValueError("a refused mail has no other deliveries")
    _store(conn, draft, rows, size=draft.size, chunks=0)


def _store(conn: Connection, draft: Draft, rows: Sequence[Row], *, size: int, chunks: int) -> None:
    _ADD_MESSAGE.run(conn, {**_message_values(draft), "size": size, "chunks": chunks})
    _ADD_EVIDENCE.run(conn, {"message_id": draft.id, "document": _document(draft.evidence)})
    if draft.observation is not None:
        observations.add(conn, draft.observation)
    if rows:
        queue.enter(conn, [_delivery_values(draft.id, row) for row in rows], draft.received_at)


def _store_chunks(conn: Connection, draft: Draft) -> Iterator[int]:
    """Store the bytes; the sizes of the chunks."""
    for n, data in enumerate(_blocks(draft.header, draft.body)):
        _ADD_CHUNK.run(conn, {"message_id": draft.id, "n": n, "data": data})
        yield len(data)


def _blocks(header: bytes, body: BinaryIO) -> Iterator[bytes]:
    """Header and body in blocks of `CHUNK` octets; only the last is shorter."""
    body.seek(0)
    head = BytesIO(header)
    while block := head.read(CHUNK):
        yield block + _exactly(body, CHUNK - len(block))
    while block := _exactly(body, CHUNK):
        yield block


def _exactly(body: BinaryIO, size: int) -> bytes:
    """*size* octets, fewer at the end alone: a file without a buffer may return less than it was asked for."""
    block = body.read(size)
    while len(block) < size and (more := body.read(size - len(block))):
        block += more
    return block


def _message_values(draft: Draft) -> dict[str, Any]:
    session, envelope = draft.session, draft.envelope
    return {
        "id": draft.id,
        "received_at": draft.received_at,
        "peer": str(session.peer),
        "listener": clean(session.listener, 32),
        "kind": session.kind,
        "helo": clean(session.helo),
        "tls": clean(session.tls, 16),
        "login": clean(session.user),
        "esmtp": session.esmtp,
        "sender": envelope.sender,
        "eight_bit": envelope.eight_bit,
        "smtputf8": envelope.smtputf8,
        "ret": envelope.ret,
        "envid": envelope.envid,
        "subject": clean(draft.subject, HEADER_TEXT),
        "header_from": clean(draft.header_from, HEADER_TEXT),
        "header_message_id": clean(draft.header_message_id, HEADER_TEXT),
    }


def _delivery_values(message_id: str, row: Row) -> dict[str, Any]:
    if row.state is State.MAILBOX and not row.mailbox:
        raise ValueError("a delivery into a mailbox names the mailbox")
    return {
        "message_id": message_id,
        "recipient": row.recipient.address,
        "notify": " ".join(sorted(row.recipient.notify)),
        "orcpt": row.recipient.orcpt,
        "destination": row.recipient.address.rpartition("@")[2].lower() if "@" in row.recipient.address else "",
        "mailbox": row.mailbox,
        "state": row.state,
        "notice": row.notice,
        "action": row.verdict.action,
        "score": row.verdict.score,
        "verdict": verdicts.dumps(row.verdict),
        "header": row.header,
    }


def _document(evidence: Mapping[str, object]) -> str:
    text = json.dumps(evidence)
    return text if len(text) <= EVIDENCE else json.dumps({"too_large": len(text), "holds": sorted(evidence)[:100]})


# ---- Reading ------------------------------------------------------------------------------------------------------


def chunk_count(conn: Connection, message_id: str) -> int:
    """How many chunks there are of a mail; 0 where its bytes are gone, or it never was."""
    return conn.scalar(_CHUNKS, {"message": message_id}) or 0


def chunk(conn: Connection, message_id: str, n: int) -> bytes:
    """Chunk *n*, counted from 0. `LookupError` where there is none."""
    rows = _CHUNK.rows(conn, {"message": message_id, "number": n})
    if not rows:
        raise LookupError(f"{message_id} has no chunk {n}")
    return bytes(rows[0][0])


def whole(conn: Connection, message_id: str) -> bytes:
    """A message of at most one `CHUNK`; empty where its bytes are gone."""
    rows = _CHUNK.rows(conn, {"message": message_id, "number": 0})
    return bytes(rows[0][0]) if rows else b""


def read_chunks(conn: Connection, message_id: str) -> Iterator[bytes]:
    """All chunks in order: exactly the bytes of the mail."""
    return (chunk(conn, message_id, n) for n in range(chunk_count(conn, message_id)))


def evidence(conn: Connection, message_id: str) -> Mapping[str, Any]:
    """What the filters found on a mail; empty where it never was."""
    document = conn.scalar(select(schema.evidence.c.document).where(schema.evidence.c.message_id == message_id))
    return json.loads(document) if document else {}


# ---- Forgetting ---------------------------------------------------------------------------------------------------


def sweep(conn: Connection, now: float, keep_records: float) -> int:
    """Delete bytes that no delivery needs, and records older than *keep_records* seconds; return how many.

    One call does a bounded amount of work: call it again in another transaction until it returns 0.
    """
    return _sweep_bytes(conn) + _sweep_records(conn, now - keep_records)


def _sweep_bytes(conn: Connection) -> int:
    message = schema.message.c
    query = select(message.id, message.size).where(schema.has_bytes, ~_needed()).limit(_SWEPT)
    ids = list(_affordable(conn.execute(query).all()))
    conn.execute(delete(schema.chunk).where(schema.chunk.c.message_id.in_(ids)))
    conn.execute(update(schema.message).where(message.id.in_(ids)).values(chunks=0))
    return len(ids)


def _affordable(found: Iterable[Sequence[Any]]) -> Iterator[str]:
    """The ids of the first mails that have `_SWEPT_OCTETS` together; one at least."""
    room = _SWEPT_OCTETS
    for id_, size in found:
        if room <= 0:
            return
        room -= size
        yield id_


def _sweep_records(conn: Connection, before: float) -> int:
    message = schema.message.c
    query = select(message.id).where(message.received_at < before, message.chunks == 0, ~_needed()).limit(_SWEPT)
    ids = conn.scalars(query).all()
    conn.execute(delete(schema.message).where(message.id.in_(ids)))
    return len(ids)


def _needed() -> Any:
    """Some delivery of the message waits for something, or its sender does."""
    columns = schema.delivery.c
    waiting = or_(columns.state.in_(sorted(queue.LIVE)), columns.notice.is_not(None))
    return exists().where(columns.message_id == schema.message.c.id, waiting)

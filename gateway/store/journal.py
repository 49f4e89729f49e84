"""The events of a mail's life. Every text is cleaned and capped before it is kept: it may be a stranger's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import Connection, insert

from gateway.events import clean
from gateway.store import schema
from gateway.store.statements import Statement

TEXT = 512
"""Characters kept of a remote reply or any other text of an event."""


class Entry(NamedTuple):
    """One thing that happened, to a mail or to one of its deliveries."""

    message_id: str
    delivery_id: int | None
    at: float
    kind: str
    text: str = ""


_ADD = Statement(insert(schema.event), *Entry._fields)


def record(conn: Connection, entries: Iterable[Entry]) -> None:
    """Append *entries* to the journal."""
    rows = [entry._replace(text=clean(entry.text, TEXT))._asdict() for entry in entries]
    if rows:
        _ADD.run_many(conn, rows)

"""The events of a mail's life, and the cleaning of every text of a stranger that the store keeps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import Connection, insert

from gateway.store import schema

TEXT = 512
"""Characters kept of a remote reply or any other text of an event."""
_ADD = insert(schema.event)


class Entry(NamedTuple):
    """One thing that happened, to a mail or to one of its deliveries."""

    message_id: str
    delivery_id: int | None
    at: float
    kind: str
    text: str = ""


def clean(text: str, limit: int = TEXT) -> str:
    """*text* on one line, without control, format and surrogate characters, at most *limit* characters long."""
    short = text[:limit]
    if short.isprintable():
        return short
    return "".join(character if character.isprintable() else " " for character in short)


def record(conn: Connection, entries: Iterable[Entry]) -> None:
    """Append *entries* to the journal."""
    rows = [entry._replace(text=clean(entry.text))._asdict() for entry in entries]
    if rows:
        conn.execute(_ADD, rows)

"""The journal keeps what happened in its order, and of a stranger's words only what is clean and short."""

from sqlalchemy import select

from gateway.store import journal, schema
from gateway.store.journal import Entry


def kept(conn):
    return conn.execute(select(schema.event.c.kind, schema.event.c.text).order_by(schema.event.c.id)).all()


def test_entries_are_kept_in_their_order_and_none_is_no_statement(put, change, look):
    delivery = put()
    before = look(kept)
    change(journal.record, [])
    assert look(kept) == before
    change(journal.record, [Entry(delivery.message_id, delivery.id, 1.0, kind) for kind in ("one", "two", "three")])
    assert [kind for kind, _ in look(kept)[len(before) :]] == ["one", "two", "three"]


def test_texts_of_strangers_are_cleaned_and_capped(put, change, look):
    delivery = put()
    words = "550 no\r\nforged: line\x1b[2J\0" + "x" * 5000
    change(journal.record, [Entry(delivery.message_id, None, 1.0, "said", words)])
    ((_, text),) = [row for row in look(kept) if row.kind == "said"]
    assert len(text) <= journal.TEXT
    assert text.isprintable()
    assert text.startswith("550 no")

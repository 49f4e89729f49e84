"""The mark of a transaction says whether it happened, and never before that is settled."""

import threading
import time

import pytest
from sqlalchemy import insert, select

from gateway.store import marks
from gateway.store.marks import Marks
from gateway.store.schema import mark


@pytest.fixture
def url(postgres_url):
    return postgres_url


def stands(store, own):
    with store.engine.begin() as conn:
        return own.stands(conn)


def writers(store):
    with store.reading() as conn:
        return set(conn.scalars(select(mark.c.writer)))


def test_a_mark_stands_once_its_transaction_has_happened(store):
    own = Marks()
    for _ in range(2):
        with store.begin() as conn:
            own.leave(conn)
        assert stands(store, own)
        assert stands(store, own), "to look changes nothing"


@pytest.mark.parametrize("is_first", [True, False])
def test_of_a_transaction_that_was_rolled_back_no_mark_stands(store, is_first):
    own = Marks()
    if not is_first:
        with store.begin() as conn:
            own.leave(conn)
    with store.engine.connect() as conn:
        own.leave(conn)
        conn.rollback()
    assert not stands(store, own)


def test_the_marks_of_another_writer_say_nothing(store):
    own, other = Marks(), Marks()
    with store.begin() as conn:
        other.leave(conn)
    with store.engine.connect() as conn:
        own.leave(conn)
        conn.rollback()
    assert not stands(store, own)
    assert stands(store, other)


@pytest.mark.parametrize("happens", [True, False])
def test_who_looks_waits_until_the_transaction_has_ended(store, happens):
    own, seen = Marks(), []
    with store.engine.connect() as conn:
        own.leave(conn)
        looking = threading.Thread(target=lambda: seen.append(stands(store, own)))
        looking.start()
        looking.join(0.1)
        assert looking.is_alive(), "it does not guess"
        conn.commit() if happens else conn.rollback()
    looking.join(5)
    assert seen == [happens]


def test_marks_of_writers_that_are_no_more_are_removed_by_the_next_one(store):
    now = time.time()
    ages = {"old": marks.KEPT + 60, "young": marks.KEPT - 60}
    with store.begin() as conn:
        conn.execute(insert(mark), [{"writer": name, "number": 1, "at": now - age} for name, age in ages.items()])
        Marks().leave(conn)
    assert "old" not in writers(store)
    assert "young" in writers(store)
    assert len(writers(store)) == 2

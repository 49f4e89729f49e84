"""The one thread that writes: shared transactions, works that fail alone, callers that never hear too much."""

import asyncio
import threading

import pytest
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError, OperationalError

from gateway.model import Recipient, State, Temporary
from gateway.store import messages, queue, writer
from gateway.store.engine import Store
from gateway.store.writer import Writer
from tests.gateway.store.works import add, held_up, names, together


def test_writes_that_wait_together_share_one_commit(store):
    commits = []
    event.listen(store.engine, "commit", commits.append)
    assert together(store, *(add(f"user{n}") for n in range(10))) == [1] * 10
    assert len(commits) == 2  # one for the write that held up the others
    assert len(names(store)) == 10


def test_one_failing_work_fails_alone(store):
    def breaks(conn):
        add("half")(conn)
        raise ZeroDivisionError("half done")

    first, second, third = together(store, add("a"), breaks, add("b"))
    assert (first, third) == (1, 1)
    assert isinstance(second, ZeroDivisionError)
    assert names(store) == {"a", "b"}


def test_a_work_that_breaks_a_rule_of_the_tables_fails_alone(store):
    first, second, third = together(store, add("a"), add("a"), add("b"))
    assert (first, third) == (1, 1)
    assert type(second).__name__ == "IntegrityError"
    assert names(store) == {"a", "b"}


def test_only_a_batch_with_a_failing_work_runs_again_with_savepoints(store):
    savepoints, runs = [], []
    event.listen(store.engine, "savepoint", lambda conn, name: savepoints.append(name))

    def counted(conn):
        runs.append("a")
        return add("a")(conn)

    assert together(store, counted, add("b")) == [1, 1]
    assert (len(runs), len(savepoints)) == (1, 0)
    first, second = together(store, add("c"), add("c"))
    assert first == 1
    assert isinstance(second, IntegrityError)
    assert len(savepoints) == 2
    assert names(store) == {"a", "b", "c"}


def test_a_mail_whose_neighbour_fails_is_kept_once_and_whole(store, draft):
    def breaks(conn):
        raise ZeroDivisionError

    mail, row = draft(b"body\r\n" * 10_000), messages.Row(Recipient("bob@example.net"), State.QUEUED)
    together(store, lambda conn: messages.accept(conn, mail, [row]), breaks)
    with store.reading() as conn:
        assert b"".join(messages.read_chunks(conn, mail.id)) == mail.header + b"body\r\n" * 10_000
        assert len(queue.of_message(conn, mail.id)) == 1


class DiskFault(Exception):
    sqlstate = "58030"  # io_error


def test_when_the_commit_fails_nobody_is_told_of_success(store):
    def fails(conn):
        raise OperationalError("COMMIT", None, DiskFault())

    event.listen(store.engine, "commit", fails)
    outcomes = together(store, add("a"), add("b"))
    event.remove(store.engine, "commit", fails)
    assert [type(outcome) for outcome in outcomes] == [Temporary, Temporary]
    assert names(store) == set()
    assert asyncio.run(store.write(add("c"))) == 1


def test_a_caller_that_gives_up_does_not_stop_the_others(store):
    async def run():
        async with held_up(store) as first:
            second = asyncio.ensure_future(store.write(add("early")))
            third = asyncio.ensure_future(store.write(add("stays")))
            await asyncio.sleep(0)
            first.cancel()  # it runs already: its transaction goes on without a listener
            second.cancel()  # it waits: it never happens
            await asyncio.wait([second])  # the store has heard of it
        assert await third == 1

    asyncio.run(run())
    assert names(store) == {"stays"}


def test_without_a_thread_a_write_is_temporary_and_the_next_one_stands(store, monkeypatch):
    def no_thread(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(Temporary):
            asyncio.run(store.write(add("never")))
    assert asyncio.run(store.write(add("alice"))) == 1
    assert names(store) == {"alice"}


def test_a_write_whose_turn_comes_too_late_is_temporary_and_never_happens(url):
    store = Store(url, patience=0.1)
    store.migrate()

    async def run():
        async with held_up(store):
            late = asyncio.ensure_future(store.write(add("late")))
            await asyncio.sleep(0.15)
        with pytest.raises(Temporary, match="busy"):
            await late

    asyncio.run(run())
    assert names(store) == set()
    store.close()


def test_after_a_commit_that_failed_a_new_connection_is_taken(store):
    """The descriptor on which a flush has failed may claim success afterwards for pages that are lost."""
    connected, failed = [], []
    asyncio.run(store.write(add("a")))
    event.listen(store.engine, "connect", lambda *_: connected.append("connected"))

    def fails_once(conn):
        if not failed:
            failed.append("failed")
            raise OperationalError("COMMIT", None, DiskFault())

    event.listen(store.engine, "commit", fails_once)
    with pytest.raises(Temporary):
        asyncio.run(store.write(add("b")))
    assert not connected
    assert asyncio.run(store.write(add("c"))) == 1
    assert connected == ["connected"]
    assert names(store) == {"a", "c"}


def test_works_run_in_the_order_in_which_they_came(store):
    ran = []
    together(store, *(lambda conn, n=n: ran.append(n) for n in range(20)))
    assert ran == list(range(20))


def test_no_more_works_than_the_limit_share_a_transaction(store, monkeypatch):
    monkeypatch.setattr(writer, "BATCH", 4)
    commits = []
    event.listen(store.engine, "commit", commits.append)
    assert together(store, *(add(f"user{n}") for n in range(9))) == [1] * 9
    assert len(commits) == 1 + 3  # one for the write that held up the others


def test_beyond_the_limit_of_what_waits_the_store_is_busy(store, monkeypatch):
    monkeypatch.setattr(writer, "BACKLOG", 2)
    *kept, refused = together(store, *(add(f"user{n}") for n in range(3)))
    assert kept == [1, 1]
    assert isinstance(refused, Temporary)
    assert "busy" in str(refused)
    assert names(store) == {"user0", "user1"}


def test_what_was_submitted_before_the_end_is_written_and_nothing_afterwards(store):
    own = Writer(store.engine, 5.0)
    futures = [own.submit(add(f"user{n}")) for n in range(5)]
    own.close()
    assert [future.result(0) for future in futures] == [1] * 5
    with pytest.raises(Temporary, match="closed"):
        own.submit(add("late"))
    assert len(names(store)) == 5


def test_a_writer_that_never_wrote_has_no_thread_and_can_end(store):
    before = threading.active_count()
    own = Writer(store.engine, 5.0)
    assert threading.active_count() == before
    own.close()

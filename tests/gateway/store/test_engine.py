"""Transactions on any database: shared commits, failures that stay apart, killed processes."""

import asyncio
import signal
import subprocess
import sys
import threading

import pytest
from sqlalchemy import event, insert, select
from sqlalchemy.exc import IntegrityError, OperationalError

from gateway.model import Recipient, State, Temporary
from gateway.store import messages, queue, schema
from gateway.store.engine import Store
from tests.gateway.store.works import account, add, held_up, names, together

SECRET = {"login": "x", "password_hash": "argon2 of somebody", "created_at": 0.0}


def test_a_write_returns_what_its_work_returns(store):
    assert asyncio.run(store.write(add("a"))) == 1
    assert names(store) == {"a"}


def test_a_read_sees_what_was_written_and_cannot_write(store):
    async def run():
        await store.write(add("a"))
        assert await store.read(lambda conn: conn.scalars(select(account.c.login)).all()) == ["a"]
        with pytest.raises(Temporary):
            await store.read(add("b"))

    asyncio.run(run())
    assert names(store) == {"a"}


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


def test_no_failure_quotes_what_was_to_be_written(store):
    async def twice():
        for _ in range(2):
            await store.write(lambda conn: conn.execute(insert(schema.account).values(SECRET)))

    with pytest.raises(IntegrityError) as failure:
        asyncio.run(twice())
    assert "argon2 of somebody" not in str(failure.value)


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


def test_several_loops_in_several_threads_may_write(store):
    def work(n):
        async def run():
            await asyncio.gather(*(store.write(add(f"{n}-{i}")) for i in range(20)))

        asyncio.run(run())

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(names(store)) == 80


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


def test_what_was_submitted_before_the_end_is_still_written(url):
    store = Store(url)
    store.migrate()

    async def run():
        writes = [asyncio.ensure_future(store.write(add(f"user{n}"))) for n in range(20)]
        await asyncio.sleep(0)
        await store.aclose()
        assert await asyncio.gather(*writes) == [1] * 20
        with pytest.raises(Temporary, match="closed"):
            await store.write(add("late"))
        with pytest.raises(Temporary, match="closed"):
            await store.read(lambda _: None)

    asyncio.run(run())
    again = Store(url)
    assert len(names(again)) == 20
    again.close()


def test_several_processes_may_migrate_at_once(empty_url):
    program = f"from gateway.store.engine import Store; s = Store({empty_url!r}); s.migrate(); s.close()"
    running = [subprocess.Popen([sys.executable, "-W", "error", "-c", program]) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]


WRITES_AND_TELLS = """
import asyncio, sys
from sqlalchemy import insert
from gateway.store import schema
from gateway.store.engine import Store

store = Store(sys.argv[1])

async def write(n):
    row = {"login": f"user{n}", "password_hash": "x" * 5000, "created_at": 0.0}
    await store.write(lambda conn: conn.execute(insert(schema.account), row).rowcount)
    print(n, flush=True)

async def run():
    for start in range(0, 1_000_000, 8):
        await asyncio.gather(*(write(n) for n in range(start, start + 8)))

asyncio.run(run())
"""


@pytest.mark.parametrize("lines", [1, 37, 120])
def test_a_killed_process_loses_nothing_that_it_reported(store, url, lines):
    writer = subprocess.Popen([sys.executable, "-c", WRITES_AND_TELLS, url], stdout=subprocess.PIPE, text=True)
    told = [writer.stdout.readline() for _ in range(lines)]
    writer.send_signal(signal.SIGKILL)
    told += writer.stdout.read().splitlines()
    writer.wait(10)
    writer.stdout.close()
    assert {f"user{line.strip()}" for line in told if line.strip()} <= names(store)
    assert asyncio.run(store.write(add("after"))) == 1
    if store.engine.dialect.name == "sqlite":
        with store.reading() as conn:
            assert conn.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"

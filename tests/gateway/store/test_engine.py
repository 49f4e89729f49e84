"""Transactions: shared commits, failures that stay apart, full disks, locked files, killed processes."""

import asyncio
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import event, insert, select
from sqlalchemy.exc import IntegrityError

from gateway.model import Recipient, State, Temporary
from gateway.store import messages, queue, schema
from gateway.store.engine import StorageFull, Store

account = schema.account


def add(name, size=1):
    row = {"login": name, "password_hash": "x" * size, "created_at": 0.0}
    return lambda conn: conn.execute(insert(account), row).rowcount


def names(store):
    with store.reading() as conn:
        return set(conn.scalars(select(account.c.login)))


def file_of(store):
    return Path(store.engine.url.database)


def together(store, *works, hold=True):
    """What each of *works* came to when all waited for the same commit; *hold*: behind a write of its own."""

    async def run():
        if not hold:
            return await asyncio.gather(*(store.write(work) for work in works), return_exceptions=True)
        held = threading.Event()
        first = asyncio.ensure_future(store.write(lambda _: held.wait(5)))
        await asyncio.sleep(0.05)
        rest = [asyncio.ensure_future(store.write(work)) for work in works]
        await asyncio.sleep(0.05)
        held.set()
        await first
        return await asyncio.gather(*rest, return_exceptions=True)

    return asyncio.run(run())


SECRET = {"login": "x", "password_hash": "argon2 of somebody", "created_at": 0.0}


def test_a_store_that_is_only_made_opens_nothing(tmp_path):
    Store(f"sqlite:///{tmp_path / 'sub' / 'gatepost.db'}").close()
    assert list(tmp_path.iterdir()) == []


def test_files_are_for_us_alone(store):
    path = file_of(store)
    asyncio.run(store.write(add("a")))
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()} == {0o600}
    assert len(list(path.parent.iterdir())) == 4  # the file, its log, the index of the log, the turnstile


def test_sqlite_keeps_a_log_and_flushes_every_commit(store):
    with store.begin() as conn:
        values = [
            conn.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert values == ["wal", 2, 1]


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


def test_when_the_commit_fails_nobody_is_told_of_success(store):
    def fails(conn):
        raise sqlite3.OperationalError("disk I/O error")

    event.listen(store.engine, "commit", fails)
    outcomes = together(store, add("a"), add("b"), hold=False)
    event.remove(store.engine, "commit", fails)
    assert [type(outcome) for outcome in outcomes] == [Temporary, Temporary]
    assert names(store) == set()
    assert asyncio.run(store.write(add("c"))) == 1


FILE_CANNOT_GROW = """
import asyncio, os, resource, sys
from sqlalchemy import insert
from gateway.model import Temporary
from gateway.store import schema
from gateway.store.engine import Store

store = Store(sys.argv[1])

async def write(name):
    row = {"login": name, "password_hash": "x" * 300_000, "created_at": 0.0}
    await store.write(lambda conn: conn.execute(insert(schema.account), row).rowcount)
    print(name)

async def run():
    await write("before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.stat(sys.argv[2] + "-wal").st_size + 50_000, hard))
    outcomes = await asyncio.gather(write("a"), write("b"), return_exceptions=True)
    assert all(isinstance(outcome, Temporary) for outcome in outcomes), outcomes
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await write("after")
    await store.aclose()

asyncio.run(run())
"""


def test_when_the_file_cannot_be_written_nobody_is_told_of_success(store, url):
    words = [sys.executable, "-W", "error", "-c", FILE_CANNOT_GROW, url, str(file_of(store))]
    told = subprocess.run(words, check=True, capture_output=True, text=True, timeout=30).stdout.split()
    assert told == ["before", "after"]
    assert names(store) == {"before", "after"}


def test_a_caller_that_gives_up_does_not_stop_the_others(store):
    async def run():
        held = threading.Event()
        first = asyncio.ensure_future(store.write(lambda _: held.wait(5)))
        await asyncio.sleep(0.05)
        second = asyncio.ensure_future(store.write(add("early")))
        third = asyncio.ensure_future(store.write(add("stays")))
        await asyncio.sleep(0.05)
        first.cancel()  # it runs already: its transaction goes on without a listener
        second.cancel()  # it waits: it never happens
        held.set()
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


def test_a_locked_store_is_temporary_after_a_while_and_recovers(url):
    store = Store(url, patience=0.2)
    store.migrate()
    other = sqlite3.connect(file_of(store), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Temporary, match="locked"):
        asyncio.run(store.write(add("a")))
    with pytest.raises(Temporary, match="locked"), store.begin():
        pass
    other.execute("ROLLBACK")
    other.close()
    assert asyncio.run(store.write(add("b"))) == 1
    assert names(store) == {"b"}
    store.close()


def test_a_write_whose_turn_comes_too_late_is_temporary_and_never_happens(url):
    store = Store(url, patience=0.1)
    store.migrate()

    async def run():
        slow = asyncio.ensure_future(store.write(lambda _: threading.Event().wait(0.3)))
        await asyncio.sleep(0.05)
        with pytest.raises(Temporary, match="busy"):
            await store.write(add("late"))
        await slow

    asyncio.run(run())
    assert names(store) == set()
    store.close()


def limit_pages(store, extra):
    """Let the file of *store* grow by *extra* pages only; None: without limit."""

    def connect(connection, _record):
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + extra if extra is not None else 1 << 30}")

    store.engine.dispose()
    event.listen(store.engine, "connect", connect)
    return lambda: (event.remove(store.engine, "connect", connect), store.engine.dispose())


def test_a_full_disk_has_a_name_of_its_own_and_the_store_recovers(store):
    asyncio.run(store.write(add("before")))
    undo = limit_pages(store, 5)
    with pytest.raises(StorageFull):
        asyncio.run(store.write(add("big", 1 << 20)))
    with pytest.raises(StorageFull), store.begin() as conn:
        add("big", 1 << 20)(conn)
    assert asyncio.run(store.write(add("small"))) == 1
    undo()
    assert asyncio.run(store.write(add("big", 1 << 20))) == 1
    assert names(store) == {"before", "small", "big"}


def test_when_the_disk_fills_up_amid_a_shared_transaction_everyone_hears_the_truth(store):
    undo = limit_pages(store, 5)
    outcomes = together(store, add("small"), add("big", 1 << 20), add("small2"))
    told = {name for name, outcome in zip(("small", "big", "small2"), outcomes, strict=True) if outcome == 1}
    assert isinstance(outcomes[1], StorageFull)
    assert all(outcome == 1 or isinstance(outcome, Temporary) for outcome in outcomes)
    assert names(store) == told
    undo()


def test_a_file_that_is_no_database_is_temporary(tmp_path):
    path = tmp_path / "gatepost.db"
    path.write_bytes(b"this is not a database, by any means" * 1000)
    store = Store(f"sqlite:///{path}", patience=0.2)
    with pytest.raises(Temporary):
        asyncio.run(store.write(add("a")))
    with pytest.raises(Temporary):
        asyncio.run(store.read(lambda conn: conn.scalar(select(account.c.login))))
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


def test_two_processes_may_migrate_at_once(url):
    program = f"from gateway.store.engine import Store; s = Store({url!r}); s.migrate(); s.close()"
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
    with store.reading() as conn:
        assert conn.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"


def test_the_bell_wakes_who_waits(url, tmp_path):
    listener, ringer = Store(url, bell=tmp_path / "bell"), Store(url, bell=tmp_path / "bell")

    async def run():
        loop = asyncio.get_running_loop()
        ringer.ring()  # nobody listens yet, and that is no error
        await listener.wait(0.01)
        began = loop.time()
        waiting = asyncio.ensure_future(listener.wait(10))
        await asyncio.sleep(0.02)
        for _ in range(1000):
            ringer.ring()
        await waiting
        assert loop.time() - began < 5
        began = loop.time()
        await listener.wait(0.05)  # many rings are one
        assert loop.time() - began >= 0.045

    asyncio.run(run())
    assert stat.S_IMODE((tmp_path / "bell").stat().st_mode) == 0o600
    listener.close()
    ringer.close()


def test_a_bell_left_by_a_killed_process_is_taken_over(url, tmp_path):
    first, second = Store(url, bell=tmp_path / "bell"), Store(url, bell=tmp_path / "bell")
    asyncio.run(first.wait(0))
    second.ring()
    asyncio.run(second.wait(0))
    first.close()
    second.close()


@pytest.mark.parametrize("bell", [None, Path("/nowhere/" + "x" * 200)])
def test_without_a_bell_waiting_is_only_waiting(url, bell):
    store = Store(url, bell=bell)
    store.ring()
    asyncio.run(store.wait(0.01))
    store.close()

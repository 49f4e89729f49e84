"""What only SQLite has: one file, its log, its lock, and a disk that is full."""

import asyncio
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import event, select

from gateway.model import Temporary
from gateway.store.engine import StorageFull, Store
from gateway.store.turns import Turnstile
from tests.gateway.store.works import account, add, names, together


@pytest.fixture
def url(sqlite_url):
    return sqlite_url


def file_of(store):
    return Path(store.engine.url.database)


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


def test_when_the_file_cannot_be_written_nobody_is_told_of_success(store, url):
    words = [sys.executable, "-W", "error", "-c", FILE_CANNOT_GROW, url, str(file_of(store))]
    told = subprocess.run(words, check=True, capture_output=True, text=True, timeout=30).stdout.split()
    assert told == ["before", "after"]
    assert names(store) == {"before", "after"}


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


def test_what_comes_while_the_store_waits_for_its_turn_shares_the_commit(url, monkeypatch):
    store = Store(url, patience=5.0)
    store.migrate()
    waiting, commits = threading.Event(), []
    begin = Turnstile.begin
    monkeypatch.setattr(Turnstile, "begin", lambda *words: waiting.set() or begin(*words))
    event.listen(store.engine, "commit", commits.append)

    async def run():
        other = sqlite3.connect(file_of(store), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        first = asyncio.ensure_future(store.write(add("first")))
        assert await asyncio.to_thread(waiting.wait, 10)
        rest = [asyncio.ensure_future(store.write(add(f"user{n}"))) for n in range(5)]
        await asyncio.sleep(0)  # each has submitted its work
        other.execute("ROLLBACK")
        other.close()
        return await asyncio.gather(first, *rest)

    assert asyncio.run(run()) == [1] * 6
    assert len(commits) == 1
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

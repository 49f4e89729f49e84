"""The store on any database: reads and writes of many at once, its end, killed processes."""

import asyncio
import signal
import subprocess
import sys
import threading

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from gateway.model import Temporary
from gateway.store import schema
from gateway.store.engine import Store
from tests.gateway.store.works import account, add, names

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


def test_no_failure_quotes_what_was_to_be_written(store):
    async def twice():
        for _ in range(2):
            await store.write(lambda conn: conn.execute(insert(schema.account).values(SECRET)))

    with pytest.raises(IntegrityError) as failure:
        asyncio.run(twice())
    assert "argon2 of somebody" not in str(failure.value)


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

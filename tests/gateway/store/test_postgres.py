"""What only PostgreSQL has: servers that die, hang, change places or lie, and answers that get lost."""

import asyncio
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial

import psycopg
import pytest
from sqlalchemy import make_url, text

from gateway.model import State, Temporary
from gateway.store import mailbox, messages, quarantine, queue, tracking
from gateway.store.engine import Store
from gateway.store.failures import Unfit
from tests.gateway.store.works import add, names, together
from tests.peers import processes


@pytest.fixture
def url(postgres_url):
    return postgres_url


@pytest.fixture
def name(url):
    return make_url(url).database


@pytest.fixture
def end_others(database, name):
    """End all connections to the database, as an administrator does."""

    def end():
        query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        assert database.execute(query, name)

    return end


# ---- Connections that end -----------------------------------------------------------------------------------------


def test_a_connection_that_ended_while_nobody_used_it_is_made_again(store, end_others):
    async def run():
        await store.write(add("a"))
        assert await store.read(lambda conn: conn.scalar(text("SELECT 1"))) == 1
        end_others()
        assert await store.write(add("b")) == 1
        assert await store.read(lambda conn: conn.scalar(text("SELECT 1"))) == 1

    asyncio.run(run())
    assert names(store) == {"a", "b"}


def test_works_whose_connection_ends_amid_them_are_done_again_once(store, end_others):
    runs = []

    def interrupted(conn):
        runs.append("again")
        if len(runs) == 1:
            end_others()
        return add("b")(conn)

    assert together(store, add("a"), interrupted, add("c")) == [1, 1, 1]
    assert runs == ["again", "again"]
    assert names(store) == {"a", "b", "c"}


def lose_answers(store, *, commits, after):
    """Let the connection end at the next COMMITs, as many as *commits*: *after* it happened, or before."""
    lost = []
    committed = store.engine.dialect.do_commit

    def do_commit(connection):
        if len(lost) < commits:
            lost.append("lost")
            if after:
                committed(connection)
            connection.driver_connection.close()
            raise psycopg.OperationalError("the server closed the connection unexpectedly")
        committed(connection)

    store.engine.dialect.do_commit = do_commit
    return lost


@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("commits", [1, 2, 3])
def test_a_commit_whose_answer_was_lost_happens_once(store, after, commits):
    asyncio.run(store.write(add("before")))
    lost = lose_answers(store, commits=commits, after=after)
    assert together(store, add("a"), add("b")) == [1, 1]  # a second run would break the key
    assert len(lost) == commits
    assert names(store) == {"before", "a", "b"}


def test_a_connection_that_ends_while_works_run_one_by_one_is_made_again(store, end_others):
    """One work of the batch fails, so each has a SAVEPOINT; then the connection ends before the mark is left."""
    runs = []

    def breaks(conn):
        raise ZeroDivisionError

    def ends(conn):
        done = add("b")(conn)
        runs.append("run")
        if len(runs) in (1, 3):
            end_others()
        return done

    first, second, third = together(store, add("a"), ends, breaks)
    assert (first, second) == (1, 1)
    assert isinstance(third, ZeroDivisionError)
    assert len(runs) >= 4
    assert names(store) == {"a", "b"}


def test_who_ends_does_not_wait_for_a_server_that_is_away(tmp_path):
    store = Store(f"postgresql+psycopg://nobody@/nowhere?host={tmp_path}", patience=30.0)

    async def run():
        writing = asyncio.ensure_future(store.write(add("a")))
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await store.aclose()
        assert time.monotonic() - began < 5
        with pytest.raises(Temporary):
            await writing

    asyncio.run(run())


def test_a_fault_of_ours_is_not_tried_again(store):
    """What the driver itself refuses has no code either."""
    runs = []

    def breaks(conn):
        runs.append("run")
        conn.connection.cursor().execute("SELECT %s, %s", ["one"])

    assert isinstance(together(store, breaks)[0], psycopg.ProgrammingError)
    assert len(runs) == 1


def test_the_very_first_commit_may_lose_its_answer_too(store):
    lose_answers(store, commits=1, after=True)
    assert asyncio.run(store.write(add("a"))) == 1
    assert names(store) == {"a"}


def test_who_looks_for_a_mark_waits_for_the_transaction_that_wrote_it(database, name, store):
    """Our connection is gone, but its transaction still waits for a standby, and may happen or not."""
    asyncio.run(store.write(add("before")))
    ((writer, number),) = database.execute("SELECT writer, number FROM mark", database=name)
    lose_answers(store, commits=1, after=False)
    with database.connect(name) as still:
        still.execute("BEGIN")
        still.execute("UPDATE mark SET number = %s WHERE writer = %s", (number + 1, writer))
        threading.Timer(0.3, lambda: still.execute("COMMIT")).start()
        began = time.monotonic()
        assert asyncio.run(store.write(add("a"))) == 1
        assert time.monotonic() - began >= 0.25
    assert names(store) == {"before"}  # what stood was not ours here, but it is believed


def test_a_transaction_that_was_aborted_unseen_is_not_told_as_done(store):
    def swallows(conn):
        try:
            conn.execute(text("SELECT 1 / 0"))
        except Exception:
            return "fine"

    first, second, third = together(store, add("a"), swallows, add("b"))
    assert (first, third) == (1, 1)
    assert isinstance(second, Exception)
    assert names(store) == {"a", "b"}
    assert isinstance(together(store, swallows)[0], Exception)


def test_a_conflict_is_tried_again(store):
    runs = []

    def conflicts(conn):
        runs.append("run")
        if len(runs) < 3:
            conn.execute(text("DO $$ BEGIN RAISE serialization_failure; END $$"))
        return add("a")(conn)

    assert together(store, conflicts, add("b")) == [1, 1]
    assert len(runs) == 3
    assert names(store) == {"a", "b"}


# ---- Several nodes at once ----------------------------------------------------------------------------------------


def test_of_many_who_want_a_maildrop_at_once_one_gets_it(url, store):
    other = Store(url)

    async def run(account):
        wanted = [(one, f"session{n}") for n, one in enumerate([store, other] * 5)]
        works = [one.write(partial(mailbox.lock, account=account, owner=me, now=1.0, lease=60.0)) for one, me in wanted]
        assert sorted(await asyncio.gather(*works)) == [False] * 9 + [True]

    for number in range(10):
        asyncio.run(run(f"user{number}"))
    other.close()


def test_many_who_claim_at_once_get_each_delivery_once(url, store, put, now):
    ids = [put().id for _ in range(60)]
    other = Store(url)

    async def run():
        works = [
            one.write(partial(queue.claim, owner=f"o{n}", limit=4, now=now, lease=60.0))
            for n, one in enumerate([store, other] * 10)
        ]
        return [each.id for got in await asyncio.gather(*works) for each in got]

    got = asyncio.run(run())
    assert len(got) == len(set(got))
    assert set(got) <= set(ids)
    rest = asyncio.run(store.write(partial(queue.claim, owner="last", limit=100, now=now, lease=60.0)))
    assert sorted([*got, *(one.id for one in rest)]) == ids
    other.close()


def test_housekeeping_of_two_nodes_at_once_takes_nothing_that_is_needed(url, store, put, look, now):
    needed = put()
    gone = [put(State.HELD).message_id for _ in range(30)]
    other = Store(url)
    later = now + 100.0

    async def tidy(one):
        while await one.write(partial(quarantine.expire, now=later, keep=10.0)):
            pass
        while await one.write(partial(messages.sweep, now=later, keep_records=50.0)):
            pass

    async def run():
        await asyncio.gather(*(tidy(one) for one in (store, other) * 3))

    asyncio.run(run())
    assert b"".join(look(lambda conn: [*messages.read_chunks(conn, needed.message_id)])).endswith(b"body\r\n")
    assert [look(tracking.life, message_id) for message_id in gone] == [None] * 30
    other.close()


# ---- Waits --------------------------------------------------------------------------------------------------------


def quick(url, patience=0.5):
    return Store(url, patience=patience)


def test_a_lock_is_not_waited_for_for_ever(database, name, url):
    store = quick(url)
    with database.connect(name) as other:
        other.execute("BEGIN")
        other.execute("LOCK TABLE account")
        with pytest.raises(Temporary, match="locked"):
            asyncio.run(store.write(add("a")))
    assert asyncio.run(store.write(add("b"))) == 1
    assert names(store) == {"b"}
    store.close()


def test_a_server_that_hangs_is_given_up_and_comes_back(url, database):
    store = quick(url)
    asyncio.run(store.write(add("before")))

    async def while_it_hangs():
        began = time.monotonic()
        outcomes = await asyncio.gather(store.write(add("a")), store.read(lambda conn: 1 / 0), return_exceptions=True)
        assert all(isinstance(each, Temporary) for each in outcomes)
        assert time.monotonic() - began < 5

    database.pause()
    try:
        asyncio.run(while_it_hangs())
    finally:
        database.resume()
    assert asyncio.run(store.write(add("b"))) == 1
    assert {"before", "b"} <= names(store)
    store.close()


def test_two_whose_locks_cross_both_get_through(url, store):
    asyncio.run(store.write(add("x")))
    asyncio.run(store.write(add("y")))
    other = Store(url)
    both = threading.Barrier(2)

    def crossing(first, second):
        def work(conn):
            conn.execute(text("UPDATE account SET created_at = created_at + 1 WHERE login = :it"), {"it": first})
            if not both.broken:
                with suppress(threading.BrokenBarrierError):
                    both.wait(5)
                both.abort()
            conn.execute(text("UPDATE account SET created_at = created_at + 1 WHERE login = :it"), {"it": second})

        return work

    async def run():
        await asyncio.gather(store.write(crossing("x", "y")), other.write(crossing("y", "x")))

    asyncio.run(run())
    with store.reading() as conn:
        assert conn.scalar(text("SELECT sum(created_at) FROM account")) == 4
    other.close()


def test_while_there_is_no_server_everything_is_temporary(tmp_path):
    store = Store(f"postgresql+psycopg://nobody@/nowhere?host={tmp_path}", patience=0.2)

    async def run():
        for doing in (store.write(add("a")), store.read(lambda _: 1)):
            with pytest.raises(Temporary, match="out of reach"):
                await doing
        store.ring()
        await store.wait(0.05)

    asyncio.run(run())
    with pytest.raises(Temporary):
        store.migrate()
    store.close()


# ---- Servers that do not fit --------------------------------------------------------------------------------------


@contextmanager
def system_setting(database, name, value):
    """A setting of the whole server, until the end of the block."""
    database.execute(f"ALTER SYSTEM SET {name} = {value}")
    database.execute("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        database.execute(f"ALTER SYSTEM RESET {name}")
        database.execute("SELECT pg_reload_conf()")


def shows(database, name, value):
    processes.wait_until(lambda: database.execute(f"SHOW {name}") == [(value,)], 5, f"{name} to be {value}")


def test_a_database_that_can_be_used_is_tried_out_without_a_trace(database, name, store):
    asyncio.run(store.write(add("a")))
    before = database.execute("SELECT * FROM mark", database=name)
    store.try_out()
    assert database.execute("SELECT * FROM mark", database=name) == before


def test_an_empty_database_stays_empty_when_it_is_tried_out(database, empty_postgres_url):
    store = Store(empty_postgres_url)
    store.try_out()
    store.close()
    tables = "SELECT * FROM pg_tables WHERE schemaname = 'public'"
    assert database.execute(tables, database=make_url(empty_postgres_url).database) == []


@pytest.fixture
def unfit(database, name, empty_postgres_url, tmp_path):
    """URLs that are wrong in some way."""
    database.execute(f"CREATE ROLE stranger_{name} LOGIN")
    return {
        "no server": f"postgresql+psycopg://x@/x?host={tmp_path}/a,{tmp_path}/b",
        "no port": "postgresql+psycopg://x@127.0.0.1:1/x",
        "no host": "postgresql+psycopg://x@no.such.invalid/x",
        "no database": database.url("nowhere"),
        "no user": database.url(name, user="nobody"),
        "no password": database.url(name, user=guarded(database, name)),
        "no rights": database.url(name, user=f"stranger_{name}"),
        "no rights to create": database.url(make_url(empty_postgres_url).database, user=f"stranger_{name}"),
        "unknown option": database.url(name, speed="high"),
    }


@pytest.mark.parametrize(
    ("case", "says", "key"),
    [
        ("no server", "no server answers", "store.url"),
        ("no port", "no server answers", "store.url"),
        ("no host", "name of the server is not known", "store.url"),
        ("no database", "no such database", "store.url"),
        ("no user", "does not know the user", "store.url"),
        ("no password", "asks for a password", "store.password_file"),
        ("no rights", "does not let us", "store.url"),
        ("no rights to create", "does not let us make our tables", "store.url"),
        ("unknown option", "unknown option", "store.url"),
    ],
)
def test_a_database_that_cannot_be_used_is_told_with_key_and_cure(unfit, case, says, key):
    store = quick(unfit[case])
    with pytest.raises(Unfit, match=says) as failure:
        store.try_out()
    assert failure.value.key == key
    assert failure.value.cure
    store.close()


def test_it_says_which_server_it_is_and_what_a_failover_would_cost(database, url, store):
    """A second host that is only named."""
    two = Store(url.replace("host=", "host=/nowhere,"))

    def remarks(of):
        with of.reading() as conn:
            return {one.subject: (one.ok, one.text) for one in of.remarks(conn)}

    (server,) = remarks(store).values()
    assert server == (
        True,
        f"PostgreSQL {database.execute('SHOW server_version')[0][0].split()[0]} at {database.directory}",
    )
    assert not remarks(two)["standby"][0]
    with system_setting(database, "synchronous_standby_names", "nobody"):
        shows(database, "synchronous_standby_names", "nobody")
        assert remarks(two)["standby"][0]
    two.close()


def test_a_clock_that_is_off_is_told(store, monkeypatch):
    late = time.time() + 10
    monkeypatch.setattr(time, "time", lambda: late)
    with pytest.raises(Unfit, match="clock"):
        store.try_out()


@pytest.mark.parametrize("setting", ["synchronous_commit", "fsync"])
def test_a_server_that_confirms_what_it_has_not_kept_is_refused(database, url, setting):
    store = quick(url)
    with system_setting(database, setting, "off"):
        shows(database, setting, "off")
        for doing in (store.write(add("a")), store.read(lambda _: 1)):
            with pytest.raises(Unfit, match=setting):
                asyncio.run(doing)
        with pytest.raises(Unfit, match=setting):
            store.migrate()
    shows(database, setting, "on")
    assert asyncio.run(store.write(add("b"))) == 1
    assert names(store) == {"b"}
    store.close()


def test_a_primary_that_became_a_standby_is_left(database, name, store):
    asyncio.run(store.write(add("a")))
    database.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", name)
    back = threading.Timer(0.3, lambda: database.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only"))
    back.start()
    assert asyncio.run(store.write(add("b"))) == 1
    back.join()
    assert names(store) == {"a", "b"}


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_commit_whose_wait_for_the_standby_was_cancelled_is_not_believed(database, url, name, comes_back):
    """The server says COMMIT, and warns that the standby may not have it."""
    store = Store(url, patience=1.0)
    asyncio.run(store.write(add("a")))

    def cancel():
        waiting = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE datname = %s AND wait_event = 'SyncRep'"
        return database.execute(waiting, name)

    async def run():
        with system_setting(database, "synchronous_standby_names", "nobody"):
            shows(database, "synchronous_standby_names", "nobody")
            writing = asyncio.ensure_future(store.write(add("b")))
            await asyncio.to_thread(processes.wait_until, cancel, 5, "the commit to wait")
            if not comes_back:
                with pytest.raises(Temporary):
                    await writing
                return
        assert await writing == 1

    asyncio.run(run())
    assert asyncio.run(store.write(add("c"))) == 1
    assert names(store) == {"a", "b", "c"}
    store.close()


# ---- Passwords ----------------------------------------------------------------------------------------------------


def guarded(database, name):
    """A role that has to show a password."""
    database.execute(
        f"CREATE ROLE of_{name} LOGIN PASSWORD 'hush hush' IN ROLE guarded, pg_write_all_data, pg_read_all_data"
    )
    return f"of_{name}"


def test_the_password_is_read_from_a_file_at_each_new_connection(database, name, tmp_path):
    file = tmp_path / "password"
    file.write_text("hush hush\n")
    store = Store(database.url(name, user=guarded(database, name)), patience=0.3, password_file=file)
    assert asyncio.run(store.write(add("a"))) == 1
    database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", name)
    file.write_text("hash hash\n")
    with pytest.raises(Temporary) as refused:
        asyncio.run(store.write(add("b")))
    assert "hash" not in str(refused.value)
    assert "hash" not in repr(store.engine.url)
    file.unlink()
    with pytest.raises(Unfit, match="password cannot be read"):
        asyncio.run(store.read(lambda _: 1))
    file.write_text("hush hush")
    assert asyncio.run(store.write(add("c"))) == 1
    store.close()

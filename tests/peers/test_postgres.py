"""PostgreSQL from Debian does what the tests of the store take for granted."""

import time

import psycopg
import pytest

from tests.peers import postgres
from tests.peers.postgres import Postgres


def test_each_database_is_a_copy_of_its_template_and_goes_with_its_connections(database: Postgres) -> None:
    template = database.create()
    database.execute("CREATE TABLE one (n integer)", database=template)
    copy = database.create(template)
    with database.connect(copy) as connection:
        connection.execute("INSERT INTO one VALUES (1)")
        database.drop(copy)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert database.execute("SELECT * FROM one", database=template) == []
    database.drop(template)


def test_it_flushes_what_it_confirms(database: Postgres) -> None:
    settings = ("fsync", "synchronous_commit", "full_page_writes")
    assert {database.execute(f"SHOW {name}")[0][0] for name in settings} == {"on"}


def test_a_paused_server_says_nothing_until_it_is_resumed(database: Postgres) -> None:
    database.pause()
    try:
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(host=str(database.directory), dbname="postgres", user=postgres.USER, connect_timeout=2)
    finally:
        database.resume()
    assert database.execute("SELECT 1") == [(1,)]


def test_a_standby_has_what_was_confirmed_and_takes_the_place_of_the_killed_primary() -> None:
    with postgres.run() as first, postgres.standby(first) as second:
        first.wait_for_standby()
        first.execute("CREATE TABLE one AS SELECT 1 AS n")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            second.execute("INSERT INTO one VALUES (2)")
        first.kill()
        second.promote()
        second.wait_for_standby(wait=False)
        second.execute("INSERT INTO one VALUES (2)")
        assert second.execute("SELECT n FROM one ORDER BY n") == [(1,), (2,)]
        with postgres.standby(second, in_place_of=first) as third:
            second.wait_for_standby()
            second.execute("INSERT INTO one VALUES (3)")
            deadline = time.monotonic() + 5
            while third.execute("SELECT max(n) FROM one") != [(3,)]:  # flushed there, and applied a moment later
                assert time.monotonic() < deadline
                time.sleep(0.01)

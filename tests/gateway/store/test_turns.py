"""Processes that write take turns, and no courtesy keeps anybody from writing at all."""

import errno
import fcntl
import sqlite3
import subprocess
import sys
import time

import pytest

from gateway.store.turns import COURTESY, Turnstile


@pytest.fixture
def connect(tmp_path):
    opened = []

    def make():
        opened.append(sqlite3.connect(tmp_path / "x.db", isolation_level=None))
        return opened[-1]

    yield make
    for connection in opened:
        connection.close()


@pytest.fixture
def turnstile(tmp_path):
    return Turnstile(tmp_path / "x.db-turn")


def test_a_free_lock_is_taken_at_once(connect, turnstile):
    connection = connect()
    turnstile.begin(connection, 5.0)
    assert connection.in_transaction
    assert connection.execute("PRAGMA busy_timeout").fetchone() == (5000,)


def test_where_there_is_no_turnstile_the_lock_alone_decides(connect, tmp_path):
    connection = connect()
    Turnstile(tmp_path / "nowhere" / "x.db-turn").begin(connection, 5.0)
    assert connection.in_transaction


def test_where_the_machine_has_no_locks_the_lock_of_the_database_alone_decides(connect, turnstile, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", denied)
    connection = connect()
    turnstile.begin(connection, 5.0)
    assert connection.in_transaction


def denied(_file, _how):
    raise OSError(errno.ENOLCK, "no locks available")


def test_who_waits_too_long_is_told(connect, turnstile):
    connect().execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        turnstile.begin(connect(), 0.1)
    assert 0.1 <= time.monotonic() - began < 2


def test_other_errors_are_not_waited_for(turnstile, tmp_path):
    (tmp_path / "no.db").write_bytes(b"no database" * 1000)
    connection = sqlite3.connect(tmp_path / "no.db", isolation_level=None)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        turnstile.begin(connection, 60.0)
    connection.close()


def test_a_place_that_somebody_keeps_only_costs_time(connect, turnstile, tmp_path):
    with (tmp_path / "x.db-turn").open("w") as kept:
        fcntl.flock(kept, fcntl.LOCK_EX)
        began = time.monotonic()
        turnstile.begin(connect(), 5.0)
        assert COURTESY <= time.monotonic() - began < 2


BUSY = """
import sqlite3, sys, time
from pathlib import Path
from gateway.store.turns import Turnstile

connection = sqlite3.connect(sys.argv[1], isolation_level=None)
turnstile = Turnstile(Path(sys.argv[1] + "-turn"))
print("ready", flush=True)
end = time.monotonic() + 20
while time.monotonic() < end:
    turnstile.begin(connection, 5.0)
    time.sleep(0.01)
    connection.execute("COMMIT")
"""


def test_a_busy_process_does_not_starve_another(connect, turnstile, tmp_path):
    connection = connect()
    busy = subprocess.Popen([sys.executable, "-c", BUSY, str(tmp_path / "x.db")], stdout=subprocess.PIPE)
    try:
        busy.stdout.readline()
        began = time.monotonic()
        for _ in range(20):
            turnstile.begin(connection, 5.0)
            connection.execute("COMMIT")
        assert time.monotonic() - began < 2  # the other one holds the lock for 10 ms each time
    finally:
        busy.kill()
        busy.wait(10)
        busy.stdout.close()

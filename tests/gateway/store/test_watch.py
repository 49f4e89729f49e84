"""A connection in use for too long is cut; one that is idle, quick or spared is let be."""

import os
import threading
import time

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from gateway.store.watch import Watch
from tests.peers import processes

LIMIT = 0.2
_PID = text("SELECT pg_backend_pid()")
_SLEEP = text("SELECT pg_sleep(:seconds)")


@pytest.fixture
def engine(postgres_url):
    made = create_engine(postgres_url)
    Watch(LIMIT).over(made)
    yield made
    made.dispose()


def test_a_wait_that_would_not_end_is_ended(engine):
    began = time.monotonic()
    with engine.connect() as conn, pytest.raises(OperationalError):
        conn.execute(_SLEEP, {"seconds": 30})
    assert LIMIT <= time.monotonic() - began < 10
    with engine.connect() as conn:
        assert conn.scalar(text("SELECT 1")) == 1, "the next one has a connection that works"


def test_one_that_is_cut_leaves_the_others_alone(engine):
    with engine.connect() as other:
        Watch.spare(other)
        first = other.scalar(_PID)
        with engine.connect() as conn, pytest.raises(OperationalError):
            conn.execute(_SLEEP, {"seconds": 30})
        assert other.scalar(_PID) == first


def test_each_use_has_its_own_time(engine):
    seen = set()
    end = time.monotonic() + 3 * LIMIT
    while time.monotonic() < end:
        with engine.connect() as conn:
            seen.add(conn.scalar(_PID))
        time.sleep(LIMIT / 4)
    assert len(seen) == 1


def test_a_connection_that_nobody_uses_is_kept(engine):
    with engine.connect() as conn:
        first = conn.scalar(_PID)
    time.sleep(2 * LIMIT)
    with engine.connect() as conn:
        assert conn.scalar(_PID) == first


def test_who_was_spared_once_is_watched_the_next_time(engine):
    with engine.connect() as conn:
        Watch.spare(conn)
        conn.execute(_SLEEP, {"seconds": 2 * LIMIT})
    with engine.connect() as conn, pytest.raises(OperationalError):
        conn.execute(_SLEEP, {"seconds": 30})


def test_it_keeps_no_thread_and_no_descriptor(engine):
    threads, descriptors = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))
    with engine.connect() as conn:
        assert conn.scalar(text("SELECT 1")) == 1
        assert set(threading.enumerate()) - threads
        assert len(os.listdir("/proc/self/fd")) == descriptors + 2
    engine.dispose()
    assert len(os.listdir("/proc/self/fd")) == descriptors
    processes.wait_until(lambda: not set(threading.enumerate()) - threads, 10, "the watch to end")

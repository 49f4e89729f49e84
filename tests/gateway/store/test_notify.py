"""The doorbell between nodes: it rings wherever somebody waits, and comes back when the server does."""

import asyncio
import time

import pytest
from sqlalchemy import make_url

from gateway.store.engine import Store
from tests.peers import processes


@pytest.fixture
def url(postgres_url):
    return postgres_url


@pytest.fixture
def name(url):
    return make_url(url).database


@pytest.fixture
def other(url):
    made = Store(url)
    yield made
    made.close()


async def listening(store):
    """A wait that hears; the first one only begins to listen."""
    await store.wait(10)
    waiting = asyncio.ensure_future(store.wait(10))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    return waiting


async def took(waiting):
    began = time.monotonic()
    await waiting
    return time.monotonic() - began


def test_everybody_who_waits_is_woken_whichever_process_rings(store, other, url):
    third = Store(url)

    async def run():
        waits = [await listening(store), await listening(third)]
        other.ring()
        assert await took(asyncio.gather(*waits)) < 1

    asyncio.run(run())
    third.close()


def test_many_rings_of_a_moment_are_few(store, other, database, name):
    async def run():
        waiting = await listening(store)
        for _ in range(1000):
            other.ring()
        await waiting
        heard = 0
        while await took(store.wait(0.1)) < 0.09:
            heard += 1
        assert heard < 5

    asyncio.run(run())


def test_what_was_rung_just_before_the_end_is_heard(store, url):
    async def run():
        waiting = await listening(store)
        command = Store(url)
        command.ring()
        await command.aclose()
        command.ring()  # it cannot fail
        assert await took(waiting) < 1

    asyncio.run(run())


def test_a_wait_ends_in_time(store):
    async def run():
        await store.wait(10)
        assert 0.04 < await took(store.wait(0.05)) < 1

    asyncio.run(run())


def test_a_listener_whose_connection_ended_looks_again_and_hears_again(store, other, database, name):
    async def run():
        waiting = await listening(store)
        database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", name)
        assert await took(waiting) < 2  # it may have rung meanwhile
        waiting = await listening(store)
        other.ring()
        assert await took(waiting) < 1

    asyncio.run(run())


def test_a_wait_that_is_given_up_leaves_the_next_one_whole(store, other):
    async def run():
        waiting = await listening(store)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        again = asyncio.ensure_future(store.wait(10))
        await asyncio.sleep(0.05)
        other.ring()
        assert await took(again) < 1

    asyncio.run(run())


def test_no_connection_is_left_at_the_end(url, database, name):
    def connections():
        return database.execute("SELECT pid FROM pg_stat_activity WHERE datname = %s", name)

    ending = Store(url)
    asyncio.run(listening_and_ringing(ending))
    assert connections()
    ending.close()
    processes.wait_until(lambda: not connections(), 5, "the connections to end")


async def listening_and_ringing(store):
    waiting = await listening(store)
    store.ring()
    await waiting

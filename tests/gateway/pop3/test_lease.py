"""A lease is one session's, is given back once, and is lost only when somebody else may have it."""

import asyncio
import subprocess
import sys
import time

import pytest

from gateway.model import Temporary
from gateway.pop3.lease import Lease
from gateway.store import mailbox


class Losses:
    """Counts how often a lease was lost."""

    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1


@pytest.fixture
def losses():
    return Losses()


def test_one_session_has_the_maildrop_at_a_time(store, losses):
    async def scenario():
        one, other = (Lease(store, "alice", 60, losses) for _ in range(2))
        assert await one.take()
        assert not await other.take()
        await other.give_back()
        assert not await other.take()
        await one.give_back()
        assert await Lease(store, "alice", 60, losses).take()

    asyncio.run(scenario())
    assert losses.count == 0


def test_what_was_deleted_is_given_back_at_once(store, losses, filled, left):
    async def scenario():
        one = Lease(store, "alice", 60, losses)
        assert await one.take()
        assert await one.delete([1, 3])
        assert await Lease(store, "alice", 60, losses).take()
        await one.give_back()

    asyncio.run(scenario())
    assert left() == ["second.2"]


def test_another_mailbox_is_never_deleted_from(store, losses, filled, left):
    async def scenario():
        one = Lease(store, "alice", 60, losses)
        assert await one.take()
        await one.delete([4])

    asyncio.run(scenario())
    assert left("bob") == ["his.4"]


def test_a_lost_lease_is_told_once_and_deletes_nothing(store, losses, filled, left):
    async def scenario():
        one = Lease(store, "alice", 0.06, losses)
        assert await one.take()
        with store.begin() as conn:
            mailbox.lock(conn, "alice", "thief", time.time() + 100, 60)
        await asyncio.sleep(0.1)
        assert not await one.delete([1])

    asyncio.run(scenario())
    assert losses.count == 1
    assert len(left()) == 3


class Unreachable:
    """The store, until it is out of reach."""

    def __init__(self, store):
        self._store = store
        self.gone = False

    async def write(self, work):
        if self.gone:
            raise Temporary("out of reach")
        return await self._store.write(work)


def test_a_store_out_of_reach_for_a_moment_costs_no_lease(store, losses):
    async def scenario():
        flaky = Unreachable(store)
        one = Lease(flaky, "alice", 0.3, losses)
        assert await one.take()
        flaky.gone = True
        await asyncio.sleep(0.15)
        flaky.gone = False
        await asyncio.sleep(0.4)
        await one.give_back()

    asyncio.run(scenario())
    assert losses.count == 0


def test_a_store_out_of_reach_for_long_costs_the_lease(store, losses):
    async def scenario():
        flaky = Unreachable(store)
        one = Lease(flaky, "alice", 0.06, losses)
        assert await one.take()
        flaky.gone = True
        await asyncio.sleep(0.2)
        await one.give_back()

    asyncio.run(scenario())
    assert losses.count == 1


def test_what_the_store_could_not_take_back_is_taken_over_by_the_next_session_of_the_process(
    store, losses, filled, left
):
    async def scenario():
        flaky = Unreachable(store)
        one, other = Lease(flaky, "alice", 60, losses), Lease(store, "alice", 60, losses)
        assert await one.take()
        flaky.gone = True
        with pytest.raises(Temporary):
            await one.delete([1])
        await one.give_back()
        assert await other.take()
        await other.give_back()

    asyncio.run(scenario())
    assert len(left()) == 3


def test_a_login_that_the_store_could_not_grant_keeps_nobody_out(store, losses):
    async def scenario():
        flaky = Unreachable(store)
        one, other = Lease(flaky, "alice", 60, losses), Lease(store, "alice", 60, losses)
        flaky.gone = True
        with pytest.raises(Temporary):
            await one.take()
        assert await other.take()
        await other.give_back()

    asyncio.run(scenario())


@pytest.mark.parametrize("days", [1, -1])
def test_a_clock_that_jumps_takes_no_maildrop_from_its_session(store, losses, monkeypatch, days):
    async def scenario():
        one, other = (Lease(store, "alice", 60, losses) for _ in range(2))
        assert await one.take()
        now = time.time() + days * 86400
        monkeypatch.setattr(time, "time", lambda: now)
        assert not await other.take()
        await one.give_back()
        assert await other.take()
        await other.give_back()

    asyncio.run(scenario())


OTHER = """
import sys, time
from gateway.store import mailbox, owners
from gateway.store.engine import Store
with Store(sys.argv[1]).begin() as conn:
    assert mailbox.lock(conn, "alice", owners.myself("pop3") + "/1", time.time(), 60)
print("taken", flush=True)
sys.stdin.read()
"""


def test_the_maildrop_of_a_killed_process_is_taken_over_at_once(store, losses):
    async def takes():
        lease = Lease(store, "alice", 60, losses)
        ours = await lease.take()
        await lease.give_back()
        return ours

    argv = [sys.executable, "-c", OTHER, str(store.engine.url)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"taken\n"
        assert not asyncio.run(takes())
        other.kill()
        other.wait(10)
        assert asyncio.run(takes())

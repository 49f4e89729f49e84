"""Who is held back after wrong passwords, for how long, and who is not."""

import asyncio
import time
from ipaddress import ip_address

import pytest

from gateway import events
from gateway.backoff import Backoff, HeldBack, _Memory
from gateway.model import Temporary
from gateway.stages import Logins
from gateway.state import LocalState

HERE, THERE = ip_address("192.0.2.1"), ip_address("192.0.2.2")
FEW = Logins(free_per_user=2, free_per_peer=4, pause=10.0, longest_pause=25.0, memory=600.0, delay=0.0)


class Clock:
    """Stands still until it is told to go on, but for the least step that there is."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        self.now += 0.001
        return self.now


class Gone:
    """A shared state that is out of reach."""

    async def add_all(self, amounts, ttl):
        raise Temporary("gone")

    async def claim(self, key, ttl):
        raise Temporary("gone")

    async def put(self, key, value, ttl):
        raise Temporary("gone")

    async def get(self, key):
        raise Temporary("gone")


class Guesses:
    """One who guesses: `looked_at` says how many passwords were looked at, `one` what came of one."""

    def __init__(self, backoff):
        self.backoff, self.looked_at = backoff, 0

    async def one(self, peer, user="alice", account="", error=None):
        async def check():
            self.looked_at += 1
            await asyncio.sleep(0)
            if error:
                raise error
            return account

        try:
            return await self.backoff.checked(peer, user, check)
        except HeldBack:
            return None

    def some(self, *peers_and_users):
        """What comes of these one after the other: "" was wrong, None was not looked at."""

        async def play():
            return [await self.one(*each) for each in peers_and_users]

        return asyncio.run(play())


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["shared", "gone"])
def guesses(request, tmp_path, clock, monkeypatch):
    """Guesses against a shared state, and where that is out of reach."""
    monkeypatch.setattr(events, "failure", lambda *_, **__: None)
    state = Gone() if request.param == "gone" else LocalState(tmp_path / "state.db", clock=clock)
    return Guesses(Backoff(state, lambda: FEW, clock))


def test_after_some_wrong_passwords_none_is_looked_at_for_a_while(guesses, clock):
    assert guesses.some(*[(HERE, "alice")] * 4) == ["", "", None, None]
    clock.now += 9.9
    assert guesses.some((HERE, "alice")) == [None]
    clock.now += 0.2
    assert guesses.some((HERE, "alice", "alice")) == ["alice"]


def test_each_further_wrong_password_doubles_the_pause_up_to_the_longest(guesses, clock):
    guesses.some(*[(HERE, "alice")] * 2)
    pauses = []
    for _ in range(4):
        began = clock.now
        while guesses.some((HERE, "alice")) == [None]:
            clock.now += 1.0
        pauses.append(round(clock.now - began))
    assert pauses == [10, 20, 25, 25]


def test_many_right_passwords_at_once_earn_no_guesses(guesses):
    async def play():
        await asyncio.gather(*(guesses.one(HERE, "bob", "bob") for _ in range(4)))
        await asyncio.gather(*(guesses.one(HERE, "bob", "bob") for _ in range(4)))

    asyncio.run(play())
    assert guesses.some(*[(HERE, "bob")] * 4) == ["", "", None, None]


def test_nobody_is_held_back_for_what_others_guess_elsewhere(guesses):
    guesses.some(*[(HERE, "alice")] * 3)
    assert guesses.some((HERE, "ALICE"), (THERE, "alice", "alice"), (HERE, "bob", "bob")) == [None, "alice", "bob"]


def test_a_peer_is_held_back_whatever_names_it_tries(guesses):
    assert guesses.some(*[(HERE, f"user{n}") for n in range(6)]) == [""] * 4 + [None] * 2
    assert guesses.some((THERE, "user9")) == [""]


def test_a_customer_of_ipv6_is_one_peer_whatever_address_it_takes(guesses):
    many = [(ip_address(f"2001:db8::{n}"), "alice") for n in range(1, 5)]
    assert guesses.some(*many, (ip_address("2001:db8:0:1::1"), "alice")) == ["", "", None, None, ""]


def test_many_at_once_are_no_way_around(guesses):
    async def play():
        return await asyncio.gather(*(guesses.one(HERE) for _ in range(20)))

    assert sorted(map(str, asyncio.run(play()))) == [""] * 2 + ["None"] * 18
    assert guesses.looked_at == 2


def test_a_right_password_makes_up_for_the_wrong_ones(guesses):
    for _ in range(3):
        assert guesses.some((HERE, "alice"), (HERE, "alice", "alice")) == ["", "alice"]
    for _ in range(10):
        assert guesses.some((THERE, "bob", "bob")) == ["bob"]


def test_a_right_password_does_not_make_up_for_guesses_at_others(guesses):
    own = (HERE, "mallory", "mallory")
    assert guesses.some((HERE, "a"), own, (HERE, "b"), own, (HERE, "c"))[::2] == ["", "", ""]
    assert guesses.some((HERE, "d"), (HERE, "e")) == ["", None]


def test_what_nobody_could_check_is_not_held_against_anybody(guesses):
    async def play():
        for _ in range(10):
            with pytest.raises(Temporary, match="busy"):
                await guesses.one(HERE, error=Temporary("busy"))
        return await guesses.one(HERE, account="alice")

    assert asyncio.run(play()) == "alice"


def test_time_heals(guesses, clock):
    guesses.some(*[(HERE, "alice")] * 3)
    clock.now += 601
    assert guesses.some(*[(HERE, "alice")] * 3) == ["", "", None]


def test_attempts_that_were_not_looked_at_prolong_nothing(guesses, clock):
    guesses.some(*[(HERE, "alice")] * 2)
    for _ in range(9):
        assert guesses.some((HERE, "alice")) == [None]
        clock.now += 1.0
    clock.now += 1.1
    assert guesses.some((HERE, "alice", "alice")) == ["alice"]


def test_processes_count_together(tmp_path, clock):
    one, other = (Guesses(Backoff(LocalState(tmp_path / "state.db", clock=clock), lambda: FEW)) for _ in range(2))
    assert one.some((HERE, "alice")) == [""]
    assert other.some((HERE, "alice"), (HERE, "alice")) == ["", None]
    assert one.some((HERE, "alice")) == [None]


def test_a_wrong_password_takes_its_time_whatever_is_wrong(tmp_path):
    guesses = Guesses(Backoff(LocalState(tmp_path / "state.db"), lambda: Logins(delay=0.1)))
    for user in ("alice", "nobody"):
        began = time.monotonic()
        assert guesses.some((HERE, user)) == [""]
        assert time.monotonic() - began >= 0.1
    slow = Guesses(Backoff(LocalState(tmp_path / "other.db"), lambda: Logins(delay=5.0)))
    began = time.monotonic()
    assert slow.some((HERE, "alice", "alice")) == ["alice"]
    assert time.monotonic() - began < 5.0


def test_who_has_logged_in_before_goes_past_a_crowd_of_strangers(tmp_path):
    settings = Logins(threads=2, turn=0.1, delay=0.0)
    backoff = Backoff(LocalState(tmp_path / "state.db"), lambda: settings)

    async def play():
        held, begun = asyncio.Event(), []

        async def slow():
            begun.append(1)
            await held.wait()
            return ""

        async def right():
            return "alice"

        assert await backoff.checked(HERE, "alice", right) == "alice"
        crowd = [ip_address(f"198.51.100.{n}") for n in range(10)]
        asked = [asyncio.create_task(backoff.checked(one, "alice", slow)) for one in crowd]
        await asyncio.sleep(0.02)
        assert len(begun) == 2
        assert await asyncio.wait_for(backoff.checked(HERE, "alice", right), 0.05) == "alice"
        with pytest.raises(Temporary, match="too many passwords wait"):
            await backoff.checked(THERE, "alice", right)  # who never has waits as all others do
        held.set()
        done = await asyncio.gather(*asked, return_exceptions=True)
        assert done[:2] == ["", ""]
        assert all(isinstance(one, Temporary) for one in done[2:])
        assert await backoff.checked(THERE, "alice", right) == "alice"

    asyncio.run(play())


def test_what_one_process_remembers_is_bounded(clock, monkeypatch):
    monkeypatch.setattr("gateway.backoff.REMEMBERED", 5)
    memory = _Memory(clock)
    for number in range(50):
        memory.add_all({f"key{number}": 1}, 60.0)
    assert len(memory._kept) == 5

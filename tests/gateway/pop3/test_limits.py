"""Who may come in, and who has guessed too often."""

from ipaddress import ip_address

import pytest

from gateway.pop3.limits import Gate, Limits

HERE, THERE = ip_address("192.0.2.1"), ip_address("192.0.2.2")


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def gate(clock):
    few = Limits(sessions=3, sessions_per_address=2, failures_per_user=2, failures_per_address=4, remembered=6)
    return Gate(few, clock)


def test_one_address_gets_so_many_sessions_and_no_more(gate):
    assert [gate.enter(HERE) for _ in range(3)] == [True, True, False]
    assert gate.enter(THERE)


def test_all_together_get_so_many_sessions_and_no_more(gate):
    assert gate.enter(HERE)
    assert gate.enter(HERE)
    assert gate.enter(THERE)
    assert not gate.enter(THERE)


def test_who_leaves_makes_room(gate):
    for _ in range(10):
        assert gate.enter(HERE)
        assert gate.enter(HERE)
        gate.leave(HERE)
        gate.leave(HERE)


def test_a_network_of_ipv6_counts_as_one(gate):
    assert [gate.enter(ip_address(f"2001:db8::{n}")) for n in (1, 2, 3)] == [True, True, False]
    assert gate.enter(ip_address("2001:db8:0:1::1"))


def test_an_ipv4_address_is_the_same_in_ipv6(gate):
    assert [gate.enter(ip_address(x)) for x in ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1")] == [True, True, False]


def test_a_user_is_held_back_only_where_the_guesses_came_from(gate):
    assert [gate.attempt(HERE, "alice") for _ in range(3)] == [True, True, False]
    assert not gate.attempt(HERE, "ALICE")
    assert gate.attempt(THERE, "alice")
    assert gate.attempt(HERE, "bob")


def test_an_address_is_held_back_whatever_names_it_tries(gate):
    assert [gate.attempt(HERE, f"user{n}") for n in range(5)] == [True, True, True, True, False]


def test_time_heals_and_attempts_that_were_not_looked_at_do_not_prolong_it(gate, clock):
    for _ in range(2):
        gate.attempt(HERE, "alice")
    clock.now += 599
    assert not gate.attempt(HERE, "alice")
    clock.now += 1
    assert gate.attempt(HERE, "alice")


def test_a_right_password_makes_up_for_the_wrong_ones(gate):
    gate.attempt(HERE, "alice")
    gate.attempt(HERE, "alice")
    gate.succeeded(HERE, "alice")
    assert gate.attempt(HERE, "alice")


def test_right_passwords_are_never_held_against_anybody(gate):
    for _ in range(100):
        assert gate.attempt(HERE, "alice")
        gate.succeeded(HERE, "alice")


def test_what_nobody_could_check_is_not_held_against_anybody(gate):
    for _ in range(100):
        assert gate.attempt(HERE, "alice")
        gate.withdraw(HERE, "alice")


def test_it_remembers_only_so_much(gate):
    for n in range(100):
        gate.attempt(ip_address(f"198.51.100.{n}"), "x" * n)
    assert len(gate._failures) == 6

"""Numbers stay, marks come and go."""

from types import SimpleNamespace

import pytest

from gateway.pop3.maildrop import Maildrop


@pytest.fixture
def maildrop():
    return Maildrop([SimpleNamespace(uid=f"u{n}", size=n * 100) for n in (1, 2, 3)])


def test_counts_all_at_first(maildrop):
    assert (maildrop.count, maildrop.octets, maildrop.marked) == (3, 600, ())


def test_a_marked_message_is_out_of_sight_and_the_others_keep_their_numbers(maildrop):
    assert maildrop.mark(2)
    assert (maildrop.count, maildrop.octets, maildrop.marked) == (2, 400, (2,))
    assert [number for number, _ in maildrop.entries()] == [1, 3]
    assert maildrop.entry(2) is None
    assert maildrop.entry(3).uid == "u3"


def test_a_message_is_marked_once(maildrop):
    assert maildrop.mark(2)
    assert not maildrop.mark(2)
    assert maildrop.octets == 400


@pytest.mark.parametrize("number", [-1, 0, 4, 2**63])
def test_there_is_no_message_beyond_the_last_or_before_the_first(maildrop, number):
    assert maildrop.entry(number) is None
    assert not maildrop.mark(number)


def test_reset_takes_all_marks_back(maildrop):
    for number in (1, 2, 3):
        maildrop.mark(number)
    assert (maildrop.count, maildrop.octets) == (0, 0)
    maildrop.reset()
    assert (maildrop.count, maildrop.octets, maildrop.marked) == (3, 600, ())

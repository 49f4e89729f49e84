"""Who is too slow, and who only stalls."""

import math

from gateway.smtp.pace import Pace


def test_too_few_octets_have_until_the_end_of_their_window():
    pace = Pace(100, 60.0, 1000.0)
    assert pace.deadline == 1060.0
    for second in range(0, 60, 10):
        pace.count(1, 1000.0 + second)
        assert pace.deadline == 1060.0


def test_a_window_that_has_enough_asks_for_no_more():
    pace = Pace(100, 60.0, 1000.0)
    pace.count(5999, 1001.0)
    assert pace.deadline == 1060.0
    pace.count(1, 1002.0)
    assert pace.deadline == math.inf


def test_the_next_window_begins_when_something_comes_after_the_last():
    pace = Pace(100, 60.0, 1000.0)
    pace.count(6000, 1001.0)
    pace.count(1, 1100.0)  # a stall of a hundred seconds is no fault
    assert pace.deadline == 1160.0
    pace.count(5999, 1159.0)
    assert pace.deadline == math.inf


def test_without_a_rate_nobody_is_too_slow():
    assert Pace(0, 60.0, 0.0).deadline == math.inf

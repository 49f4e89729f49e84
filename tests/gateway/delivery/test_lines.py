"""Whose turn it is: lines take turns, and no lane has more under way than it may."""

from __future__ import annotations

from gateway.delivery.attempt import Work
from gateway.delivery.lines import Lines
from gateway.model import Delivery, Recipient, State


def work(lane: str, number: int = 0) -> Work:
    one = Delivery(number, "m", "a@us.example", Recipient(f"b@{lane}"), State.QUEUED, lane)
    return Work(lane, (one,))


def drawn(lines: Lines, number: int, per_lane: int = 100) -> list[Work]:
    return [one for _ in range(number) if (one := lines.next(per_lane)) is not None]


def test_a_line_of_many_and_a_line_of_one_take_turns() -> None:
    lines = Lines()
    for n in range(100):
        lines.add(work("much.example", n))
    lines.add(work("little.example"))
    assert [one.lane for one in drawn(lines, 4)] == ["much.example", "little.example", "much.example", "much.example"]


def test_each_line_goes_in_order() -> None:
    lines = Lines()
    for n in range(3):
        lines.add(work("x.example", n))
    assert [one.deliveries[0].id for one in drawn(lines, 9)] == [0, 1, 2]


def test_no_lane_has_more_under_way_than_it_may() -> None:
    lines = Lines()
    for n in range(5):
        lines.add(work("x.example", n))
    under_way = drawn(lines, 9, per_lane=2)
    assert len(under_way) == 2
    assert lines.next(2) is None
    lines.done(under_way[0])
    assert len(drawn(lines, 9, per_lane=2)) == 1
    assert len(drawn(lines, 9, per_lane=9)) == 0


def test_a_limit_that_was_raised_counts_when_the_next_work_is_done_or_added() -> None:
    lines = Lines()
    for n in range(4):
        lines.add(work("x.example", n))
    assert len(drawn(lines, 9, per_lane=1)) == 1
    lines.add(work("x.example", 4))
    assert len(drawn(lines, 9, per_lane=9)) == 4


def test_a_line_ends_with_its_last_work() -> None:
    lines = Lines()
    lines.add(work("x.example"))
    (only,) = drawn(lines, 9)
    lines.done(only)
    lines.add(work("x.example"))
    assert len(drawn(lines, 9)) == 1


def test_a_lane_is_full_when_enough_waits() -> None:
    lines = Lines()
    for n in range(3):
        lines.add(work("x.example", n))
    lines.add(work("y.example"))
    assert lines.full(3) == {"x.example": {"x.example"}}
    drawn(lines, 1)
    assert lines.full(3) == {}


def test_what_waits_can_be_taken_away() -> None:
    lines = Lines()
    for n in range(3):
        lines.add(work("x.example", n))
    (under_way,) = drawn(lines, 1)
    assert [one.id for one in lines.clear()] == [1, 2]
    assert lines.next(9) is None
    lines.done(under_way)
    lines.add(work("x.example"))
    assert len(drawn(lines, 9)) == 1

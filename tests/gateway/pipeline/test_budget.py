"""What the archives of a mail may cost in all: each limit to the last one that is within it."""

import pytest

from gateway.pipeline.budget import LARGE, Budget
from gateway.pipeline.tray import Unscannable
from gateway.stages import Content

LIMITS = Content.Settings(archive_members=2, archive_size=100, archive_depth=3, archive_ratio=10, cpu=1000)


def test_files_are_counted_over_all_archives() -> None:
    budget = Budget(LIMITS)
    budget.member("1")
    budget.member("2/a")
    assert budget.members_left == 0
    with pytest.raises(Unscannable, match="more than 2 files"):
        budget.member("2")


def test_octets_are_counted_over_all_archives() -> None:
    budget = Budget(LIMITS)
    assert budget.counted(b"x" * 60) == b"x" * 60
    assert budget.counted(b"x" * budget.octets_left) == b"x" * 40
    with pytest.raises(Unscannable, match="more than 100 octets"):
        budget.counted(b"x")


def test_an_archive_lies_so_deep_and_no_deeper() -> None:
    budget = Budget(LIMITS)
    budget.archive(1, 3)
    with pytest.raises(Unscannable, match="more than 3 deep"):
        budget.archive(1, 4)


def test_what_is_dense_may_be_so_large_as_what_the_mail_has_brought_allows() -> None:
    budget = Budget(LIMITS)
    budget.archive(LARGE // 10 + 1, 1)
    budget.archive(LARGE, 2)  # which came out of the first one
    budget.promise(LARGE + 4)
    with pytest.raises(Unscannable, match="10 times"):
        budget.promise(20)


def test_what_is_small_may_be_as_dense_as_it_likes() -> None:
    budget = Budget(LIMITS)
    budget.promise(LARGE)
    with pytest.raises(Unscannable, match="10 times"):
        budget.promise(1)


def test_when_no_time_is_left_the_part_is_named_and_no_name_in_it() -> None:
    budget = Budget(LIMITS)
    assert not budget.is_late()
    budget.deadline = 0.0
    assert budget.is_late()
    with pytest.raises(Unscannable, match="in part 2 takes"):
        budget.member("2/a stranger's name")

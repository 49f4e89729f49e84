"""Keys, values and counts of the shared state have a bound wherever they are kept."""

import pytest

from gateway.state.limits import MAX_COUNT, MAX_KEY, MAX_VALUE, bounded, checked, counted


@pytest.mark.parametrize("key", ["", "a:b", "x" * MAX_KEY, "line\r\nend\0"])
def test_a_short_key_stays_what_it_is(key: str) -> None:
    assert bounded(key) == key


def test_all_other_keys_are_short_and_apart() -> None:
    keys = ["x" * (MAX_KEY + 1), "x" * (MAX_KEY + 2), "ä", "a\N{COMBINING DIAERESIS}", "\udcff", "\N{SNOWMAN}" * 10_000]
    made = [bounded(key) for key in keys]
    assert len(set(made)) == len(keys)
    assert all(len(one) <= MAX_KEY and one.isascii() for one in made)
    assert made == [bounded(key) for key in keys]


def test_a_value_that_is_too_long_is_refused_and_never_cut() -> None:
    assert checked("x" * MAX_VALUE) == "x" * MAX_VALUE
    with pytest.raises(ValueError, match=str(MAX_VALUE)):
        checked("x" * (MAX_VALUE + 1))


@pytest.mark.parametrize(
    ("amount", "expected"),
    [(0, 0), (-7, -7), (MAX_COUNT, MAX_COUNT), (MAX_COUNT + 1, MAX_COUNT), (-(10**30), -MAX_COUNT)],
)
def test_no_amount_is_larger_than_numbers_of_lua_are_exact(amount: int, expected: int) -> None:
    assert counted(amount) == expected
    assert float(counted(amount)) == counted(amount)

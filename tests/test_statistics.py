"""Samples that differ by more than chance: a value of a textbook, a shift that shows, and chance that does not."""

import random

import pytest

from tests.statistics import p_value


def test_the_value_of_a_textbook():
    one, other = [1.1, 2.2, 3.3, 4.4, 5.5], [3.0, 6.0, 7.0, 8.0, 9.0]
    assert p_value(one, other) == p_value(other, one) == pytest.approx(0.0472, abs=1e-4)  # U = 3


def test_a_small_shift_shows_in_large_samples_and_chance_does_not():
    chance = random.Random(1)
    base = [chance.gauss(100, 5) for _ in range(400)]
    assert p_value(base, [chance.gauss(103, 5) for _ in range(400)]) < 0.01
    assert p_value(base, [chance.gauss(100, 5) for _ in range(400)]) > 0.01
    assert p_value([1.0] * 30, [1.0] * 30) == 1.0

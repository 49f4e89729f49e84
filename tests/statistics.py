"""Whether two samples differ by more than chance."""

import math
from collections import Counter
from collections.abc import Sequence


def p_value(one: Sequence[float], other: Sequence[float]) -> float:
    """Mann-Whitney U, two-sided, by the normal approximation with ties: the chance of such a difference where there is none.

    Good from some twenty values each.
    """
    both = sorted([*((value, 0) for value in one), *((value, 1) for value in other)])
    ties = Counter(value for value, _ in both)
    ranks, place = {}, 0
    for value, count in sorted(ties.items()):
        ranks[value] = place + (count + 1) / 2
        place += count
    m, n = len(one), len(other)
    u = sum(ranks[value] for value in one) - m * (m + 1) / 2
    uneven = sum(count**3 - count for count in ties.values()) / ((m + n) * (m + n - 1))
    spread = math.sqrt(m * n / 12 * (m + n + 1 - uneven))
    return math.erfc(abs(u - m * n / 2) / spread / math.sqrt(2)) if spread else 1.0

"""Answers are kept for their time, within their bound, those that were used last."""

from gateway.dns.cache import Cache


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def question(name: str) -> tuple[str, str]:
    return name, "A"


def test_the_cache_forgets_what_is_too_old() -> None:
    clock = Clock()
    cache = Cache(10_000, clock)
    cache.put(question("a.example"), ("192.0.2.1",), 60.0)
    clock.now = 59.9
    assert cache.get(question("a.example")) == ("192.0.2.1",)
    clock.now = 60.0
    assert cache.get(question("a.example")) is None
    assert cache.size == 0


def test_the_cache_drops_what_was_used_longest_ago_when_it_is_full() -> None:
    cache = Cache(10_000)
    for number in range(100):
        cache.put(question(f"{number}.example"), (b"x" * 1000,), 60.0)
        assert cache.get(question("0.example")) is not None
        assert cache.size <= 10_000
    assert cache.get(question("1.example")) is None


def test_an_answer_larger_than_the_cache_is_not_kept() -> None:
    cache = Cache(1000)
    cache.put(question("a.example"), (b"x" * 4000,), 60.0)
    assert cache.get(question("a.example")) is None
    assert cache.size == 0


def test_what_holds_for_no_time_is_not_kept_and_takes_nothing_away() -> None:
    cache = Cache(10_000)
    cache.put(question("a.example"), ("192.0.2.1",), 60.0)
    for ttl in (0.0, -1.0):
        cache.put(question("a.example"), ("192.0.2.2",), ttl)
        cache.put(question("b.example"), ("192.0.2.2",), ttl)
    assert cache.get(question("a.example")) == ("192.0.2.1",)
    assert cache.get(question("b.example")) is None


def test_a_new_answer_takes_the_place_of_the_old_one_and_is_counted_once() -> None:
    cache = Cache(10_000)
    cache.put(question("a.example"), ("192.0.2.1",), 60.0)
    size = cache.size
    for last in range(9):
        cache.put(question("a.example"), (f"192.0.2.{last}",), 60.0)
    assert cache.get(question("a.example")) == ("192.0.2.8",)
    assert cache.size == size


def test_that_there_is_none_is_an_answer_and_types_are_apart() -> None:
    cache = Cache(10_000)
    cache.put(("a.example", "A"), (), 60.0)
    assert cache.get(("a.example", "A")) == ()
    assert cache.get(("a.example", "MX")) is None


def test_answers_of_no_records_have_their_price_too() -> None:
    cache = Cache(10_000)
    for number in range(1000):
        cache.put(question(f"{number}.example"), (), 60.0)
    assert cache.size <= 10_000
    assert sum(cache.get(question(f"{number}.example")) is not None for number in range(1000)) < 50

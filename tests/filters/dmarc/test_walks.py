"""The questions that one mail costs: each once, no more than allowed, within their time, and told as they were."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from filters._dmarc.walks import EXISTENCE, MIN_QUERIES, TooMany, Walks
from gateway.model import Oversized, Temporary

RECORD = b"v=DMARC1; p=reject"


class Dns:
    """Answers by name, with the type before it where it is not TXT: values, an error to raise, or seconds to wait."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str]] = []

    async def _ask(self, kind: str, name: str) -> Sequence[Any]:
        self.asked.append((kind, name))
        answer = self.answers.get(name if kind == "TXT" else f"{kind} {name}", ())
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, float):
            await asyncio.sleep(answer)
            return ()
        return answer

    def __getattr__(self, kind: str) -> Callable[[str], Awaitable[Sequence[Any]]]:
        return lambda name: self._ask(kind.upper(), name)


def played(dns: Dns, play: Callable[[Walks], Awaitable[Any]], queries: int = 20, timeout: float = 5.0) -> Any:
    async def run() -> Any:
        return await play(Walks(dns, queries, timeout))  # type: ignore[arg-type]

    return asyncio.run(run())


def test_each_question_is_asked_once() -> None:
    async def twice(walks: Walks) -> list[Any]:
        return [await walks.record("a.test") for _ in range(3)] + [await walks.exists("a.test") for _ in range(3)]

    dns = Dns(**{"_dmarc.a.test": [RECORD]})
    first, *_, exists = played(dns, twice)
    assert first.p == "reject"
    assert not exists
    assert dns.asked == [("TXT", "_dmarc.a.test"), *((kind, "a.test") for kind in EXISTENCE)]


def test_what_nobody_could_tell_is_not_asked_again_either() -> None:
    async def twice(walks: Walks) -> None:
        for _ in range(2):
            with pytest.raises(Temporary):
                await walks.record("a.test")

    dns = Dns(**{"_dmarc.a.test": Temporary("nobody could tell")})
    played(dns, twice)
    assert len(dns.asked) == 1


def test_questions_have_a_limit_and_some_are_left_for_whether_it_exists() -> None:
    async def many(walks: Walks) -> bool:
        for number in range(MIN_QUERIES - len(EXISTENCE)):
            assert await walks.record(f"{number}.test") is None
        with pytest.raises(TooMany):
            await walks.record("more.test")
        return await walks.exists("a.test")

    dns = Dns()
    assert played(dns, many, MIN_QUERIES) is False
    assert len(dns.asked) == MIN_QUERIES


@pytest.mark.parametrize("kind", EXISTENCE)
def test_a_domain_exists_that_has_any_record_of_mail(kind: str) -> None:
    found = {"a.test" if kind == "TXT" else f"{kind} a.test": ["something"]}
    assert played(Dns(**found), lambda walks: walks.exists("a.test"))


def test_an_answer_that_is_too_large_shows_that_the_name_exists_and_is_no_record() -> None:
    large = {"_dmarc.a.test": Oversized("more than 16 KB"), "MX a.test": Oversized("more than 16 KB")}
    assert played(Dns(**large), lambda walks: walks.record("a.test")) is None
    assert played(Dns(**large), lambda walks: walks.exists("a.test"))


def test_what_has_no_answer_in_time_is_temporary_and_what_was_told_before_stays() -> None:
    async def both(walks: Walks) -> Any:
        await walks.record("a.test")
        with pytest.raises(Temporary, match=r"within 0\.05 s"):
            await walks.record("b.test")
        return await walks.record("a.test")

    found = played(Dns(**{"_dmarc.a.test": [RECORD], "_dmarc.b.test": 60.0}), both, timeout=0.05)
    assert found.p == "reject"


def test_why_there_is_no_record_is_told() -> None:
    async def missing(walks: Walks) -> str:
        await walks.record("a.test")
        return walks.missing()

    assert played(Dns(), missing) == "has no DMARC record"
    told = played(Dns(**{"_dmarc.a.test": [RECORD, RECORD, b"other"]}), missing)
    assert told == "has no DMARC record that counts: there are 2 at _dmarc.a.test"


def test_facts_are_printable_and_bounded_whatever_was_answered() -> None:
    async def facts(walks: Walks) -> list[str]:
        await walks.record("a.test")
        with pytest.raises(Temporary):
            await walks.record("b.test")
        await walks.exists("a.test")
        return list(walks.facts())

    hostile = [b"\x1b[2J\r\n\xff" + b"x" * 5000] * 50
    answers = {"_dmarc.a.test": hostile, "_dmarc.b.test": Temporary("x"), "MX a.test": [(10, "mx.test")]}
    first, second, third = played(Dns(**answers), facts)
    assert first.isascii()
    assert first.isprintable()
    assert len(first) < 2100
    assert second == "TXT _dmarc.b.test: nobody could tell"
    assert third == "MX a.test: 10 mx.test"

"""What was said of octets is known again for the same octets and the same signatures, and nonsense is not."""

import asyncio
import json

import pytest

from filters._scanners.cache import Cache
from filters._scanners.said import CODES, Said
from gateway.model import Temporary

INFECTED = Said("infected", "Eicar", "stream: Eicar FOUND")


class State:
    """The shared state, as a dictionary; `fails` is one out of reach."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.fails = False

    async def get(self, key: str) -> str | None:
        if self.fails:
            raise Temporary("no state")
        return self.kept.get(key)

    async def put(self, key: str, value: str, ttl: float) -> None:
        if self.fails:
            raise Temporary("no state")
        self.kept[key] = value


def get(state: State, digest: str = "d", version: str = "v") -> Said | None:
    return asyncio.run(Cache(state, 60.0).get(digest, version))  # type: ignore[arg-type]


def put(state: State, said: Said, digest: str = "d", version: str = "v") -> None:
    asyncio.run(Cache(state, 60.0).put(digest, version, said))  # type: ignore[arg-type]


@pytest.mark.parametrize("code", sorted(CODES))
def test_what_was_said_is_known_again(code: str) -> None:
    state = State()
    put(state, Said(code, "name", 'answer "quoted"'))
    assert get(state) == Said(code, "name", 'answer "quoted"')


@pytest.mark.parametrize(("digest", "version"), [("e", "v"), ("d", "w"), ("d:v", ""), ("", "d:v")])
def test_of_other_octets_and_by_other_signatures_nothing_is_known(digest: str, version: str) -> None:
    state = State()
    put(state, INFECTED)
    assert get(state, digest, version) is None


@pytest.mark.parametrize(
    "value",
    [
        *("{", "null", "7", "[]", '"clean"', '["fine"]', '["clean", 1]', '["clean", "\\n"]', '{"code": "clean"}'),
        *('["clean", "", "", ""]', '["clean", ["x"]]', "[" * 4000, "[" * 1500 + "]" * 1500, "\udcff"),
    ],
)
def test_nonsense_is_nothing_known(value: str) -> None:
    state = State()
    put(state, INFECTED)
    state.kept = dict.fromkeys(state.kept, value)
    assert get(state) is None


def test_a_state_out_of_reach_knows_nothing_and_is_no_failure() -> None:
    state = State()
    state.fails = True
    put(state, INFECTED)
    assert get(state) is None


def test_no_version_of_a_scanner_makes_a_key_that_is_long_or_broken() -> None:
    state = State()
    put(state, INFECTED, "0" * 64, "ClamAV \r\n\0" * 1000)
    (key,) = state.kept
    assert len(key) < 200
    assert key.isprintable()
    assert json.loads(state.kept[key])[0] == "infected"


def test_whether_anything_is_kept_is_what_the_time_says() -> None:
    assert Cache(State(), 1.0).kept  # type: ignore[arg-type]
    assert not Cache(State(), 0.0).kept  # type: ignore[arg-type]

"""The state on a server: no counter without an end, no password shown, and a server that is gone, silent, or back."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway import config, state
from gateway.model import Temporary
from gateway.state import LocalState, RemoteState
from tests.peers import processes, redis
from tests.peers.certificates import Certificate
from tests.peers.redis import Redis

SECRET = "geheim wort/@:%"
QUOTED = "geheim%20wort%2F%40%3A%25"


def use(work: Callable[[RemoteState], Awaitable[Any]], url: str, **words: Any) -> Any:
    """What comes of *work* with a state at *url*, closed at the end."""

    async def run() -> Any:
        shared = RemoteState(url, **words)
        try:
            return await work(shared)
        finally:
            await shared.aclose()

    return asyncio.run(run())


async def counted(shared: RemoteState) -> int:
    return await shared.add("a", 1, 60.0)


async def why_not(shared: RemoteState) -> str:
    with pytest.raises(Temporary) as told:
        await shared.add("a", 1, 60.0)
    return str(told.value)


# ---- What is kept -------------------------------------------------------------------------------------------------


def test_everything_that_is_written_has_an_end(server: Redis) -> None:
    async def work(shared: RemoteState) -> None:
        await shared.put("a", "1", 60.0)
        await shared.claim("b", 60.0)
        await shared.add("c", 1, 60.0)
        await shared.add_all({"c": 1, "d": 1, "e": 0}, 30.0)

    use(work, server.url)
    assert server.names() == ["gatepost:a", "gatepost:b", "gatepost:c", "gatepost:d"]
    assert all(0 < int(server.ask("TTL", key)) <= 60 for key in server.names())


def test_a_counter_that_was_left_without_an_end_begins_anew_with_one(server: Redis) -> None:
    server.ask("SET", "gatepost:a", "1000")
    assert use(counted, server.url) == 1
    assert 0 < int(server.ask("TTL", "gatepost:a")) <= 60


def test_a_key_that_holds_something_else_is_temporary(server: Redis) -> None:
    server.ask("RPUSH", "gatepost:a", "1")
    assert use(why_not, server.url) == "the shared state refuses what we ask"


def test_a_value_that_is_no_text_is_temporary(server: Redis) -> None:
    async def work(shared: RemoteState) -> None:
        with pytest.raises(Temporary):
            await shared.get("a")

    server.ask("EVAL", "return redis.call('SET', KEYS[1], '\\255\\254')", "1", "gatepost:a")
    use(work, server.url)


def test_a_server_that_forgot_our_script_is_told_it_again(server: Redis) -> None:
    async def work(shared: RemoteState) -> list[int]:
        first = await counted(shared)
        server.ask("SCRIPT", "FLUSH")
        return [first, await counted(shared)]

    assert use(work, server.url) == [1, 2]


def test_more_questions_than_connections_are_all_answered(server: Redis) -> None:
    async def work(shared: RemoteState) -> int:
        await asyncio.gather(*(counted(shared) for _ in range(200)))
        return await counted(shared)

    assert use(work, server.url, timeout=10.0) == 201


# ---- Who may ask --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["", "default"])
def test_a_password_stands_in_the_url_or_in_a_file(tmp_path: Path, user: str) -> None:
    file = tmp_path / "password"
    file.write_text(f"{SECRET}\n")
    with redis.run(more=[f'requirepass "{SECRET}"']) as server:
        place = f"{server.host}:{server.port}/0"
        assert use(counted, f"redis://{user}:{QUOTED}@{place}") == 1
        assert use(counted, f"redis://{user}:@{place}" if user else f"redis://{place}", password_file=file) == 2
        assert use(counted, f"unix://{user}:{QUOTED}@{server.home}/redis.sock?db=0") == 3
        for url in (f"redis://{place}", f"redis://:wrong@{place}", f"redis://stranger:{QUOTED}@{place}"):
            why = use(why_not, url)
            assert "let us in" in why
            assert "wrong" not in why


def test_a_password_file_that_cannot_be_read_is_temporary(server: Redis, tmp_path: Path) -> None:
    assert "out of reach" in use(why_not, server.url, password_file=tmp_path / "missing")


def test_a_server_whose_certificate_we_cannot_verify_is_not_asked(
    server: Redis, other_certificate: Certificate
) -> None:
    for ca_file in (None, str(other_certificate.certificate)):
        assert "out of reach" in use(why_not, f"rediss://localhost:{server.tls_port}", ca_file=ca_file)


# ---- A server that fails ------------------------------------------------------------------------------------------


def test_a_server_that_is_not_there_is_temporary_at_once() -> None:
    began = time.monotonic()
    assert "out of reach" in use(why_not, f"redis://127.0.0.1:{processes.free_port()}")
    assert time.monotonic() - began < 1.0


def test_a_server_that_is_silent_is_temporary_in_time_and_its_late_answers_reach_nobody() -> None:
    async def work(shared: RemoteState) -> list[object]:
        await shared.put("a", "of a", 60.0)
        await shared.put("b", "of b", 60.0)
        server.freeze()
        began = time.monotonic()
        answers = await asyncio.gather(*(shared.get("a") for _ in range(40)), return_exceptions=True)
        assert all(isinstance(answer, Temporary) for answer in answers)
        assert time.monotonic() - began < 1.0
        server.thaw()
        await asyncio.sleep(0.1)  # now it answers what nobody waits for any more
        return [await shared.get(key) for key in "bababa"]

    with redis.run() as server:
        assert use(work, server.url, timeout=0.2) == ["of b", "of a"] * 3


def test_a_question_that_is_given_up_leaves_no_answer_behind(server: Redis) -> None:
    async def work(shared: RemoteState) -> list[object]:
        await shared.put("a", "of a", 60.0)
        await shared.put("b", "of b", 60.0)
        for _ in range(50):
            question = asyncio.create_task(shared.get("a"))
            await asyncio.sleep(0)
            question.cancel()
            await asyncio.gather(question, return_exceptions=True)
        return [await shared.get("b") for _ in range(40)]

    assert use(work, server.url, timeout=10.0) == ["of b"] * 40


def test_a_server_that_comes_back_is_found_again() -> None:
    async def work(shared: RemoteState) -> list[object]:
        with redis.run(port=port):
            first = await counted(shared)
        why = await why_not(shared)
        with redis.run(port=port):
            return [first, why, await counted(shared)]  # it has kept nothing

    port = processes.free_port()
    assert use(work, f"redis://127.0.0.1:{port}") == [1, "the shared state is out of reach", 1]


def test_a_connection_that_the_server_has_closed_meanwhile_costs_no_question(server: Redis) -> None:
    async def work(shared: RemoteState) -> list[int]:
        counts = [await counted(shared)]
        for _ in range(5):
            server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await asyncio.sleep(0.05)
            counts.append(await counted(shared))
        return counts

    assert use(work, server.url) == [1, 2, 3, 4, 5, 6]


def test_a_server_that_has_become_a_replica_is_temporary_until_it_leads_again(server: Redis) -> None:
    async def work(shared: RemoteState) -> list[object]:
        server.ask("REPLICAOF", server.host, str(processes.free_port()))
        try:
            why = await why_not(shared)
        finally:
            server.ask("REPLICAOF", "NO", "ONE")
        return [why, await counted(shared)]

    assert use(work, server.url) == ["the shared state refuses what we ask", 1]


def test_a_peer_that_speaks_something_else_is_temporary() -> None:
    async def work() -> str:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 1000)
            await writer.drain()
            writer.close()

        other = await asyncio.start_server(talk, "127.0.0.1", 0)
        shared = RemoteState(f"redis://127.0.0.1:{other.sockets[0].getsockname()[1]}")
        why = await why_not(shared)
        await shared.aclose()
        other.close()
        return why

    assert asyncio.run(work()) == "the shared state is out of reach"


def test_where_it_is_is_told_without_the_password() -> None:
    assert RemoteState("rediss://user:geheim@state.example:6380/0").place == "rediss://state.example:6380/0"
    assert RemoteState("unix://:geheim@/run/redis.sock?db=1").place == "unix:///run/redis.sock?db=1"


# ---- By configuration ---------------------------------------------------------------------------------------------


def loaded(tmp_path: Path, text: str) -> config.Config:
    path = tmp_path / "gatepost.toml"
    path.write_text(text)
    return config.load(path)


def test_the_configuration_says_where_the_state_is(tmp_path: Path, server: Redis) -> None:
    assert isinstance(state.opened(config.embedded()), LocalState)
    shared = state.opened(loaded(tmp_path, f'[state]\nurl = "{server.url}"\ntimeout = "5s"\n'))
    assert isinstance(shared, RemoteState)
    assert asyncio.run(_count_and_close(shared)) == 1


async def _count_and_close(shared: RemoteState) -> int:
    try:
        return await counted(shared)
    finally:
        await shared.aclose()


def test_a_password_in_the_url_is_not_shown(tmp_path: Path) -> None:
    made = loaded(tmp_path, '[state]\nurl = "redis://:geheim@127.0.0.1/0"\n')
    assert "geheim" not in f"{made!r} {made}"


@pytest.mark.parametrize(
    "url",
    [
        "redis://[::1]:6379",
        "valkey://state.example/15",
        "rediss://user:p%40ss@state.example:6380/0",
        "valkeys://state.example",
        "unix:///run/redis/redis.sock",
        "unix://:secret@/run/redis.sock?db=3",
    ],
)
def test_urls_of_every_kind_are_understood(tmp_path: Path, url: str) -> None:
    assert loaded(tmp_path, f'[state]\nurl = "{url}"\n').state.url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://x",
        "redis://",
        "redis://h:0",
        "redis://h:70000",
        "redis://h/x",
        "unix://relative",
        "redis://h?a=b",
        "redis:// h",
    ],
)
def test_urls_of_no_kind_are_faults(tmp_path: Path, url: str) -> None:
    with pytest.raises(config.FaultyFiles, match="a shared state is named like"):
        loaded(tmp_path, f'[state]\nurl = "{url}"\n')

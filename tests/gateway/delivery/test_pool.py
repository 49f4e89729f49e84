"""Connections that carry several mails, and what those cost that died while they waited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address

import pytest

from gateway.delivery.paths import Hop
from gateway.delivery.pool import Pool
from gateway.delivery.reply import Failed
from gateway.delivery.transaction import Result
from gateway.stages import Relay, Timeouts
from tests.gateway.delivery.scripted import Host, host
from tests.gateway.delivery.test_transaction import outgoing

RELAY = Relay(timeouts=Timeouts(**dict.fromkeys(Timeouts.model_fields, 3.0)))
HELLO = "S: 220 mx\nC: EHLO gw.us.example\nS: 250 mx\n"
MAIL = """C: MAIL FROM:<alice@us.example>
S: 250 ok
C: RCPT TO:<bob@there.example>
S: 250 ok
C: DATA
S: 354 go on
C= *
S: 250 2.0.0 taken
"""


def play(work: Callable[[Pool, Host], Awaitable[Sequence[Result]]], *scripts: str) -> tuple[list[int], list[list[str]]]:
    async def run() -> tuple[list[int], list[list[str]]]:
        pool = Pool("gw.us.example")
        async with host(*scripts) as peer:
            results = await work(pool, peer)
            await pool.close()
        assert peer.faults == []
        return [result.reply.code for result in results], peer.heard

    return asyncio.run(run())


def twice(relay: Relay) -> Callable[[Pool, Host], Awaitable[Sequence[Result]]]:
    async def work(pool: Pool, peer: Host) -> Sequence[Result]:
        first = await pool.send(peer.hop(), outgoing(), relay)
        await asyncio.sleep(0.02)
        return [*first, *await pool.send(peer.hop(), outgoing(), relay)]

    return work


def test_a_second_mail_takes_the_same_connection() -> None:
    codes, heard = play(twice(RELAY), HELLO + MAIL + MAIL)
    assert codes == [250, 250]
    assert [line for line in heard[0] if line == "QUIT"] == ["QUIT"]


def test_a_connection_carries_no_more_mails_than_the_policy_says() -> None:
    codes, heard = play(twice(RELAY.model_copy(update={"messages_per_connection": 1})), HELLO + MAIL, HELLO + MAIL)
    assert codes == [250, 250]
    assert [lines[-1] for lines in heard] == ["QUIT", "QUIT"]


def test_no_connection_waits_where_the_policy_says_so() -> None:
    codes, heard = play(twice(RELAY.model_copy(update={"idle_connection": 0.0})), HELLO + MAIL, HELLO + MAIL)
    assert (codes, len(heard)) == ([250, 250], 2)


def test_a_waiting_connection_leaves_after_its_time() -> None:
    codes, heard = play(twice(RELAY.model_copy(update={"idle_connection": 0.001})), HELLO + MAIL, HELLO + MAIL)
    assert (codes, len(heard)) == ([250, 250], 2)


def test_a_connection_that_closed_meanwhile_is_not_used() -> None:
    codes, heard = play(twice(RELAY), HELLO + MAIL + "X", HELLO + MAIL)
    assert (codes, len(heard)) == ([250, 250], 2)


def test_a_connection_that_said_goodbye_meanwhile_is_not_used() -> None:
    codes, heard = play(twice(RELAY), HELLO + MAIL + "S: 421 4.4.2 too long\nX", HELLO + MAIL)
    assert (codes, len(heard)) == ([250, 250], 2)


def test_a_connection_that_dies_before_mail_is_taken_costs_one_more_connection() -> None:
    codes, heard = play(twice(RELAY), HELLO + MAIL + "C: MAIL FROM:<alice@us.example>\nX", HELLO + MAIL)
    assert (codes, len(heard)) == ([250, 250], 2)


def test_a_connection_that_dies_later_is_an_answer() -> None:
    script = HELLO + MAIL + "C: MAIL FROM:<alice@us.example>\nS: 250 ok\nC: RCPT TO:<bob@there.example>\nX"
    codes, heard = play(twice(RELAY), script)
    assert (codes, len(heard)) == ([250, 421], 1)


def test_a_fresh_connection_that_dies_is_an_answer() -> None:
    async def once(pool: Pool, peer: Host) -> Sequence[Result]:
        return await pool.send(peer.hop(), outgoing(), RELAY)

    codes, heard = play(once, HELLO + "C: MAIL FROM:<alice@us.example>\nX")
    assert (codes, len(heard)) == ([421], 1)


def test_another_policy_of_the_hop_is_another_connection() -> None:
    async def work(pool: Pool, peer: Host) -> Sequence[Result]:
        first = await pool.send(peer.hop(), outgoing(), RELAY)
        return [*first, *await pool.send(peer.hop(tls_="never"), outgoing(), RELAY)]

    codes, heard = play(work, HELLO + MAIL, HELLO + MAIL)
    assert (codes, len(heard)) == ([250, 250], 2)


def test_a_host_that_cannot_be_reached_is_no_result_of_a_mail() -> None:
    async def run() -> None:
        async with host() as peer:
            hop = peer.hop()
        with pytest.raises(Failed):
            await Pool("gw.us.example").send(hop, outgoing(), RELAY)

    asyncio.run(run())


def test_a_host_has_no_more_connections_than_the_policy_says_and_all_get_their_turn() -> None:
    most, now = 0, 0

    async def run() -> list[int]:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal most, now
            now += 1
            most = max(most, now)
            writer.write(b"220 mx\r\n")
            while line := await reader.readline():
                if line == b"DATA\r\n":
                    writer.write(b"354 go on\r\n")
                    await reader.readuntil(b"\r\n.\r\n")
                    await asyncio.sleep(0.005)
                writer.write(b"250 ok\r\n")
            now -= 1
            writer.close()

        async with await asyncio.start_server(play, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            hop = Hop("localhost", ip_address("127.0.0.1"), port, "never")
            relay = RELAY.model_copy(update={"connections_per_host": 2})
            pool = Pool("gw.us.example")
            results = await asyncio.gather(*(pool.send(hop, outgoing(), relay) for _ in range(12)))
            await pool.close()
            await asyncio.sleep(0.01)
        return [one.reply.code for result in results for one in result]

    assert asyncio.run(run()) == [250] * 12
    assert most == 2

"""The service of one process: who is let in, and how it ends."""

import asyncio
import socket

import pytest
import uvloop

from gateway.smtp import connection, server
from gateway.stages import Edge
from tests.gateway.smtp.conversation import Intake, listener, server_context, serving
from tests.gateway.smtp.talk import EHLO, ENVELOPE, ask, client, eventually, run


def test_connections_beyond_the_limit_of_the_process_are_sent_away(tmp_path):
    async def play():
        intake = Intake(Edge(connections=1))
        async with serving(intake, listener(), tmp_path) as port:
            async with client(port) as (first, _), client(port) as (second, _):
                assert (await first.readline()).startswith(b"220")
                assert (await second.read()).startswith(b"421 4.3.2")
            await eventually(lambda: not connection.connections())
            async with client(port) as (third, _):
                assert (await third.readline()).startswith(b"220")

    run(play())


def test_connections_beyond_the_limit_of_one_peer_are_sent_away(tmp_path):
    async def play():
        intake = Intake(Edge(connections_per_peer=1))
        async with (
            serving(intake, listener(), tmp_path) as port,
            client(port) as (first, _),
            client(port) as (second, _),
        ):
            assert (await first.readline()).startswith(b"220")
            assert (await second.read()).startswith(b"421 4.7.0")

    run(play())


def test_of_a_burst_from_one_peer_only_those_beyond_the_limit_are_sent_away(tmp_path):
    async def play():
        async with serving(Intake(Edge(connections_per_peer=2)), listener(), tmp_path) as port:
            burst = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
            heard = await asyncio.gather(*(asyncio.to_thread(one.recv, 3) for one in burst))
            for one in burst:
                one.close()
            assert sorted(heard) == [b"220"] * 2 + [b"421"] * 3

    run(play())


def test_connections_beyond_the_limit_of_one_network_are_sent_away(tmp_path):
    async def play():
        intake = Intake(Edge(connections_per_network=1))
        async with (
            serving(intake, listener(), tmp_path) as port,
            client(port) as (first, _),
            client(port, local_addr=("127.0.0.2", 0)) as (second, _),
            client(port, local_addr=("127.0.1.1", 0)) as (third, _),
        ):
            assert (await first.readline()).startswith(b"220")
            assert (await second.read()) == b"421 4.7.0 Too many connections from your network, try again later\r\n"
            assert (await third.readline()).startswith(b"220")

    run(play())


def test_drain_parts_from_idle_sessions_and_lets_a_message_finish(tmp_path):
    async def play():
        intake = Intake()
        async with serving(intake, listener(), tmp_path) as port, client(port) as idle, client(port) as busy:
            for reader, writer in (idle, busy):
                await ask(reader, writer, b"", "220")
                await ask(reader, writer, EHLO, "250")
            await ask(*busy, ENVELOPE + b"DATA\r\n", "250", "250", "354")
            draining = asyncio.create_task(server.drain(5))
            assert (await idle[0].read()).startswith(b"421 4.3.2")
            await ask(*busy, b"x\r\n.\r\n", "250", "421 4.3.2")
            await draining
            assert len(intake.taken) == 1

    run(play())


def test_drain_ends_what_does_not_end_by_itself(tmp_path):
    async def play():
        intake = Intake()
        async with serving(intake, listener(), tmp_path) as port, client(port) as (reader, writer):
            await ask(reader, writer, b"", "220")
            await ask(reader, writer, EHLO, "250")
            await ask(reader, writer, ENVELOPE + b"DATA\r\n", "250", "250", "354")
            await server.drain(0.1)
            assert not connection.connections()
            assert not intake.taken

    run(play())


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\0\x01\0", b"QUIT\r\n"], ids=["nothing", "half", "no TLS"])
def test_who_leaves_during_the_handshake_no_longer_counts(tmp_path, loop, said):
    async def play():
        async with serving(Intake(), listener(), tmp_path, server_context(tmp_path)) as port:
            for _ in range(3):
                async with client(port) as (reader, writer):
                    await ask(reader, writer, b"", "220")
                    await ask(reader, writer, b"STARTTLS\r\n", "220")
                    writer.write(said)
                    await asyncio.sleep(0.02)
                    writer.transport.abort()
            await eventually(lambda: not (server._lobby.crowd.size or connection.connections()))

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(asyncio.wait_for(play(), 20))


def test_where_the_house_is_nearly_full_nobody_keeps_us_waiting(tmp_path):
    async def play():
        intake = Intake(Edge(connections=4, crowded=75, crowded_timeout=0.2))
        async with (
            serving(intake, listener(), tmp_path) as port,
            client(port) as (idle, _),
            client(port) as (reader, writer),
        ):
            await ask(reader, writer, b"", "220")
            assert (await idle.readline()).startswith(b"220")
            await asyncio.sleep(0.3)  # two of four wait in peace
            await ask(reader, writer, EHLO, "250")
            async with client(port) as (third, _):
                assert (await third.readline()).startswith(b"220")
                for _ in range(3):
                    await asyncio.sleep(0.1)
                    await ask(reader, writer, b"NOOP\r\n", "250")
                for one in (idle, third):
                    assert (await one.read()).startswith(b"421 4.3.2 Too many connections to wait")
            await eventually(lambda: len(connection.connections()) == 1)
            await ask(reader, writer, b"NOOP\r\n", "250")
            await asyncio.sleep(0.3)
            await ask(reader, writer, b"NOOP\r\n", "250")

    run(play())


def test_what_outgrows_memory_has_a_folder_for_us_alone(tmp_path):
    async def play():
        intake = Intake(Edge(memory_spool=10))
        async with serving(intake, listener(), tmp_path) as port, client(port) as (reader, writer):
            assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
            await ask(reader, writer, b"", "220")
            await ask(reader, writer, EHLO, "250")
            await ask(reader, writer, ENVELOPE + b"BDAT 20 LAST\r\n" + b"x" * 18 + b"\r\n", "250", "250", "250")
            assert not [*(tmp_path / "spool").iterdir()]
        assert len(intake.taken) == 1

    run(play())


def test_drain_ends_at_once_where_nobody_is_there(tmp_path):
    async def play():
        async with serving(Intake(), listener(), tmp_path):
            began = asyncio.get_running_loop().time()
            await server.drain(60)
            assert asyncio.get_running_loop().time() - began < 1

    run(play())


def test_the_limit_counts_for_all_listeners_of_the_process_together(tmp_path):
    async def play():
        intake = Intake(Edge(connections=1))
        async with (
            serving(intake, listener(), tmp_path) as port,
            serving(intake, listener(), tmp_path) as other,
            client(port) as (first, _),
            client(other) as (second, _),
        ):
            assert (await first.readline()).startswith(b"220")
            assert (await second.read()).startswith(b"421 4.3.2")

    run(play())

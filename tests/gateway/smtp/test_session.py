import asyncio
import contextlib
import errno
import os
import socket

import pytest
import uvloop

from gateway.model import Envelope, ListenerKind, Recipient
from gateway.smtp import connection, server, session, spool
from gateway.stages import Edge, Logins
from tests.gateway.smtp.conversation import DEADLINE, Intake, listener, server_context, serving, trusting_context

EHLO = b"EHLO client.example\r\n"
ENVELOPE = b"MAIL FROM:<a@out.example>\r\nRCPT TO:<b@in.example>\r\n"


def run(play):
    return asyncio.run(asyncio.wait_for(play, 20))


@contextlib.asynccontextmanager
async def client(port, *, limit=1 << 16, **how):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=limit, **how)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def ask(reader, writer, said, *codes):
    """Say *said*, and read replies until each of *codes* has come as the code of a last line."""
    writer.write(said)
    for code in codes:
        line = b"---- "
        while line[3:4] == b"-":
            line = await asyncio.wait_for(reader.readline(), DEADLINE)
        assert line.startswith(code.encode()), (line, code)


async def eventually(condition):
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen in time")


def test_intake_hears_who_sends_what_to_whom(tmp_path):
    async def play():
        intake = Intake()
        async with serving(intake, listener(), tmp_path) as port, client(port) as (reader, writer):
            await ask(reader, writer, b"", "220")
            await ask(reader, writer, EHLO, "250")
            said = b"MAIL FROM:<A@OUT.example> BODY=8BITMIME RET=FULL ENVID=x SMTPUTF8\r\n"
            said += b'RCPT TO:<"b"@in.example> NOTIFY=NEVER ORCPT=rfc822;B\r\nRCPT TO:<b@IN.example>\r\n'
            await ask(reader, writer, said + b"BDAT 3 LAST\r\nx\r\n", "250", "250", "250", "250")
        peer, envelope, _ = intake.taken[0]
        assert (str(peer.peer), peer.helo, peer.esmtp, peer.tls, peer.user) == (
            "127.0.0.1",
            "client.example",
            True,
            "",
            "",
        )
        assert (peer.listener, peer.kind) == ("test", ListenerKind.MX)
        recipient = Recipient("b@in.example", frozenset({"NEVER"}), "rfc822;B")
        assert envelope == Envelope("A@out.example", (recipient,), True, True, "FULL", "x")

    run(play())


def test_intake_hears_of_tls_and_user(tmp_path):
    async def play():
        intake = Intake()
        context = server_context(tmp_path)
        async with serving(intake, listener("submission"), tmp_path, context) as port, client(port) as (reader, writer):
            await ask(reader, writer, b"", "220")
            await ask(reader, writer, b"STARTTLS\r\n", "220")
            await writer.start_tls(trusting_context())
            await ask(reader, writer, EHLO, "250")
            await ask(reader, writer, b"AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n", "235")
            await ask(reader, writer, ENVELOPE + b"BDAT 3 LAST\r\nx\r\n", "250", "250", "250")
        peer = intake.taken[0][0]
        assert (peer.tls, peer.user, peer.kind) == ("TLSv1.3", "alice", ListenerKind.SUBMISSION)
        assert intake.asked == [("alice", "secret")]

    run(play())


def test_a_group_of_commands_is_answered_in_one_segment(tmp_path, monkeypatch):
    writes = []
    write = asyncio.StreamWriter.write

    async def play():
        async with serving(Intake(), listener(), tmp_path) as port, client(port) as (reader, writer):
            await ask(reader, writer, b"", "220")
            await ask(reader, writer, EHLO, "250")
            ours = next(iter(connection.connections()))._writer
            monkeypatch.setattr(
                asyncio.StreamWriter,
                "write",
                lambda self, data: (writes.append(data) if self is ours else None, write(self, data)),
            )
            await ask(reader, writer, ENVELOPE + b"DATA\r\n", "250", "250", "354")
            await ask(reader, writer, b"x\r\n.\r\n" + ENVELOPE + b"QUIT\r\n", "250", "250", "250", "221")
        assert [said.count(b"\r\n") for said in writes[:1]] == [3]

    run(play())


def test_it_does_not_matter_how_the_octets_are_cut(tmp_path):
    async def play():
        intake = Intake(Edge(strict_turns=False))
        said = (
            EHLO + ENVELOPE + b"DATA\r\n.a\r\n..\r\nb\r\n.\r\n" + ENVELOPE + b"BDAT 2\r\na\rBDAT 2 LAST\r\n\nbQUIT\r\n"
        )
        async with serving(intake, listener(), tmp_path) as port, client(port) as (reader, writer):
            for octet in said:
                writer.write(bytes([octet]))
                await asyncio.sleep(0)
            await asyncio.wait_for(reader.read(), DEADLINE)
        assert [content for _, _, content in intake.taken] == [b"a\r\n.\r\nb\r\n", b"a\r\nb\r\n"]

    run(play())


def test_a_message_that_fills_the_disk_is_put_off_and_the_session_goes_on(tmp_path, monkeypatch):
    async def play():
        intake = Intake(Edge(memory_spool=1000))
        async with serving(intake, listener(), tmp_path) as port, client(port) as (reader, writer):
            await ask(reader, writer, b"", "220")
            await ask(reader, writer, EHLO, "250")
            for _ in range(2):
                await ask(reader, writer, ENVELOPE + b"DATA\r\n", "250", "250", "354")
                await ask(reader, writer, b"a: b\r\n\r\n" + b"x\r\n" * 10000 + b".\r\n", "452 4.3.1")
            await ask(reader, writer, ENVELOPE + b"BDAT 3 LAST\r\nx\r\n", "250", "250", "250")
        assert len(intake.taken) == 1

    def no_room(**_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(spool.tempfile, "TemporaryFile", no_room)
    run(play())


def test_a_broken_disk_is_no_full_disk(tmp_path, monkeypatch):
    async def play():
        async with (
            serving(Intake(Edge(memory_spool=0)), listener(), tmp_path) as port,
            client(port) as (reader, writer),
        ):
            await ask(reader, writer, b"", "220")
            await ask(reader, writer, EHLO, "250")
            await ask(reader, writer, ENVELOPE + b"BDAT 3 LAST\r\nx\r\n", "250", "250", "451 4.3.0")

    def broken(**_):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(spool.tempfile, "TemporaryFile", broken)
    run(play())


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


def test_a_peer_that_reads_nothing_is_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "GRACE", 0.1)

    async def play():
        edge = Edge(write_timeout=0.3, commands=10**9, errors=10**9, strict_turns=False)
        async with serving(Intake(edge), listener(), tmp_path) as port:
            deaf = socket.socket()
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.setblocking(False)
            await asyncio.get_running_loop().sock_connect(deaf, ("127.0.0.1", port))
            with contextlib.suppress(BlockingIOError, ConnectionError):
                for _ in range(1000):
                    with contextlib.suppress(BlockingIOError):
                        deaf.send(b"NOOP\r\n" * 10000)
                    await asyncio.sleep(0)
            assert connection.connections()
            await eventually(lambda: not connection.connections())
            deaf.close()

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


def test_a_judgement_goes_on_when_the_peer_has_gone(tmp_path):
    async def play():
        intake = Intake(pause=0.1)
        async with serving(intake, listener(), tmp_path) as port:
            async with client(port) as (reader, writer):
                await ask(reader, writer, b"", "220")
                await ask(reader, writer, EHLO, "250")
                await ask(reader, writer, ENVELOPE, "250", "250")
                writer.write(b"BDAT 3 LAST\r\nx\r\n")
                await asyncio.sleep(0.05)
                writer.transport.abort()
            await eventually(lambda: intake.taken)
            await server.drain(1)

    run(play())


@pytest.mark.parametrize("begun", [b"BDAT 100 LAST\r\nMAIL FROM:<a@b>\r\n", b"DATA\r\n"])
def test_tls_that_ends_within_a_message_is_never_followed_by_cleartext(tmp_path, begun):
    async def play():
        intake = Intake()
        context = server_context(tmp_path)
        async with serving(intake, listener(), tmp_path, context) as port, client(port) as (reader, writer):
            await ask(reader, writer, b"", "220")
            raw = writer.transport.get_extra_info("socket")
            await ask(reader, writer, b"STARTTLS\r\n", "220")
            await writer.start_tls(trusting_context())
            await ask(reader, writer, EHLO, "250")
            await ask(reader, writer, ENVELOPE + begun, "250", "250", *(["354"] if begun == b"DATA\r\n" else []))
            sslobj = writer.transport.get_extra_info("ssl_object")
            protocol = writer.transport._ssl_protocol
            with contextlib.suppress(Exception):
                sslobj.unwrap()
            with socket.socket(fileno=os.dup(raw.fileno())) as clear:
                clear.send(protocol._outgoing.read() + b"x" * 83 + b"\r\n.\r\nNOOP\r\n")
            await eventually(lambda: not connection.connections())
        assert not intake.taken

    run(play())


def test_nothing_of_ours_is_told_when_we_fail(tmp_path):
    async def play():
        intake = Intake(answers={"message": "crash"})
        async with serving(intake, listener(), tmp_path) as port, client(port) as (reader, writer):
            await ask(reader, writer, b"", "220")
            await ask(reader, writer, EHLO, "250")
            writer.write(ENVELOPE + b"BDAT 3 LAST\r\nx\r\nQUIT\r\n")
            said = await asyncio.wait_for(reader.read(), DEADLINE)
        assert said.count(b"451 4.3.0") == 1
        assert b"secret" not in said

    run(play())


def test_a_large_message_costs_little_memory(tmp_path):
    async def play():
        intake = Intake(Edge(message_size=100 << 20))
        intake.message = lambda *_: intake.answer("message")
        async with serving(intake, listener(), tmp_path) as port, client(port) as (reader, writer):
            await ask(reader, writer, b"", "220")
            await ask(reader, writer, EHLO, "250")
            await ask(reader, writer, ENVELOPE + b"DATA\r\n", "250", "250", "354")
            before = resident()
            for _ in range(40):
                writer.write(b"\r\n" * (1 << 19))
                await writer.drain()
            assert resident() - before < 10 << 20
            await ask(reader, writer, b".\r\n", "250")

    run(play())


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_replies_do_not_wait_for_more(tmp_path):
    async def play():
        async with serving(Intake(), listener(), tmp_path) as port, client(port) as (reader, writer):
            await ask(reader, writer, b"", "220")
            for one in connection.connections():
                served = one.transport.get_extra_info("socket")
                assert served.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    run(play())


def test_strange_words_leave_nothing_behind(tmp_path):
    async def play():
        async with serving(Intake(Edge(errors=1000)), listener(), tmp_path) as port, client(port) as (reader, writer):
            await ask(reader, writer, b"", "220")
            await ask(reader, writer, EHLO, "250")
            for number in range(100):
                word = "".join(chr(65 + int(digit)) for digit in str(number))
                await ask(reader, writer, f"X{word}\r\n".encode(), "500 5.5.1")
        assert len(session.Session.command_size_limits) == 0

    run(play())


AUTH_WRONG = b"AUTH PLAIN AGFsaWNlAHdyb25n\r\n"
AUTH_RIGHT = b"AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n"


def test_guesses_count_across_sessions_and_then_no_password_is_looked_at(tmp_path):
    async def play():
        intake = Intake(logins=Logins(delay=0.0, free_per_user=2))
        context = server_context(tmp_path)
        at = listener("submission", "implicit")
        async with serving(intake, at, tmp_path, context) as port:
            for said, code in ((AUTH_WRONG, "535"), (AUTH_WRONG, "535"), (AUTH_RIGHT, "454 4.7.0 Too many failed")):
                async with client(port, ssl=trusting_context()) as (reader, writer):
                    await ask(reader, writer, b"", "220")
                    await ask(reader, writer, EHLO, "250")
                    await ask(reader, writer, said, code)
        assert [password for _, password in intake.asked] == ["wrong"] * 2

    run(play())


def test_who_is_held_back_again_and_again_is_sent_away(tmp_path):
    async def play():
        intake = Intake(Edge(auth_failures=3), logins=Logins(delay=0.0, free_per_user=1))
        context = server_context(tmp_path)
        async with (
            serving(intake, listener("submission", "implicit"), tmp_path, context) as port,
            client(port, ssl=trusting_context()) as (reader, writer),
        ):
            await ask(reader, writer, b"", "220")
            await ask(reader, writer, EHLO, "250")
            await ask(reader, writer, AUTH_WRONG, "535")
            await ask(reader, writer, AUTH_RIGHT, "454")
            await ask(reader, writer, AUTH_RIGHT, "421 4.7.0")
            assert await reader.read() == b""

    run(play())


def test_a_wrong_password_is_answered_no_sooner_than_the_policy_says(tmp_path):
    async def play():
        intake = Intake(logins=Logins(delay=0.2))
        context = server_context(tmp_path)
        async with (
            serving(intake, listener("submission", "implicit"), tmp_path, context) as port,
            client(port, ssl=trusting_context()) as (reader, writer),
        ):
            await ask(reader, writer, b"", "220")
            await ask(reader, writer, EHLO, "250")
            began = asyncio.get_running_loop().time()
            await ask(reader, writer, AUTH_WRONG, "535")
            assert asyncio.get_running_loop().time() - began >= 0.2

    run(play())


def test_who_has_waited_for_the_greeting_once_need_not_wait_again(tmp_path):
    async def play():
        intake = Intake(Edge(greeting_delay=0.1, greeting_exempt=()))
        loop = asyncio.get_running_loop()
        async with serving(intake, listener(), tmp_path) as port:
            waited = []
            for _ in range(2):
                began = loop.time()
                async with client(port) as (reader, writer):
                    await ask(reader, writer, b"", "220")
                waited.append(loop.time() - began)
        assert waited[0] >= 0.1 > waited[1]

    run(play())


def test_who_has_waited_once_still_must_not_speak_before_the_greeting(tmp_path):
    async def play():
        intake = Intake(Edge(greeting_delay=0.05, greeting_exempt=()))
        async with serving(intake, listener(), tmp_path) as port:
            async with client(port) as (reader, writer):
                await ask(reader, writer, b"", "220")
            intake.pause = 0.1
            async with client(port) as (reader, writer):
                await ask(reader, writer, EHLO, "554 5.5.0")

    run(play())


def test_a_talker_is_no_better_known_afterwards(tmp_path):
    async def play():
        intake = Intake(Edge(greeting_delay=5.0, greeting_exempt=()))
        async with serving(intake, listener(), tmp_path) as port:
            for _ in range(2):
                async with client(port) as (reader, writer):
                    await ask(reader, writer, EHLO, "554 5.5.0")
        assert not intake.state.kept

    run(play())


def test_where_nobody_can_be_remembered_everybody_waits(tmp_path):
    async def play():
        intake = Intake(Edge(greeting_delay=0.05, greeting_exempt=()))
        intake.state.gone = True
        loop = asyncio.get_running_loop()
        async with serving(intake, listener(), tmp_path) as port:
            for _ in range(2):
                began = loop.time()
                async with client(port) as (reader, writer):
                    await ask(reader, writer, b"", "220")
                assert loop.time() - began >= 0.05

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


def test_commands_by_the_thousand_leave_room_for_others(tmp_path):
    async def play():
        async with (
            serving(Intake(Edge(commands=10**6)), listener(), tmp_path) as port,
            client(port) as (_, many),
            client(port) as (reader, writer),
        ):
            await ask(reader, writer, b"", "220")
            many.write(b"NOOP\r\n" * 50000)
            await many.drain()
            for _ in range(5):
                await ask(reader, writer, b"NOOP\r\n", "250")
            assert any(not one._reader.is_empty for one in connection.connections())

    run(play())

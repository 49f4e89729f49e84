"""One connection below the commands: replies in groups, turns, and no wait without an end."""

import asyncio
import contextlib
import socket

from gateway.smtp import connection, session
from gateway.stages import Edge
from tests.gateway.smtp.conversation import DEADLINE, Intake, listener, serving
from tests.gateway.smtp.talk import EHLO, ENVELOPE, ask, client, eventually, run


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


def test_what_was_said_behind_the_last_word_is_never_done(tmp_path):
    async def play():
        intake = Intake(Edge(errors=1))
        async with serving(intake, listener(), tmp_path) as port, client(port) as (reader, writer):
            await ask(reader, writer, b"", "220")
            said = EHLO + b"NONSENSE\r\n" * 2 + ENVELOPE + b"BDAT 3 LAST\r\nx\r\n"
            writer.write(said)
            heard = (await reader.read()).split(b"\r\n")
            assert heard[-2].startswith(b"421 ")
            assert sum(line.startswith(b"421 ") for line in heard) == 1
        assert not intake.taken

    run(play())


def test_a_stop_waits_for_the_command_in_hand_and_for_no_other(tmp_path):
    """A stop lets the command in hand be done, and leaves before the next one."""

    async def play():
        intake = Intake(pause=0.1)
        async with serving(intake, listener(), tmp_path) as port, client(port) as (reader, writer):
            await ask(reader, writer, b"", "220")
            await ask(reader, writer, EHLO, "250")
            writer.write(b"MAIL FROM:<a@out.example>\r\n")
            (one,) = connection.connections()
            await eventually(lambda: not one._reader.waiting)
            one.retire()
            await ask(reader, writer, b"", "250")
            await eventually(lambda: one._reader.waiting)
            one.retire()
            await ask(reader, writer, b"", "421 4.3.2")
            assert await reader.read() == b""

    run(play())


def test_a_timer_that_is_set_earlier_ends_the_wait_earlier(tmp_path):
    async def play():
        async with serving(Intake(Edge(idle_timeout=60.0)), listener(), tmp_path) as port, client(port) as (reader, _):
            assert (await reader.readline()).startswith(b"220")
            (one,) = connection.connections()
            await eventually(lambda: one._reader.waiting)
            one.allow(0.05)
            assert (await asyncio.wait_for(reader.read(), DEADLINE)).startswith(b"421 4.4.2")

    run(play())


def test_no_connection_stays_known_however_it_went(tmp_path):
    async def play():
        async with serving(Intake(), listener(), tmp_path) as port:
            for end in ("abort", "close", "write_eof"):
                async with client(port) as (reader, writer):
                    await ask(reader, writer, b"", "220")
                    getattr(writer.transport, end)()
                    await eventually(lambda: not connection.connections())

    run(play())

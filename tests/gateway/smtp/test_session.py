"""The session as intake hears it: who sends what to whom, and what is said when something of ours fails."""

import asyncio
import contextlib
import errno
import os
import socket

import pytest

from gateway.model import Envelope, ListenerKind, Recipient
from gateway.smtp import connection, server, spool
from gateway.stages import Edge, Logins
from tests.gateway.smtp.conversation import DEADLINE, Intake, listener, server_context, serving, trusting_context
from tests.gateway.smtp.talk import EHLO, ENVELOPE, ask, client, eventually, run


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

"""Each peer is real and does what its module says: shown by another peer, or by a bare socket."""

import asyncio
import os
import poplib
import smtplib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.resolver
import pytest

from tests.peers import clamd, clients, dovecot, fake_clamd, faketcp, loop, postfix, processes, smtp_sink
from tests.peers.certificates import Certificate
from tests.peers.clients import Result, Server, Tls
from tests.peers.dns import Dns, quoted
from tests.peers.wire import body, crlf, dot_stuffed, lf

SENDER, RECIPIENT = "sender@out.example", "reader@in.example"
# Each line is one that a careless program changes: dots, From_, trailing blanks, 8 bits, tokens of swaks, a long line.
BODY = b".\n..\n.dot\nFrom here\n  two blanks  \n\xc3\xa9\xff\n%DATE%\n" + b"x" * 900 + b"\n\n\nend\n"
RAW = b"From: sender@out.example\nTo: reader@in.example\nSubject: as it was sent\n\n" + BODY
LOGIN = ("gate post", 'se"cret \\0')
POP3_LOGIN = ("alice", 'se"cret \\0')
Send = Callable[..., Result]
Fetch = Callable[..., Result]


# processes


@contextmanager
def sleeper(home: Path, *argv: str) -> Iterator[processes.Process]:
    with processes.running(argv, home, (home / "ready").exists) as process:
        yield process


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_process_ends_with_its_children_even_if_it_ignores_sigterm(tmp_path: Path) -> None:
    script = "trap '' TERM; sleep 300 & echo $! > child; touch ready; wait; sleep 300"
    process = processes._start(["sh", "-c", script], tmp_path, {})
    processes.wait_until((tmp_path / "ready").exists, 5, "the shell")
    child = int((tmp_path / "child").read_text())
    process.stop(grace=0.1)
    processes.wait_until(lambda: gone(child), 5, "the child to be gone")
    assert not process.alive()


def test_a_program_that_ends_at_its_start_is_reported_with_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no such luck"), sleeper(tmp_path, "sh", "-c", "echo no such luck; exit 3"):
        pass


def test_a_program_that_never_becomes_ready_is_ended_at_the_deadline(tmp_path: Path) -> None:
    with (
        pytest.raises(processes.Late, match="still thinking"),
        processes.running(["sh", "-c", "echo still thinking; sleep 300"], tmp_path, lambda: False, within=0.2),
    ):
        pass


def test_a_run_beyond_its_deadline_is_killed(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(processes.Late):
        processes.complete(["sleep", "300"], tmp_path, within=0.1)
    assert time.monotonic() - started < 5


def test_a_missing_program_skips_here_and_fails_where_ci_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "false")
    with pytest.raises(pytest.skip.Exception, match="no-such-program"):
        processes.require("sh", "no-such-program")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-program"):
        processes.require("sh", "no-such-program")


def test_a_free_port_can_be_bound_and_lies_below_those_of_clients() -> None:
    first_of_clients = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    port = processes.free_port()
    with socket.create_server((processes.HOST, port)):
        assert processes.listening(port)
    assert not processes.listening(port)
    assert port < first_of_clients


def test_no_port_is_given_twice_whoever_listens() -> None:
    ports = [processes.free_port() for _ in range(200)]  # of thousands: by chance alone, two would often be the same
    assert len({*ports}) == len(ports)


def test_dots_are_doubled_and_lines_end_in_crlf_on_the_wire() -> None:
    assert dot_stuffed(b".a\nb\n..\n") == b"..a\r\nb\r\n...\r\n.\r\n"
    assert lf(crlf(b"a\r\nb\n")) == b"a\nb\n"


# Postfix, smtp-sink and the clients that send


@pytest.fixture(scope="module")
def receiver(certificate: Certificate) -> Iterator[postfix.Postfix]:
    with postfix.run(["in.example"], tls=certificate, users=dict([LOGIN])) as running:
        yield running


@pytest.mark.parametrize("send", [clients.swaks, clients.curl_send, clients.msmtp])
@pytest.mark.parametrize("tls", [Tls.NONE, Tls.UPGRADE])
def test_a_client_logs_in_to_postfix_and_the_body_arrives_identical(
    send: Send, tls: Tls, receiver: postfix.Postfix, certificate: Certificate
) -> None:
    server = Server(receiver.port, tls, LOGIN, certificate if tls is Tls.UPGRADE else None)
    before = len(receiver.received())
    sent = send(server, SENDER, [RECIPIENT, "second@in.example"], RAW)
    assert sent.code == 0, sent.output
    mails = receiver.wait_received(before + 2)[before:]
    assert {body(mail) for mail in mails} == {BODY}
    assert all(lf(mail).endswith(RAW) for mail in mails), "headers stay as they were, too"
    assert all((b"with ESMTPSA" in mail) is (tls is Tls.UPGRADE) for mail in mails)
    assert {mail.splitlines()[1] for mail in mails} == {
        b"X-Original-To: reader@in.example",
        b"X-Original-To: second@in.example",
    }


@pytest.mark.parametrize("send", [clients.swaks, clients.curl_send, clients.msmtp])
def test_a_sending_client_refuses_a_certificate_that_it_does_not_trust(
    send: Send, receiver: postfix.Postfix, other_certificate: Certificate
) -> None:
    refused = send(Server(receiver.port, Tls.UPGRADE, LOGIN, other_certificate), SENDER, [RECIPIENT], RAW)
    assert refused.code != 0


@pytest.mark.parametrize("send", [clients.swaks, clients.curl_send, clients.msmtp])
def test_a_sending_client_reports_a_refused_login(send: Send, receiver: postfix.Postfix) -> None:
    refused = send(Server(receiver.port, login=("gate post", "wrong")), SENDER, [RECIPIENT], RAW)
    assert refused.code != 0
    assert "535" in refused.output


@pytest.mark.parametrize("send", [clients.swaks, clients.curl_send, clients.msmtp])
def test_a_sending_client_speaks_tls_from_the_first_byte(send: Send, certificate: Certificate) -> None:
    asked: list[bytes] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 tls.peer.example\r\n")
        asked.append(await reader.readline())
        writer.write(b"421 4.3.2 no more than this\r\n")

    with loop.serving(converse, tls=certificate.server_context()) as port:
        sent = send(Server(port, Tls.IMPLICIT, trust=certificate), SENDER, [RECIPIENT], RAW, within=5)
    assert asked[0].upper().startswith(b"EHLO ")
    assert sent.code != 0


def test_postfix_demands_a_login_where_it_has_users(receiver: postfix.Postfix) -> None:
    with smtplib.SMTP(receiver.host, receiver.port, timeout=10) as session:
        session.ehlo()
        session.mail(SENDER)
        assert session.rcpt(RECIPIENT)[0] == 554


def test_postfix_relays_what_sendmail_gives_it_with_login_and_tls(receiver: postfix.Postfix) -> None:
    before = len(receiver.received())
    with postfix.run(relayhost=(receiver.host, receiver.port), relay_login=LOGIN) as sender:
        sender.send(SENDER, [RECIPIENT], RAW)
        mail = receiver.wait_received(before + 1)[-1]
        assert sender.queue() == []
    assert body(mail) == BODY
    assert b"with ESMTPSA" in mail


def deferred(sender: postfix.Postfix) -> list[dict[str, Any]]:
    return [mail for mail in sender.queue() if mail["queue_name"] == "deferred"]


def test_postfix_keeps_deferred_mail_and_sends_it_when_flushed() -> None:
    port = processes.free_port()
    with postfix.run(relayhost=(processes.HOST, port)) as sender:
        with smtp_sink.run(soft=["RCPT"], soft_reply="451 4.7.1 come back later", port=port) as later:
            sender.send(SENDER, [RECIPIENT], RAW)
            (waiting,) = processes.wait_until(lambda: deferred(sender), 10, "the deferral")
            assert "come back later" in waiting["recipients"][0]["delay_reason"]
            assert later.received() == []
        with smtp_sink.run(port=port) as sink:
            sender.flush()
            assert body(sink.wait_received(1)[0].raw) == BODY
        processes.wait_until(lambda: sender.queue() == [], 10, "the queue to be empty")


def test_postfix_sends_nothing_to_the_world_without_a_relayhost() -> None:
    with postfix.run(["in.example"]) as alone:
        alone.send("reader@in.example", ["someone@elsewhere.example"], RAW)
        (bounce,) = alone.wait_received(1)
    assert b"this Postfix sends nothing onwards" in bounce
    assert b"message/delivery-status" in bounce


def test_smtp_sink_keeps_envelope_and_message(sink: smtp_sink.SmtpSink) -> None:
    with smtplib.SMTP(sink.host, sink.port, "client.example", timeout=10) as session:
        session.sendmail(SENDER, [RECIPIENT, "b@in.example"], crlf(RAW), mail_options=["BODY=8BITMIME"])
    (dump,) = sink.wait_received(1)
    assert (dump.helo, dump.raw) == (b"client.example", RAW)
    assert dump.mail == b"<sender@out.example> BODY=8BITMIME"
    assert dump.recipients == (b"<reader@in.example>", b"<b@in.example>")


@pytest.mark.parametrize("command", ["CONNECT", "MAIL", "RCPT", "DATA", "."])
def test_smtp_sink_refuses_softly_and_hard_at_each_command(command: str) -> None:
    for code, running in (("450", smtp_sink.run(soft=[command])), ("500", smtp_sink.run(hard=[command]))):
        with running as refusing:
            dialog = clients.swaks(Server(refusing.port), SENDER, [RECIPIENT], RAW)
        assert dialog.code != 0
        assert f"<** {code} " in dialog.output


@pytest.mark.parametrize("command", ["CONNECT", "MAIL", "DATA", "."])
def test_smtp_sink_hangs_up_without_a_word_or_after_421(command: str) -> None:
    with smtp_sink.run(hang_up=[command]) as silent:
        dialog = clients.swaks(Server(silent.port), SENDER, [RECIPIENT], RAW)
        assert "<** 421 " not in dialog.output
        assert dialog.code != 0
    with smtp_sink.run(close_421=[command]) as polite:
        dialog = clients.swaks(Server(polite.port), SENDER, [RECIPIENT], RAW)
        assert "<** 421 " in dialog.output


def test_smtp_source_loads_smtp_sink_over_parallel_sessions(sink: smtp_sink.SmtpSink) -> None:
    done = smtp_sink.load(sink.port, messages=200, sessions=10, size=2000)
    assert done.code == 0, done.text
    assert len(sink.wait_received(200)) == 200


# Dovecot and the clients that fetch


@pytest.fixture(scope="module")
def maildrop(certificate: Certificate) -> Iterator[dovecot.Dovecot]:
    with dovecot.run(dict([POP3_LOGIN]), certificate) as running:
        yield running


def drop(maildrop: dovecot.Dovecot, tls: Tls, trust: Certificate | None) -> Server:
    return Server(maildrop.tls_port if tls is Tls.IMPLICIT else maildrop.port, tls, POP3_LOGIN, trust)


@pytest.mark.parametrize("fetch", [clients.fetchmail, clients.mpop])
@pytest.mark.parametrize("tls", list(Tls))
def test_a_client_fetches_identical_bytes_and_deletes_them(
    fetch: Fetch, tls: Tls, maildrop: dovecot.Dovecot, certificate: Certificate
) -> None:
    mails = [RAW.replace(b"as it was sent", b"number %d" % number) for number in range(3)]
    for number, mail in enumerate(mails):
        maildrop.put("alice", str(number), mail)
    server = drop(maildrop, tls, None if tls is Tls.NONE else certificate)
    kept = fetch(server, keep=True)
    fetched = fetch(server)
    assert kept.messages == fetched.messages == tuple(mails), fetched.output
    assert (kept.code, fetched.code) == (0, 0)
    assert fetch(server).messages == ()


@pytest.mark.parametrize("fetch", [clients.fetchmail, clients.mpop, clients.curl_fetch])
@pytest.mark.parametrize("tls", [Tls.UPGRADE, Tls.IMPLICIT])
def test_a_fetching_client_refuses_a_certificate_that_it_does_not_trust(
    fetch: Fetch, tls: Tls, maildrop: dovecot.Dovecot, other_certificate: Certificate
) -> None:
    refused = fetch(drop(maildrop, tls, other_certificate))
    assert refused.code != 0
    assert refused.messages == ()


@pytest.mark.parametrize("tls", list(Tls))
def test_curl_lists_fetches_and_deletes(tls: Tls, maildrop: dovecot.Dovecot) -> None:
    maildrop.put("alice", "1", RAW)
    server = drop(maildrop, tls, None)
    assert clients.curl_fetch(server).messages == (b"1 %d\r\n" % len(crlf(RAW)),)
    assert clients.curl_fetch(server, "1").messages == (crlf(RAW),)
    assert clients.curl_fetch(server, "", "--request", "UIDL").messages[0].startswith(b"1 ")
    assert clients.curl_fetch(server, "1", "--request", "DELE", "--list-only").code == 0
    assert clients.curl_fetch(server).messages[0].strip() == b""


def test_poplib_reads_from_dovecot_with_the_certificate_checked(
    maildrop: dovecot.Dovecot, certificate: Certificate
) -> None:
    session = poplib.POP3_SSL(maildrop.host, maildrop.tls_port, context=certificate.client_context(), timeout=10)
    session.user(POP3_LOGIN[0])
    session.pass_(POP3_LOGIN[1])
    assert session.stat() == (0, 0)
    session.quit()


# clamd


def test_clamd_finds_eicar_and_passes_all_else(real_clamd: clamd.Clamd) -> None:
    assert real_clamd.scan(clamd.EICAR) == f"stream: {clamd.EICAR_NAME} FOUND".encode()
    assert real_clamd.scan(RAW) == b"stream: OK"
    assert real_clamd.command(b"PING") == b"PONG"


def test_clamd_answers_on_its_unix_socket(real_clamd: clamd.Clamd) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(real_clamd.unix_socket))
        connection.sendall(b"zINSTREAM\0" + struct.pack("!L", len(clamd.EICAR)) + clamd.EICAR + bytes(4))
        assert connection.recv(1000) == f"stream: {clamd.EICAR_NAME} FOUND\0".encode()


def test_clamd_finds_the_test_file_in_every_container(real_clamd: clamd.Clamd) -> None:
    files = sorted(clamd.TESTFILES.iterdir()) if clamd.TESTFILES.exists() else processes.unavailable("clamav-testfiles")
    answers = {file.name: real_clamd.scan(file.read_bytes()) for file in files}
    assert len(answers) > 40
    assert set(answers.values()) == {f"stream: {clamd.TESTFILE_NAME} FOUND".encode()}


def test_clamd_passes_a_test_file_with_one_bit_changed(real_clamd: clamd.Clamd) -> None:
    file = clamd.TESTFILES / "clam.exe"
    data = bytearray(file.read_bytes() if file.exists() else processes.unavailable("clamav-testfiles"))
    data[0x70] ^= 1
    assert real_clamd.scan(bytes(data)) == b"stream: OK"


def test_clamd_learns_signatures_while_it_runs_and_keeps_its_limit() -> None:
    with clamd.run(stream_max_length=10_000) as own:
        assert own.scan(b"a new evil") == b"stream: OK"
        own.write_signatures({"New.Evil-1": b"new evil"})
        assert own.scan(b"a new evil") == b"stream: New.Evil-1.UNOFFICIAL FOUND"
        assert own.scan(clamd.EICAR) == f"stream: {clamd.EICAR_NAME} FOUND".encode()
        assert own.scan(b"x" * 10_001) == b"INSTREAM size limit exceeded. ERROR"


# the clamd that errs


def connected(peer: fake_clamd.FakeClamd | faketcp.FakePeer | dovecot.Dovecot, timeout: float = 5) -> socket.socket:
    port = peer.tls_port if isinstance(peer, dovecot.Dovecot) else peer.port
    return socket.create_connection((peer.host, port), timeout)


def instream(fake: fake_clamd.FakeClamd, data: bytes) -> bytes | None:
    """The answer, or None when there is none: as a client sees it that sends all before it reads."""
    answer = b""
    with connected(fake, 0.5) as connection, suppress(OSError):
        connection.sendall(b"zINSTREAM\0" + struct.pack("!L", len(data)) + data + bytes(4))
        while chunk := connection.recv(100):
            answer += chunk
    return answer or None


@pytest.mark.parametrize(
    ("mode", "answers"),
    [
        ("ok", {b"stream: OK\0"}),
        ("found", {b"stream: Eicar-Test-Signature FOUND\0"}),
        ("err", {b"stream: Heuristics.Limits.Exceeded.MaxScanTime ERROR\0"}),
        ("close_now", {None}),
        ("hang", {None}),
        ("die_after", {None}),
        ("die_mid", {None}),
        ("limit", {b"INSTREAM size limit exceeded. ERROR\0", None}),
        ("frag", {b"stream: Eicar-Test-Signature FOUND\0"}),
        ("slowread", {b"stream: OK\0"}),
    ],
)
def test_the_fake_clamd_errs_as_its_mode_says(mode: str, answers: set[bytes | None]) -> None:
    with fake_clamd.run(fake_clamd.Mode(mode)) as fake:
        assert instream(fake, b"x" * 300_000) in answers


def test_the_fake_clamd_has_ten_modes_and_changes_them_while_it_runs() -> None:
    assert len(fake_clamd.Mode) == 10
    with fake_clamd.run() as fake:
        assert instream(fake, b"abc") == b"stream: OK\0"
        fake.mode = fake_clamd.Mode.FOUND
        assert instream(fake, b"defg") == b"stream: Eicar-Test-Signature FOUND\0"
        fake.mode = fake_clamd.Mode.DIE_MID
        assert instream(fake, b"x" * 100_000) is None
    assert [(stream.data[:4], stream.ended) for stream in fake.streams] == [(b"abc", 1), (b"defg", 1), (b"xxxx", 0)]


def test_the_fake_clamd_notes_bytes_after_the_end_of_a_mail() -> None:
    with fake_clamd.run() as fake, connected(fake) as connection:
        connection.sendall(b"nINSTREAM\n" + struct.pack("!L", 2) + b"ab" + bytes(4) + b"more")
        assert connection.recv(100) == b"stream: OK\n"
    (stream,) = fake.streams
    assert (stream.data, stream.chunks, stream.extra) == (b"ab", 1, b"more")


def test_the_fake_clamd_listens_on_a_unix_socket_too() -> None:
    with processes.workspace("fake") as home, fake_clamd.run(path=home / "clamd") as fake:
        assert fake.unix_socket
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(fake.unix_socket))
            connection.sendall(b"zPING\0")
            assert connection.recv(100) == b"PONG\0"


def test_no_thread_of_a_fake_outlives_its_block_even_while_it_hangs() -> None:
    before = threading.active_count()
    with fake_clamd.run(fake_clamd.Mode.HANG) as fake, connected(fake) as connection:
        connection.sendall(b"zINSTREAM\0")
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


# the scripted peer


def say_to_script(script: str, words: bytes) -> None:
    with faketcp.run(script) as peer, connected(peer) as connection:
        connection.sendall(words)
        while connection.recv(100):
            pass


def test_a_script_upgrades_to_tls_and_resets_after_data(certificate: Certificate) -> None:
    script = r"""
        S: 220 scripted.peer.example
        C: EHLO .*
        R: 250-scripted.peer.example\r\n250 STARTTLS\r\n
        C: STARTTLS
        S: 220 go on
        starttls
        C: EHLO .*
        S: 250 scripted.peer.example
        C: MAIL FROM:<sender@out\.example>
        S: 250 fine
        C: RCPT TO:<reader@in\.example>
        S: 250 fine
        C: DATA
        S: 354 go on
        data
        reset
    """
    with faketcp.run(script, "S: 421 4.3.2 not now", certificate=certificate) as peer:
        dialog = clients.swaks(Server(peer.port, Tls.UPGRADE, trust=certificate), SENDER, [RECIPIENT], RAW)
        assert dialog.code != 0
        with pytest.raises(smtplib.SMTPConnectError, match="not now"):
            smtplib.SMTP(peer.host, peer.port, timeout=5)
        processes.wait_until(lambda: peer.completed == 2, 5, "both scripts to end")
    assert peer.received[0].endswith(b"DATA\r\n" + dot_stuffed(RAW))


def test_a_client_that_leaves_the_script_fails_the_test() -> None:
    with pytest.raises(faketcp.Unexpected, match="HELO wrong"):
        say_to_script("S: 220 hello\nC: EHLO .*", b"HELO wrong\r\n")


def test_a_script_can_hang_until_the_test_ends() -> None:
    with faketcp.run("S: 220 hello\nhang") as peer, connected(peer, 0.2) as connection:
        assert connection.recv(100) == b"220 hello\r\n"
        with pytest.raises(TimeoutError):
            connection.recv(100)


def test_a_fault_in_a_fake_itself_is_raised_and_not_taken_for_a_closed_connection() -> None:
    with pytest.raises(RuntimeError, match="handler"):
        say_to_script("no-such-step", b"")


# unbound


RECORDS = {
    ("mx.example", "MX"): ["10 a.mx.example.", "20 b.mx.example."],
    ("a.mx.example", "A"): ["127.0.0.1"],
    ("a.mx.example", "AAAA"): ["::1"],
    ("alias.test", "CNAME"): ["mx.example."],
    ("text.example", "TXT"): ['v=spf1 "quoted" \\ -all ' + "z" * 300],
    ("big.example", "TXT"): [f"{number:03d}" + "y" * 200 for number in range(20)],
    ("1.0.0.127.in-addr.arpa", "PTR"): ["a.mx.example."],
    ("null.example", "MX"): ["0 ."],
}


def ask(resolver: Dns, name: str, kind: str, lifetime: float = 5.0) -> list[str]:
    asking = dns.resolver.Resolver(configure=False)
    asking.nameservers, asking.port, asking.lifetime = [resolver.host], resolver.port, lifetime
    return sorted(rdata.to_text() for rdata in asking.resolve(name, kind))


def rcode(resolver: Dns, name: str) -> str:
    question = dns.message.make_query(name, "A")
    return dns.rcode.to_text(dns.query.udp(question, resolver.host, 5, resolver.port).rcode())


def test_unbound_answers_with_the_records_of_the_test(resolver: Dns) -> None:
    resolver.replace(RECORDS)
    assert ask(resolver, "mx.example", "MX") == ["10 a.mx.example.", "20 b.mx.example."]
    assert ask(resolver, "alias.test", "MX") == ask(resolver, "mx.example", "MX")
    assert ask(resolver, "a.mx.example", "AAAA") == ["::1"]
    assert ask(resolver, "1.0.0.127.in-addr.arpa", "PTR") == ["a.mx.example."]
    assert ask(resolver, "null.example", "MX") == ["0 ."]
    assert rcode(resolver, "nobody.example") == "NXDOMAIN"


def test_unbound_cuts_long_texts_and_truncates_what_does_not_fit_udp(resolver: Dns) -> None:
    resolver.replace(RECORDS)
    (text,) = ask(resolver, "text.example", "TXT")
    assert text == '"v=spf1 \\"quoted\\" \\\\ -all ' + "z" * 232 + '" "' + "z" * 68 + '"'
    question = dns.message.make_query("big.example", "TXT")
    assert dns.query.udp(question, resolver.host, 5, resolver.port).flags & dns.flags.TC
    assert len(dns.query.tcp(question, resolver.host, 5, resolver.port).answer[0]) == 20
    assert len(ask(resolver, "big.example", "TXT")) == 20


def test_unbound_takes_changed_records_at_once(resolver: Dns) -> None:
    resolver.replace({("old.example", "A"): ["192.0.2.1"], ("both.example", "A"): ["192.0.2.1"]})
    assert ask(resolver, "both.example", "A") == ["192.0.2.1"]
    assert rcode(resolver, "new.example") == "NXDOMAIN"
    resolver.replace({("new.example", "A"): ["192.0.2.2"], ("both.example", "A"): ["192.0.2.2"]})
    assert ask(resolver, "both.example", "A") == ask(resolver, "new.example", "A") == ["192.0.2.2"]
    assert rcode(resolver, "old.example") == "NXDOMAIN"


def test_unbound_fails_refuses_or_keeps_silent_and_heals(resolver: Dns) -> None:
    resolver.replace(RECORDS)
    resolver.fail("mx.example")
    assert (rcode(resolver, "a.mx.example"), rcode(resolver, "text.example")) == ("SERVFAIL", "NOERROR")
    resolver.heal("mx.example")
    resolver.refuse("mx.example")
    assert rcode(resolver, "a.mx.example") == "REFUSED"
    resolver.heal("mx.example")
    resolver.ignore("mx.example")
    with pytest.raises(dns.exception.Timeout):
        ask(resolver, "a.mx.example", "A", lifetime=0.2)
    resolver.clear()
    assert rcode(resolver, "a.mx.example") == "NXDOMAIN"
    resolver.replace(RECORDS)
    assert ask(resolver, "a.mx.example", "A") == ["127.0.0.1"]


def test_text_of_a_record_is_quoted_in_strings_of_255_bytes() -> None:
    assert quoted("") == '""'
    assert quoted('a"b\\\né') == '"a\\034b\\092\\010\\195\\169"'
    assert [len(part) for part in quoted("x" * 600).split()] == [257, 257, 92]


# certificates


def test_a_certificate_is_trusted_by_its_own_context_and_by_no_other(
    certificate: Certificate, other_certificate: Certificate, maildrop: dovecot.Dovecot
) -> None:
    trusting, doubting = certificate.client_context(), other_certificate.client_context()
    with connected(maildrop) as plain, trusting.wrap_socket(plain, server_hostname="localhost") as tls:
        assert tls.version() == "TLSv1.3"
    with connected(maildrop) as plain, pytest.raises(ssl.SSLCertVerificationError):
        doubting.wrap_socket(plain, server_hostname="localhost")
    assert certificate.fingerprint != other_certificate.fingerprint

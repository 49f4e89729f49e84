"""Processes die, and are told to stop: accepted mail is there afterwards, and what was under way is finished."""

import os
import signal
import socket
from collections.abc import Iterator
from typing import BinaryIO

import pytest

from tests.e2e import gateway as gateways
from tests.e2e import mails
from tests.e2e.gateway import Gateway, started, taken, transaction
from tests.peers import processes, smtp_sink
from tests.peers.certificates import Certificate
from tests.peers.clamd import Clamd
from tests.peers.dns import Dns
from tests.reliability import family

pytestmark = pytest.mark.e2e

OUTSIDE, ALICE = "ann@out.example", "alice@in.example"


@pytest.fixture(scope="module")
def own(certificate: Certificate, names: Dns, real_clamd: Clamd, elsewhere: int) -> Iterator[Gateway]:
    """A gateway whose processes may be killed; leases run out after two seconds."""
    policies = {
        "antivirus": gateways.shipped("antivirus", sockets=f'["unix:{real_clamd.unix_socket}"]'),
        "queue": gateways.shipped("queue", lease='"2s"', poll='"1s"'),
        "routes": gateways.routes({"slow.example": elsewhere}),
    }
    with gateways.run(certificate, dns=names.port, policies=policies, smtp_processes=2, may_fail=True) as running:
        yield running


@pytest.mark.parametrize("role", gateways.ROLES)
def test_a_killed_process_is_started_again_and_accepted_mail_is_there(own: Gateway, role: str) -> None:
    before, after = mails.dots(), mails.dots()
    own.put(OUTSIDE, [ALICE], before)
    name = own.unique_id("alice", before)
    pid = own.wait_pid(role)
    mark = own.mark()
    os.kill(pid, signal.SIGKILL)
    own.wait_event("process ended", mark, process=f"{role}-1", how="signal 9")
    own.wait_pid(role, other_than=pid)
    own.put(OUTSIDE, [ALICE], after)
    arrived = own.fetch("alice")
    assert mails.same(mails.find(arrived, before), before)
    assert mails.same(mails.find(arrived, after), after)
    assert own.unique_id("alice", before) == name


def test_while_one_process_is_being_started_again_another_takes_mail(own: Gateway) -> None:
    pid = own.wait_pid("smtp")
    os.kill(pid, signal.SIGKILL)
    assert len(own.put(OUTSIDE, [ALICE], *[mails.mail() for _ in range(5)])) == 5
    own.wait_pid("smtp", other_than=pid)


def test_mail_in_flight_survives_the_death_of_the_deliverer(own: Gateway, elsewhere: int) -> None:
    raw = mails.large(sender=ALICE, recipient="x@slow.example")
    pid = own.wait_pid("deliver")
    with smtp_sink.run(port=elsewhere, delays=["DATA:60"]):
        with own.session("relay") as client:
            mail_id = taken(transaction(client, ALICE, ["x@slow.example"], raw))
        processes.wait_until(lambda: _is_connected(elsewhere), 20, "the connection")
        os.kill(pid, signal.SIGKILL)
    with smtp_sink.run(port=elsewhere) as sink:
        own.wait_pid("deliver", other_than=pid)
        dump = sink.wait_received(1, within=30)[0]
        own.wait_event("attempt", id=mail_id, state="sent")
    assert mails.same(dump.raw, raw)
    assert [fate["delivery"]["state"] for fate in own.life(mail_id)["deliveries"]] == ["sent"]


def _is_connected(port: int) -> bool:
    return any(local.endswith(f":{port:04X}") and state == "01" for local, state in processes._tcp_sockets())


def test_a_stop_lets_a_mail_in_data_finish_and_the_next_start_finds_everything(own: Gateway) -> None:
    early, late = mails.dots(), mails.newsletter()
    own.put(OUTSIDE, [ALICE], early)
    client = socket.create_connection(("127.0.0.1", own.ports["mx"]), 30)
    with client, client.makefile("rb") as replies:
        _say(client, replies, b"", b"220")
        _say(client, replies, b"HELO client.example\r\n", b"250")
        _say(client, replies, b"MAIL FROM:<ann@out.example>\r\n", b"250")
        _say(client, replies, b"RCPT TO:<alice@in.example>\r\n", b"250")
        _say(client, replies, b"DATA\r\n", b"354")
        half = len(late) // 2
        client.sendall(late[:half])
        os.kill(own.process.pid, signal.SIGTERM)
        processes.wait_until(lambda: not (own.home / "var/run/deliver-1.pid").exists(), 30, "the deliverer to end")
        _say(client, replies, late[half:] + b".\r\n", b"250")
        assert replies.readline()[:3] in (b"421", b"")
    own.process.popen.wait(30)
    assert own.process.popen.returncode == 0
    assert not own.events("ended by force")
    with started(own.home, own.ports, own.certificate, own.passwords) as again:
        arrived = again.fetch("alice")
        assert mails.same(mails.find(arrived, early), early)
        assert mails.same(mails.find(arrived, late), late)


def test_processes_whose_supervisor_was_killed_end_and_the_next_start_finds_everything(own: Gateway) -> None:
    """Its data is taken over, so the shared gateway of this module has to be gone, whichever test has ended it."""
    if own.process.popen.returncode is None:
        own.stop()
    raw = mails.dots()
    with started(own.home, own.ports, own.certificate, own.passwords) as doomed:
        doomed.put(OUTSIDE, [ALICE], raw)
        pids = [doomed.wait_pid(role) for role in gateways.ROLES]
        os.kill(doomed.process.pid, signal.SIGKILL)
        doomed.process.popen.wait(10)
        processes.wait_until(lambda: not any(map(family.runs, pids)), 30, "the processes to end by themselves")
    with started(own.home, own.ports, own.certificate, own.passwords) as again:
        assert mails.same(mails.find(again.fetch("alice"), raw), raw)


def _say(client: socket.socket, replies: BinaryIO, words: bytes, expected: bytes) -> None:
    client.sendall(words)
    line = replies.readline()
    assert line.startswith(expected), line


def test_a_second_gateway_on_the_same_data_does_not_start(gateway: Gateway) -> None:
    done = gateway.cli("run")
    assert done.code == 1
    assert "already runs" in done.stderr
    assert gateway.put(OUTSIDE, [ALICE], mails.mail())

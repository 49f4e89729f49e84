"""Peers who mean harm, against the whole product: slow ones by the hundred, and those who guess passwords."""

import base64
import smtplib
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.bench import usage
from tests.e2e import gateway as gateways
from tests.e2e.gateway import Gateway
from tests.peers.certificates import Certificate
from tests.peers.clamd import Clamd
from tests.peers.dns import Dns
from tests.reliability import slow

pytestmark = pytest.mark.e2e

EACH = 100
SECONDS = 4.0
IDLE = 300
"""Connections, each of which may take 30 KB."""


@pytest.fixture(scope="module")
def own(certificate: Certificate, names: Dns, real_clamd: Clamd) -> Iterator[Gateway]:
    policies = {
        "antivirus": gateways.shipped("antivirus", sockets=f'["unix:{real_clamd.unix_socket}"]'),
        "edge": slow.edge(SECONDS),
        "logins": gateways.shipped("logins", delay='"0s"', free_per_user="2"),
    }
    with gateways.run(certificate, dns=names.port, policies=policies) as running:
        yield running


def test_slow_peers_neither_delay_an_honest_one_nor_stay(own: Gateway) -> None:
    slow.run(own, EACH, SECONDS, pause=0.5).check()


def test_idle_connections_cost_next_to_nothing(own: Gateway) -> None:
    usage.settle(own.process.pid)
    before = usage.memory(own.process.pid)
    with ExitStack() as stack:
        for number in range(IDLE):
            source = (f"127.8.{number // 50}.{number % 50 + 1}", 0)
            peer = stack.enter_context(socket.create_connection(("127.0.0.1", own.ports["mx"]), 30, source))
            assert peer.recv(3) == b"220"
        assert usage.memory(own.process.pid) - before < IDLE * 30 / 1024


def test_guesses_over_smtp_and_pop3_count_together_and_hold_back_nobody_elsewhere(own: Gateway) -> None:
    name, password = own.login("alice")
    here, elsewhere = ("127.0.0.88", 0), ("127.0.0.99", 0)
    assert submit(own, here, name, "wrong") == 535
    assert fetch(own, here, name, "wrong").startswith(b"-ERR [AUTH]")
    assert submit(own, here, name, password) == 454
    assert fetch(own, here, name, password).startswith(b"-ERR [SYS/TEMP] too many wrong passwords")
    assert submit(own, elsewhere, name, password) == 235
    assert fetch(own, elsewhere, name, password).startswith(b"+OK")


def submit(own: Gateway, source: tuple[str, int], name: str, password: str) -> int:
    """The code that AUTH is answered with at the submission port."""
    word = base64.b64encode(f"\0{name}\0{password}".encode()).decode()
    context, port = own.certificate.client_context(), own.ports["submissions"]
    with smtplib.SMTP_SSL("127.0.0.1", port, timeout=30, source_address=source, context=context) as client:
        client.ehlo("client.example")
        return client.docmd("AUTH", f"PLAIN {word}")[0]


def fetch(own: Gateway, source: tuple[str, int], name: str, password: str) -> bytes:
    """The line that the password is answered with at the POP3 port."""
    with (
        socket.create_connection(("127.0.0.1", own.ports["pop3s"]), 30, source) as plain,
        own.certificate.client_context().wrap_socket(plain, server_hostname="127.0.0.1") as secured,
        secured.makefile("rwb") as lines,
    ):
        for command in (f"USER {name}", f"PASS {password}"):
            lines.readline()
            lines.write(command.encode() + b"\r\n")
            lines.flush()
        return lines.readline()

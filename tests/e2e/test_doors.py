"""At the door: strangers wait for the greeting; behind a real proxy the peer is the client, in log, header and policies."""

import smtplib
import socket
import time
from collections.abc import Iterator

import pytest

from tests.e2e import gateway as gateways
from tests.e2e import mails
from tests.e2e.gateway import Gateway, taken, transaction
from tests.peers import haproxy, processes
from tests.peers.certificates import Certificate
from tests.peers.clamd import Clamd
from tests.peers.dns import Dns

pytestmark = pytest.mark.e2e

CLIENT = "127.0.0.77"
DELAY = 0.4
LISTENERS = """
[[listeners]]
name = "behind1"
kind = "mx"
address = "127.0.0.1:{mx1}"
proxy_from = ["127.0.0.1/32"]

[[listeners]]
name = "behind2"
kind = "mx"
address = "127.0.0.1:{mx2}"
proxy_from = ["127.0.0.1/32"]

[[listeners]]
name = "behind3"
kind = "submission"
address = "127.0.0.1:{submissions}"
tls = "implicit"
proxy_from = ["127.0.0.1/32"]

[[pop3]]
name = "behind4"
address = "127.0.0.1:{pop3s}"
tls = "implicit"
proxy_from = ["127.0.0.1/32"]
"""


@pytest.fixture(scope="module")
def inner() -> dict[str, int]:
    return {name: processes.free_port() for name in ("mx1", "mx2", "submissions", "pop3s")}


@pytest.fixture(scope="module")
def own(certificate: Certificate, names: Dns, real_clamd: Clamd, inner: dict[str, int]) -> Iterator[Gateway]:
    policies = {
        "antivirus": gateways.shipped("antivirus", sockets=f'["unix:{real_clamd.unix_socket}"]'),
        "edge": gateways.shipped("edge", greeting_exempt="[]", greeting_delay=f'"{DELAY}s"'),
    }
    more = LISTENERS.format(**inner)
    with gateways.run(certificate, dns=names.port, policies=policies, more=more) as running:
        yield running


@pytest.fixture(scope="module")
def outer(own: Gateway, inner: dict[str, int]) -> Iterator[dict[str, int]]:
    words = {name: "send-proxy" if name == "mx1" else "send-proxy-v2" for name in inner}
    with haproxy.run({inner[name]: words[name] for name in inner}) as ports:
        yield {name: ports[inner[name]] for name in inner}


@pytest.mark.parametrize("name", ["mx1", "mx2"], ids=["version 1", "version 2"])
def test_the_peer_of_a_mail_is_the_client_of_the_proxy(own: Gateway, outer: dict[str, int], name: str) -> None:
    with smtplib.SMTP("127.0.0.1", outer[name], timeout=30, source_address=(CLIENT, 0)) as client:
        client.ehlo("client.example")
        reply = transaction(client, "ann@out.example", ["alice@in.example"], mails.mail())
    event = own.wait_event("accepted", id=taken(reply))
    assert event["peer"] == CLIENT
    with own.opened("alice") as box:
        newest = b"\n".join(box.retr(box.stat()[0])[1])
    assert f"[{CLIENT}]".encode() in newest


def test_people_log_in_through_the_proxy_over_tls(own: Gateway, outer: dict[str, int]) -> None:
    since = own.mark()
    context = own.certificate.client_context()
    with smtplib.SMTP_SSL(
        "127.0.0.1", outer["submissions"], timeout=30, source_address=(CLIENT, 0), context=context
    ) as client:
        client.login(*own.login("alice"))
    assert own.wait_event("login", since)["peer"] == CLIENT


def test_pop3_is_served_behind_the_proxy_too(own: Gateway, outer: dict[str, int]) -> None:
    since = own.mark()
    with (
        socket.create_connection(("127.0.0.1", outer["pop3s"]), 30, (CLIENT, 0)) as plain,
        own.certificate.client_context().wrap_socket(plain, server_hostname="127.0.0.1") as secured,
        secured.makefile("rwb") as lines,
    ):
        assert lines.readline().startswith(b"+OK")
        name, password = own.login("alice")
        for command in (f"USER {name}", f"PASS {password}", "QUIT"):
            lines.write(command.encode() + b"\r\n")
            lines.flush()
            assert lines.readline().startswith(b"+OK")
    assert own.wait_event("pop3-login", since)["peer"] == CLIENT


def test_who_comes_past_the_proxy_is_not_let_in(own: Gateway, inner: dict[str, int]) -> None:
    """Nor can he say that he is somebody else: from an address that is no proxy's, no header is heard."""
    since = own.mark()
    with socket.create_connection(("127.0.0.1", inner["mx1"]), 30, (CLIENT, 0)) as straight:
        straight.sendall(b"PROXY TCP4 127.0.0.1 127.0.0.1 1 1\r\nEHLO x\r\n")
        assert straight.makefile("rb").readline().startswith(b"554 5.7.1")
    assert own.wait_event("connection refused", since)["peer"] == CLIENT


def greeting(own: Gateway, source: str, said: bytes = b"") -> tuple[bytes, float]:
    """The first line at the mx port for a peer at *source* that begins with *said*, and the seconds it took."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", own.ports["mx"]), 30, (source, 0)) as peer:
        peer.sendall(said)
        return peer.makefile("rb").readline(), time.monotonic() - began


def test_a_stranger_waits_for_the_greeting_once(own: Gateway) -> None:
    line, seconds = greeting(own, "127.0.0.81")
    assert line.startswith(b"220 ")
    assert seconds >= DELAY
    line, seconds = greeting(own, "127.0.0.81")
    assert line.startswith(b"220 ")
    assert seconds < DELAY


def test_who_speaks_before_the_greeting_is_sent_away_every_time(own: Gateway) -> None:
    for _ in range(2):
        since = own.mark()
        line, seconds = greeting(own, "127.0.0.82", b"EHLO spam.example\r\n")
        assert line.startswith(b"554 5.5.0 You spoke before our greeting")
        assert seconds < DELAY
        assert own.wait_event("connection refused", since)["peer"] == "127.0.0.82"

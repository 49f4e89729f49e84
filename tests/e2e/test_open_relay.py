"""Three hundred ways to write a recipient, against the whole gateway: it relays for no stranger, whatever they call themselves.

What is taken is routed and logged as it was normalised. The forms are data: tests/dialogs/recipients.txt.
"""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e import gateway as gateways
from tests.e2e import mails
from tests.e2e.gateway import Gateway
from tests.peers.certificates import Certificate
from tests.peers.dns import Dns

pytestmark = pytest.mark.e2e

TABLE = Path(__file__).parents[1] / "dialogs/recipients.txt"
REPLY = re.compile(rb"[245][0-9]{2} [245]\.[0-9]\.[0-9]{1,2} [ -~]{1,400}\r\n")
OURS = {"alice@in.example", "postmaster", "postmaster@in.example", "postmaster@gw.peer.example"}
STRANGERS = [
    ("client.example", "ann@out.example"),
    ("gw.peer.example", "alice@in.example"),
    ("[127.0.0.1]", "carol@dst.example"),
    ("in.example", ""),
]


class Form(NamedTuple):
    """What is said behind RCPT, the reply that it gets, and the address that comes out where it is taken."""

    said: bytes
    reply: bytes
    address: str


def form_of(line: str) -> Form:
    if line.startswith("250"):
        _, address, said = line.split(maxsplit=2)
        return Form(unescaped(said), b"250 2.1.5", address)
    return Form(unescaped(line[10:]), line[:9].encode(), "")


def unescaped(text: str) -> bytes:
    return text.encode().decode("unicode_escape").encode("latin-1")


FORMS = [form_of(line) for line in TABLE.read_text("utf-8").splitlines() if not line.startswith("#")]


@pytest.fixture(scope="module")
def own(certificate: Certificate, names: Dns) -> Iterator[Gateway]:
    """A gateway that lets one session try as often as it likes."""
    patience = {"commands": "100000", "errors": "100000", "unknown_recipients": "100000"}
    policies = {"edge": gateways.shipped("edge", **patience), "antivirus": gateways.lenient("antivirus")}
    with gateways.run(certificate, dns=names.port, policies=policies) as running:
        yield running


class Talk:
    """A session by the octet."""

    def __init__(self, peer: socket.socket) -> None:
        self.peer, self.file = peer, peer.makefile("rb")

    def ask(self, said: bytes, count: int = 1) -> list[bytes]:
        """Say one line; the *count* replies to it, each of them in form."""
        self.peer.sendall(said + b"\r\n")
        heard = [self.file.readline(1000) for _ in range(count)]
        assert all(map(REPLY.fullmatch, heard)), (said, heard)
        return heard

    def greet(self, helo: str) -> None:
        self.file.readline()
        self.peer.sendall(f"EHLO {helo}\r\n".encode())
        while self.file.readline()[3:4] == b"-":
            pass

    def begin(self, sender: str) -> None:
        self.ask(b"RSET")
        assert self.ask(f"MAIL FROM:<{sender}> SMTPUTF8".encode()) == [b"250 2.1.0 Sender accepted\r\n"]


@contextmanager
def talking(gateway: Gateway, helo: str) -> Iterator[Talk]:
    with socket.create_connection(("127.0.0.1", gateway.ports["mx"]), 20) as peer:
        talk = Talk(peer)
        talk.greet(helo)
        yield talk


@pytest.mark.parametrize(("helo", "sender"), STRANGERS)
def test_no_way_to_write_a_recipient_makes_a_relay(own: Gateway, helo: str, sender: str) -> None:
    since, wrong = own.mark(), []
    with talking(own, helo) as talk:
        for form in FORMS:
            talk.begin(sender)
            first, *others = talk.ask(b"RCPT " + form.said, 1 + form.said.count(b"\n"))
            if not first.startswith(form.reply) or any(other.startswith(b"2") for other in others):
                wrong.append((form, first, others))
    assert wrong == []
    assert not own.events("accepted", since)
    refused = own.events("command refused", since)
    assert len(refused) >= len(FORMS) - 20
    log = own.process.log.read_bytes()[since:].splitlines(keepends=True)
    assert [line for line in log if line.startswith(b"{") and not is_one_line(line)] == []  # not what is said to people


def is_one_line(line: bytes) -> bool:
    """Whether *line* of the log is an event by itself, of which nothing could move a cursor or turn the text around."""
    return line.endswith(b"}\n") and line[:-1].decode("ascii").isprintable() and "event" in json.loads(line)


def test_what_is_taken_is_routed_and_logged_as_normalised(own: Gateway) -> None:
    since, own_forms = own.mark(), [form for form in FORMS if form.address]
    own.empty("alice")
    raw = mails.mail()
    with talking(own, "client.example") as talk:
        for form in own_forms:
            talk.begin("ann@out.example")
            assert talk.ask(b"RCPT " + form.said)[0].startswith(b"250 2.1.5")
            assert talk.ask(b"BDAT %d LAST\r\n" % len(raw) + raw.removesuffix(b"\r\n"))[0].startswith(b"250 2.0.0")
    accepted = own.events("accepted", since)
    assert [one["recipient"] for one in accepted] == [form.address for form in own_forms]
    for one in accepted[4::11]:  # each costs a process
        (fate,) = own.life(one["id"])["deliveries"]
        assert fate["delivery"]["recipient"]["address"] == one["recipient"]
        assert fate["delivery"]["mailbox"] == "alice@in.example"
    assert len(own.fetch("alice")) == len(own_forms)
    assert own.cli("queue", "list", "--json").json == []
    assert not own.events("attempt", since)


def test_the_table_has_what_it_promises() -> None:
    assert len(FORMS) > 280
    assert {form.address.lower().replace("+|id", "").replace("+tag", "").replace("+@", "@") for form in FORMS} == {
        *OURS,
        "",
    }

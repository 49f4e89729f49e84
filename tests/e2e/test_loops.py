"""Mail that goes in circles comes to an end, and so does the report about it."""

from collections.abc import Iterator

import pytest

from tests.e2e import gateway as gateways
from tests.e2e import mails
from tests.e2e.gateway import Gateway, taken, transaction
from tests.peers import processes
from tests.peers.certificates import Certificate
from tests.peers.dns import Dns

pytestmark = pytest.mark.e2e

HOPS = 8
"""Fewer than the shipped 50, or the test would take its time."""


@pytest.fixture(scope="module")
def pair(certificate: Certificate, names: Dns) -> Iterator[tuple[Gateway, Gateway]]:
    """Two gateways, each of which takes the other for the way to loop.example."""
    ports = gateways.free_ports(), gateways.free_ports()
    policies = [
        {
            "routes": gateways.routes({"loop.example": theirs["relay"]}),
            "edge": gateways.shipped("edge", hops=str(HOPS)),
            "antivirus": gateways.lenient("antivirus"),
        }
        for theirs in reversed(ports)
    ]
    with (
        gateways.run(certificate, dns=names.port, policies=policies[0], ports=ports[0]) as one,
        gateways.run(certificate, dns=names.port, policies=policies[1], ports=ports[1]) as two,
    ):
        yield one, two


def accepted(pair: tuple[Gateway, Gateway]) -> int:
    return sum(len(one.events("accepted")) for one in pair)


def submit(gateway: Gateway, sender: str, recipient: str) -> None:
    with gateway.session("relay") as client:
        taken(transaction(client, sender, [recipient], mails.newsletter(sender=sender, recipient=recipient)))


def failed(pair: tuple[Gateway, Gateway], recipient: str) -> tuple[Gateway, str]:
    """The gateway that gave up, as soon as one has, and the reply that it got."""

    def look() -> list[tuple[Gateway, str]]:
        return [
            (one, event["reply"])
            for one in pair
            for event in one.events("attempt", recipient=recipient, state="failed")
        ]

    (found,) = processes.wait_until(look, 40, f"the end of the mail to {recipient}")
    return found


def test_two_gateways_that_point_at_each_other_give_up_and_tell_the_sender(pair: tuple[Gateway, Gateway]) -> None:
    submit(pair[0], "alice@in.example", "bob@loop.example")
    last, reply = failed(pair, "bob@loop.example")
    assert "5.4.6" in reply
    assert b"5.4.6" in last.wait_mail("alice", b"bob@loop.example")
    assert HOPS / 2 < accepted(pair) <= HOPS + 2


def test_a_report_that_goes_in_circles_too_makes_no_further_report(pair: tuple[Gateway, Gateway]) -> None:
    before = accepted(pair)
    submit(pair[1], "carol@loop.example", "dave@loop.example")
    failed(pair, "dave@loop.example")
    last, reply = failed(pair, "carol@loop.example")
    assert "5.4.6" in reply
    noticed = sum(len(one.events("notice", recipient="carol@loop.example")) for one in pair)
    assert noticed == 0
    assert accepted(pair) - before <= 2 * (HOPS + 2)
    assert not any(last.cli("queue", "list", "--json").json)

"""Two gateways that send each other the same domain: the mail ends, soon, and its sender hears of it."""

from collections.abc import Iterator

import pytest

from tests.e2e import gateway as gateways
from tests.e2e import mails
from tests.e2e.gateway import Gateway, taken, transaction
from tests.peers.certificates import Certificate
from tests.peers.dns import Dns

pytestmark = pytest.mark.e2e

HOPS = 10
ALICE, NOWHERE = "alice@in.example", "x@round.example"


def policies(port: int) -> dict[str, str]:
    """Take round.example from everybody, and send it to *port*."""
    return {
        "routes": gateways.routes({"round.example": port}) + "accept_from_world = true\n",
        "edge": gateways.shipped("edge", hops=str(HOPS)),
        "antivirus": gateways.lenient("antivirus"),
        "queue": gateways.shipped("queue", poll='"1s"'),
    }


@pytest.fixture
def pair(certificate: Certificate, names: Dns) -> Iterator[tuple[Gateway, Gateway]]:
    one, other = gateways.free_ports(), gateways.free_ports()
    with (
        gateways.run(certificate, dns=names.port, policies=policies(other["mx"]), ports=one) as first,
        gateways.run(certificate, dns=names.port, policies=policies(one["mx"]), ports=other) as second,
    ):
        yield first, second


def test_a_mail_between_two_gateways_ends_in_one_report(pair: tuple[Gateway, Gateway]) -> None:
    first, _ = pair
    raw = mails.mail(sender=ALICE, recipient=NOWHERE)
    with first.session("relay") as client:
        taken(transaction(client, ALICE, [NOWHERE], raw))
    _, (about,) = mails.report(first.wait_mail("alice", mails.token(raw), within=60))
    assert (about["Action"], about["Status"]) == ("failed", "5.4.6")
    passes = sum(len(one.events("accepted", recipient=NOWHERE)) for one in pair)
    assert passes == HOPS + 1
    assert sum(len(one.events("notice")) for one in pair) == 1
    assert all(one.cli("queue", "list", "--json").json == [] for one in pair)

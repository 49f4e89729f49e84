"""One gateway for all tests that can share it, with its neighbours: resolver, scanner, and a Postfix on either side."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pytest

from filters import dnsbl
from tests.e2e import gateway as gateways
from tests.e2e.gateway import Gateway
from tests.peers import dns, postfix, processes
from tests.peers.certificates import Certificate
from tests.peers.clamd import Clamd
from tests.peers.dns import Dns
from tests.peers.postfix import Postfix

NEIGHBOURS = ("deferring", "refusing", "dropping", "dead", "other")


@dataclass(frozen=True)
class World:
    """The shared gateway and what stands around it.

    Mail to fixed.example goes to `postfix` by a fixed route, mail to mx.example by its MX; mail to NAME.example to
    `neighbours[NAME]`, a port at which a test may start what it likes. `postfix` sends all else to our mx port.
    """

    gateway: Gateway
    postfix: Postfix
    dns: Dns
    neighbours: Mapping[str, int]
    emptied: dict[str, int] = field(default_factory=dict)

    def empty(self, user: str) -> None:
        """Empty the mailbox of *user*, if the log tells of mail since the last time: a login takes its time."""
        since, self.emptied[user] = self.emptied.get(user, 0), self.gateway.mark()
        names = {_local_part(event["recipient"]) for event in self.gateway.events("accepted", since)}
        if not names.isdisjoint({user, "postmaster"}) or self.gateway.events("notice", since):
            self.gateway.empty(user)


def _local_part(address: str) -> str:
    return address.lower().partition("@")[0].partition("+")[0]


@pytest.fixture(scope="session")
def names() -> Iterator[Dns]:
    """What the DNS of the tests knows."""
    records = {
        ("mx.example", "MX"): ["10 mail.mx.example."],
        ("mail.mx.example", "A"): [processes.HOST],
        ("forged.example", "TXT"): ["v=spf1 -all"],
        ("honest.example", "TXT"): [f"v=spf1 ip4:{processes.HOST} -all"],
        ("_dmarc.honest.example", "TXT"): ["v=DMARC1; p=reject"],
        ("null.example", "MX"): ["0 ."],
    }
    records |= {(f"2.0.0.127.{one.zone}", "A"): ["127.0.0.2"] for one in dnsbl.Settings().lists}  # they are well
    with dns.run(records) as running:
        yield running


@pytest.fixture(scope="session")
def world(certificate: Certificate, real_clamd: Clamd, names: Dns) -> Iterator[World]:
    processes.require_root("Postfix")
    ports = gateways.free_ports()
    neighbours = {name: processes.free_port() for name in NEIGHBOURS}
    domains = ["fixed.example", "mx.example"]
    with postfix.run(domains, relayhost=(processes.HOST, ports["mx"]), tls=certificate) as mta:
        via = {f"{name}.example": port for name, port in neighbours.items()} | {"fixed.example": mta.port}
        policies = {
            "routes": gateways.routes(via),
            "relay": gateways.shipped("relay", port=str(mta.port), allow_private='["127.0.0.0/8"]'),
            "spf": gateways.shipped("spf", own_relays="[]"),  # as if loopback were the world
            "dmarc": gateways.shipped("dmarc", own_relays="[]"),
            "reports": gateways.shipped("reports", receive=f'["alice+dmarc@{gateways.DOMAIN}"]'),
            "queue": gateways.shipped("queue", poll='"1s"'),
            "antivirus": gateways.shipped("antivirus", sockets=f'["unix:{real_clamd.unix_socket}"]'),
        }
        users = ("alice", "bob")
        with gateways.run(certificate, dns=names.port, policies=policies, users=users, ports=ports) as running:
            yield World(running, mta, names, neighbours)


@pytest.fixture
def gateway(world: World) -> Gateway:
    """The shared gateway, with empty mailboxes."""
    for user in ("alice", "bob"):
        world.empty(user)
    return world.gateway


@pytest.fixture(scope="module")
def elsewhere() -> int:
    """The port of slow.example, on which a test starts what it needs."""
    return processes.free_port()

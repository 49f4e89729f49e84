"""The owner of a domain hears of the mail in its name: once, signed, from a gateway whose deliverer is killed meanwhile."""

import gzip
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from xml.etree import ElementTree as ET

import dkim
import pytest

from gateway import failpoints
from tests.e2e import gateway as gateways
from tests.e2e import mails
from tests.e2e.gateway import HOSTNAME, Gateway, transaction
from tests.peers import processes, smtp_sink
from tests.peers.certificates import Certificate
from tests.peers.dns import Dns
from tests.peers.wire import crlf

pytestmark = pytest.mark.e2e

OWNER, READER, ALICE = "owner.example", "reader.example", "alice@in.example"
RECORDS = {
    (OWNER, "TXT"): [f"v=spf1 ip4:{processes.HOST} -all"],
    (f"_dmarc.{OWNER}", "TXT"): [f"v=DMARC1; p=reject; sp=none; rua=mailto:dmarc@{READER},mailto:x@victim.example"],
    (f"{OWNER}._report._dmarc.{READER}", "TXT"): ["v=DMARC1"],
    ("else.example", "TXT"): [f"v=spf1 ip4:{processes.HOST} -all"],
}


@dataclass(frozen=True)
class Reporter:
    """A gateway, and the folder of what its processes are to break at."""

    gateway: Gateway
    orders: Path

    def database(self) -> AbstractContextManager[sqlite3.Connection]:
        return closing(sqlite3.connect(self.gateway.home / "var/gatepost.db", timeout=20, isolation_level=None))


@pytest.fixture
def own(certificate: Certificate, names: Dns, elsewhere: int) -> Iterator[Reporter]:
    """A gateway to which loopback is the world, and that reports under whatever name."""
    policies = {
        "antivirus": gateways.lenient("antivirus"),
        "spf": gateways.shipped("spf", own_relays="[]"),
        "dmarc": gateways.shipped("dmarc", own_relays="[]"),
        "reports": gateways.shipped("reports", send='"always"', organisation='"Us & Co"'),
        "queue": gateways.shipped("queue", poll='"1s"'),
        "routes": gateways.routes({READER: elsewhere}),
    }
    names.update(RECORDS)
    with processes.workspace("orders") as orders:
        env = {failpoints.FOLDER: str(orders)}
        with gateways.run(certificate, dns=names.port, policies=policies, may_fail=True, env=env) as running:
            yield Reporter(running, orders)


def test_a_day_s_mail_is_reported_once_and_signed_though_the_deliverer_is_killed(
    own: Reporter, names: Dns, elsewhere: int
) -> None:
    gateway = own.gateway
    keys = _published_keys(gateway, names)
    gateway.put(f"ann@{OWNER}", [ALICE], *[mails.mail(sender=f"ann@{OWNER}") for _ in range(2)])
    with gateway.session() as client:
        code, _ = transaction(client, "ann@else.example", [ALICE], mails.mail(sender=f"ann@{OWNER}"))
    assert code == 550
    assert _close_the_day(own) == 3
    (own.orders / "deliver.report-settle").write_text("kill")
    mark, pid = gateway.mark(), gateway.wait_pid("deliver")
    with smtp_sink.run(port=elsewhere) as sink:
        os.kill(pid, signal.SIGKILL)  # the next one looks at once, and dies of the order
        processes.wait_until(lambda: len(gateway.events("process ended", mark)) == 2, 30, "the second death")
        (dump,) = sink.wait_received(1, within=30)
        assert gateway.cli("dmarc", "send").stdout.strip() == "That is all."
        assert len(sink.received()) == 1
    assert f"dmarc-reports@{HOSTNAME}".encode() in dump.mail
    assert dkim.verify(crlf(dump.raw), dnsfunc=lambda name, **_: keys.get(name.decode().rstrip(".")))
    _demand_report(message_from_bytes(dump.raw))
    with own.database() as database:
        assert database.execute("SELECT count(*) FROM dmarc_observation").fetchone() == (0,)
        ((domain, count, outcome),) = database.execute("SELECT domain, mails, outcome FROM dmarc_sent")
    assert (domain, count) == (OWNER, 3)
    assert outcome.startswith(f"sent to dmarc@{READER}; not to x@victim.example: ")


def _demand_report(mail: Message) -> None:
    assert mail["Subject"].startswith(f"Report Domain: {OWNER}")
    assert mail["From"] == f"DMARC reports <dmarc-reports@{HOSTNAME}>"
    root = ET.fromstring(gzip.decompress(mail.get_payload(1).get_payload(decode=True)))  # type: ignore[union-attr, arg-type]
    name = "{urn:ietf:params:xml:ns:dmarc-2.0}"
    rows = {
        tuple(record.findtext(f".//{name}{one}") for one in ("source_ip", "count", "disposition", "dkim", "spf"))
        for record in root.iter(f"{name}record")
    }
    assert rows == {(processes.HOST, "2", "pass", "fail", "pass"), (processes.HOST, "1", "reject", "fail", "fail")}
    assert root.findtext(f".//{name}org_name") == "Us & Co"
    assert {one.text for one in root.iter(f"{name}envelope_from")} == {OWNER, "else.example"}


def _published_keys(gateway: Gateway, names: Dns) -> dict[str, bytes]:
    """A key for the name of the gateway, with its record in the DNS."""
    (made,) = gateway.cli("dkim", "generate", HOSTNAME, "--json").json
    names.update({(made["name"], "TXT"): [made["value"]]})
    assert gateway.cli("dkim", "show", HOSTNAME).code == 0
    return {made["name"]: made["value"].encode()}


def _close_the_day(own: Reporter) -> int:
    """As if all that was observed had come the day before yesterday; how many that are."""
    with own.database() as database:
        return database.execute("UPDATE dmarc_observation SET at = at - 2 * 86400").rowcount

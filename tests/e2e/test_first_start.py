"""The first start on a machine: demo mailboxes, and a scanner of the gateway's own; the second finds what it made."""

import re
import signal

import pytest

from tests.e2e import gateway as gateways
from tests.e2e import mails
from tests.e2e.gateway import started
from tests.peers import clients, processes
from tests.peers.certificates import Certificate
from tests.peers.clamd import EICAR, Clamd
from tests.peers.dns import Dns

pytestmark = pytest.mark.e2e

OUTSIDE, ALICE = "ann@out.example", "alice@in.example"
MORE = """
[demo]
domain = "in.example"
mailboxes = ["alice", "bob"]

[clamd]
start = true
database = "{signatures}"
"""


def test_it_makes_mailboxes_and_starts_a_scanner_and_the_next_finds_both(
    certificate: Certificate, names: Dns, real_clamd: Clamd
) -> None:
    policies = {"antivirus": gateways.shipped("antivirus", sockets='["unix:@HOME@/var/run/clamd.sock"]')}
    more = MORE.format(signatures=real_clamd.directory / "signatures")
    with gateways.run(certificate, dns=names.port, policies=policies, users=(), more=more) as first:
        first.passwords.update(re.findall(r"^ +(\w+@in\.example) +(\S+)$", first.log(), re.MULTILINE))
        assert first.passwords.keys() == {ALICE, "bob@in.example"}
        processes.wait_until((first.home / "var/run/clamd.sock").exists, 30, "the scanner")
        first.put(OUTSIDE, [ALICE], raw := mails.dots())
        done = clients.swaks(first.mx(), OUTSIDE, [ALICE], mails.attachment("x.txt", EICAR))
        assert "(antivirus/infected)" in done.output
        assert mails.same(first.fetch("alice")[0], raw)
        first.stop()
        assert not processes.listening(first.ports["mx"])
        said = len(first.log())
        with started(first.home, first.ports, certificate, first.passwords) as second:
            assert mails.same(second.fetch("alice")[0], raw)
            assert "shown this once" not in second.log()[said:]
            second.stop(signal.SIGINT)

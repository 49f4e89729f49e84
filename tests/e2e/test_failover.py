"""The database fails over under load, and nothing that got 250 is lost."""

import pytest

from tests.peers.certificates import Certificate
from tests.peers.dns import Dns
from tests.reliability import failover

pytestmark = pytest.mark.e2e


def test_nothing_accepted_is_lost_when_the_standby_takes_over(certificate: Certificate, names: Dns) -> None:
    said: list[str] = []
    outcome = failover.run(certificate, names.port, rounds=1, say=said.append)
    assert outcome.report.accepted >= failover.BEFORE + failover.AFTER
    assert max(outcome.waits) < 15
    assert len(said) == 1

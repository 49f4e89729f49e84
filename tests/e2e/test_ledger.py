"""Nothing that got 250 is lost: processes are killed and stopped under load, and the ledger is compared afterwards."""

from collections.abc import Iterator

import pytest

from tests.peers.certificates import Certificate
from tests.peers.dns import Dns
from tests.reliability.trial import Trial, trial

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def own(certificate: Certificate, names: Dns) -> Iterator[Trial]:
    with trial(certificate, names.port) as running:
        yield running


def test_the_ledger_balances_when_nothing_goes_wrong(own: Trial) -> None:
    own.sender(connections=8).send(60, within=10)
    report = own.settled()
    assert report.accepted == 60
    assert not report.copies
    print(report)

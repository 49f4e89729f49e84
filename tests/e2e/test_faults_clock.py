"""The clock of the machine goes a day forth and back: nothing expires or bounces for it, nothing stays, nobody is cut off."""

import poplib
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.e2e import gateway as gateways
from tests.peers import processes
from tests.peers.certificates import Certificate
from tests.peers.dns import Dns
from tests.reliability import lab, ledger
from tests.reliability.lab import Clock
from tests.reliability.trial import DEFERRING, RELAYED, Trial, trial

pytestmark = [
    pytest.mark.e2e,
    # poplib lets go of its socket without closing it where the server refuses it
    pytest.mark.filterwarnings("ignore:.*SSLSocket:pytest.PytestUnraisableExceptionWarning"),
]

LONG = {"first_retries": '["5m"]', "retry_every": '"30m"', "poll": '"1s"', "warn_after": '"3d"'}


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Clock:
    if not lab.FAKETIME.exists():
        processes.unavailable("needs faketime: see tests/packages.debian")
    return Clock(tmp_path_factory.mktemp("clock") / "shift")


@pytest.fixture(scope="module")
def own(certificate: Certificate, names: Dns, clock: Clock) -> Iterator[Trial]:
    policies = {"queue": gateways.shipped("queue", **LONG)}
    with trial(certificate, names.port, policies=policies, smtp_processes=1, env=clock.environment) as running:
        yield running


GOING = 3
"""Mails that `goes` sends, to the sink and to bob."""


def send(own: Trial, *recipients: str, count: int = 1) -> str:
    """Send mails; return the id of the last. "N" in an address stands for the number."""
    make = lambda number: ledger.mail(number, [one.replace("N", str(number)) for one in recipients])  # noqa: E731
    own.sender(connections=2, make=make).send(count)
    return own.book.entries()[-1].id


def goes(own: Trial) -> None:
    """Mail goes in and out."""
    arrived = len(own.sink.arrivals())
    send(own, f"rN@{RELAYED}", gateways.address("bob"), count=GOING)
    processes.wait_until(lambda: len(own.sink.arrivals()) >= arrived + GOING, 20, "the mail to arrive")


def shifted(own: Trial, clock: Clock, offset: str, days: int) -> None:
    """Put the clock there, and see in the log that it is."""
    clock.shift(offset)
    mark = own.gateway.mark()
    goes(own)
    told = time.strptime(own.gateway.wait_event("accepted", mark)["time"][:19], "%Y-%m-%dT%H:%M:%S")
    assert abs(time.mktime(told) - time.mktime(time.gmtime()) - days * 86400) < 3600


def test_a_day_forth_and_back_costs_nothing(own: Trial, clock: Clock) -> None:
    gateway = own.gateway
    late = send(own, f"late@{DEFERRING}")
    gateway.wait_event("attempt", id=late, state="queued")
    goes(own)
    with ExitStack() as stack:
        smtp = stack.enter_context(gateway.session())
        pop3 = stack.enter_context(gateway.opened("bob"))
        for offset, days in (("+1d", 1), ("-1d", -1), ("+0", 0)):
            shifted(own, clock, offset, days)
            assert smtp.noop()[0] == 250
            assert pop3.stat()[0] == GOING
        with pytest.raises(poplib.error_proto, match="IN-USE"), gateway.opened("bob", leave=True):
            pass
        own.fetched.add((pop3.uidl(1).split()[2].decode().partition(".")[0], gateways.address("bob")))
        pop3.dele(1)
    with gateway.opened("bob") as again:
        assert again.stat()[0] == 4 * GOING - 1
    assert {one["delivery"]["state"] for one in gateway.life(late)["deliveries"]} <= {"queued", "sent"}
    assert not own.judge().check().fates["bounced"]


def test_what_was_planned_while_the_clock_was_ahead_is_tried_when_it_is_right_again(own: Trial, clock: Clock) -> None:
    clock.shift("+1d")
    mail_id = send(own, f"aheadN@{DEFERRING}")
    first = own.gateway.wait_event("attempt", id=mail_id, state="queued")
    clock.shift("+0")
    own.gateway.wait_event("attempt", id=mail_id, attempts=2)
    assert first["time"] > time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())


def test_mail_that_is_on_the_wire_when_the_clock_jumps_is_sent_once(own: Trial, clock: Clock) -> None:
    usual, arrived = own.sink.script, len(own.sink.arrivals())
    own.sink.script = lambda verb, _: 2.0 if verb == "." else None
    send(own, f"rN@{RELAYED}", count=4)
    for offset in ("+1d", "-1d", "+0"):
        clock.shift(offset)
        time.sleep(0.5)
    processes.wait_until(lambda: len(own.sink.arrivals()) >= arrived + 4, 20, "the mail to arrive")
    own.sink.script = usual
    goes(own)
    assert "unexplained" not in own.judge().check().copies

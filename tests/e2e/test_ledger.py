"""Nothing that got 250 is lost: processes die at the worst places, and the ledger is compared afterwards."""

import os
import poplib
import random
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e import gateway as gateways
from tests.peers import processes
from tests.peers.certificates import Certificate
from tests.peers.dns import Dns
from tests.reliability import kill, ledger, power
from tests.reliability.ledger import Report
from tests.reliability.trial import REFUSING, RELAYED, Trial, trial

pytestmark = [
    pytest.mark.e2e,
    # poplib lets go of its socket without closing it where the server dies before its greeting
    pytest.mark.filterwarnings("ignore:.*SSLSocket:pytest.PytestUnraisableExceptionWarning"),
]

rarely_big = ledger.mixed(RELAYED, [gateways.address("alice")], big_every=40)
plain = ledger.mixed(RELAYED, [gateways.address("alice")], big_every=5)
"""Mail that is settled at once: nobody defers it."""

LOST_REPLY = "accepted, but the reply was lost"


@pytest.fixture(scope="module")
def own(certificate: Certificate, names: Dns) -> Iterator[Trial]:
    with trial(certificate, names.port) as running:
        yield running


@dataclass(frozen=True)
class Part:
    """What one test adds to the ledger; the law is checked on all of it."""

    trial: Trial
    entries: int
    before: Report

    @classmethod
    def of(cls, own: Trial) -> "Part":
        return cls(own, len(own.book.entries()), own.settled())

    def hows(self) -> list[str]:
        """How each try to send ended, in order."""
        return [entry.how for entry in self.trial.book.entries()[self.entries :]]

    def settled(self) -> tuple[Counter[str], Counter[str]]:
        """New copies and fates, once nothing waits any more."""
        after = self.trial.settled()
        return after.copies - self.before.copies, after.fates - self.before.fates


def test_the_ledger_balances_when_nothing_goes_wrong(own: Trial) -> None:
    part = Part.of(own)
    own.sender(connections=8).send(40)
    copies, fates = part.settled()
    assert part.hows() == ["accepted"] * 40
    assert not copies
    assert set(fates) == {"delivered", "bounced", "mailbox"}


def test_what_is_acknowledged_survives_a_power_cut_at_every_moment(own: Trial, tmp_path: Path) -> None:
    result = power.run(own, 50, tmp_path, random.Random(1), rarely_big).check()
    assert result.acknowledged == 50
    assert result.flushes > 10


def test_whatever_is_killed_under_load_mail_flows_again_and_nothing_is_lost(own: Trial) -> None:
    result = kill.run(own, 10, random.Random(1))
    assert set(result.killed) == set(kill.TARGETS)
    assert result.report.fates["delivered"] > 10


# A stop, unlike a kill, leaves no reply unsaid


def test_a_stop_under_load_answers_every_client_and_ends_in_time(own: Trial) -> None:
    part = Part.of(own)
    with own.load():
        processes.wait_until(lambda: part.hows().count("accepted") > 20, 30, "the load")
        own.gateway.process.popen.terminate()
        assert own.stop() < 15  # a second SIGTERM neither hastens nor hinders it
    assert own.gateway.process.popen.returncode == 0
    own.restart()
    part.settled()
    assert "unknown" not in part.hows()


def test_idle_clients_do_not_delay_a_stop(own: Trial) -> None:
    idle = socket.create_connection(("127.0.0.1", own.gateway.ports["mx"]), 20)
    with own.gateway.opened("bob", leave=True) as mailbox, idle, idle.makefile("rb") as replies:
        assert mailbox.noop().startswith(b"+OK")
        assert replies.readline().startswith(b"220")
        seconds = own.stop()
        assert replies.readline().startswith(b"421")
    own.restart()
    assert seconds < 4


def test_roles_that_are_told_to_end_finish_and_are_started_again(own: Trial) -> None:
    part, mark = Part.of(own), own.gateway.mark()
    roles = ("smtp", "deliver")
    pids = {role: own.gateway.wait_pid(role) for role in roles}
    with own.load():
        processes.wait_until(lambda: part.hows().count("accepted") > 20, 30, "the load")
        for role in roles:
            os.kill(pids[role], signal.SIGTERM)
        for role in roles:
            own.gateway.wait_event("process ended", mark, process=f"{role}-1", how="exit code 0")
            own.gateway.wait_pid(role, other_than=pids[role])
        own.wait_works()
    copies, _ = part.settled()
    assert not copies
    assert "unknown" not in part.hows()


# Before the COMMIT: nobody was promised anything, and nothing is kept


@pytest.mark.parametrize("what", ["kill", "raise"])
@pytest.mark.parametrize("place", ["spooled", "judged", "entered", "stored", "commit"])
def test_what_breaks_before_the_commit_leaves_nothing(own: Trial, place: str, what: str) -> None:
    part = Part.of(own)
    own.order(f"smtp.{place}", what)
    own.sender(connections=1, make=plain).send(2)
    copies, _ = part.settled()
    assert part.hows() == ["unknown" if what == "kill" else "refused", "accepted", "accepted"]
    assert not copies


# After it: it is kept, once, whether we could say so or not


def test_what_breaks_between_commit_and_reply_is_kept_and_the_client_sends_it_again(own: Trial) -> None:
    part = Part.of(own)
    own.order("smtp.committed")
    own.sender(connections=1, make=plain).send(2)
    copies, _ = part.settled()
    assert part.hows() == ["unknown", "accepted", "accepted"]
    assert copies == {LOST_REPLY: 1}


def test_what_breaks_after_the_reply_is_kept_once(own: Trial) -> None:
    part = Part.of(own)
    own.order("smtp.answered")
    own.sender(connections=1, make=plain).send(2)
    copies, _ = part.settled()
    assert part.hows() == ["accepted", "accepted"]
    assert not copies


# On the way out: a copy comes only of what the next hop had taken, and we could not write down


@pytest.mark.parametrize(("place", "copied"), [("claimed", 0), ("sent", 1), ("settle", 1), ("settled", 0)])
def test_a_delivery_that_breaks_off_is_done_again(own: Trial, place: str, copied: int) -> None:
    part = Part.of(own)
    own.order(f"deliver.{place}")
    own.sender(connections=1, make=lambda number: ledger.mail(number, [f"x@{RELAYED}"])).send(1)
    own.wait_broken(f"deliver.{place}")
    own.note(f"a kill at {place}")
    copies, fates = part.settled()
    assert copies.total() == copied
    assert fates == {"delivered": 1}


@pytest.mark.parametrize("place", ["notice", "notice-settle", "noticed"])
def test_a_sender_is_told_once(own: Trial, place: str) -> None:
    part = Part.of(own)
    own.order(f"deliver.{place}")
    own.sender(connections=1, make=lambda number: ledger.mail(number, [f"x@{REFUSING}"])).send(1)
    own.wait_broken(f"deliver.{place}")
    copies, fates = part.settled()
    assert not copies
    assert fates == {"bounced": 1}


# POP3: what DELE marks is there until UPDATE is durable, and gone afterwards


@pytest.mark.parametrize(("place", "user", "left"), [("update", "alice", 2), ("updated", "bob", 0)])
def test_an_update_that_breaks_off_is_done_whole_or_not_at_all(own: Trial, place: str, user: str, left: int) -> None:
    own.fetch(user)
    own.sender(connections=1, make=lambda number: ledger.mail(number, [gateways.address(user)])).send(2)
    pid = own.gateway.wait_pid("pop3")
    own.order(f"pop3.{place}")
    with pytest.raises((poplib.error_proto, OSError)):
        own.fetch(user)
    assert len(own.mailbox(user)) == left
    own.gateway.wait_pid("pop3", other_than=pid)
    own.settled()

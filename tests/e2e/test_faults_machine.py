"""The machine fails: no room, no descriptors, a store that somebody holds. Mail is refused for now, none is lost or doubled,
`status` says what is wrong, and all goes on by itself."""

import os
import poplib
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.e2e import gateway as gateways
from tests.e2e import mails
from tests.peers import processes
from tests.peers.certificates import Certificate
from tests.peers.dns import Dns
from tests.reliability import faults, lab
from tests.reliability.faults import Site

pytestmark = [
    pytest.mark.e2e,
    # poplib lets go of its socket without closing it where the server refuses it
    pytest.mark.filterwarnings("ignore:.*SSLSocket:pytest.PytestUnraisableExceptionWarning"),
]

LASTS = 0.7
"""Seconds that a fault lasts."""
FULL, LATER, POLICY = "452 4.3.1", "451 4.3.0", "451 4.7.1"


@pytest.fixture(scope="module")
def own(certificate: Certificate, names: Dns) -> Iterator[Site]:
    with faults.site(certificate, names.port) as running:
        yield running


def codes(outcome: faults.Outcome) -> set[str]:
    """Code and status of each refusal."""
    return {reply[:9] for reply in outcome.replies}


def test_where_the_store_has_no_room_mail_gets_452_and_status_says_so(own: Site) -> None:
    troubles: dict[str, str] = {}
    wait_refused = faults.until_refused(own)

    def meanwhile() -> None:
        wait_refused()
        troubles.update(own.troubles())

    outcome = faults.under(own, faults.FAULTS["no room for the store"], LASTS, meanwhile)
    assert codes(outcome) == {FULL}
    assert re.match(r"0 MB free of \d+, room for 0 messages", troubles["disk"])


def test_where_the_spool_has_no_room_large_mail_gets_452_and_small_mail_passes(own: Site) -> None:
    seen: list[int] = []
    wait_refused = faults.until_refused(own)

    def small() -> None:
        wait_refused()
        seen.extend(len(own.trial.gateway.put("ann@out.example", ["bob@in.example"], mails.mail())) for _ in range(3))

    outcome = faults.under(own, faults.FAULTS["no room for the spool"], LASTS, small)
    assert codes(outcome) == {FULL}
    assert seen == [1, 1, 1]


def test_where_the_run_folder_has_no_room_mail_flows_and_killed_processes_come_back(own: Site) -> None:
    old = {role: own.pid(role) for role in ("smtp", "pop3")}
    gateway, mark = own.trial.gateway, own.trial.gateway.mark()

    def kill() -> None:
        for pid in old.values():
            os.kill(pid, signal.SIGKILL)
        own.trial.note("a kill")
        for role in old:
            gateway.wait_event("not announced", mark, process=f"{role}-1")
        assert "disk of run" in own.troubles()
        own.trial.wait_works()

    outcome = faults.under(own, faults.FAULTS["no room in the run folder"], 0.2, kill)
    assert not any(code[0].isdigit() for code in codes(outcome)), "only what the killed process had in hand broke off"
    for role, pid in old.items():
        gateway.wait_pid(role, other_than=pid)


@pytest.mark.parametrize("call", ["flush", "write"])
def test_while_the_disk_fails_mail_gets_451_and_what_was_promised_stays(own: Site, call: str) -> None:
    outcome = faults.under(own, faults.FAULTS[f"the disk fails at a {call}"], LASTS, faults.until_refused(own))
    assert codes(outcome) == {LATER}


def test_while_somebody_holds_the_store_mail_gets_451_and_pop3_says_later(own: Site) -> None:
    troubles: dict[str, str] = {}
    wait_refused = faults.until_refused(own)

    def meanwhile() -> None:
        wait_refused()
        with pytest.raises(poplib.error_proto, match="SYS/TEMP"), own.trial.gateway.opened("alice", leave=True):
            pass
        troubles.update(own.troubles())

    outcome = faults.under(own, faults.store_locked, LASTS, meanwhile)
    assert codes(outcome) == {LATER}
    assert "the store is locked" in troubles["store"]
    assert own.trial.gateway.events("delivery waits", why="the store is locked")


def test_a_session_that_could_not_delete_because_the_store_was_held_leaves_the_maildrop_as_it_was(own: Site) -> None:
    with own.trial.gateway.opened("alice", leave=True) as client:
        before = client.stat()
        client.dele(1)
        with faults.store_locked(own), pytest.raises(poplib.error_proto, match="SYS/TEMP"):
            client.quit()
    with own.trial.gateway.opened("alice") as client:
        assert client.stat() == before


def test_without_a_descriptor_mail_is_refused_for_now_and_nothing_spins(own: Site) -> None:
    pid, used = own.pid("smtp"), list[float]()
    mark, wait_refused = own.trial.gateway.mark(), faults.until_refused(own)

    def knock() -> None:
        """Connections that cannot be taken must not keep the process busy, beside what the load costs."""
        with ExitStack() as stack:
            for _ in range(8):
                stack.enter_context(socket.create_connection(("127.0.0.1", own.trial.gateway.ports["mx"]), 5))
            before = lab.cpu_seconds(pid)
            time.sleep(0.5)
            used.append(lab.cpu_seconds(pid) - before)
            wait_refused()

    outcome = faults.under(own, faults.no_descriptors("smtp"), LASTS, knock)
    assert codes(outcome) <= {LATER, POLICY, "421 4.3.2"}
    assert outcome.replies
    assert own.pid("smtp") == pid
    assert used[0] < 0.4
    assert len(own.trial.gateway.events("failure", mark)) < 2000


@pytest.mark.parametrize("role", ["deliver", "pop3"])
def test_without_a_descriptor_a_role_waits_and_goes_on(own: Site, role: str) -> None:
    pid = own.pid(role)
    outcome = faults.under(own, faults.no_descriptors(role), LASTS)
    assert outcome.replies == ()
    assert own.pid(role) == pid


def test_a_deliverer_that_cannot_connect_for_lack_of_descriptors_bounces_nothing(own: Site) -> None:
    hang_up = lambda verb, _: "421 4.3.2 Closing" if verb == "MAIL" else None  # noqa: E731
    usual = own.trial.sink.script
    before = own.trial.judge().fates

    def part() -> None:
        own.trial.sink.script = hang_up  # what is open closes, and nothing can be opened
        time.sleep(LASTS)
        own.trial.sink.script = usual

    outcome = faults.under(own, faults.no_descriptors("deliver"), 0.2, part)
    assert outcome.report.fates["bounced"] == before["bounced"]


def test_a_pop3_server_without_descriptors_does_not_spin_and_serves_again(own: Site) -> None:
    pid = own.pid("pop3")
    with faults.no_descriptors("pop3")(own):
        clients = [
            processes.socket.create_connection(("127.0.0.1", own.trial.gateway.ports["pop3"]), 5) for _ in "1234"
        ]
        before = lab.cpu_seconds(pid)
        time.sleep(0.5)
        assert lab.cpu_seconds(pid) - before < 0.25
        for client in clients:
            client.close()
    with own.trial.gateway.opened("alice") as client:
        assert client.stat()[0]
    assert own.pid("pop3") == pid


def test_the_maildrop_of_a_killed_server_is_open_at_once(own: Site) -> None:
    """Its lease would last for a minute."""
    gateway = own.trial.gateway
    with gateway.opened("alice", leave=True) as client:
        count = client.stat()[0]
        client.dele(1)
        pid = own.pid("pop3")
        os.kill(pid, signal.SIGKILL)
        gateway.wait_pid("pop3", other_than=pid)
        with gateway.opened("alice") as again:
            assert again.stat()[0] == count
    own.trial.note("a kill")


def test_what_was_sent_and_could_not_be_written_down_is_not_sent_again(own: Site) -> None:
    """The next hop has it; a full disk keeps us from saying so for longer than any patience of the first tries."""
    sink, gateway = own.trial.sink, own.trial.gateway
    usual, arrived = sink.script, len(sink.arrivals())
    sink.script = lambda verb, _: 0.7 if verb == "." else None
    load = own.trial.sender(connections=2, make=faults.mails)
    load.send(4)
    with own.data.full():
        processes.wait_until(lambda: len(sink.arrivals()) >= arrived + 4, 20, "the mail to arrive")
        end = time.monotonic() + 4.0  # two leases
        while time.monotonic() < end:
            own.data.fill_again()
            time.sleep(0.1)
        assert len(sink.arrivals()) == arrived + 4
    sink.script = usual
    own.trial.settled(30)
    assert len(sink.arrivals()) == arrived + 4
    assert gateway.events("attempt", state="sent")


def test_a_start_without_room_says_so_in_a_line_and_a_start_with_room_finds_everything(own: Site) -> None:
    """The last test of this gateway: it is stopped here."""
    gateway = own.trial.gateway
    before = own.trial.settled(30)
    gateway.stop()
    own.trial.store.close()
    for path in (own.data.folder / "gatepost.db-shm", own.data.folder / "gatepost.db-wal"):
        assert not path.exists()
    with own.data.full(), own.run.full():
        done = gateway.cli("run")
    assert done.code == 3
    assert "Traceback" not in done.stderr
    assert done.stderr == "the store is full\n"
    with gateways.started(gateway.home, gateway.ports, gateway.certificate, gateway.passwords, may_fail=True):
        assert own.trial.judge().check().fates == before.fates

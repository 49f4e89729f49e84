"""Two whole gateways share one database: each mail is worked on once, whichever of them took it, and whichever dies."""

import os
import poplib
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway import stages
from tests.e2e import gateway as gateways
from tests.e2e import mails
from tests.e2e.gateway import Gateway, taken, transaction
from tests.peers import processes
from tests.peers.certificates import Certificate
from tests.peers.dns import Dns
from tests.peers.postgres import Postgres
from tests.reliability import trial
from tests.reliability.nodes import Nodes, nodes

pytestmark = pytest.mark.e2e

OUTSIDE, ALICE = "ann@out.example", "alice@in.example"
LEASE = 3.0


@pytest.fixture(scope="module")
def two(certificate: Certificate, names: Dns, database: Postgres) -> Iterator[Nodes]:
    name = database.create()
    policies = {"queue": queue_policy("60s")}
    with nodes(certificate, names.port, database.url(name), policies=policies) as running:
        yield running
    database.drop(name)


def queue_policy(poll: str) -> str:
    """Short leases, and housekeeping all the time."""
    values = {**trial.QUEUE, "lease": f'"{LEASE}s"', "poll": f'"{poll}"', "housekeeping": '"0.5s"'}
    return gateways.shipped("queue", **values)


def set_poll(two: Nodes, poll: str) -> None:
    """How often both look for work by themselves: what is tried again, and what the dead have left, rings no bell."""
    for one in two.gateways:
        text, mark = queue_policy(poll), one.mark()
        if (one.home / "policies/queue.toml").read_text() != text:
            one.write_policy("queue", text)
            one.wait_policies(mark)


@contextmanager
def stopped(own: Gateway, role: str) -> Iterator[None]:
    """A process that hangs."""
    pid = own.wait_pid(role)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def arrived(two: Nodes, mail_id: str) -> bool:
    return any(one.id == mail_id for one in two.sink.arrivals())


def test_the_shipped_lease_of_a_dead_node_is_taken_over_within_half_a_minute() -> None:
    queue = stages.load(None).queue
    assert queue.lease + queue.poll <= 30


def test_a_node_wakes_the_deliverer_of_the_other(two: Nodes) -> None:
    set_poll(two, "60s")
    first, second = two.gateways
    raw = mails.mail()
    with stopped(first, "deliver"):
        time.sleep(0.1)
        with first.session() as client:
            mail_id = taken(transaction(client, OUTSIDE, [f"x@{trial.RELAYED}"], raw))
        began = time.monotonic()
        processes.wait_until(lambda: arrived(two, mail_id), 10, "the other node to deliver")
        assert time.monotonic() - began < 1
    second.wait_event("attempt", id=mail_id, state="sent")


def test_both_take_and_deliver_and_nothing_comes_twice(two: Nodes) -> None:
    set_poll(two, "0.5s")
    two.sender(connections=8).send(120)
    report = two.settled()
    assert not report.copies, report
    assert report.fates["delivered"] > 50
    assert report.fates["bounced"] > 5  # each sender was told once, or the law is broken
    assert all(one.events("attempt", state="sent") for one in two.gateways)


def test_a_maildrop_is_open_on_one_node_at_a_time(two: Nodes) -> None:
    first, second = two.gateways
    raw = mails.dots()
    first.put(OUTSIDE, [ALICE], raw)
    with first.opened("alice"), pytest.raises(poplib.error_proto, match="IN-USE"), second.opened("alice", leave=True):
        pass
    assert mails.same(mails.find(second.fetch("alice"), raw), raw)
    assert first.unique_id("alice", raw) == second.unique_id("alice", raw)


def test_either_node_shows_and_changes_the_same_queue(two: Nodes) -> None:
    first, second = two.gateways
    raw = mails.attachment("tools.zip", mails.zipped("setup.exe", mails.program()), "application/zip")
    with first.session() as client:
        mail_id = taken(transaction(client, OUTSIDE, [f"x@{trial.RELAYED}"], raw))
    (held,) = [one for one in second.cli("quarantine", "list", "--json").json if one["message_id"] == mail_id]
    assert second.cli("quarantine", "release", str(held["delivery_id"])).code == 0
    processes.wait_until(lambda: arrived(two, mail_id), 10, "what was released to arrive")
    checks = {one["name"]: one for one in first.cli("status", "--json").json["checks"]}
    assert checks["store"]["ok"]
    assert checks["deliveries"]["text"].startswith("0 queued")


def test_a_killed_node_is_taken_over_when_its_leases_run_out(two: Nodes) -> None:
    """All of it dies at once, amid the delivery, and nobody on that machine starts it again. Last: the node is gone."""
    set_poll(two, "0.5s")
    first, second = two.gateways
    two.sink.script = lambda verb, _: 60.0 if verb == "." else None
    with stopped(second, "deliver"):
        with first.session() as client:
            mail_id = taken(transaction(client, OUTSIDE, [f"x@{trial.RELAYED}"], mails.mail()))
        processes.wait_until(lambda: "lease_owner" in lease(two, mail_id), 10, "the lease")
        for pid in [first.process.pid, *(first.wait_pid(role) for role in gateways.ROLES)]:
            os.kill(pid, signal.SIGKILL)
        first.process.popen.wait(10)
        two.note("the death of a node")
    two.sink.script = trial.moody()
    began = time.monotonic()
    processes.wait_until(lambda: arrived(two, mail_id), LEASE + 10, "the other node to take over")
    assert time.monotonic() - began < LEASE + 2
    two.settled()
    assert not Path(f"/proc/{first.process.pid}").exists()


def lease(two: Nodes, mail_id: str) -> list[str]:
    """Who works on the mail."""
    with two.store.reading() as conn:
        rows = conn.exec_driver_sql("SELECT lease_owner FROM delivery WHERE message_id = %s", (mail_id,)).all()
    return [*(["lease_owner"] if any(owner for (owner,) in rows) else [])]

"""The queue is emptied by the schedule and within the limits; leases hold, and nothing is lost or sent without need."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from gateway.delivery.runner import HELD
from gateway.model import Recipient, Report, ReportRecord, State, Temporary
from gateway.stages import Queue, Routes
from gateway.store import messages, queue, reports
from gateway.store.reports import Received
from tests.gateway.delivery.fakes import BOB, LATER, NEVER, NOW, unreachable


def test_a_mail_is_tried_by_the_schedule_warned_of_once_and_returned_in_the_end(house) -> None:
    house.queue = Queue(expire_after=12 * 3600.0)
    house.hosts.answers["8.8.8.1"] = [LATER] * 1000
    mail = house.put(BOB)
    moments: list[float] = []
    told: list[tuple[float, list[str]]] = []
    while house.states(mail) == ["queued"]:
        house.now = max(house.now, house.look(mail)[0].next_attempt)
        moments.append(house.now - NOW)
        house.work_off()
        if len(house.listener.told) > len(told):
            told.append((house.now - NOW, house.listener.told[-1]))
    waits = [later - earlier for earlier, later in pairwise(moments)]
    assert waits[:4] == [pytest.approx(wait, rel=0.051) for wait in (300, 600, 1200, 1800)]
    assert all(1800 <= wait <= 1890 for wait in waits[3:-1])
    assert [what for _, what in told] == [[f"delayed {BOB}"], [f"failed {BOB}"]]
    assert 4 * 3600 <= told[0][0] <= 4 * 3600 + 1900
    assert told[1][0] == 12 * 3600
    assert house.states(mail) == ["failed"]
    status = house.listener.notices[1][1].get_payload(1).get_payload()[1]["Status"]
    assert status == "4.4.7"


def test_what_is_not_due_is_left_alone(house) -> None:
    house.put(BOB)
    house.now -= 1
    house.work_off()
    assert house.hosts.got == []


def test_a_lease_that_ran_out_hands_the_mail_to_the_next_and_the_first_changes_nothing(house) -> None:
    mail = house.put(BOB)

    async def race() -> None:
        house.hosts.gate = asyncio.Event()
        first = asyncio.create_task(house.runner().work_off())
        while not house.hosts.got:
            await asyncio.sleep(0.001)
        house.now += house.queue.lease + 1
        slow, house.hosts.gate = house.hosts.gate, None
        house.hosts.answers["8.8.8.1"] = [LATER, NEVER]
        await house.runner().work_off()
        slow.set()
        await first

    asyncio.run(race())
    [delivery] = house.look(mail)
    assert (delivery.state, delivery.attempts, delivery.last_reply) == (State.QUEUED, 1, str(LATER))
    assert house.listener.notices == []


def test_a_lease_is_renewed_while_the_mail_is_on_the_wire(house) -> None:
    mail = house.put(BOB)

    async def race() -> None:
        house.hosts.gate = asyncio.Event()
        runner = house.runner()
        first = asyncio.create_task(runner.work_off())
        while not house.hosts.got:
            await asyncio.sleep(0.001)
        house.now += house.queue.lease - 1
        await runner.keep_leases()
        house.now += house.queue.lease - 1
        await house.runner().work_off()
        assert len(house.hosts.got) == 1
        house.hosts.gate.set()
        await first

    asyncio.run(race())
    assert house.states(mail) == ["sent"]


def test_one_destination_gets_no_more_connections_than_the_policy_says(house) -> None:
    house.queue = Queue(per_destination=2, concurrency=9)
    mails = [house.put(BOB) for _ in range(12)]
    house.work_off()
    assert house.hosts.most == 2
    assert {house.states(mail)[0] for mail in mails} == {"sent"}


def test_there_are_no_more_connections_in_all_than_the_policy_says(house) -> None:
    house.queue = Queue(per_destination=2, concurrency=3)
    domains = [f"d{n}.example" for n in range(6)]
    house.reach(*domains)
    mails = [house.put(f"x@{domain}") for domain in domains for _ in range(3)]

    async def run() -> None:
        house.hosts.gate = asyncio.Event()
        working = asyncio.create_task(house.runner().work_off())
        async with asyncio.timeout(10):
            while house.hosts.now < 3:
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        house.hosts.gate.set()
        await working

    asyncio.run(run())
    assert house.hosts.most == 3
    assert {house.states(mail)[0] for mail in mails} == {"sent"}


def test_mail_that_waited_behind_a_dead_destination_does_not_try_it_again_one_by_one(house) -> None:
    house.queue = Queue(per_destination=1)
    house.hosts.answers["8.8.8.1"] = [unreachable()]
    mails = [house.put(BOB) for _ in range(5)]
    house.work_off()
    assert len(house.hosts.got) == 1
    assert [house.states(mail) for mail in mails] == [["queued"]] * 5
    house.now += 400
    house.work_off()
    assert [house.states(mail) for mail in mails] == [["sent"]] * 5


async def stopped(house, after: int) -> None:
    """Run until *after* mails are on the wire, then stop."""
    stop = asyncio.Event()
    running = asyncio.create_task(house.runner().run(stop))
    while len(house.hosts.got) < after:
        await asyncio.sleep(0.001)
    stop.set()
    await asyncio.sleep(0.02)
    if house.hosts.gate:
        house.hosts.gate.set()
    await running


def test_a_stop_finishes_what_is_on_the_wire_and_gives_back_the_rest(house) -> None:
    house.queue = Queue(per_destination=1)
    house.hosts.gate = asyncio.Event()
    first, second = house.put(BOB), house.put(BOB)
    asyncio.run(stopped(house, 1))
    assert (house.states(first), house.states(second)) == (["sent"], ["queued"])
    house.hosts.gate = None
    house.work_off()  # another runner, at the same moment: the lease is gone
    assert house.states(second) == ["sent"]


def test_a_stop_does_not_wait_for_ever(house) -> None:
    house.queue = Queue(drain=0.01)
    house.hosts.gate = asyncio.Event()
    mail = house.put(BOB)
    gate, stop = house.hosts.gate, asyncio.Event()

    async def run() -> None:
        running = asyncio.create_task(house.runner().run(stop))
        while not house.hosts.got:
            await asyncio.sleep(0.001)
        stop.set()
        await running

    asyncio.run(run())
    assert not gate.is_set()
    house.hosts.gate = None
    house.work_off()
    assert house.states(mail) == ["sent"]


def test_a_stop_writes_down_what_one_host_took_while_another_keeps_us_waiting(house) -> None:
    house.queue = Queue(drain=0.01)
    house.dns.table |= {"MX there.example": [(1, "a.x"), (2, "b.x")], "A a.x": ["8.8.8.8"], "A b.x": ["8.8.8.9"]}
    house.hosts.elsewhere = True
    house.hosts.answers["8.8.8.8"] = [{BOB: LATER}]
    house.hosts.hanging = {"8.8.8.9"}
    mail = house.put(BOB, "carol@there.example")
    asyncio.run(stopped(house, 2))
    assert house.states(mail) == ["queued", "sent"]
    assert [one.attempts for one in house.look(mail)] == [0, 1]


def test_what_is_claimed_as_a_stop_comes_is_given_back(house) -> None:
    house.store = slow = Slow(house.store)

    async def run() -> str:
        stop = asyncio.Event()
        running = asyncio.create_task(house.runner().run(stop))
        await asyncio.sleep(0.05)  # it has looked at everything once
        slow.gate.clear()
        mail = house.put(BOB)
        house.store.ring()
        async with asyncio.timeout(5):
            while not house.look(mail)[0].claims:
                await asyncio.sleep(0.005)
        stop.set()
        await asyncio.sleep(0.02)
        slow.gate.set()
        await running
        return mail

    mail = asyncio.run(run())
    assert house.hosts.got == []
    house.work_off()
    assert house.states(mail) == ["sent"]


def test_a_ring_wakes_the_runner(house) -> None:
    async def run() -> str:
        stop = asyncio.Event()
        running = asyncio.create_task(house.runner().run(stop))
        await asyncio.sleep(0.05)
        mail = house.put(BOB)
        house.store.ring()
        async with asyncio.timeout(2):  # the poll alone would take five seconds
            while house.states(mail) != ["sent"]:
                await asyncio.sleep(0.005)
        stop.set()
        await running
        return mail

    assert asyncio.run(run())


def test_what_was_held_too_long_is_dropped_and_its_octets_are_forgotten(house) -> None:
    row = messages.Row(Recipient(BOB), State.HELD)
    mail = house.put(BOB, rows=[row])
    house.now += 31 * 86400
    asyncio.run(house.runner().tidy())
    assert house.states(mail) == ["dropped"]
    with house.store.reading() as conn:
        assert messages.chunk_count(conn, mail) == 0


def test_old_reports_of_others_are_forgotten(house) -> None:
    for number, days in (("1", 0), ("2", 30)):
        report = Report(org="google.com", id=number, domain="ours.example", records=(ReportRecord("192.0.2.1", 1),))
        with house.store.begin() as conn:
            reports.keep(conn, Received(report, house.now + days * 86400))
    house.now += 401 * 86400
    asyncio.run(house.runner().tidy())
    with house.store.reading() as conn:
        assert [one.id for one in reports.listed(conn, -1.0)] == ["2"]


def test_a_mail_that_is_retried_by_hand_goes_at_once(house) -> None:
    house.hosts.answers["8.8.8.1"] = [unreachable()]
    mail = house.put(BOB)
    house.work_off()
    with house.store.begin() as conn:
        queue.retry_now(conn, house.look(mail)[0].id, now=house.now)
    house.work_off()
    assert house.states(mail) == ["sent"]


# ---- Much mail ----------------------------------------------------------------------------------------------------


def to(house, domain: str, number: int) -> list[str]:
    return [house.put(f"x@{domain}") for _ in range(number)]


def reached(house) -> list[str]:
    """The domains in the order in which their mails went out."""
    return [outgoing.recipients[0].address.partition("@")[2] for _, outgoing, _ in house.hosts.got]


def test_a_destination_with_hundreds_of_mails_does_not_hold_up_one_with_a_single(house) -> None:
    house.reach("much.example", "little.example")
    to(house, "much.example", 300)
    house.now += 1
    to(house, "little.example", 1)
    house.work_off()
    assert reached(house).index("little.example") < 30
    assert len(house.hosts.got) == 301


def test_after_a_restart_all_destinations_get_their_turn_and_hands_do_not_overflow(house) -> None:
    domains = [f"d{n}.example" for n in range(20)]
    house.queue = Queue(concurrency=10, per_destination=1)
    house.reach(*domains)
    for domain in domains:
        to(house, domain, 30)
        house.now += 1
    most = 0

    async def run() -> None:
        nonlocal most
        stop, runner = asyncio.Event(), house.runner()
        running = asyncio.create_task(runner.run(stop))
        while len(house.hosts.got) < 600:
            most = max(most, len(runner._held))
            await asyncio.sleep(0.001)
        stop.set()
        await running

    asyncio.run(run())
    assert 0 < most <= 10 * HELD
    assert set(reached(house)[:250]) == set(domains)
    with house.store.reading() as conn:
        assert queue.counts(conn)[State.SENT] == 600


def test_destinations_that_hang_hold_up_nobody_else(house) -> None:
    house.queue = Queue(drain=0.01, concurrency=30)
    house.reach(*(f"hangs{n}.example" for n in range(4)), address="8.8.8.9")
    house.hosts.hanging = {"8.8.8.9"}
    for n in range(4):
        to(house, f"hangs{n}.example", 60)
    house.now += 1
    mails = to(house, "there.example", 50)

    async def run() -> None:
        stop = asyncio.Event()
        running = asyncio.create_task(house.runner().run(stop))
        async with asyncio.timeout(20):
            while any(house.states(mail) != ["sent"] for mail in mails):
                await asyncio.sleep(0.02)
            late = to(house, "else.example", 3)
            house.store.ring()
            while any(house.states(mail) != ["sent"] for mail in late):
                await asyncio.sleep(0.02)
        stop.set()
        await running

    asyncio.run(run())
    assert house.hosts.now == 0
    assert sum(address == "8.8.8.9" for address, _, _ in house.hosts.got) == 4 * house.queue.per_destination
    with house.store.reading() as conn:
        assert queue.counts(conn)[State.QUEUED] == 240
        assert {one.claims for one in queue.list_deliveries(conn, [State.QUEUED], 300)} == {0}


@pytest.mark.parametrize("crowded", ["*", "named"])
def test_a_next_hop_with_mail_for_a_thousand_domains_holds_up_no_other_one(house, crowded: str) -> None:
    many = [f"d{n}.example" for n in range(HELD * 10 + 50)]
    crowd = {"domains": ["*"] if crowded == "*" else many, "via": {"host": "10.0.0.1"}}
    other = {"domains": ["there.example"], "via": {"host": "10.0.0.2"}}
    house.routes = Routes(routes=[crowd, other])
    house.queue = Queue(concurrency=10, per_destination=2, poll=0.1)
    house.hosts.hanging = {"10.0.0.1"}
    for domain in many:
        house.put(f"a@{domain}")

    async def run() -> None:
        stop = asyncio.Event()
        running = asyncio.create_task(house.runner().run(stop))
        await asyncio.sleep(0.2)
        mail = house.put(BOB)
        house.store.ring()
        async with asyncio.timeout(5):
            while house.states(mail) != ["sent"]:
                await asyncio.sleep(0.005)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())


def test_a_next_hop_for_all_domains_gets_all_of_their_mail(house) -> None:
    house.routes = Routes(routes=[{"domains": ["*"], "via": {"host": "10.0.0.1"}}])
    house.queue = Queue(concurrency=4, per_destination=2)
    mails = [house.put(f"a@d{n}.example") for n in range(30)]
    house.work_off()
    assert {house.states(mail)[0] for mail in mails} == {"sent"}


# ---- A store that cannot be written to ----------------------------------------------------------------------------


class Moody:
    """The store, out of order as long as `trouble` is set."""

    def __init__(self, store) -> None:
        self._store = store
        self.trouble: Exception | None = None

    def __getattr__(self, name: str):
        return getattr(self._store, name)

    async def write(self, work):
        if self.trouble is not None:
            raise self.trouble
        return await self._store.write(work)


def test_what_was_sent_while_the_store_was_full_is_not_sent_again(house, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.delivery.runner.PAUSE", 0.01)
    house.store = moody = Moody(house.store)
    house.queue = Queue(lease=1.0)
    house.hosts.gate = asyncio.Event()
    mails = [house.put(BOB) for _ in range(3)]

    async def run() -> None:
        stop = asyncio.Event()
        running = asyncio.create_task(house.runner().run(stop))
        while len(house.hosts.got) < 3:
            await asyncio.sleep(0.001)
        moody.trouble = Temporary("the store is full")
        house.hosts.gate.set()
        await asyncio.sleep(0.1)
        assert [house.states(mail) for mail in mails] == [["queued"]] * 3
        house.now += 100  # all leases have run out
        moody.trouble = None
        async with asyncio.timeout(5):
            while any(house.states(mail) != ["sent"] for mail in mails):
                await asyncio.sleep(0.005)
        stop.set()
        await running

    asyncio.run(run())
    assert len(house.hosts.got) == 3


def test_a_claim_that_finds_what_we_have_on_the_wire_sends_it_no_second_time(house) -> None:
    house.hosts.gate = asyncio.Event()
    mail = house.put(BOB)

    async def run() -> None:
        stop = asyncio.Event()
        running = asyncio.create_task(house.runner().run(stop))
        while not house.hosts.got:
            await asyncio.sleep(0.001)
        house.now += 86400  # the clock jumps, and the lease of our own has run out
        house.store.ring()
        await asyncio.sleep(0.1)
        house.hosts.gate.set()
        async with asyncio.timeout(5):
            while house.states(mail) != ["sent"]:
                await asyncio.sleep(0.005)
        stop.set()
        await running

    asyncio.run(run())
    assert len(house.hosts.got) == 1


class Slow:
    """A store whose writes are done before they return."""

    def __init__(self, store) -> None:
        self._store = store
        self.gate = asyncio.Event()
        self.gate.set()

    async def write(self, work):
        result = await self._store.write(work)
        await self.gate.wait()
        return result

    def __getattr__(self, name: str):
        return getattr(self._store, name)


def test_a_lease_that_had_to_wait_for_the_store_begins_when_it_is_entered(house) -> None:
    class Late:
        """A store that is away for a while whenever it is written to."""

        def __getattr__(self, name: str):
            return getattr(store, name)

        async def write(self, work):
            house.now += 2 * house.queue.lease
            return await store.write(work)

    def ends() -> float:
        with store.reading() as conn:
            return conn.exec_driver_sql("SELECT lease_until FROM delivery").scalar()

    store, house.store = house.store, Late()
    house.hosts.gate = asyncio.Event()
    house.put(BOB)

    async def run() -> None:
        runner = house.runner()
        working = asyncio.create_task(runner.work_off())
        while not house.hosts.got:
            await asyncio.sleep(0.001)
        assert ends() == house.now + house.queue.lease
        await runner.keep_leases()
        assert ends() == house.now + house.queue.lease
        house.hosts.gate.set()
        await working

    asyncio.run(run())


def test_a_result_that_comes_while_its_mail_is_claimed_again_is_written_down(house) -> None:
    house.store = slow = Slow(house.store)
    house.hosts.gate = asyncio.Event()
    mail = house.put(BOB)

    def owner() -> str:
        with house.store.reading() as conn:
            return conn.exec_driver_sql("SELECT lease_owner FROM delivery").scalar()

    async def run() -> None:
        stop = asyncio.Event()
        running = asyncio.create_task(house.runner().run(stop))
        while not house.hosts.got:
            await asyncio.sleep(0.001)
        house.now += 86400  # the lease of our own has run out
        before = owner()
        slow.gate.clear()
        house.store.ring()
        async with asyncio.timeout(5):
            while owner() == before:
                await asyncio.sleep(0.005)
        house.hosts.gate.set()
        await asyncio.sleep(0.05)  # the result is noted under the old lease
        slow.gate.set()
        async with asyncio.timeout(5):
            while house.states(mail) != ["sent"]:
                await asyncio.sleep(0.005)
        stop.set()
        await running

    asyncio.run(run())
    assert len(house.hosts.got) == 1


def test_a_result_that_breaks_our_code_does_not_keep_the_others_from_being_written_down(
    house, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = house.put(BOB, sender="bad@us.example"), house.put(BOB)
    sent = queue.sent

    def breaks(conn, id_, *words):
        if id_ == house.look(bad)[0].id:
            raise ZeroDivisionError
        return sent(conn, id_, *words)

    monkeypatch.setattr(queue, "sent", breaks)
    house.work_off()
    assert (house.states(bad), house.states(good)) == (["queued"], ["sent"])


# ---- Processes that died ------------------------------------------------------------------------------------------


def test_what_a_dead_process_had_in_hand_is_taken_over_at_once(house, monkeypatch: pytest.MonkeyPatch) -> None:
    mail = house.put(BOB)
    with house.store.begin() as conn:
        queue.claim(conn, "the dead", 10, house.now, 3600.0)
    monkeypatch.setattr("gateway.delivery.runner.owners.is_dead", lambda owner: owner == "the dead")

    async def run() -> None:
        stop = asyncio.Event()
        running = asyncio.create_task(house.runner().run(stop))
        async with asyncio.timeout(5):
            while house.states(mail) != ["sent"]:
                await asyncio.sleep(0.005)
        stop.set()
        await running

    asyncio.run(run())


def test_mail_that_comes_after_a_destination_was_found_dead_tries_it_again(house) -> None:
    house.queue = Queue(per_destination=1)
    house.hosts.answers["8.8.8.1"] = [unreachable(), unreachable()]
    waiting = [house.put(BOB) for _ in range(30)]

    async def run() -> str:
        runner = house.runner()
        await runner.work_off()
        house.now += 1
        fresh = house.put(BOB)
        await runner.work_off()
        return fresh

    fresh = asyncio.run(run())
    assert len(house.hosts.got) == 2
    assert [house.look(mail)[0].attempts for mail in [*waiting, fresh]] == [1] * 31


def test_a_clock_that_was_ahead_for_a_while_does_not_keep_a_destination_dead(house) -> None:
    house.hosts.answers["8.8.8.1"] = [unreachable()]
    early = house.put(BOB)

    async def run() -> str:
        runner = house.runner()
        house.now += 86400
        await runner.work_off()
        house.now -= 86400 - 1
        fresh = house.put(BOB)
        await runner.work_off()
        return fresh

    fresh = asyncio.run(run())
    assert (house.states(early), house.states(fresh)) == (["sent"], ["sent"])

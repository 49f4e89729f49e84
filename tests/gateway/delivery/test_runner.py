from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from gateway.model import Recipient, State
from gateway.stages import Queue
from gateway.store import messages, queue
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
    house.work_off()
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


def test_a_mail_that_is_retried_by_hand_goes_at_once(house) -> None:
    house.hosts.answers["8.8.8.1"] = [unreachable()]
    mail = house.put(BOB)
    house.work_off()
    with house.store.begin() as conn:
        queue.retry_now(conn, house.look(mail)[0].id, now=house.now)
    house.work_off()
    assert house.states(mail) == ["sent"]

"""Who is told what became of a mail, and who is not; each is told once, whatever dies in between."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest
from sqlalchemy import update

from gateway.model import Finding, ListenerKind, Mail, Notice, Recipient, Session, State, Temporary
from gateway.pipeline.drafts import Circumstances, evidence
from gateway.stages import Queue
from gateway.store import messages, queue, schema
from tests.gateway.delivery.fakes import BOB, NEVER, NOW


def fail(house, *to: str | Recipient, **more) -> str:
    house.hosts.answers["8.8.8.1"] = [NEVER]
    mail = house.put(*to, **more)
    house.work_off()
    assert set(house.states(mail)) == {"failed"}
    return mail


def test_one_notice_tells_the_sender_of_all_recipients(house) -> None:
    mail = fail(house, BOB, "carol@there.example")
    [(recipient, dsn)] = house.listener.notices
    assert recipient == Recipient("alice@us.example", notify=frozenset({"NEVER"}))
    assert house.listener.told == [[f"failed {BOB}", "failed carol@there.example"]]
    assert dsn.get_payload(2).get_content_type() == "text/rfc822-headers"
    assert dsn.get_payload(2).get_payload().startswith("Received: by us")
    assert [one.notice for one in house.look(mail)] == [None, None]


def test_people_of_ours_get_their_mail_back_whole(house) -> None:
    fail(house, BOB, session=Session(ip_address("192.0.2.1"), kind=ListenerKind.SUBMISSION, user="alice"))
    [(_, dsn)] = house.listener.notices
    assert dsn.get_payload(2).get_payload(0)["Received"] == "by us"


def test_a_bounce_is_never_bounced(house) -> None:
    fail(house, BOB, sender="")
    assert house.listener.notices == []


def test_who_wants_no_notice_gets_none(house) -> None:
    fail(house, Recipient(BOB, frozenset({"NEVER"})))
    assert house.listener.notices == []


def test_a_sender_whom_spf_calls_forged_is_not_told(house) -> None:
    found = {"spf": [Finding("fail", "192.0.2.1 may not send for us.example")]}
    about = Circumstances("gw.us.example", NOW, found, "1")
    recorded = evidence(Mail("m1", Session(ip_address("192.0.2.1"))), about)
    mail = fail(house, BOB, draft={"evidence": recorded})
    assert house.listener.notices == []
    assert [one.notice for one in house.look(mail)] == [None]


@pytest.mark.parametrize(
    "recorded",
    [
        {"direction": "inbound", "found": {"spf": [{"code": "softfail"}]}},
        {"direction": "outbound", "found": {"spf": [{"code": "fail"}]}},
        {"direction": "inbound", "found": {}},
        {},
    ],
)
def test_other_senders_are_told(house, recorded: dict) -> None:
    fail(house, BOB, draft={"evidence": recorded})
    assert house.listener.told == [[f"failed {BOB}"]]


def test_success_is_confirmed_where_the_next_host_does_not(house) -> None:
    asked = Recipient(BOB, frozenset({"SUCCESS"}))
    house.put(asked)
    house.work_off()
    assert house.listener.told == [[f"relayed {BOB}"]]
    house.hosts.dsn = True
    house.put(asked)
    house.work_off()
    assert len(house.listener.notices) == 1


def test_delivery_into_a_mailbox_is_confirmed(house) -> None:
    row = messages.Row(Recipient("ann@us.example"), State.MAILBOX, "ann", notice=Notice.DELIVERED)
    house.put("ann@us.example", rows=[row])
    house.work_off()
    assert house.listener.told == [["delivered ann@us.example"]]


def test_a_notice_that_cannot_be_stored_now_is_owed_until_it_is(house) -> None:
    house.listener.trouble = Temporary("disk full")
    mail = fail(house, BOB)
    assert [one.notice for one in house.look(mail)] == [Notice.FAILED]
    house.listener.trouble = None
    house.work_off()
    assert house.listener.notices == []  # the lease of the first try still runs
    house.now += house.queue.lease
    house.work_off()
    assert house.listener.told == [[f"failed {BOB}"]]


def test_a_store_that_has_no_room_for_long_costs_no_notice(house) -> None:
    house.hosts.answers["8.8.8.1"] = [NEVER]
    mail = house.put(BOB)

    async def run() -> None:
        runner = house.runner()
        house.listener.trouble = Temporary("disk full")
        for _ in range(2 * queue.POISON):
            await runner.work_off()
            assert [one.notice for one in house.look(mail)] == [Notice.FAILED]
            house.now += house.queue.lease + 1
        house.listener.trouble = None
        await runner.work_off()

    asyncio.run(run())
    assert house.listener.told == [[f"failed {BOB}"]]


def test_a_stop_gives_back_what_is_still_to_be_told_and_counts_no_death(house) -> None:
    house.hosts.answers["8.8.8.1"] = [NEVER]
    house.listener.trouble = Temporary("disk full")
    mail = house.put(BOB)

    async def run() -> None:
        stop = asyncio.Event()
        running = asyncio.create_task(house.runner().run(stop))
        async with asyncio.timeout(5):
            while not house.listener.tries:
                await asyncio.sleep(0.005)
        stop.set()
        await running

    asyncio.run(run())
    assert [(one.notice, one.claims) for one in house.look(mail)] == [(Notice.FAILED, 0)]
    house.listener.trouble = None
    house.work_off()  # another runner, at the same moment: the lease is gone
    assert house.listener.told == [[f"failed {BOB}"]]


def test_a_large_original_comes_back_as_its_header(house) -> None:
    house.queue = Queue(bounce_size=1000)
    fail(house, BOB, body=b"Subject: x\r\n\r\n" + b"x\r\n" * 1000)
    returned = house.listener.notices[0][1].get_payload(2)
    assert returned.get_content_type() == "text/rfc822-headers"
    assert returned.get_payload().replace("\r", "") == "Received: by us\nSubject: x\n"


def test_a_notice_that_kills_whoever_writes_it_is_given_up_and_the_others_are_told(house) -> None:
    house.hosts.answers["8.8.8.1"] = [NEVER, NEVER]
    deadly, other = house.put(BOB, sender="deadly@us.example"), house.put(BOB)
    house.listener.trouble = Temporary("not now")
    house.work_off()
    with house.store.begin() as conn:
        conn.execute(update(schema.delivery).where(schema.delivery.c.message_id == deadly).values(claims=queue.POISON))
    house.listener.trouble = None
    house.now += house.queue.lease + 1
    house.work_off()
    assert [one.address for one, _ in house.listener.notices] == ["alice@us.example"]
    assert [house.look(mail)[0].notice for mail in (deadly, other)] == [None, None]
    assert house.look(deadly)[0].claims == 0

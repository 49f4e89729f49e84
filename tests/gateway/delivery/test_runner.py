from __future__ import annotations

import asyncio
from ipaddress import ip_address
from itertools import pairwise

import pytest
from sqlalchemy import update

from gateway.delivery.pool import Pool
from gateway.delivery.reply import Failed, Reply
from gateway.model import Finding, Mail, Notice, Recipient, Session, State, Temporary
from gateway.pipeline.drafts import Circumstances, evidence
from gateway.stages import Queue, Relay, Routes, Timeouts
from gateway.store import messages, queue, schema
from tests.gateway.delivery.scripted import host

NOW = 1_800_000_000.0
BODY = b"Subject: x\r\n\r\nbody\r\n"
LATER = Reply(450, "4.2.0", "later", "mx.there.example [8.8.8.1]")
NEVER = Reply(550, "5.1.1", "unknown", "mx.there.example [8.8.8.1]")
BOB = "bob@there.example"


def unreachable() -> Failed:
    return Failed(Reply(451, "4.4.1", "mx cannot be reached: no answer"))


# ---- One attempt ---------------------------------------------------------------------------------------------------


def test_what_is_due_is_sent_octet_for_octet(house) -> None:
    body = b"Subject: x\r\n\r\n" + b"line\r\n" * 100_000
    mail = house.put(BOB, body=body)
    house.work_off()
    [(address, outgoing, octets)] = house.hosts.got
    assert (address, outgoing.sender, octets) == ("8.8.8.1", "alice@us.example", b"Received: by us\r\n" + body)
    assert outgoing.size == len(octets)
    [delivery] = house.look(mail)
    assert (delivery.state, delivery.attempts) == (State.SENT, 1)
    assert delivery.last_reply == "mx.there.example [8.8.8.1]: 250 2.0.0 taken"
    assert house.listener.notices == []


def test_recipients_of_one_mail_at_one_domain_share_a_transaction(house) -> None:
    house.put(BOB, "carol@THERE.example", "dave@else.example")
    house.work_off()
    assert sorted(len(outgoing.recipients) for _, outgoing, _ in house.hosts.got) == [1, 2]


def test_recipients_with_a_header_of_their_own_get_a_transaction_of_their_own(house) -> None:
    rows = [
        messages.Row(Recipient(BOB), State.QUEUED, header=b"X-For: bob\r\n"),
        messages.Row(Recipient("carol@there.example"), State.QUEUED),
    ]
    house.put(BOB, "carol@there.example", rows=rows)
    house.work_off()
    assert sorted(octets[:10] for _, _, octets in house.hosts.got) == [b"Received: ", b"X-For: bob"]


def test_domains_with_the_same_next_hop_share_a_transaction(house) -> None:
    house.routes = Routes(routes=[{"domains": ["*"], "via": {"host": "10.0.0.1"}}])
    house.put(BOB, "dave@else.example")
    house.work_off()
    assert [(address, len(outgoing.recipients)) for address, outgoing, _ in house.hosts.got] == [("10.0.0.1", 2)]


def test_many_recipients_take_several_transactions(house) -> None:
    house.relay = Relay(recipients_per_message=2)
    mail = house.put(*(f"u{n}@there.example" for n in range(5)))
    house.work_off()
    assert sorted(len(outgoing.recipients) for _, outgoing, _ in house.hosts.got) == [1, 2, 2]
    assert house.states(mail) == ["sent"] * 5


def test_each_recipient_has_a_fate_of_its_own(house) -> None:
    house.hosts.answers["8.8.8.1"] = [{"no@there.example": NEVER, "busy@there.example": LATER}]
    mail = house.put(BOB, "no@there.example", "busy@there.example")
    house.work_off()
    assert house.states(mail) == ["sent", "failed", "queued"]
    assert house.listener.told == [["failed no@there.example"]]


def test_the_next_host_is_tried_when_one_cannot_be_reached(house) -> None:
    house.dns.table |= {"MX there.example": [(1, "a.x"), (2, "b.x")], "A a.x": ["8.8.8.8"], "A b.x": ["8.8.8.9"]}
    house.hosts.answers["8.8.8.8"] = [unreachable()]
    mail = house.put(BOB)
    house.work_off()
    assert [address for address, _, _ in house.hosts.got] == ["8.8.8.8", "8.8.8.9"]
    assert house.states(mail) == ["sent"]


def test_the_next_host_gets_those_whom_a_broken_session_left(house) -> None:
    house.dns.table |= {"MX there.example": [(1, "a.x"), (2, "b.x")], "A a.x": ["8.8.8.8"], "A b.x": ["8.8.8.9"]}
    house.hosts.elsewhere = True
    house.hosts.answers["8.8.8.8"] = [{BOB: Reply(421, "4.4.2", "gone")}]
    mail = house.put(BOB, "carol@there.example")
    house.work_off()
    assert [tuple(one.address for one in outgoing.recipients) for _, outgoing, _ in house.hosts.got] == [
        (BOB, "carol@there.example"),
        (BOB,),
    ]
    assert house.states(mail) == ["sent", "sent"]


def test_when_no_host_can_be_reached_the_mail_waits_even_if_they_say_never(house) -> None:
    house.hosts.answers["8.8.8.1"] = [Failed(Reply(554, "5.7.1", "no service for you", "mx [8.8.8.1]"))]
    mail = house.put(BOB)
    house.work_off()
    [delivery] = house.look(mail)
    assert (delivery.state, delivery.last_reply) == (State.QUEUED, "mx [8.8.8.1]: 554 5.7.1 no service for you")


def test_a_domain_that_does_not_exist_fails_at_once(house) -> None:
    mail = house.put("bob@nowhere.example")
    house.work_off()
    assert house.states(mail) == ["failed"]
    assert house.listener.told == [["failed bob@nowhere.example"]]


def test_a_dns_that_does_not_answer_costs_time(house) -> None:
    house.dns.table["MX there.example"] = Temporary("away")
    mail = house.put(BOB)
    house.work_off()
    assert house.states(mail) == ["queued"]


def test_a_domain_that_became_local_is_not_looked_for_outside(house) -> None:
    mail = house.put(BOB)
    house.routes = Routes(local=["there.example"])
    house.work_off()
    assert house.states(mail) == ["queued"]
    assert house.dns.asked == []


def test_a_mail_that_breaks_our_code_is_kept_and_the_others_go(house) -> None:
    house.reach("else.example", address="8.8.8.2")
    house.hosts.answers["8.8.8.1"] = [ZeroDivisionError()]
    first, second = house.put(BOB), house.put("dave@else.example")
    house.work_off()
    [delivery] = house.look(first)
    assert (delivery.state, delivery.last_reply) == (State.QUEUED, "451 4.3.0 trouble inside the gateway")
    assert house.states(second) == ["sent"]


def test_no_half_of_a_mail_leaves_when_the_store_has_lost_the_other(house) -> None:
    mail = house.put(BOB)
    with house.store.begin() as conn:
        conn.execute(update(schema.message).values(size=9999))
    house.dns.table["A there.example"] = ["127.0.0.1"]
    script = (
        "S: 220 mx\nC: EHLO gw.us.example\nS: 250-mx\nS: 250 8BITMIME\nC: MAIL FROM:<alice@us.example>\nS: 250 ok\n"
    )
    script += f"C: RCPT TO:<{BOB}>\nS: 250 ok\nC: DATA\nS: 354 go on\nC= *"

    async def deliver() -> list[str]:
        async with host(script) as peer:
            times = Timeouts(**dict.fromkeys(Timeouts.model_fields, 3.0))
            house.relay = Relay(port=peer.port, allow_private=["127.0.0.0/8"], timeouts=times)
            house.hosts = Pool("gw.us.example")
            await house.runner().work_off()
        return peer.heard[0]

    assert asyncio.run(deliver())[-1] == "DATA"
    assert house.states(mail) == ["queued"]


# ---- Time ----------------------------------------------------------------------------------------------------------


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


# ---- Notices -------------------------------------------------------------------------------------------------------


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
    assert dsn.get_payload(2).get_payload(0)["Received"] == "by us"
    assert [one.notice for one in house.look(mail)] == [None, None]


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


def test_a_large_original_comes_back_as_its_header(house) -> None:
    house.queue = Queue(bounce_size=1000)
    fail(house, BOB, body=b"Subject: x\r\n\r\n" + b"x\r\n" * 1000)
    returned = house.listener.notices[0][1].get_payload(2)
    assert returned.get_content_type() == "text/rfc822-headers"
    assert returned.get_payload().replace("\r", "") == "Received: by us\nSubject: x\n"


# ---- Leases, limits, the end ---------------------------------------------------------------------------------------


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


# ---- The whole way, to a host on a socket ---------------------------------------------------------------------------


def test_from_the_store_to_a_host_on_a_socket(house) -> None:
    mail = house.put(BOB, "no@there.example", body=b"Subject: x\r\n\r\n.dot\r\n")
    house.dns.table |= {"MX there.example": [(10, "mx.there.example")], "A mx.there.example": ["127.0.0.1"]}
    script = f"""S: 220 mx
C: EHLO gw.us.example
S: 250-mx
S: 250 PIPELINING
C: MAIL FROM:<alice@us.example>
C: RCPT TO:<{BOB}>
C: RCPT TO:<no@there.example>
C: DATA
S: 250 ok
S: 250 ok
S: 550 5.1.1 unknown
S: 354 go on
C= Received: by us\\r\\nSubject: x\\r\\n\\r\\n..dot\\r\\n.\\r\\n
S: 250 2.0.0 taken"""

    async def deliver() -> list[str]:
        async with host(script) as peer:
            house.relay = Relay(
                port=peer.port, allow_private=["127.0.0.0/8"], source_addresses=[ip_address("127.0.0.7")]
            )
            house.hosts = Pool("gw.us.example")
            await house.runner().work_off()
            await house.hosts.close()
        return peer.faults

    assert asyncio.run(deliver()) == []
    assert house.states(mail) == ["sent", "failed"]
    assert house.look(mail)[0].last_reply == "mx.there.example [127.0.0.1]: 250 2.0.0 taken"
    assert house.listener.told == [["failed no@there.example"]]

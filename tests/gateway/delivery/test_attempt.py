"""One attempt: who shares a transaction, which host comes next, and a fate for each recipient."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

from sqlalchemy import update

from gateway.delivery.pool import Pool
from gateway.delivery.reply import Failed, Reply
from gateway.model import Recipient, State, Temporary
from gateway.stages import Relay, Routes, Timeouts
from gateway.store import messages, schema
from tests.gateway.delivery.fakes import BOB, LATER, NEVER, TAKEN, unreachable
from tests.gateway.delivery.scripted import host


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


def test_those_who_had_no_turn_before_the_host_left_wait(house) -> None:
    house.relay = Relay(recipients_per_message=1)
    house.hosts.answers["8.8.8.1"] = [TAKEN, unreachable()]
    mail = house.put(BOB, "carol@there.example")
    house.work_off()
    assert house.states(mail) == ["sent", "queued"]


def test_what_was_taken_stays_taken_when_our_code_breaks_on_the_rest(house) -> None:
    house.relay = Relay(recipients_per_message=1)
    house.hosts.answers["8.8.8.1"] = [TAKEN, ZeroDivisionError()]
    mail = house.put(BOB, "carol@there.example")
    house.work_off()
    assert house.states(mail) == ["sent", "queued"]


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

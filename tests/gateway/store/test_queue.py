"""Deliveries: what can become of them, who works on them, and that none of them vanishes."""

import asyncio
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest

from gateway.model import ListenerKind, Notice, Session, State
from gateway.store import quarantine, queue, tracking
from gateway.store.engine import Store

LEASE = 60.0


def claim(change, now, owner="me", limit=10, busy=()):
    return [each.id for each in change(queue.claim, owner, limit, now, LEASE, busy)]


def test_the_diagram_in_the_documents_is_the_table():
    document = (Path(__file__).parents[3] / "docs" / "states.md").read_text(encoding="utf-8")
    assert f"```mermaid\n{queue.diagram()}```" in document
    assert all(f"| `{state}` |" in document for state in State)


def test_every_state_can_be_reached_and_every_event_has_one_end():
    assert set(queue.TRANSITIONS.values()) == set(State)
    for before, event in queue.TRANSITIONS:
        ends = {
            after for (start, name), after in queue.TRANSITIONS.items() if name == event and bool(start) == bool(before)
        }
        assert len(ends) == 1


def test_the_longest_due_comes_first_and_no_more_than_asked_for(put, change, now):
    late, early, future = (put(mail={"received_at": now + at}).id for at in (-1, -2, 10))
    assert claim(change, now, limit=1) == [early]
    assert claim(change, now) == [late]
    assert claim(change, now) == []
    assert claim(change, now + 10) == [future]


@pytest.mark.parametrize(
    ("kind", "user", "outbound"),
    [
        (ListenerKind.MX, "", False),
        (ListenerKind.MX, "carol", True),
        (ListenerKind.SUBMISSION, "carol", True),
        (ListenerKind.RELAY, "", True),
    ],
)
def test_a_delivery_knows_whether_the_mail_is_our_own(put, kind, user, outbound):
    session = Session(ip_address("192.0.2.1"), kind=kind, user=user)
    assert put(mail={"session": session}).outbound is outbound


def test_busy_destinations_are_passed_over(put, change, now):
    put(address="a@busy.example")
    free = put(address="a@FREE.example")
    assert claim(change, now, busy=["busy.example", "other.example"]) == [free.id]


@pytest.mark.parametrize("state", [State.HELD, State.MAILBOX])
def test_only_what_is_queued_is_claimed(put, change, now, state):
    put(state, mailbox="bob")
    assert claim(change, now) == []


def test_a_lease_keeps_others_away_until_it_runs_out(put, change, now):
    delivery = put()
    assert claim(change, now, "one") == [delivery.id]
    assert claim(change, now + LEASE - 1, "two") == []
    assert claim(change, now + LEASE, "two") == [delivery.id]
    assert not change(queue.sent, delivery.id, "one", "250 ok", now)
    assert change(queue.sent, delivery.id, "two", "250 ok", now)


def test_a_lease_can_be_prolonged_by_its_owner_alone(put, change, now):
    delivery = put()
    claim(change, now, "one")
    assert change(queue.renew, "two", [delivery.id], now, LEASE) == []
    assert change(queue.renew, "one", [delivery.id], now + 50, LEASE) == [delivery.id]
    assert claim(change, now + LEASE, "two") == []


def test_a_lease_given_back_is_free(put, change, now):
    delivery = put()
    claim(change, now, "one")
    change(queue.release_claims, "two", [delivery.id])
    assert claim(change, now, "two") == []
    change(queue.release_claims, "one", [delivery.id])
    assert claim(change, now, "two") == [delivery.id]


@pytest.mark.parametrize("function", [queue.sent, queue.retry, queue.failed])
def test_nobody_settles_without_a_lease(put, change, look, now, function):
    delivery = put()
    extra = {queue.sent: (), queue.retry: (now + 5,), queue.failed: (None,)}[function]
    assert not change(function, delivery.id, "me", "250 ok", now, *extra)
    with pytest.raises(ValueError):
        change(function, delivery.id, "", "250 ok", now, *extra)
    assert look(queue.get, delivery.id) == delivery


def test_what_was_sent_stays_sent(put, change, look, now):
    delivery = put()
    claim(change, now)
    assert change(queue.sent, delivery.id, "me", "250 ok", now + 1, Notice.RELAYED)
    assert not change(queue.failed, delivery.id, "me", "550 no", now + 2, None)
    after = look(queue.get, delivery.id)
    assert (after.state, after.attempts, after.last_reply, after.notice) == (State.SENT, 1, "250 ok", Notice.RELAYED)
    assert claim(change, now + LEASE + 1) == []


def test_a_retry_waits_for_its_time_and_counts(put, change, look, now):
    delivery = put()
    for attempt in (1, 2):
        at = now + 300 * (attempt - 1)
        assert claim(change, at) == [delivery.id]
        assert change(queue.retry, delivery.id, "me", f"451 {attempt}", at, at + 300)
        assert claim(change, at + 299) == []
        after = look(queue.get, delivery.id)
        assert (after.state, after.attempts, after.last_reply) == (State.QUEUED, attempt, f"451 {attempt}")
        assert (after.queued_at, after.warned) == (now, False)


def test_a_warning_is_owed_once_and_a_later_retry_does_not_forget_it(put, change, look, now):
    delivery = put()
    claim(change, now)
    change(queue.retry, delivery.id, "me", "451", now, now, Notice.DELAYED)
    claim(change, now)
    change(queue.retry, delivery.id, "me", "451", now, now)
    after = look(queue.get, delivery.id)
    assert (after.warned, after.notice) == (True, Notice.DELAYED)


def test_a_reply_is_cleaned_and_capped(put, change, look, now):
    delivery = put()
    claim(change, now)
    change(queue.failed, delivery.id, "me", "550 a\r\n\x1b[1m" + "x" * 10000, now, None)
    after = look(queue.get, delivery.id)
    assert after.last_reply.startswith("550 a  \ufffd[1mx")
    assert len(after.last_reply) == 512
    assert look(tracking.life, delivery.message_id).events[-1].text == after.last_reply


def test_a_notice_is_worked_on_under_a_lease_of_its_own(put, change, look, now):
    delivery = put()
    claim(change, now)
    change(queue.failed, delivery.id, "me", "550", now, Notice.FAILED)
    assert [each.notice for each in change(queue.owed_notices, "one", 10, now, LEASE)] == [Notice.FAILED]
    assert change(queue.owed_notices, "two", 10, now + 1, LEASE) == []
    assert [each.id for each in change(queue.owed_notices, "two", 10, now + LEASE, LEASE)] == [delivery.id]
    assert not change(queue.notice_sent, [delivery.id], "one")
    assert change(queue.notice_sent, [delivery.id], "two")
    assert not change(queue.notice_sent, [delivery.id], "two")
    assert look(queue.get, delivery.id).notice is None
    assert look(tracking.life, delivery.message_id).events[-1].kind == "notice"


def test_what_is_being_sent_is_not_told_of_and_the_other_way_round(put, change, now):
    delivery = put()
    claim(change, now)
    change(queue.retry, delivery.id, "me", "451", now, now, Notice.DELAYED)
    assert claim(change, now) == [delivery.id]
    assert change(queue.owed_notices, "other", 10, now, LEASE) == []
    change(queue.release_claims, "me", [delivery.id])
    assert change(queue.owed_notices, "other", 10, now, LEASE)[0].id == delivery.id
    assert claim(change, now) == []


def test_a_retry_planned_by_a_wrong_clock_is_due_at_once(put, change, look, now):
    delivery = put()
    claim(change, now)
    change(queue.retry, delivery.id, "me", "451", now, now + 1e9)
    assert look(queue.get, delivery.id).next_attempt == now + queue.HORIZON
    assert claim(change, now - 3600) == [delivery.id]


def test_what_was_planned_while_the_clock_was_a_day_ahead_is_not_put_off_for_a_day(put, change, now):
    delivery = put()
    ahead = now + 86400.0
    assert claim(change, ahead) == [delivery.id]
    change(queue.retry, delivery.id, "me", "451", ahead, ahead + 1800.0)
    assert [one.id for one in change(queue.claim, "me", 10, now, LEASE, horizon=1800.0)] == [delivery.id]


def test_a_lease_from_a_wrong_clock_holds_nobody_up(put, change, now):
    delivery = put()
    claim(change, now + 1e6)
    assert claim(change, now, "two") == [delivery.id]
    assert change(queue.renew, "two", [delivery.id], now, 1e9) == [delivery.id]
    assert claim(change, now + queue.LONGEST_LEASE, "three") == [delivery.id]


def test_an_administrator_can_hold_and_drop_what_waits(put, change, look, now):
    held, dropped = put(), put()
    assert change(queue.hold, held.id, by="admin", now=now + 5)
    assert change(queue.drop, dropped.id, "admin", now=now + 5)
    assert not change(queue.drop, dropped.id, "admin", now=now + 5)
    assert not change(queue.hold, held.id, now=now + 5)
    assert look(queue.get, held.id).queued_at == now + 5
    assert claim(change, now + 10) == []
    assert look(tracking.life, dropped.message_id).events[-1].text == "by admin"


def test_what_is_being_sent_can_neither_be_held_nor_dropped(put, change, now):
    delivery = put()
    claim(change, now)
    assert not change(queue.hold, delivery.id, now=now)
    assert not change(queue.drop, delivery.id, "admin", now=now)
    assert change(queue.retry_now, delivery.id, now=now) == 0
    assert change(queue.sent, delivery.id, "me", "250", now)


def test_one_or_all_can_be_made_due(put, change, now):
    ids = [put(mail={"received_at": now + 100}).id for _ in range(3)]
    put(State.HELD, mail={"received_at": now + 100})
    assert change(queue.retry_now, ids[1], now=now) == 1
    assert claim(change, now) == [ids[1]]
    assert change(queue.retry_now, now=now) == 2
    assert claim(change, now) == [ids[0], ids[2]]


def test_lists_go_backwards_page_by_page(put, look):
    ids = [put().id for _ in range(5)]
    other = put(State.HELD).id
    first = look(queue.list_deliveries, [State.QUEUED], 3)
    assert [each.id for each in first] == ids[:1:-1]
    assert [each.id for each in look(queue.list_deliveries, [State.QUEUED], 3, before=first[-1].id)] == [ids[1], ids[0]]
    assert [each.id for each in look(queue.list_deliveries, [State.HELD, State.QUEUED], 1)] == [other]
    assert look(queue.get, 99) is None


def test_counts_name_every_state(put, look):
    put()
    put()
    put(State.HELD)
    assert look(queue.counts) == dict.fromkeys(State, 0) | {State.QUEUED: 2, State.HELD: 1}


CLAIMS = """
import asyncio, sys
from gateway.store import queue
from gateway.store.engine import Store

url, owner, now = sys.argv[1], sys.argv[2], float(sys.argv[3])
store = Store(url)

async def run():
    while got := await store.write(lambda conn: queue.claim(conn, owner, 7, now, 60)):
        for delivery in got:
            print(delivery.id)
            assert await store.write(lambda conn: queue.sent(conn, delivery.id, owner, "250", now))
    await store.aclose()

asyncio.run(run())
"""


def test_two_processes_never_claim_the_same(put, look, url, now):
    ids = [put().id for _ in range(100)]
    words = [sys.executable, "-W", "error", "-c", CLAIMS, url]
    running = [subprocess.Popen([*words, owner, str(now)], stdout=subprocess.PIPE, text=True) for owner in ("a", "b")]
    got = [int(line) for process in running for line in process.communicate(timeout=60)[0].split()]
    assert [process.returncode for process in running] == [0, 0]
    assert sorted(got) == ids
    assert look(queue.counts)[State.SENT] == 100


def test_claims_of_one_process_at_the_same_time_do_not_overlap(put, store, now):
    ids = [put().id for _ in range(50)]

    async def run():
        works = [store.write(lambda conn, n=n: queue.claim(conn, f"owner{n}", 7, now, LEASE)) for n in range(10)]
        return [each.id for got in await asyncio.gather(*works) for each in got]

    assert sorted(asyncio.run(run())) == ids


def test_the_queue_outlives_its_process(put, store, url, now):
    delivery = put()
    store.close()
    again = Store(url)
    with again.begin() as conn:
        assert [each.id for each in queue.claim(conn, "new", 1, now, LEASE)] == [delivery.id]
    again.close()


@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_a_claim_can_name_all_destinations_that_it_wants(put, change, now, number):
    names = [f"d{n}.example" for n in range(number)]
    wanted = [put(address=f"a@{name}").id for name in names]
    put()
    ids = [each.id for each in change(queue.claim, "me", 10, now, LEASE, only=names)]
    assert ids == wanted
    assert [each.id for each in change(queue.claim, "me", 10, now + LEASE, LEASE, names[:1], only=names)] == wanted[1:]


# ---- Mail that kills whoever works on it --------------------------------------------------------------------------


def die(change, now, times, **words):
    """Claim, and let the lease run out, so many *times*; the ids of the last claim, and the time then."""
    ids = []
    for _ in range(times):
        ids = [each.id for each in change(queue.claim, "doomed", 10, now, LEASE, **words)]
        now += LEASE
    return ids, now


def test_a_lease_that_ends_in_order_is_no_death(put, change, look, now):
    delivery = put()
    for n in range(queue.POISON * 2):
        (claimed,) = change(queue.claim, "me", 10, now, LEASE)
        assert claimed.claims == 0
        if n % 2:
            change(queue.release_claims, "me", [delivery.id])
        else:
            change(queue.retry, delivery.id, "me", "451 later", now, now)
    assert look(queue.get, delivery.id).claims == 0


def test_what_has_killed_three_workers_is_held_and_the_rest_flows(put, change, look, now):
    delivery = put()
    ids, then = die(change, now, queue.POISON)
    assert ids == [delivery.id]
    other = put(mail={"received_at": now + 1})
    assert claim(change, then, limit=1) == [other.id]
    held = look(queue.get, delivery.id)
    assert (held.state, held.claims) == (State.HELD, 0)
    assert held.last_reply == "451 4.3.0 held: each of three processes that worked on this mail died of it"
    assert look(tracking.life, delivery.message_id).events[-1].kind == "hold"


def test_suspects_are_leased_one_at_a_time_and_each_that_is_settled_is_cleared(put, change, look, now):
    ids = [put(mail={"received_at": now + n}).id for n in range(3)]
    _, then = die(change, now + 3, queue.SUSPECT)
    fresh = put(mail={"received_at": now + 9}).id
    assert claim(change, then) == [ids[0], fresh]
    again = [each.id for each in change(queue.claim, "me", 10, then, LEASE, suspects=False)]
    assert again == []
    assert change(queue.retry, ids[0], "me", "451", then, then)
    assert look(queue.get, ids[0]).claims == 0
    assert claim(change, then) == [ids[1], ids[0]]


def test_what_was_released_after_its_deaths_has_as_many_chances_again(put, change, look, now):
    delivery = put()
    _, then = die(change, now, queue.POISON + 1)
    assert look(queue.get, delivery.id).state is State.HELD
    assert change(quarantine.release, delivery.id, "admin", then)
    assert [each.claims for each in change(queue.claim, "me", 10, then, LEASE)] == [0]


def test_the_leases_of_the_dead_end_at_once_and_count(put, change, now):
    delivery, told = put(), put()
    claim(change, now, "alive")
    change(queue.failed, told.id, "alive", "550", now, Notice.FAILED)
    change(queue.release_claims, "alive", [delivery.id])
    claim(change, now, "dead")
    change(queue.owed_notices, "dead", 10, now, LEASE)
    assert change(queue.take_over, lambda owner: owner == "alive") == 0
    assert claim(change, now) == []
    assert change(queue.take_over, lambda owner: owner == "dead") == 2
    assert [each.claims for each in change(queue.claim, "me", 10, now, LEASE)] == [1]
    assert [each.claims for each in change(queue.owed_notices, "me", 10, now, LEASE)] == [1]


def test_a_notice_is_no_suspect_as_long_as_a_mail_is_that_it_may_have_died_beside(put, change, look, now):
    told, deadly = put(), put()
    claim(change, now)
    change(queue.failed, told.id, "me", "550", now, Notice.FAILED)
    change(queue.release_claims, "me", [deadly.id])
    for n in range(queue.SUSPECT):
        change(queue.owed_notices, "doomed", 10, now + n * LEASE, LEASE)
        claim(change, now + n * LEASE, "doomed")
    then = now + queue.SUSPECT * LEASE
    assert change(queue.owed_notices, "doomed", 10, then, LEASE) == []
    assert claim(change, then, "doomed") == [deadly.id]
    then += LEASE
    assert change(queue.owed_notices, "me", 10, then, LEASE) == []
    assert claim(change, then) == []
    assert look(queue.get, deadly.id).state is State.HELD
    assert [each.id for each in change(queue.owed_notices, "me", 10, then, LEASE)] == [told.id]
    assert change(queue.absolve, "me", [told.id, deadly.id]) == [told.id]
    assert look(queue.get, told.id).claims == 0


def test_only_what_became_due_lately_is_looked_at_when_asked_so(put, change, now):
    put(mail={"received_at": now - 100})
    late = put(mail={"received_at": now - 1})
    assert [each.id for each in change(queue.claim, "me", 10, now, LEASE, since=now - 10)] == [late.id]


@pytest.mark.parametrize("number", [1, 2, 3, 5, 20])
def test_any_number_of_destinations_can_be_busy(put, change, now, number):
    names = [f"d{n}.example" for n in range(number)]
    for name in names:
        put(address=f"a@{name}")
    free = put()
    assert claim(change, now, busy=names) == [free.id]
    assert len(claim(change, now, busy=names[1:])) == 1

"""What is kept of mails until their owners are told, and what was told; on both databases."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import func, select

from gateway.model import Recipient, State
from gateway.store import messages, observations, schema
from gateway.store.engine import Store
from gateway.store.observations import DAY, Observation, Published, Row, Sent

TODAY = 20_000 * DAY
PUBLISHED = Published("owner.example", "treewalk", "reject", rua=("mailto:rua@owner.example",))
ROW = Row(
    "192.0.2.1", "reject", "fail", "fail", "owner.example", "else.example", "us.example",
    reasons=(("local_policy", "why"),), signatures=(("d.example", "s1", "fail"),), checked=("else.example", "pass"),
)  # fmt: skip


def seen(at=TODAY - 5, row=ROW, domain="owner.example", **policy):
    return Observation(at, replace(PUBLISHED, domain=domain, **policy), row)


def sent(begins=TODAY - DAY, domain="owner.example", **more):
    return Sent(
        **({"domain": domain, "begins": begins, "ends": begins + DAY, "at": TODAY, "mails": 1, "outcome": "x"} | more)
    )


@pytest.fixture
def observe(store):
    def make(*many):
        with store.begin() as conn:
            for one in many:
                observations.add(conn, one)

    return make


def counted(look, begins=TODAY - DAY, ends=TODAY, limit=10, domain="owner.example"):
    return look(lambda conn: list(observations.rows(conn, domain, begins, ends, limit)))


def left(look):
    return look(lambda conn: conn.scalar(select(func.count()).select_from(schema.dmarc_observation)))


def test_what_was_observed_comes_back_as_it_was(observe, look):
    observe(seen())
    assert counted(look) == [(ROW, 1)]
    assert look(observations.published, "owner.example", TODAY - DAY, TODAY) == PUBLISHED


def test_mails_that_were_alike_are_counted_and_the_most_frequent_stand_first(observe, look):
    other = replace(ROW, source="2001:db8::1", signatures=(), checked=(), reasons=())
    observe(seen(row=other), *[seen(at=TODAY - n) for n in (2, 3, 4)])
    assert counted(look) == [(ROW, 3), (other, 1)]
    assert counted(look, limit=1) == [(ROW, 3)]
    assert look(observations.count, "owner.example", TODAY - DAY, TODAY) == 4


def test_a_report_is_about_one_domain_and_one_day(observe, look):
    observe(seen(at=TODAY - DAY), seen(at=TODAY - DAY - 1), seen(at=TODAY), seen(domain="other.example"))
    assert counted(look) == [(ROW, 1)]
    assert look(observations.count, "owner.example", TODAY - DAY, TODAY) == 1
    assert look(observations.published, "nobody.example", TODAY - DAY, TODAY) is None


def test_the_policy_of_a_day_is_the_one_that_was_found_last(observe, look):
    observe(seen(at=TODAY - 3, p="none"), seen(at=TODAY - 1, p="quarantine"), seen(at=TODAY - 2, p="reject"))
    assert look(observations.published, "owner.example", TODAY - DAY, TODAY).p == "quarantine"


def test_domains_wait_in_order_with_their_oldest_mail(observe, look):
    observe(*[seen(at=TODAY - n, domain=f"{name}.example") for name in "bca" for n in (1, 2)])
    found = look(observations.waiting, "", 2, TODAY)
    assert [(one.domain, one.oldest, one.settled) for one in found] == [
        ("a.example", TODAY - 2, 0.0),
        ("b.example", TODAY - 2, 0.0),
    ]
    assert [one.domain for one in look(observations.waiting, "b.example", 10, TODAY)] == ["c.example"]


def test_a_day_is_settled_once(store, look, change, observe):
    observe(seen())
    assert change(observations.settle, sent())
    assert not change(observations.settle, sent())
    assert not change(observations.settle, sent(begins=TODAY - DAY - 5))
    assert change(observations.settle, sent(begins=TODAY))
    assert change(observations.settle, sent(domain="other.example"))
    (one,) = look(observations.waiting, "", 1, TODAY)
    assert one.settled == TODAY
    assert len(look(observations.sent, 10)) == 3
    assert [(one.domain, one.mails) for one in look(observations.sent, 10, "other.example")] == [("other.example", 1)]


def test_two_nodes_that_settle_the_same_day_at_once_do_it_once(store, url):
    other = Store(url, patience=5.0)

    def second():
        with other.begin() as conn:
            return observations.settle(conn, sent())

    try:
        with ThreadPoolExecutor(1) as thread:
            with store.begin() as conn:
                assert observations.settle(conn, sent())
                late = thread.submit(second)
                with pytest.raises(TimeoutError):  # on PostgreSQL it has seen nothing, on SQLite it waits for its turn
                    late.result(0.2)
            assert not late.result(10)
    finally:
        other.close()


def test_a_day_of_a_clock_that_was_wrong_settles_nothing_before_it(look, change, observe):
    observe(seen())
    assert change(observations.settle, sent(begins=TODAY + 900 * DAY))
    (one,) = look(observations.waiting, "", 1, TODAY)
    assert one.settled == 0.0
    assert change(observations.settle, sent())


def test_what_is_settled_is_forgotten_and_nothing_else(look, change, observe, monkeypatch):
    monkeypatch.setattr(observations, "_FORGOTTEN", 2)
    observe(*[seen(at=TODAY - n) for n in range(1, 4)], seen(at=TODAY), seen(domain="other.example"))
    done = []
    while count := change(observations.forget_settled, "owner.example", TODAY):
        done.append(count)
    assert (done, left(look)) == ([2, 1], 2)


def test_what_is_old_is_forgotten_a_piece_at_a_time(look, change, observe, monkeypatch):
    monkeypatch.setattr(observations, "_FORGOTTEN", 2)
    observe(*[seen(at=TODAY - n) for n in range(1, 4)], seen(at=TODAY))
    change(observations.settle, sent(at=TODAY - 400 * DAY))
    change(observations.settle, sent(domain="other.example"))
    rounds = [change(observations.forget, TODAY, TODAY - DAY) for _ in range(3)]
    assert rounds == [3, 1, 0]
    assert left(look) == 1
    assert [one.domain for one in look(observations.sent, 10)] == ["other.example"]


@pytest.mark.parametrize("fate", ["accepted", "refused"])
def test_an_observation_is_kept_with_its_mail(store, look, draft, fate):
    made = draft(observation=seen())
    state = State.QUEUED if fate == "accepted" else State.REFUSED
    with store.begin() as conn:
        keep = messages.accept if fate == "accepted" else messages.refuse
        keep(conn, made, [messages.Row(Recipient("bob@us.example"), state)])
    assert counted(look) == [(ROW, 1)]


def test_a_mail_that_is_not_kept_is_not_observed(store, look, draft):
    with pytest.raises(ValueError, match="nobody accepts"), store.begin() as conn:
        messages.accept(conn, draft(observation=seen()), [])
    assert left(look) == 0

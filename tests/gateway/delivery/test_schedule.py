"""What follows from a result: when a mail is tried again, when its sender hears of it, and when it goes back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.delivery.reply import Reply
from gateway.delivery.schedule import Step, horizon, step, wanted
from gateway.delivery.transaction import Result
from gateway.model import Delivery, Notice, Recipient, State
from gateway.stages import Queue

BOB = Delivery(
    1, "m1", "alice@us.example", Recipient("bob@there.example"), State.QUEUED, "there.example", queued_at=1000.0
)
LATER = Result(Reply(450, "4.2.0", "later"))
NEVER = Result(Reply(550, "5.1.1", "unknown"))
TAKEN = Result(Reply(250, "2.0.0", "ok"))
HOUR, DAY = 3600.0, 86400.0


def after(delivery: Delivery, result: Result, age: float, chance: float = 0.0) -> Step:
    return step(delivery, result, Queue(), 1000.0 + age, chance)


@pytest.mark.parametrize(("attempts", "minutes"), [(0, 5), (1, 10), (2, 20), (3, 30), (50, 30)])
def test_retries_come_after_5_10_20_and_then_every_30_minutes(attempts: int, minutes: int) -> None:
    then = after(replace(BOB, attempts=attempts), LATER, 60.0)
    assert then == Step(State.QUEUED, LATER.reply, 1060.0 + minutes * 60)


def test_chance_spreads_retries_a_little() -> None:
    assert after(BOB, LATER, 0.0, chance=1.0).next_attempt == pytest.approx(1000 + 300 * 1.05)


def test_the_sender_hears_once_that_the_mail_is_late() -> None:
    assert after(BOB, LATER, 4 * HOUR - 1).notice is None
    assert after(BOB, LATER, 4 * HOUR).notice is Notice.DELAYED
    assert after(replace(BOB, warned=True), LATER, 5 * HOUR).notice is None


def test_the_last_attempt_is_at_the_end_of_the_time() -> None:
    assert after(replace(BOB, attempts=9), LATER, 5 * DAY - 60).next_attempt == 1000.0 + 5 * DAY


def test_after_five_days_the_mail_goes_back() -> None:
    assert after(replace(BOB, warned=True), LATER, 5 * DAY) == Step(State.FAILED, LATER.reply, notice=Notice.FAILED)


def test_a_permanent_refusal_fails_at_once() -> None:
    assert after(BOB, NEVER, 0.0) == Step(State.FAILED, NEVER.reply, notice=Notice.FAILED)


def test_a_host_that_refuses_the_conversation_does_not_fail_the_mail() -> None:
    assert after(BOB, replace(NEVER, elsewhere=True), 0.0).state is State.QUEUED


@pytest.mark.parametrize("attempts", range(8))
def test_nothing_is_planned_beyond_the_horizon(attempts: int) -> None:
    policy = Queue(first_retries=(600.0, 7200.0), retry_every=1800.0)
    planned = step(replace(BOB, attempts=attempts), LATER, policy, 1000.0, 1.0).next_attempt
    assert 1000.0 < planned < 1000.0 + horizon(policy)


def test_a_clock_that_went_back_fails_nothing() -> None:
    assert after(BOB, LATER, -9 * DAY).state is State.QUEUED


def test_success_is_confirmed_only_on_request_and_where_nobody_else_does() -> None:
    asked = replace(BOB, recipient=Recipient("bob@there.example", frozenset({"SUCCESS"})))
    assert after(BOB, TAKEN, 0.0).notice is None
    assert after(asked, TAKEN, 0.0) == Step(State.SENT, TAKEN.reply, notice=Notice.RELAYED)
    assert after(asked, replace(TAKEN, dsn=True), 0.0).notice is None


@pytest.mark.parametrize(
    ("notify", "told"),
    [
        ("", "failed delayed"),
        ("NEVER", ""),
        ("FAILURE", "failed"),
        ("DELAY", "delayed"),
        ("SUCCESS", "delivered relayed"),
        ("SUCCESS FAILURE DELAY", "failed delayed delivered relayed"),
    ],
)
def test_the_sender_hears_what_notify_asks_for(notify: str, told: str) -> None:
    delivery = replace(BOB, recipient=Recipient("bob@there.example", frozenset(notify.split())))
    assert [notice.value for notice in Notice if wanted(delivery, notice)] == told.split()
    assert not any(wanted(replace(delivery, sender=""), notice) for notice in Notice)

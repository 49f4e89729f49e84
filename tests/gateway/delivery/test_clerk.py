"""What came of attempts is written down with the next claim, and kept until it can be."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import replace

import pytest

from gateway.delivery import clerk
from gateway.delivery.clerk import Clerk, Outcome, Turn, Wish
from gateway.delivery.reply import Reply
from gateway.delivery.schedule import Step
from gateway.model import State, Temporary
from gateway.store.turns import Turnstile
from tests.gateway.delivery.fakes import BOB, NOW

ME = Wish("me", limit=10, lease=60.0)
SENT = Step(State.SENT, Reply(250, "2.0.0", "taken"))


def turn(one: Clerk, wish: Wish | None = None) -> Turn:
    return asyncio.run(one.turn(wish))


def claimed(house, *to: str) -> tuple[Clerk, list[Outcome], str]:
    """A clerk that has claimed a mail to *to*, and what is to be written down about it."""
    mail = house.put(*to)
    one = Clerk(house.store, lambda: NOW)
    outcomes = [Outcome(delivery, ME.owner, SENT, NOW) for delivery in turn(one, ME).claimed]
    assert len(outcomes) == len(to)
    return one, outcomes, mail


def test_a_short_message_comes_with_its_claim(house) -> None:
    mail = house.put(BOB)
    done = turn(Clerk(house.store, lambda: NOW), ME)
    assert [one.message_id for one in done.claimed] == [*done.bodies] == [mail]
    assert done.bodies[mail]


def test_what_was_noted_is_written_down_once(house) -> None:
    one, outcomes, mail = claimed(house, BOB)
    one.note(outcomes)
    assert one.waiting
    assert [done for _, done in turn(one).entered] == [True]
    assert (one.waiting, house.states(mail)) == (False, ["sent"])


def test_while_the_store_cannot_it_is_kept(house, monkeypatch: pytest.MonkeyPatch) -> None:
    one, outcomes, mail = claimed(house, BOB)
    one.note(outcomes)
    with monkeypatch.context() as broken:
        broken.setattr(house.store, "write", fails := Failing(Temporary("the store is full")))
        with pytest.raises(Temporary):
            turn(one)
    assert fails.calls == 1
    assert one.waiting
    assert [done for _, done in turn(one).entered] == [True]
    assert house.states(mail) == ["sent"]


def test_what_was_sent_is_not_forgotten_because_the_machine_denies_a_wait(
    house, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, outcomes, mail = claimed(house, BOB)
    one.note(outcomes)
    with monkeypatch.context() as broken:
        broken.setattr(Turnstile, "begin", denied)
        with pytest.raises(Temporary, match="EINVAL"):
            turn(one)
    assert one.waiting
    assert [done for _, done in turn(one).entered] == [True]
    assert house.states(mail) == ["sent"]


def test_one_that_breaks_our_code_costs_no_other(house, monkeypatch: pytest.MonkeyPatch) -> None:
    one, outcomes, mail = claimed(house, BOB, "carol@there.example")
    bad, enter = outcomes[0].delivery.id, clerk._enter

    def breaks(conn, outcome):
        if outcome.delivery.id == bad:
            raise ZeroDivisionError
        return enter(conn, outcome)

    monkeypatch.setattr(clerk, "_enter", breaks)
    one.note(outcomes)
    assert [done for _, done in turn(one).entered] == [False, True]
    assert sorted(house.states(mail)) == ["queued", "sent"]
    assert not one.waiting


def test_what_is_claimed_again_is_written_down_under_the_new_lease(house) -> None:
    one, outcomes, mail = claimed(house, BOB)
    one.note([replace(outcomes[0], owner="an older lease of ours")])
    one.hand_on(outcomes[0].delivery.id, ME.owner)
    assert [done for _, done in turn(one).entered] == [True]
    assert house.states(mail) == ["sent"]


def denied(*_: object) -> None:
    raise OSError(errno.EINVAL, "Invalid argument")


class Failing:
    """A write that raises *error*, and counts."""

    def __init__(self, error: Exception) -> None:
        self.error, self.calls = error, 0

    async def __call__(self, work: object) -> None:
        self.calls += 1
        raise self.error

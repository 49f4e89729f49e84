"""Held mail: seen, released to where it was going, dropped, or expired."""

import pytest

from gateway.model import Notice, Recipient, State
from gateway.store import mailbox, messages, quarantine, queue, tracking

DAY = 86400.0


def test_what_is_held_is_listed_newest_first(put, look, now):
    put()
    old, new = (put(State.HELD, mail={"received_at": now + at}) for at in (0, 10))
    assert [each.delivery_id for each in look(quarantine.list)] == [new.id, old.id]
    assert [each.delivery_id for each in look(quarantine.list, 10, before=now + 10)] == [old.id]
    assert [each.delivery_id for each in look(quarantine.list, 1)] == [new.id]


def test_only_what_is_held_is_shown(put, look):
    held, queued = put(State.HELD), put()
    assert look(quarantine.show, held.id).message.id == held.message_id
    assert look(quarantine.show, queued.id) is None
    assert look(quarantine.show, 99) is None


def test_release_leads_into_the_queue(put, change, look, now):
    held = put(State.HELD)
    assert change(quarantine.release, held.id, "admin", now=now + DAY)
    after = look(queue.get, held.id)
    assert (after.state, after.next_attempt, after.queued_at, after.accepted_at) == (
        State.QUEUED,
        now + DAY,
        now + DAY,
        now,
    )
    assert [each.id for each in change(queue.claim, "me", 1, now + DAY, 60)] == [held.id]


def test_release_leads_into_the_mailbox_and_copies_nothing(put, change, look):
    held = put(State.HELD, mailbox="bob", body=b"bytes")
    assert change(quarantine.release, held.id, "admin")
    (mail,) = look(mailbox.listing, "bob")
    assert (mail.id, mail.message_id) == (held.id, held.message_id)
    assert look(lambda conn: b"".join(messages.read_chunks(conn, mail.message_id))).endswith(b"bytes")
    assert look(queue.get, held.id).notice is None
    assert look(tracking.life, held.message_id).events[-1].text == "by admin"


def test_who_asked_to_hear_of_success_hears_of_the_release(put, change, look):
    held = put(State.HELD, mailbox="bob", recipient=Recipient("bob@example.net", frozenset({"SUCCESS"})))
    change(quarantine.release, held.id, "admin")
    assert look(queue.get, held.id).notice is Notice.DELIVERED


@pytest.mark.parametrize("function", [quarantine.release, quarantine.drop])
def test_only_what_is_held_can_be_released_or_dropped(put, change, look, function):
    queued = put()
    assert not change(function, queued.id, "admin")
    assert not change(function, 99, "admin")
    assert look(queue.get, queued.id) == queued
    held = put(State.HELD)
    assert change(function, held.id, "admin")
    assert not change(function, held.id, "admin")


def test_what_is_held_too_long_expires(put, change, look, now):
    old = put(State.HELD)
    new = put(State.HELD, mail={"received_at": now + DAY})
    assert change(quarantine.expire, now + 30 * DAY, 30 * DAY) == 0
    assert change(quarantine.expire, now + 30 * DAY + 1, 30 * DAY) == 1
    assert change(quarantine.expire, now + 30 * DAY + 1, 30 * DAY) == 0
    assert [look(queue.get, each.id).state for each in (old, new)] == [State.DROPPED, State.HELD]


def test_what_an_administrator_held_expires_by_the_time_it_is_held(put, change, now):
    queued = put()
    change(queue.hold, queued.id, by="admin", now=now + 29 * DAY)
    assert change(quarantine.expire, now + 31 * DAY, 30 * DAY) == 0

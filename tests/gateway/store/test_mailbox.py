"""Mailboxes: one session at a time, unique ids for ever, and deleting only under the lock."""

import pytest

from gateway.model import State
from gateway.store import mailbox, messages, queue, tracking

LEASE = 60.0


@pytest.fixture
def post(put):
    return lambda account="bob", **words: put(State.MAILBOX, mailbox=account, **words)


def test_one_session_at_a_time(change, now):
    assert change(mailbox.lock, "bob", "one", now, LEASE)
    assert not change(mailbox.lock, "bob", "two", now + LEASE - 1, LEASE)
    assert change(mailbox.lock, "eve", "two", now, LEASE)
    change(mailbox.unlock, "bob", "two")
    assert not change(mailbox.lock, "bob", "two", now, LEASE)
    change(mailbox.unlock, "bob", "one")
    assert change(mailbox.lock, "bob", "two", now, LEASE)


def test_a_session_that_died_keeps_nobody_out_for_long(change, now):
    change(mailbox.lock, "bob", "one", now, LEASE)
    assert change(mailbox.renew, "bob", "one", now + 50, LEASE)
    assert not change(mailbox.lock, "bob", "two", now + LEASE, LEASE)
    assert change(mailbox.lock, "bob", "two", now + 50 + LEASE, LEASE)
    assert not change(mailbox.renew, "bob", "one", now, LEASE)


def test_a_lock_from_a_wrong_clock_keeps_nobody_out(change, now):
    change(mailbox.lock, "bob", "one", now + 1e8, 1e9)
    assert change(mailbox.lock, "bob", "two", now, LEASE)


def test_the_oldest_mail_comes_first_with_its_whole_size(post, put, look, change):
    first = post(body=b"x" * 100, header=b"X-Our: header\r\n")
    second = post(body=b"y" * 10)
    post("eve")
    put(State.HELD, mailbox="bob")
    listed = look(mailbox.listing, "bob")
    assert [each.id for each in listed] == [first.id, second.id]
    for each in listed:
        whole = look(mailbox.header, each.id) + look(
            lambda conn, m=each: b"".join(messages.read_chunks(conn, m.message_id))
        )
        assert each.size == len(whole)
    assert [each.id for each in look(mailbox.listing, "bob", limit=1)] == [first.id]
    assert look(mailbox.listing, "nobody") == []
    assert look(mailbox.header, 99) == b""


def test_unique_ids_stay_and_fit(post, look, change, now):
    first, second = post(), post()
    before = {each.id: each.uid for each in look(mailbox.listing, "bob")}
    change(mailbox.lock, "bob", "me", now, LEASE)
    change(mailbox.delete, "bob", "me", [first.id], now)
    third = post()
    after = {each.id: each.uid for each in look(mailbox.listing, "bob")}
    assert after[second.id] == before[second.id]
    assert after[third.id] not in before.values()
    assert all(1 <= len(uid) <= 70 and all("!" <= c <= "~" for c in uid) for uid in after.values())  # RFC 1939 7


def test_deleting_needs_the_lock(post, look, change, now):
    mail = post()
    assert not change(mailbox.delete, "bob", "me", [mail.id], now)
    change(mailbox.lock, "bob", "me", now, LEASE)
    change(mailbox.lock, "bob", "thief", now + LEASE, LEASE)
    assert not change(mailbox.delete, "bob", "me", [mail.id], now + LEASE)
    assert len(look(mailbox.listing, "bob")) == 1
    assert change(mailbox.delete, "bob", "thief", [mail.id], now + LEASE)
    assert look(mailbox.listing, "bob") == []
    assert look(queue.get, mail.id).state is State.DROPPED
    assert look(tracking.life, mail.message_id).events[-1].kind == "delete"


def test_nobody_deletes_what_is_in_another_mailbox(post, put, look, change, now):
    others, held = post("eve"), put(State.HELD, mailbox="bob")
    change(mailbox.lock, "bob", "me", now, LEASE)
    assert change(mailbox.delete, "bob", "me", [others.id, held.id], now)
    assert len(look(mailbox.listing, "eve")) == 1
    assert look(queue.get, held.id).state is State.HELD


def test_many_mails_are_deleted_at_once(post, look, change, now):
    ids = [post().id for _ in range(30)]
    change(mailbox.lock, "bob", "me", now, LEASE)
    assert change(mailbox.delete, "bob", "me", [*ids, *range(1000, 2500)])
    assert look(mailbox.listing, "bob") == []


def test_clearing_takes_mail_and_session_away(post, put, look, change, now):
    mail, held, others = post(), put(State.HELD, mailbox="bob"), post("eve")
    change(mailbox.lock, "bob", "me", now, LEASE)
    assert change(mailbox.clear, "bob", "admin") == 2
    assert not change(mailbox.delete, "bob", "me", [mail.id], now)
    states = [look(queue.get, each.id).state for each in (mail, held, others)]
    assert states == [State.DROPPED, State.DROPPED, State.MAILBOX]

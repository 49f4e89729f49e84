"""Whatever strangers send comes back from every database as it was kept: text, octets, truths, numbers."""

import math
import sys

import pytest
from sqlalchemy import text

from gateway.model import Action, Envelope, Finding, Reason, Recipient, Session, State, Verdict
from gateway.store import messages, queue, tracking

HOSTILE = {
    "NUL": "a\0b",
    "control characters": "".join(map(chr, range(32))) + "\x7f\x80\x9f",
    "a lone surrogate": "a\ud800b",
    "undecodable octets": b"\xff\xfe\x80".decode("utf-8", "surrogateescape"),
    "beyond the BMP": "\U0001f4a9\U0002f800",
    "right to left": "a\u202eb",
    "quotes": "'; DROP TABLE message; -- \\' \" $1 %s %(x)s :x ? {}",
    "too long": "x" * 100_000,
}


@pytest.fixture(params=list(HOSTILE))
def hostile(request):
    return HOSTILE[request.param]


def test_hostile_text_is_kept_in_a_form_that_every_database_takes(draft, change, look, hostile):
    finding = Finding("found", hostile, facts=(hostile,))
    verdict = Verdict(Action.QUARANTINE, 1.5, (Reason("spam", finding, 1.5),), hostile)
    session = Session(draft().session.peer, listener="mx", helo=hostile, tls=hostile, user=hostile)
    mail = draft(
        session=session,
        subject=hostile,
        header_from=hostile,
        header_message_id=hostile,
        evidence={"found": {hostile: [hostile]}},
    )
    row = messages.Row(Recipient("bob@example.net"), State.QUEUED, verdict=verdict)
    change(messages.accept, mail, [row])
    (claimed,) = change(queue.claim, "me", 1, mail.received_at, 60.0)
    assert change(queue.retry, claimed.id, "me", hostile, mail.received_at, mail.received_at)
    life = look(tracking.life, mail.id)
    for shown in (life.message.session.helo, life.message.subject, life.deliveries[0].delivery.last_reply):
        assert shown.isprintable()
        assert len(shown) <= 1000
    assert life.evidence == {"found": {hostile: [hostile]}}
    assert life.deliveries[0].verdict.reasons[0].finding.facts == (hostile,)
    assert [one.subject for one in look(tracking.find, subject=life.message.subject[:20])] == [life.message.subject]


def test_every_octet_comes_back(put, look):
    octets = bytes(range(256)) * 3
    delivery = put(body=octets, header=octets)
    assert look(queue.get, delivery.id).header == octets
    assert b"".join(look(lambda conn: [*messages.read_chunks(conn, delivery.message_id)])).endswith(octets)
    assert type(look(queue.get, delivery.id).header) is bytes


@pytest.mark.parametrize("truth", [True, False])
def test_truths_are_truths(put, look, truth):
    envelope = Envelope("a@b.example", eight_bit=truth, smtputf8=truth)
    delivery = look(queue.get, put(mail={"envelope": envelope}).id)
    assert (delivery.eight_bit, delivery.smtputf8, delivery.warned) == (truth, truth, False)
    assert {type(each) for each in (delivery.eight_bit, delivery.smtputf8, delivery.warned)} == {bool}


@pytest.mark.parametrize("score", [0.0, -0.1, 1e300, sys.float_info.min, math.pi])
def test_numbers_keep_every_digit(put, look, score):
    at = 1_800_000_000.123456
    delivery = put(mail={"received_at": at}, verdict=Verdict(score=score))
    assert look(queue.get, delivery.id).accepted_at == at
    (tracked,) = look(tracking.find, id=delivery.message_id)
    assert tracked.score == score


def test_ids_go_beyond_32_bits(put, store, look):
    with store.begin() as conn:
        if conn.dialect.name == "sqlite":
            conn.execute(text("INSERT INTO sqlite_sequence (name, seq) VALUES ('delivery', 5000000000)"))
        else:
            conn.execute(text("SELECT setval('delivery_id_seq', 5000000000)"))
    delivery = put()
    assert delivery.id == 5_000_000_001
    assert look(queue.get, delivery.id) == delivery
    assert look(queue.get, (1 << 63) - 1) is None

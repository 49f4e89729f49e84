"""Mail goes in whole or not at all, comes out byte by byte the same, and is forgotten when nobody needs it."""

from dataclasses import replace
from io import BytesIO
from ipaddress import ip_address

import pytest
from sqlalchemy import func, select

from gateway.model import (
    Action,
    Envelope,
    Finding,
    ListenerKind,
    Notice,
    Reason,
    Recipient,
    Session,
    State,
    Temporary,
    Verdict,
)
from gateway.store import messages, quarantine, queue, schema, tracking


def row(state=State.QUEUED, address="bob@example.net", **words):
    return messages.Row(Recipient(address), state, **words)


def stored(conn, message_id):
    return b"".join(messages.read_chunks(conn, message_id))


def rows_of(conn, table):
    return conn.scalar(select(func.count()).select_from(table))


class Blockwise(BytesIO):
    """Notes how much is asked for at once."""

    largest = 0

    def read(self, size=-1):
        assert size >= 0
        self.largest = max(self.largest, size)
        return super().read(size)


def test_a_file_that_reads_in_small_pieces_makes_whole_chunks(draft, change, look):
    class Pieces(BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 1000))

    mail = replace(draft(header=b"h" * (messages.CHUNK + 5)), body=Pieces(b"x" * messages.CHUNK))
    change(messages.accept, mail, [row()])
    assert look(stored, mail.id) == mail.header + b"x" * messages.CHUNK
    assert look(messages.chunk_count, mail.id) == 3
    assert [len(look(messages.chunk, mail.id, n)) for n in range(3)] == [messages.CHUNK, messages.CHUNK, 5]


def test_a_body_that_is_shorter_than_it_says_is_not_accepted(draft, change, look):
    class Shrinks(BytesIO):
        def read(self, size=-1):
            return super().read(size)[:-1]

    with pytest.raises(ValueError, match="changed"):
        change(messages.accept, replace(draft(), body=Shrinks(b"x" * 100)), [row()])
    assert look(rows_of, schema.message) == 0


SIZES = [0, 1, messages.CHUNK - 15, messages.CHUNK - 14, messages.CHUNK, messages.CHUNK * 3 + 7]


@pytest.mark.parametrize("size", SIZES)
def test_what_comes_out_is_our_header_and_the_body_byte_by_byte(draft, change, look, size):
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    mail = draft(body)
    change(messages.accept, mail, [row()])
    whole = mail.header + body
    assert look(stored, mail.id) == whole
    assert look(messages.chunk_count, mail.id) == -(-len(whole) // messages.CHUNK)
    assert look(messages.whole, mail.id) == whole[: messages.CHUNK]
    assert look(queue.of_message, mail.id)[0].size == len(whole)


def test_the_body_is_read_from_its_start_and_in_blocks(draft, change, look):
    body = Blockwise(b"x" * (1 << 20))
    body.seek(17)
    mail = replace(draft(), body=body)
    change(messages.accept, mail, [row()])
    assert body.largest <= messages.CHUNK
    assert look(stored, mail.id) == mail.header + b"x" * (1 << 20)


def test_a_mail_without_any_bytes_has_no_chunks(draft, change, look):
    mail = draft(b"", header=b"")
    change(messages.accept, mail, [row()])
    assert look(stored, mail.id) == b""
    assert look(messages.chunk_count, mail.id) == 0
    assert look(messages.whole, mail.id) == b""


def test_a_chunk_that_is_not_there_is_an_error(put, look):
    delivery = put()
    with pytest.raises(LookupError):
        look(messages.chunk, delivery.message_id, 1)
    assert look(messages.chunk_count, "nothing") == 0


def test_everything_about_a_mail_is_kept(draft, change, look, now):
    session = Session(
        ip_address("2001:db8::1"), "submission", ListenerKind.SUBMISSION, "me", "TLSv1.3", "bob", esmtp=False
    )
    envelope = Envelope("a@example.org", (), eight_bit=True, smtputf8=True, ret="HDRS", envid="QQ+2B")
    recipient = Recipient("Bob@Example.NET", frozenset({"SUCCESS", "DELAY"}), "rfc822;bob@example.net")
    reasons = (
        Reason("spf", Finding("fail", "no\x00where", "1.2", ("a", "b")), Action.TAG),
        Reason("spam", Finding("x"), 2.5),
    )
    verdict = Verdict(Action.TAG, 2.5, reasons, "tagged, because")
    facts = {"spf": [{"code": "fail", "facts": ["\ud800", 1, None]}]}
    mail = draft(
        session=session,
        envelope=envelope,
        subject="Hi",
        header_from="A <a@x>",
        header_message_id="<1@x>",
        evidence=facts,
    )
    sort = messages.Row(recipient, State.QUEUED, header=b"X-Tag: 1\r\n", verdict=verdict, notice=Notice.RELAYED)
    change(messages.accept, mail, [sort])
    life = look(tracking.life, mail.id)
    assert life.message.session == session
    assert life.message.envelope == envelope
    assert (life.message.subject, life.message.header_from, life.message.header_message_id) == (
        "Hi",
        "A <a@x>",
        "<1@x>",
    )
    assert (life.message.received_at, life.message.has_bytes) == (now, True)
    assert life.evidence == facts
    (fate,) = life.deliveries
    assert fate.verdict == verdict
    assert fate.delivery.recipient == recipient
    assert (fate.delivery.destination, fate.delivery.header) == ("example.net", b"X-Tag: 1\r\n")
    assert fate.delivery.notice is Notice.RELAYED
    assert fate.delivery.size == life.message.size + len(b"X-Tag: 1\r\n")
    assert [(event.kind, event.delivery_id) for event in life.events] == [("queue", fate.delivery.id)]


def test_each_recipient_has_a_delivery_in_the_order_given(draft, change, look):
    rows = [
        row(State.QUEUED, "a@x"),
        row(State.HELD, "b@x"),
        row(State.MAILBOX, "c@x", mailbox="c"),
        row(State.REFUSED, "d"),
    ]
    mail = draft()
    change(messages.accept, mail, rows)
    found = look(queue.of_message, mail.id)
    assert [(each.recipient.address, each.state) for each in found] == [(r.recipient.address, r.state) for r in rows]
    assert found[3].destination == ""
    events = look(tracking.life, mail.id).events
    assert [(event.delivery_id, event.kind) for event in events] == list(
        zip([each.id for each in found], ["queue", "hold", "store", "refuse"], strict=True)
    )


def test_a_hundred_recipients_are_one_transaction(draft, change, look):
    mail = draft()
    change(messages.accept, mail, [row(address=f"user{n}@example.net") for n in range(100)])
    assert [each.recipient.address for each in look(queue.of_message, mail.id)] == [
        f"user{n}@example.net" for n in range(100)
    ]


def test_text_of_strangers_is_cleaned_and_capped(draft, change, look):
    mail = draft(subject="a\r\nb\x00\u202ec\ud800" + "x" * 5000, session=Session(ip_address("::1"), helo="h\x1b[2J"))
    change(messages.accept, mail, [row()])
    message = look(tracking.life, mail.id).message
    assert message.subject.startswith("a  b\ufffd\ufffdc?x")
    assert len(message.subject) == messages.HEADER_TEXT
    assert message.session.helo == "h\ufffd[2J"


def test_too_much_evidence_is_named_not_kept(draft, change, look):
    mail = draft(evidence={"a": "x" * messages.EVIDENCE})
    change(messages.accept, mail, [row()])
    assert look(messages.evidence, mail.id) == {"too_large": messages.EVIDENCE + 9, "holds": ["a"]}


@pytest.mark.parametrize("rows", [[], [row(State.REFUSED)], [row(State.MAILBOX)], [row(State.QUEUED), row(State.SENT)]])
def test_what_cannot_be_accepted_leaves_nothing(draft, change, look, rows):
    with pytest.raises((ValueError, KeyError)):
        change(messages.accept, draft(), rows)
    assert look(rows_of, schema.message) == look(rows_of, schema.chunk) == look(rows_of, schema.delivery) == 0


def test_a_body_that_breaks_off_leaves_nothing(draft, change, look):
    class Breaks(BytesIO):
        def read(self, size=-1):
            if self.tell() >= messages.CHUNK:
                raise OSError("gone")
            return super().read(size)

    mail = replace(draft(), body=Breaks(b"x" * (1 << 20)))
    with pytest.raises(Temporary, match="the machine failed the store"):
        change(messages.accept, mail, [row()])
    assert look(rows_of, schema.message) == look(rows_of, schema.chunk) == look(rows_of, schema.delivery) == 0


def test_a_refused_mail_leaves_a_record_without_bytes(draft, change, look):
    mail = draft(b"secret", size=1234)
    change(messages.refuse, mail, [row(State.REFUSED, verdict=Verdict(Action.REJECT))])
    life = look(tracking.life, mail.id)
    assert (life.message.size, life.message.has_bytes) == (1234, False)
    assert life.deliveries[0].delivery.state is State.REFUSED
    assert look(rows_of, schema.chunk) == 0
    with pytest.raises(ValueError):
        change(messages.refuse, draft(), [row()])


KEEP = 1000.0


def sweep_all(change, now):
    rounds = 0
    while change(messages.sweep, now, KEEP):
        rounds += 1
    return rounds


def test_bytes_stay_while_any_delivery_needs_them(draft, change, look, now):
    mail = draft()
    rows = [row(), row(State.HELD, "b@x"), row(State.MAILBOX, "c@x", mailbox="c")]
    change(messages.accept, mail, rows)
    first, second, third = (each.id for each in look(queue.of_message, mail.id))
    for id_ in (first, second, third):
        assert sweep_all(change, now + 10 * KEEP) == 0
        assert look(stored, mail.id) == mail.header + mail.body.getvalue()
        change(queue.drop, id_, "admin", now=now)
    change(messages.sweep, now, KEEP)
    assert look(messages.chunk_count, mail.id) == 0
    assert look(rows_of, schema.chunk) == 0
    assert look(tracking.life, mail.id).message.size == len(mail.header + mail.body.getvalue())


def test_bytes_stay_while_a_notice_is_owed(put, change, look, now):
    delivery = put()
    change(queue.claim, "me", 1, now, 60)
    change(queue.failed, delivery.id, "me", "550 no", now, Notice.FAILED)
    assert sweep_all(change, now + 10 * KEEP) == 0
    change(queue.notice_sent, [delivery.id])
    change(messages.sweep, now, KEEP)
    assert look(messages.chunk_count, delivery.message_id) == 0


def test_old_records_go_with_all_that_belongs_to_them(put, draft, change, look, now):
    held, refused = put(State.HELD), draft()
    change(messages.refuse, refused, [row(State.REFUSED)])
    change(quarantine.drop, held.id, "admin")
    sweep_all(change, now + KEEP)
    assert look(rows_of, schema.message) == 2
    sweep_all(change, now + KEEP + 1)
    tables = (schema.message, schema.chunk, schema.evidence, schema.delivery, schema.event)
    assert [look(rows_of, table) for table in tables] == [0] * 5


def test_ids_of_deliveries_are_never_used_twice(put, change, now):
    first = put(State.HELD)
    change(quarantine.drop, first.id, "admin")
    sweep_all(change, now + KEEP + 1)
    assert put().id > first.id


def test_a_sweep_does_a_bounded_amount_of_work(put, change, look, now, monkeypatch):
    monkeypatch.setattr(messages, "_SWEPT", 2)
    for _ in range(5):
        change(queue.drop, put().id, "admin", now=now)
    assert [change(messages.sweep, now, KEEP) for _ in range(4)] == [2, 2, 1, 0]


def test_large_mails_are_swept_a_few_at_a_time(put, change, now, monkeypatch):
    mails = [put() for _ in range(5)]
    monkeypatch.setattr(messages, "_SWEPT_OCTETS", mails[0].size + 1)
    for mail in mails:
        change(queue.drop, mail.id, "admin", now=now)
    assert [change(messages.sweep, now, KEEP) for _ in range(4)] == [2, 2, 1, 0]

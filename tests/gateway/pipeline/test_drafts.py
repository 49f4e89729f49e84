"""Verdicts become rows: nobody gets what he would refuse, and a changed copy never takes the place of the original."""

import io
import json
from ipaddress import ip_address

import pytest

from gateway.model import (
    Action,
    Envelope,
    Finding,
    ListenerKind,
    Mail,
    Notice,
    Reason,
    Recipient,
    Session,
    State,
    Verdict,
)
from gateway.pipeline import drafts
from gateway.pipeline.content import parse
from gateway.pipeline.drafts import Circumstances, Judged, Spooled
from gateway.stages import Content

NOW = 1_800_000_000.0
WORLD = Session(ip_address("192.0.2.1"), helo="peer.example")
USER = Session(ip_address("127.0.0.1"), "submission", ListenerKind.SUBMISSION, "pc", "TLSv1.3", "alice")
MESSAGE = (
    b"From: a@far.example\r\nSubject: s\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: text/plain\r\n\r\nkeep me\r\n"
    b"--b\r\nContent-Type: application/x\r\nContent-Disposition: attachment; filename=run.exe\r\n\r\nMZ...\r\n"
    b"--b\r\nContent-Type: application/x\r\nContent-Disposition: attachment; filename=two.exe\r\n\r\nMZ two\r\n--b--\r\n"
)
FOUND = {"attachments": (Finding("executable", "run.exe", "2"),)}


def judged(action=Action.ACCEPT, address="bob@ours.example", mailbox="bob", parts=("2",), **words):
    reasons = [Reason("attachments", Finding("executable", "run.exe", part), action) for part in parts]
    verdict = Verdict(action, 0.0, tuple(reasons) if action is not Action.ACCEPT else (), "because")
    return Judged(Recipient(address, **words), verdict, mailbox)


def made(*to, session=WORLD, message=MESSAGE, sender="a@far.example"):
    """What is accepted: (draft, rows, octets with the header on top)."""
    mail = Mail("m1", session, Envelope(sender), parse(message, Content.Settings()))
    body_start = message.index(b"\r\n\r\n") + 4
    spooled = Spooled(io.BytesIO(message), len(message), message[:body_start], body_start)
    return drafts.drafts(mail, spooled, to, Circumstances("gw.ours.example", NOW, FOUND, "v1"))


def whole(draft):
    draft.body.seek(0)
    octets = draft.header + draft.body.read()
    assert len(octets) == draft.size
    return octets


@pytest.mark.parametrize(
    ("action", "mailbox", "state"),
    [
        (Action.ACCEPT, "bob", State.MAILBOX),
        (Action.TAG, "bob", State.MAILBOX),
        (Action.ACCEPT, "", State.QUEUED),
        (Action.QUARANTINE, "bob", State.HELD),
        (Action.QUARANTINE, "", State.HELD),
        (Action.REJECT, "bob", State.HELD),  # another one takes the mail: no bounce for spam
        (Action.REJECT, "", State.HELD),
    ],
)
def test_each_verdict_has_its_state(action, mailbox, state):
    ((_, (row,)),) = made(judged(action, mailbox=mailbox))
    assert (row.state, row.mailbox) == (state, mailbox)


def test_the_message_keeps_its_octets_below_what_we_put_on_top():
    ((draft, _),) = made(judged())
    octets = whole(draft)
    assert octets.endswith(MESSAGE)
    top = octets.removesuffix(MESSAGE)
    assert top.startswith(b"Received: from peer.example ([192.0.2.1])")
    assert b"\r\nAuthentication-Results: gw.ours.example" in top
    assert b"\r\nX-Gatepost-Id: m1\r\n" in top
    assert (draft.id, draft.subject, draft.header_from) == ("m1", "s", "a@far.example")


def test_who_gets_it_stripped_gets_a_copy_and_the_original_is_held_for_him():
    (original, plain), (copy, stripped) = made(judged(Action.STRIP), judged(address="eve@ours.example", mailbox="eve"))
    assert [(row.recipient.address, row.state) for row in plain] == [
        ("bob@ours.example", State.HELD),
        ("eve@ours.example", State.MAILBOX),
    ]
    assert [(row.recipient.address, row.state) for row in stripped] == [("bob@ours.example", State.MAILBOX)]
    assert copy.id != original.id
    assert b"MZ..." in whole(original)
    assert b"MZ..." not in whole(copy)
    assert b"keep me" in whole(copy)
    assert b"MZ two" in whole(copy)


def test_who_gets_the_same_parts_shares_a_copy_and_the_others_have_their_own():
    first, second, third = (
        judged(Action.STRIP, f"{name}@ours.example", name, parts)
        for name, parts in (("a", ("2",)), ("b", ("2",)), ("c", ("2", "3")))
    )
    (_, plain), *copies = made(first, second, third)
    assert {row.state for row in plain} == {State.HELD}
    assert [[row.recipient.address[0] for row in rows] for _, rows in copies] == [["a", "b"], ["c"]]


def test_what_cannot_be_stripped_is_held_and_nobody_gets_a_copy():
    ((_, rows),) = made(judged(Action.STRIP, parts=("9",)))
    assert [row.state for row in rows] == [State.HELD]


def test_an_original_that_is_held_owes_no_notice_of_delivery_and_its_copy_does():
    (_, plain), (_, stripped) = made(judged(Action.STRIP, notify=frozenset({"SUCCESS"})))
    assert [row.notice for row in plain] == [None]
    assert [row.notice for row in stripped] == [Notice.DELIVERED]


@pytest.mark.parametrize(
    ("sender", "mailbox", "action", "owed"),
    [
        ("a@far.example", "bob", Action.ACCEPT, Notice.DELIVERED),
        ("", "bob", Action.ACCEPT, None),
        ("a@far.example", "", Action.ACCEPT, None),
        ("a@far.example", "bob", Action.QUARANTINE, None),
    ],
)
def test_success_is_told_of_mailboxes_alone_and_never_to_the_null_sender(sender, mailbox, action, owed):
    ((_, (row,)),) = made(judged(action, mailbox=mailbox, notify=frozenset({"SUCCESS"})), sender=sender)
    assert row.notice is owed


def test_what_our_people_send_to_others_says_nothing_of_how_we_judge():
    ((draft, (theirs, ours)),) = made(
        judged(address="x@far.example", mailbox=""),
        judged(),
        session=USER,
        message=b"From: alice@ours.example\r\n\r\nx",
    )
    assert theirs.header == b""
    assert b"X-Gatepost-Verdict" in ours.header
    assert b"Authentication-Results" not in draft.header
    assert b"Date: " in draft.header
    assert b"Message-ID: <m1@gw.ours.example>" in draft.header


def test_what_the_world_sends_is_not_completed():
    ((draft, _),) = made(judged(), message=b"From: a@far.example\r\n\r\nx")
    assert b"Message-ID" not in draft.header


def test_the_evidence_can_be_kept_as_json_and_has_no_octets_of_the_mail():
    ((draft, _),) = made(judged())
    kept = json.loads(json.dumps(draft.evidence))
    assert (kept["session"]["peer"], kept["direction"], kept["policies"]) == ("192.0.2.1", "inbound", "v1")
    assert [part[2] for part in kept["content"]["parts"]] == ["", "run.exe", "two.exe"]
    assert "keep me" not in json.dumps(kept)

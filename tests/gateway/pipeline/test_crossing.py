"""What crosses between gateway and worker: everything comes back as it was, and only what is small is read at all."""

import ipaddress

import pytest
from pydantic import ValidationError

from gateway.model import (
    Arc,
    ArcSet,
    Author,
    Content,
    Envelope,
    Finding,
    Mail,
    Part,
    Recipient,
    Result,
    Session,
    Signature,
)
from gateway.pipeline.crossing import ANSWER, FRAME, MAIL, MAX_OBJECTS, MAX_REPLY, SCANNED, Scanned, fits

SESSION = Session(ipaddress.ip_address("2001:db8::1"), helo="h\udcff", tls="TLSv1.3", esmtp=False)
SIGNATURE = Signature("a.example", "s", "rsa-sha256", value="AA==", signed_at=1, partial=True)
CONTENT = Content(
    headers=(("Subject", "\N{SNOWMAN} \u202e"),),
    parts=(Part("1/a b", "text/plain", 'a"\\.zip', "application/zip", 7, span=(0, 9), stored=(3, 4), unlocked=True),),
    defects=("d",),
    ambiguities=("a",),
    size=1 << 40,
    author=Author("a@b.example", "b.example", doubts=("two",)),
    signatures=(SIGNATURE,),
    arc=Arc((ArcSet(1, "none", SIGNATURE, SIGNATURE, (("spf", "pass"),)),)),
)


def test_a_mail_comes_over_as_it_was():
    envelope = Envelope("a@b.example", (Recipient("c@d.example", frozenset({"NEVER"}), "rfc822;c"),), smtputf8=True)
    session = Session(SESSION.peer, helo="h.example", tls="TLSv1.3", esmtp=False)
    mail = Mail("id", session, envelope)
    assert MAIL.validate_json(MAIL.dump_json(mail)) == mail


def test_an_answer_comes_over_as_it_was():
    result = Result("dkim", "pass", (("header.d", "a.example"),))
    scanned = Scanned(CONTENT, {"x": (Finding("c", "d", "1", ("f",), result), Finding("e")), "y": ()})
    assert SCANNED.validate_json(SCANNED.dump_json(scanned)) == scanned


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"null",
        b"[]",
        b'{"content": 7}',
        b'{"content": {"parts": [{"size": 1}]}}',
        b'{"content": {"parts": [{"path": "1", "span": [1]}]}}',
        b'{"content": {"size": "many"}}',
        b'{"found": {"x": [{"detail": "no code"}]}}',
        b'{"found": {"x": [7]}}',
        b'{"content": {"subject": "\xff"}}',
    ],
)
def test_what_is_no_answer_is_refused(answer):
    with pytest.raises(ValidationError):
        SCANNED.validate_json(answer)


@pytest.mark.parametrize(
    ("reply", "small"),
    [
        (b" " * MAX_REPLY, True),
        (b" " * (MAX_REPLY + 1), False),
        (b"[" * MAX_OBJECTS, True),
        (b"[" * (MAX_OBJECTS + 1), False),
        (b"{" * (MAX_OBJECTS + 1), False),
        (b"{[" * (MAX_OBJECTS // 2) + b"[", False),
        (b"{}", True),
    ],
)
def test_only_what_is_small_in_octets_and_in_objects_is_read(reply, small):
    assert fits(reply) is small


def test_the_numbers_before_a_frame_hold_the_limits():
    assert FRAME.unpack(FRAME.pack(MAX_REPLY)) == (MAX_REPLY,)
    assert ANSWER.unpack(ANSWER.pack(MAX_REPLY, (1 << 32) - 1, True)) == (MAX_REPLY, (1 << 32) - 1, True)

"""What we do to the bytes of a mail: our fields on top, forged ones out, the body untouched."""

import email
import email.policy
import io
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import Action, Envelope, ListenerKind, Recipient, Session, Verdict
from gateway.pipeline import actions

SESSION = Session(ip_address("192.0.2.7"), "mx", ListenerKind.MX, "mail.peer.example", "TLSv1.3")
ENVELOPE = Envelope("a@s.example", (Recipient("b@o.example"),))
HOST = "gw.example"


@given(
    st.lists(
        st.one_of(st.binary(max_size=20), st.tuples(st.integers(0, 99), st.integers(0, 99)).map(sorted).map(tuple))
    )
)
def test_a_splice_reads_as_its_pieces_joined(pieces):
    original = io.BytesIO(bytes(range(100)))
    joined = b"".join(p if isinstance(p, bytes) else original.getvalue()[p[0] : p[1]] for p in pieces)
    splice = actions.Splice(original, pieces)
    assert splice.size == len(joined)
    assert splice.seek(0, io.SEEK_END) == len(joined)
    for start in (0, len(joined) // 2, len(joined)):
        assert splice.seek(start) == start
        assert b"".join(iter(lambda: splice.read(7), b"")) == joined[start:]


def test_a_spool_that_shrank_is_an_error_and_never_a_shorter_mail():
    with pytest.raises(OSError, match="shorter"):
        actions.Splice(io.BytesIO(b"abc"), [(0, 10)]).read(100)


@pytest.mark.parametrize(
    ("message", "end"),
    [
        (b"A: b\r\nC: d\r\n\r\nbody", 12),
        (b"\r\nbody", 0),
        (b"A: b\r\n", 6),
        (b"A: " + b"x" * 200 + b"\r\n\r\n", -1),
        (b"A: b\r\n\r\n" + b"x" * 500, 6),
    ],
)
def test_the_end_of_the_header_is_found_within_its_limit(message, end):
    assert actions.header_end(io.BytesIO(message), 100) == end


@pytest.mark.parametrize(
    ("session", "envelope", "words"),
    [
        (SESSION, ENVELOPE, ["from mail.peer.example ([192.0.2.7])", "with ESMTPS (TLSv1.3) id m1", "for <b@o.example>;"]),
        (Session(ip_address("2001:db8::1"), esmtp=False), ENVELOPE, ["from unknown ([IPv6:2001:db8::1])", "with SMTP id"]),
        (
            Session(ip_address("192.0.2.7"), kind=ListenerKind.SUBMISSION, tls="TLSv1.2", user="bob", helo="x"),
            Envelope("a@s.example", (Recipient("b@o.example"), Recipient("c@o.example")), smtputf8=True),
            ["with UTF8SMTPSA (TLSv1.2)", "id m1;"],
        ),
    ],
)  # fmt: skip
def test_the_trace_field_says_from_whom_how_and_when(session, envelope, words):
    field = actions.received(session, envelope, "m1", HOST, 0.0).decode()
    assert all(word in field for word in words), field
    assert field.endswith("Thu, 01 Jan 1970 00:00:00 +0000\r\n")
    assert ("for <" in field) == (len(envelope.recipients) == 1)


def test_submitted_mail_gets_the_date_and_id_that_it_lacks():
    added = actions.completion(b"From: a@b\r\ndate : x\r\n", "m1", HOST, 0.0)
    assert added == b"Message-ID: <m1@gw.example>\r\n"
    assert actions.completion(b"", "m1", HOST, 0.0).startswith(b"Date: Thu, 01 Jan 1970")


def test_the_verdict_of_a_recipient_is_folded_ascii():
    verdict = Verdict(Action.TAG, 4.25, (), "held because ünïcode\r\nInjected: yes " + "word " * 300)
    fields = actions.verdict_fields("m1", verdict)
    parsed = email.message_from_bytes(fields + b"\r\n", policy=email.policy.default)
    assert parsed.keys() == ["X-Gatepost-Verdict", "X-Gatepost-Reason"]
    assert parsed["X-Gatepost-Verdict"] == "tag; score=4.2; id=m1"
    assert fields.isascii()
    assert max(map(len, fields.split(b"\r\n"))) <= 78

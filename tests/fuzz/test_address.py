"""Whatever a stranger writes after MAIL, RCPT or EHLO: it is refused by a reply, or comes out in normal form."""

import contextlib
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.smtp import address
from gateway.smtp.replies import ProtocolError
from tests.fuzz.effort import examples

WORDS = ["<", ">", "@", ".", '"', "\\", " ", "a", "B", "%", "!", "[", "]", "127.0.0.1", "IPv6:::1", "xn--", "ü", "ß"]
WORDS += [
    ":",
    ",",
    "postmaster",
    "\0",
    "\t",
    "\x85",
    "\u202e",
    "\udcff",
    "=",
    "SIZE",
    "ORCPT=",
    "+0D",
    "rfc822;",
    ";",
    "-",
    "_",
]
WORDS += ["x" * 64, "<a@b.example>", " SMTPUTF8", " NOTIFY=", "NEVER", "\u3002", "\uff20", "\u212a"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=12).map("".join) | st.text(max_size=40)
NORMAL = re.compile(r'(?:[^\s"<>@\x00-\x20\x7f-\x9f]+|"(?:[^"\\\x00-\x1f\x7f-\x9f]|\\["\\])*")@[a-z0-9.-]{1,253}')


def in_normal_form(mailbox):
    mailbox.encode()
    return NORMAL.fullmatch(mailbox) and len(mailbox.rpartition("@")[0].encode()) <= 64


@settings(max_examples=examples(500), deadline=None)
@given(TEXTS, st.booleans())
def test_a_recipient_is_refused_or_normal(text, smtputf8):
    with contextlib.suppress(ProtocolError):
        recipient = address.rcpt(f"TO:{text}", smtputf8=smtputf8)
        assert recipient.address == "postmaster" or in_normal_form(recipient.address)
        assert smtputf8 or recipient.address.isascii()
        again = address.rcpt(f"TO:<{recipient.address}>", smtputf8=smtputf8)
        assert again.address == recipient.address


@settings(max_examples=examples(500), deadline=None)
@given(TEXTS)
def test_a_sender_is_refused_or_normal(text):
    with contextlib.suppress(ProtocolError):
        envelope, size = address.mail(f"FROM:{text}")
        assert not envelope.sender or in_normal_form(envelope.sender)
        assert envelope.smtputf8 or envelope.sender.isascii()
        assert size >= 0


@settings(max_examples=examples(300), deadline=None)
@given(TEXTS)
def test_a_helo_name_is_refused_or_plain(text):
    with contextlib.suppress(ProtocolError):
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,255}|\[[0-9A-Za-z.:]+\]", address.helo(text))

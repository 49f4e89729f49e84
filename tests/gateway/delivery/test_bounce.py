"""What a notice says to people and to programs, and that no stranger can write a line of it."""

from __future__ import annotations

import email
import re
from dataclasses import replace
from email import policy
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery.bounce import Original, compose
from gateway.model import Delivery, Notice, Recipient, State

ORIGINAL = b"Received: x\r\nFrom: alice@us.example\r\nSubject: hello\r\n\r\nThe body.\r\n"
BOB = Delivery(
    1,
    "m1",
    "alice@us.example",
    Recipient("bob@there.example", orcpt="rfc822;bob+2Bx@there.example"),
    State.FAILED,
    "there.example",
    accepted_at=1_700_000_000.0,
    queued_at=1_700_000_000.0,
    notice=Notice.FAILED,
    last_reply="mx.there.example [192.0.2.1]: 550 5.1.1 No such user",
    envid="QQ+2B314",
    outbound=True,
)


def made(*owed: Delivery, original: bytes = ORIGINAL, complete: bool = True) -> tuple[bytes, Message]:
    dsn = compose(
        owed, Original(original, complete), hostname="gw.us.example", now=1_700_001_000.0, expire_after=432000.0
    )
    return dsn, email.message_from_bytes(dsn, policy=policy.compat32)


def parts(message: Message) -> list[Message]:
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    found = message.get_payload()
    assert len(found) == 3
    return found


def fields(message: Message) -> list[dict[str, str]]:
    """The groups of the delivery status: the mail's first, then one for each recipient."""
    return [dict(group.items()) for group in parts(message)[1].get_payload()]


def test_the_header_says_who_writes_and_that_no_answer_is_wanted() -> None:
    dsn, message = made(BOB)
    assert message["From"] == "Mail Delivery System <MAILER-DAEMON@gw.us.example>"
    assert message["To"] == "<alice@us.example>"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["MIME-Version"] == "1.0"
    assert message["Date"] == "Tue, 14 Nov 2023 22:30:00 +0000"
    assert re.fullmatch(r"<[0-9a-z]{18}@gw\.us\.example>", message["Message-ID"])
    assert message["Subject"] == "Your mail could not be delivered"
    assert dsn.isascii()
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", dsn)


def test_programs_read_what_happened() -> None:
    _, message = made(BOB)
    assert parts(message)[1].get_content_type() == "message/delivery-status"
    assert fields(message) == [
        {
            "Reporting-MTA": "dns; gw.us.example",
            "Original-Envelope-Id": "QQ+314",
            "Arrival-Date": "Tue, 14 Nov 2023 22:13:20 +0000",
        },
        {
            "Original-Recipient": "rfc822; bob+x@there.example",
            "Final-Recipient": "rfc822; bob@there.example",
            "Action": "failed",
            "Status": "5.1.1",
            "Remote-MTA": "dns; mx.there.example",
            "Diagnostic-Code": "smtp; 550 5.1.1 No such user",
            "Last-Attempt-Date": "Tue, 14 Nov 2023 22:30:00 +0000",
        },
    ]


def test_people_read_it_too() -> None:
    _, message = made(BOB)
    text = parts(message)[0].get_payload()
    assert "This is the mail system of gw.us.example." in text
    assert "<bob@there.example>" in text
    words = " ".join(text.split())
    assert "The host mx.there.example [192.0.2.1] said: 550 5.1.1 No such user" in words
    assert "write to postmaster@gw.us.example" in words


def test_one_notice_tells_of_several_recipients() -> None:
    carol = replace(BOB, id=2, recipient=Recipient("carol@there.example"), notice=Notice.DELAYED)
    carol = replace(carol, last_reply="451 4.4.3 the DNS does not answer for the domain of the address")
    dave = replace(BOB, id=3, recipient=Recipient("dave@us.example"), notice=Notice.DELIVERED, last_reply="")
    erin = replace(
        BOB, id=4, recipient=Recipient("erin@x.example"), notice=Notice.RELAYED, last_reply="x: 250 2.0.0 ok"
    )
    _, message = made(BOB, carol, dave, erin)
    _, first, second, third, fourth = fields(message)
    assert first["Action"] == "failed"
    assert second == {
        "Final-Recipient": "rfc822; carol@there.example",
        "Action": "delayed",
        "Status": "4.4.3",
        "Diagnostic-Code": "X-Gatepost; 451 4.4.3 the DNS does not answer for the domain of the address",
        "Last-Attempt-Date": "Tue, 14 Nov 2023 22:30:00 +0000",
        "Will-Retry-Until": "Sun, 19 Nov 2023 22:13:20 +0000",
    }
    assert third == {"Final-Recipient": "rfc822; dave@us.example", "Action": "delivered", "Status": "2.0.0"}
    assert (fourth["Action"], fourth["Status"], fourth["Remote-MTA"]) == ("relayed", "2.0.0", "dns; x")


def test_when_time_ran_out_the_status_says_so() -> None:
    _, message = made(replace(BOB, last_reply="mx.x [192.0.2.1]: 450 4.2.0 busy"))
    assert fields(message)[1]["Status"] == "4.4.7"
    assert fields(message)[1]["Diagnostic-Code"] == "smtp; 450 4.2.0 busy"


def test_a_host_without_a_name_is_told_by_its_address() -> None:
    _, message = made(replace(BOB, last_reply="192.0.2.1 [192.0.2.1]: 550 5.1.1 no"))
    assert fields(message)[1]["Remote-MTA"] == "dns; [192.0.2.1]"


def test_a_delay_never_has_a_permanent_status() -> None:
    _, message = made(replace(BOB, notice=Notice.DELAYED, last_reply="mx.x: 554 5.7.1 no service here"))
    assert fields(message)[1]["Status"] == "4.7.1"


@pytest.mark.parametrize(
    ("delivery", "complete", "media_type"),
    [
        (BOB, True, "message/rfc822"),
        (replace(BOB, ret="FULL"), True, "message/rfc822"),
        (replace(BOB, ret="HDRS"), True, "text/rfc822-headers"),
        (BOB, False, "text/rfc822-headers"),
        (replace(BOB, outbound=False), True, "text/rfc822-headers"),
        (replace(BOB, outbound=False, ret="FULL"), True, "text/rfc822-headers"),
        (replace(BOB, ret="FULL", notice=Notice.DELAYED), True, "text/rfc822-headers"),
        (replace(BOB, ret="FULL", notice=Notice.RELAYED), True, "text/rfc822-headers"),
    ],
)
def test_the_original_comes_back_as_asked_and_as_fits(delivery: Delivery, complete: bool, media_type: str) -> None:
    _, message = made(delivery, complete=complete)
    returned = parts(message)[2]
    assert returned.get_content_type() == media_type
    if media_type == "message/rfc822":
        assert returned.get_payload(0).get_payload() == "The body.\r\n"
    else:
        assert "Subject: hello" in returned.get_payload()
        assert "The body" not in returned.get_payload()


def test_a_header_cut_by_the_limit_ends_with_a_whole_line() -> None:
    _, message = made(BOB, original=ORIGINAL[:30], complete=False)
    assert parts(message)[2].get_payload().strip() == "Received: x"


def test_an_8_bit_original_is_declared() -> None:
    dsn, message = made(BOB, original=ORIGINAL + b"\xe4\r\n")
    assert message["Content-Transfer-Encoding"] == "8bit"
    assert parts(message)[2]["Content-Transfer-Encoding"] == "8bit"
    assert b"\r\n\xe4\r\n" in dsn


def test_stray_octets_in_a_header_are_not_passed_on() -> None:
    dsn, _ = made(replace(BOB, ret="HDRS"), original=b"Subject: \xff\xfe\r\n\r\n")
    assert b"Subject: ??\r\n" in dsn


def test_international_mail_is_told_of_in_international_types() -> None:
    sent = replace(BOB, sender="älice@us.example", recipient=Recipient("jürgen@there.example"), smtputf8=True)
    dsn, message = made(sent, original="Subject: ä\r\n\r\nx\r\n".encode())
    _, status, returned = parts(message)
    assert (status.get_content_type(), returned.get_content_type()) == (
        "message/global-delivery-status",
        "message/global",
    )
    assert "Final-Recipient: utf-8; jürgen@there.example\r\n".encode() in dsn
    assert "To: <älice@us.example>\r\n".encode() in dsn
    _, message = made(replace(sent, ret="HDRS"), original="Subject: ä\r\n\r\nx\r\n".encode())
    assert parts(message)[2].get_content_type() == "message/global-headers"


def test_the_utf_8_form_of_orcpt_is_decoded() -> None:
    dsn, _ = made(replace(BOB, recipient=Recipient("bob@x.example", orcpt=r"utf-8;j\x{FC}rgen@x.example")))
    assert "Original-Recipient: utf-8; jürgen@x.example\r\n".encode() in dsn


HOSTILE = st.text(
    st.sampled_from([*"a@<>;:\\{}+x= .-0D0A", "\r", "\n", "\0", "\x1b", "ä", "\u202e", "\u2028", "\x85", "\ud800"]),
    max_size=60,
) | st.sampled_from(["+0D+0ABcc: x", "a\r\n\r\n--=_", r"\x{0D}\x{0A}X: y", r"\x{D800}", r"\x{FFFFFF}", "x" * 5000])


@given(
    HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, st.sampled_from(list(Notice)), st.binary(max_size=80), st.booleans()
)
def test_no_words_of_strangers_break_out_of_their_line(
    sender: str, to: str, orcpt: str, envid: str, said: str, notice: Notice, original: bytes, complete: bool
) -> None:
    delivery = replace(BOB, sender=sender, recipient=Recipient(to, orcpt=orcpt), envid=envid, notice=notice)
    delivery = replace(delivery, last_reply=f"mx.x [192.0.2.1]: 550 5.1.1 {said}")
    dsn, message = made(delivery, original=original, complete=complete)
    assert set(message.keys()) <= {
        "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type",
        "Content-Transfer-Encoding",
    }  # fmt: skip
    boundary = message.get_boundary()
    assert boundary
    assert dsn.count(boundary.encode()) == 5  # its declaration, three parts, the end
    written = dsn.partition(b"\r\n\r\n")[2].split(b"--" + boundary.encode())[1:3]
    lines = b"".join(written).decode().split("\r\n")
    assert all(line.isprintable() for line in lines)
    assert all(len(line.encode()) <= 998 for line in lines)
    names = [line.partition(":")[0] for line in written[1].decode().split("\r\n") if line]
    assert set(names) <= {
        "Content-Type", "Content-Transfer-Encoding", "Reporting-MTA", "Original-Envelope-Id", "Arrival-Date",
        "Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code",
        "Last-Attempt-Date", "Will-Retry-Until",
    }  # fmt: skip
    assert len(message.get_payload()) == 3

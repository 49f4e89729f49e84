"""Every line of the POP3 service is a line, and says in which way it went."""

import pytest

from gateway.pop3 import replies


def test_replies_are_lines_that_begin_as_they_should():
    texts = [text for name, text in vars(replies).items() if name.isupper()]
    assert texts
    for text in texts:
        assert text.isascii()
        assert b"\r" not in text
        assert b"\n" not in text
        assert text.startswith((b"+OK", b"-ERR ", b"+ "))
        assert len(text) <= 510  # RFC 1939 3, with the line end


LARGEST = (10**9, 10**15)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (replies.maildrop(2, 320), b"+OK 2 messages (320 octets)"),
        (replies.drop_listing(2, 320), b"+OK 2 320"),
        (replies.scan_listing(2, 200), b"+OK 2 200"),
        (replies.unique_id(2, "QhdPYR:00WBw1Ph7x7"), b"+OK 2 QhdPYR:00WBw1Ph7x7"),
        (replies.octets(120), b"+OK 120 octets"),
    ],
)
def test_numbers_stand_where_rfc_1939_has_them(line, expected):
    assert line == expected


def test_the_largest_numbers_fit_into_a_line():
    for make in (replies.maildrop, replies.drop_listing, replies.scan_listing):
        assert len(make(*LARGEST)) <= 510


def test_response_codes_are_those_that_are_registered_and_stand_in_refusals():
    known = (b"[AUTH] ", b"[SYS/TEMP] ", b"[SYS/PERM] ", b"[IN-USE] ")  # RFC 2449 8.1, RFC 3206
    texts = [text for name, text in vars(replies).items() if name.isupper()]
    coded = [text for text in texts if b"[" in text]
    assert len(coded) > len(known)
    for text in coded:
        assert text.startswith(tuple(b"-ERR " + code for code in known)), text


def test_a_wrong_password_is_refused_in_one_way_whoever_it_was():
    """The words for a wrong user are those for a wrong password (RFC 1939 13)."""
    assert sum(text.startswith(b"-ERR [AUTH]") for name, text in vars(replies).items() if name.isupper()) == 1

"""Whatever a host says becomes one short printable line, which can be read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery.reply import MAX_TEXT, Reply, heard, printable, stored


@pytest.mark.parametrize(
    ("code", "lines", "status", "text"),
    [
        (550, [b"5.1.1 No such user"], "5.1.1", "No such user"),
        (550, [b"No such user"], "5.0.0", "No such user"),
        (450, [b"5.1.1 says the wrong class"], "4.0.0", "5.1.1 says the wrong class"),
        (250, [], "2.0.0", ""),
        (550, [b"5.7.1"], "5.7.1", ""),
        (550, [b"5.7.1 one,", b"5.7.1 two"], "5.7.1", "one, 5.7.1 two"),
        (550, [b"5.1.10 null"], "5.1.10", "null"),
    ],
)
def test_the_status_is_found_where_it_stands(code: int, lines: list[bytes], status: str, text: str) -> None:
    assert heard(code, lines, "") == Reply(code, status, text)


@given(st.lists(st.binary(max_size=900), max_size=20), st.sampled_from([250, 421, 450, 550]))
def test_whatever_a_host_says_becomes_one_short_printable_line_that_can_be_read_back(
    lines: list[bytes], code: int
) -> None:
    reply = heard(code, lines, "mx.there.example [192.0.2.1]")
    line = str(reply)
    assert line.isascii()
    assert line.isprintable()
    assert len(reply.text) <= MAX_TEXT
    assert stored(line) == reply


def test_words_of_ours_have_no_host() -> None:
    assert stored("451 4.4.3 the DNS does not answer") == Reply(451, "4.4.3", "the DNS does not answer")
    assert stored("mx.example [2001:db8::1]: 250 2.0.0") == Reply(250, "2.0.0", "", "mx.example [2001:db8::1]")


@pytest.mark.parametrize("line", ["", "dropped by alice", "999 9.9.9 x", "250"])
def test_what_is_no_reply_is_none(line: str) -> None:
    assert stored(line) is None


def test_what_cannot_be_shown_is_a_question_mark() -> None:
    assert printable("a\r\nb\x1b\u202ec", 100) == "a??b??c"
    assert printable("x" * 20, 10) == "x" * 7 + "..."

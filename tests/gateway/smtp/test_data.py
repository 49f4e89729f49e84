"""Where a message ends, however it is cut, and that nothing else ends it."""

import time

import pytest

from gateway.smtp import replies
from gateway.smtp.data import Chunked, Dotted

LIMIT = 1 << 20


def dotted(*blocks, size=LIMIT, header=LIMIT):
    """Feed *blocks* to the end of data: content, what followed (None if it did not end), fault."""
    machine, kept = Dotted(size, header), b""
    for position, block in enumerate(blocks):
        more, left = machine.feed(block)
        kept += more
        if left is not None:
            return kept, left + b"".join(blocks[position + 1 :]), machine.fault
    return kept, None, machine.fault


def chunked(*blocks, size=LIMIT, header=LIMIT):
    machine = Chunked(size, header)
    kept = b"".join([*map(machine.feed, blocks), machine.finish()])
    return kept, machine.fault


def test_data_ends_at_a_line_of_one_dot():
    assert dotted(b"a\r\n.\r\nQUIT\r\n") == (b"a\r\n", b"QUIT\r\n", None)
    assert dotted(b".\r\n") == (b"", b"", None)
    assert dotted(b"\r\n.\r\n") == (b"\r\n", b"", None)


def test_doubled_dots_are_taken_away():
    assert dotted(b"..a\r\n...\r\n.b\r\n.\r\n")[0] == b".a\r\n..\r\nb\r\n"


@pytest.mark.parametrize(
    "smuggled",
    [
        b"\n.\n",
        b"\n.\r\n",
        b"\r.\r",
        b"\r\n.\r",
        b"\r\n.\n",
        b"\r.\r\n",
        b"\r\r\n.\r\r\n",
        b"\r\n\0.\r\n",
        b"\r\n.\0\r\n",
        b"\n.\r",
        b"\r\n.\n\r\n",
    ],
)
def test_nothing_but_crlf_dot_crlf_ends_data_and_what_tries_is_refused(smuggled):
    kept, left, fault = dotted(b"a" + smuggled + b"MAIL FROM:<x@y>\r\n.\r\nNOOP\r\n")
    assert left == b"NOOP\r\n"
    assert fault in (replies.BARE_NEWLINE, replies.NUL_OCTET)
    assert kept == b""
    assert chunked(b"a" + smuggled + b"MAIL\r\n") == (b"", fault)


def test_next_line_of_latin1_is_a_letter_like_any_other():
    assert dotted(b"a\x85.\x85b\r\n.\r\n") == (b"a\x85.\x85b\r\n", b"", None)


@pytest.mark.parametrize("cut", range(1, 9))
def test_the_end_is_found_wherever_it_is_cut(cut):
    stream = b"ab\r\n.\r\nQ"
    assert dotted(stream[:cut], stream[cut:]) == (b"ab\r\n", b"Q", None)
    assert dotted(*[bytes([octet]) for octet in stream]) == (b"ab\r\n", b"Q", None)


def test_a_line_of_998_octets_may_stand_and_one_of_999_may_not():
    assert dotted(b"a" * 998 + b"\r\n.\r\n")[2] is None
    assert dotted(b"." + b"." * 998 + b"\r\n.\r\n")[2] is None
    assert dotted(b"a" * 999 + b"\r\n.\r\n")[2] is replies.TEXT_LINE_TOO_LONG
    assert dotted(b"x\r\n" + b"a" * 999 + b"\r\ny\r\n.\r\n")[2] is replies.TEXT_LINE_TOO_LONG
    assert chunked(b"a" * 998)[1] is None
    assert chunked(b"a" * 500, b"a" * 499)[1] is replies.TEXT_LINE_TOO_LONG


@pytest.mark.parametrize("end", [b"\r\n.\r\n", b"\r", b"\r\n"])
def test_a_line_without_end_takes_no_memory(end):
    machine = Dotted(LIMIT, LIMIT)
    for _ in range(100):
        machine.feed(b"a" * 65536 + b"\r")
    assert len(machine._rest) < 1100
    assert machine.fault is replies.TEXT_LINE_TOO_LONG
    _, left = machine.feed(end)
    assert left == (b"" if end == b"\r\n.\r\n" else None)


def test_the_first_fault_stays_and_the_rest_is_read_to_its_end():
    assert dotted(b"a\nb\r\n", b"\0\r\n", b"c\r\n.\r\nX") == (b"", b"X", replies.BARE_NEWLINE)


def test_size_is_limited_to_the_octet():
    assert dotted(b"abc\r\n.\r\n", size=5)[2] is None
    assert dotted(b"abcd\r\n.\r\n", size=5)[2] is replies.TOO_BIG
    assert chunked(b"abc\r\n", size=5)[1] is None
    assert chunked(b"abcd\r\n", size=5)[1] is replies.TOO_BIG


def test_the_header_is_limited_but_not_the_body():
    assert dotted(b"A: b\r\n", b"\r\n" + b"body\r\n" * 100, b".\r\n", header=6)[2] is None
    assert dotted(b"A: bc\r\n", b"\r\n.\r\n", header=6)[2] is replies.HEADER_TOO_BIG
    assert dotted(b"A: b\r\n\r\nbody\r\n.\r\n", header=6)[2] is None
    assert chunked(b"A: b\r\nC: d\r\n", header=6)[1] is replies.HEADER_TOO_BIG


def test_chunks_keep_their_dots_and_get_the_end_of_line_they_lack():
    assert chunked(b".\r", b"\n.\r\n..a") == (b".\r\n.\r\n..a\r\n", None)
    assert chunked() == (b"", None)
    assert chunked(b"a\r\n") == (b"a\r\n", None)


@pytest.mark.parametrize("stream", [b"a\r", b"a\n", b"\r\na\r", b"\n"])
def test_a_last_chunk_that_ends_in_half_a_line_end_is_refused(stream):
    assert chunked(stream)[1] is replies.BARE_NEWLINE


@pytest.mark.parametrize("line", [b"\r\n", b"a" * 501 + b"\r\n", b"a" * 998 + b"\r\n", b".\r", b"\n"])
def test_hostile_content_costs_no_more_time_than_plain(line):
    machine = Dotted(64 << 20, 64 << 20)
    block = line * (65536 // len(line))
    started = time.process_time()
    for _ in range(64):
        machine.feed(block)
    assert time.process_time() - started < 1.0

"""Lines in, dots and tops out: the same however the octets are cut."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gateway.pop3.framing import DotStuffer, Lines, Top

OCTETS = st.lists(st.sampled_from([b".", b"\r\n", b"\r", b"\n", b"a", b"\r\n.\r\n", b"\r\n\r\n", b"xyz"])).map(b"".join)
CUTS = st.lists(st.integers(0, 80), max_size=8)


def cut(data, places):
    edges = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def stuffed(chunks):
    stuffer = DotStuffer()
    return b"".join(map(stuffer.feed, chunks)) + stuffer.finish()


def unstuffed(wire):
    """What a client makes of it (RFC 1939 3), line by line at CRLF."""
    assert wire.endswith(b"\r\n.\r\n") or wire == b".\r\n"
    lines = wire.removesuffix(b".\r\n").split(b"\r\n")
    assert b"." not in lines
    return b"\r\n".join(line.removeprefix(b".") for line in lines)


@given(OCTETS, CUTS)
def test_a_client_gets_back_what_was_stuffed_wherever_it_is_cut(data, places):
    whole = data if data.endswith(b"\r\n") or not data else data + b"\r\n"
    assert unstuffed(stuffed(cut(data, places))) == whole


@given(OCTETS, CUTS)
def test_the_cuts_do_not_show(data, places):
    assert stuffed(cut(data, places)) == stuffed([data])


def test_an_empty_message_is_only_an_end():
    assert stuffed([]) == b".\r\n"


def top(chunks, lines):
    machine = Top(lines)
    return b"".join(map(machine.feed, chunks))


def top_by_lines(data, lines):
    if data.startswith(b"\r\n"):
        header, empty, body = b"", b"\r\n", data[2:]
    else:
        header, empty, body = data.partition(b"\r\n\r\n")
    kept = body.split(b"\n")
    rest = body if len(kept) - 1 < lines else b"".join(line + b"\n" for line in kept[:lines])
    return header + empty + rest


@given(OCTETS, CUTS, st.integers(0, 6))
def test_the_top_is_the_header_and_so_many_lines_wherever_it_is_cut(data, places, lines):
    assert top(cut(data, places), lines) == top_by_lines(data, lines)


def test_the_top_of_more_lines_than_there_are_is_all():
    data = b"A: b\r\n\r\none\r\ntwo"
    assert top([data], 2**63) == data


def test_the_top_is_done_as_soon_as_it_can_be():
    machine = Top(1)
    assert machine.feed(b"A: b\r\n\r\none\r\ntwo\r\n") == b"A: b\r\n\r\none\r\n"
    assert machine.done
    assert machine.feed(b"three\r\n") == b""


def drained(lines):
    return list(iter(lines.next, None))


@given(OCTETS, CUTS, st.integers(1, 6))
def test_lines_are_those_of_the_whole_wherever_it_is_cut(data, places, limit):
    lines, got = Lines(limit), []
    for chunk in cut(data, places):
        lines.feed(chunk)
        got += drained(lines)
    assert got == [line[: limit + 1] for line in data.split(b"\n")[:-1] for line in [line + b"\n"]]


def test_a_line_without_end_is_not_kept():
    lines = Lines(10)
    for _ in range(1000):
        lines.feed(b"x" * 1000)
        assert lines.next() is None
        assert len(lines) == 11
    lines.feed(b"\nNOOP\r\n")
    assert drained(lines) == [b"x" * 11, b"NOOP\r\n"]
    assert len(lines) == 0

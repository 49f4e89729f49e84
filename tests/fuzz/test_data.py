"""The machines of DATA and BDAT against oracles that see the whole stream at once."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.smtp.data import MAX_LINE, Chunked, Dotted
from tests.fuzz.effort import examples

LIMIT = 4000
PIECES = st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"a", b"\r\n.", b"\0", b"b" * 500, b"c" * 997, b"\r\n.\r\n"])
STREAMS = st.lists(PIECES, max_size=25).map(b"".join)
CUTS = st.lists(st.integers(0, 3000), max_size=12)


def cut(stream, cuts):
    borders = sorted({0, len(stream), *(position for position in cuts if position < len(stream))})
    return [stream[start:end] for start, end in pairwise(borders)]


def may_stand(content):
    """Content as RFC 5321 2.3.8 and 4.5.3.1.6 want it, read line by line."""
    lines = content.split(b"\r\n")
    if lines.pop() != b"" or len(content) > LIMIT:
        return False
    return all(len(line) <= MAX_LINE and not set(line) & set(b"\r\n\0") for line in lines)


def content_of_data(stream):
    """Content and remainder of a stream that ends somewhere, by the letter of RFC 5321 4.5.2."""
    end = (b"\r\n" + stream).index(b"\r\n.\r\n")
    lines = stream[:end].split(b"\r\n")
    return b"\r\n".join(line.removeprefix(b".") for line in lines), stream[end + 3 :]


@settings(max_examples=examples(500), deadline=None)
@given(STREAMS, CUTS)
def test_data_is_what_the_whole_stream_says_however_it_is_cut(body, cuts):
    stream = body + b"\r\n.\r\nNOOP\r\n"
    content, remainder = content_of_data(stream)
    machine, kept, left = Dotted(LIMIT, LIMIT), [], None
    blocks = cut(stream, cuts)
    while left is None:
        more, left = machine.feed(blocks.pop(0))
        kept.append(more)
    assert left + b"".join(blocks) == remainder
    assert (machine.fault is None) == may_stand(content)
    if machine.fault is None:
        assert b"".join(kept) == content
        assert machine.size == len(content)


@settings(max_examples=examples(500), deadline=None)
@given(STREAMS, CUTS)
def test_chunks_are_what_the_whole_stream_says_however_they_are_cut(stream, cuts):
    machine = Chunked(LIMIT, LIMIT)
    kept = b"".join([*map(machine.feed, cut(stream, cuts)), machine.finish()])
    content = stream if stream.endswith(b"\r\n") or not stream else stream + b"\r\n"
    assert (machine.fault is None) == (not content or may_stand(content))
    if machine.fault is None:
        assert kept == content
        assert machine.size == len(content)

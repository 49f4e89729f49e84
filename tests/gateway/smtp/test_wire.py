"""Commands by the letter: one line with CRLF is executed, and nothing that only looks like one."""

import asyncio

import pytest

from gateway.smtp import replies
from gateway.smtp.replies import ProtocolError
from gateway.smtp.wire import MAX_LINE, Reader


def read(*octets, method="readuntil"):
    async def feed():
        reader = Reader()
        for block in octets:
            reader.feed_data(block)
        reader.feed_eof()
        return await getattr(reader, method)(), bytes(reader._buffer)

    return asyncio.run(feed())


def refusal(*octets, method="readuntil"):
    with pytest.raises(ProtocolError) as raised:
        read(*octets, method=method)
    return raised.value.reply


def test_a_command_is_one_line_with_crlf():
    assert read(b"NO", b"OP\r", b"\nQUIT\r\n") == (b"NOOP\r\n", b"QUIT\r\n")


@pytest.mark.parametrize(
    "line", [b"NOOP\n", b"NO\rOP\r\n", b"NOOP\r\r\n", b"NOOP \0\r\n", b"NOOP\tx\r\n", b"N\x7f\r\n", b"\r\n", b"A1\r\n"]
)
def test_what_is_no_line_of_text_is_refused(line):
    assert refusal(line) is replies.BAD_LINE


@pytest.mark.parametrize("line", [b"BDAT 5\tLAST\r\n", b"bdat 5 LAST\n", b"BDAT\t5\r\n"])
def test_a_chunk_of_unreadable_length_ends_the_session(line):
    assert refusal(line).code == 421


@pytest.mark.parametrize("octets", [b"\x16\x03\x01", b"\x03\0", b"\0", b" NOOP\r\n", b"\xff", b"1"])
def test_the_first_octet_shows_who_does_not_speak_smtp(octets):
    assert refusal(octets) is replies.NOT_SMTP


def test_a_line_may_have_a_certain_length_and_no_more():
    longest = b"N" * (MAX_LINE - 2) + b"\r\n"
    assert read(longest)[0] == longest
    assert refusal(b"N" + longest) is replies.LINE_TOO_LONG
    assert refusal(b"N" * MAX_LINE) is replies.LINE_TOO_LONG


def test_the_end_of_the_stream_is_the_end_of_the_connection():
    for octets in (b"", b"NOO"):
        with pytest.raises(ConnectionResetError):
            read(octets)


def test_an_answer_to_a_challenge_may_begin_with_anything():
    assert read(b"*\r\n", method="line") == (b"*\r\n", b"")
    assert read(b"\r\n", method="line") == (b"\r\n", b"")


def test_octets_can_be_put_back_and_forgotten():
    async def play():
        reader = Reader()
        assert reader.is_empty
        reader.feed_data(b"b")
        reader.unread(b"a\n")
        assert reader.has_line
        reader.discard()
        assert reader.is_empty
        assert not reader.has_line

    asyncio.run(play())

"""Where a message ends, over the wire: every end that others believed, and every cut at the edges of what is read."""

import asyncio
import contextlib
from itertools import product
from pathlib import Path

import pytest
import uvloop

from gateway.smtp import connection, replies
from gateway.stages import Edge
from tests.gateway.smtp.conversation import (
    DEADLINE,
    Intake,
    is_in_form,
    listener,
    server_context,
    serving,
    trusting_context,
    unescaped,
)

TABLE = Path(__file__).parents[2] / "dialogs/end_of_data.txt"
ROWS = [line.split(maxsplit=1) for line in TABLE.read_text("utf-8").splitlines() if not line.startswith("#")]
FAULTS = {"bare": replies.BARE_NEWLINE, "nul": replies.NUL_OCTET}
SECOND = b"MAIL FROM:<e@vil.example>\r\nRCPT TO:<b@in.example>\r\nDATA\r\nSubject: second\r\n"
END = b"\r\n.\r\n"
SPLITS = [[place for place in range(1, 5) if bits >> place & 1] for bits in range(2, 32, 2)]
RECORD, BLOCK = 16 << 10, 64 << 10
MANY = Edge(messages=10_000, commands=10_000, errors=10_000)

over_every_transport = pytest.mark.parametrize("secured", ["none", "starttls", "implicit"])


class Talk:
    """A session in which each step is awaited."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def hears(self, code):
        line = b"xxx-"
        while line[3:4] == b"-":
            line = await asyncio.wait_for(self.reader.readline(), DEADLINE)
            assert line.endswith(b"\r\n")
            assert is_in_form(line[:-2].decode("ascii"))
        assert line.startswith(code), (line, code)
        return line

    async def says(self, octets, *codes):
        self.writer.write(octets)
        for code in codes:
            await self.hears(code)

    async def begins(self):
        await self.says(b"MAIL FROM:<a@out.example>\r\nRCPT TO:<b@in.example>\r\n", b"250", b"250")

    async def sends_in(self, pieces):
        """Say *pieces*, each on its own: the server reads one before the next is there."""
        for piece in pieces:
            self.writer.write(piece)
            for _ in range(4):
                await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def talking(intake, secured, folder):
    """A session after EHLO, within TLS or not."""
    context = server_context(folder) if secured != "none" else None
    async with serving(intake, listener(secured=secured), folder, context) as port:
        trusting = trusting_context() if secured == "implicit" else None
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
        talk = Talk(reader, writer)
        await talk.hears(b"220")
        if secured == "starttls":
            await talk.says(b"EHLO a\r\n", b"250")
            await talk.says(b"STARTTLS\r\n", b"220")
            await writer.start_tls(trusting_context())
        await talk.says(b"EHLO a\r\n", b"250")
        yield talk
        await talk.says(b"QUIT\r\n", b"221")
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def unstuffed(content):
    return (b"\r\n" + content).replace(b"\r\n.", b"\r\n")[2:]


@over_every_transport
@pytest.mark.parametrize("verb", ["DATA", "BDAT"])
def test_no_end_that_others_believed_makes_two_messages_of_one(verb, secured, tmp_path):
    async def play():
        intake, expected = Intake(MANY), []
        async with talking(intake, secured, tmp_path) as talk:
            for (verdict, octets), begun in product(ROWS, [b"", b"x"]):
                content = begun + unescaped(octets) + SECOND
                await talk.begins()
                if verb == "DATA":
                    await talk.says(b"DATA\r\n", b"354")
                    talk.writer.write(content + b".\r\n")
                else:
                    talk.writer.write(b"BDAT %d LAST\r\n" % len(content) + content)
                if verdict == "content":
                    expected.append(unstuffed(content) if verb == "DATA" else content)
                wanted = FAULTS.get(verdict, replies.ACCEPTED)
                assert await talk.hears(str(wanted).encode()), octets
                assert [taken for _, _, taken in intake.taken] == expected, octets
                await talk.says(b"NOOP\r\n", b"250 2.0.0 OK")

    uvloop.run(play())


@pytest.fixture
def reads(monkeypatch):
    """How many octets each read of the server brought."""
    sizes = []

    class Counting(connection.Reader):
        def feed_data(self, octets):
            sizes.append(len(octets))
            super().feed_data(octets)

    monkeypatch.setattr(connection, "Reader", Counting)
    return sizes


def pieces_of(octets, split):
    return [octets[start:end] for start, end in zip([0, *split], [*split, None], strict=True)]


@over_every_transport
def test_the_end_of_data_is_found_however_it_is_cut_into_segments_or_records(secured, tmp_path, reads):
    async def play():
        intake, apart = Intake(MANY), 0
        async with talking(intake, secured, tmp_path) as talk:
            for split in SPLITS:
                await talk.begins()
                await talk.says(b"DATA\r\n", b"354")
                before = len(reads)
                await talk.sends_in([b"A: b\r\n\r\n..\r\nc", *pieces_of(END, split)])
                await talk.hears(b"250")
                apart += len(reads) - before == 2 + len(split)
        assert apart > len(SPLITS) / 2, "the pieces came together"  # a busy kernel may join a few
        assert {content for _, _, content in intake.taken} == {b"A: b\r\n\r\n.\r\nc\r\n"}
        assert len(intake.taken) == len(SPLITS)

    uvloop.run(play())


@over_every_transport
@pytest.mark.parametrize("edge", [RECORD, BLOCK, 2 * BLOCK])
def test_the_end_of_data_is_found_at_the_edges_of_records_and_reads(secured, edge, tmp_path, reads):
    async def play():
        intake, sent = Intake(MANY), []
        async with talking(intake, secured, tmp_path) as talk:
            for distance in range(-1, len(END) + 2):
                content = ((b"y" * 98 + b"\r\n") * (edge // 100 + 1))[: edge - distance - 1] + b"z"
                content = content.replace(b"\rz", b"zz")
                sent.append(content + b"\r\n")
                await talk.begins()
                await talk.says(b"DATA\r\n", b"354")
                await talk.says(content + END, b"250")
        assert [content for _, _, content in intake.taken] == sent
        assert max(reads) >= RECORD or secured != "none"

    uvloop.run(play())


@over_every_transport
def test_smuggled_ends_stay_none_at_the_edges_of_reads(secured, tmp_path):
    async def play():
        intake = Intake(MANY)
        async with talking(intake, secured, tmp_path) as talk:
            for (verdict, octets), edge in product(ROWS, [RECORD, BLOCK]):
                if verdict == "bare":
                    filling = ((b"y" * 98 + b"\r\n") * (edge // 100))[: edge - 2].removesuffix(b"\r")
                    await talk.begins()
                    await talk.says(b"DATA\r\n", b"354")
                    await talk.says(filling + unescaped(octets) + SECOND + END, b"550 5.6.11")
        assert not intake.taken

    uvloop.run(play())


@over_every_transport
def test_a_command_line_of_64_kb_and_one_without_end_end_the_session(secured, tmp_path):
    async def play():
        intake = Intake(MANY)
        for flood in (b"x" * BLOCK + b"\r\nNOOP\r\n", b"NOOP " + b"x" * (4 << 20)):
            with contextlib.suppress(ConnectionError):  # what we did not read resets the connection
                async with talking(intake, secured, tmp_path) as talk:
                    talk.writer.write(flood)
                    await talk.hears(b"421 4.5.2 Command line too long")
                    assert await asyncio.wait_for(talk.reader.read(), DEADLINE) == b""
                    raise ConnectionError
            assert not connection.connections()
        assert not intake.taken

    uvloop.run(play())

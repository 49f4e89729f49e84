"""Lines and octets over a connection: each has a bound, and nothing is read or written beyond it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from gateway.delivery.wire import MAX_LINE, MAX_UNREAD, Closed, Wire

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def talk(serve: Serve, work: Callable[[Wire], Awaitable[object]]) -> object:
    async def run() -> object:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await serve(reader, writer)
            except OSError:
                pass
            finally:
                writer.transport.abort()

        async with await asyncio.start_server(play, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            wire = await Wire.connect("127.0.0.1", port, None, None, "localhost")
            try:
                async with asyncio.timeout(5):
                    return await work(wire)
            finally:
                wire.close()
                await asyncio.sleep(0.01)

    return asyncio.run(run())


def says(data: bytes, then_close: bool = True) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if then_close:
            writer.write_eof()
        await reader.read()

    return serve


async def every_line(wire: Wire) -> list[bytes]:
    lines = []
    try:
        while True:
            while (line := wire.line()) is None:
                await wire.more()
            lines.append(line)
    except Closed as closed:
        return [*lines, str(closed).encode()]


def test_lines_end_in_crlf_or_lf() -> None:
    assert talk(says(b"one\r\ntwo\n\r\nthree\r\r\nfour"), every_line) == [
        b"one", b"two", b"", b"three\r", b"it closed the connection",
    ]  # fmt: skip


def test_a_line_has_a_longest_length() -> None:
    longest = b"x" * (MAX_LINE - 1)
    assert talk(says(longest + b"\r\n"), every_line) == [longest, b"it closed the connection"]
    assert talk(says(b"x" * (MAX_LINE + 9) + b"\r\n"), every_line)[0].startswith(b"it sent")
    assert talk(says(b"x" * (MAX_LINE + 9), then_close=False), every_line) == [b"it sent a line without end"]


def test_a_flood_is_not_read_beyond_its_bound_and_lost_nowhere() -> None:
    count = 60_000

    async def later(wire: Wire) -> tuple[int, int]:
        await asyncio.sleep(0.1)
        waiting = len(wire._buffer)
        return waiting, len(await every_line(wire)) - 1

    waiting, lines = talk(says(b"250 and so on\r\n" * count), later)
    assert waiting <= MAX_UNREAD + (256 << 10)  # one more read of the event loop
    assert lines == count


def test_writing_waits_for_a_host_that_does_not_read() -> None:
    async def deaf(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1)

    async def push(wire: Wire) -> int:
        sent = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                while True:
                    if not wire.write(b"x" * 65536):
                        await wire.room()
                    sent += 1
        return sent

    assert talk(deaf, push) < 500  # what sockets and buffers hold, and no more


def test_a_closed_wire_takes_nothing() -> None:
    async def work(wire: Wire) -> bool:
        wire.close()
        with pytest.raises(Closed):
            wire.write(b"x")
        return wire.alive

    assert talk(says(b""), work) is False


def test_what_nobody_has_read_is_seen() -> None:
    async def work(wire: Wire) -> tuple[bool, bool]:
        await asyncio.sleep(0.05)
        return wire.unread, wire.alive

    assert talk(says(b"421 too long\r\n", then_close=False), work) == (True, False)

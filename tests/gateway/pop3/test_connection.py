"""What of a connection needs no socket to be shown."""

import asyncio

import pytest

from gateway.pop3.connection import READ_AHEAD, WRITE_AHEAD, Connection, Gone
from gateway.stages import Pop3

QUICK = Pop3(write_timeout=0.05, linger=0.05)


class Transport(asyncio.Transport):
    """Remembers what was written, and whether it was told to stop."""

    def __init__(self, **extra):
        super().__init__(extra)
        self.written, self.reading, self.open = [], True, True

    def write(self, data):
        self.written.append(bytes(data))

    def set_write_buffer_limits(self, high=None, low=None):
        pass

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    def is_closing(self):
        return not self.open

    def close(self):
        self.open = False

    def abort(self):
        self.open = False


def made(transport, longest=100):
    connection = Connection(QUICK, longest, lambda _: lambda: None)
    connection.connection_made(transport)
    return connection


def test_tls_does_not_start_over_words_in_the_clear():
    async def scenario():
        connection = made(Transport())
        connection.data_received(b"US")
        with pytest.raises(Gone):
            await connection.start_tls(None)

    asyncio.run(scenario())


def test_a_peer_that_sends_faster_than_it_is_answered_has_to_wait():
    async def scenario():
        transport = Transport()
        connection = made(transport)
        connection.data_received(b"NOOP\r\n" * (READ_AHEAD // 6 + 2))
        assert not transport.reading
        while not transport.reading:
            assert await connection.line(1) == b"NOOP\r\n"

    asyncio.run(scenario())


def test_answers_to_commands_that_came_together_go_together():
    async def scenario():
        transport = Transport()
        connection = made(transport)
        connection.data_received(b"NOOP\r\nNOOP\r\n")
        for _ in range(2):
            await connection.line(1)
            await connection.send(b"+OK\r\n")
        with pytest.raises(TimeoutError):
            await connection.line(0.01)
        assert transport.written == [b"+OK\r\n+OK\r\n"]

    asyncio.run(scenario())


def test_others_get_their_turn_between_two_commands():
    async def scenario():
        connection, turns = made(Transport()), []
        connection.data_received(b"NOOP\r\n" * 3)
        for number in range(3):
            asyncio.get_running_loop().call_soon(turns.append, number)
            await connection.line(1)
            assert turns[-1] == number

    asyncio.run(scenario())


def test_what_is_long_goes_in_pieces_and_waits_for_the_peer():
    async def scenario():
        transport = Transport()
        connection = made(transport)
        connection.pause_writing()
        with pytest.raises(Gone):
            await connection.send(b"x" * 10 * WRITE_AHEAD)
        assert [len(piece) for piece in transport.written] == [WRITE_AHEAD]

    asyncio.run(scenario())


def test_nothing_is_said_to_a_peer_that_is_gone():
    async def scenario():
        transport = Transport()
        connection = made(transport)
        transport.close()
        with pytest.raises(Gone):
            await connection.send(b"x" * WRITE_AHEAD)
        assert transport.written == []

    asyncio.run(scenario())


def test_closing_ends_even_where_the_peer_does_nothing():
    async def scenario():
        transport = Transport()
        connection = made(transport)
        await connection.send(b"+OK\r\n")
        await connection.close()
        assert transport.written == [b"+OK\r\n"]
        assert not transport.open

    asyncio.run(scenario())

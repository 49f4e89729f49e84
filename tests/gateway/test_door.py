"""What a connection passes before its dialog, on the event loops that the gateway may run on."""

import asyncio
import contextlib
import socket
import ssl
from ipaddress import ip_network
from types import SimpleNamespace

import pytest
import uvloop

from gateway import events
from gateway.door import Door, Entrance, Lobby
from gateway.peers import Full
from tests.gateway.smtp.conversation import server_context, trusting_context
from tests.gateway.smtp.talk import client, eventually

PROXY = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 25\r\n"
LOOPBACK = (ip_network("127.0.0.0/8"),)


class Echo(asyncio.Protocol):
    """A dialog that says who is there, and says everything back."""

    def __init__(self, address, left):
        self.address, self.left = address, left

    def connection_made(self, transport):
        self.transport = transport
        transport.write(f"hello {self.address}\n".encode())

    def data_received(self, data):
        self.transport.write(data)

    def connection_lost(self, exc):
        self.left()


def limits(**others):
    usual = {
        "connections": 100,
        "connections_per_peer": 100,
        "connections_per_network": 100,
        "network_ipv4": 24,
        "network_ipv6": 48,
        "handshake_timeout": 5.0,
        "proxy_timeout": 5.0,
    }
    return SimpleNamespace(**usual | others)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    """Run a coroutine on one kind of loop or the other."""

    def play(coroutine):
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(asyncio.wait_for(coroutine, 20))

    return play


@contextlib.asynccontextmanager
async def serving(context=None, proxies=(), dialog=Echo, **settings):
    lobby = Lobby()
    refusals = {Full.PROCESS: "full", Full.ADDRESS: "full of you", Full.NETWORK: "full of yours"}
    entrance = Entrance("test", lobby, lambda: limits(**settings), dialog, refusals, "stranger", proxies, context)
    server = await asyncio.get_running_loop().create_server(lambda: Door(entrance), "127.0.0.1", 0)
    try:
        yield SimpleNamespace(port=server.sockets[0].getsockname()[1], lobby=lobby)
    finally:
        server.close()
        lobby.clear()
        await eventually(lambda: not lobby.crowd.size)
        assert not lobby.entering


async def heard(reader):
    with contextlib.suppress(ConnectionResetError):
        return await asyncio.wait_for(reader.read(), 5)
    return b""


def test_a_plain_connection_goes_straight_to_its_dialog(run):
    async def play():
        async with serving() as at, client(at.port) as (reader, writer):
            assert await reader.readline() == b"hello 127.0.0.1\n"
            writer.write(b"echo\n")
            assert await reader.readline() == b"echo\n"
            assert at.lobby.crowd.size == 1
            assert not at.lobby.entering

    run(play())


@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01\x02\0\x01\0"], ids=["nothing", "half a hello"])
def test_who_leaves_before_the_handshake_leaves_nothing_behind(run, tmp_path, begun):
    async def play():
        async with serving(server_context(tmp_path)) as at:
            others = asyncio.all_tasks()
            for _ in range(20):
                with socket.create_connection(("127.0.0.1", at.port)) as left:  # and gone before anybody looks
                    left.sendall(begun)
            async with client(at.port, ssl=trusting_context()) as (reader, _):
                assert await reader.readline() == b"hello 127.0.0.1\n"
            await eventually(lambda: not at.lobby.crowd.size and asyncio.all_tasks() <= others)

    run(play())


@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01\x02\0\x01\0"], ids=["nothing", "half a hello"])
def test_who_shakes_hands_is_counted_and_has_a_deadline(run, tmp_path, begun):
    async def play():
        context = server_context(tmp_path)
        async with serving(context, handshake_timeout=0.2) as at, client(at.port) as (reader, writer):
            writer.write(begun)
            await eventually(lambda: at.lobby.crowd.size == 1)
            assert len(at.lobby.entering) == 1
            await heard(reader)
            await eventually(lambda: not at.lobby.crowd.size)

    run(play())


def test_who_does_not_shake_hands_takes_the_room_of_others(run, tmp_path):
    async def play():
        async with serving(server_context(tmp_path), connections=1) as at, client(at.port) as (_, writer):
            await eventually(lambda: at.lobby.crowd.size == 1)
            with pytest.raises(OSError):
                async with client(at.port, ssl=trusting_context()):
                    pass
            writer.close()
            await eventually(lambda: not at.lobby.crowd.size)
            async with client(at.port, ssl=trusting_context()) as (reader, _):
                assert await reader.readline() == b"hello 127.0.0.1\n"

    run(play())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_behind_a_header_tls_may_begin_in_the_same_segment(run, tmp_path, version):
    async def play():
        trusting = trusting_context()
        trusting.minimum_version = trusting.maximum_version = version
        async with serving(server_context(tmp_path), LOOPBACK) as at:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            hello = trusting.wrap_bio(incoming, outgoing)
            with pytest.raises(ssl.SSLWantReadError):
                hello.do_handshake()
            async with client(at.port) as (reader, writer):
                writer.write(PROXY + outgoing.read())
                await shake_hands(hello, incoming, outgoing, reader, writer)
                assert await read_through(hello, incoming, reader) == b"hello 192.0.2.1\n"

    run(play())


async def shake_hands(side, incoming, outgoing, reader, writer):
    done = False
    while not done:
        try:
            side.do_handshake()
            done = True
        except ssl.SSLWantReadError:
            writer.write(outgoing.read())
            incoming.write(await asyncio.wait_for(reader.read(65536), 5))
    writer.write(outgoing.read())


async def read_through(side, incoming, reader):
    while True:
        try:
            return side.read(1000)
        except ssl.SSLWantReadError:
            incoming.write(await asyncio.wait_for(reader.read(65536), 5))


def test_what_comes_under_tls_before_the_dialog_reaches_it(run, tmp_path):
    async def play():
        async with serving(server_context(tmp_path)) as at, client(at.port, ssl=trusting_context()) as (reader, writer):
            writer.write(b"early\n")
            assert {await reader.readline(), await reader.readline()} == {b"hello 127.0.0.1\n", b"early\n"}

    run(play())


def test_a_client_that_leaves_right_after_the_handshake_leaves_nothing_behind(run, tmp_path):
    async def play():
        async with serving(server_context(tmp_path)) as at:
            for _ in range(10):
                async with client(at.port, ssl=trusting_context()) as (_, writer):
                    writer.transport.abort()
            await eventually(lambda: not at.lobby.crowd.size)

    run(play())


def test_a_header_octet_by_octet_is_a_header(run):
    async def play():
        async with serving(proxies=LOOPBACK) as at, client(at.port) as (reader, writer):
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for octet in PROXY + b"echo\n":
                writer.write(bytes([octet]))
                await asyncio.sleep(0)
            assert await reader.readline() == b"hello 192.0.2.1\n"
            assert await reader.readline() == b"echo\n"

    run(play())


@pytest.mark.parametrize(
    ("said", "proxies", "answer"),
    [
        (b"", LOOPBACK, b""),
        (b"PROXY TCP4 ", LOOPBACK, b""),
        (b"HELO\r\n", LOOPBACK, b""),
        (b"x", LOOPBACK, b""),
        (PROXY.replace(b"25", b"99999"), LOOPBACK, b""),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff" + b"\0" * 65535, LOOPBACK, b""),
        (PROXY, (ip_network("192.0.2.0/24"),), b"stranger\r\n"),
    ],
)
def test_who_brings_no_header_does_not_get_in(run, said, proxies, answer):
    async def play():
        async with serving(proxies=proxies, proxy_timeout=0.2) as at, client(at.port) as (reader, writer):
            writer.write(said)
            assert await heard(reader) in (answer, b"")
            await eventually(lambda: not at.lobby.crowd.size)

    run(play())


def test_who_is_behind_a_proxy_is_counted_not_the_proxy(run):
    async def play():
        async with serving(proxies=LOOPBACK, connections_per_peer=1) as at, contextlib.AsyncExitStack() as stack:
            answers = []
            for number in (1, 2, 1):
                reader, writer = await stack.enter_async_context(client(at.port))
                writer.write(PROXY.replace(b"192.0.2.1", b"192.0.2.%d" % number))
                answers.append(await reader.readline())
            assert answers == [b"hello 192.0.2.1\n", b"hello 192.0.2.2\n", b"full of you\r\n"]

    run(play())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"connections": 2}, b"full\r\n"),
        ({"connections_per_peer": 2}, b"full of you\r\n"),
        ({"connections_per_network": 2}, b"full of yours\r\n"),
    ],
)
def test_of_a_burst_those_beyond_the_limit_are_told_and_sent_away(run, settings, words):
    async def play():
        async with serving(**settings) as at:
            burst = [socket.create_connection(("127.0.0.1", at.port)) for _ in range(5)]
            said = await asyncio.gather(*(asyncio.to_thread(one.recv, 100) for one in burst))
            for one in burst:
                one.close()
            assert sorted(said) == sorted([b"hello 127.0.0.1\n"] * 2 + [words] * 3)

    run(play())


class Broken(Echo):
    """A dialog that does not begin."""

    def connection_made(self, transport):
        raise RuntimeError("broken")


@pytest.mark.parametrize("secured", [False, True])
def test_a_dialog_that_does_not_begin_keeps_nobody(run, tmp_path, monkeypatch, secured):
    failures = []
    monkeypatch.setattr(events, "failure", lambda where, error, **_: failures.append(str(error)))

    async def play():
        context, trusting = (server_context(tmp_path), trusting_context()) if secured else (None, None)
        async with serving(context, dialog=Broken) as at, client(at.port, ssl=trusting) as (reader, _):
            assert await heard(reader) == b""
            await eventually(lambda: not at.lobby.crowd.size)

    run(play())
    assert failures == ["broken"]


def test_a_stop_parts_from_those_who_are_still_at_the_door(run, tmp_path):
    async def play():
        async with serving(server_context(tmp_path)) as at, client(at.port) as (reader, _):
            await eventually(lambda: at.lobby.entering)
            at.lobby.clear()
            assert await heard(reader) == b""
            await eventually(lambda: not at.lobby.crowd.size)

    run(play())

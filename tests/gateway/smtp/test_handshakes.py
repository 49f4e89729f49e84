"""Handshakes at the SMTP door, by clients that are old, strange or slow, on both ways into TLS."""

import asyncio
import contextlib
import re
import ssl
from asyncio.subprocess import DEVNULL, PIPE

import pytest
import uvloop

from gateway.smtp import connection
from gateway.stages import Edge
from tests.gateway.smtp.conversation import DEADLINE, Intake, listener, server_context, serving, trusting_context

both_ways = pytest.mark.parametrize("secured", ["starttls", "implicit"])
NAME = "mx.test"


class Client:
    """A TLS client by hand, so that its octets can be cut at will."""

    def __init__(self, port, secured, context, name=NAME):
        self.port, self.secured = port, secured
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)

    async def shake(self, cut=1 << 16):
        """Shake hands, *cut* octets at a time; the version. `ssl.SSLError` where the server does not want to."""
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        if self.secured == "starttls":
            await self.reader.readline()
            self.writer.write(b"STARTTLS\r\n")
            assert (await self.reader.readline()).startswith(b"220 2.0.0")
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.send(cut)
                await self.hear()
            else:
                await self.send(cut)
                return self.tls.version()

    async def send(self, cut):
        octets = self.outgoing.read()
        for start in range(0, len(octets), cut):
            self.writer.write(octets[start : start + cut])
            await asyncio.sleep(0)

    async def hear(self):
        octets = await asyncio.wait_for(self.reader.read(1 << 16), DEADLINE)
        self.incoming.write(octets) if octets else self.incoming.write_eof()

    async def line(self):
        while True:
            try:
                return self.tls.read(1000)
            except ssl.SSLWantReadError:
                await self.hear()

    async def close(self):
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


def with_server(secured, folder, play, patience=DEADLINE):
    """Run *play* with the port of a server that waits *patience* seconds for a handshake."""

    async def run():
        intake = Intake(Edge(handshake_timeout=patience))
        async with serving(intake, listener(secured=secured), folder, server_context(folder)) as port:
            return await play(port)

    return uvloop.run(run())


def shaken(secured, folder, context, name=NAME, cut=1 << 16):
    """The version on which client and server agree, after which the server serves."""

    async def play(port):
        client = Client(port, secured, context, name)
        try:
            version = await client.shake(cut)
            if secured == "implicit":
                assert (await client.line()).startswith(b"220 ")
            client.tls.write(b"NOOP\r\n")
            await client.send(cut)
            assert (await client.line()).startswith(b"250 2.0.0")
            return version
        finally:
            await client.close()

    return with_server(secured, folder, play)


@both_ways
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_who_knows_no_tls_of_today_is_not_served(secured, version, tmp_path):
    context = trusting_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with pytest.raises(ssl.SSLError):
        shaken(secured, tmp_path, context)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert shaken(secured, tmp_path, context) == "TLSv1.2"


@both_ways
@pytest.mark.parametrize(
    "ciphers", ["AES128-SHA", "ECDHE-ECDSA-AES128-SHA256", "AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-SHA"]
)
def test_who_knows_no_aead_with_forward_secrecy_is_not_served(secured, ciphers, tmp_path):
    context = trusting_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        shaken(secured, tmp_path, context)
    context.set_ciphers(f"{ciphers}:ECDHE-ECDSA-AES128-GCM-SHA256")
    assert shaken(secured, tmp_path, context) == "TLSv1.2"


@both_ways
@pytest.mark.parametrize("name", ["unknown.example", "x" * 63 + ".example", None])
def test_who_asks_for_another_name_gets_our_certificate(secured, name, tmp_path):
    assert shaken(secured, tmp_path, trusting_context(), name) == "TLSv1.3"


@both_ways
@pytest.mark.parametrize("cut", [1, 5, 7])
def test_a_handshake_may_come_in_any_pieces(secured, cut, tmp_path):
    assert shaken(secured, tmp_path, trusting_context(), cut=cut) == "TLSv1.3"


@both_ways
def test_a_hello_of_16_kb_is_read(secured, tmp_path):
    context = trusting_context()
    context.set_alpn_protocols([f"{number:0250d}" for number in range(63)])
    assert shaken(secured, tmp_path, context) == "TLSv1.3"


@both_ways
@pytest.mark.parametrize(
    "octets",
    [b"\x16\x03\x01\xff\xff" + b"x" * 70000, b"\x80\x2e\x01\x00\x02", b"\x15\x03\x01\0\2\2\x28", b"\0" * 100],
    ids=["too long", "SSLv2", "alert", "zeros"],
)
def test_what_is_no_handshake_ends_the_connection_without_a_word(secured, octets, tmp_path):
    async def play(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        if secured == "starttls":
            await reader.readline()
            writer.write(b"STARTTLS\r\n")
            await reader.readline()
        writer.write(octets)
        heard = b""
        with contextlib.suppress(ConnectionError):
            heard = await asyncio.wait_for(reader.read(), DEADLINE)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        assert re.fullmatch(rb"(?:\x15\x03[\x00-\x04]\x00\x02\x02.)?", heard, re.DOTALL)  # an alert, or nothing
        assert not connection.connections()

    with_server(secured, tmp_path, play, patience=0.3)


def test_nothing_is_heard_before_the_handshake_is_over(tmp_path):
    """No early data (RFC 8446 8): it could be replayed. Our tickets allow none."""

    async def play(port):
        words = ["s_client", "-connect", f"127.0.0.1:{port}", "-tls1_3", "-ign_eof"]
        client = await asyncio.create_subprocess_exec("openssl", *words, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
        said, _ = await asyncio.wait_for(client.communicate(b"QUIT\r\n"), DEADLINE)
        return set(re.findall(rb"Max Early Data: (\d+)", said))

    assert with_server("implicit", tmp_path, play) == {b"0"}

"""A session with one host: extensions, TLS that may be or must be, logins, and the end of each wait."""

from __future__ import annotations

import asyncio
import ssl
from ipaddress import ip_address
from pathlib import Path

import pytest

from gateway import config, tls
from gateway.delivery.paths import Hop
from gateway.delivery.relay import connect
from gateway.delivery.reply import Failed
from gateway.stages import Relay, Timeouts
from tests.gateway.delivery.scripted import host

RELAY = Relay(timeouts=Timeouts(**dict.fromkeys(Timeouts.model_fields, 3.0)), connect_timeout=3.0)
PLAIN = "S: 220 mx\nC: EHLO gw.us.example\nS: 250 mx"
OFFER = "S: 220 mx\nC: EHLO gw.us.example\nS: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chain for localhost and 127.0.0.1; the key lies beside it."""
    server = config.Server(hostname="localhost", data=tmp_path_factory.mktemp("tls"))
    return tls.certificate_files(config.Config(server=server))[0]


@pytest.fixture(scope="module")
def context(certificate: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(certificate, certificate.with_name("key.pem"))
    return made


def meet(
    *scripts: str, tls: ssl.SSLContext | None = None, **hop: object
) -> tuple[str, dict[str, str], list[list[str]]]:
    """Connect, and tell the TLS version, the extensions and what the host heard."""

    async def talk() -> tuple[str, dict[str, str], list[list[str]]]:
        async with host(*scripts, tls=tls) as peer:
            connection = await connect(peer.hop(**hop), "gw.us.example", RELAY)
            found = connection.tls, connection.extensions
            await connection.quit()
        assert peer.faults == []
        return *found, peer.heard

    return asyncio.run(talk())


def refused(*scripts: str, tls: ssl.SSLContext | None = None, **hop: object) -> tuple[str, list[list[str]]]:
    """Connect in vain, and tell why, and what the host heard."""

    async def talk() -> tuple[str, list[list[str]]]:
        async with host(*scripts, tls=tls) as peer:
            with pytest.raises(Failed) as failed:
                await connect(peer.hop(**hop), "gw.us.example", RELAY)
        return str(failed.value), peer.heard

    return asyncio.run(talk())


def test_extensions_are_known_by_name_with_their_arguments() -> None:
    version, extensions, _ = meet(
        "S: 220 mx\nC: EHLO gw.us.example\nS: 250-mx hello\nS: 250-size 10\nS: 250 Auth PLAIN LOGIN"
    )
    assert version == ""
    assert extensions == {"SIZE": "10", "AUTH": "PLAIN LOGIN"}


def test_tls_is_used_where_it_may_be_and_the_offers_in_clear_are_forgotten(context: ssl.SSLContext) -> None:
    version, extensions, _ = meet(
        "S: 220 mx\nC: EHLO gw.us.example\nS: 250-mx\nS: 250-STARTTLS\nS: 250 SIZE 1\nC: STARTTLS\nS: 220 go\nT\n"
        "C: EHLO gw.us.example\nS: 250-mx\nS: 250 PIPELINING",
        tls=context,
    )
    assert version == "TLSv1.3"
    assert extensions == {"PIPELINING": ""}


def test_a_broken_handshake_leads_to_one_more_connection_in_clear() -> None:
    version, _, heard = meet(OFFER + "S: 220 go\nS: this is no TLS\nX", PLAIN)
    assert version == ""
    assert heard[1] == ["EHLO gw.us.example", "QUIT"]


def test_starttls_refused_leads_to_one_more_connection_in_clear() -> None:
    version, _, heard = meet(OFFER + "S: 454 4.7.0 no TLS now", PLAIN)
    assert (version, len(heard)) == ("", 2)


def test_what_is_said_in_clear_behind_the_220_never_counts_as_said_under_tls(context: ssl.SSLContext) -> None:
    why, heard = refused(OFFER + "S: 220 go\\r\\n250-mx\\r\\n250 AUTH PLAIN", tls=context, tls_="must")
    assert "it spoke in clear where TLS was to begin" in why
    assert heard == [["EHLO gw.us.example", "STARTTLS"]]


def test_where_tls_must_be_its_absence_ends_the_session() -> None:
    why, _ = refused(PLAIN, tls_="must")
    assert "does not offer the TLS" in why


def test_where_tls_must_be_a_broken_handshake_is_not_followed_by_clear_text() -> None:
    _, heard = refused(OFFER + "S: 220 go\nS: this is no TLS\nX", PLAIN, tls_="must")
    assert len(heard) == 1


def test_where_tls_must_be_an_unknown_certificate_ends_the_session(context: ssl.SSLContext) -> None:
    why, _ = refused(OFFER + "S: 220 go\nT", tls=context, tls_="must")
    assert "4.7.5" in why
    assert "certificate" in why


def test_where_tls_must_be_the_name_has_to_match(context: ssl.SSLContext, certificate: Path) -> None:
    script = OFFER + "S: 220 go\nT"
    why, _ = refused(script, tls=context, tls_="must", host="mx.there.example", ca_file=str(certificate))
    assert "certificate" in why


def test_a_password_goes_under_verified_tls(context: ssl.SSLContext, certificate: Path, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("geheim\nnot this\n")
    _, _, heard = meet(
        OFFER + "S: 220 go\nT\nC: EHLO gw.us.example\nS: 250-mx\nS: 250 AUTH LOGIN PLAIN\n"
        "C: AUTH PLAIN AHVzAGdlaGVpbQ==\nS: 235 2.7.0 welcome",
        tls=context,
        tls_="must",
        ca_file=str(certificate),
        user="us",
        password_file=str(tmp_path / "password"),
    )
    assert heard[0][-1] == "QUIT"


def test_no_password_goes_in_clear(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("geheim")
    offer = "S: 220 mx\nC: EHLO gw.us.example\nS: 250-mx\nS: 250 AUTH PLAIN"
    why, heard = refused(offer, tls_="never", user="us", password_file=str(tmp_path / "password"))
    assert "there is no TLS" in why
    assert heard == [["EHLO gw.us.example"]]


def test_tls_from_the_first_octet(context: ssl.SSLContext, certificate: Path) -> None:
    async def talk() -> str:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mx\r\n")
            await reader.readline()
            writer.write(b"250 mx\r\n")
            await reader.read()
            writer.close()

        server = await asyncio.start_server(play, "127.0.0.1", 0, ssl=context)
        hop = Hop("localhost", ip_address("127.0.0.1"), server.sockets[0].getsockname()[1])
        hop = Hop(hop.host, hop.address, hop.port, "implicit", ca_file=str(certificate))
        connection = await connect(hop, "gw.us.example", RELAY)
        version = connection.tls
        connection.drop()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.05)
        return version

    assert asyncio.run(talk()) == "TLSv1.3"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("S: 554 5.7.1 go away", "554 5.7.1 go away"),
        ("S: 421 4.3.2 full house", "421 4.3.2 full house"),
        ("X", "it closed the connection"),
        ("S: SSH-2.0-OpenSSH_9", "it does not speak SMTP"),
        ("R: 5000 220-welcome", "its reply does not end"),
        ("L: 1048576 2", "it sent "),
        ("S: 220 mx\nC: EHLO gw.us.example\nR: 5000 250-EXTENSION", "its reply does not end"),
        ("S: 220 mx\nC: EHLO gw.us.example\nX", "it closed the connection"),
        ("S: 220 mx\nC: EHLO gw.us.example\nS: 450 4.7.1 later", "450 4.7.1 later"),
        (
            "S: 220 mx\nC: EHLO gw.us.example\nS: 550 no\nC: HELO gw.us.example\nS: 550 no, really",
            "550 5.0.0 no, really",
        ),
    ],
)
def test_a_host_that_does_not_want_us_is_told_apart_from_a_refused_mail(script: str, why: str) -> None:
    assert why in refused(script)[0]


def test_nobody_listening_is_said_in_words_of_ours() -> None:
    async def talk() -> str:
        async with host() as peer:
            hop = peer.hop()
        with pytest.raises(Failed) as failed:
            await connect(hop, "gw.us.example", RELAY)
        return str(failed.value)

    assert asyncio.run(talk()) == "451 4.4.1 localhost [127.0.0.1] cannot be reached: Connection refused"


def test_a_connection_has_a_source_address_of_our_choice() -> None:
    async def talk() -> str:
        seen: list[str] = []

        async def play(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(writer.get_extra_info("peername")[0])
            writer.close()

        server = await asyncio.start_server(play, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            hop = Hop("localhost", ip_address("127.0.0.1"), port, source="127.0.0.9")
            with pytest.raises(Failed):
                await connect(hop, "gw.us.example", RELAY)
        return seen[0]

    assert asyncio.run(talk()) == "127.0.0.9"

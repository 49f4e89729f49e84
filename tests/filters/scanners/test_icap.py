"""The ICAP client against Debian's c-icap, and against services that err in every way we could think of."""

import asyncio
import gc
import io
import re
import threading
import time
from collections.abc import Callable

import pytest

from filters._scanners.icap import Icap, Method
from filters._scanners.icap_wire import Address
from filters._scanners.said import Failed, Octets, Said, Unreadable
from tests.peers import c_icap, clamd, loop, processes

LETTER = b"Subject: hello\r\n\r\nhello\r\n"
LARGE = bytes(range(256)) * 12_000
UNCHANGED = b'ICAP/1.0 204 No Content\r\nISTag: "1"\r\nEncapsulated: null-body=0\r\n\r\n'


def octets(data: bytes = LETTER) -> Octets:
    return Octets(lambda: io.BytesIO(data))


def ask(
    port: int, data: bytes = LETTER, method: Method = "RESPMOD", preview: int = 0, times: int = 1, within: float = 5.0
) -> Said:
    """What the service at *port* says to *data*, the last of several *times* over the same client."""

    async def scan() -> Said:
        service = Icap(f"icap://127.0.0.1:{port}/avscan", method, preview)
        for _ in range(times):
            said = await service.scan(octets(data), asyncio.get_running_loop().time() + within)
        return said

    return asyncio.run(scan())


async def taken(reader: asyncio.StreamReader, preview: bool = False) -> tuple[str, bytes, bool]:
    """One request: its header, its body, and whether that was marked as all of it ("ieof")."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    for name in re.findall(r"(re[qs])-hdr=", head):
        assert await reader.readuntil(b"\r\n\r\n"), name
    body = b""
    while size := await reader.readline():
        length = int(size.split(b";")[0], 16)
        body += await reader.readexactly(length)
        assert await reader.readexactly(2) == b"\r\n"
        if not length:
            break
    return head, body, b"ieof" in size


def answering(*pieces: bytes, keeps: bool = False) -> loop.Handler:
    """A service that takes the mail and says *pieces*; it closes after the first where it does not keep on."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await taken(reader)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if not keeps:
                return

    return converse


def page(status: bytes = b"200 OK", body: bytes = LETTER, fields: bytes = b"", kind: bytes = b"res") -> bytes:
    """A reply with another page in the mail's place."""
    head = b"HTTP/1.1 " + status + b"\r\nContent-Type: text/html\r\n\r\n"
    places = b"Encapsulated: %b-hdr=0, %b-body=%d\r\n" % (kind, kind, len(head))
    return b"ICAP/1.0 200 OK\r\n%b%b\r\n%b%x\r\n%b\r\n0\r\n\r\n" % (fields, places, head, len(body), body)


# --- what is clean -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", LETTER, LARGE], ids=["nothing", "a letter", "3 MB"])
@pytest.mark.parametrize("preview", [0, 10, len(LETTER), 4096])
@pytest.mark.parametrize("method", ["RESPMOD", "REQMOD"])
def test_a_service_sees_every_octet_and_what_it_leaves_alone_is_clean(
    data: bytes, preview: int, method: Method
) -> None:
    seen: list[bytes] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, body, whole = await taken(reader)
        assert head.startswith(f"{method} icap://127.0.0.1:")
        assert ("Preview:" in head) is (preview > 0)
        if preview and not whole:
            assert body == data[:preview]
            writer.write(b"ICAP/1.0 100 Continue\r\n\r\n")
            while size := int((await reader.readline()), 16):
                body += await reader.readexactly(size)
                await reader.readexactly(2)
            await reader.readexactly(2)
        seen.append(body)
        writer.write(UNCHANGED)

    with loop.serving(converse) as port:
        assert ask(port, data, method, preview).code == "clean"
    assert seen == [data]


def test_the_header_says_where_each_block_begins() -> None:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        places = re.search(r"Encapsulated: req-hdr=0, res-hdr=(\d+), res-body=(\d+)\r\n", head)
        assert places
        blocks = await reader.readexactly(int(places[2]))
        assert blocks[: int(places[1])].endswith(b"\r\n\r\n")
        assert blocks[int(places[1]) :].startswith(b"HTTP/1.1 200 OK\r\n")
        assert blocks.endswith(b"\r\n\r\n")
        assert await reader.readline() == b"%x\r\n" % len(LETTER)
        await reader.readuntil(b"\r\n0\r\n\r\n")
        writer.write(UNCHANGED)

    with loop.serving(converse) as port:
        assert ask(port).code == "clean"


@pytest.mark.parametrize("kind", [b"res", b"req"])
def test_the_very_same_octets_in_return_are_clean(kind: bytes) -> None:
    with loop.serving(answering(page(kind=kind))) as port:
        assert ask(port, method="RESPMOD" if kind == b"res" else "REQMOD").code == "clean"


def test_a_large_mail_that_comes_back_while_it_is_sent_stops_nobody() -> None:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        await reader.readuntil(b"\r\n\r\n")
        shown = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"ICAP/1.0 200 OK\r\nEncapsulated: res-hdr=0, res-body=%d\r\n\r\n%b" % (len(shown), shown))
        assert head
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
            if piece.endswith(b"\r\n0\r\n\r\n"):
                return

    with loop.serving(converse) as port:
        assert ask(port, LARGE * 3).code == "clean"


# --- what is not ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "code", "name"),
    [
        (b"X-Infection-Found: Type=0; Resolution=2; Threat=Eicar-Test;\r\n", "infected", "Eicar-Test"),
        (b"X-Infection-Found: Type=2; Resolution=0; Threat=Container;\r\n", "unscanned", "Container"),
        (b"X-Virus-ID: EICAR test string\r\n", "infected", "EICAR?test?string"),
        (b"x-violations-found : 1\r\n\teicar.com\r\n\tEICAR\r\n", "infected", "1?eicar.com?EICAR"),
        (b"X-Violations-Found: 0\r\nX-Violations-Found: 1\r\n", "infected", "0??1"),
        (b"X-Blocked: <b>\x1b[1m\xe2\x80\xae\r\n", "infected", "?b???1m???"),
    ],
)
@pytest.mark.parametrize("status", [b"200 OK", b"204 No Content", b"403 Forbidden", b"500 Error"])
def test_a_header_that_names_a_threat_is_a_find_whatever_the_status(
    fields: bytes, code: str, name: str, status: bytes
) -> None:
    with loop.serving(answering(b"ICAP/1.0 " + status + b"\r\n" + fields + b"\r\n")) as port:
        said = ask(port)
    assert (said.code, said.name) == (code, name)
    assert said.answer.isascii()
    assert said.answer.isprintable()
    assert len(said.answer) <= 200


@pytest.mark.parametrize(
    "reply",
    [
        page(b"403 Forbidden", b"<h1>no</h1>"),
        page(b"403 Forbidden", LETTER),
        page(body=LETTER[:-1]),
        page(body=LETTER + b"x"),
        page(body=LETTER.upper()),
        page(body=b""),
        b"ICAP/1.0 200 OK\r\nEncapsulated: res-hdr=0, null-body=19\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        page(kind=b"req"),
    ],
)
def test_another_page_in_the_place_of_the_mail_is_a_find(reply: bytes) -> None:
    with loop.serving(answering(reply)) as port:
        said = ask(port)
    assert (said.code, said.name.partition(" (")[0]) == ("infected", "another page in its place")


def test_a_service_that_wanted_the_beginning_only_has_not_seen_the_mail() -> None:
    with loop.serving(answering(UNCHANGED)) as port:
        assert ask(port, preview=10).code == "unscanned"


def test_a_find_in_the_middle_of_a_large_mail_is_one() -> None:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1000)
        writer.write(b"ICAP/1.0 200 OK\r\nX-Virus-ID: Eicar\r\n\r\n")

    with loop.serving(converse) as port:
        assert ask(port, LARGE).name == "Eicar"


# --- what says nothing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"ICAP/1.0 204 No Content\r\n",
        b"ICAP/1.0 204\r\nno field\r\n\r\n",
        b"ICAP/1.0 2040 OK\r\n\r\n",
        b"ICAP/2.0 204 OK\r\n\r\n",
        b"ICAP/1.0 100 Continue\r\n\r\n",
        b"ICAP/1.0 206 Partial\r\nEncapsulated: res-hdr=0\r\n\r\n",
        b"ICAP/1.0 404 Service not found\r\n\r\n",
        b"ICAP/1.0 500 Server error\r\n\r\n",
        b"ICAP/1.0 200 OK\r\n\r\n",
        b"ICAP/1.0 200 OK\r\nEncapsulated: null-body=5\r\n\r\n",
        b"ICAP/1.0 200 OK\r\nEncapsulated: res-body=90, res-hdr=0\r\n\r\n",
        b"ICAP/1.0 200 OK\r\nEncapsulated: res-hdr=0, res-body=99999\r\n\r\n",
        page()[:-30],
        page().replace(b"\r\n%x\r\n" % len(LETTER), b"\r\n-1\r\n"),
        page().replace(b"\r\n%x\r\n" % len(LETTER), b"\r\n%x\r\n" % (len(LETTER) - 1)),
        page().replace(b"0\r\n\r\n", b""),
        b"ICAP/1.0 204 OK\r\nX: " + b"x" * 100_000,
        b"\xff" * 1000,
    ],
)
def test_a_reply_that_says_nothing_is_no_result(reply: bytes) -> None:
    with loop.serving(answering(reply)) as port, pytest.raises((Failed, ConnectionError)) as raised:
        ask(port)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("preview", [0, 10])
def test_a_service_that_hangs_is_waited_for_no_longer_than_the_deadline(preview: int) -> None:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    began = time.monotonic()
    with loop.serving(converse) as port, pytest.raises(Failed, match="took too long"):
        ask(port, LARGE, preview=preview, within=0.3)
    assert time.monotonic() - began < 2.0


def test_a_reply_before_the_mail_was_taken_is_no_result() -> None:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(UNCHANGED)
        await asyncio.sleep(5)

    with loop.serving(converse) as port, pytest.raises(Failed, match="before it had taken"):
        ask(port, LARGE * 10)


def test_a_mail_that_cannot_be_read_is_no_fault_of_the_service() -> None:
    async def scan(port: int) -> None:
        short = Octets(lambda: io.BytesIO(LETTER), 0, 1000)
        await Icap(f"icap://127.0.0.1:{port}/x").scan(short, asyncio.get_running_loop().time() + 5)

    with loop.serving(answering(UNCHANGED)) as port, pytest.raises(Unreadable):
        asyncio.run(scan(port))


def test_a_service_that_is_not_there_is_no_result() -> None:
    with pytest.raises(Failed, match="refused"):
        ask(processes.free_port())


@pytest.mark.parametrize(
    "written",
    ["", "icap://", "icap://a", "http://a/b", "icap://a b/c", "icap://a:0/x", "icap://a:99999/", "icap://a/\n"],
)
def test_what_is_no_address_of_a_service_is_told(written: str) -> None:
    with pytest.raises(ValueError, match="an ICAP service is written"):
        Address.of(written)


# --- connections ---------------------------------------------------------------------------------------------------


def counting(handle: loop.Handler, counts: list[int]) -> loop.Handler:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        counts.append(1)
        await handle(reader, writer)

    return converse


@pytest.mark.parametrize(
    ("handle", "connections"),
    [
        (answering(UNCHANGED, keeps=True), 1),
        (answering(UNCHANGED), 3),  # closes without saying so
        (answering(UNCHANGED.replace(b"ISTag", b"Connection: close\r\nISTag"), keeps=True), 3),
        (answering(UNCHANGED + b"more", keeps=True), 3),
    ],
    ids=["kept", "closed", "said to be closed", "that says more"],
)
def test_a_connection_is_used_again_where_it_is_in_order(handle: loop.Handler, connections: int) -> None:
    counts: list[int] = []
    with loop.serving(counting(handle, counts)) as port:
        assert ask(port, times=3).code == "clean"
    assert len(counts) == connections


def test_a_connection_that_was_kept_is_closed_with_its_client_even_in_a_cycle() -> None:
    closed = threading.Event()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await taken(reader)
        writer.write(UNCHANGED)
        if not await reader.read(1):
            closed.set()

    async def scan() -> None:
        services = [Icap(f"icap://127.0.0.1:{port}/avscan")]
        assert (await services[0].scan(octets(), asyncio.get_running_loop().time() + 5)).code == "clean"
        services.append(services)  # type: ignore[arg-type]

    with loop.serving(converse) as port:
        asyncio.run(scan())
        gc.collect()
        assert closed.wait(10)


# --- c-icap --------------------------------------------------------------------------------------------------------


def each(check: Callable[[Icap], object], *urls: str) -> None:
    for url in urls:
        for method in ("RESPMOD", "REQMOD"):
            for preview in (0, 1024):
                check(Icap(url, method, preview))


def told(service: Icap, data: bytes) -> Said:
    async def scan() -> Said:
        return await service.scan(octets(data), asyncio.get_running_loop().time() + 10)

    return asyncio.run(scan())


def test_c_icap_finds_eicar_and_nothing_in_a_letter() -> None:
    with clamd.run() as behind, c_icap.run(behind.unix_socket) as service:

        def check(icap: Icap) -> None:
            infected = told(icap, clamd.EICAR)
            assert (infected.code, infected.name) == ("infected", clamd.EICAR_NAME)
            assert told(icap, LETTER).code == "clean"
            assert told(icap, LETTER * 10_000).code == "clean"
            assert told(icap, b"x" * 500_000 + LETTER).code == "clean"

        each(check, service.url("avscan"))
        version = asyncio.run(Icap(service.url("avscan")).version(1e9))
        assert "Antivirus service" in version.words
        assert version.label


def test_the_echo_of_c_icap_is_clean_where_it_has_seen_the_whole_mail() -> None:
    with clamd.run() as behind, c_icap.run(behind.unix_socket) as service:
        for method in ("RESPMOD", "REQMOD"):
            assert told(Icap(service.url("echo"), method), LARGE).code == "clean"
            assert told(Icap(service.url("echo"), method, 1024), LETTER).code == "clean"
            assert told(Icap(service.url("echo"), method, 1024), LARGE).code == "unscanned"
        with pytest.raises(Failed, match="404"):
            told(Icap(service.url("nothing")), LETTER)

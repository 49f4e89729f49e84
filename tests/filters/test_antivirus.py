"""The scanner against a real clamd, and against one that errs in every way we could think of."""

import asyncio
import io
import ipaddress
import time
import zipfile
from collections.abc import Sequence
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import BinaryIO

import pytest

from filters import antivirus
from filters.antivirus import Filter, Settings
from gateway.model import Envelope, Finding, Mail, Session, Temporary, Tools
from tests.peers import clamd, fake_clamd, loop, processes
from tests.peers.fake_clamd import Mode

MAIL = Mail("id", Session(ipaddress.ip_address("192.0.2.1")), Envelope("a@a.test"))
LETTER = b"Subject: hello\r\n\r\nhello\r\n"


class Reader(io.BytesIO):
    """A message that notes how it is read."""

    largest = 0

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert size > 0
        self.largest = max(self.largest, size)
        return super().read(size)


def make(sockets: Sequence[str], message: bytes = LETTER, **settings: object) -> tuple[Filter, list[Reader]]:
    opened: list[Reader] = []

    def open_message(mail: Mail) -> BinaryIO:
        assert mail is MAIL
        opened.append(Reader(message))
        return opened[-1]

    tools = Tools(None, None, "mx.demo.example", open_message, None, None, None)  # type: ignore[arg-type]
    return Filter(Settings(sockets=tuple(sockets), **settings), tools), opened  # type: ignore[arg-type]


def scan(sockets: Sequence[str], message: bytes = LETTER, timeout: float = 5.0) -> Finding:
    filter_, opened = make(sockets, message, timeout=timeout)
    try:
        (finding,) = asyncio.run(filter_.check(MAIL, {}))
    finally:
        assert all(reader.closed for reader in opened)
    assert finding.code in Filter.codes
    return finding


def at(fake: fake_clamd.FakeClamd | clamd.Clamd) -> str:
    return f"{fake.host}:{fake.port}"


# --- clamds that err -----------------------------------------------------------------------------------------------


def test_ok_is_clean_with_answer_and_signature_version_as_evidence() -> None:
    with fake_clamd.run() as fake:
        finding = scan([at(fake)])
    assert (finding.code, finding.facts) == ("clean", ("stream: OK", "ClamAV 1.4.6/1/Sun Nov 1 00:00:00 2026"))
    assert [(stream.data, stream.ended, stream.extra) for stream in fake.streams] == [(LETTER, True, b"")]


@pytest.mark.parametrize("mode", [Mode.FOUND, Mode.FRAG])
def test_a_named_virus_is_infected_however_the_answer_arrives(mode: Mode) -> None:
    with fake_clamd.run(mode) as fake:
        finding = scan([at(fake)])
    assert (finding.code, finding.detail) == ("infected", "Eicar-Test-Signature")


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 3_000_000])
def test_every_octet_is_sent_and_never_much_in_memory(size: int) -> None:
    message = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    with fake_clamd.run(Mode.SLOWREAD if size > 100_000 else Mode.OK) as fake:
        filter_, opened = make([at(fake)], message)
        (finding,) = asyncio.run(filter_.check(MAIL, {}))
    assert finding.code == "clean"
    assert [stream.data for stream in fake.streams] == [message]
    assert opened[0].largest <= antivirus.CHUNK


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        (Mode.ERR, "answered 'stream: Heuristics.Limits.Exceeded.MaxScanTime ERROR'"),
        (Mode.CLOSE_NOW, ""),
        (Mode.DIE_AFTER, "closed without a whole answer"),
        (Mode.DIE_MID, ""),
        (Mode.LIMIT, ""),
        (Mode.HANG, "took too long"),
    ],
)
@pytest.mark.parametrize("over_unix_socket", [False, True])
def test_a_clamd_that_cannot_tell_is_an_error_and_never_clean(
    mode: Mode, why: str, over_unix_socket: bool, tmp_path: Path
) -> None:
    path = tmp_path / "clamd" if over_unix_socket else None
    began = time.monotonic()
    with fake_clamd.run(mode, path=path) as fake, pytest.raises(Temporary, match="no clamd could tell") as raised:
        scan([f"unix:{path}" if path else at(fake)], b"x" * 1_000_000, timeout=0.5)
    assert why in str(raised.value)
    assert time.monotonic() - began < 3.0


def test_the_size_limit_of_clamd_is_named() -> None:
    with fake_clamd.run(Mode.LIMIT, stream_max_length=10) as fake, pytest.raises(Temporary, match="StreamMaxLength"):
        scan([at(fake)], b"x" * 100)


def answering(*pieces: bytes, before_the_end: bool = False) -> loop.Handler:
    """A clamd that says *pieces*, after the mail or as soon as it is asked."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        command = await reader.readline()
        if command == b"nINSTREAM\n" and not before_the_end:
            while size := int.from_bytes(await reader.readexactly(4), "big"):
                await reader.readexactly(size)
        writer.writelines(pieces)
        await writer.drain()

    return converse


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\n",
        b"\0",
        b"OK\n",
        b"stream: OK",
        b"stream: OK\0",
        b"stream: OK\r\n",
        b" stream: OK\n",
        b"stream: ok\n",
        b"other: OK\n",
        b"stream: OK ERROR\n",
        b"stream: OK OK\n",
        b"stream: \n",
        b"stream:  FOUND\n",
        b"stream: OK\nstream: Eicar FOUND\n",
        b"garbage\n",
        b"garbage: with: colons\n",
        b"COMMAND READ TIMED OUT\n",
        b"INSTREAM size limit exceeded. ERROR\n",
        b"\xff\xfe\xfd\n",
        b"x" * 100_000 + b"\n",
        b"x" * 100_000,
    ],
)
def test_an_answer_that_the_manual_does_not_know_is_an_error(answer: bytes) -> None:
    with loop.serving(answering(answer)) as port, pytest.raises(Temporary) as raised:
        scan([f"127.0.0.1:{port}"])
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 500


def test_ok_before_the_mail_was_taken_is_an_error() -> None:
    with loop.serving(answering(b"stream: OK\n", before_the_end=True)) as port, pytest.raises(Temporary):
        scan([f"127.0.0.1:{port}"], b"x" * 20_000_000)


def test_nonsense_on_a_connection_that_stays_open_is_told_at_once() -> None:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\0\0\0\0")
        writer.write(b"garbage\n")
        await reader.read()

    began = time.monotonic()
    with loop.serving(converse) as port, pytest.raises(Temporary, match="garbage"):
        scan([f"127.0.0.1:{port}"], timeout=10.0)
    assert time.monotonic() - began < 2.0


@pytest.mark.parametrize(
    ("signature", "code"),
    [
        ("Heuristics.Limits.Exceeded.MaxFileSize", "unscanned"),
        ("Heuristics.Limits.Exceeded", "unscanned"),
        ("Heuristics.Encrypted.Zip", "encrypted"),
        ("Heuristics.Encrypted.PDF", "encrypted"),
        ("Heuristics.Phishing.Email.SpoofedDomain", "infected"),
        ("Win.Trojan.Heuristics.Encrypted-1", "infected"),
    ],
)
def test_what_clamd_could_not_look_into_has_codes_of_its_own(signature: str, code: str) -> None:
    with fake_clamd.run(Mode.FOUND, signature=signature) as fake:
        assert scan([at(fake)]).code == code


def test_a_hostile_signature_name_is_made_harmless() -> None:
    with fake_clamd.run(Mode.FOUND, signature="Evil\r250 <b>\x1b[31m\u202e" + "x" * 3000) as fake:
        finding = scan([at(fake)])
    assert finding.code == "infected"
    assert finding.detail.startswith("Evil?250??b")
    assert len(finding.detail) <= 100
    assert all(text.isprintable() and text.isascii() and len(text) <= 200 for text in finding.facts)


# --- which one is asked, and when it is not ------------------------------------------------------------------------


def test_the_next_socket_is_asked_where_one_cannot_tell(tmp_path: Path) -> None:
    with fake_clamd.run(Mode.DIE_AFTER) as dying, fake_clamd.run(Mode.FOUND) as alive:
        dead = f"127.0.0.1:{processes.free_port()}"
        assert scan([f"unix:{tmp_path}/none", dead, at(dying), at(alive)]).code == "infected"
    assert [len(dying.streams), len(alive.streams)] == [1, 1]


def test_where_no_socket_can_tell_each_says_why(tmp_path: Path) -> None:
    dead = f"127.0.0.1:{processes.free_port()}"
    with pytest.raises(Temporary) as raised:
        scan([f"unix:{tmp_path}/none", dead])
    assert str(raised.value) == (
        f"no clamd could tell (unix:{tmp_path}/none: No such file or directory; {dead}: Connection refused)"
    )


def test_mail_waits_for_its_turn_no_longer_than_the_deadline() -> None:
    async def scan_three(filter_: Filter) -> list[object]:
        return await asyncio.gather(*(filter_.check(MAIL, {}) for _ in range(3)), return_exceptions=True)

    with fake_clamd.run(Mode.HANG) as fake:
        filter_, _ = make([at(fake)], timeout=0.3, threads=1)
        began = time.monotonic()
        outcomes = asyncio.run(scan_three(filter_))
    assert [type(outcome) for outcome in outcomes] == [Temporary] * 3
    assert time.monotonic() - began < 2.0


def test_no_more_mails_are_scanned_at_a_time_than_the_settings_allow() -> None:
    scanning: set[asyncio.StreamReader] = set()
    most = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readline() == b"nINSTREAM\n":
            scanning.add(reader)
            most.append(len(scanning))
            await reader.readuntil(b"\0\0\0\0")
            await asyncio.sleep(0.01)
            scanning.discard(reader)
        writer.write(b"stream: OK\n")

    async def scan_many(filter_: Filter) -> list[str]:
        return [found.code for (found,) in await asyncio.gather(*(filter_.check(MAIL, {}) for _ in range(20)))]

    with loop.serving(converse) as port:
        assert asyncio.run(scan_many(make([f"127.0.0.1:{port}"], threads=2)[0])) == ["clean"] * 20
    assert max(most) == 2


def test_the_version_is_not_asked_for_with_every_mail() -> None:
    commands: list[bytes] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands.append(await reader.readline())
        if commands[-1] == b"nVERSION\n":
            writer.write(b"COMMAND UNAVAILABLE\n")
        else:
            await reader.readuntil(b"\0\0\0\0")
            writer.write(b"stream: OK\n")

    async def twice(filter_: Filter) -> list[Finding]:
        return [*await filter_.check(MAIL, {}), *await filter_.check(MAIL, {})]

    with loop.serving(converse) as port:
        findings = asyncio.run(twice(make([f"127.0.0.1:{port}"])[0]))
    assert commands == [b"nINSTREAM\n", b"nVERSION\n", b"nINSTREAM\n"]
    assert [finding.facts[1] for finding in findings] == ["COMMAND UNAVAILABLE"] * 2


def test_a_message_that_cannot_be_read_is_no_result() -> None:
    def open_message(mail: Mail) -> BinaryIO:
        raise FileNotFoundError(mail.id)

    with fake_clamd.run() as fake:
        tools = Tools(None, None, "mx.demo.example", open_message, None, None, None)  # type: ignore[arg-type]
        with pytest.raises(FileNotFoundError):
            asyncio.run(Filter(Settings(sockets=(at(fake),)), tools).check(MAIL, {}))


@pytest.mark.parametrize("written", ["", "unix:", "clamd", "localhost:3310", "127.0.0.1", "1.2.3.4.5:1"])
def test_a_socket_that_cannot_be_one_is_told_when_the_policy_loads(written: str) -> None:
    with pytest.raises(ValueError):
        make([written])


@pytest.mark.parametrize("settings", [{"threads": 0}, {"sockets": ()}])
def test_settings_that_could_never_scan_are_told_when_the_policy_loads(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Filter(Settings(**settings), None)  # type: ignore[arg-type]


def test_every_code_can_be_reported() -> None:
    answers = ("OK", "Eicar FOUND", "Heuristics.Encrypted.Zip FOUND", "Heuristics.Limits.Exceeded FOUND")
    assert {antivirus._finding(antivirus._Scan(f"stream: {answer}", "")).code for answer in answers} == Filter.codes


# --- the real one --------------------------------------------------------------------------------------------------


def test_the_real_clamd_finds_eicar_and_nothing_in_a_letter() -> None:
    with clamd.run(stream_max_length=1_000_000) as real:
        attached = LETTER + clamd.EICAR
        for place in (f"unix:{real.unix_socket}", at(real)):
            clean, infected = scan([place]), scan([place], clamd.EICAR)
            assert clean.code == "clean"
            assert clean.facts[1].startswith("ClamAV ")
            assert (infected.code, infected.detail) == ("infected", clamd.EICAR_NAME)
        with pytest.raises(Temporary, match="StreamMaxLength"):
            scan([at(real)], attached + b"x" * 1_100_000)


def locked_zip() -> bytes:
    """A zip archive whose one member claims to be encrypted."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("secret.txt", b"x" * 100)
    data = bytearray(buffer.getvalue())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    return bytes(data)


def attached(data: bytes) -> bytes:
    letter = EmailMessage()
    letter["Subject"] = "hello"
    letter.set_content("hello")
    letter.add_attachment(data, maintype="application", subtype="octet-stream", filename="a.bin")
    return letter.as_bytes(policy=SMTP)


def test_the_real_clamd_names_what_it_could_not_look_into_as_we_expect() -> None:
    settings = {"AlertEncrypted": "yes", "AlertExceedsMax": "yes", "MaxFileSize": "200K"}
    with clamd.run(settings=settings) as real:
        assert scan([at(real)], attached(locked_zip())).code == "encrypted"
        assert scan([at(real)], attached(b"\0" * 300_000)).code == "unscanned"
        assert scan([at(real)], attached(clamd.EICAR)).code == "infected"
        assert scan([at(real)], attached(b"harmless")).code == "clean"

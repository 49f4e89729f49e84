"""The scanner against a real clamd, and against one that errs in every way we could think of."""

import asyncio
import errno
import io
import ipaddress
import signal
import time
import zipfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import BinaryIO

import pytest

from filters._scanners import clamd as scanner
from filters._scanners.said import CHUNK, Unreadable
from filters.antivirus import Filter, IcapServices, Settings
from gateway.model import ERROR, Content, Envelope, Finding, Mail, Part, Session, Temporary, Tools
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
    settings = {"cache": 0.0} | settings
    return Filter(Settings(sockets=tuple(sockets), **settings), tools), opened  # type: ignore[arg-type]


def scan(sockets: Sequence[str], message: bytes = LETTER, timeout: float = 5.0) -> Finding:
    filter_, opened = make(sockets, message, timeout=timeout)
    try:
        (finding,) = asyncio.run(filter_.check(MAIL, {}))
    finally:
        assert all(reader.closed for reader in opened)
    if finding.code == ERROR:
        raise Temporary(finding.detail)
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
    assert opened[0].largest <= CHUNK


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
        if await reader.readline() == b"nVERSION\n":
            return
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
    async def scan_three(filter_: Filter) -> list[str]:
        return [found.code for (found,) in await asyncio.gather(*(filter_.check(MAIL, {}) for _ in range(3)))]

    with fake_clamd.run(Mode.HANG) as fake:
        filter_, _ = make([at(fake)], timeout=0.3, threads=1)
        began = time.monotonic()
        outcomes = asyncio.run(scan_three(filter_))
    assert outcomes == [ERROR] * 3
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
    assert commands == [b"nVERSION\n", b"nINSTREAM\n", b"nINSTREAM\n"]
    assert [finding.facts[1] for finding in findings] == ["COMMAND UNAVAILABLE"] * 2


def test_a_message_that_cannot_be_read_is_no_result() -> None:
    def open_message(mail: Mail) -> BinaryIO:
        raise FileNotFoundError(errno.ENOENT, "No such file", mail.id)

    with fake_clamd.run() as fake:
        tools = Tools(None, None, "mx.demo.example", open_message, None, None, None)  # type: ignore[arg-type]
        with pytest.raises(Unreadable, match="No such file"):
            asyncio.run(Filter(Settings(sockets=(at(fake),), cache=0.0), tools).check(MAIL, {}))


@pytest.mark.parametrize("written", ["", "unix:", "clamd", "localhost:3310", "127.0.0.1", "1.2.3.4.5:1"])
def test_a_socket_that_cannot_be_one_is_told_when_the_policy_loads(written: str) -> None:
    with pytest.raises(ValueError):
        make([written])


@pytest.mark.parametrize("settings", [{"threads": 0}, {"sockets": ()}])
def test_settings_that_could_never_scan_are_told_when_the_policy_loads(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        make(**({"sockets": ["127.0.0.1:1"]} | settings))  # type: ignore[arg-type]


def test_every_code_can_be_reported() -> None:
    answers = ("OK", "Eicar FOUND", "Heuristics.Encrypted.Zip FOUND", "Heuristics.Limits.Exceeded FOUND")
    assert {scanner.understood(f"stream: {answer}").code for answer in answers} == Filter.codes


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


# --- several clamds ------------------------------------------------------------------------------------------------


def scan_many(filter_: Filter, mails: int) -> list[str]:
    """The codes that *mails* get at the same time."""

    async def check() -> list[str]:
        found = await asyncio.gather(*(filter_.check(MAIL, {}) for _ in range(mails)))
        return [finding.code for findings in found for finding in findings]

    return asyncio.run(check())


def test_several_clamds_share_the_load() -> None:
    with fake_clamd.run(Mode.SLOWREAD) as one, fake_clamd.run(Mode.SLOWREAD) as other:
        assert scan_many(make([at(one), at(other)], b"x" * 100_000)[0], 8) == ["clean"] * 8
    assert sorted([len(one.streams), len(other.streams)]) == [4, 4]


def test_a_clamd_that_failed_is_left_alone_for_a_while_and_then_tried_by_one_mail() -> None:
    now = [1000.0]

    async def check(filter_: Filter, times: int) -> None:
        for _ in range(times):
            assert [found.code for found in await filter_.check(MAIL, {})] == ["clean"]

    async def story(filter_: Filter, bad: fake_clamd.FakeClamd, good: fake_clamd.FakeClamd) -> None:
        await check(filter_, 5)
        assert [len(bad.streams), len(good.streams)] == [1, 5]
        now[0] += 31  # its rest is over, but it is as bad as before
        await check(filter_, 5)
        assert [len(bad.streams), len(good.streams)] == [2, 10]
        bad.mode = Mode.OK
        now[0] += 31
        await check(filter_, 3)
        assert len(bad.streams) == 5

    with fake_clamd.run(Mode.DIE_AFTER) as bad, fake_clamd.run() as good:
        tools = Tools(None, None, "", lambda _: Reader(LETTER), None, None, None)  # type: ignore[arg-type]
        filter_ = Filter(Settings(sockets=(at(bad), at(good)), cache=0.0), tools, lambda: now[0])
        asyncio.run(story(filter_, bad, good))


def test_a_mail_that_one_clamd_refuses_does_not_rest_it() -> None:
    async def twice(filter_: Filter, one: fake_clamd.FakeClamd) -> None:
        await filter_.check(MAIL, {})
        one.mode = Mode.OK
        await filter_.check(MAIL, {})

    with fake_clamd.run(Mode.ERR) as one, fake_clamd.run() as other:
        asyncio.run(twice(make([at(one), at(other)])[0], one))
        assert [len(one.streams), len(other.streams)] == [2, 1]


def test_a_clamd_that_hangs_leaves_time_for_one_that_is_known_to_be_well() -> None:
    async def story(filter_: Filter, first: fake_clamd.FakeClamd) -> list[str]:
        await asyncio.gather(filter_.check(MAIL, {}), filter_.check(MAIL, {}))
        first.mode = Mode.HANG
        return [found.code for found in await filter_.check(MAIL, {})]

    with fake_clamd.run() as first, fake_clamd.run() as second:
        assert asyncio.run(story(make([at(first), at(second)], timeout=1.0)[0], first)) == ["clean"]


def test_of_two_clamds_one_may_be_killed_amid_the_load_and_every_mail_is_scanned() -> None:
    found: list[str] = []

    async def stream(filter_: Filter, kill: Callable[[], None]) -> None:
        async def mails(worker: int) -> None:
            for number in range(25):
                if (worker, number) == (0, 8):
                    await asyncio.to_thread(kill)
                (finding,) = await filter_.check(MAIL, {})
                found.append(finding.code)

        await asyncio.gather(*map(mails, range(8)))

    with clamd.run() as one, clamd.run() as other:
        filter_, _ = make([f"unix:{one.unix_socket}", f"unix:{other.unix_socket}"], clamd.EICAR)
        asyncio.run(stream(filter_, lambda: one.process.signal(signal.SIGKILL)))
    assert found == ["infected"] * 200


# --- what a scanner would not see in the message --------------------------------------------------------------------


def hiding(*payloads: bytes, missing: int = 0) -> tuple[Mail, Reader]:
    """A mail out of whose parts 1, 2, ... these were taken, and the file that holds them, short of some octets."""
    parts, end = [], 0
    for number, payload in enumerate(payloads, 1):
        parts.append(Part(str(number), stored=(end, end + len(payload))))
        end += len(payload)
    whole = b"".join(payloads)
    return replace(MAIL, content=Content(parts=(Part("0"), *parts))), Reader(whole[: len(whole) - missing])


def scan_hidden(place: str, mail: Mail, stored: Reader, **settings: object) -> list[Finding]:
    tools = Tools(None, None, "", lambda _: Reader(LETTER), None, None, lambda _: Reader(stored.getvalue()))  # type: ignore[arg-type]
    filter_ = Filter(Settings(sockets=(place,), **({"cache": 0.0} | settings)), tools)  # type: ignore[arg-type]
    return list(asyncio.run(filter_.check(mail, {})))


def test_what_was_taken_out_of_the_mail_is_scanned_by_itself_and_the_finding_names_the_part() -> None:
    with clamd.run() as real:
        findings = scan_hidden(at(real), *hiding(b"harmless", clamd.EICAR, b"", b"x" * 100_000, clamd.EICAR + b" "))
        assert [(one.code, one.part) for one in findings] == [("infected", "2"), ("infected", "5")]
        assert [one.code for one in scan_hidden(at(real), *hiding(b"harmless", b""))] == ["clean"]


def test_the_same_octets_in_two_parts_are_scanned_once_and_found_in_both() -> None:
    mail = replace(MAIL, content=Content(parts=(Part("1", stored=(0, 5)), Part("2", stored=(0, 5)))))
    with fake_clamd.run() as fake:
        assert [one.code for one in scan_hidden(at(fake), mail, Reader(b"12345"))] == ["clean"]
        assert [stream.data for stream in fake.streams] == [LETTER, b"12345"]
        fake.mode = Mode.LIMIT
        fake.stream_max_length = len(LETTER)
        mail, stored = hiding(b"x" * 100)
        mail = replace(mail, content=Content(parts=(*mail.content.parts, replace(mail.content.parts[1], path="2"))))
        found = scan_hidden(at(fake), mail, stored)
    assert [(one.code, one.part) for one in found] == [(ERROR, "1"), (ERROR, "2")]


def test_what_was_taken_out_and_is_not_whole_is_no_result() -> None:
    with fake_clamd.run() as fake, pytest.raises(Unreadable):
        scan_hidden(at(fake), *hiding(b"x" * 10, missing=1))


# --- verdicts that are known already ---------------------------------------------------------------------------------


class State:
    """The shared state, as a dictionary."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.fails = False

    async def get(self, key: str) -> str | None:
        self._demand()
        return self.kept.get(key)

    async def put(self, key: str, value: str, ttl: float) -> None:
        self._demand()
        assert ttl == 600.0
        self.kept[key] = value

    def _demand(self) -> None:
        if self.fails:
            raise Temporary("no state")


def cached(place: str, state: State, message: bytes = LETTER) -> Finding:
    """What a new process says, with the state that all share."""
    tools = Tools(None, state, "", lambda _: Reader(message), None, None, None)  # type: ignore[arg-type]
    (finding,) = asyncio.run(Filter(Settings(sockets=(place,)), tools).check(MAIL, {}))
    return finding


@pytest.mark.parametrize("mode", [Mode.OK, Mode.FOUND])
def test_the_same_octets_are_scanned_once_while_the_signatures_stay(mode: Mode) -> None:
    state = State()
    with fake_clamd.run(mode) as fake:
        assert cached(at(fake), state) == cached(at(fake), state)
        assert len(fake.streams) == 1
        cached(at(fake), state, LETTER + b"x")
        assert len(fake.streams) == 2


@pytest.mark.parametrize("version", [b"ClamAV 1.4.6\n", b"ClamAV 1.4.6//\n", b"COMMAND UNAVAILABLE\n", b""])
def test_where_the_version_does_not_name_the_signatures_nothing_is_kept(version: bytes) -> None:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readline() == b"nVERSION\n":
            writer.write(version)
        else:
            await reader.readuntil(b"\0\0\0\0")
            writer.write(b"stream: OK\n")

    state = State()
    with loop.serving(converse) as port:
        assert cached(f"127.0.0.1:{port}", state).code == "clean"
    assert not state.kept


def test_other_signatures_judge_anew() -> None:
    versions = iter([b"ClamAV 1/1/a\n", b"ClamAV 1/2/b\n", b"ClamAV 1/1/a\n"])
    streams: list[bytes] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readline() == b"nVERSION\n":
            writer.write(next(versions))
        else:
            streams.append(await reader.readuntil(b"\0\0\0\0"))
            writer.write(b"stream: OK\n")

    state = State()
    with loop.serving(converse) as port:
        assert [cached(f"127.0.0.1:{port}", state).code for _ in range(3)] == ["clean"] * 3
    assert len(streams) == 2


def test_no_failure_and_nothing_unscanned_by_accident_is_kept() -> None:
    state = State()
    with fake_clamd.run(Mode.DIE_AFTER) as fake:
        assert cached(at(fake), state).code == ERROR
    assert not state.kept


def test_a_cache_that_fails_or_holds_nonsense_makes_no_verdict() -> None:
    state = State()
    with fake_clamd.run(Mode.FOUND) as fake:
        cached(at(fake), state)
        state.kept = dict.fromkeys(state.kept, '"clean"')
        assert cached(at(fake), state).code == "infected"
        state.fails = True
        assert cached(at(fake), state).code == "infected"
    assert len(fake.streams) == 3


# --- several engines ------------------------------------------------------------------------------------------------


def icap_saying(reply: bytes) -> AbstractContextManager[int]:
    """An ICAP service that takes the mail and says *reply*."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (await reader.readuntil(b"\r\n\r\n")).startswith(b"OPTIONS"):
            writer.write(b'ICAP/1.0 200 OK\r\nMethods: RESPMOD\r\nService: Test\r\nISTag: "1"\r\n\r\n')
            return
        await reader.readuntil(b"\r\n0\r\n\r\n")
        writer.write(reply)

    return loop.serving(converse)


CLEAN = b"ICAP/1.0 204 No Content\r\n\r\n"
THREAT = b"ICAP/1.0 200 OK\r\nX-Infection-Found: Type=0; Resolution=0; Threat=Evil;\r\n\r\n"
BROKEN = b"ICAP/1.0 500 Server error\r\n\r\n"


@pytest.mark.parametrize(
    ("mode", "reply", "enough", "codes"),
    [
        (Mode.OK, CLEAN, "all", ["clean"]),
        (Mode.OK, THREAT, "all", ["infected"]),
        (Mode.FOUND, CLEAN, "all", ["infected"]),
        (Mode.FOUND, THREAT, "all", ["infected", "infected"]),
        (Mode.OK, BROKEN, "all", [ERROR]),
        (Mode.DIE_AFTER, CLEAN, "all", [ERROR]),
        (Mode.DIE_AFTER, THREAT, "all", ["infected"]),
        (Mode.DIE_AFTER, BROKEN, "all", [ERROR, ERROR]),
        (Mode.OK, BROKEN, "any", ["clean"]),
        (Mode.DIE_AFTER, CLEAN, "any", ["clean"]),
        (Mode.FOUND, BROKEN, "any", ["infected"]),
        (Mode.DIE_AFTER, BROKEN, "any", [ERROR, ERROR]),
    ],
)
def test_what_any_engine_finds_counts_and_what_one_cannot_tell_as_the_settings_say(
    mode: Mode, reply: bytes, enough: str, codes: list[str]
) -> None:
    with fake_clamd.run(mode) as fake, icap_saying(reply) as port:
        services = (IcapServices((f"icap://127.0.0.1:{port}/x",)),)
        filter_, _ = make([at(fake)], icap=services, enough=enough)
        findings = asyncio.run(filter_.check(MAIL, {}))
    assert [finding.code for finding in findings] == codes
    if codes == ["clean"] and enough == "all":
        assert findings[0].detail == "ClamAV 1.4.6/1/Sun Nov 1 00:00:00 2026; Test 1"


def test_a_mail_may_be_scanned_by_icap_alone() -> None:
    with icap_saying(CLEAN) as port:
        filter_, _ = make([], icap=(IcapServices((f"icap://127.0.0.1:{port}/x",)),))
        assert [one.code for one in asyncio.run(filter_.check(MAIL, {}))] == ["clean"]


def test_each_service_tells_how_it_is() -> None:
    dead = f"icap://127.0.0.1:{processes.free_port()}/x"
    with icap_saying(CLEAN) as port:
        alive = f"icap://127.0.0.1:{port}/x"
        filter_, _ = make([], icap=(IcapServices((alive, dead)), IcapServices((alive,), "REQMOD")))
        told = asyncio.run(filter_.services())
    assert told == [
        (alive, True, "Test 1"),
        (dead, False, "Connection refused"),
        (alive, False, "offers no REQMOD (answered 200)"),
    ]


@pytest.mark.parametrize("engine", [IcapServices(()), IcapServices(("icap://a/x",), preview=-1), IcapServices(("x",))])
def test_an_engine_that_could_never_scan_is_told_when_the_policy_loads(engine: IcapServices) -> None:
    with pytest.raises(ValueError):
        make([], icap=(engine,))

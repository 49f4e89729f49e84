"""Whatever any program sees in a mail is a part, and a scanner gets it."""

import re
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Content as Seen
from gateway.pipeline import views
from gateway.pipeline.content import parse
from gateway.pipeline.mime import suffix
from gateway.pipeline.tray import Tray
from gateway.stages import Content
from tests import tricks
from tests.peers import clamd
from tests.peers.clamd import EICAR

LIMITS = Content.Settings()
PROGRAM = b"MZ\x90\0\3\0\0\0" + bytes(range(256)) + b"This program cannot be run" + b"\0" * 100
TRICKS = [name for name, _ in tricks.tricks(EICAR)]


@pytest.fixture(scope="module")
def scanner() -> Iterator[clamd.Clamd]:
    with clamd.run() as running:
        yield running


def seen(mail: bytes) -> tuple[Seen, Tray]:
    tray = Tray()
    return parse(mail, LIMITS, tray), tray


def test_there_are_many_tricks():
    assert len(TRICKS) == len(set(TRICKS)) >= 100


@pytest.mark.parametrize("hidden", [EICAR, PROGRAM], ids=["eicar", "program"])
@pytest.mark.parametrize("name", TRICKS)
def test_what_a_trick_hides_is_a_part(name: str, hidden: bytes):
    content, tray = seen(dict(tricks.tricks(hidden))[name])
    if hidden is PROGRAM and name == "as it is":
        return  # a text that begins as a program does is shown as a text
    assert not content.unscannable
    assert any(hidden in tray.of(part, 1 << 20) for part in content.parts)


def test_what_a_trick_hides_the_scanner_sees_in_the_mail_or_gets_by_itself(scanner: clamd.Clamd):
    missed = []
    for name, mail in tricks.tricks(EICAR):
        content, tray = seen(mail)
        if not any(EICAR in tray.of(part, 1 << 20) for part in content.parts if part.path in tray.unseen):
            missed += [name] * (b"FOUND" not in scanner.scan(mail))
    assert missed == []


@pytest.mark.parametrize("missing", range(4))
def test_a_file_that_breaks_off_as_in_a_bounce_is_seen_in_one_way(missing: int):
    whole = tricks.mixed(tricks.TEXT, tricks.attached(PROGRAM))
    mail = tricks.mixed(
        tricks.TEXT,
        b"Content-Type: message/rfc822\r\n\r\n" + whole[: -200 - missing],
        mark=b"C",
        kind=b"multipart/mixed; boundary=C",
    )
    content, _ = seen(mail)
    assert "a multipart is not closed" in content.defects
    assert content.ambiguities == ()


def test_a_program_is_known_as_one_whatever_hides_it():
    for name, mail in tricks.tricks(PROGRAM):
        content, _ = seen(mail)
        assert name == "as it is" or any(part.sniffed == "application/x-dosexec" for part in content.parts), name


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Disposition: attachment; filename=letter.exe,x",
        b"Content-Disposition: attachment; filename=letter.exe(x)",
        b"Content-Disposition: attachment; filename=(x)letter.exe",
        b'Content-Disposition: attachment; filename=(x)"letter.exe"',
        b"Content-Disposition: attachment; filename=letter.exe x",
        b'Content-Disposition: attachment; filename=letter.exe"',
        b'Content-Disposition: attachment; filename=="letter.exe"',
        b"Content-Disposition;: attachment; filename=letter.exe",
        b'Content-Disposition \x0b: attachment; filename = "letter.exe"',
        b'Content-Disposition\r\n : attachment; filename="letter.exe"',
        b"Content-Disposition(x): attachment; filename*1=er.exe; filename*0=lett",
        b'Content-Disposition:: attachment; filename= "a\r\n  b.exe"',
        b"Content_Disposition: attachment; filename=letter.exe; filename*=us-ascii''letter.txt",
        b'Content-Disposition: attachment; filename="=?utf-7?q?letter+AC4-exe?="',
        b'Content-Disposition: attachment; filename="=?UTF-7?b?bGV0dGVyK0FDNC1leGU=?="',
        b'Content-Disposition: attachment; filename="=?ibm037?b?k4Wjo4WZS4WnhQ==?="',
        b'Content-Disposition: attachment; filename="=?utf-8?q?=3D=3Futf-8=3Fq=3Fletter=2Eexe=3F=3D?="',
        b"Content-Location: letter.exe",
        b"Content-Disposition: attachment; filename='letter.exe'",
        b"Content-Disposition: attachment; filename=letter.exe\x01",
        b"Content-Disposition: attachment; filename=letter.exe\x01 (x)",
        b'Content-Disposition: attachment;\r\n filename*0="'
        + b"a" * 900
        + b'";\r\n filename*1="'
        + b"b" * 900
        + b'.exe"',
    ],
)
@pytest.mark.parametrize("body", [b"QUJDREVGR0hJSktM\r\n", b"@echo off\r\n"])
def test_the_kind_of_name_that_others_see_is_seen(fields: bytes, body: bytes):
    encoding = tricks.B64 if body.startswith(b"Q") else b"Content-Transfer-Encoding: 7bit"
    content, _ = seen(tricks.mixed(tricks.TEXT, tricks.lines(tricks.BINARY, encoding, fields, b"", body)))
    assert "exe" in {suffix(part.filename) for part in content.parts}


@pytest.mark.parametrize("section", [b"QUJD" * 480, b"QUJD" * 10])
@pytest.mark.parametrize("name", [b"", b"; name=a.%d"])
def test_many_sections_cost_what_they_are_long(section: bytes, name: bytes):
    def cost(count: int) -> float:
        fields = [b"Content-Type: a/b" + (name % at if name else b"") + b"\r\n" + tricks.B64 for at in range(count)]
        mail = b"Content-Type : x\r\n\r\n" + b"".join(
            b"--x\r\n" + field + b"\r\n\r\n" + section + b"\r\n" for field in fields
        )
        began = time.thread_time()
        seen(mail)
        return time.thread_time() - began

    assert cost(1900) < 0.1 + 8 * cost(475)


def test_one_file_has_not_too_many_kinds_of_name():
    names = b"".join(b"Content-Foo: x; name=a.%d\r\n" % at for at in range(3000))
    content, _ = seen(b"Content-Type : x\r\n\r\n--x\r\n" + names + b"\r\n" + b"octets " * 100_000)
    assert "too many kinds of name" in content.unscannable


PIECES = st.sampled_from(
    [
        b"--b\r\n", b"--b--\r\n", b"--c\r\n", b"--c--\r\n", b"\r\n", b"\r\n", b" \r\n", b"Good day\r\n", b"TVqQAAMAAAAE\r\n", b"QUJD=\r\n",
        b"Content-Type: multipart/mixed; boundary=b\r\n", b'Content-Type: multipart/mixed; boundary="c"\r\n',
        b"Content-Type: multipart/mixed; boundary=b; boundary=c\r\n", b"Content-Type: application/octet-stream; name=a\r\n",
        b"Content-Type: text/plain\r\n", b"Content-Type: message/rfc822\r\n", b"Content-Transfer-Encoding: base64\r\n",
        b"Content-Transfer-Encoding: quoted-printable\r\n", b"Content-Transfer-Encoding : base64\r\n", b"no field\r\n",
        b'Content-Disposition: attachment; filename="a"\r\n', b"Subject: x\r\n", b"--bc\r\n", b"=4D=5A\r\n", b"=\r\n", b"\x0b",
        b"--b \r\n", b"begin 644 a\r\n", b"(x)", b";", b"multipart/mixed; boundary=b\r\n",
    ]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=25))
def test_nothing_that_others_see_is_passed_over(pieces):
    mail = b"".join(pieces)
    content, tray = seen(mail)
    ours = {digest(tray.of(part, 1 << 20)) for part in content.parts} | raw(mail, content)
    for reader in views.READERS.values():
        for one in views.read_by(reader, mail) or []:
            assert not one.is_file or digest(one.octets) in ours or content.unscannable


def digest(octets: bytes) -> bytes:
    return re.sub(rb"\s", b"", octets)


def raw(mail: bytes, content: Seen) -> set[bytes]:
    """The bodies as they stand there, for who does not decode them."""
    return {digest(mail[slice(*part.span)].partition(b"\r\n\r\n")[2]) for part in content.parts if part.span}

"""Mails that are made to keep a parser busy: each costs less than 2 s, and what exceeds a limit says which."""

import base64
import time
from collections.abc import Callable

import pytest

from gateway.pipeline.content import parse
from gateway.stages import Content
from tests import tricks

ODD = b"no field\r\n"


def nested(depth: int) -> bytes:
    return b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(depth))


def encoded(depth: int) -> bytes:
    mail = b"\r\nhi"
    for _ in range(depth):
        coded = base64.encodebytes(mail).replace(b"\n", b"\r\n")
        mail = b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n" + coded
    return mail


def winmail(depth: int) -> bytes:
    octets = b"MZ" * 100_000
    for _ in range(depth):
        octets = tricks.tnef(octets)
    return tricks.mixed(tricks.attached(octets))


EXCEEDS: dict[str, tuple[Callable[[], bytes], str]] = {
    "10,000 nested": (lambda: nested(10_000), "nested more than 20 deep"),
    "200,000 parts": (
        lambda: tricks.head(b"Content-Type: multipart/mixed; boundary=b") + b"--b\r\n\r\n" * 200_000,
        "500 parts",
    ),
    "20,000 parameters": (lambda: b"Content-Type: a/b" + b"; x=y" * 20_000 + b"\r\n\r\n", "50 parameters"),
    "20,000 sections": (
        lambda: b"Content-Type: a/b" + b"".join(b"; x*%d=y" % n for n in range(20_000)) + b"\r\n\r\n",
        "50 parameters",
    ),
    "10,000 encoded words": (lambda: b"Subject: " + b"=?utf-8?q?a?= " * 10_000 + b"\r\n\r\n", "1000 encoded words"),
    "20,000 fields": (lambda: b"A: b\r\n" * 20_000 + b"\r\n", "1000 fields"),
    "a header of 1 MB": (lambda: b"A: " + b"b" * (1 << 20), "larger than 262144 octets"),
    "10,000 messages in messages": (lambda: b"Content-Type: message/rfc822\r\n\r\n" * 10_000, "20 deep"),
    "30 encodings": (lambda: encoded(30), "20 deep"),
    "100,000 files in a text": (lambda: b"\r\n" + b"begin 644 x\r\n#0V%T\r\n`\r\nend\r\n" * 100_000, "500 parts"),
    "8 winmail.dat in one another": (lambda: winmail(8), "nested more than 3 deep"),
    "odd, a million lines of dashes": (lambda: ODD + b"\r\n" + b"--a\r\n" * 600_000, "too many lines"),
    "odd, 5 MB": (lambda: ODD + b"\r\n" + b"a line of a text as others are\r\n" * 160_000, "too large to be read"),
    "2 million paddings": (
        lambda: b"Content-Type: a/b\r\n" + tricks.B64 + b"\r\n\r\n" + b"A=" * 2_000_000,
        "padded in too many places",
    ),
}
FITS: dict[str, Callable[[], bytes]] = {
    "25 MB of base64": lambda: b"\r\n" + (b"A" * 76 + b"\r\n") * 320_000,
    "25 MB of base64 in an odd mail": lambda: (
        ODD + b"Content-Type: a/b\r\n" + tricks.B64 + b"\r\n\r\n" + (b"A" * 76 + b"\r\n") * 320_000
    ),
    "half a million files without octets": lambda: b"\r\n" + b"begin 644 a\r\n" * 500_000,
    "a million short lines": lambda: ODD + b"\r\n" + b"a\r\n" * 1_300_000,
    "200,000 paddings": lambda: b"Content-Type: a/b\r\n" + tricks.B64 + b"\r\n\r\n" + b"A=\r\n" * 200_000,
    "2,000 sections": lambda: ODD + b"\r\n" + b"--a\r\nContent-Type: a/b\r\n" * 1_999,
}


def timed(mail: bytes) -> str:
    began = time.process_time()
    content = parse(mail, Content.Settings())
    assert time.process_time() - began < 2.0
    return content.unscannable


@pytest.mark.parametrize("name", EXCEEDS)
def test_what_exceeds_a_limit_says_so_at_once(name: str):
    make, words = EXCEEDS[name]
    assert words in timed(make())


@pytest.mark.parametrize("name", FITS)
def test_what_fits_is_read_in_time(name: str):
    assert timed(FITS[name]()) == ""

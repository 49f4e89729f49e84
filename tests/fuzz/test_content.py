"""Mails and files, damaged in any way: whatever the parser is given, it says what it sees, and never raises."""

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.pipeline.content import parse
from gateway.pipeline.tray import Tray
from gateway.stages import Content
from tests import packed, tricks
from tests.fuzz.effort import examples
from tests.honest import honest

LIMITS = Content.Settings()
MAILS = [raw for _, raw in honest()]
FILES = [
    *(path.read_bytes() for path in sorted(packed.SAMPLES.iterdir()) if path.stat().st_size < 10_000),
    *(tricks.cms(MAILS[0], pieces=pieces) for pieces in (0, 30)),
    *(tricks.openpgp(b"MZ harmless", b"a.exe", packing=packing) for packing in range(4)),
    tricks.tnef(b"MZ harmless", mapi=True),
    packed.zipped({"a/b.txt": b"hello" * 50, "c.exe": packed.RUN}),
    packed.tarred({"a": b"hello"}, {"link": "/etc"}),
    packed.rar5(b"a.txt", b"hello", locked=True),
    packed.rar4(b"a.txt", b"hello"),
    packed.lha(b"a.txt", b"hello"),
    packed.cpio(b"a.txt", b"hello"),
    packed.rpm(b"a.txt", b"hello"),
]
NAMES = st.sampled_from(["a.bin", "a.zip", "a.iso", "a.lzma", "a.p7m", "a.gpg", "a.uue", "winmail.dat", "a.eml"])
PIECES = st.binary(max_size=4) | st.sampled_from(
    [
        *(b"\xff" * 4, b"\0" * 4, b"\x80\0\0\0", b"\r\n", b"--", b"PK\3\4", b"0\x80", b"=", b"=?utf-7?q?+AAA-?="),
        *(b"begin 644 a\r\n", b"=ybegin line=128 size=1 name=a\r\n", b"Content-Transfer-Encoding: base64\r\n"),
    ]
)


@st.composite
def damaged(draw: st.DrawFn, samples: list[bytes]) -> bytes:
    """One of *samples*, in which some places hold something else."""
    octets = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(1, 8))):
        at = draw(st.integers(0, len(octets)))
        octets[at : at + draw(st.sampled_from([0, 1, 4, 100]))] = draw(PIECES)
    return bytes(octets)


def read(raw: bytes) -> None:
    """Everything that is in *raw*, in little time."""
    tray, began = Tray(), time.process_time()
    for part in parse(raw, LIMITS, tray).parts:
        tray.of(part, 1 << 20)
    assert time.process_time() - began < LIMITS.cpu


@given(damaged(MAILS))
@settings(max_examples=examples(100), deadline=None)
def test_a_damaged_mail_is_read(raw: bytes) -> None:
    read(raw)


@given(damaged(FILES), NAMES)
@settings(max_examples=examples(200), deadline=None)
def test_a_damaged_file_is_read(octets: bytes, name: str) -> None:
    read(packed.mail(octets, name))

"""What stands in the octets of a signature: all of it, in every form in which programs write it, and nothing else."""

import io
import subprocess
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pipeline import cms
from gateway.pipeline.content import parse
from gateway.pipeline.sniff import CMS, sniff
from gateway.stages import Content
from tests import packed, tricks

LIMITS = Content.Settings()
MOST = 1 << 20
MAIL = b"Content-Type: text/plain\r\n\r\nGood day\r\n" * 20
CRLF = b"\r\n"


@pytest.mark.parametrize("pieces", [0, 1, 100, 1000])
def test_the_content_is_found_whole_and_in_pieces(pieces: int):
    message = tricks.cms(MAIL, pieces=pieces)
    assert sniff(message) == CMS
    assert cms.content(message, MOST) == MAIL


@pytest.mark.parametrize("length", [0, 10, 127, 128, 255, 256, 65535, 65536])
def test_a_message_is_known_and_read_whatever_its_length(length: int):
    message = tricks.cms(b"a" * length)
    assert sniff(message[:4096]) == CMS
    assert cms.content(message, MOST) == b"a" * length


@pytest.mark.parametrize("lost", [3, 100, 400, len(MAIL) + 4])
def test_one_that_breaks_off_is_torn_and_the_mail_is_ambiguous(lost: int):
    torn = tricks.cms(MAIL)[:-lost]
    with pytest.raises(cms.Torn):
        cms.content(torn, MOST)
    mail = tricks.head(b"Content-Type: application/pkcs7-mime", tricks.B64) + tricks.base64_of(torn)
    assert any("breaks off" in words for words in parse(mail, LIMITS).ambiguities)


@pytest.mark.parametrize("pieces", [0, 1000])
def test_a_signature_alone_holds_nothing_even_if_it_breaks_off(pieces: int):
    detached = tricks.cms(b"", pieces=pieces, detached=True)
    assert [cms.content(detached[: len(detached) - lost], MOST) for lost in range(2)] == [None] * 2


@pytest.mark.parametrize("octets", [b"Good day", b"0\x89\0\0\0\0\0\0\0\0\x03\x06\x01\x01", b"\0" * 20])
def test_what_only_says_that_it_is_signed_is_ambiguous(octets: bytes):
    mail = tricks.head(b"Content-Type: application/x-pkcs7-mime", tricks.B64) + tricks.base64_of(octets)
    assert parse(mail, LIMITS).ambiguities == ("a signed message (S/MIME) cannot be read",)


def test_what_is_compressed_holds_no_more_than_is_allowed():
    message = tricks.cms(tricks.zlib.compress(b"a" * MOST), tricks.COMPRESSED)
    assert cms.content(message, MOST) == b"a" * MOST
    with pytest.raises(cms.Torn):
        cms.content(message, MOST - 1)


def test_elements_without_a_length_in_each_other_are_read_once():
    deep = b"\4\1a"
    for _ in range(cms.MAX_DEPTH - 2):
        deep = tricks.ber(0x24, deep, open_ended=True)
    held = tricks.ber(0x30, tricks.ber(0x06, tricks.DATA), tricks.ber(0xA0, tricks.ber(0x04, MAIL)))
    message = tricks.ber(0x30, tricks.ber(0x02, b"\1"), deep * 1000, held)
    began = time.process_time()
    octets = tricks.ber(0x30, tricks.ber(0x06, tricks.SIGNED), tricks.ber(0xA0, message))
    assert cms.content(octets, MOST) == MAIL
    assert time.process_time() - began < 1


def test_elements_in_elements_without_end_are_torn():
    with pytest.raises(cms.Torn):
        cms.content(b"0\x80" * 100_000, MOST)


@given(st.binary(max_size=300), st.integers(0, 300))
def test_nothing_but_torn_is_raised(noise: bytes, at: int):
    whole = tricks.cms(MAIL[:100], pieces=10)
    with suppress(cms.Torn):
        assert isinstance(cms.content(whole[:at] + noise + whole[at + len(noise) :], MOST), bytes | None)


@pytest.mark.parametrize(
    "how",
    [
        "-sign -nodetach -binary",
        "-sign -nodetach -binary -stream -indef",
        "-digest_create -binary",
        "-data_create -binary",
    ],
)
def test_what_openssl_writes_is_read(how: str, tmp_path: Path):
    key, certificate, message, written = (tmp_path / name for name in ("key", "certificate", "message", "written"))
    message.write_bytes(MAIL)
    made = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {certificate} -subj /CN=a -days 1"
    subprocess.run(made.split(), check=True, capture_output=True)
    signer = f"-signer {certificate} -inkey {key}" if "-sign" in how else ""
    subprocess.run(f"openssl cms {how} {signer} -in {message} -outform DER -out {written}".split(), check=True)
    assert cms.content(written.read_bytes(), MOST) == MAIL


def test_a_signed_file_in_base64_once_more_keeps_its_name():
    octets = tricks.base64_of(tricks.cms(b"WScript.Echo(1)\r\n" * 5))
    names = [part.filename for part in parse(packed.mail(octets, "offer.js.p7m"), LIMITS).parts]
    assert names == ["", "offer.js.p7m", "offer.js.p7m", "offer.js"]


def test_a_signed_file_in_an_archive_is_opened():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("offer.exe.p7m", tricks.cms(b"MZ" + bytes(100)))
    mail = tricks.mixed(tricks.TEXT, tricks.attached(packed.getvalue()))
    assert "offer.exe" in {part.filename for part in parse(mail, LIMITS).parts}


def test_what_is_encrypted_is_sealed_and_no_more(tmp_path: Path):
    key, certificate, written = (tmp_path / name for name in ("key", "certificate", "written"))
    made = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {certificate} -subj /CN=a -days 1"
    subprocess.run(made.split(), check=True, capture_output=True)
    subprocess.run(f"openssl cms -encrypt -out {written} {certificate}".split(), input=MAIL, check=True)
    content = parse(written.read_bytes().replace(b"\n", CRLF), LIMITS)
    assert ([part.sealed for part in content.parts], content.ambiguities) == ([True], ())

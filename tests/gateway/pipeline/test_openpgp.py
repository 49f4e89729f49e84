"""What anybody can read of an OpenPGP message is found; what is encrypted, torn or none costs nothing and raises nothing."""

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pipeline import openpgp
from gateway.pipeline.content import parse
from gateway.pipeline.tray import Tray
from gateway.stages import Content
from tests import tricks

MOST = 1 << 20
FILE = b"MZ" + bytes(range(256)) * 40


@pytest.mark.parametrize("packing", [0, 1, 2, 3])
@pytest.mark.parametrize("pieces", [False, True])
def test_a_message_that_is_not_encrypted_gives_its_file(packing: int, pieces: bool) -> None:
    message = tricks.openpgp(FILE, b"a.exe", packing=packing, pieces=pieces)
    assert list(openpgp.files(message, MOST)) == [("a.exe", FILE)]
    assert next(openpgp.armoured(b"Good day\n" + tricks.armoured(message))).startswith(message)


@pytest.mark.parametrize("message", [b"", b"Good day", b"\x99\x01\x0c\x04" + bytes(99)])
def test_what_is_no_message_gives_nothing(message: bytes) -> None:
    assert list(openpgp.files(message, MOST)) == []


@pytest.mark.parametrize("message", [b"\xc1\x05\x03abcd\xd2\x05\x01abcd", b"\x85\x01\x0c\x03" + bytes(99)])
def test_what_is_encrypted_is_sealed(message: bytes) -> None:
    with pytest.raises(openpgp.Sealed):
        list(openpgp.files(message, MOST))


def test_a_message_that_unpacks_to_too_much_or_breaks_off_is_torn() -> None:
    for message in (tricks.openpgp(bytes(MOST * 2)), b"\xa3\x02no zlib"):
        with pytest.raises(openpgp.Torn):
            list(openpgp.files(message, MOST))
    nested = tricks.openpgp(b"x")
    for _ in range(openpgp.MAX_DEPTH + 1):
        nested = b"\xa3\x00" + nested
    with pytest.raises(openpgp.Torn):
        list(openpgp.files(nested, MOST))


def test_a_file_has_the_name_of_the_message_and_its_own() -> None:
    stored = tricks.openpgp(FILE, b"inner.exe")
    field = b"Content-Disposition: attachment; filename=outer.bat.gpg"
    mail = tricks.mixed(tricks.TEXT, tricks.attached(stored, tricks.BINARY, tricks.B64, field))
    names = [part.filename for part in parse(mail, Content.Settings(), Tray()).parts]
    assert names == ["", "outer.bat.gpg", "outer.bat", "inner.exe"]


def test_a_torn_message_makes_the_mail_ambiguous_and_an_encrypted_one_does_not() -> None:
    def ambiguities(octets: bytes) -> tuple[str, ...]:
        mail = tricks.head() + tricks.armoured(octets)
        return parse(mail, Content.Settings(), Tray()).ambiguities

    assert ambiguities(b"\xa3\x02no zlib" * 9) == ("a message of OpenPGP breaks off, or is none from some place on",)
    assert ambiguities(b"\x85\x01\x0c\x03" + bytes(range(256)) * 3) == ()


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda octets: tricks.openpgp(octets)[: len(octets) * 2]))
def test_no_octets_make_it_raise_anything_else(octets: bytes) -> None:
    with suppress(openpgp.Torn, openpgp.Sealed):
        assert sum(len(file.octets) for file in openpgp.files(octets, MOST)) <= MOST


@pytest.mark.parametrize(
    "text",
    [
        b"-----BEGIN PGP MESSAGE-----\n\nAA" * 100_000,
        b"-----BEGIN PGP MESSAGE-----\n" * 100_000,
        b"-----BEGIN PGP MESSAGE-----\n" + b"a b " * 500_000,
    ],
)
def test_long_texts_with_marks_are_read_in_linear_time(text: bytes) -> None:
    started = time.process_time()
    assert all(len(message) < 100 for message in openpgp.armoured(text))
    assert time.process_time() - started < 1

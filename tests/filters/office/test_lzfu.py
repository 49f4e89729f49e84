"""The rich text of mails, unpacked as specified; what breaks off ends there, and each step is counted."""

from contextlib import suppress

import pytest

from filters._office import lzfu
from filters._office.seen import Exhausted, Meter, Unreadable

HEAD = bytes(8) + b"LZFu" + bytes(4)


@pytest.mark.parametrize(
    ("packed", "text"),
    [  # both examples of MS-OXRTFCP 3
        (
            "2d0000002b0000004c5a4675f1c5c7a703000a00726370673132354232 0af32068656c0900206277 05b06c647d0a800fa0",
            b"{\\rtf1\\ansi\\ansicpg1252\\pard hello world}\r\n",
        ),
        ("1a0000001c0000004c5a4675e2d44b51410004205758595a0d6e7d010eb0", b"{\\rtf1 WXYZWXYZWXYZWXYZWXYZ}"),
    ],
)
def test_the_text_of_a_mail_is_unpacked_as_its_specification_says(packed: str, text: bytes) -> None:
    assert lzfu.unpacked(bytes.fromhex(packed), Meter(0, 0, 1000)) == text


def test_the_text_of_a_mail_costs_what_is_counted_whatever_it_says() -> None:
    bomb = bytes.fromhex("0000000000000000") + b"LZFu" + bytes(4)
    for octets in (b"\xff" * 4_000_000, b"\xff" + b"\x0d\x0f" * 2_000_000, b"\0" * 4_000_000):
        with suppress(Unreadable):
            assert len(lzfu.unpacked(bomb + octets, Meter(0, 0, 1_000_000))) < 1 << 23


def unpacked(octets: bytes) -> bytes:
    return lzfu.unpacked(octets, Meter(0, 0, 10_000))


def test_what_is_not_packed_is_as_it_is() -> None:
    assert unpacked(bytes(8) + b"MELA" + bytes(4) + rb"{\rtf1 x}") == rb"{\rtf1 x}"


@pytest.mark.parametrize("octets", [b"", HEAD, HEAD + b"\0", HEAD + b"\1", HEAD + b"\1\0"])
def test_what_has_nothing_in_it_is_empty(octets: bytes) -> None:
    assert unpacked(octets) == b""


def test_what_breaks_off_ends_there() -> None:
    whole = HEAD + b"\0{\\rtf1 x\0y}"
    for end in range(len(HEAD), len(whole)):
        assert unpacked(whole).startswith(unpacked(whole[:end]))
    assert unpacked(whole) == rb"{\rtf1 xy}"


def test_a_reference_that_overtakes_itself_repeats() -> None:
    at = len(lzfu._KNOWN)
    assert unpacked(HEAD + b"\2a" + (at << 4 | 8).to_bytes(2, "big")) == b"a" * 11


def test_a_reference_to_where_the_text_ends_is_its_end() -> None:
    at = len(lzfu._KNOWN) + 1
    assert unpacked(HEAD + b"\2a" + (at << 4).to_bytes(2, "big") + b"never") == b"a"


def test_each_step_is_counted() -> None:
    with pytest.raises(Exhausted):
        lzfu.unpacked(HEAD + b"\0" * 9 * 100, Meter(0, 0, 1000))


@pytest.mark.parametrize(
    ("head", "expected"), [(HEAD, True), (bytes(8) + b"MELA", True), (bytes(8) + b"lzfu", False), (b"", False)]
)
def test_such_texts_are_known_by_their_mark(head: bytes, expected: bool) -> None:
    assert lzfu.is_packed(head) is expected

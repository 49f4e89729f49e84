"""winmail.dat: its attachments by both ways in which Outlook writes them, and nothing of what strangers claim."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.pipeline import tnef
from tests import tricks

FILE = b"MZ\x90\0" + b"x" * 50


@pytest.mark.parametrize("mapi", [False, True])
def test_an_attachment_is_found_with_its_name(mapi: bool):
    assert list(tnef.files(tricks.tnef(FILE, mapi=mapi))) == [("letter.dat", FILE)]


@pytest.mark.parametrize("lost", [3, 20, 40])
def test_a_stream_that_breaks_off_gives_what_it_has_and_says_so(lost: int):
    files = tnef.files(tricks.tnef(FILE)[:-lost])
    first = next(files)
    assert first.name == "letter.dat"
    assert FILE.startswith(first.octets[:10])
    with pytest.raises(tnef.Torn):
        next(files)


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<I", 1 << 31),
        struct.pack("<IHHI", 1, 0x102, 0x3701, 1 << 31),
        struct.pack("<IHHII", 1, 0x102, 0x3701, 1, 1 << 31),
        struct.pack("<IHH", 1, 0x102, 0x8001) + b"\0" * 16 + struct.pack("<II", 1, 1 << 31),
        struct.pack("<IHH", 1, 0x777, 0x3701),
    ],
)
def test_a_length_is_believed_only_as_far_as_there_are_octets(data: bytes):
    stream = struct.pack("<IH", 0x223E9F78, 1) + struct.pack("<BII", 2, 0x69005, len(data)) + data + b"\0\0"
    with pytest.raises(tnef.Torn):
        list(tnef.files(stream))


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_no_stream_makes_the_reader_raise_anything_else(data):
    stream = bytearray(tricks.tnef(FILE, mapi=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 6))):
        stream[data.draw(st.integers(4, len(stream) - 1))] = data.draw(st.integers(0, 255))
    stream = stream[: data.draw(st.integers(4, len(stream)))]
    try:
        for file in tnef.files(bytes(stream)):
            assert len(file.octets) <= len(stream)
    except tnef.Torn:
        pass

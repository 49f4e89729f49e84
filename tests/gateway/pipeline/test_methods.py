"""What unpacks one file of a zip, and which word opens it."""

import bz2
import io
import lzma
import struct
import zlib

import pytest

from gateway.pipeline import methods

PLAIN = bytes(n * n & 0xFF for n in range(100_000))
PROPERTIES = bytes([93]) + struct.pack("<I", 1 << 16)


def _deflated() -> bytes:
    return zlib.compress(PLAIN, wbits=-15)


def _lzma(properties: bytes = PROPERTIES) -> bytes:
    """With the four octets and the properties before it (APPNOTE.TXT 5.8.8)."""
    coder = lzma.LZMACompressor(lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 16}])
    return struct.pack("<HH", 9, len(properties)) + properties + coder.compress(PLAIN) + coder.flush()


PACKED = {
    methods.DEFLATED: _deflated(),
    methods.BZIP2: bz2.compress(PLAIN),
    methods.LZMA: _lzma(),
    methods.XZ: lzma.compress(PLAIN),
}


@pytest.mark.parametrize(("method", "packed"), PACKED.items())
def test_what_was_packed_comes_back_piece_by_piece(method: int, packed: bytes) -> None:
    file = io.BytesIO(packed)
    stream = methods.stream(method, file)
    plain = b""
    while not stream.eof:
        piece = stream.decompress(file.read(500) if stream.needs_input else b"", 1000)
        if not piece and file.tell() == len(packed):  # LZMA without an end: its sizes stand elsewhere
            break
        assert len(piece) <= 1000
        plain += piece
    assert plain == PLAIN


def test_everything_that_is_unpacked_is_unpacked_by_something() -> None:
    assert {methods.STORED, *PACKED} == methods.UNPACKED
    assert methods.UNPACKED < methods.KNOWN
    with pytest.raises(ValueError, match="nobody here"):
        methods.stream(98, io.BytesIO())


@pytest.mark.parametrize(
    "properties", [bytes([93]) + struct.pack("<I", 65 << 20), bytes([225]) + struct.pack("<I", 1 << 16), PROPERTIES * 2]
)
def test_properties_that_cost_too_much_or_are_none_are_refused(properties: bytes) -> None:
    with pytest.raises(ValueError, match="no properties"):
        methods.stream(methods.LZMA, io.BytesIO(_lzma(properties)))


def test_octets_behind_the_last_block_are_told() -> None:
    stream = methods.Inflate()
    stream.decompress(_deflated() + b"more", len(PLAIN) + 1)
    assert stream.eof
    assert stream.rest


@pytest.mark.parametrize("strength", [b"", b"\0", b"\4"])
def test_no_word_opens_what_says_no_strength(strength: bytes) -> None:
    assert not methods.is_aes_key(io.BytesIO(bytes(40)), strength, b"")


def test_no_word_opens_a_header_that_breaks_off() -> None:
    assert not any(methods.is_pkware_key(io.BytesIO(bytes(11)), wanted, b"a") for wanted in range(256))
    assert [methods.is_pkware_key(io.BytesIO(bytes(12)), wanted, b"a") for wanted in range(256)].count(True) == 1

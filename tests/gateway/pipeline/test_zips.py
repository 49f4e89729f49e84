"""A zip by its directory and by its headers: what each tells, what packs it, and which key opens it."""

import io
import struct
import zipfile

import pytest

from gateway.pipeline import zips
from tests.packed import RUN, SAMPLES, Member, crafted, million, two, zipped


def opened(octets: bytes, most: int = 100) -> zips.Zip:
    return zips.opened(io.BytesIO(octets), most)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("size", [0, 1, 4096, 300_000])
def test_what_was_packed_is_unpacked(method: int, size: int) -> None:
    octets = bytes(n * n & 0xFF for n in range(size))
    found = opened(zipped({"a": octets}, method))
    assert found.read(found.entries[0], 1 << 20) == octets
    assert found.read(found.entries[0], 100) == octets[:100]
    assert found.differences == []


@pytest.mark.parametrize("name", ["ppmd.zip", "deflate64.zip"])
def test_what_cannot_be_unpacked_here_is_broken(name: str) -> None:
    found = opened((SAMPLES / name).read_bytes())
    with pytest.raises(zips.Broken):
        found.read(found.entries[0], 10)


@pytest.mark.parametrize("name", ["aes.zip", "pkware.zip"])
def test_the_key_is_told_from_others(name: str) -> None:
    found = opened((SAMPLES / name).read_bytes())
    assert found.entries[0].encrypted
    assert found.is_key(found.entries[0], b"Geheim12")
    assert sum(found.is_key(found.entries[0], b"%d" % number) for number in range(60)) < 5


def test_a_zip_behind_other_octets_is_one() -> None:
    found = opened(b"JUNK" * 9 + zipped({"a": b"hello"}))
    assert found.read(found.entries[0], 9) == b"hello"


def test_the_large_form_of_the_end_is_read() -> None:
    assert len(opened(million(50)).entries) == 50
    with pytest.raises(zips.TooMany):
        opened(million(101))


def test_files_that_lie_in_each_other_overlap() -> None:
    member = Member(b"a", b"x" * 100)
    assert opened(crafted([member, two(Member(b"b", b""), offset=40)])).overlapping
    assert not opened(crafted([member, Member(b"b")])).overlapping


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        (crafted([two(Member(b"a"), name=b"b")]), "two names"),
        (crafted([two(Member(b"a", b"x" * 9), size=3)]), "two sizes"),
        (crafted([two(Member(b"a"), method=8)]), "packed in one way"),
        (crafted([Member(b"a")], before=Member(b"b").header()), "does not name"),
        (crafted([Member(b"a")]) + crafted([Member(b"a")]), "two directories"),
        (crafted([Member(b"a", zipped({"b": RUN})[4:] + zipped({"c": b"x"}), 8)]), "ends before"),
    ],
)
def test_what_the_two_readings_differ_in_is_said(octets: bytes, words: str) -> None:
    assert any(words in difference for difference in opened(octets).differences)


def test_a_place_that_no_file_reaches_is_none() -> None:
    extra = b"\1\0\x08\0" + b"\xff" * 8
    found = opened(crafted([two(Member(b"a"), offset=0xFFFFFFFF, extra=extra)]))
    assert found.differences
    assert found.read(found.entries[0], 9) == b""


def test_a_size_that_is_larger_than_any_header_could_say_is_read() -> None:
    extra = struct.pack("<HHQ", 1, 8, 1 << 40)
    found = opened(crafted([two(Member(b"a"), size=0xFFFFFFFF, offset=3, extra=extra)]))
    assert [entry.size for entry in found.entries] == [1 << 40]
    assert "its directory names a file where there is none" in found.differences


def test_names_are_the_same_whichever_way_their_slashes_lean() -> None:
    assert opened(crafted([two(Member(b"a\\b"), name=b"a/b")])).differences == []


@pytest.mark.parametrize(
    "octets", [b"", b"PK", b"PK\3\4", b"PK\5\6", b"PK\5\6" + b"\xff" * 18, zipped({"a": b""})[:-1]]
)
def test_what_has_no_directory_is_broken(octets: bytes) -> None:
    with pytest.raises(zips.Broken):
        opened(octets)


def test_without_a_directory_the_headers_tell() -> None:
    torn = zipped({"a": b"hello", "b": b"x" * 999})[:-60]
    found = zips.loose(io.BytesIO(torn), 10)
    assert [entry.name for entry in found.hidden] == ["a", "b"]
    assert found.read(found.hidden[1], 9999) == b"x" * 999
    with pytest.raises(zips.TooMany):
        zips.loose(io.BytesIO(torn), 1)


def test_a_directory_that_is_encrypted_is_locked() -> None:
    plain = crafted([Member(b"a")])
    at = plain.index(b"PK\1\2")
    locked = plain[:at] + b"PK\6\x08" + b"\xaa" * (len(plain) - 22 - at - 4) + plain[-22:]
    with pytest.raises(zips.Locked):
        opened(locked)

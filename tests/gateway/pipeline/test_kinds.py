"""A file is of all the kinds that its octets show, and of one by its name only where they are silent."""

import bz2
import gzip
import io
import lzma
import time
import zlib

import pytest

from gateway.pipeline import kinds
from gateway.pipeline.kinds import Kind
from gateway.pipeline.sniff import PREFIX, sniff
from tests.packed import tarred, zipped

FILES = {"run.exe": b"MZ harmless"}
TAR, ZIP = tarred(FILES), zipped(FILES)
GZIP, BZIP2, XZ = gzip.compress(b"x" * 100, mtime=0), bz2.compress(b"x" * 100), lzma.compress(b"x" * 100)
LZMA = lzma.compress(b"x" * 100, lzma.FORMAT_ALONE)
ARJ_HEAD = b"header of an ARJ archive, thirty"
ARJ = b"\x60\xea" + len(ARJ_HEAD).to_bytes(2, "little") + ARJ_HEAD + zlib.crc32(ARJ_HEAD).to_bytes(4, "little")
TEXT = b"A text of several words.\r\n" * 20
SECTOR = 2048


def disc(*marks: bytes, before: bytes = b"") -> bytes:
    """An image with these descriptors behind its free sectors."""
    descriptors = b"".join((b"\1" + mark + b"\1").ljust(SECTOR, b"\0") for mark in marks)
    return before.ljust(16 * SECTOR, b"\0") + descriptors + bytes(16 * SECTOR)


def of(octets: bytes, name: str = "") -> list[Kind]:
    return kinds.of(io.BytesIO(octets), sniff(octets[:PREFIX]), name)


def names(octets: bytes, name: str = "") -> list[str]:
    return [kind.name for kind in of(octets, name)]


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (TAR, kinds.TAR),
        (GZIP, "application/gzip"),
        (BZIP2, "application/x-bzip2"),
        (XZ, "application/x-xz"),
        (LZMA, kinds.LZMA),
        (disc(b"CD001"), kinds.ISO),
        (ARJ, "application/x-arj"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(50), "application/x-7z-compressed"),
    ],
)
def test_a_file_is_what_its_first_octets_say(octets, expected):
    found = of(octets)
    assert found[0] == Kind(expected, found[0].certain)
    assert (found[0].start, found[0].stop) == (0, None)


@pytest.mark.parametrize(
    "octets", [b"", TEXT, b"MZ" + bytes(500), b"%PDF-1.7\n" + TEXT, b"\xff\xd8\xff\xe0" + bytes(99)]
)
def test_what_holds_nothing_is_of_no_kind(octets):
    assert of(octets, "a.bin") == []


@pytest.mark.parametrize(
    "octets",
    [
        b"\x60\xea and two octets are no proof",
        ARJ[:-1] + bytes([ARJ[-1] ^ 1]),
        b"\x60\xea" + (2601).to_bytes(2, "little") + bytes(2601) + zlib.crc32(bytes(2601)).to_bytes(4, "little"),
    ],
)
def test_two_octets_of_arj_without_their_checksum_are_no_proof(octets):
    assert of(octets) == []


def test_a_tar_is_known_by_its_checksum_whatever_its_mark_says():
    assert names(TAR[:257] + bytes(8) + TAR[265:]) == []
    old = bytearray(TAR[:257] + bytes(8) + TAR[265:])
    old[148:156] = b"%06o\0 " % (sum(old[:148]) + 8 * 32 + sum(old[156:512]))
    assert names(bytes(old)) == [kinds.TAR]


def test_a_file_may_be_of_several_kinds_at_once():
    assert names(disc(b"CD001", before=TAR)) == [kinds.TAR, kinds.ISO]
    assert names(disc(b"CD001", b"NSR02")) == [kinds.ISO, "application/x-udf-image"]
    assert names(GZIP + ZIP) == ["application/gzip", kinds.ZIP]


@pytest.mark.parametrize(
    ("archive", "kind"),
    [
        (ZIP, kinds.ZIP),
        (TAR, kinds.TAR),
        (b"Rar!\x1a\x07\1" + bytes(50), "application/x-rar"),
        (BZIP2, "application/x-bzip2"),
        (XZ, "application/x-xz"),
        (GZIP, "application/gzip"),
    ],
)
@pytest.mark.parametrize("before", [b"MZ" + bytes(998), TEXT], ids=["program", "text"])
def test_an_archive_behind_other_octets_says_where_it_begins(archive, kind, before):
    found = [one for one in of(before + archive, "a.zip") if one.name == kind]
    assert found
    assert found[0].start in {0, len(before)}  # of a zip, its own directory may say so
    cut = kinds.cut(io.BytesIO(before + archive), found[0]).read()
    assert cut.endswith(archive)


def test_what_begins_farther_behind_than_programs_look_is_not_looked_for():
    archive = b"7z\xbc\xaf\x27\x1c" + bytes(50)
    assert names(b"MZ" + bytes(kinds.WITHIN - 100) + archive) == ["application/x-7z-compressed"]
    assert names(b"MZ" + bytes(kinds.WITHIN) + archive) == []


def test_lookalikes_without_number_cost_little_and_hide_nothing_near():
    began = time.process_time()
    assert "application/gzip" in names(b"MZ" + b"\x1f\x8b\x08" * 900 + GZIP)
    of(b"MZ" + b"\x1f\x8b\x08" * 300_000)
    of(b"MZ" + b"ustar" * 200_000)
    assert time.process_time() - began < 2.0


@pytest.mark.parametrize(
    ("name", "expected"), [("a.iso", [kinds.ISO]), ("A.IMG ", [kinds.ISO]), ("a.tar", [kinds.TAR]), ("a.bin", [])]
)
def test_a_name_says_something_only_where_the_octets_are_silent(name, expected):
    assert [kind.name for kind in of(b"\0" * 600, name)] == expected
    assert all(not kind.certain for kind in of(b"\0" * 600, name))
    assert names(GZIP, name) == ["application/gzip"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, True) for name in ("a.zip", "A.TGZ", "a.r00", "a.001", "a.zip. ", "a.deb", "a.7z")),
        *((name, False) for name in ("a.txt", "zip", "", "a.zip.txt", "a.docx", "a.zi")),
    ],
)
def test_names_that_archives_have_are_known(name, expected):
    assert kinds.is_named(name) is expected


@pytest.mark.parametrize(
    ("first", "name", "worth"),
    [
        (b"PK\3\4", "", True),
        (b"\0\1\2", "", True),
        (TEXT, "a.txt", False),
        (TEXT, "a.zip", True),
        (TEXT, "a.docx", True),
        (b"%PDF-1.7\n", "a.pdf", False),
        (b"SZDD\x88\xf0\x27\x33", "", True),
    ],
)
def test_it_is_worth_while_to_ask_where_an_archive_can_be(first, name, worth):
    assert kinds.may_hold(first, sniff(first), [name]) is worth


def test_a_cut_file_has_its_own_beginning_and_end():
    file = kinds.cut(io.BytesIO(b"0123456789"), Kind("x", True, 2, 8))
    assert file.read() == b"234567"
    assert file.seek(0, io.SEEK_END) == 6
    assert file.read() == b""
    assert file.seek(-2, io.SEEK_END) == 4
    assert file.read(100) == b"67"
    file.seek(1)
    assert file.seek(2, io.SEEK_CUR) == 3
    assert file.read(1) == b"5"
    whole = io.BytesIO(b"x")
    assert kinds.cut(whole, Kind("x")) is whole


def test_what_is_opened_and_what_is_only_named_are_apart():
    assert kinds.FORMS.keys().isdisjoint(kinds.CLOSED)
    assert kinds.ZIP not in {*kinds.FORMS, *kinds.CLOSED}
    for octets in (TAR, GZIP, disc(b"CD001")):
        (kind, *_) = of(octets)
        assert kinds.forms(io.BytesIO(octets), kind)[0] == kinds.FORMS[kind.name]


def test_each_tree_of_a_disc_is_read():
    joliet = bytearray(disc(b"CD001", b"CD001"))
    joliet[17 * SECTOR] = 2
    assert len(kinds.forms(io.BytesIO(bytes(joliet)), Kind(kinds.ISO))) == 3
    assert len(kinds.forms(io.BytesIO(disc(b"CD001")), Kind(kinds.ISO))) == 1

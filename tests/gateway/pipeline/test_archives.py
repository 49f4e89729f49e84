"""What the parser sees in archives of every kind, and what it does about those that are made to harm."""

import asyncio
import bz2
import contextlib
import gzip
import io
import lzma
import resource
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from functools import cache
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Content, Mail, Part, Session
from gateway.pipeline import policy
from gateway.pipeline.content import parse
from gateway.pipeline.sandbox import Sandbox
from gateway.pipeline.tray import Tray
from gateway.stages import Content as ContentPolicy
from tests import packed, tricks
from tests.packed import RUN, SAMPLES, Member, crafted, mail, two, zipped

LIMITS = ContentPolicy.Settings()
MAIL = Mail("m1", Session(ip_address("192.0.2.1")))
TESTFILES = Path("/usr/share/clamav-testfiles")
PROGRAM = "application/x-dosexec"
HINT = "The password is Geheim12."


def look(octets: bytes, name: str = "a.bin", text: str = "hello", limits: ContentPolicy.Settings = LIMITS) -> Content:
    return parse(mail(octets, name, text), limits)


def inside(content: Content) -> list[Part]:
    """The parts within the attachment."""
    return [part for part in content.parts if part.path.startswith("2/")]


def unseen(octets: bytes, text: str = "hello") -> list[str]:
    tray = Tray()
    parse(mail(octets, "a.bin", text), LIMITS, tray)
    return tray.unseen


@pytest.mark.parametrize(
    "name",
    [
        "clam.7z",
        "clam.bin-be.cpio",
        "clam.bin-le.cpio",
        "clam.bz2.zip",
        "clam.cab",
        "clam.exe.bz2",
        "clam.newc.cpio",
        "clam.odc.cpio",
        "clam.tar.gz",
        "clam.zip",
    ],
)
def test_the_program_in_each_of_clamavs_containers_is_a_part(name: str) -> None:
    tray = Tray()
    (part,) = inside(parse(mail((TESTFILES / name).read_bytes(), name), LIMITS, tray))
    assert (part.filename, part.sniffed, part.unreadable) == ("clam.exe", PROGRAM, "")
    assert tray.of(part, 1000) == (TESTFILES / "clam.exe").read_bytes()


@pytest.mark.parametrize("name", ["clam.arj", "clam.exe.szdd", "clam.impl.zip", "clam.d64.zip"])
def test_containers_that_nobody_here_opens_are_named(name: str) -> None:
    assert any(part.unreadable for part in look((TESTFILES / name).read_bytes(), name).parts)


MADE: dict[str, Callable[[], bytes]] = {
    "rar 5": lambda: packed.rar5(b"run.exe", RUN),
    "rar 4": lambda: packed.rar4(b"run.exe", RUN),
    "lha": lambda: packed.lha(b"run.exe", RUN),
    "ar": lambda: packed.ar(b"run.exe", RUN),
    "cpio": lambda: packed.cpio(b"run.exe", RUN),
    "rpm": lambda: packed.rpm(b"run.exe", RUN),
    "tar": lambda: packed.tarred({"run.exe": RUN}),
    "tar.gz": lambda: gzip.compress(packed.tarred({"run.exe": RUN})),
    "tar.bz2": lambda: bz2.compress(packed.tarred({"run.exe": RUN})),
    "tar.xz": lambda: lzma.compress(packed.tarred({"run.exe": RUN})),
    "tar.lzma": lambda: lzma.compress(packed.tarred({"run.exe": RUN}), lzma.FORMAT_ALONE),
    "gz": lambda: gzip.compress(RUN),
    "Z": lambda: packed.compressed(RUN),
    "gz behind zeros": lambda: gzip.compress(packed.tarred({}) + packed.tarred({"run.exe": RUN})),
    "zip behind a picture": lambda: zipped({"run.exe": RUN}),
    **{
        file.name: file.read_bytes
        for file in sorted(SAMPLES.glob("*.[lipz7]*"))
        if file.stem not in {"locked", "nameless"}
    },
}
CLOSED = {"aes.zip", "pkware.zip", "deflate64.zip"}


@pytest.mark.parametrize("kind", [kind for kind in MADE if kind not in CLOSED])
def test_a_program_in_an_archive_of_each_kind_is_a_part(kind: str) -> None:
    tray = Tray()
    parts = parse(mail(MADE[kind](), f"a.{kind}".replace("a.disk.iso", "disk.iso")), LIMITS, tray).parts
    programs = [part for part in parts if part.sniffed == PROGRAM]
    assert len({part.filename.lower() for part in programs}) == 1  # a disc has it in several trees
    assert tray.of(programs[0], 2) == b"MZ"


@pytest.mark.parametrize("name", ["aes.zip", "pkware.zip", "locked.7z"])
def test_locked_files_are_named_and_encrypted(name: str) -> None:
    (part,) = inside(look((SAMPLES / name).read_bytes()))
    assert (part.filename, part.encrypted, part.sniffed) == ("run.exe", True, "")


@pytest.mark.parametrize(
    "archive",
    [
        (SAMPLES / "nameless.7z").read_bytes(),
        packed.rar5(b"a", RUN, nameless=True),
        packed.rar4(b"a", RUN, nameless=True),
        packed.rar5(b"a", RUN, locked=True),
    ],
)
def test_archives_that_are_locked_as_a_whole_are_encrypted_themselves(archive: bytes) -> None:
    assert look(archive).parts[1].encrypted


def test_a_locked_rar_4_file_is_encrypted() -> None:
    assert [part.encrypted for part in inside(look(packed.rar4(b"a", RUN, locked=True)))] == [True]


@pytest.mark.parametrize("name", ["aes.zip", "pkware.zip"])
@pytest.mark.parametrize(
    "text", [HINT, "Passwort: Geheim12", "<p>Use <b>Geheim12</b></p>", 'x "Geheim12" ' + "y " * 99]
)
def test_a_zip_is_opened_with_the_password_that_stands_in_the_mail(name: str, text: str) -> None:
    tray = Tray()
    (part,) = inside(parse(mail((SAMPLES / name).read_bytes(), name, text), LIMITS, tray))
    assert (part.encrypted, part.unlocked, part.sniffed) == (False, True, PROGRAM)
    assert tray.of(part, 11) == RUN
    assert tray.unseen == [part.path]


def test_the_subject_is_tried_as_well() -> None:
    (part,) = inside(parse(mail((SAMPLES / "aes.zip").read_bytes(), subject="Code Geheim12"), LIMITS))
    assert part.unlocked


def test_archives_in_what_was_unlocked_are_opened_and_unlocked_in_turn() -> None:
    locked = (SAMPLES / "pkware.zip").read_bytes()
    parts = inside(look(zipped({"in.zip": locked}), text=HINT))
    assert [(part.filename, part.unlocked) for part in parts] == [("in.zip", False), ("run.exe", True)]


def test_wrong_words_open_nothing_and_are_no_trouble() -> None:
    (part,) = inside(
        look((SAMPLES / "aes.zip").read_bytes(), text="password: " + " ".join(f"w{n}" for n in range(500)))
    )
    assert part.encrypted


def test_what_scanners_do_not_open_is_marked_for_them() -> None:
    assert unseen((SAMPLES / "exe.zst").read_bytes()) == ["2/a"]
    assert unseen((SAMPLES / "lzma.zip").read_bytes()) == ["2/run.exe"]
    assert unseen(zipped({"run.exe": RUN})) == []


def test_what_a_scanner_may_stop_before_is_marked_for_it() -> None:
    tar = packed.tarred({"run.exe": RUN})
    assert unseen(packed.tarred({"a": b"a"}) + tar) == ["2/a", "2/run.exe"]  # clamd stops at the zeros behind the first
    assert unseen(bz2.compress(RUN[:2]) + bz2.compress(RUN[2:])) == ["2/a"]  # and reads one stream of bzip2


def test_links_tell_where_they_point() -> None:
    (part,) = inside(look(packed.tarred({}, {"link": "/etc/passwd"})))
    assert part.link == "/etc/passwd"


def test_files_of_one_name_have_paths_of_their_own() -> None:
    archive = crafted([Member(data=octets) for octets in (b"one", b"MZ two", b"three")])
    tray = Tray()
    parts = inside(parse(mail(archive), LIMITS, tray))
    assert [part.path for part in parts] == ["2/a.txt", "2/a.txt (2)", "2/a.txt (3)"]
    assert [tray.of(part, 99) for part in parts] == [b"one", b"MZ two", b"three"]


def test_gzip_remembers_a_name_that_counts_too() -> None:
    buffer = io.BytesIO()
    with gzip.GzipFile("run.exe", "wb", fileobj=buffer) as file:
        file.write(RUN)
    assert [part.filename for part in inside(look(buffer.getvalue(), "letter.pdf.gz"))] == ["letter.pdf", "run.exe"]


A = Member()
READ_IN_TWO_WAYS = {
    "two names": crafted([two(Member(b"run.exe", RUN), name=b"run.txt")]),
    "two sizes": crafted([two(Member(b"a", b"hello" * 9), size=5, packed=5)]),
    "two ways to pack": crafted([two(A, method=8)]),
    "locked by its directory only": crafted([two(A, flags=1)]),
    "a file before the first": crafted([A], before=Member(b"run.exe", RUN).header()),
    "a file behind the last": crafted([A], behind=Member(b"run.exe", RUN).header()),
    "an archive behind an archive": zipped({"run.exe": RUN}) + zipped({"b.txt": b"x"}),
    "a file that is not there": crafted([A, two(Member(b"b", b""), offset=9999)]),
    "a file without a name in its header": crafted([two(A, name=b"")]),
    "a file that is shorter packed than not": crafted([Member(b"a", RUN * 9, packed=5)]),
    "octets between files": crafted([Member(b"a", b"x" * 90, size=5, packed=5), Member(b"b")]),
    "octets before the directory": crafted([Member(b"a", b"x" * 90, size=5, packed=5)]),
    "a directory that names nothing": A.header() + crafted([]),
}


@pytest.mark.parametrize("case", READ_IN_TWO_WAYS)
def test_an_archive_that_programs_read_in_two_ways_is_ambiguous(case: str) -> None:
    assert look(READ_IN_TWO_WAYS[case]).ambiguities


@pytest.mark.parametrize(
    "case", ["two names", "a file before the first", "a file behind the last", "an archive behind an archive"]
)
def test_what_only_the_headers_tell_is_a_part_for_the_scanner(case: str) -> None:
    tray = Tray()
    parts = parse(mail(READ_IN_TWO_WAYS[case]), LIMITS, tray).parts
    hidden = [part for part in parts if part.filename == "run.exe"]
    assert [(part.sniffed, part.path in tray.unseen) for part in hidden] == [(PROGRAM, True)]
    assert hidden[0].view


@pytest.mark.parametrize(
    "archive",
    [
        zipped({"a/": b"", "a/b.txt": b"x" * 5000}),
        zipped({"in.zip": zipped({"a": b"x" + b"PK\3\4" * 99})}, zipfile.ZIP_STORED),
        zipped({"in.zip": zipped({"a": bytes(range(256))}, zipfile.ZIP_STORED)}),
        zipped({"lügen.txt": b"x", "\u8a00.txt": b"y"}),
        zipped({}),
        (TESTFILES / "clam.zip").read_bytes(),
    ],
)
def test_honest_archives_are_read_in_one_way(archive: bytes) -> None:
    content = look(archive, "a.zip")
    assert (content.ambiguities, content.unscannable) == ((), "")
    assert not any(part.unreadable for part in content.parts)


@pytest.mark.parametrize(
    "archive",
    [
        zipped({"run.exe": RUN})[:-10],
        b"PK\3\4" + bytes(60),
        (TESTFILES / "clam.7z").read_bytes()[:-20],
        (TESTFILES / "clam.cab").read_bytes()[:200],
        (TESTFILES / "clam.tar.gz").read_bytes()[:100],
        b"7z\xbc\xaf\x27\x1c" + bytes(100),
        b"Rar!\x1a\x07\x00" + b"x" * 100,
        b"\x1f\x8b\x08" + b"x" * 100,
    ],
)
def test_a_broken_archive_is_unreadable_and_never_empty(archive: bytes) -> None:
    assert any(part.unreadable for part in look(archive).parts)


BEHIND = {
    "disc": gzip.decompress((SAMPLES / "disk.iso.gz").read_bytes()),
    "RAR": packed.rar5(b"run.exe", RUN),
    "7z": (SAMPLES / "plain.7z").read_bytes(),
    "zip": zipped({"run.exe": RUN}),
    "zip before other octets": zipped({"run.exe": RUN}) + bytes(9000),
    "zip without an end": Member(b"run.exe", RUN).header() + bytes(70_000),
    "tar": packed.tarred({"run.exe": RUN}),
}


@pytest.mark.parametrize(
    "before", [b"JUNK", b"\x89PNG\r\n\x1a\n" + bytes(900), b"GIF89a", b"MZ", b"\x5d\0\0", b"070701"]
)
@pytest.mark.parametrize("kind", BEHIND)
@pytest.mark.parametrize("name", ["a.rar", "a.png"])
def test_an_archive_behind_other_octets_is_opened(name: str, kind: str, before: bytes) -> None:
    assert any(part.sniffed == PROGRAM for part in inside(look(before + BEHIND[kind], name)))


@pytest.mark.parametrize(
    ("octets", "name"), [(b"070707 is my number", "a.txt"), (b"\x60\xea and more", "a.txt"), (b"hello", "a.iso")]
)
def test_texts_that_begin_like_an_archive_are_none(octets: bytes, name: str) -> None:
    content = look(octets, name)
    assert [part.unreadable for part in content.parts] == ["", ""]


@pytest.mark.parametrize("form", [lzma.FORMAT_ALONE, lzma.FORMAT_XZ])
def test_what_is_packed_and_torn_is_unreadable(form: int) -> None:
    assert look(lzma.compress(RUN * 9, form)[:-4], "run.exe.lzma").parts[1].unreadable


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_what_is_packed_behind_other_octets_is_opened(pack: Callable[[bytes], bytes]) -> None:
    assert [part.sniffed for part in inside(look(b"JUNK" * 99 + pack(RUN), "a.jpg"))] == [PROGRAM]


UNREAD = {
    "WIM": b"MSWIM\0\0\0" + bytes(200),
    "ZOO": b"ZOO 2.10 Archive.\x1a\0\0\xdc\xa7\xc4\xfd" + bytes(60),
    "StuffIt": b"SIT!\0\1" + bytes(60),
    "VHD": b"conectix" + bytes(504) + RUN,
    "VHD of a fixed size": bytes(4096) + b"conectix" + bytes(504),
    "VHDX": b"vhdxfile" + bytes(60),
    "VMDK": b"KDMV" + bytes(60),
    "DMG": bytes(4096) + b"koly" + bytes(508),
    "file system": b"\xeb\x3c\x90MSDOS5.0\0\2".ljust(510, b"\0") + b"\x55\xaa" + RUN,
    "table of partitions": bytes(446) + b"\x80\0\0\0\x0c".ljust(64, b"\0") + b"\x55\xaa" + RUN,
    "UDF": bytes(32768) + b"\0BEA01".ljust(2048, b"\0") + b"\0NSR02".ljust(2048, b"\0") + RUN,
    "SquashFS": b"hsqs" + bytes(90),
    "zstd behind a frame": b"\x50\x2a\x4d\x18\4\0\0\0abcd" + (SAMPLES / "exe.zst").read_bytes(),
    "MacBinary": b"\0\5a.exe".ljust(65, b"\0")
    + b"BINAmdos".ljust(18, b"\0")
    + b"\0\0\0\x64".ljust(45, b"\0")
    + RUN[:1] * 128,
    "lzop": b"\x89LZO\0\r\n\x1a\n" + bytes(60),
}


@pytest.mark.parametrize("kind", UNREAD)
@pytest.mark.parametrize("pack", [bytes, lambda octets: zipped({"a.dat": octets})])
def test_what_nobody_here_opens_is_named_by_its_octets_also_in_an_archive(
    kind: str, pack: Callable[[bytes], bytes]
) -> None:
    (words,) = (part.unreadable for part in look(pack(UNREAD[kind]), "a.dat").parts if part.unreadable)
    assert "nobody here can open" in words


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.REGTYPE, b"D"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_device_or_a_folder_with_octets_in_a_tar_is_unreadable(kind: bytes, pack: Callable[[bytes], bytes]) -> None:
    info = tarfile.TarInfo("run.exe/" if kind == tarfile.REGTYPE else "run.exe")
    info.type, info.size = kind, len(RUN)
    header = info.tobuf()
    (part,) = inside(look(pack(header + RUN.ljust(512, b"\0") + bytes(1024)), "a.dat"))
    assert part.unreadable


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_tar_with_a_broken_header_before_a_good_one_is_unreadable(pack: Callable[[bytes], bytes]) -> None:
    broken = bytearray(packed.tarred({"a.txt": b"x"})[:1024])
    broken[0] ^= 1
    assert any(part.unreadable for part in look(pack(bytes(broken) + packed.tarred({"run.exe": RUN})), "a.tar").parts)


@pytest.mark.parametrize("name", ["a.rar", "A.ZIP ", "a.br", "a.r01", "a.tgz"])
@pytest.mark.parametrize("octets", [b"\x0b\0\x80 harmless", b"\x89PNG\r\n\x1a\n" + bytes(90), b"\x5d\0\0\0"])
def test_what_only_bears_the_name_of_an_archive_is_unreadable(octets: bytes, name: str) -> None:
    assert look(octets, name).parts[1].unreadable


def test_a_tar_without_a_magic_number_is_one_by_its_checksum() -> None:
    tar = bytearray(packed.tarred({"run.exe": RUN}))
    tar[257:265] = bytes(8)
    tar[148:156] = b"%06o\0 " % (sum(tar[:148]) + 256 + sum(tar[156:512]))
    assert [part.sniffed for part in inside(look(bytes(tar), "a.dat"))] == [PROGRAM]


@pytest.mark.parametrize("front", ["zip", "tar", "7z", "gz"])
def test_an_archive_in_the_free_sectors_of_a_disc_hides_none_of_both(front: str) -> None:
    disc = gzip.decompress((SAMPLES / "disk.iso.gz").read_bytes())
    first = {"7z": (SAMPLES / "plain.7z").read_bytes(), "tar": packed.tarred({"a.js": b"x"})[:1024]} | {
        "zip": zipped({"a.js": b"x"}),
        "gz": gzip.compress(b"x"),
    }
    names = [part.filename for part in inside(look(first[front] + disc[len(first[front]) :], "a.dat"))]
    assert "run.exe" in names
    assert len(names) >= 3


@pytest.mark.parametrize("before", [b"From: a@b.example\r\nSubject: x\r\n\r\n", b"\x78\x9f\x3e\x22" + bytes(9)])
def test_an_archive_behind_a_mail_is_opened(before: bytes) -> None:
    assert "run.exe" in [part.filename for part in inside(look(before + zipped({"run.exe": RUN}), "a.zip"))]


def test_an_image_that_windows_reads_by_its_other_file_system_is_unreadable() -> None:
    image = bytearray(gzip.decompress((SAMPLES / "disk.iso.gz").read_bytes()))
    image[32769 + 8192 : 32769 + 8197] = b"NSR02"
    content = look(bytes(image), "disk.iso")
    assert "UDF" in content.parts[1].unreadable
    assert {part.filename for part in inside(content)} == {".", "run.exe", "RUN.EXE"}


def test_the_files_of_each_tree_of_a_disc_are_parts() -> None:
    image = gzip.decompress((SAMPLES / "disk.iso.gz").read_bytes())
    names = {part.filename for part in inside(look(image, "a.dat"))}
    assert {"run.exe", "RUN.EXE"} <= names  # Joliet, and plain ISO 9660


@cache
def bomb(name: str) -> bytes:
    return {
        "overlapping zip": lambda: packed.overlapping(250, 4 << 20),
        "a million empty files": lambda: packed.million(200_000),
        "42.zip": lambda: packed.nested(zipped({"0.dll": bytes(20 << 20)}), 5, 16),
        "dense leaves": lambda: packed.nested(zipped({"0.dll": bytes(9 << 20)}), 2, 16),
        "gzip of gzip of gzip": lambda: gzip.compress(gzip.compress(gzip.compress(bytes(30 << 20)))),
        "one dense gzip": lambda: gzip.compress(bytes(100 << 20), 1),
        "dense bzip2": lambda: bz2.compress(bytes(20 << 20)),
        "dense xz": lambda: lzma.compress(bytes(20 << 20), preset=0),
        "dense zip": lambda: zipped({"a": bytes(20 << 20)}),
        "headers without an end": lambda: Member(b"a", b"").header() * 100_000,
        "signatures without an end": lambda: b"PK\3\4" * 2_000_000,
        "ends without an end": lambda: b"PK\5\6" * 1_000_000,
        "a tar of 5000 files": lambda: packed.tarred({str(n): b"" for n in range(5000)}),
        "headers behind a picture": lambda: b"GIF89a" + Member(b"a", b"").header() * 100_000,
        "a million empty files behind a picture": lambda: b"GIF89a" + packed.million(40_000),
        "zips in zips": lambda: packed.nested(zipped({"a": b"x"}), 9),
    }[name]()


BOMBS = {
    "overlapping zip": "overlap",
    "a million empty files": "more than 2000 files",
    "42.zip": "more than 3 deep",
    "dense leaves": "200 times",
    "gzip of gzip of gzip": "200 times",
    "one dense gzip": "more than 67108864 octets",
    "dense bzip2": "200 times",
    "dense xz": "200 times",
    "dense zip": "200 times",
    "headers without an end": "more than 2000 files",
    "signatures without an end": "more than 2000 files",
    "ends without an end": "more than 2000 files",
    "a tar of 5000 files": "more than 2000 files",
    "headers behind a picture": "more than 2000 files",
    "a million empty files behind a picture": "more than 2000 files",
    "zips in zips": "more than 3 deep",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_unscannable_in_little_time_and_memory(name: str) -> None:
    letter = mail(bomb(name))
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    assert BOMBS[name] in parse(letter, LIMITS).unscannable
    assert time.process_time() - start < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


def test_what_is_dense_but_small_is_no_bomb() -> None:
    assert look(zipped({"a.csv": bytes(9 << 20)})).unscannable == ""


def test_archives_that_take_too_long_are_unscannable() -> None:
    tight = LIMITS.model_copy(update={"cpu": 0.000001})
    assert "takes too long" in look(gzip.compress(RUN), limits=tight).unscannable


def test_an_archive_that_holds_itself_ends() -> None:
    """The quine needs no digest: however often it comes, the depth ends it."""
    assert look(packed.nested(RUN, 1)).unscannable == ""
    assert "deep" in look(packed.nested(RUN, 50)).unscannable


SEEDS = [
    zipped({"a.txt": b"hello", "in.zip": zipped({"b": b"x"})}),
    packed.rar5(b"run.exe", RUN),
    packed.rar4(b"run.exe", RUN),
    packed.lha(b"run.exe", RUN),
    packed.rpm(b"run.exe", RUN),
    packed.tarred({"a": b"x"}),
    gzip.compress(packed.cpio(b"a", b"x")),
    *(path.read_bytes() for path in sorted(SAMPLES.iterdir())),
    *(TESTFILES.joinpath(name).read_bytes() for name in ("clam.7z", "clam.cab", "clam.zip", "clam.d64.zip")),
]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 1 << 20), st.binary(max_size=6)), max_size=8), st.data()
)
def test_no_mutated_archive_stops_the_parser(
    seed: bytes, changes: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    octets = bytearray(seed)
    for at, change in changes:
        octets[at % len(octets) : at % len(octets) + len(change)] = change
    stop = data.draw(st.integers(0, len(octets)))
    tray = Tray()
    content = parse(mail(bytes(octets[: stop or None]), "a.zip", HINT), LIMITS, tray)
    assert len({(part.path, part.filename) for part in content.parts}) == len(content.parts)
    for part in content.parts:
        assert len(tray.of(part, 5000)) <= 5000


def test_in_a_confined_worker_archives_are_opened_as_outside() -> None:
    letters = [mail(make(), "disk.iso" if kind.startswith("disk") else "a.bin", HINT) for kind, make in MADE.items()]

    async def run() -> list[Content]:
        sandbox = await Sandbox(policy.load(None, None), 1).start()
        try:
            return [await scanned(sandbox, letter) for letter in letters]
        finally:
            await sandbox.close()

    for letter, content in zip(letters, asyncio.run(run()), strict=True):
        outside = [(part.path, part.sniffed, part.unreadable, part.unlocked) for part in parse(letter, LIMITS).parts]
        assert [(part.path, part.sniffed, part.unreadable, part.unlocked) for part in content.parts] == outside
        assert content.unscannable == ""


async def scanned(sandbox: Sandbox, letter: bytes) -> Content:
    with tempfile.TemporaryFile() as file:
        file.write(letter)
        file.flush()
        answer = await sandbox.scan(MAIL, file)
    with answer.taken or contextlib.nullcontext():
        return answer.content


@pytest.mark.parametrize(
    "pack",
    [
        lambda letter: zipped({"a.eml": letter}),
        lambda letter: packed.tarred({"a.eml": letter}),
        gzip.compress,
        lambda letter: zipped({"a": letter}),
    ],
)
def test_a_mail_in_an_archive_is_read_as_a_mail(pack: Callable[[bytes], bytes]) -> None:
    content, tray = look_on(pack(mail(zipped({"run.exe": RUN}), "b.zip")))
    (part,) = [part for part in content.parts if part.sniffed == PROGRAM]
    assert part.filename == "run.exe"
    assert tray.of(part, 100) == RUN
    assert len({part.path for part in content.parts}) == len(content.parts)


def test_files_of_a_winmail_dat_in_an_archive_are_parts() -> None:
    for mapi in (False, True):
        content, tray = look_on(zipped({"winmail.dat": tricks.tnef(RUN, mapi=mapi)}))
        (part,) = [part for part in content.parts if part.filename == "letter.dat"]
        assert (part.sniffed, tray.of(part, 100)) == (PROGRAM, RUN)
        assert part.path in tray.unseen


def test_a_file_with_the_name_of_a_part_of_a_mail_beside_it_hides_nothing() -> None:
    content, tray = look_on(zipped({"a.eml.2": b"", "a.eml": mail(RUN, "run.exe"), "a.eml.1": b""}))
    (part,) = [part for part in content.parts if part.filename == "run.exe"]
    assert tray.of(part, 100) == RUN


def test_archives_in_mails_in_archives_are_as_deep_as_if_the_mails_were_not_there() -> None:
    letter = mail(RUN, "run.exe")
    for _ in range(3):
        letter = mail(zipped({"a.eml": letter}), "a.zip")
    assert look_on(zipped({"a.eml": letter}))[0].unscannable == "archives are nested more than 3 deep"
    assert any(part.sniffed == PROGRAM for part in parse(letter, LIMITS).parts)


def look_on(octets: bytes) -> tuple[Content, Tray]:
    tray = Tray()
    return parse(mail(octets), LIMITS, tray), tray

"""The binding to libarchive: what it gives, and that it asks for nothing but what it is given."""

import gzip
import io
import subprocess
import sys
from functools import partial

import pytest

from gateway.pipeline import libarchive
from gateway.pipeline.libarchive import Broken, opened
from tests.packed import RUN, SAMPLES, rar5, tarred


def names(octets: bytes, formats: tuple[str, ...], packing: str = "") -> list[str]:
    with opened(io.BytesIO(octets), formats, packing) as entries:
        return [entry.name for entry in entries]


def test_entries_come_in_order_with_what_they_hold() -> None:
    octets = tarred({"a": b"x" * 200_000, "b/c": RUN}, {"d": "a"})
    with opened(io.BytesIO(octets), ("tar",)) as entries:
        held = [(entry.name, entry.link, b"".join(iter(partial(entry.read, 70_000), b""))) for entry in entries]
    assert held == [("a", "", b"x" * 200_000), ("b/c", "", RUN), ("d", "a", b"")]


def test_one_layer_is_taken_off_and_no_more() -> None:
    twice = gzip.compress(gzip.compress(b"MZ"))
    with opened(io.BytesIO(twice), ("raw",), "gzip") as entries:
        assert next(entries).read(2) == b"\x1f\x8b"


def test_other_formats_than_those_asked_for_are_not_read() -> None:
    with pytest.raises(Broken):
        names(rar5(b"a", RUN), ("tar",))


@pytest.mark.parametrize("octets", [b"", b"x", (SAMPLES / "plain.7z").read_bytes()[:60]])
def test_what_is_broken_is_told(octets: bytes) -> None:
    with pytest.raises(Broken):
        names(octets, ("7zip",))


def test_a_file_that_fails_is_broken_and_nothing_passes_through_c() -> None:
    class Failing(io.BytesIO):
        def read(self, _: int | None = -1, /) -> bytes:
            raise ZeroDivisionError

    with pytest.raises(Broken), opened(Failing(b"x"), ("tar",)) as entries:
        next(entries)


def test_behind_its_deadline_nothing_is_read() -> None:
    with pytest.raises(Broken), opened(io.BytesIO(tarred({"a": b"x"})), ("tar",), deadline=0.0) as entries:
        next(entries)


def test_archives_can_be_open_within_each_other() -> None:
    with opened(io.BytesIO(tarred({"a": tarred({"b": RUN})})), ("tar",)) as outer:
        inner = io.BytesIO(next(outer).read(1 << 16))
        with opened(inner, ("tar",)) as entries:
            assert next(entries).name == "b"
        assert list(outer) == []


def test_where_there_is_no_libarchive_every_archive_is_broken() -> None:
    code = (
        "import io; from gateway.pipeline import libarchive as l; l.LIBRARY = 'libnowhere.so'\n"
        "try:\n    l.opened(io.BytesIO(b''), ('tar',)).__enter__()\n"
        "except l.Broken:\n    print('broken')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "broken\n"


def test_the_library_is_here() -> None:
    assert libarchive.prepare() is not None

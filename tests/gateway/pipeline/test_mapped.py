"""A large message in memory a window at a time: the same octets, the same finds, and little of it there at once."""

import mmap
import os
import random
from pathlib import Path

import pytest

from gateway.pipeline import mapped
from gateway.pipeline.content import parse
from gateway.pipeline.mapped import Passing
from gateway.stages import Content

PAGE = mmap.PAGESIZE


def file_of(content: bytes) -> int:
    fd = os.memfd_create("test")
    os.write(fd, content)
    return fd


@pytest.fixture
def small_windows(monkeypatch):
    monkeypatch.setattr(mapped, "WINDOW", PAGE)


def test_a_search_finds_what_bytes_would_find_wherever_it_begins_and_ends(small_windows):
    chance = random.Random(3)
    content = bytes(chance.choices(b"ab\r\n", k=5 * PAGE + 77))
    with mapped.mapped(file_of(content)) as data:
        assert isinstance(data, Passing)
        for _ in range(500):
            start, end = sorted(chance.choices(range(len(content) + 5), k=2))
            at = chance.randrange(len(content) - 12)
            wanted = content[at : at + chance.randrange(1, 12)]
            assert data.find(wanted, start, end) == content.find(wanted, start, end)
            assert data.find(wanted, start) == content.find(wanted, start)
        for border in range(PAGE, 5 * PAGE, PAGE):
            assert data.find(content[border - 30 : border + 30]) == content.find(content[border - 30 : border + 30])


def test_what_a_search_has_passed_is_no_longer_in_memory():
    with mapped.mapped(file_of(b"x" * (40 << 20) + b"end")) as data:
        before = resident()
        assert data.find(b"end") == 40 << 20
        assert resident() - before < 4 << 20
        assert data[: 1 << 10] == b"x" * 1024


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def test_a_parsed_message_is_the_same_by_windows_and_whole(small_windows):
    lines = b"begin 644 a.exe\r\n#86)C\r\nend\r\n" + b"word " * 15 + b"\r\n"
    parts = b"".join(b"--b\r\nContent-Type: text/plain\r\n\r\n" + lines * number for number in range(1, 90))
    message = b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n' + parts + b"--b--\r\n"
    limits = Content.Settings(archive_members=5000)
    with mapped.mapped(file_of(message)) as data:
        assert isinstance(data, Passing)
        seen = parse(data, limits)
    assert len(seen.parts) > 1000
    assert seen == parse(message, limits)


def test_an_empty_file_has_no_octets():
    with mapped.mapped(file_of(b"")) as data:
        assert data == b""

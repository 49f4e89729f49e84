"""Base64 that is decoded where it is read means what it means when it is decoded at once."""

import base64
import binascii
import io
import random
import zipfile

import pytest

from gateway.pipeline import content, decoded
from gateway.pipeline.content import parse
from gateway.stages import Content


def whole(raw, start=0):
    return io.BufferedReader(decoded.base64(raw, start, len(raw))).read()


@pytest.fixture
def small_portions(monkeypatch):
    monkeypatch.setattr(decoded, "PORTION", 100)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 56, 57, 58, 74, 75, 76, 1000, 5000])
def test_whatever_its_size_all_of_it_is_there(small_portions, size):
    octets = random.Random(size).randbytes(size)
    assert whole(base64.encodebytes(octets).replace(b"\n", b"\r\n")) == octets
    assert whole(base64.b64encode(octets)) == octets
    assert whole(b"before" + base64.b64encode(octets), len(b"before")) == octets


def test_characters_outside_the_alphabet_are_passed_over_and_a_torn_end_is_dropped(small_portions):
    chance = random.Random(5)
    for _ in range(200):
        raw = bytes(chance.choices(b"ABCDabcd0123+/ \t\r\n-!", k=chance.randrange(700)))
        kept = bytes(one for one in raw if one in b"ABCDabcd0123+/")
        kept = kept[: len(kept) - (len(kept) % 4 == 1)]
        assert whole(raw) == binascii.a2b_base64(kept + b"=" * (-len(kept) % 4))


def test_it_can_be_read_from_anywhere(small_portions):
    octets = random.Random(1).randbytes(3000)
    raw = base64.encodebytes(octets)
    file = io.BufferedReader(decoded.base64(raw, 0, len(raw)), 64)
    for at in random.Random(2).choices(range(3100), k=300):
        assert file.seek(at) == at
        assert file.read(40) == octets[at : at + 40]
    assert file.seek(-5, io.SEEK_END) == 2995
    assert file.read() == octets[-5:]


def test_what_is_no_base64_at_all_is_not_read_for_ever(small_portions):
    with pytest.raises(ValueError, match="no base64"):
        whole(b"A" + b"-" * 1000)


def test_a_large_archive_shows_the_same_parts_as_a_small_one(monkeypatch):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(20):
            archive.writestr(f"{number}.exe", b"MZ" + random.Random(number).randbytes(9_000))
    head = b"Content-Type: application/zip; name=a.zip\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    message = head + base64.encodebytes(packed.getvalue()).replace(b"\n", b"\r\n")
    at_once = parse(message, Content.Settings())
    monkeypatch.setattr(content, "LARGE", 1000)
    assert parse(message, Content.Settings()) == at_once
    assert len(at_once.parts) == 21
    broken = parse(head + b"UEsDBA" + b"-" * 200_000, Content.Settings())
    assert "says that it is base64" in broken.unscannable

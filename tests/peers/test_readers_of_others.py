"""No reader of others sees a file that we do not see, or hold: our tricks, and hundreds of mails by a grammar."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.model import Content as Read
from gateway.pipeline.content import parse
from gateway.pipeline.mime import suffix
from gateway.pipeline.tray import Tray
from gateway.smtp.data import Chunked
from gateway.stages import Content
from tests import grammar, tricks
from tests.peers import readers
from tests.peers.readers import Seen

HIDDEN = b"MZ\x90\0\3\0\0\0" + bytes(range(256)) + b"This program cannot be run, for it is none" + b"\0" * 50
MAILS = [*dict(tricks.tricks(HIDDEN)).values(), *(grammar.mail(number, HIDDEN) for number in range(300))]
OFTEN = {"munpack": 100, "ripmime": 250, "mime_tools": 200}
"""In so many mails at least each reader sees what is hidden."""


def squeezed(octets: bytes) -> bytes:
    """Without white space: readers make the ends of lines their own."""
    return re.sub(rb"\s", b"", octets)


def read(mail: bytes) -> tuple[Read, bool]:
    """What we see, and whether what is hidden is a part."""
    tray = Tray()
    content = parse(mail, Content.Settings(), tray)
    return content, any(squeezed(HIDDEN) in squeezed(tray.of(part, 1 << 20)) for part in content.parts)


def is_missed(mail: bytes, seen: Sequence[Seen]) -> bool:
    """Whether one of *seen* is what is hidden, and we neither see it nor say that readers differ."""
    content, found = read(mail)
    shown = [one for one in seen if squeezed(HIDDEN) in squeezed(one.octets)]
    if not shown or content.ambiguities or content.unscannable:
        return False
    told = any(part.sniffed == "application/x-dosexec" or suffix(part.filename) == "exe" for part in content.parts)
    return not found or (any(suffix(one.name) == "exe" for one in shown) and not told)


@pytest.mark.parametrize("number", range(0, 300, 10))
def test_a_mail_by_the_grammar_passes_the_door(number: int):
    content = Chunked(10_000_000, 200_000)
    assert content.feed(grammar.mail(number, HIDDEN)) == grammar.mail(number, HIDDEN)
    assert content.fault is None


@pytest.fixture(scope="module")
def mails(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("mails")
    paths = [folder / f"{number}.eml" for number in range(len(MAILS))]
    for path, mail in zip(paths, MAILS, strict=True):
        path.write_bytes(mail)
    return paths


@pytest.mark.parametrize("reader", readers.READERS)
def test_what_a_reader_sees_we_see_or_hold(reader: str, mails: list[Path], tmp_path: Path):
    seen = list(readers.READERS[reader](mails, tmp_path))
    assert len(seen) == len(mails)
    assert sum(any(squeezed(HIDDEN) in squeezed(one.octets) for one in files) for files in seen) >= OFTEN[reader]
    assert [mail.name for mail, files in zip(mails, seen, strict=True) if is_missed(mail.read_bytes(), files)] == []

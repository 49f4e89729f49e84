"""The messages that the benchmark sends: real mail where the corpus is at hand, made-up mail of like sizes otherwise.

A seed names one sample for ever. What RFC 5321 or 5322 forbids on the wire (NUL, lines over 998 octets) is left out,
because one server would refuse it and the next would not.
"""

import csv
import io
import os
import random
import re
import shutil
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ARCHIVE = "corpora/dev.tar.zst"
WINDOW = 2**27  # octets of zstd window that the archive needs
MAX_LINE = 998  # octets without CRLF (RFC 5322 2.1.1)
MAX_SIZE = 5_000_000
PERCENTILES = ((0, 400), (5, 900), (25, 2_000), (50, 4_000), (75, 8_500), (90, 22_000), (95, 45_000), (99, 170_000))
"""Sizes in the corpus, for mail that is made up: percent of all messages that are smaller, octets."""
LARGEST = 900_000


@dataclass(frozen=True)
class Sample:
    """Messages as on the wire before dot-stuffing: CRLF line ends, the last one included."""

    origin: str
    messages: Sequence[bytes]

    @property
    def mean_size(self) -> float:
        """Octets."""
        return sum(map(len, self.messages)) / len(self.messages)


def sample(count: int, seed: int) -> Sample:
    """*count* messages, each source and label of the corpus with its share."""
    archive = shared() / ARCHIVE
    if not archive.exists():
        generated = random.Random(seed)
        return Sample(f"made-up mail ({archive} is not there)", [_made_up(generated) for _ in range(count)])
    folder = unpacked(archive)
    messages = list(_real(folder, count, seed))
    return Sample(f"{len(messages)} messages of {archive.name}, seed {seed}", messages)


def shared() -> Path:
    """The folder of shared material: $GATEPOST_SHARED, or the one beside the repository."""
    beside = Path(__file__).resolve().parents[3] / "shared"
    return Path(os.environ.get("GATEPOST_SHARED", beside))


def unpacked(archive: Path) -> Path:
    """The folder of the unpacked *archive*, kept under the system's temporary folder for the next run."""
    import zstandard  # noqa: PLC0415 - made-up mail needs no such package

    cache = Path(tempfile.gettempdir()) / f"gatepost-corpus-{os.getuid()}-{archive.stat().st_size}"
    if cache.exists():
        return cache
    new = Path(tempfile.mkdtemp(prefix="gatepost-corpus-new-"))
    try:
        with archive.open("rb") as packed:
            stream = zstandard.ZstdDecompressor(max_window_size=WINDOW).stream_reader(packed)
            with tarfile.open(fileobj=io.BufferedReader(stream, 1 << 20), mode="r|") as tar:
                tar.extractall(new, filter="data")
        new.rename(cache)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return cache


def _real(folder: Path, count: int, seed: int) -> Iterator[bytes]:
    """Walk all messages in an order that keeps the shares at every length, and yield the first *count* usable ones."""
    left = count
    index = next(folder.rglob("index.tsv"))
    for path in _in_order(index, seed):
        message = on_the_wire((index.parent / path).read_bytes())
        if left and usable(message):
            left -= 1
            yield message
        if not left:
            return


def _in_order(index: Path, seed: int) -> list[str]:
    """Each stratum (label and source) is shuffled, then laid out evenly from 0 to 1: any start holds all shares."""
    strata = defaultdict(list)
    with index.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            strata[row["label"], row["source"]].append(row["path"])
    shuffle = random.Random(seed)
    placed = []
    for _, paths in sorted(strata.items()):
        paths.sort()
        shuffle.shuffle(paths)
        offset = shuffle.random()
        placed += [((number + offset) / len(paths), path) for number, path in enumerate(paths)]
    return [path for _, path in sorted(placed)]


def on_the_wire(message: bytes) -> bytes:
    """CRLF line ends everywhere, and without the mbox line that some sources begin with."""
    message = re.sub(rb"\AFrom [^\r\n]*\r?\n", b"", message)
    message = re.sub(rb"\r\n|\r|\n", b"\r\n", message)
    return message if message.endswith(b"\r\n") else message + b"\r\n"


def usable(message: bytes) -> bool:
    """Whether every server would take it."""
    return len(message) < MAX_SIZE and b"\0" not in message and max(map(len, message.split(b"\r\n"))) <= MAX_LINE


def _made_up(chance: random.Random) -> bytes:
    """A mail with a plain and an HTML part, or with an attachment where it is large."""
    size = _size(chance)
    text = _words(chance, min(size, 20_000))
    head = (
        f"From: Writer {chance.randrange(1000)} <writer@load.example>\r\nTo: reader@sink.example\r\n"
        f"Subject: {' '.join(chance.choices(WORDS, k=5))}\r\nDate: Mon, 06 Jan 2025 10:26:45 +0000\r\n"
        f"Message-ID: <{chance.getrandbits(64):x}@load.example>\r\nMIME-Version: 1.0\r\n"
        'Content-Type: multipart/mixed; boundary="border"\r\n\r\n--border\r\nContent-Type: text/plain\r\n\r\n'
    )
    rest = "".join(f"{chance.randbytes(57).hex()[:76]}\r\n" for _ in range(max(0, size - len(text)) // 78))
    attached = "--border\r\nContent-Type: application/octet-stream; name=data.bin\r\n\r\n" + rest
    return (head + text + attached + "--border--\r\n").encode()


WORDS = ("the", "mail", "that", "we", "send", "today", "goes", "to", "all", "readers", "of", "this", "house", "and")


def _words(chance: random.Random, size: int) -> str:
    return "".join(" ".join(chance.choices(WORDS, k=14)) + "\r\n" for _ in range(size // 60 + 1))


def _size(chance: random.Random) -> int:
    at = chance.uniform(0, 100)
    steps = [*PERCENTILES, (100, LARGEST)]
    (low, least), (high, most) = next((a, b) for a, b in pairwise(steps) if at <= b[0])
    return int(least + (most - least) * (at - low) / (high - low))

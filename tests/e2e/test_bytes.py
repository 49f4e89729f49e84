"""Many mails, tame and wild, through the whole gateway: what arrives ends with exactly what was sent."""

import os
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.e2e import gateway as gateways
from tests.e2e.gateway import Gateway, taken, transaction
from tests.peers.certificates import Certificate
from tests.peers.dns import Dns
from tests.peers.wire import crlf

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("GATEPOST_SHARED", ROOT.parent / "shared"))
OURS = ROOT / "tests/messages"
ASKING_ELSEWHERE = {"arc", "dkim", "dmarc", "dnsbl", "greylist", "helo", "rate"}
ACCEPTING = {path.stem for path in (ROOT / "filters").glob("[a-z]*.py")} - ASKING_ELSEWHERE | {"content"}
LONGEST = 998  # octets of a line
HEADER = 256 << 10  # octets; edge.toml
TOGETHER = 50  # in one session: edge.toml allows 100


@pytest.fixture(scope="module")
def accepting(certificate: Certificate, names: Dns) -> Iterator[Gateway]:
    """A gateway that accepts whatever its filters find."""
    policies = {
        stem: gateways.lenient(stem) for stem in sorted(ACCEPTING) if (ROOT / "policies" / f"{stem}.toml").exists()
    }
    with gateways.run(certificate, dns=names.port, policies=policies) as running:
        yield running


def sample(paths: Sequence[Path], count: int) -> list[Path]:
    """*count* of the files, the same ones every time."""
    return sorted(random.Random(1).sample(sorted(paths), min(count, len(paths))))


def wild(number: int) -> bytes:
    """A mail that no program would write: fields of any length and octets, lines of anything but CR, LF and NUL."""
    chance = random.Random(number)
    octets = bytes(octet for octet in range(1, 256) if octet not in b"\r\n")
    names = ("Subject", "X-Odd", "Content-Type", "content-type", "MIME-Version", "To", "From", "Date", "X-Empty")
    lines = []
    for _ in range(chance.randrange(12)):
        value = bytes(chance.choices(octets, k=chance.choice((0, 3, 70, 900))))
        lines.append(chance.choice(names).encode() + b": " + value)
        lines += [b"\t" + bytes(chance.choices(octets, k=9))] * chance.randrange(2)
    lines.append(b"")
    for _ in range(chance.choice((0, 1, 10, 200))):
        line = bytes(chance.choices(octets, k=chance.choice((0, 1, 20, 76, LONGEST))))
        lines.append(chance.choice((line, b".", b"..", b".x", b"--", b"From x", line[:3] + b" ", b"")))
    return b"".join(line + b"\r\n" for line in lines)


def can_travel(raw: bytes) -> bool:
    """Whether RFC 5321 and edge.toml let the mail pass."""
    lines = raw.split(b"\r\n")
    fits = len(raw.partition(b"\r\n\r\n")[0]) <= HEADER
    return fits and not any(b"\r" in line or b"\n" in line or b"\0" in line or len(line) > LONGEST for line in lines)


def ended(raw: bytes) -> bytes:
    return raw if raw.endswith(b"\r\n") else raw + b"\r\n"


def round_trip(gateway: Gateway, mails: Sequence[bytes]) -> list[bytes]:
    """What arrives of *mails*, in their order; each has to be accepted."""
    gateway.empty("alice")
    for start in range(0, len(mails), TOGETHER):
        with gateway.session() as client:
            for number, raw in enumerate(mails[start : start + TOGETHER], start):
                reply = transaction(client, "ann@out.example", ["alice@in.example"], raw)
                assert taken(reply), number
    return gateway.fetch("alice")


def changed(mails: Sequence[bytes], arrived: Sequence[bytes]) -> list[int]:
    """The numbers of the mails that do not end in what was sent, or have no field of ours above.

    Lines that continue nothing, at the very start, have to be gone: they would continue our field.
    """
    return [
        number
        for number, (raw, got) in enumerate(zip(mails, arrived, strict=True))
        for sent in [re.sub(rb"\A([ \t][^\n]*\n)+", b"", raw)]
        if not (got.endswith(sent) and b"\r\nX-Gatepost-Id: " in got[: len(got) - len(sent)])
    ]


def test_a_hundred_mails_arrive_as_they_were_sent(accepting: Gateway) -> None:
    ours = [ended(crlf(path.read_bytes())) for path in sample(list(OURS.rglob("*.eml")), 50)]
    sent = [raw for raw in ours if can_travel(raw)]
    sent += [wild(number) for number in range(100 - len(sent))]
    assert changed(sent, round_trip(accepting, sent)) == []


def test_mails_that_broke_other_parsers_arrive_as_they_were_sent(accepting: Gateway) -> None:
    suites = SHARED / "suites/mime"
    if not suites.is_dir():
        pytest.skip("needs the MIME suites: set GATEPOST_SHARED")
    files = sorted(path for path in suites.rglob("*") if path.suffix in (".eml", ".txt", ".raw"))
    all_ = [ended(crlf(path.read_bytes())) for path in files]
    sent = [raw for raw in all_ if can_travel(raw)]
    assert (len(all_), len(sent)) >= (420, 390)
    assert changed(sent, round_trip(accepting, sent)) == []
    for raw in all_:
        if not can_travel(raw):
            with accepting.session() as client:
                code, text = transaction(client, "ann@out.example", ["alice@in.example"], raw)
            assert (code, text[:5]) in ((550, "5.6.0"), (550, "5.6.1"), (552, "5.3.4")), text

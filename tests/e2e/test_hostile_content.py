"""The whole gateway under mail that hides what it carries, or that is made to be costly to read.

All filters but the scanner accept whatever they find, so that nothing is kept out for another reason than the one in question.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests import packed, tricks
from tests.bench import usage
from tests.e2e import gateway as gateways
from tests.e2e import mails
from tests.e2e.gateway import Gateway, id_in, transaction
from tests.e2e.test_bytes import ACCEPTING
from tests.holders import HOLDERS
from tests.peers import clamd, processes
from tests.peers.certificates import Certificate
from tests.peers.clamd import EICAR, TESTFILE_TEXT, TESTFILES, Clamd
from tests.peers.dns import Dns
from tests.peers.wire import lf

pytestmark = pytest.mark.e2e

OUTSIDE, ALICE, BOB = "ann@out.example", "alice@in.example", "bob@in.example"
SHIPPED = {"antivirus", "archives", "content"}
AT_ONCE, TOGETHER = 4, 50
"""Sessions, and mails in one of the stream."""
LARGE = 1_000_000


@pytest.fixture(scope="module")
def scanner() -> Iterator[Clamd]:
    """It knows ClamAV's test file by a text in it, and takes what edge.toml takes."""
    with clamd.run(stream_max_length=60_000_000, patterns={"Clam-Text": TESTFILE_TEXT}) as running:
        yield running


@pytest.fixture(scope="module")
def own(certificate: Certificate, names: Dns, scanner: Clamd) -> Iterator[Gateway]:
    policies = {stem: gateways.lenient(stem) for stem in sorted(ACCEPTING - SHIPPED)}
    policies["antivirus"] = gateways.shipped("antivirus", sockets=f'["unix:{scanner.unix_socket}"]')
    with gateways.run(certificate, dns=names.port, policies=policies) as running:
        yield running


def replies(gateway: Gateway, raws: Sequence[bytes]) -> list[tuple[int, str]]:
    """What the gateway says to each of *raws*, in sessions of their own, some at the same time."""

    def send(raw: bytes) -> tuple[int, str]:
        with gateway.session() as client:
            return transaction(client, OUTSIDE, [ALICE], raw)

    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(send, raws))


def fate(gateway: Gateway, reply: tuple[int, str]) -> str:
    """What became of a mail: "infected" where the scanner found something, "held", or the whole reply.

    What is held, content.toml, archives.toml or the scanner hold: it is `unscannable` or the like.
    """
    if reply[0] == 250:
        (event,) = gateway.events("accepted", id=id_in(reply[1]))
        return "held" if event["action"] == "quarantine" else f"{event['action']}: {event['why']}"
    return "infected" if reply[0] == 550 and "(antivirus/infected)" in reply[1] else f"{reply}"


# ---- What hides ------------------------------------------------------------------------------------------------------


def test_eicar_in_every_trick_is_refused_by_the_scanner_alone(own: Gateway) -> None:
    hidden = dict(tricks.tricks(EICAR))
    fates = {name: fate(own, reply) for name, reply in zip(hidden, replies(own, list(hidden.values())), strict=True)}
    assert {name: found for name, found in fates.items() if found != "infected"} == {}
    assert own.fetch("alice") == []


def test_eicar_in_every_document_that_holds_files_is_refused_by_the_scanner(own: Gateway) -> None:
    raws = {title: mails.attachment(name, holding(EICAR)) for title, (name, holding) in HOLDERS.items()}
    fates = {title: fate(own, reply) for title, reply in zip(raws, replies(own, list(raws.values())), strict=True)}
    assert fates == dict.fromkeys(HOLDERS, "infected")
    assert own.fetch("alice") == []


def wrapped(name: str, octets: bytes, depth: int) -> bytes:
    """A mail with a file in it, and around that, by turns, a mail around the mail and a zip in a mail around it."""
    raw = mails.attachment(name, octets)
    for level in range(depth - 1):
        if level % 2:
            raw = mails.attachment("mail.zip", mails.zipped("mail.eml", raw), "application/zip")
        else:
            around = b"--f\n\nsee\n--f\nContent-Type: message/rfc822\n\n" + lf(raw) + b"\n--f--\n"
            raw = mails.mail(around, kind="multipart/mixed; boundary=f")
    return raw


def test_every_container_of_clamavs_test_file_is_found_or_held_however_deep_it_is(own: Gateway) -> None:
    if not TESTFILES.is_dir():
        processes.unavailable("needs clamav-testfiles: see tests/packages.debian")
    files = {path.name: path.read_bytes() for path in sorted(TESTFILES.iterdir())}
    depths = {name: (1, 5) if len(octets) > LARGE else (1, 2, 3, 4, 5) for name, octets in files.items()}
    cases = [(name, depth) for name in files for depth in depths[name]]
    answers = replies(own, [wrapped(name, files[name], depth) for name, depth in cases])
    fates = {case: fate(own, reply) for case, reply in zip(cases, answers, strict=True)}
    assert len(files) >= 42
    assert {case: found for case, found in fates.items() if found not in {"infected", "held"}} == {}
    assert sum(found == "infected" for found in fates.values()) > len(fates) * 3 // 4
    assert own.fetch("alice") == []


# ---- What costs ------------------------------------------------------------------------------------------------------

CPU, MEMORY = 2.0, 200.0
"""Seconds of all processes for one mail, the stream beside it included; MB that any of them may have of its own."""
ENOUGH = 50
"""Mails of the stream at least, so that its slowest hundredth means something."""
PAUSE = 0.004
"""Seconds between two of them: a quick machine is soon through with the bombs."""
LATE = 1.0
"""Seconds until other mail has its reply, 99 times of 100."""
OFTEN = 0.02
"""Seconds between two mails of the stream beside the bombs, and between two looks at memory."""
FLOOD = 15
"""Times that each of the smaller bombs comes again, several at the same time."""


def multipart(parts: bytes) -> bytes:
    return tricks.head(b"Content-Type: multipart/mixed; boundary=b") + parts


def nested(depth: int) -> bytes:
    inner = b"".join(b"--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n" % (n, n + 1) for n in range(depth))
    return tricks.head(b"Content-Type: multipart/mixed; boundary=b0") + inner


def json_name(depth: int) -> bytes:
    """An attachment whose name is JSON, in sections (RFC 2231) as deep as the header lets it be."""
    half = depth // 2
    sections = b"".join(
        b';\r\n filename*%d="%s"' % (n, one * 900) for n, one in enumerate([b"["] * half + [b"]"] * half)
    )
    return multipart(b"--b\r\nContent-Disposition: attachment" + sections + b"\r\n\r\nhello\r\n--b--\r\n")


def zeros(size: int) -> bytes:
    """So many octets of base64 that are all zeros."""
    line = b"A" * 76 + b"\r\n"
    attached = tricks.lines(b"--b", tricks.BINARY, tricks.B64, tricks.NAMED, b"", b"")
    return multipart(attached + line * (size // len(line)) + b"--b--\r\n")


BOMBS: Mapping[str, tuple[Callable[[], bytes], str]] = {
    "10,000 multiparts in one another": (partial(nested, 10_000), "held"),
    "200,000 parts": (lambda: multipart(b"--b\r\n\r\nx\r\n" * 200_000), "held"),
    "20,000 parameters": (lambda: tricks.head(b"Content-Type: text/plain" + b";\r\n a=b" * 20_000), "held"),
    "10,000 encoded words": (lambda: tricks.head(b"Comments:" + b"\r\n =?utf-8?q?a?=" * 10_000), "held"),
    "42.zip": (lambda: packed.mail(packed.nested(packed.zipped({"0.dll": bytes(20 << 20)}), 5, 16), "42.zip"), "held"),
    "400,000 files": (lambda: packed.mail(packed.million(400_000), "a.zip"), "held"),
    "a million files, packed": (lambda: packed.mail(packed.zipped({"a.zip": packed.million()}), "b.zip"), "held"),
    "files that overlap": (lambda: packed.mail(packed.overlapping(250, 4 << 20), "a.zip"), "held"),
    "JSON in a name": (lambda: json_name(2), "accept"),
    "JSON in many sections": (lambda: json_name(200), "held"),
    "49 MB of zeros": (partial(zeros, 49_000_000), "accept"),
    "a mail in a zip, nine times": (lambda: packed.mail(packed.nested(packed.mail(packed.RUN), 9), "a.zip"), "held"),
}
"""What each is made by, and what becomes of it: held because it is `unscannable`, or read to its end."""


@dataclass
class Stream:
    """Mail that comes in all the time: how long each waited for its reply, and the most memory of a parser meanwhile."""

    waits: list[float] = field(default_factory=list)
    memory: float = 0.0

    def flow(self, gateway: Gateway, over: threading.Event) -> None:
        while not over.is_set():
            with gateway.session() as client:
                for _ in range(TOGETHER):
                    began = time.monotonic()
                    assert transaction(client, OUTSIDE, [BOB], mails.mail())[0] == 250
                    self.waits.append(time.monotonic() - began)
                    if over.wait(PAUSE):
                        return

    def watch(self, gateway: Gateway, over: threading.Event) -> None:
        while not over.wait(OFTEN):
            sizes = [anonymous(pid) for pid in usage.tree(gateway.process.pid)]
            self.memory = max(self.memory, *sizes)


def anonymous(pid: int) -> float:
    """MB that only this process has (proc(5) status, RssAnon)."""
    with suppress(OSError):
        found = re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        return int(found[1]) / 1024 if found else 0.0
    return 0.0


@dataclass(frozen=True)
class Aftermath:
    """The fate of each bomb, the seconds of CPU that it cost, and the stream beside all of them."""

    fates: Mapping[str, str]
    costs: Mapping[str, float]
    stream: Stream


@contextmanager
def streaming(gateway: Gateway) -> Iterator[Stream]:
    stream, over = Stream(), threading.Event()
    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(work, gateway, over) for work in (stream.flow, stream.watch)]
        try:
            yield stream
        finally:
            over.set()
            for one in running:
                one.result(30)


@pytest.fixture(scope="module")
def alone(certificate: Certificate, names: Dns) -> Iterator[Gateway]:
    """Without the scanner, which takes seconds for some of the bombs."""
    policies = {stem: gateways.lenient(stem) for stem in sorted(ACCEPTING - SHIPPED)}
    policies["antivirus"] = gateways.shipped("antivirus", enabled="false")
    with gateways.run(certificate, dns=names.port, policies=policies, users=("alice", "bob")) as running:
        yield running


@pytest.fixture(scope="module")
def aftermath(alone: Gateway) -> Aftermath:
    raws = {name: make() for name, (make, _) in BOMBS.items()}
    answers: dict[str, tuple[int, str]] = {}
    costs: dict[str, float] = {}
    with streaming(alone) as stream:
        for name, raw in raws.items():
            before = usage.cpu(alone.process.pid)
            (answers[name],) = replies(alone, [raw])
            costs[name] = usage.cpu(alone.process.pid) - before
        replies(alone, [raw for raw in raws.values() if len(raw) < LARGE] * FLOOD)
    return Aftermath({name: fate(alone, reply) for name, reply in answers.items()}, costs, stream)


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_little_and_is_held_or_read_to_its_end(aftermath: Aftermath, name: str) -> None:
    assert aftermath.fates[name].startswith(BOMBS[name][1])
    assert aftermath.costs[name] <= CPU


def test_beside_bombs_mail_flows_and_no_process_grows(aftermath: Aftermath) -> None:
    waits = sorted(aftermath.stream.waits)
    assert len(waits) >= ENOUGH
    assert waits[len(waits) * 99 // 100] < LATE
    assert aftermath.stream.memory < MEMORY

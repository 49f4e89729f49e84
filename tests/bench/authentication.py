"""What it costs to check a DKIM signature, and to make one: beside opendkim, on the same messages, in the same run.

Ours is the code of the product in this process: the confined reader and the filter with its checker, and the hand that
signs. opendkim runs as a milter and is fed over its socket; its figure is all CPU of its process. Keys come from memory
in both. No time is ever asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import binascii
import json
import signal
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import cast

from filters.dkim import Filter, Settings
from gateway.delivery.sign import Hand
from gateway.dkim import canonical, keys, reading
from gateway.dkim.checker import Checker
from gateway.dkim.ring import Ring, Signer
from gateway.model import Content, Delivery, Mail, Recipient, Session, Signature, State, Tools
from gateway.pipeline.signed import Bodies, outermost, signatures
from gateway.stages import Content as Limits
from gateway.stages import Signing
from tests.bench import corpus, milter, usage
from tests.bench.milter import Milter
from tests.peers import processes

DOMAIN = "example.org"
VERIFY_LIMIT, SIGN_LIMIT = 0.5, 0.4
"""ms of CPU that a message of middle size may cost us."""
ROUNDS = 5
"""Of which the medians are shown."""
CHUNK = 64 << 10
"""Octets that the store hands out at a time."""

OPENDKIM = """
Syslog no
RequireSafeKeys no
Background no
Socket local:{socket}
"""

SIGNS = """
Mode s
Domain {domain}
Selector {selector}
KeyFile {key}
SignatureAlgorithm rsa-sha256
Canonicalization relaxed/relaxed
SignHeaders {signed}
OversignHeaders {oversigned}
"""

VERIFIES = """
Mode v
AlwaysAddARHeader yes
TestDNSData file:{names}
"""


@dataclass(frozen=True)
class Cost:
    """ms of CPU for each message of a set, the median of all rounds. `count` messages, of `octets` on average.

    `reading` is the confined child's part of `verify`, `arithmetic` and `signing` are RSA alone (2048 bits).
    """

    name: str
    count: int
    octets: float
    verify: float
    reading: float
    sign: float
    theirs_verify: float
    theirs_sign: float
    arithmetic: float
    signing: float


# ---- Messages ------------------------------------------------------------------------------------------------------


def prepared(messages: Sequence[bytes]) -> list[bytes]:
    """Those of *messages* that can be signed, all by one author, and without what others signed or found."""
    fixed = (_by_ann(message) for message in messages)
    return [one for one in fixed if one]


def _by_ann(message: bytes) -> bytes:
    head, end, body = message.partition(b"\r\n\r\n")
    gone = {"from", "dkim-signature", "authentication-results", "domainkey-signature"}
    fields = canonical.fields(head + b"\r\n")
    if not end or not all(reading.name_of(one).isascii() and b":" in one.split(b"\r\n")[0] for one in fields):
        return b""
    kept = [one for one in fields if reading.name_of(one) not in gone and b" " not in one.partition(b":")[0]]
    return b"From: Ann <ann@%s>\r\n" % DOMAIN.encode() + b"".join(kept) + b"\r\n" + body


def middle(messages: Sequence[bytes]) -> list[bytes]:
    """A fifth of *messages*: those of middle size."""
    by_size = sorted(messages, key=len)
    return by_size[len(by_size) * 2 // 5 : len(by_size) * 3 // 5]


# ---- Ours ----------------------------------------------------------------------------------------------------------


class Ours:
    """The product's own code, with a key in *home*."""

    def __init__(self, home: Path) -> None:
        ring = Ring(home / "dkim")
        self.entry = ring.activate(DOMAIN, ring.add(DOMAIN, "rsa").selector)
        self.signer: Signer = ring.signers(DOMAIN)[0]
        policy = Signing()  # which is in force until it changes
        self._hand = Hand(ring, f"gw.{DOMAIN}", lambda: policy)
        self._filter = Filter(Settings(), cast("Tools", SimpleNamespace(signatures=Checker(self))))

    async def txt(self, name: str) -> Sequence[bytes]:
        """The DNS: one key, from memory."""
        return (self.entry.record.encode(),) if name == self.entry.name else ()

    def sign(self, messages: Sequence[bytes]) -> list[bytes]:
        """The fields that `gateway.delivery` puts on top of each message."""
        return asyncio.run(self._sign(messages))

    async def _sign(self, messages: Sequence[bytes]) -> list[bytes]:
        writer = Recipient("bob@example.net")
        one = Delivery(1, "m", f"ann@{DOMAIN}", writer, State.QUEUED, "example.net", outbound=True)
        return [await self._hand.sign(one, _in_chunks(message)) for message in messages]

    def read(self, messages: Sequence[bytes]) -> list[tuple[Signature, ...]]:
        """As the confined child does."""
        limits = Limits.Settings()
        return [
            signatures(fields, Bodies(one, start)) for one in messages for fields, start in [outermost(one, limits)]
        ]

    def check(self, read: Sequence[tuple[Signature, ...]]) -> list[str]:
        """As the gateway's process does: the code of each message's one finding."""
        return asyncio.run(self._check(read))

    async def _check(self, read: Sequence[tuple[Signature, ...]]) -> list[str]:
        peer = Session(ip_address("192.0.2.1"))
        mails = [Mail("m", peer, content=Content(signatures=one)) for one in read]
        return [finding.code for mail in mails for finding in await self._filter.check(mail, {})]


def _in_chunks(message: bytes) -> Callable[[], AsyncGenerator[bytes, None]]:
    async def octets() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(message), CHUNK):
            yield message[start : start + CHUNK]

    return octets


# ---- opendkim ------------------------------------------------------------------------------------------------------


@contextmanager
def opendkim(home: Path, lines: str) -> Iterator[tuple[Milter, processes.Process]]:
    """An opendkim with these *lines* in its configuration, and a connection to it."""
    folder = Path(tempfile.mkdtemp(dir=home))
    path = folder / "milter"
    (folder / "opendkim.conf").write_text(OPENDKIM.format(socket=path) + lines)
    argv: list[str | Path] = ["opendkim", "-f", "-x", folder / "opendkim.conf"]
    with processes.running(argv, folder, path.exists) as process:
        with Milter(path) as connection:
            yield connection, process
        process.signal(signal.SIGKILL)  # it would end some seconds after a SIGTERM


def lines(home: Path, ours: Ours) -> tuple[str, str]:
    """What makes an opendkim sign as we do, and verify with our key."""
    policy, entry = Signing(), ours.entry
    (home / "names").write_text(f"{entry.name} {entry.record}\n")
    fields = {"signed": ",".join([*policy.oversigned, *policy.signed]), "oversigned": ",".join(policy.oversigned)}
    key = next(home.rglob(f"{entry.selector}.pem"))
    signs = SIGNS.format(domain=DOMAIN, selector=entry.selector, key=key, **fields)
    return signs, VERIFIES.format(names=home / "names")


def shown(connection: Milter, process: processes.Process, messages: Sequence[bytes]) -> tuple[float, list[list[bytes]]]:
    """Seconds of CPU that the milter took for *messages*, and what it would add to each."""
    before = usage.precise(process.pid)
    added = [connection.show(message) for message in messages]
    return usage.precise(process.pid) - before, added


# ---- Measuring -----------------------------------------------------------------------------------------------------


def measure(messages: Sequence[bytes], rounds: int) -> list[Cost]:
    """All of *messages*, and those of middle size; ours and theirs in turn, *rounds* times."""
    processes.require("opendkim")
    every = prepared(messages)
    with processes.workspace("bench-dkim") as home:
        ours = Ours(home)
        signs, verifies = lines(home, ours)
        with opendkim(home, signs) as signing, opendkim(home, verifies) as verifying:
            sets = {"middle size": middle(every), "all": every}
            return [_cost(name, some, rounds, ours, signing, verifying) for name, some in sets.items()]


Theirs = tuple[Milter, processes.Process]


def _cost(name: str, messages: Sequence[bytes], rounds: int, ours: Ours, signing: Theirs, verifying: Theirs) -> Cost:
    signed = [field + message for field, message in zip(ours.sign(messages), messages, strict=True)]
    _check(ours, messages, signed, signing, verifying)
    read = ours.read(signed)
    one = read[0][0]
    seconds = [
        {
            "reading": _cpu(lambda: ours.read(signed)),
            "checking": _cpu(lambda: ours.check(read)),
            "sign": _cpu(lambda: ours.sign(messages)),
            "theirs_verify": shown(*verifying, signed)[0],
            "theirs_sign": shown(*signing, messages)[0],
            "arithmetic": _cpu(lambda: _verify(ours, one, len(messages))),
            "signing": _cpu(lambda: [ours.signer.key.sign(bytes(32)) for _ in messages]),
        }
        for _ in range(rounds)
    ]
    ms = {part: median(found[part] for found in seconds) / len(messages) * 1000 for part in seconds[0]}
    verify = ms["reading"] + ms.pop("checking")
    return Cost(name, len(messages), sum(map(len, messages)) / len(messages), verify, **ms)


def _verify(ours: Ours, signature: Signature, count: int) -> None:
    """The arithmetic of *count* signatures, and nothing else."""
    key = keys.parse(ours.entry.record.encode())
    value, digest = binascii.a2b_base64(signature.value), binascii.a2b_base64(signature.digest)
    for _ in range(count):
        if not key.verifies(value, digest):
            raise RuntimeError("the signature does not hold")


def _check(ours: Ours, messages: Sequence[bytes], signed: Sequence[bytes], signing: Theirs, verifying: Theirs) -> None:
    """Whether both do what is measured: each finds that the other's signatures hold."""
    _, found = shown(*verifying, signed)
    results = [b"".join(milter.fields(added, b"Authentication-Results")) for added in found]
    if any(b"dkim=pass" not in one for one in results):
        raise RuntimeError(f"opendkim: {next(one for one in results if b'dkim=pass' not in one)!r}")
    _, made = shown(*signing, messages)
    fields = [b"".join(milter.fields(added, b"DKIM-Signature")).strip().replace(b"\n", b"\r\n") for added in made]
    theirs = [b"DKIM-Signature: " + one + b"\r\n" + message for one, message in zip(fields, messages, strict=True)]
    for whose, codes in (("ours", ours.check(ours.read(signed))), ("theirs", ours.check(ours.read(theirs)))):
        if set(codes) != {"pass"}:
            raise RuntimeError(f"of {whose} hold: {codes}")


def _cpu(work: Callable[[], object]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


# ---- Telling -------------------------------------------------------------------------------------------------------


def told(costs: Sequence[Cost]) -> list[str]:
    """A table as lines."""
    lines = [f"{'DKIM (rsa2048), ms of CPU a message':40}{'verify':>8}{'opendkim':>10}{'sign':>8}{'opendkim':>10}"]
    for one in costs:
        name = f"{one.name} ({one.count}, {one.octets / 1000:.1f} KB on average)"
        lines.append(f"{name:40}{one.verify:8.3f}{one.theirs_verify:10.3f}{one.sign:8.3f}{one.theirs_sign:10.3f}")
    first = costs[0]
    rest = (
        f"of these at middle size RSA alone {first.arithmetic:.3f} and {first.signing:.3f}; of the first the confined "
        f"reader {first.reading:.3f}. Limits: {VERIFY_LIMIT} and {SIGN_LIMIT}."
    )
    return [*lines, rest]


def as_json(costs: Sequence[Cost]) -> list[Mapping[str, object]]:
    return [asdict(one) for one in costs]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.authentication", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there, too")
    parser.add_argument("--count", type=int, default=500, help="messages")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of which the medians are shown")
    parser.add_argument("--seed", type=int, default=1, help="of the sample of messages")
    args = parser.parse_args()
    sample = corpus.sample(args.count, args.seed)
    costs = measure(sample.messages, args.rounds)
    print("\n".join([sample.origin, *told(costs)]))
    if args.json:
        args.json.write_text(json.dumps(as_json(costs), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

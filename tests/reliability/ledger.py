"""The ledger and its law: each recipient of each mail that got 250 is delivered, bounced, held, queued or in a mailbox.

Copies may be made, and each has to be explained. Every mail bears a number: in the sender's address (so that a bounce
tells it too) and with the digest of its body in the field X-Ledger. Times are of the monotonic clock, which all
processes of a machine share and no clock fault touches.
"""

import base64
import hashlib
import json
import os
import random
import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

SENDERS = "ledger.example"
"""The domain of all senders. Route it to the sink, where bounces then arrive."""
ON_THE_WIRE = 1.0
"""Seconds after the death of a deliverer in which a mail may still reach the sink: the network had taken all of it."""
BIG = 600_000
"""Octets of a big mail: three chunks of the store."""

# ---- Numbered mail ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mail:
    """A numbered mail: what to send, and to whom."""

    number: int
    recipients: tuple[str, ...]
    raw: bytes = field(repr=False)

    @property
    def sender(self) -> str:
        return f"n{self.number}@{SENDERS}"


Make = Callable[[int], Mail]


def mail(number: int, recipients: Sequence[str], size: int = 1500) -> Mail:
    """Mail *number* with a body of about *size* octets, the same at every call."""
    octets = random.Random(number).randbytes(size * 3 // 4)
    body = base64.encodebytes(octets).replace(b"\n", b"\r\n") or b"\r\n"
    head = (
        f"From: <n{number}@{SENDERS}>\r\nTo: <{recipients[0]}>\r\nDate: Mon, 02 Nov 2026 10:11:12 +0100\r\n"
        f"Message-ID: <ledger.{number}@{SENDERS}>\r\nSubject: Number {number}\r\nMIME-Version: 1.0\r\n"
        f"X-Ledger: {number} {hashlib.sha256(body).hexdigest()}\r\n"
        "Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    )
    return Mail(number, tuple(recipients), head.encode() + body)


def mixed(relayed: str, mailboxes: Sequence[str], *, big_every: int = 25) -> Make:
    """Mail as it comes: to the domain *relayed*, to people of ours, to both and to several; some of it big."""

    def make(number: int) -> Mail:
        away = [f"r{number}.{n}@{relayed}" for n in range(3)]
        here = mailboxes[number % len(mailboxes)]
        groups = ([away[0]], [here], away, [away[0], here], [away[0], *mailboxes])
        size = BIG if number % big_every == big_every - 1 else 1500
        return mail(number, groups[number % len(groups)], size)

    return make


def number_of(address: str) -> int:
    """The number in a sender's address, 0 where it is none of ours."""
    found = re.fullmatch(rf"n([0-9]+)@{re.escape(SENDERS)}", address)
    return int(found[1]) if found else 0


def intact(blocks: Iterable[bytes]) -> bool:
    """Whether a mail, given in blocks, has the body that its own X-Ledger field names. False where it has no such field."""
    head, digest = b"", hashlib.sha256()
    blocks = iter(blocks)
    for block in blocks:
        head += block
        if (end := head.find(b"\r\n\r\n")) >= 0:
            digest.update(head[end + 4 :])
            break
    for block in blocks:
        digest.update(block)
    found = re.search(rb"(?m)^X-Ledger: [0-9]+ ([0-9a-f]{64})\r$", head)
    return bool(found) and found[1].decode() == digest.hexdigest()


# ---- What was promised --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """How one try to hand a mail over ended. `recipients` are those that RCPT accepted.

    accepted: 250 after the content, with the gateway's `id`. refused: another reply. unknown: the connection broke, or
    nothing was said in time, after the end of the content was sent, so it may be theirs or not.
    """

    number: int
    how: Literal["accepted", "refused", "unknown"]
    recipients: tuple[str, ...] = ()
    id: str = ""
    reply: str = ""
    at: float = field(default_factory=time.monotonic)


class Book:
    """The file of entries, one JSON line each, on stable storage before `write` returns. Threads may share it.

    Numbers go on where the file ends, so that one book can serve several starts of a test's gateway.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._entries = [_entry(line) for line in path.read_bytes().splitlines()] if path.exists() else []
        self._last = max((one.number for one in self._entries), default=0)

    def next_number(self) -> int:
        with self._lock:
            self._last += 1
            return self._last

    def write(self, entry: Entry) -> None:
        with self._lock, self._path.open("ab", buffering=0) as file:
            file.write(json.dumps(asdict(entry)).encode() + b"\n")
            os.fsync(file.fileno())
            self._entries.append(entry)

    def entries(self) -> list[Entry]:
        with self._lock:
            return list(self._entries)

    def count(self, how: str) -> int:
        return sum(one.how == how for one in self.entries())


def _entry(line: bytes) -> Entry:
    fields = json.loads(line)
    return Entry(**{**fields, "recipients": tuple(fields["recipients"])})


# ---- What came of it ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arrival:
    """A mail that the sink took for one recipient. `id` is the gateway's, from its Received field.

    `answered` is False where the sink hung up in place of its 250. A bounce (`sender` empty) names in `told` those it
    is about.
    """

    number: int
    id: str
    sender: str
    recipient: str
    intact: bool
    answered: bool = True
    told: tuple[str, ...] = ()
    at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Kept:
    """One delivery as the product's store has it. `intact` says whether its bytes are there and right.

    `owed` is whether its sender is still to be told; `ended_by` the last event of a delivery that was dropped.
    """

    number: int
    id: str
    sender: str
    recipient: str
    state: str
    intact: bool
    owed: bool = False
    ended_by: str = ""


@dataclass(frozen=True)
class Incident:
    """The death of a deliverer, of its connections, or of the store: what it had sent and not written down may be sent
    again. Note it when it is surely over."""

    what: str
    at: float = field(default_factory=time.monotonic)


@dataclass
class Report:
    """`fates` counts recipients, `copies` what came twice and why; the three lists name each breach of the law."""

    accepted: int = 0
    recipients: int = 0
    refused: int = 0
    unknown: int = 0
    fates: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)

    def check(self) -> "Report":
        """Itself where the law holds; fails with every breach else."""
        breaches = [*self.lost, *self.damaged, *self.unexplained]
        assert not breaches, f"{len(breaches)} breaches of the law:\n" + "\n".join(breaches[:50]) + f"\n{self}"
        return self

    def __str__(self) -> str:
        fates = ", ".join(f"{count} {fate}" for fate, count in sorted(self.fates.items()))
        copies = ", ".join(f"{count} {why}" for why, count in sorted(self.copies.items())) or "none"
        return (
            f"{self.accepted} accepted for {self.recipients} recipients: {fates}; {len(self.lost)} lost, "
            f"{len(self.damaged)} damaged; copies: {copies}; {self.refused} refusals, {self.unknown} replies lost"
        )


# ---- The law ------------------------------------------------------------------------------------------------------


def judge(
    entries: Sequence[Entry],
    arrivals: Sequence[Arrival],
    kept: Sequence[Kept],
    incidents: Sequence[Incident] = (),
    fetched: Collection[tuple[str, str]] = (),
) -> Report:
    """Compare what was promised with what came of it.

    *fetched* are (id, recipient) that a mail client has surely read before it deleted them.
    """
    report = Report()
    counts = Counter(one.how for one in entries)
    report.accepted, report.refused, report.unknown = counts["accepted"], counts["refused"], counts["unknown"]
    fates = _Fates(arrivals, kept, fetched)
    for entry in entries:
        for recipient in entry.recipients if entry.how == "accepted" else ():
            _note(report, entry, recipient, fates)
    report.unexplained += _unpromised(entries, kept, report.copies)
    report.unexplained += _sent_twice(arrivals, incidents, report.copies)
    report.unexplained += _told_twice(kept)
    return report


class _Fates:
    """What is known of each recipient of each mail."""

    def __init__(self, arrivals: Sequence[Arrival], kept: Sequence[Kept], fetched: Collection[tuple[str, str]]) -> None:
        self._fetched = set(fetched)
        self.arrived: dict[tuple[str, str], list[Arrival]] = defaultdict(list)
        self.rows: dict[tuple[str, str], list[Kept]] = defaultdict(list)
        self._bounces: dict[int, list[Kept]] = defaultdict(list)
        self._told = {(one.number, told) for one in arrivals if not one.sender for told in one.told}
        for arrival in arrivals:
            self.arrived[arrival.id, arrival.recipient].append(arrival)
        for row in kept:
            self.rows[row.id, row.recipient].append(row)
            if not row.sender:
                self._bounces[row.number].append(row)

    def of(self, row: Kept) -> str:
        """The fate in a word, or "" where the mail is lost."""
        match row.state:
            case "queued" | "held" | "mailbox":
                return row.state if row.intact else ""
            case "sent":
                return "delivered" if self.arrived[row.id, row.recipient] else ""
            case "failed":
                return "bounced" if row.owed or self._is_told(row) else ""
            case "dropped":
                return "fetched" if (row.id, row.recipient) in self._fetched else ""
        return ""

    def _is_told(self, row: Kept) -> bool:
        """Whether the sender knows, or a bounce is on its way."""
        waiting = any(one.state in ("queued", "held", "mailbox") for one in self._bounces[row.number])
        return waiting or (row.number, row.recipient) in self._told


def _note(report: Report, entry: Entry, recipient: str, fates: _Fates) -> None:
    rows = fates.rows[entry.id, recipient]
    words = [word for row in rows if (word := fates.of(row))]
    what = f"number {entry.number} ({entry.id}) to {recipient}"
    report.recipients += 1
    report.fates[words[0] if words else "lost"] += 1
    if not words:
        report.lost.append(f"{what} is lost: {rows or 'the store has nothing of it'}")
    if len(rows) > 1:
        report.unexplained.append(f"{what} is kept {len(rows)} times")
    report.damaged += [f"{what} arrived damaged" for one in fates.arrived[entry.id, recipient] if not one.intact]


def _unpromised(entries: Sequence[Entry], kept: Sequence[Kept], copies: Counter[str]) -> Iterator[str]:
    """Mail that we keep and did not say so: for each such there has to be a reply that was lost."""
    promised = {one.id for one in entries if one.how == "accepted"}
    lost_replies = Counter(one.number for one in entries if one.how == "unknown")
    ours: dict[int, set[str]] = defaultdict(set)
    for row in kept:
        if row.sender and row.number and row.state != "refused" and row.id not in promised:
            ours[row.number].add(row.id)
    for number, ids in ours.items():
        copies["accepted, but the reply was lost"] += min(len(ids), lost_replies[number])
        if len(ids) > lost_replies[number]:
            yield f"number {number} is kept as {sorted(ids)}, and nobody was told so"


def _sent_twice(arrivals: Sequence[Arrival], incidents: Sequence[Incident], copies: Counter[str]) -> Iterator[str]:
    """A second copy at the sink: it has to follow an incident, or the sink itself never said 250 to the first."""
    copies_of: dict[tuple[str, str], list[Arrival]] = defaultdict(list)
    for one in sorted(arrivals, key=lambda one: one.at):
        copies_of[one.id, one.recipient].append(one)
    for (id_, recipient), same in copies_of.items():
        for first, second in pairwise(same):
            why = _why_twice(first, second, incidents)
            copies[why or "unexplained"] += 1
            if not why:
                seconds = second.at - first.at
                yield f"number {first.number} ({id_}) came to {recipient} again after {seconds:.2f} s without a cause"


def _why_twice(first: Arrival, second: Arrival, incidents: Sequence[Incident]) -> str:
    if not first.answered:
        return "sent again, for the next hop hung up"
    between = [one.what for one in incidents if first.at - ON_THE_WIRE <= one.at <= second.at]
    return f"sent again after {between[0]}" if between else ""


def _told_twice(kept: Sequence[Kept]) -> Iterator[str]:
    """A bounce and that it is no longer owed are one transaction: there are never more than what failed."""
    failed = Counter(row.number for row in kept if row.sender and row.state == "failed")
    bounces = Counter(row.number for row in kept if row.number and not row.sender)
    for number, count in bounces.items():
        if count > failed[number]:
            yield f"number {number} has {count} bounces for {failed[number]} failures"

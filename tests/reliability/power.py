"""The power goes, at every moment of a load: does what was acknowledged lie on the disk by then?

strace writes down, in order, what the gateway writes to its store, when a flush of it has come back, and what it says to
its peers. From that a disk is modelled which keeps nothing but what was flushed (or, at worst, any part of the rest, by
sectors), and the store is opened on each state in which a cut can leave it. The rule: every mail with 250 is there, whole.
"""

import random
import re
import signal
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gateway.store.engine import Store
from tests.peers import processes
from tests.reliability import account, family, ledger
from tests.reliability.trial import Trial

SECTOR = 512
CALLS = "pwrite64,write,writev,sendto,sendmsg,fdatasync,fsync,ftruncate"
TRACE = ("-f", "-y", "-xx", "-s", "1000000", "-e", f"trace={CALLS}", "-e", "signal=none")

_LINE = re.compile(r"(?P<tid>\d+) +(?:<\.\.\. (?P<resumed>\w+) resumed>|(?P<call>\w+)\()(?P<rest>.*)")
_FILE = re.compile(r"\d+<((?:\\x[0-9a-f]{2})*)>")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_ID = re.compile(rb"250 2\.[0-9.]+ [^\r\n]*?\b([0-9abcdefghjkmnpqrstvwxyz]{18})\b")


@dataclass(frozen=True)
class Write:
    """Octets that a file has got; the call has come back. `data` None: the file now ends at `offset`."""

    path: str
    offset: int
    data: bytes | None


@dataclass(frozen=True)
class Flushed:
    """A flush of a file has come back: what was written before event number `since` is on the disk."""

    path: str
    since: int


@dataclass(frozen=True)
class Said:
    """A 250 with these ids is about to leave."""

    ids: tuple[str, ...]


Event = Write | Flushed | Said


# ---- What strace saw ----------------------------------------------------------------------------------------------


def events(lines: Iterable[str]) -> list[Event]:
    """The events in the order in which they took effect: writes and flushes when they came back, words when they began."""
    found: list[Event] = []
    begun: dict[str, tuple[str, str, int]] = {}
    for line in lines:
        if match := _LINE.match(line):
            tid, rest = match["tid"], match["rest"]
            if match["call"]:
                begun[tid] = (match["call"], rest, len(found))
                found += _said(match["call"], rest)
            if not rest.endswith("<unfinished ...>") and tid in begun:
                found += _done(*begun.pop(tid), rest)
    return found


def _said(call: str, rest: str) -> Iterator[Event]:
    if call in ("write", "writev", "sendto", "sendmsg"):
        octets = b"".join(map(_octets, _STRING.findall(rest)))
        if ids := _ID.findall(octets):
            yield Said(tuple(id_.decode() for id_ in ids))


def _done(call: str, asked: str, since: int, end: str) -> Iterator[Event]:
    """What a call that has come back has done; *end* holds its result."""
    path = _path(asked)
    if not path.endswith((".db", ".db-wal")) or re.search(r"= -1 E\w+", end):
        return
    if call in ("fdatasync", "fsync"):
        yield Flushed(path, since)
    elif call == "ftruncate":
        yield Write(path, _numbers(asked)[0], None)
    elif call == "pwrite64":
        data = _octets(_STRING.findall(asked)[0])
        size, offset = _numbers(asked)
        assert len(data) == size, "strace has cut the octets short"
        yield Write(path, offset, data)


def _path(asked: str) -> str:
    found = _FILE.match(asked)
    return _octets(found[1]).decode("utf-8", "replace") if found else ""


def _numbers(asked: str) -> list[int]:
    """The plain numbers among the arguments, behind the string."""
    return [int(word) for word in re.findall(r", (\d+)(?=[,) ])", asked + " ")]


def _octets(shown: str) -> bytes:
    return bytes.fromhex(shown.replace("\\x", ""))


# ---- The disk -----------------------------------------------------------------------------------------------------


@dataclass
class Disk:
    """Two files as they survive a cut: `flushed` for certain; of `pending`, by number of event, any part may."""

    flushed: dict[str, bytearray] = field(default_factory=dict)
    pending: list[tuple[int, Write]] = field(default_factory=list)

    def flush(self, done: Flushed) -> None:
        mine = [number < done.since and write.path == done.path for number, write in self.pending]
        for is_done, (_, write) in zip(mine, self.pending, strict=True):
            if is_done:
                _apply(self.flushed, write)
        self.pending = [one for is_done, one in zip(mine, self.pending, strict=True) if not is_done]

    def torn(self, chance: random.Random) -> dict[str, bytearray]:
        """A state with some sectors of what was not flushed, and not others."""
        files = {path: bytearray(content) for path, content in self.flushed.items()}
        for _, write in self.pending:
            for part in _sectors(write):
                if chance.random() < 0.5:
                    _apply(files, part)
        return files


def _sectors(write: Write) -> Iterator[Write]:
    if write.data is None:
        yield write
        return
    at = 0
    while at < len(write.data):
        size = SECTOR - (write.offset + at) % SECTOR
        yield Write(write.path, write.offset + at, write.data[at : at + size])
        at += size


def _apply(files: dict[str, bytearray], write: Write) -> None:
    content = files.setdefault(write.path, bytearray())
    if write.data is None:
        del content[write.offset :]
    content.extend(bytes(max(0, write.offset - len(content))))
    if write.data is not None:
        content[write.offset : write.offset + len(write.data)] = write.data


# ---- The judgement ------------------------------------------------------------------------------------------------


@dataclass
class Result:
    """How many mails were acknowledged, how many flushes there were, and in how many states the store was opened."""

    acknowledged: int = 0
    flushes: int = 0
    states: int = 0
    too_early: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def check(self) -> "Result":
        assert not self.too_early, f"250 before the flush came back: {self.too_early[:10]}"
        assert not self.lost, f"lost by a cut: {self.lost[:10]}"
        return self

    def __str__(self) -> str:
        return (
            f"{self.acknowledged} mails acknowledged, {self.flushes} flushes, {self.states} states after a cut: "
            f"{len(self.too_early)} said before the flush, {len(self.lost)} lost"
        )


def judge(found: Sequence[Event], disk: Disk, home: Path, chance: random.Random) -> Result:
    """Cut the power before each flush comes back, and at the end: then most has been said since the last one."""
    result, said = Result(), set[str]()
    for number, event in enumerate(found):
        if isinstance(event, Write):
            disk.pending.append((number, event))
        elif isinstance(event, Said):
            said.update(event.ids)
            result.too_early += [id_ for id_ in event.ids if not _holds(disk.flushed, id_)]
        else:
            _cut(disk, said, home, chance, result)
            disk.flush(event)
            result.flushes += 1
    _cut(disk, said, home, chance, result)
    result.acknowledged = len(said)
    return result


def _holds(files: dict[str, bytearray], id_: str) -> bool:
    return any(id_.encode() in content for content in files.values())


def _cut(disk: Disk, said: set[str], home: Path, chance: random.Random, result: Result) -> None:
    for files in (disk.flushed, disk.torn(chance)) if disk.pending else (disk.flushed,):
        result.states += 1
        missing = said - _whole(files, home)
        result.lost += [f"{id_} in state {result.states}" for id_ in missing]


def _whole(files: dict[str, bytearray], home: Path) -> set[str]:
    """The ids of the mails that are all there when the store is opened on *files*."""
    for old in home.iterdir():
        old.unlink()
    for path, content in files.items():
        (home / Path(path).name).write_bytes(content)
    (name,) = [Path(path).name for path in files if path.endswith(".db")]
    store = Store(f"sqlite:///{home / name}")
    try:
        with store.reading() as conn:
            assert conn.exec_driver_sql("PRAGMA quick_check").scalar() == "ok"
        kept = account.kept(store)
    finally:
        store.close()
    return {one.id for one in kept if one.intact}


# ---- To watch a gateway -------------------------------------------------------------------------------------------


@contextmanager
def watched(trial: Trial, trace: Path) -> Iterator[None]:
    """strace on all that write to the store, into the file *trace*."""
    processes.require("strace")
    pids = [pid for role in ("smtp", "deliver") for pid in family.of(trial.gateway.process.pid, role)]
    argv = ["strace", *TRACE, "-o", str(trace), *(word for pid in pids for word in ("-p", str(pid)))]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as strace:
        try:
            for _ in pids:
                assert strace.stderr
                line = strace.stderr.readline()
                assert "attached" in line, line
            yield
        finally:
            strace.send_signal(signal.SIGINT)
            strace.communicate(timeout=20)


def _copied(file: Path, home: Path) -> bytearray:
    """What is in *file*, read by another process: if this one closed it, SQLite's own locks on it would end."""
    subprocess.run(["cp", file, home], check=True)
    return bytearray((home / file.name).read_bytes())


def run(trial: Trial, mails: int, home: Path, chance: random.Random, make: ledger.Make | None = None) -> Result:
    """Send *mails* under strace; then judge each state in which a cut could have left the disk."""
    data = trial.gateway.home / "var"
    trial.settled()
    with watched(trial, home / "trace"):
        files = {str(data / name): _copied(data / name, home) for name in ("gatepost.db", "gatepost.db-wal")}
        trial.sender(connections=8, make=make).send(mails)
        trial.settled()
    disk, states = Disk(files), home / "states"
    states.mkdir()
    with (home / "trace").open() as lines:
        return judge(events(lines), disk, states, chance)

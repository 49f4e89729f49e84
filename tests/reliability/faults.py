"""Faults of the machine and of helpers under load, one after the other on one gateway; the law is checked after each.

`Site` is a gateway whose data, spool and run folder lie on small disks, beside a clamd that errs on demand.
"""

import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway import failpoints
from tests.e2e import gateway as gateways
from tests.peers import fake_clamd, processes
from tests.peers.certificates import Certificate
from tests.peers.fake_clamd import FakeClamd, Mode
from tests.reliability import lab, ledger
from tests.reliability.lab import Disk
from tests.reliability.trial import PEOPLE, RELAYED, Trial, trial

PATIENCE = 1.0
"""Seconds that a write waits for its turn at the store here; 30 by default."""
REFILL = 0.2
"""Seconds after which a disk that is to be full is filled again: programs give room back."""


@dataclass(frozen=True)
class Site:
    """What can be broken."""

    trial: Trial
    data: Disk
    spool: Disk
    run: Disk
    scanner: FakeClamd

    def pid(self, role: str) -> int:
        return self.trial.gateway.wait_pid(role)

    def troubles(self) -> Mapping[str, str]:
        """What `gatepost status` says is not well, by name."""
        done = self.trial.gateway.cli("status", "--json")
        assert done.code == 1, done
        return {one["name"]: one["text"] for one in done.json["checks"] if not one["ok"]}


@contextmanager
def site(certificate: Certificate, dns: int) -> Iterator[Site]:
    """A gateway on small disks. What it sends on comes to a sink at once."""
    disks: dict[str, Disk] = {}

    @contextmanager
    def around(home: Path) -> Iterator[None]:
        with ExitStack() as stack:
            for name, folder, size in (("data", "var", "64m"), ("spool", "var/spool", "4m"), ("run", "var/run", "2m")):
                disks[name] = stack.enter_context(lab.small_disk(home / folder, size))
            yield

    with fake_clamd.run() as scanner:
        policies = {
            "antivirus": gateways.shipped("antivirus", sockets=f'["127.0.0.1:{scanner.port}"]').replace("60.0", "1.0"),
            "edge": gateways.shipped("edge", memory_spool='"16 KB"'),
        }
        env = {failpoints.FOLDER: ""}  # they open files, which is one of the faults
        more = f'\n[store]\npatience = "{PATIENCE}s"\n'
        with trial(certificate, dns, policies=policies, smtp_processes=1, more=more, around=around, env=env) as own:
            yield Site(own, disks["data"], disks["spool"], disks["run"], scanner)


# ---- The faults ---------------------------------------------------------------------------------------------------

Fault = Callable[[Site], AbstractContextManager[None]]


def no_room(disk: str) -> Fault:
    return lambda one: vars(one)[disk].full()


def no_descriptors(role: str, spare: int = 0) -> Fault:
    """*role* may open only *spare* files more than it has open now."""

    def fault(one: Site) -> AbstractContextManager[None]:
        pid = one.pid(role)
        highest = max(int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir())
        return lab.limited([pid], resource.RLIMIT_NOFILE, highest + 1 + spare)

    return fault


def store_locked(one: Site) -> AbstractContextManager[None]:
    return lab.locked(one.trial.gateway.home / "var/gatepost.db")


def disk_fails(*calls: str) -> Fault:
    """What the roles write to the store's log, or flush of it, fails as on a broken disk."""

    @contextmanager
    def fault(one: Site) -> Iterator[None]:
        log = one.trial.gateway.home / "var/gatepost.db-wal"
        with ExitStack() as stack:
            for role in gateways.ROLES:
                stack.enter_context(lab.failing(one.pid(role), ",".join(calls), "EIO", log))
            yield

    return fault


def scanner(mode: Mode) -> Fault:
    """clamd errs in this way; with `OK` nothing is wrong."""

    @contextmanager
    def fault(one: Site) -> Iterator[None]:
        one.scanner.mode = mode
        try:
            yield
        finally:
            one.scanner.mode = Mode.OK

    return fault


FAULTS: Mapping[str, Fault] = {
    "no room for the store": no_room("data"),
    "no room for the spool": no_room("spool"),
    "no room in the run folder": no_room("run"),
    "the store is locked": store_locked,
    "the disk fails at a flush": disk_fails("fdatasync", "fsync"),
    "the disk fails at a write": disk_fails("pwrite64"),
    **{f"no file can be opened by {role}": no_descriptors(role) for role in gateways.ROLES},
    **{f"few files can be opened by {role}": no_descriptors(role, 3) for role in gateways.ROLES},
    **{f"clamd {mode.value}": scanner(mode) for mode in Mode if mode not in (Mode.OK, Mode.SLOWREAD)},
}


# ---- Under load ---------------------------------------------------------------------------------------------------


def mails(number: int) -> ledger.Mail:
    """Every other mail has to go to the spool on disk."""
    return ledger.mail(number, [f"r{number}@{RELAYED}", gateways.address("alice")], 30_000 if number % 2 else 1500)


@dataclass(frozen=True)
class Outcome:
    """What came of one fault: what was said meanwhile, and how long it took until mail went through again."""

    replies: tuple[str, ...]
    recovered_after: float
    report: ledger.Report


def under(one: Site, fault: Fault, seconds: float, meanwhile: Callable[[], None] = lambda: None) -> Outcome:
    """Send without end, and let *fault* last for *seconds* and *meanwhile*; then everything has to go on by itself, with
    nothing lost."""
    own, before = one.trial, len(one.trial.book.entries())
    load = own.sender(connections=4, make=mails)
    load.start()
    try:
        own.wait_works()
        with fault(one):
            _last(one, seconds)
            meanwhile()
        recovered = own.wait_works()
    finally:
        load.stop()
    entries = own.book.entries()[before:]
    replies = tuple(entry.reply for entry in entries if entry.how != "accepted")
    return Outcome(replies, recovered, own.settled(30))


def _last(one: Site, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(REFILL)
        _refill(one)


def _refill(one: Site) -> None:
    for disk in (one.data, one.spool, one.run):
        disk.fill_again()


def until_refused(one: Site, within: float = 20.0) -> Callable[[], None]:
    """What waits, when called, for the first refusal from now on: on a busy machine a fault is soon over."""
    before = one.trial.book.count("refused")

    def refused() -> bool:
        _refill(one)
        return one.trial.book.count("refused") > before

    def wait() -> None:
        processes.wait_until(refused, within, "mail to be refused")

    return wait


@dataclass(frozen=True)
class Result:
    """How long each fault lasted and how often, what was said meanwhile, seconds until mail flowed, and the ledger."""

    rows: tuple[tuple[str, Outcome], ...]

    def __str__(self) -> str:
        lines = [
            f"{name}: {_said(one)}; mail flowed again after {one.recovered_after:.1f} s" for name, one in self.rows
        ]
        return "\n".join([*lines, str(self.rows[-1][1].report)])


def _said(outcome: Outcome) -> str:
    counts = Counter(reply[:9] for reply in outcome.replies)
    return ", ".join(f"{count} x {reply}" for reply, count in sorted(counts.items())) or "nothing was refused"


def run(one: Site, rounds: int = 1, seconds: float = 5.0, say: Callable[[str], None] = lambda _: None) -> Result:
    """Every fault for *seconds*, *rounds* times over. Fails where mail does not flow again, or the law is broken."""
    rows = []
    for name, fault in list(FAULTS.items()) * rounds:
        outcome = under(one, fault, seconds)
        rows.append((name, outcome))
        say(f"{len(rows)}/{len(FAULTS) * rounds} {name}: {_said(outcome)}")
        for user in PEOPLE:  # the disks are small
            one.trial.fetch(user)
    return Result(tuple(rows))

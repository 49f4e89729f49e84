"""`make reliability`: break the gateway in every way we know, judge by the ledger, and say what was found.

By hand: `python -m tests.reliability` runs everything, `python -m tests.reliability kill --rounds 200` one part of it.
"""

import argparse
import datetime
import os
import platform
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e import gateway as gateways
from tests.peers import certificates, dns, processes
from tests.peers.certificates import Certificate
from tests.reliability import failover, faults, kill, power, slow
from tests.reliability.trial import trial

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
TESTS = ("ledger", "failover", "postgres_nodes", "faults_*", "dns_faults", "hostile_peers")
"""Of tests/e2e: those that CI runs, too."""


@dataclass(frozen=True)
class Place:
    """Where a part runs, and how it tells of its progress."""

    home: Path
    certificate: Certificate
    dns: int
    say: Callable[[str], None]
    seed: int


Part = Callable[[Place, int], object]
"""Runs so many rounds, and returns what is to be told; raises where a promise was broken."""


def _tests(place: Place, rounds: int) -> str:
    """The tests of CI, *rounds* times over."""
    files = [str(path) for word in TESTS for path in sorted((ROOT / "tests/e2e").glob(f"test_{word}.py"))]
    argv = [sys.executable, "-m", "pytest", "--no-header", *files]
    for number in range(rounds):
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=3600)
        place.say(f"{number + 1}/{rounds} {_last_line(done.stdout)}")
        assert done.returncode == 0, done.stdout[-6000:]
    return _last_line(done.stdout)


def _kill(place: Place, rounds: int) -> kill.Result:
    with trial(place.certificate, place.dns) as own:
        return kill.run(own, rounds, random.Random(place.seed), place.say)


def _power(place: Place, rounds: int) -> power.Result:
    with trial(place.certificate, place.dns) as own:
        return power.run(own, rounds, place.home, random.Random(place.seed)).check()


def _faults(place: Place, rounds: int) -> faults.Result:
    with faults.site(place.certificate, place.dns) as one:
        return faults.run(one, rounds, say=place.say)


def _failover(place: Place, rounds: int) -> failover.Outcome:
    return failover.run(place.certificate, place.dns, rounds, place.say)


def _slow(place: Place, rounds: int) -> slow.Siege:
    policies = {"antivirus": gateways.lenient("antivirus"), "edge": slow.edge(30)}
    with gateways.run(place.certificate, dns=place.dns, policies=policies, may_fail=True) as own:
        return slow.run(own, rounds, 30, sessions=20).check()


PARTS: Mapping[str, tuple[Part, int, int]] = {
    "tests": (_tests, 1, 3),
    "power": (_power, 50, 200),
    "kill": (_kill, 12, 200),
    "faults": (_faults, 1, 3),
    "failover": (_failover, 2, 10),
    "slow": (_slow, 50, 500),
}
"""Name -> the part, its rounds with --quick, and without: of power mails, of slow peers of each kind."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    rounds: int
    seconds: float
    ok: bool
    told: str


def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments(argv)
    rows = []
    for name in args.parts or PARTS:
        part, few, many = PARTS[name]
        rows.append(_row(name, part, args.rounds or (few if args.quick else many), args.seed))
    print("\n".join(_table(rows)))
    if args.write:
        _write(rows)
    return 0 if all(row.ok for row in rows) else 1


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=f"{', '.join(PARTS)}; none: all")
    parser.add_argument("--quick", action="store_true", help="few rounds of each")
    parser.add_argument("--rounds", type=int, default=0, help="so many, in place of the usual number")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="of all that is left to chance")
    parser.add_argument("--write", action="store_true", help=f"put the figures into {PAGE.relative_to(ROOT)}")
    return parser.parse_args(argv)


def _row(name: str, part: Part, rounds: int, seed: int) -> Row:
    print(f"== {name}: {rounds} rounds, seed {seed}", flush=True)
    began = time.monotonic()
    try:
        with _place(name, seed) as place:
            ok, told = True, str(part(place, rounds))
    except Exception as error:
        ok, told = False, f"{type(error).__name__}: {error}"
    print(f"   {told}", flush=True)
    return Row(name, rounds, time.monotonic() - began, ok, told)


@contextmanager
def _place(name: str, seed: int) -> Iterator[Place]:
    say = lambda line: print(f"   {name}: {line}", flush=True)  # noqa: E731
    with processes.workspace("reliability") as home, dns.run() as names:
        yield Place(home, certificates.self_signed(home), names.port, say, seed)


def _table(rows: Sequence[Row]) -> list[str]:
    head = ["| part | rounds | minutes | holds | what was seen |", "| --- | --- | --- | --- | --- |"]
    return head + [
        f"| {row.name} | {row.rounds} | {row.seconds / 60:.1f} | {'yes' if row.ok else 'NO'} | {_cell(row.told)} |"
        for row in rows
    ]


def _cell(told: str) -> str:
    return re.sub(r"\s*\n\s*", "<br>", told.strip()[:3000]).replace("|", "\\|")


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


def _write(rows: Sequence[Row]) -> None:
    """The table, between the markers of the page; rows of parts that were not run stay."""
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    old, _, after = rest.partition(END)
    new = {row.name: line for row, line in zip(rows, _table(rows)[2:], strict=True)}
    kept = {line.split("|")[1].strip(): line for line in old.splitlines() if line.startswith("| ")}
    lines = [line for name in PARTS if (line := new.get(name) or kept.get(name, ""))]
    today = datetime.datetime.now(datetime.UTC).date()
    system = f"{platform.system()} {platform.release().partition('-')[0]}, Python {platform.python_version()}"
    about = f"Last run: {today}, {os.cpu_count()} cores, {system}; by `make reliability` or parts of it by hand."
    text = "\n".join([BEGIN, "", about, "", *_table([]), *lines, "", END])
    PAGE.write_text(before + text + after, "utf-8")


if __name__ == "__main__":
    sys.exit(main())

"""Every process of the gateway is killed at random under load, round after round: `python -m tests.reliability kill`.

After each round mail has to go through again by itself; at the end the ledger has to balance. Who kills the supervisor
starts it again, as systemd does; everything else the gateway does alone.
"""

import os
import poplib
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tests.peers import processes
from tests.reliability import family
from tests.reliability.ledger import Report
from tests.reliability.trial import PEOPLE, Trial

TARGETS = ("deliver", "pop3", "worker", "nursery", "smtp", "supervisor")
UNDER_LOAD = 0.6
"""Seconds, at most, that a round waits before it kills: any moment of a delivery can be hit."""

Say = Callable[[str], None]


@dataclass
class Result:
    """How often each was killed, seconds until mail went through again, and what the ledger said."""

    killed: Counter[str] = field(default_factory=Counter)
    recovered: list[float] = field(default_factory=list)
    report: Report = field(default_factory=Report)

    def __str__(self) -> str:
        kills = ", ".join(f"{count} {name}" for name, count in sorted(self.killed.items()))
        times = sorted(self.recovered) or [0.0]
        again = f"{times[len(times) // 2]:.1f} s (median), {times[-1]:.1f} s (worst)"
        return f"killed: {kills}; mail flowed again after {again}; {self.report}"


def run(trial: Trial, rounds: int, chance: random.Random, say: Say = lambda _: None) -> Result:
    """*rounds* kills under load, then the account. Fails where mail does not flow again, or the law is broken."""
    result = Result()
    with trial.load(pause=0.2), _reading(trial):
        for number in range(rounds):
            time.sleep(chance.uniform(0, UNDER_LOAD))
            target = _kill(trial, TARGETS[number] if number < len(TARGETS) else chance.choice(TARGETS), chance)
            result.killed[target] += 1
            result.recovered.append(trial.wait_works())
            say(f"{number + 1}/{rounds} {target}: mail flowed again after {result.recovered[-1]:.1f} s")
    result.report = trial.settled(within=120)
    return result


def _kill(trial: Trial, wanted: str, chance: random.Random) -> str:
    """SIGKILL to a process of the kind *wanted*; of several, to any. Only a deliverer's death excuses a copy.

    Workers outlive their nursery, but cannot be told from strangers then, and it comes back when it is needed: where
    there is neither, it hits their smtp process. Returns whom it hit.
    """
    root = trial.gateway.process.pid
    target = wanted if wanted not in ("nursery", "worker") or list(family.of(root, wanted)) else "smtp"
    pids = [root] if target == "supervisor" else _wait_pids(root, target)
    with suppress(ProcessLookupError):  # a worker may just have ended by itself
        os.kill(chance.choice(pids), signal.SIGKILL)
    if target in ("supervisor", "deliver"):
        trial.note(f"a kill of the {target}")
    if target == "supervisor":
        trial.restart()
    return target


def _wait_pids(root: int, target: str) -> list[int]:
    """At least one, though the last one may just have been killed."""
    return processes.wait_until(lambda: list(family.of(root, target)), 60, f"a {target} to kill")


# ---- Somebody reads the mail meanwhile ----------------------------------------------------------------------------


@contextmanager
def _reading(trial: Trial) -> Iterator[None]:
    """A mail client that fetches and deletes the mail of the first of `PEOPLE`, again and again."""
    over = threading.Event()
    thread = threading.Thread(target=_fetch_and_delete, args=(trial, over), name="reader")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(90)


def _fetch_and_delete(trial: Trial, over: threading.Event) -> None:
    while not over.wait(1.0):
        with suppress(OSError, EOFError, poplib.error_proto):  # killed, or IN-USE as long as the dead one's lease lasts
            trial.fetch(PEOPLE[0], most=20)

"""The primary of the database dies under load, a standby takes its place, and both nodes find it by themselves.

`python -m tests.reliability.failover --rounds 10`; what died is built up again as the standby of the next round.
"""

import argparse
import os
import random
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

from tests.e2e import gateway as gateways
from tests.peers import certificates, dns, postgres, processes
from tests.peers.certificates import Certificate
from tests.peers.postgres import Postgres
from tests.reliability.ledger import Report
from tests.reliability.nodes import Nodes, nodes

BEFORE, AFTER = 40, 40
"""Mails that are accepted in each round before the primary dies, and afterwards."""


@dataclass
class Pair:
    """A primary and its standby; `running` ends them."""

    primary: Postgres
    standby: Postgres
    running: ExitStack

    def fail_over(self, pause: float, *, killed: bool) -> None:
        """The primary is gone at once, or is shut down; *pause* seconds later the standby is promoted.

        It does without a standby then, as a cluster manager lets it: there is none as yet.
        """
        if killed:
            self.primary.kill()
        else:
            self.primary.shut_down()
        time.sleep(pause)
        self.standby.promote()
        self.standby.wait_for_standby(wait=False)
        self.primary, self.standby = self.standby, self.primary

    def repair(self) -> None:
        """What died comes back as an empty machine, and follows."""
        again = self.running.enter_context(postgres.standby(self.primary, in_place_of=self.standby))
        self.standby = again
        self.primary.wait_for_standby()


@contextmanager
def pair() -> Iterator[Pair]:
    """A primary whose commits wait for its standby."""
    with postgres.run() as primary, postgres.standby(primary) as standby, ExitStack() as running:
        primary.wait_for_standby()
        yield Pair(primary, standby, running)


@dataclass
class Outcome:
    """What became of all mail, and for how many seconds none was accepted in each round."""

    report: Report = field(default_factory=Report)
    waits: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        median, longest = statistics.median(self.waits), max(self.waits)
        return (
            f"failover: {len(self.waits)} rounds, {self.report}; no mail accepted for {median:.1f} s "
            f"(median; at most {longest:.1f} s)"
        )


def run(
    certificate: Certificate,
    resolver: int,
    rounds: int,
    say: Callable[[str], object] = print,
    *,
    longest_pause: float = 2.0,
) -> Outcome:
    """*rounds* failovers under load, after a kill and after an orderly end in turn; beside the latter a process of ours
    dies too. Somebody notices up to *longest_pause* seconds later. Fails where the ledger does not balance.
    """
    outcome = Outcome()
    with pair() as servers:
        url = postgres.url([servers.primary, servers.standby], servers.primary.create())
        with nodes(certificate, resolver, url) as two:
            sender = two.sender(connections=8)
            sender.start()
            try:
                for number in range(rounds):
                    if number:
                        servers.repair()
                    wait = _round(two, servers, random.uniform(0, longest_pause), killed=number % 2 == 0)
                    outcome.waits.append(wait)
                    say(f"failover: round {number + 1} of {rounds}: no mail accepted for {wait:.1f} s")
            finally:
                sender.stop()
            outcome.report = two.settled(120)
    return outcome


def _round(two: Nodes, servers: Pair, pause: float, *, killed: bool) -> float:
    """For how many seconds no mail was accepted."""
    two.wait_accepted(BEFORE)
    began = time.monotonic()
    if not killed:
        _kill_somebody(two)
    servers.fail_over(pause, killed=killed)
    two.note("a failover of the database")
    two.wait_accepted(AFTER)
    times = sorted(one.at for one in two.book.entries() if one.how == "accepted" and one.at > began)
    return max(after - before for before, after in pairwise([began, *times]))


def _kill_somebody(two: Nodes) -> None:
    """Any process of any node dies as well; its supervisor starts it again."""
    role = random.choice(gateways.ROLES)
    os.kill(random.choice(two.gateways).wait_pid(role), signal.SIGKILL)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.failover", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args(argv)
    with processes.workspace("reliability") as home, dns.run() as names:
        certificate = certificates.self_signed(home)
        print(run(certificate, names.port, args.rounds, lambda line: print(line, flush=True)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`make reliability`, and by hand `python -m tests.reliability kill --rounds 200`: break it, judge, and write it down."""

import argparse
import random
import sys
from collections.abc import Callable, Sequence

from tests.peers import certificates, dns, processes
from tests.reliability import faults, kill
from tests.reliability.trial import trial


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("what", choices=["kill", "faults"])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    args = parser.parse_args(argv)
    say = lambda line: print(line, flush=True)  # noqa: E731
    if args.what == "faults":
        return _faults(args.rounds, say)
    with (
        processes.workspace("reliability") as home,
        dns.run() as names,
        trial(certificates.self_signed(home), names.port) as own,
    ):
        print(kill.run(own, args.rounds, random.Random(args.seed), say))
    return 0


def _faults(rounds: int, say: Callable[[str], None]) -> int:
    with (
        processes.workspace("reliability") as home,
        dns.run() as names,
        faults.site(certificates.self_signed(home), names.port) as one,
    ):
        print(faults.run(one, rounds, say=say))
    return 0


if __name__ == "__main__":
    sys.exit(main())

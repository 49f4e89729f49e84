"""`make reliability`, and by hand `python -m tests.reliability kill --rounds 200`: break it, judge, and write it down."""

import argparse
import random
import sys
from collections.abc import Sequence

from tests.peers import certificates, dns, processes
from tests.reliability import kill
from tests.reliability.trial import trial


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("what", choices=["kill"])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    args = parser.parse_args(argv)
    with (
        processes.workspace("reliability") as home,
        dns.run() as names,
        trial(certificates.self_signed(home), names.port) as own,
    ):
        print(kill.run(own, args.rounds, random.Random(args.seed), lambda line: print(line, flush=True)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

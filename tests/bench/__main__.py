"""`make bench`: measure Gatepost beside Postfix on this machine, with the same messages in the same run."""

import argparse
import json
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tests.bench import authentication, content, corpus, measure, memory, profile, report, stacks, usage
from tests.bench import load as generator
from tests.peers import processes


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    args = _arguments(argv)
    names = [name for name in stacks.ALL if not args.stack or any(word in name for word in args.stack)]
    try:
        stacks.require(names)
    except (pytest.skip.Exception, pytest.fail.Exception) as missing:
        print(f"bench: {missing}", file=sys.stderr)
        return 1
    about = report.machine(Path("/tmp"))
    with processes.workspace("bench-load") as home:
        sample = corpus.sample(args.count, args.seed)
        about |= {"messages": sample.origin, "mean_octets": round(sample.mean_size), "rounds": args.rounds}
        about |= {"per_connection": args.per_connection, "pipelining": args.pipelining}
        generator.write(home / "messages", sample.messages)
        load = measure.Load(home / "messages", args.count, 1, args.per_connection, args.pipelining)
        size = stacks.Size(args.smtp_processes, args.scan_processes)
        if args.profile == "confined":
            profile.show_confined(sample.messages)
            return 0
        if args.profile:
            profile.show(args.profile, replace(load, concurrency=10), replace(size, smtp_processes=1))
            return 0
        results = measured(names, load, args.concurrency, args.rounds, size)
    needs = None if args.quick or args.stack else memory.measure(size)
    costs = [] if args.quick or args.stack else authentication.measure(sample.messages, authentication.ROUNDS)
    read = None if args.quick or args.stack else content.measure(sample.messages[: content.COUNT], content.ROUNDS)
    report.show(results, about)
    if needs and read:
        print("\n".join([*needs.told(), *authentication.told(costs), *content.told(read)]))
    if args.json:
        every = report.as_json(results, about) | ({"memory": asdict(needs)} if needs else {})
        every |= {"authentication": authentication.as_json(costs)} if costs else {}
        every |= {"content": asdict(read)} if read else {}
        args.json.write_text(json.dumps(every, indent=1) + "\n")
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of 100 messages at 10 connections")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there, too")
    parser.add_argument(
        "--profile",
        nargs="?",
        const="smtp",
        choices=("smtp", "deliver", "confined"),
        help="profile this role (smtp) instead",
    )
    parser.add_argument("--stack", action="append", help="only stacks whose name holds this; may be repeated")
    parser.add_argument("--concurrency", type=_numbers, default=[1, 10, 50], help="connections, as 1,10,50")
    parser.add_argument("--count", type=int, default=500, help="messages of each run")
    parser.add_argument("--rounds", type=int, default=3, help="of which the medians are shown")
    parser.add_argument("--per-connection", type=int, default=5, help="messages before QUIT, at most 100")
    parser.add_argument("--pipelining", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--smtp-processes", type=int, default=min(4, os.cpu_count() or 1), help="of Gatepost")
    parser.add_argument("--scan-processes", type=int, default=2, help="of each smtp process")
    parser.add_argument("--seed", type=int, default=1, help="of the sample of messages")
    args = parser.parse_args(argv)
    if args.quick:
        args.count, args.rounds, args.concurrency = 100, 1, [10]
    return args


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def measured(
    names: Sequence[str], load: measure.Load, concurrencies: Sequence[int], rounds: int, size: stacks.Size
) -> list[report.Result]:
    """Each stack in turn, started afresh, in every round: so slow changes of the machine touch all of them alike."""
    runs: dict[tuple[str, int], list[measure.Figures]] = defaultdict(list)
    sizes: dict[str, tuple[float, float, float]] = {}
    for number in range(rounds):
        for name in names:
            print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr)
            with stacks.ALL[name](size) as stack:
                usage.settle(stack.process.pid)
                idle = usage.memory(stack.process.pid)
                warm_up = replace(load, count=measure.WARM_UP, concurrency=max(concurrencies), per_connection=1)
                measure.generate(stack, warm_up)
                for concurrency in concurrencies:
                    runs[name, concurrency].append(measure.run(stack, replace(load, concurrency=concurrency)))
                scanner = usage.memory(stack.scanner.pid) if stack.scanner else 0.0
                sizes[name] = (idle, usage.memory(stack.process.pid), scanner)
    return [
        report.Result(name, concurrency, measure.medians(runs[name, concurrency]), *sizes[name])
        for name in names
        for concurrency in concurrencies
    ]


if __name__ == "__main__":
    sys.exit(main())

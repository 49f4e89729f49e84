"""One run: start the load generator against a stack, wait until all is delivered, and take the figures."""

import json
import math
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from os import getpid
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench import usage
from tests.bench.stacks import MAILBOXES, ROOT, Stack

WARM_UP = 100
"""Messages before the first run, at its highest concurrency: each process that will be needed is started by them."""
DRAIN = 120.0
"""Seconds that a stack has to deliver what it accepted."""
POLL = 0.01


@dataclass(frozen=True)
class Load:
    """How the generator sends; `messages` is its file."""

    messages: Path
    count: int
    concurrency: int
    per_connection: int
    pipelining: bool


@dataclass(frozen=True)
class Figures:
    """Of one run, or the medians of several. Rates per second, times in ms, `others` in cores.

    `others` is what programs beside the benchmark (kernel threads included) took meanwhile: noise.
    """

    accepted: float
    delivered: float
    p50: float
    p95: float
    p99: float
    cpu: float
    scanner: float
    generator: float
    others: float
    replies: dict[str, int] = field(default_factory=dict)
    parts: dict[str, float] = field(default_factory=dict)
    """`cpu` by process; children that have ended count with their parent."""


def run(stack: Stack, load: Load) -> Figures:
    """Send *load* and wait for its last delivery. Raises `RuntimeError` where mail is lost or late."""
    scanners = [stack.scanner.pid] if stack.scanner else []
    already = stack.count() if stack.count else 0
    usage.settle(stack.process.pid, *scanners)
    began, scanned = usage.cpu_by_part(stack.process.pid), usage.cpu(*scanners)
    ours, theirs = usage.cpu(getpid()), usage.busy()
    sent = generate(stack, load)
    taken = len(sent["seconds"])
    drained = _drained(stack, already + taken)
    usage.settle(stack.process.pid, *scanners)
    ended = usage.cpu_by_part(stack.process.pid)
    parts = {name: (value - began.get(name, 0.0)) / taken * 1000 for name, value in ended.items()}
    lasted = time.monotonic() - sent["begin"]
    others = (usage.busy() - theirs - (usage.cpu(getpid()) - ours)) / lasted
    seconds = sorted(sent["seconds"])
    return Figures(
        accepted=taken / (sent["end"] - sent["begin"]),
        delivered=taken / ((drained or sent["end"]) - sent["begin"]),
        p50=_percentile(seconds, 50),
        p95=_percentile(seconds, 95),
        p99=_percentile(seconds, 99),
        cpu=(sum(ended.values()) - sum(began.values())) / taken * 1000,
        scanner=(usage.cpu(*scanners) - scanned) / taken * 1000,
        generator=sent["cpu"] / taken * 1000,
        others=max(0.0, others),
        replies=sent["replies"],
        parts=parts,
    )


def generate(stack: Stack, load: Load) -> dict[str, Any]:
    """Run the generator; its results as it tells them."""
    argv = [sys.executable, "-m", "tests.bench.load", "--port", str(stack.port), "--messages", str(load.messages)]
    argv += ["--count", str(load.count), "--concurrency", str(load.concurrency), "--recipient", stack.recipient]
    argv += ["--recipients", str(MAILBOXES), "--per-connection", str(load.per_connection)]
    argv += ["--pipelining" if load.pipelining else "--no-pipelining"]
    done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    sent: dict[str, Any] = json.loads(done.stdout)
    if not sent["seconds"]:
        raise RuntimeError(
            f"nothing was accepted: {sent['replies']}; the stack said:\n{stack.process.output()[-3000:]}"
        )
    return sent


def _drained(stack: Stack, wanted: int) -> float | None:
    """When the sink had *wanted* messages, by the monotonic clock; None without a sink."""
    if stack.count is None:
        return None
    deadline = time.monotonic() + DRAIN
    while (count := stack.count()) < wanted:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{wanted - count} messages did not arrive in {DRAIN:g} s")
        time.sleep(POLL)
    return time.monotonic()


def _percentile(ordered: Sequence[float], percent: int) -> float:
    """In ms: the smallest value that *percent* of all do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] * 1000


def medians(runs: Sequence[Figures]) -> Figures:
    """Each figure's median; replies are added up, and of the noise the worst counts."""
    values: dict[str, Any] = {}
    for name in asdict(runs[0]).keys() - {"replies", "parts", "others"}:
        values[name] = median(getattr(one, name) for one in runs)
    names = {name for one in runs for name in one.parts}
    parts = {name: median(one.parts.get(name, 0.0) for one in runs) for name in names}
    replies = sum((Counter(one.replies) for one in runs), Counter[str]())
    return Figures(**values, others=max(one.others for one in runs), replies=dict(replies), parts=parts)

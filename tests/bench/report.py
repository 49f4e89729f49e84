"""The results as a table for people and as JSON for scripts. Ratios are against Postfix at the same concurrency."""

import os
import platform
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.measure import Figures
from tests.bench.stacks import BASE

NOISY = 0.15
"""Cores that others may use before a run counts as noisy."""
WIDTH = 160


@dataclass(frozen=True)
class Result:
    """One stack at one concurrency; memory in MB, the same for all its concurrencies."""

    stack: str
    concurrency: int
    figures: Figures
    idle: float
    after: float
    scanner_after: float


def machine(folder: Path) -> dict[str, object]:
    """What the figures depend on: cores, Python, load, and what lies under *folder*."""
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_before": [round(one, 2) for one in os.getloadavg()],
        "filesystem": _filesystem(folder),
    }


def _filesystem(folder: Path) -> str:
    """The type of the file system that holds *folder*: the longest mount point above it."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    above = [(point, kind) for point, kind in mounts if folder.resolve().is_relative_to(point)]
    return max(above, key=lambda mount: len(mount[0]), default=("", "unknown"))[1]


def as_json(results: Sequence[Result], about: Mapping[str, object]) -> dict[str, Any]:
    """Everything, unrounded."""
    return {"about": dict(about), "results": [asdict(result) for result in results]}


def show(results: Sequence[Result], about: Mapping[str, object]) -> None:
    """Print the table and what to think of it."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    table = Table(
        title="Beside Postfix: columns named : give the ratio to it at the same concurrency", header_style="bold"
    )
    table.add_column("stack", no_wrap=True)
    for name in (
        "conns",
        "taken/s",
        ":",
        "sent/s",
        ":",
        "DATA p50",
        "p95",
        "p99 ms",
        "CPU ms",
        ":",
        "in",
        "out",
        "clamd",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("idle MB", "after", "clamd"):
        table.add_column(name, justify="right", no_wrap=True)
    base = {result.concurrency: result.figures for result in results if result.stack == BASE}
    for number, result in enumerate(results):
        if number and results[number - 1].stack != result.stack:
            table.add_section()
        table.add_row(*_row(result, base.get(result.concurrency)))
    console.print(table)
    for note in notes(results, about):
        console.print(note, highlight=False)


def _row(result: Result, base: Figures | None) -> list[str]:
    one = result.figures
    return [
        result.stack,
        str(result.concurrency),
        f"{one.accepted:.0f}",
        _ratio(one.accepted, base.accepted if base else None),
        f"{one.delivered:.0f}",
        _ratio(one.delivered, base.delivered if base else None),
        *(f"{value:.1f}" for value in (one.p50, one.p95, one.p99)),
        f"{one.cpu:.2f}",
        _ratio(one.cpu, base.cpu if base else None),
        *_sides(one),
        f"{one.scanner:.2f}" if result.scanner_after else "",
        f"{result.idle:.0f}",
        f"{result.after:.0f}",
        f"{result.scanner_after:.0f}" if result.scanner_after else "",
    ]


def _sides(one: Figures) -> tuple[str, str]:
    """CPU ms to accept and filter, and to deliver, where the names of processes tell them apart."""
    if "smtp" not in one.parts or "supervisor" not in one.parts:
        return "", ""
    out = one.parts.get("deliver", 0.0)
    return f"{one.cpu - out:.2f}", f"{out:.2f}"


def _ratio(value: float, base: float | None) -> str:
    return f"{value / base:.2f}" if base else ""


def _parts(result: Result) -> str:
    largest = sorted(result.figures.parts.items(), key=lambda part: -part[1])
    named = ", ".join(f"{name} {value:.2f}" for name, value in largest if value >= 0.05)
    return f"CPU ms by process, {result.stack} at {result.concurrency}: {named}"


def notes(results: Sequence[Result], about: Mapping[str, object]) -> list[str]:
    """What a reader has to know before comparing these figures with others."""
    lines = ["  ".join(f"{key}: {value}" for key, value in about.items())]
    codes = sum((Counter(result.figures.replies) for result in results), Counter[str]())
    lines.append(f"replies to the final dot: {dict(codes)}")
    lines += [_parts(result) for result in results if result.concurrency == results[0].concurrency]
    worst = max(results, key=lambda result: result.figures.others)
    others = f"other programs took up to {worst.figures.others:.2f} cores ({worst.stack}, {worst.concurrency} conns)"
    if worst.figures.others > NOISY:
        lines.append(
            f"[bold yellow]Noisy machine: {others}. Compare CPU and ratios, not rates; better, run it again.[/]"
        )
    else:
        lines.append(f"Quiet machine: {others}.")
    if about.get("filesystem") in {"tmpfs", "ramfs"}:
        lines.append(
            "[bold yellow]The queues lie in memory: rates say nothing about a disk. Set TMPDIR? See README.[/]"
        )
    return lines

"""What the command prints: tables for people, JSON for scripts. Strangers' text never reaches a terminal as it came.

Every text is cleaned and printed as plain text, so neither an escape sequence nor markup in a subject does anything.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway import events
from gateway.toml import Fault

MAX_LINE = 4000
PIPE_WIDTH = 240
"""Columns where nobody looks at them: wide enough that a line of a table stays a line."""


def text(value: object, style: str = "") -> Text:
    """*value* on one line, cleaned, never read as markup."""
    return Text(events.clean(str(value), MAX_LINE), style)


def say(*words: object, style: str = "") -> None:
    """One line on standard output."""
    _console().print(text(" ".join(map(str, words)), style), soft_wrap=True)


class _Paper(io.StringIO):
    """In place of standard output: it is told apart from it by nobody who prints."""

    def isatty(self) -> bool:
        return bool(sys.__stdout__ and sys.__stdout__.isatty())


def rendered(speak: Callable[[], object]) -> str:
    """What *speak* would print on standard output, as it would look there."""
    with contextlib.redirect_stdout(_Paper()) as paper:
        speak()
    return paper.getvalue()


def complain(*words: object) -> None:
    """One line on standard error."""
    _console(error=True).print(text(" ".join(map(str, words)), "red"), soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], whole: Collection[str] = ()) -> None:
    """A table; the last column takes the room that is left. What stands in the columns *whole* is never broken."""
    heading = text(title, "bold") if title else None
    made = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for number, column in enumerate(columns):
        last = number == len(columns) - 1
        made.add_column(text(column), overflow="fold", no_wrap=column in whole, ratio=1 if last else None)
    for row in rows:
        made.add_row(*(one if isinstance(one, Text) else text(one) for one in row))
    _console().print(made)


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Names and values, one pair a line; empty values are left out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        if value not in ("", None):
            grid.add_row(text(name), value if isinstance(value, Text) else text(value))
    _console().print(grid)


def as_json(value: object) -> None:
    """*value* as one JSON document, ASCII only."""
    print(json.dumps(plain(value), indent=2, ensure_ascii=True))  # noqa: T201 - scripts read it


def plain(value: Any) -> Any:
    """*value* as JSON knows it: values of ours by their fields, sets sorted, bytes as text, all else as a string."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def faults(found: Iterable[Fault]) -> None:
    """Every fault: its place on a line by itself, as compilers write it, which no terminal is too narrow for."""
    every = list(found)
    say(f"{len(every)} {'fault' if len(every) == 1 else 'faults'}", style="bold")
    for one in every:
        say(f"{one.file}:{one.line}" if one.line else one.file, style="bold")
        say("  ", f"{one.key and f'{one.key}: '}{one.problem}{one.cure and f' → {one.cure}'}")


def moment(seconds: float) -> str:
    """*seconds* since the epoch as local time, or "" for none."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else ""


def lately(seconds: float, now: float) -> str:
    """The same for lists, in as little room as tells it: the time of today, the day and time of this year, the day."""
    then, today = time.localtime(seconds), time.localtime(now)
    if then[:3] == today[:3]:
        return time.strftime("%H:%M:%S", then)
    return time.strftime("%m-%d %H:%M" if then.tm_year == today.tm_year else "%Y-%m-%d", then)


def span(seconds: float) -> str:
    """A length of time for people: "45 s", "12 min", "3.5 h", "2.1 d"."""
    if seconds < 120:
        return f"{max(seconds, 0):.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} d"


def octets(count: int) -> str:
    """A size for people."""
    if count < 10_000:
        return f"{count} B"
    return f"{count / 1024:.0f} KB" if count < 10 << 20 else f"{count / (1 << 20):.0f} MB"


def _console(*, error: bool = False) -> Console:
    stream = sys.stderr if error else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False)

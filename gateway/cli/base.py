"""What the verbs share: what they are lent, their options, the store, and how they ask and report.

Nothing here knows a verb.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Protocol

import typer
from rich.text import Text
from sqlalchemy import Connection

from gateway import config, terminal
from gateway.config import Config
from gateway.model import Action, Envelope, Session
from gateway.pipeline.outcome import Explained
from gateway.roles import Role
from gateway.store import tracking
from gateway.store.engine import Store

if TYPE_CHECKING:
    from gateway.delivery.reporting import Draft
    from gateway.dns import Resolver
    from gateway.store.observations import Sent

DONE, REFUSED, USAGE, UNREACHABLE = 0, 1, 2, 3
INTERRUPTED = 130

CODES = "Exit codes: 0 done · 1 faults found, or refused · 2 called wrongly · 3 out of reach now, try again later."


class OpenStore(Protocol):
    """Opens the store; makes it first where that is asked for."""

    def __call__(self, made: Config, /, *, create: bool = False) -> AbstractContextManager[Store]: ...


class SendReports(Protocol):
    """Sends the reports of *domain*, or of all, of days that ended by *until*; or with *dry* composes the next ones.

    What becomes of each is told as it happens. Returns the domains whose reports have to wait for the DNS.
    """

    def __call__(
        self, made: Config, tell: Callable[[Sent | Draft], None], /, *, domain: str, until: float | None, dry: bool
    ) -> Sequence[str]: ...


@dataclass
class Wiring:
    """What the composition root lends to the verbs, and which configuration file was named."""

    store: OpenStore
    supervise: Callable[[Config, Path | None], None]
    serve: Callable[[Config, Role], None]
    explain: Callable[[Config, Session, Envelope, BinaryIO], Explained]
    dns: Callable[[Config], Resolver]
    try_store: Callable[[Config], None]
    report: SendReports
    named: Path | None = None

    @property
    def path(self) -> Path | None:
        """The configuration file that applies; None for the embedded default."""
        return config.find(self.named)

    def config(self) -> Config:
        """The configuration; `FaultyFiles` where it cannot be used."""
        return config.load(self.path)


def new_app(summary: str) -> typer.Typer:
    """A command that has verbs of its own, with help like all others."""
    return typer.Typer(
        help=summary,
        epilog=CODES,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )


Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
MAX_NUMBER = (1 << 63) - 1
"""The largest number that a delivery can have in the store."""
Ids = Annotated[list[int], typer.Argument(help="Numbers of deliveries, as the list shows them.", max=MAX_NUMBER)]
Limit = Annotated[int, typer.Option(help="At most so many lines.", min=1, max=tracking.LIMIT)]


def wiring_of(ctx: typer.Context) -> Wiring:
    """What `main` was lent."""
    wiring: Wiring = ctx.obj
    return wiring


@contextmanager
def reading(ctx: typer.Context) -> Iterator[Connection]:
    """A snapshot of the store."""
    with _store(ctx) as store, store.reading() as conn:
        yield conn


@contextmanager
def writing(ctx: typer.Context, *, create: bool = False) -> Iterator[Connection]:
    """A transaction; when it has ended well, whoever delivers is woken."""
    with _store(ctx, create=create) as store:
        with store.begin() as conn:
            yield conn
        store.ring()


@contextmanager
def _store(ctx: typer.Context, *, create: bool = False) -> Iterator[Store]:
    wiring = wiring_of(ctx)
    with wiring.store(wiring.config(), create=create) as store:
        yield store


def me() -> str:
    """Who types: the name that the life of a mail keeps for what was done to it by hand; at worst the user's number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def ask(question: str, *, yes: bool) -> None:
    """Go on where *yes*, or where the question is answered so; otherwise exit 1, with nothing done."""
    if not yes and not typer.confirm(question, err=True):
        raise typer.Exit(REFUSED)


def report(
    done: Mapping[int, bool] | Mapping[int | str, bool], well: str, badly: str, *, json: bool, count: int | None = None
) -> None:
    """Say for each delivery what happened to it; exit 1 when one was refused."""
    if json:
        terminal.as_json(
            {"done": [n for n, ok in done.items() if ok], "refused": [n for n, ok in done.items() if not ok]}
        )
    else:
        for number, ok in done.items():
            (terminal.say if ok else terminal.complain)(f"{number} {well if ok else badly}")
        if count is not None and not done:
            terminal.say(f"{count} {well}" if count == 1 else f"{count} are tried now")
    raise typer.Exit(DONE if all(done.values()) else REFUSED)


def word(action: Action) -> Text:
    """An action in its colour: green passes, yellow passes in part, red does not."""
    colours = {Action.ACCEPT: "green", Action.TAG: "green", Action.STRIP: "yellow"}
    return Text(action.value, colours.get(action, "red"))

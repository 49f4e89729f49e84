"""The `gatepost` command. Thin: every verb calls one function elsewhere and prints what it returns.

The exit code says what happened: 0 done, 1 faults found or something refused, 2 called wrongly, 3 out of reach for now.
No traceback and no raw text of a stranger reaches the terminal.

Each module has the verbs of one kind, and `base` what they share; here they are put together.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from gateway import roles, supervisor, terminal
from gateway.cli import accounts, dkim, dmarc, doctor, lives, messages, quarantine, queue, running, told
from gateway.cli.base import DONE, INTERRUPTED, REFUSED, UNREACHABLE, USAGE, Wiring, new_app, wiring_of
from gateway.model import Permanent, Temporary
from gateway.toml import FaultyFiles

__all__ = ["DONE", "INTERRUPTED", "REFUSED", "UNREACHABLE", "USAGE", "Wiring", "app", "ended", "main"]

app = new_app("A mail gateway: filters find, policies decide, the gateway acts.")
app.add_typer(running.app)
app.add_typer(messages.app)
app.add_typer(lives.app)
app.add_typer(queue.app, name="queue")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(accounts.app, name="account")
app.add_typer(dkim.app, name="dkim")
dmarc.app.add_typer(told.app)
app.add_typer(dmarc.app, name="dmarc")
app.add_typer(doctor.app, name="doctor")


def main(wiring: Wiring, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one verb and exit. Whatever goes wrong is told in a line, never as a traceback."""
    try:
        app(args=arguments, obj=wiring, prog_name="gatepost")
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - see `ended`
        sys.exit(ended(error))
    sys.exit(DONE)


def ended(error: BaseException) -> int:
    """The exit code that *error* leads to, when it was told in a line."""
    match error:
        case KeyboardInterrupt():
            return INTERRUPTED
        case BrokenPipeError():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: the last flush must work
            return DONE
        case FaultyFiles():
            terminal.faults(error.faults)
            return REFUSED
        case Permanent() | roles.CannotListen() | supervisor.AlreadyRunning():
            terminal.complain(error)
            return REFUSED
        case Temporary():
            terminal.complain(error)
        case OSError():
            terminal.complain(f"{error.filename or 'gatepost'}: {error.strerror or type(error).__name__}")
        case _:
            terminal.complain(_fault(error))
    return UNREACHABLE


def _fault(error: BaseException) -> str:
    """A fault of ours; the place is told, so that it can be mended."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(frame.filename).name}:{frame.lineno}"
    return f"a fault of gatepost itself: {type(error).__name__}: {error} (at {place})"


@app.callback()
def _options(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(help="gatepost.toml to use. Otherwise $GATEPOST_CONFIG, ./gatepost.toml, /etc/gatepost/."),
    ] = None,
) -> None:
    wiring_of(ctx).named = config

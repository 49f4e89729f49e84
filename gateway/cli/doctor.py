"""The verbs that prove what is promised, by trying it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import typer
from rich.text import Text

from gateway import terminal
from gateway.cli.base import CODES, DONE, REFUSED, Json, new_app, wiring_of
from gateway.config import Config
from gateway.pipeline import policy

app = new_app("Prove what is promised, by trying it.")


@app.callback()
def _group() -> None:
    """A group even while it has one verb only."""


@app.command(epilog=CODES)
def sandbox(ctx: typer.Context, json: Json = False) -> None:
    """Start a process as those that read mail are, and have it try whatever it may not: files, network, programs.

    Exits 0 when everything was denied, 1 when something was possible.

    Example: gatepost doctor sandbox --json | jq '.attempts[] | select(.denied | not)'
    """
    from gateway.pipeline import confinement, trial  # noqa: PLC0415 - they bring the parser along, for this verb alone

    made = wiring_of(ctx).config()
    policies = policy.load(made.server.policies, None)
    found = asyncio.run(trial.run(policies, _store(made), _key(made)))
    held = all(one.denied for one in found)
    if json:
        terminal.as_json({"kernel": confinement.kernel(), "held": held, "attempts": found})
    else:
        marks = {True: Text("denied", "green"), False: Text("POSSIBLE!", "bold red")}
        terminal.table("", ("attempt", "", "by"), ((one.attempt, marks[one.denied], one.how) for one in found))
        terminal.say(f"this kernel gives {confinement.kernel().words}")
    raise typer.Exit(DONE if held else REFUSED)


def _key(made: Config) -> Path:
    """The key of TLS, which may not be there yet."""
    return made.tls.key or made.server.data / "tls/key.pem"


def _store(made: Config) -> Path | None:
    """The file of the store, where it is one."""
    url = made.store_url
    return Path(url.partition("///")[2]) if url.startswith("sqlite:") else None

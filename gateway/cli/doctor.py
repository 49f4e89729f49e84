"""The verbs that prove what is promised, by trying it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from gateway import routes, terminal
from gateway.cli.base import CODES, DONE, REFUSED, UNREACHABLE, Json, new_app, wiring_of
from gateway.config import Config
from gateway.dkim.ring import Ring
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


@app.command(epilog=CODES)
def dns(
    ctx: typer.Context,
    domains: Annotated[
        list[str] | None, typer.Argument(help="Only these domains; otherwise all of routes.toml and all with keys.")
    ] = None,
    address: Annotated[
        list[str] | None, typer.Option(help="An address that sends our mail; otherwise those of the host name.")
    ] = None,
    json: Json = False,
) -> None:
    """Look at ourselves as a receiver would: host name, PTR, MX, SPF, DKIM keys and DMARC, and say what to publish.

    Exits 1 where something is wrong, 3 where the DNS could not be asked.

    Examples: gatepost doctor dns · gatepost doctor dns example.org --address 192.0.2.10
    """
    from gateway import presence  # noqa: PLC0415 - it brings the filters along, for this verb alone

    made = wiring_of(ctx).config()
    resolver, ring = wiring_of(ctx).dns(made), Ring(made.keys_dir)
    hostname = made.server.hostname.lower()
    policies = policy.load(made.server.policies, replace(policy.NO_TOOLS, dns=resolver, hostname=hostname))
    ours = sorted({*routes.ours(policies.stages.routes), *ring.domains()})
    asked = [routes.normal(one) for one in domains or ()] or ours
    us = presence.Presence(resolver, hostname, asked, ring, policies, [_address(one) for one in address or ()])
    found = asyncio.run(us.sights())
    if json:
        terminal.as_json(found)
    else:
        colours = {"well": "green", "wrong": "bold red"}
        rows = ((one.name, one.kind, Text(one.state, colours.get(one.state, "yellow")), one.words) for one in found)
        terminal.table("", ("name", "record", "", "what there is, or what to do"), rows)
    exits = {presence.State.WRONG: REFUSED, presence.State.UNKNOWN: UNREACHABLE}
    raise typer.Exit(exits.get(presence.worst(found), DONE))


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise typer.BadParameter(f"{text} is no address, like 192.0.2.10") from None


def _key(made: Config) -> Path:
    """The key of TLS, which may not be there yet."""
    return made.tls.key or made.server.data / "tls/key.pem"


def _store(made: Config) -> Path | None:
    """The file of the store, where it is one."""
    url = made.store_url
    return Path(url.partition("///")[2]) if url.startswith("sqlite:") else None

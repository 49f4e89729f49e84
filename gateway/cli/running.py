"""The verbs of the gateway itself: start it, check what it is told, see how it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from gateway import config, health, stages, terminal, toml
from gateway.cli import files
from gateway.cli.base import CODES, DONE, REFUSED, UNREACHABLE, Json, Wiring, wiring_of
from gateway.config import Config
from gateway.model import Temporary
from gateway.pipeline import policy
from gateway.roles import Role
from gateway.store.failures import Unfit
from gateway.toml import Fault, FaultyFiles

app = typer.Typer()


@app.command(epilog=CODES)
def run(
    ctx: typer.Context,
    role: Annotated[Role | None, typer.Argument(help="One role only, as under systemd.")] = None,
) -> None:
    """Start the gateway; Ctrl-C stops it.

    Without a configuration file it listens on loopback, keeps its data in ./var, and says what to type next.

    Example: gatepost --config /etc/gatepost/gatepost.toml run
    """
    wiring = wiring_of(ctx)
    if role is None:
        if found := list(files.of_config(wiring.config(), wiring.path)):
            raise FaultyFiles(found)
        wiring.supervise(wiring.config(), wiring.path)
    else:
        wiring.serve(wiring.config(), role)


@app.command(epilog=CODES)
def check(ctx: typer.Context, json: Json = False) -> None:
    """Check gatepost.toml and every policy file, and list every fault with its place and cure.

    Example: gatepost check && systemctl reload gatepost
    """
    wiring = wiring_of(ctx)
    found = _faults(wiring)
    if json:
        terminal.as_json({"faults": found})
    elif found:
        terminal.faults(found)
    else:
        count = len(stages.files(wiring.config().server.policies))
        terminal.say(f"all good: {wiring.path or 'the embedded configuration'}, {count} policies", style="green")
    raise typer.Exit(REFUSED if found else DONE)


def _faults(wiring: Wiring) -> list[Fault]:
    faults: list[Fault] = []
    path = wiring.path
    try:
        made = config.load(path)
        folder = made.server.policies
        faults += [*files.of_config(made, path), *_store_faults(wiring, made)]
    except FaultyFiles as error:
        faults += error.faults
        folder = _policy_folder(path)
    try:
        faults += files.of_policies(policy.load(folder, None), folder)
    except FaultyFiles as error:
        faults += error.faults
    return faults


def _policy_folder(path: Path | None) -> Path | None:
    """The folder that a faulty configuration names: its policies can be checked all the same."""
    try:
        named = toml.read(path)[0]["server"]["policies"] if path else None
        return Path(named) if named and Path(named).is_dir() else None
    except (FaultyFiles, KeyError, TypeError, ValueError):
        return None


def _store_faults(wiring: Wiring, made: Config) -> list[Fault]:
    """A server that the configuration names is tried out; a file is made when it is needed."""
    if made.store_url.startswith("sqlite:"):
        return []
    try:
        wiring.try_store(made)
    except Temporary as error:
        key, cure = (
            (error.key, error.cure) if isinstance(error, Unfit) else ("store.url", "see the log of the database")
        )
        text = wiring.path.read_text("utf-8") if wiring.path else ""
        line = toml.line_of(text, tuple(key.split("."))) or toml.line_of(text, ("store",))
        return [Fault(str(wiring.path), line, key, str(error), cure)]
    return []


@app.command(epilog=CODES)
def status(ctx: typer.Context, json: Json = False) -> None:
    """Show how the gateway is: processes, store, queue, scanner, keys, reports, disks, DNS, certificate, policies.

    Exits 0 when all is well, 1 when something wants attention, 3 when the gateway does not run.

    Example: gatepost status --json | jq '.checks[] | select(.ok | not)'
    """
    wiring = wiring_of(ctx)
    made = wiring.config()
    running = health.runs(made)
    checks = health.look(made, wiring.store, wiring.dns(made))
    if json:
        terminal.as_json({"running": running, "checks": checks})
    else:
        marks = {True: Text("ok", "green"), False: Text("!!", "bold red")}
        terminal.table("", ("what", "", "how it is"), ((one.name, marks[one.ok], one.text) for one in checks))
    well = all(one.ok for one in checks)
    raise typer.Exit(UNREACHABLE if not running else DONE if well else REFUSED)

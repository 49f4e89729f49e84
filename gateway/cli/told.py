"""The verbs of DMARC for what we report to others: what went out, and what is to go out now (RFC 9990)."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from gateway import routes, terminal
from gateway.cli.base import CODES, UNREACHABLE, Json, Limit, reading, wiring_of
from gateway.store import observations
from gateway.store.observations import DAY, Sent

if TYPE_CHECKING:
    from gateway.delivery.reporting import Draft

app = typer.Typer()

_NONE = (
    "No report has gone out yet. They go out the day after mail has come from a domain whose DMARC record has a rua; "
    "see send in reports.toml."
)
Domain = Annotated[str, typer.Argument(help="Only this domain.")]


@app.command(epilog=CODES)
def sent(ctx: typer.Context, domain: Domain = "", limit: Limit = 50, json: Json = False) -> None:
    """List the reports that we sent to owners of domains, the latest first, and those that nobody wanted.

    Examples: gatepost dmarc sent · gatepost dmarc sent example.org --json
    """
    with reading(ctx) as conn:
        found = observations.sent(conn, limit, routes.normal(domain))
    if json:
        terminal.as_json(found)
    elif found:
        columns = ("of (UTC)", "about", "mails", "sent at", "outcome")
        terminal.table("", columns, map(_sent_row, found))
    else:
        terminal.say(_NONE)


def _sent_row(one: Sent) -> tuple[object, ...]:
    return _day(one.begins), one.domain, one.mails, terminal.moment(one.at), one.outcome


@app.command(epilog=CODES)
def send(
    ctx: typer.Context,
    domain: Domain = "",
    day: Annotated[str, typer.Option(help="No later day than this one (UTC), as in 2026-11-23.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Send nothing: say what would go out; with DOMAIN, show the report.")
    ] = False,
    json: Json = False,
) -> None:
    """Send the reports on days that have ended now, without waiting for their time.

    The gateway sends them by itself; this is to try it out, or not to wait. A day is told once, and the day that has
    begun (UTC) never. Exits 3 where some have to wait, because the DNS cannot tell whether an address wants them.

    Examples: gatepost dmarc send --dry-run · gatepost dmarc send example.org --dry-run · gatepost dmarc send
    """
    told: list[Sent | Draft] = []
    wiring, until = wiring_of(ctx), _end_of(day) if day else None
    tell = told.append if json else lambda one: _tell(one, in_full=bool(domain))
    waiting = wiring.report(wiring.config(), tell, domain=routes.normal(domain), until=until, dry=dry_run)
    if json:
        terminal.as_json({"dry_run": dry_run, "reports": list(map(_plain, told)), "waiting": waiting})
    else:
        terminal.say("That is all." if not waiting else f"The DNS cannot tell now where these go: {', '.join(waiting)}")
    raise typer.Exit(UNREACHABLE if waiting else 0)


def _end_of(day: str) -> float:
    try:
        return datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).timestamp() + DAY
    except (ValueError, OverflowError):
        raise typer.BadParameter("a day is written like 2026-11-23") from None


def _tell(one: Sent | Draft, *, in_full: bool) -> None:
    if isinstance(one, Sent):
        terminal.say(f"{_day(one.begins)} {one.domain}: {_mails(one.mails)}, {one.outcome}")
        return
    where = ", ".join(one.to.addresses) or "nobody"
    why = f" (not to {'; '.join(one.to.ignored)})" if one.to.ignored else ""
    terminal.say(f"{_day(one.about.begins)} {one.about.domain}: {_mails(one.mails)}, to {where}{why}")
    if in_full and one.file:
        _show(gzip.decompress(one.file).decode().splitlines())


def _show(lines: Iterable[str]) -> None:
    for line in lines:
        terminal.say(line)


def _plain(one: Sent | Draft) -> dict[str, object]:
    if isinstance(one, Sent):
        return asdict(one)
    about = {"domain": one.about.domain, "begins": one.about.begins, "ends": one.about.ends, "mails": one.mails}
    return {**about, "to": one.to.addresses, "ignored": one.to.ignored}


def _mails(count: int) -> str:
    return "1 mail" if count == 1 else f"{count} mails"


def _day(begins: float) -> str:
    return datetime.fromtimestamp(begins, UTC).strftime("%Y-%m-%d")

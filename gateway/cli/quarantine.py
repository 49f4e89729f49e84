"""The verbs of the quarantine: see what is held and why, release it, drop it."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway import terminal
from gateway.cli.base import CODES, MAX_NUMBER, Ids, Json, Limit, Yes, ask, me, new_app, reading, report, writing
from gateway.cli.lives import show_lives
from gateway.model import State
from gateway.store import quarantine, queue, tracking

app = new_app("What is held for review.")


@app.command("list", epilog=CODES)
def quarantine_list(ctx: typer.Context, limit: Limit = 50, json: Json = False) -> None:
    """List what is held, newest first.

    Example: gatepost quarantine list
    """
    with reading(ctx) as conn:
        held = quarantine.list(conn, limit)
        total = queue.counts(conn)[State.HELD]
    if json:
        terminal.as_json(held)
        return
    columns = ("number", "received", "from", "to", "size", "score", "subject")
    terminal.table(f"{total} held", columns, map(_held_row, held))


def _held_row(row: tracking.Tracked) -> tuple[object, ...]:
    came, size = terminal.moment(row.received_at), terminal.octets(row.size)
    return row.delivery_id, came, row.sender or "<>", row.recipient, size, f"{row.score:.1f}", row.subject


@app.command("show", epilog=CODES)
def quarantine_show(
    ctx: typer.Context, number: Annotated[int, typer.Argument(max=MAX_NUMBER)], json: Json = False
) -> None:
    """Show why a mail is held, and everything else that is known of it.

    Example: gatepost quarantine show 12
    """
    with reading(ctx) as conn:
        life = quarantine.show(conn, number)
    show_lives([life] if life else [], f"{number} is not held", json=json)


@app.command("release", epilog=CODES)
def quarantine_release(ctx: typer.Context, numbers: Ids, json: Json = False) -> None:
    """Deliver held mail after all.

    Example: gatepost quarantine release 12 13
    """
    with writing(ctx) as conn:
        done = {n: quarantine.release(conn, n, by=me()) for n in numbers}
    report(done, "is released", "is not held", json=json)


@app.command("drop", epilog=CODES)
def quarantine_drop(ctx: typer.Context, numbers: Ids, yes: Yes = False, json: Json = False) -> None:
    """Drop held mail. Nobody is told, and it cannot be undone.

    Example: gatepost quarantine drop 12 --yes
    """
    ask(f"Drop {len(numbers)} for ever, without telling anybody?", yes=yes)
    with writing(ctx) as conn:
        done = {n: quarantine.drop(conn, n, by=me()) for n in numbers}
    report(done, "is dropped", "is not held", json=json)

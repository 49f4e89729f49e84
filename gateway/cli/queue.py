"""The verbs of the queue: see what waits to be delivered, try it now, hold it, drop it."""

from __future__ import annotations

from typing import Annotated

import typer
from sqlalchemy import Connection

from gateway import terminal
from gateway.cli.base import CODES, MAX_NUMBER, Ids, Json, Limit, Yes, ask, me, new_app, reading, report, writing
from gateway.cli.lives import show_lives
from gateway.model import Delivery, State
from gateway.store import queue, tracking

app = new_app("What waits to be delivered.")


@app.command("list", epilog=CODES)
def queue_list(ctx: typer.Context, limit: Limit = 50, json: Json = False) -> None:
    """List what waits to be delivered, newest first.

    Example: gatepost queue list --limit 10
    """
    with reading(ctx) as conn:
        waiting = queue.list_deliveries(conn, [State.QUEUED], limit)
        total = queue.counts(conn)[State.QUEUED]
    if json:
        terminal.as_json(waiting)
        return
    columns = ("number", "mail", "from", "to", "size", "tries", "next try", "last reply")
    terminal.table(f"{total} queued", columns, map(_queue_row, waiting))


def _queue_row(one: Delivery) -> tuple[object, ...]:
    size, next_ = terminal.octets(one.size), terminal.moment(one.next_attempt)
    to = one.recipient.address
    return one.id, one.message_id, one.sender or "<>", to, size, one.attempts, next_, one.last_reply


@app.command("show", epilog=CODES)
def queue_show(ctx: typer.Context, number: Annotated[int, typer.Argument(max=MAX_NUMBER)], json: Json = False) -> None:
    """Show the whole life of the mail that a delivery belongs to.

    Example: gatepost queue show 12
    """
    with reading(ctx) as conn:
        delivery = queue.get(conn, number)
        life = tracking.life(conn, delivery.message_id) if delivery else None
    show_lives([life] if life else [], f"there is no delivery {number}", json=json)


@app.command("retry", epilog=CODES)
def queue_retry(
    ctx: typer.Context,
    numbers: Annotated[list[int] | None, typer.Argument(help="Numbers of deliveries.", max=MAX_NUMBER)] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that wait.")] = False,
    json: Json = False,
) -> None:
    """Try deliveries now, without waiting for their time.

    Examples: gatepost queue retry 12 13 · gatepost queue retry --all
    """
    if bool(numbers) == everything:
        raise typer.BadParameter("name deliveries, or say --all")
    with writing(ctx) as conn:
        done = {n: bool(queue.retry_now(conn, n, by=me())) for n in numbers or ()}
        count = queue.retry_now(conn, None, by=me()) if everything else sum(done.values())
    report(done, "is tried now", "is not queued, or is being sent right now", json=json, count=count)


@app.command("hold", epilog=CODES)
def queue_hold(ctx: typer.Context, numbers: Ids, json: Json = False) -> None:
    """Take deliveries out of the queue and into the quarantine.

    Example: gatepost queue hold 12
    """
    with writing(ctx) as conn:
        done = {n: queue.hold(conn, n, by=me()) for n in numbers}
    report(done, "is held", "is not queued, or is being sent right now", json=json)


@app.command("drop", epilog=CODES)
def queue_drop(ctx: typer.Context, numbers: Ids, yes: Yes = False, json: Json = False) -> None:
    """Give deliveries up. Nobody is told, and it cannot be undone.

    Example: gatepost queue drop 12 --yes
    """
    ask(f"Drop {len(numbers)} for ever, without telling anybody?", yes=yes)
    with writing(ctx) as conn:
        done = {n: _is(conn, n, State.QUEUED) and queue.drop(conn, n, by=me()) for n in numbers}
    report(done, "is dropped", "is not queued, or is being sent right now", json=json)


def _is(conn: Connection, number: int, state: State) -> bool:
    delivery = queue.get(conn, number)
    return delivery is not None and delivery.state is state

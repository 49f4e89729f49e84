"""The verb that finds mails, and the whole life of one of them, as every list shows it."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from gateway import terminal
from gateway.cli.base import CODES, Json, Limit, reading, word
from gateway.model import Action, Delivery, Permanent, State, Verdict
from gateway.store import tracking

app = typer.Typer()


@app.command(epilog=CODES)
def track(
    ctx: typer.Context,
    id: Annotated[str, typer.Argument(help="A mail's id or Message-ID: show its whole life.")] = "",  # noqa: A002
    sender: Annotated[str, typer.Option("--from", help="Any part of the sender.")] = "",
    to: Annotated[str, typer.Option(help="Any part of a recipient.")] = "",
    subject: Annotated[str, typer.Option(help="Any part of the subject.")] = "",
    since: Annotated[str, typer.Option(help="Received after: 2h, 3d, 2026-01-31, '2026-01-31 14:00'.")] = "",
    until: Annotated[str, typer.Option(help="Received before, written alike.")] = "",
    state: Annotated[State | None, typer.Option(help="What has become of it.")] = None,
    action: Annotated[Action | None, typer.Option(help="What the verdict was.")] = None,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """Find messages, newest first; with an ID, show one mail's whole life.

    Examples: gatepost track --from boss@ --since 2h · gatepost track --action reject --json · gatepost track ID
    """
    filters: dict[str, Any] = {"sender": sender, "recipient": to, "subject": subject, "state": state, "action": action}
    now = time.time()
    filters |= {"since": _moment(since, now), "until": _moment(until, now)}
    with reading(ctx) as conn:
        found = tracking.find(conn, id=id, limit=limit, **filters)
        lives = [tracking.life(conn, one) for one in dict.fromkeys(row.message_id for row in found)] if id else []
    if id:
        show_lives([life for life in lives if life is not None], f"no mail has the id {id}", json=json)
    elif json:
        terminal.as_json(found)
    else:
        terminal.table("", ("received", "id", "from", "to", "action", "state", "subject"), map(_tracked_row, found))


def _tracked_row(row: tracking.Tracked) -> tuple[object, ...]:
    came = terminal.moment(row.received_at)
    return came, row.message_id, row.sender or "<>", row.recipient, word(row.action), row.state.value, row.subject


def _moment(written: str, now: float) -> float | None:
    """Seconds since the epoch for "2h" (ago) or a local date and time; None for ""."""
    if not written:
        return None
    if match := re.fullmatch(r"(\d{1,6})([smhd])", written):
        return now - int(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]
    try:
        return datetime.datetime.fromisoformat(written).astimezone().timestamp()
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{written!r} is no time: write 2h, 3d, 2026-01-31 or '2026-01-31 14:00'") from None


def show_lives(lives: Sequence[tracking.Life], nothing: str, *, json: bool) -> None:
    """Print all that is known of these mails; where there are none, `Permanent` with the sentence *nothing*."""
    if not lives:
        raise Permanent(nothing)
    if json:
        terminal.as_json(lives)
        return
    for life in lives:
        _show_life(life)


def _show_life(life: tracking.Life) -> None:
    mail, session = life.message, life.message.session
    terminal.facts(
        [
            ("id", mail.id),
            ("received", terminal.moment(mail.received_at)),
            ("from", mail.envelope.sender or "<>"),
            ("peer", f"{session.peer} ({session.helo or 'no HELO'}) at {session.listener}, {session.tls or 'no TLS'}"),
            ("user", session.user),
            ("From:", mail.header_from),
            ("Subject:", mail.subject),
            ("Message-ID:", mail.header_message_id),
            ("size", f"{terminal.octets(mail.size)}{'' if mail.has_bytes else ', no longer kept'}"),
            ("DMARC report", life.evidence.get("report", "")),
        ]
    )
    for fate in life.deliveries:
        _show_fate(fate.delivery, fate.verdict)
    happenings = [(terminal.moment(x.at), x.delivery_id or "", x.kind, x.text) for x in life.events]
    terminal.table("What happened", ("when", "delivery", "what", "more"), happenings)


def _show_fate(delivery: Delivery, verdict: Verdict) -> None:
    next_ = terminal.moment(delivery.next_attempt) if delivery.state is State.QUEUED else ""
    terminal.say()
    terminal.facts(
        [
            ("delivery", delivery.id),
            ("to", delivery.recipient.address),
            ("state", delivery.state.value),
            ("verdict", word(verdict.action)),
            ("why", verdict.sentence),
            ("mailbox", delivery.mailbox),
            ("attempts", delivery.attempts or ""),
            ("next attempt", next_),
            ("last reply", delivery.last_reply),
        ]
    )
    rows = [(r.filter, r.finding.code, _effect(r.effect), r.finding.detail) for r in verdict.reasons]
    if rows:
        terminal.table("", ("filter", "finding", "leads to", "about"), rows)


def _effect(effect: Action | float) -> str:
    return effect.value if isinstance(effect, Action) else f"{effect:+g}"

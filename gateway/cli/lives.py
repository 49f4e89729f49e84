"""The verb that finds mails, and the whole life of one of them, as every list shows it."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from gateway import routes, terminal, toml, welcome
from gateway.cli.base import CODES, Json, Limit, reading, word
from gateway.model import Action, Delivery, Permanent, Reason, State, Verdict
from gateway.pipeline import explain, policy
from gateway.store import tracking

app = typer.Typer()

EXCEPTIONS = "an exception there lets them through (docs/verdicts.md says how)"


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
    code: Annotated[
        str,
        typer.Option(help="What was found, as macros.dde or dmarc/fail_reject; macros: anything that macros finds."),
    ] = "",
    from_domain: Annotated[str, typer.Option(help="A domain that From: shows, or one above it.")] = "",
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """Find messages, newest first; with an ID, show one mail's whole life.

    Examples: gatepost track --from boss@ --since 2h · gatepost track --code macros.dde --json · gatepost track ID
    """
    filters: dict[str, Any] = {"sender": sender, "recipient": to, "subject": subject, "state": state, "action": action}
    filters |= {"finding": _finding(code), "from_domain": routes.normal(from_domain.lstrip("@"))}
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
        columns = ("received", "id", "from and to", "verdict", "state", "subject")
        whole = ("received", "id", "verdict", "state")
        terminal.table("", columns, (_tracked_row(row, now) for row in found), whole)


def _tracked_row(row: tracking.Tracked, now: float) -> tuple[object, ...]:
    came = terminal.lately(row.received_at, now)
    return came, row.message_id, from_and_to(row), word(row.action), row.state.value, row.subject


def from_and_to(row: tracking.Tracked) -> str:
    """Both in one column: in a narrow terminal neither would have room for itself."""
    return f"{row.sender or '<>'} → {row.recipient}"


def _finding(written: str) -> tuple[str, str] | None:
    """Filter and code as policies, log and replies write them; a code that no filter can find is a wrong call."""
    if not written:
        return None
    name, _, code = written.replace("/", ".").partition(".")
    if name not in policy.names():
        raise typer.BadParameter(f"no filter is called {name}: {toml.suggestion(name, policy.names())}")
    if code and code not in policy.codes(name):
        raise typer.BadParameter(f"{name} finds no {code}: {toml.suggestion(code, policy.codes(name))}")
    return name, code


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
    if delivery.state is State.HELD:
        _show_ways(delivery.id, verdict)
    show_reasons(verdict.reasons)


def _show_ways(number: int, verdict: Verdict) -> None:
    """What can be done about held mail, as it is typed. What people held themselves has no policy to change."""
    by_policy = verdict.action in {Action.QUARANTINE, Action.STRIP, Action.REJECT}
    files = dict.fromkeys(f"{one.filter}.toml" for one in verdict.reasons if one.effect is verdict.action)
    terminal.facts(
        [
            ("held is", "the mail as it came" if verdict.action is Action.STRIP else ""),
            ("to deliver it", f"{welcome.command()} quarantine release {number}"),
            ("to drop it", f"{welcome.command()} quarantine drop {number}"),
            ("others like it", f"see {' and '.join(files) or 'score.toml'}: {EXCEPTIONS}" if by_policy else ""),
        ]
    )


def show_reasons(reasons: Sequence[Reason]) -> None:
    """What was found, and what each finding leads to."""
    rows = [(r.filter, r.finding.code, _effect(r.effect), explain.about(r.finding)) for r in reasons]
    if rows:
        terminal.table("", ("filter", "finding", "leads to", "about"), rows, whole=("filter", "leads to"))


def _effect(effect: Action | float) -> str:
    return effect.value if isinstance(effect, Action) else f"{effect:+g}"

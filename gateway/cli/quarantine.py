"""The verbs of the quarantine: see what is held and why, release it, drop it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import Connection

from gateway import terminal
from gateway.cli.base import CODES, Json, Limit, Yes, ask, me, new_app, reading, report, writing
from gateway.cli.lives import from_and_to, show_lives
from gateway.model import Permanent, State
from gateway.store import messages, quarantine, queue, tracking

app = new_app("What is held for review.")

MAX_WHY = 2
_NUMBER = re.compile(r"[0-9]{1,17}")
_ID = re.compile(r"[0-9a-z]{18}")
"""A mail's id (`model.new_id`), which the note in stripped mail gives. No delivery ever has a number as long."""


def _named(written: str) -> str:
    if not (_NUMBER.fullmatch(written) or _ID.fullmatch(written)):
        raise typer.BadParameter(f"{written} is neither a number nor a mail's id")
    return written


HELP = "A number, as the list shows it, or a mail's id: all that is held of it."
Held = Annotated[str, typer.Argument(help=HELP, parser=_named, metavar="NUMBER")]
AllHeld = Annotated[list[str], typer.Argument(help=HELP, parser=_named, metavar="NUMBER")]


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
    columns = ("number", "received", "from and to", "size", "why", "subject")
    rows = (_held_row(row, time.time()) for row in held)
    terminal.table(f"{total} held", columns, rows, whole=("number", "received", "size"))


def _held_row(row: tracking.Tracked, now: float) -> tuple[object, ...]:
    came, size = terminal.lately(row.received_at, now), terminal.octets(row.size)
    why = f"{', '.join(row.why[:MAX_WHY])}{' …' if len(row.why) > MAX_WHY else ''}"
    return row.delivery_id, came, from_and_to(row), size, why, row.subject


def _numbers(conn: Connection, named: str) -> Sequence[int]:
    """The delivery of that number, or those that are held of the mail with that id, which the notes in mail give."""
    if _NUMBER.fullmatch(named):
        return [int(named)]
    return quarantine.of_mail(conn, named)


def _each(conn: Connection, named: Sequence[str], act: Callable[[int], bool]) -> dict[int | str, bool]:
    """*act* on each of what is *named*, and whether it did something; of what names nothing, that it did not."""
    found = {one: _numbers(conn, one) for one in dict.fromkeys(named)}
    done: dict[int | str, bool] = {number: act(number) for numbers in found.values() for number in numbers}
    return done | {one: False for one, numbers in found.items() if not numbers}


@app.command("show", epilog=CODES)
def quarantine_show(ctx: typer.Context, number: Held, json: Json = False) -> None:
    """Show why a mail is held, and everything else that is known of it.

    Example: gatepost quarantine show 12
    """
    with reading(ctx) as conn:
        life = next((quarantine.show(conn, one) for one in _numbers(conn, number)), None)
    show_lives([life] if life else [], f"{number} is not held", json=json)


@app.command("save", epilog=CODES)
def quarantine_save(
    ctx: typer.Context,
    number: Held,
    file: Annotated[Path, typer.Argument(help="A file that is not there yet.")],
    json: Json = False,
) -> None:
    """Write held mail into a file that you alone can read, to look into it, or to try policies on it with `explain`.

    Nothing becomes of the mail by that. Mind what is in it: it was held for a reason.

    Example: gatepost quarantine save 12 mail.eml
    """
    with reading(ctx) as conn:
        life = next((quarantine.show(conn, one) for one in _numbers(conn, number)), None)
        if life is None or not life.message.has_bytes:
            raise Permanent(f"{number} is not held")
        _write(file, messages.read_chunks(conn, life.message.id))
    size = file.stat().st_size
    if json:
        terminal.as_json({"file": file, "size": size})
    else:
        terminal.say(f"{terminal.octets(size)} in {file}")


def _write(file: Path, chunks: Iterable[bytes]) -> None:
    try:
        with open(file, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as opened, _whole(file):
            opened.writelines(chunks)
            opened.flush()
    except OSError as error:
        raise Permanent(f"{file} cannot be written: {(error.strerror or '').lower()}") from None


@contextmanager
def _whole(file: Path) -> Iterator[None]:
    """Leave no half of a mail behind, which would be taken for the mail, and stand in the way of the next try."""
    try:
        yield
    except BaseException:
        file.unlink()
        raise


@app.command("release", epilog=CODES)
def quarantine_release(ctx: typer.Context, numbers: AllHeld, json: Json = False) -> None:
    """Deliver held mail after all.

    Examples: gatepost quarantine release 12 13 · gatepost quarantine release 06h0ffvkbz7qgf1kkh
    """
    with writing(ctx) as conn:
        done = _each(conn, numbers, lambda number: quarantine.release(conn, number, by=me()))
    report(done, "is released", "is not held", json=json)


@app.command("drop", epilog=CODES)
def quarantine_drop(ctx: typer.Context, numbers: AllHeld, yes: Yes = False, json: Json = False) -> None:
    """Drop held mail. Nobody is told, and it cannot be undone.

    Example: gatepost quarantine drop 12 --yes
    """
    ask(f"Drop {len(numbers)} for ever, without telling anybody?", yes=yes)
    with writing(ctx) as conn:
        done = _each(conn, numbers, lambda number: quarantine.drop(conn, number, by=me()))
    report(done, "is dropped", "is not held", json=json)

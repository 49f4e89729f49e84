"""The `gatepost` command. Thin: every verb calls one function elsewhere and prints what it returns.

The exit code says what happened: 0 done, 1 faults found or something refused, 2 called wrongly, 3 out of reach for now.
No traceback and no raw text of a stranger reaches the terminal.
"""

from __future__ import annotations

import datetime
import getpass
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NoReturn, Protocol

import typer
from rich.text import Text
from sqlalchemy import Connection

from gateway import accounts, config, health, roles, send, stages, supervisor, terminal, tls, toml, welcome
from gateway.config import Config, Listener
from gateway.model import (
    Action,
    Delivery,
    Dns,
    Envelope,
    Finding,
    ListenerKind,
    Permanent,
    Recipient,
    Session,
    State,
    Temporary,
    Verdict,
)
from gateway.pipeline import policy
from gateway.pipeline.outcome import Explained
from gateway.roles import Role
from gateway.store import quarantine, queue, tracking
from gateway.store.engine import Store
from gateway.toml import Fault, FaultyFiles

DONE, REFUSED, USAGE, UNREACHABLE = 0, 1, 2, 3
INTERRUPTED = 130
MAX_MESSAGE = 1 << 30

CODES = "Exit codes: 0 done · 1 faults found, or refused · 2 called wrongly · 3 out of reach now, try again later."

TEST_MESSAGE = """From: {sender}
To: {recipient}
Date: {date}
Message-ID: <{stamp}@gatepost.invalid>
Subject: A test of Gatepost

This message was made by `gatepost send`.
"""


class OpenStore(Protocol):
    """Opens the store; makes it first where that is asked for."""

    def __call__(self, made: Config, /, *, create: bool = False) -> AbstractContextManager[Store]: ...


@dataclass
class Wiring:
    """What the composition root lends to the verbs, and which configuration file was named."""

    store: OpenStore
    supervise: Callable[[Config, Path | None], None]
    serve: Callable[[Config, Role], None]
    explain: Callable[[Config, Session, Envelope, BinaryIO], Explained]
    dns: Callable[[Config], Dns]
    named: Path | None = None

    @property
    def path(self) -> Path | None:
        """The configuration file that applies; None for the embedded default."""
        return config.find(self.named)

    def config(self) -> Config:
        """The configuration; `FaultyFiles` where it cannot be used."""
        return config.load(self.path)


def _app(summary: str) -> typer.Typer:
    return typer.Typer(
        help=summary,
        epilog=CODES,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )


app = _app("A mail gateway: filters find, policies decide, the gateway acts.")
queue_app = _app("What waits to be delivered.")
quarantine_app = _app("What is held for review.")
account_app = _app("Who has a mailbox, or sends through us.")
app.add_typer(queue_app, name="queue")
app.add_typer(quarantine_app, name="quarantine")
app.add_typer(account_app, name="account")

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
MAX_NUMBER = (1 << 63) - 1
"""The largest number that a delivery can have in the store."""
Ids = Annotated[list[int], typer.Argument(help="Numbers of deliveries, as the list shows them.", max=MAX_NUMBER)]
Limit = Annotated[int, typer.Option(help="At most so many lines.", min=1, max=tracking.LIMIT)]
MessageFile = Annotated[Path, typer.Argument(help="An RFC 5322 message; - reads standard input.")]


def main(wiring: Wiring, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one verb and exit. Whatever goes wrong is told in a line, never as a traceback."""
    try:
        app(args=arguments, obj=wiring, prog_name="gatepost")
    except FaultyFiles as error:
        terminal.faults(error.faults)
        sys.exit(REFUSED)
    except (Permanent, roles.CannotListen, supervisor.AlreadyRunning) as error:
        terminal.complain(error)
        sys.exit(REFUSED)
    except Temporary as error:
        terminal.complain(error)
        sys.exit(UNREACHABLE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: the last flush must not fail
        sys.exit(DONE)
    except OSError as error:
        terminal.complain(f"{error.filename or 'gatepost'}: {error.strerror or type(error).__name__}")
        sys.exit(UNREACHABLE)
    except Exception as error:  # noqa: BLE001 - the place is told, so that it can be mended
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        terminal.complain(f"a fault of gatepost itself: {type(error).__name__}: {error} (at {place})")
        sys.exit(UNREACHABLE)
    sys.exit(DONE)


@app.callback()
def _options(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(help="gatepost.toml to use. Otherwise $GATEPOST_CONFIG, ./gatepost.toml, /etc/gatepost/."),
    ] = None,
) -> None:
    _wiring(ctx).named = config


def _wiring(ctx: typer.Context) -> Wiring:
    wiring: Wiring = ctx.obj
    return wiring


# ---- The gateway --------------------------------------------------------------------------------------------------


@app.command(epilog=CODES)
def run(
    ctx: typer.Context,
    role: Annotated[Role | None, typer.Argument(help="One role only, as under systemd.")] = None,
) -> None:
    """Start the gateway; Ctrl-C stops it.

    Without a configuration file it listens on loopback, keeps its data in ./var, and says what to type next.

    Example: gatepost --config /etc/gatepost/gatepost.toml run
    """
    wiring = _wiring(ctx)
    if role is None:
        wiring.supervise(wiring.config(), wiring.path)
    else:
        wiring.serve(wiring.config(), role)


@app.command(epilog=CODES)
def check(ctx: typer.Context, json: Json = False) -> None:
    """Check gatepost.toml and every policy file, and list every fault with its place and cure.

    Example: gatepost check && systemctl reload gatepost
    """
    wiring = _wiring(ctx)
    found = _faults(wiring.path)
    if json:
        terminal.as_json({"faults": found})
    elif found:
        terminal.faults(found)
    else:
        count = len(stages.files(wiring.config().server.policies))
        terminal.say(f"all good: {wiring.path or 'the embedded configuration'}, {count} policies", style="green")
    raise typer.Exit(REFUSED if found else DONE)


def _faults(path: Path | None) -> list[Fault]:
    faults: list[Fault] = []
    try:
        made = config.load(path)
        folder = made.server.policies
        faults += _file_faults(made, path)
    except FaultyFiles as error:
        faults += error.faults
        folder = _policy_folder(path)
    try:
        policy.load(folder, None)
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


def _file_faults(made: Config, path: Path | None) -> list[Fault]:
    """Certificate and key are named by the configuration, so they are part of it."""
    if made.tls.certificate is None:
        return []
    try:
        tls.server_context(made)
    except OSError as error:  # ssl.SSLError is one
        text = path.read_text("utf-8") if path else ""
        place = toml.line_of(text, ("tls", "certificate"))
        why = (error.strerror or type(error).__name__).lower()
        cure = "name a PEM chain and the key that belongs to it"
        return [Fault(str(path), place, "tls.certificate", f"cannot be used: {why}", cure)]
    return []


@app.command(epilog=CODES)
def status(ctx: typer.Context, json: Json = False) -> None:
    """Show how the gateway is: processes, queue, scanner, DNS, certificate, policies.

    Exits 0 when all is well, 1 when something wants attention, 3 when the gateway does not run.

    Example: gatepost status --json | jq '.checks[] | select(.ok | not)'
    """
    wiring = _wiring(ctx)
    made = wiring.config()
    running = health.runs(made)
    with wiring.store(made) as store:
        checks = health.look(made, store, wiring.dns(made))
    if json:
        terminal.as_json({"running": running, "checks": checks})
    else:
        marks = {True: Text("ok", "green"), False: Text("!!", "bold red")}
        terminal.table("", ("what", "", "how it is"), ((one.name, marks[one.ok], one.text) for one in checks))
    well = all(one.ok for one in checks)
    raise typer.Exit(UNREACHABLE if not running else DONE if well else REFUSED)


# ---- Messages -----------------------------------------------------------------------------------------------------


@app.command("send", epilog=CODES)
def send_(
    ctx: typer.Context,
    sender: Annotated[str, typer.Option("--from", help="The envelope's sender; '' for a bounce.")],
    to: Annotated[list[str], typer.Option(help="A recipient; give it several times for several.")],
    file: Annotated[
        Path | None, typer.Argument(help="The message; - reads standard input; none: a short test.")
    ] = None,
    user: Annotated[str, typer.Option(help="Log in as this user at the submission port.")] = "",
    listener: Annotated[str, typer.Option(help="Name of the listener to send to, as in gatepost.toml.")] = "",
    server: Annotated[str, typer.Option(help="Another server, as 192.0.2.1:25, in place of our own.")] = "",
    json: Json = False,
) -> None:
    """Put a message through the running gateway by SMTP, and tell what it said.

    The password for --user is asked for, or taken from $GATEPOST_PASSWORD.

    Example: gatepost send mail.eml --from you@somewhere.example --to alice@demo.example
    """
    made = _wiring(ctx).config()
    message = _test_message(sender, to[0]) if file is None else _read(file)
    target = _elsewhere(server) if server else _target(made, listener, submission=bool(user))
    login = send.Login(user, _password_of(user)) if user else None
    answer = send.send(target, message, sender, to, login)
    if json:
        terminal.as_json({"code": answer.code, "reply": answer.reply, "id": answer.id, "refused": answer.refused})
    else:
        _tell(answer)
    if answer.code == 250:
        raise typer.Exit(REFUSED if answer.refused else DONE)
    raise typer.Exit(UNREACHABLE if 400 <= answer.code < 500 else REFUSED)


def _tell(answer: send.Answer) -> None:
    for recipient, reply in answer.refused.items():
        terminal.complain(f"{recipient}: {reply}")
    terminal.say(answer.reply, style="green" if answer.code == 250 else "red")
    if answer.id:
        terminal.say(f"its life: {welcome.command()} track {answer.id}")


def _test_message(sender: str, recipient: str) -> bytes:
    now = datetime.datetime.now().astimezone()
    date, stamp = now.strftime("%a, %d %b %Y %H:%M:%S %z"), f"{now.timestamp():.6f}"
    text = TEST_MESSAGE.format(sender=sender or "postmaster", recipient=recipient, date=date, stamp=stamp)
    return re.sub(r"[^\S\n]+", " ", text).encode()


def _target(made: Config, name: str, *, submission: bool) -> send.Server:
    kind = ListenerKind.SUBMISSION if submission else ListenerKind.MX
    fitting = [one for one in made.listeners if (one.name == name if name else one.kind is kind)]
    if not fitting:
        known = ", ".join(one.name for one in made.listeners)
        raise typer.BadParameter(f"no such listener; there are: {known or 'none'}")
    return send.server_of(_as_bound(made, fitting[0]), tls.certificate_files(made)[0])


def _as_bound(made: Config, listener: Listener) -> Listener:
    """*listener* at the address that a running process has bound: port 0 in the configuration means any."""
    bound = {name: at for one in roles.known(made.run_dir) for name, at in one.listeners.items() if one.alive}
    return listener.model_copy(update={"address": bound.get(listener.name, listener.address)})


def _elsewhere(address: str) -> send.Server:
    try:
        host, port = config.split_address(address)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--server") from None
    return send.Server(host, port)


def _password_of(user: str) -> str:
    return os.environ.get("GATEPOST_PASSWORD") or str(typer.prompt(f"Password of {user}", hide_input=True, err=True))


def _read(file: Path) -> bytes:
    try:
        if str(file) == "-":
            content = sys.stdin.buffer.read(MAX_MESSAGE + 1)
        else:
            with file.open("rb") as opened:
                content = opened.read(MAX_MESSAGE + 1)
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {(error.strerror or '').lower()}") from None
    if len(content) > MAX_MESSAGE:
        raise typer.BadParameter(f"{file} is larger than 1 GB")
    return content


@app.command(epilog=CODES)
def explain(
    ctx: typer.Context,
    file: MessageFile,
    to: Annotated[list[str], typer.Option(help="A recipient; give it several times for several.")],
    sender: Annotated[str, typer.Option("--from", help="The envelope's sender.")] = "",
    peer: Annotated[str, typer.Option(help="The address that the message comes from.")] = "127.0.0.1",
    helo: Annotated[str, typer.Option(help="What the peer said in EHLO.")] = "localhost",
    user: Annotated[str, typer.Option(help="As if this user had logged in.")] = "",
    json: Json = False,
) -> None:
    """Say what would become of a message, and why. Nothing is sent, and nothing is stored.

    Exits 0 when every recipient would get it, 1 when it would be held or rejected for one, 3 when deferred.

    Example: gatepost explain suspicious.eml --from a@b.example --peer 192.0.2.7 --to alice@demo.example
    """
    wiring = _wiring(ctx)
    envelope = Envelope(sender, tuple(map(Recipient, to)))
    with tempfile.TemporaryFile() as message:
        message.write(re.sub(rb"\r?\n", b"\r\n", _read(file)))
        message.flush()
        message.seek(0)
        explained = wiring.explain(wiring.config(), _session(peer, helo, user), envelope, message)
    if json:
        terminal.as_json({"found": explained.found, "verdicts": explained.verdicts})
    else:
        _show_explained(explained)
    raise typer.Exit(_code_of([verdict.action for verdict in explained.verdicts.values()]))


def _session(peer: str, helo: str, user: str) -> Session:
    try:
        address = ip_address(peer)
    except ValueError:
        raise typer.BadParameter(f"{peer} is not an IP address", param_hint="--peer") from None
    kind = ListenerKind.SUBMISSION if user else ListenerKind.MX
    return Session(address, kind.value, kind, helo, "TLSv1.3" if user else "", user)


def _code_of(actions: Sequence[Action]) -> int:
    worst = Action.strictest(*actions)
    if Action.DEFER in actions:
        return UNREACHABLE
    return REFUSED if worst in {Action.QUARANTINE, Action.REJECT} else DONE


def _show_explained(explained: Explained) -> None:
    findings = ((name, one) for name, ones in explained.found.items() for one in ones)
    terminal.table("Findings", ("filter", "finding", "about"), (_finding_row(*pair) for pair in findings))
    verdicts = [(to, _word(one.action), f"{one.score:.1f}", one.sentence) for to, one in explained.verdicts.items()]
    terminal.table("Verdicts", ("recipient", "action", "score", "why"), verdicts)


def _finding_row(name: str, finding: Finding) -> tuple[str, str, str]:
    about = ", ".join(filter(None, (finding.detail, finding.part and f"part {finding.part}")))
    return name, finding.code, about


def _word(action: Action) -> Text:
    colours = {Action.ACCEPT: "green", Action.TAG: "green", Action.STRIP: "yellow"}
    return Text(action.value, colours.get(action, "red"))


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
    with _reading(ctx) as conn:
        found = tracking.find(conn, id=id, limit=limit, **filters)
        lives = [tracking.life(conn, one) for one in dict.fromkeys(row.message_id for row in found)] if id else []
    if id:
        _show_lives([life for life in lives if life is not None], f"no mail has the id {id}", json=json)
    elif json:
        terminal.as_json(found)
    else:
        terminal.table("", ("received", "id", "from", "to", "action", "state", "subject"), map(_tracked_row, found))


def _tracked_row(row: tracking.Tracked) -> tuple[object, ...]:
    came = terminal.moment(row.received_at)
    return came, row.message_id, row.sender or "<>", row.recipient, _word(row.action), row.state.value, row.subject


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


@contextmanager
def _reading(ctx: typer.Context) -> Iterator[Connection]:
    """A snapshot of the store."""
    with _store(ctx) as store, store.reading() as conn:
        yield conn


@contextmanager
def _writing(ctx: typer.Context, *, create: bool = False) -> Iterator[Connection]:
    """A transaction; when it has ended well, whoever delivers is woken."""
    with _store(ctx, create=create) as store:
        with store.begin() as conn:
            yield conn
        store.ring()


@contextmanager
def _store(ctx: typer.Context, *, create: bool = False) -> Iterator[Store]:
    wiring = _wiring(ctx)
    with wiring.store(wiring.config(), create=create) as store:
        yield store


def _show_lives(lives: Sequence[tracking.Life], nothing: str, *, json: bool) -> None:
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
            ("verdict", _word(verdict.action)),
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


# ---- Queue --------------------------------------------------------------------------------------------------------


@queue_app.command("list", epilog=CODES)
def queue_list(ctx: typer.Context, limit: Limit = 50, json: Json = False) -> None:
    """List what waits to be delivered, newest first.

    Example: gatepost queue list --limit 10
    """
    with _reading(ctx) as conn:
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


@queue_app.command("show", epilog=CODES)
def queue_show(ctx: typer.Context, number: Annotated[int, typer.Argument(max=MAX_NUMBER)], json: Json = False) -> None:
    """Show the whole life of the mail that a delivery belongs to.

    Example: gatepost queue show 12
    """
    with _reading(ctx) as conn:
        delivery = queue.get(conn, number)
        life = tracking.life(conn, delivery.message_id) if delivery else None
    _show_lives([life] if life else [], f"there is no delivery {number}", json=json)


@queue_app.command("retry", epilog=CODES)
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
    with _writing(ctx) as conn:
        done = {n: bool(queue.retry_now(conn, n, by=_me())) for n in numbers or ()}
        count = queue.retry_now(conn, None, by=_me()) if everything else sum(done.values())
    _report(done, "is tried now", "is not queued, or is being sent right now", json=json, count=count)


@queue_app.command("hold", epilog=CODES)
def queue_hold(ctx: typer.Context, numbers: Ids, json: Json = False) -> None:
    """Take deliveries out of the queue and into the quarantine.

    Example: gatepost queue hold 12
    """
    with _writing(ctx) as conn:
        done = {n: queue.hold(conn, n, by=_me()) for n in numbers}
    _report(done, "is held", "is not queued, or is being sent right now", json=json)


@queue_app.command("drop", epilog=CODES)
def queue_drop(ctx: typer.Context, numbers: Ids, yes: Yes = False, json: Json = False) -> None:
    """Give deliveries up. Nobody is told, and it cannot be undone.

    Example: gatepost queue drop 12 --yes
    """
    _ask(f"Drop {len(numbers)} for ever, without telling anybody?", yes=yes)
    with _writing(ctx) as conn:
        done = {n: _is(conn, n, State.QUEUED) and queue.drop(conn, n, by=_me()) for n in numbers}
    _report(done, "is dropped", "is not queued, or is being sent right now", json=json)


def _is(conn: Connection, number: int, state: State) -> bool:
    delivery = queue.get(conn, number)
    return delivery is not None and delivery.state is state


def _me() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _ask(question: str, *, yes: bool) -> None:
    if not yes and not typer.confirm(question, err=True):
        raise typer.Exit(REFUSED)


def _report(done: Mapping[int, bool], well: str, badly: str, *, json: bool, count: int | None = None) -> None:
    """Say for each delivery what happened to it; exit 1 when one was refused."""
    if json:
        terminal.as_json(
            {"done": [n for n, ok in done.items() if ok], "refused": [n for n, ok in done.items() if not ok]}
        )
    else:
        for number, ok in done.items():
            (terminal.say if ok else terminal.complain)(f"{number} {well if ok else badly}")
        if count is not None and not done:
            terminal.say(f"{count} {well}" if count == 1 else f"{count} are tried now")
    raise typer.Exit(DONE if all(done.values()) else REFUSED)


# ---- Quarantine ---------------------------------------------------------------------------------------------------


@quarantine_app.command("list", epilog=CODES)
def quarantine_list(ctx: typer.Context, limit: Limit = 50, json: Json = False) -> None:
    """List what is held, newest first.

    Example: gatepost quarantine list
    """
    with _reading(ctx) as conn:
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


@quarantine_app.command("show", epilog=CODES)
def quarantine_show(
    ctx: typer.Context, number: Annotated[int, typer.Argument(max=MAX_NUMBER)], json: Json = False
) -> None:
    """Show why a mail is held, and everything else that is known of it.

    Example: gatepost quarantine show 12
    """
    with _reading(ctx) as conn:
        life = quarantine.show(conn, number)
    _show_lives([life] if life else [], f"{number} is not held", json=json)


@quarantine_app.command("release", epilog=CODES)
def quarantine_release(ctx: typer.Context, numbers: Ids, json: Json = False) -> None:
    """Deliver held mail after all.

    Example: gatepost quarantine release 12 13
    """
    with _writing(ctx) as conn:
        done = {n: quarantine.release(conn, n, by=_me()) for n in numbers}
    _report(done, "is released", "is not held", json=json)


@quarantine_app.command("drop", epilog=CODES)
def quarantine_drop(ctx: typer.Context, numbers: Ids, yes: Yes = False, json: Json = False) -> None:
    """Drop held mail. Nobody is told, and it cannot be undone.

    Example: gatepost quarantine drop 12 --yes
    """
    _ask(f"Drop {len(numbers)} for ever, without telling anybody?", yes=yes)
    with _writing(ctx) as conn:
        done = {n: quarantine.drop(conn, n, by=_me()) for n in numbers}
    _report(done, "is dropped", "is not held", json=json)


# ---- Accounts -----------------------------------------------------------------------------------------------------

Stdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]
Login = Annotated[str, typer.Argument(help="The login name, usually an address.")]


@account_app.command("add", epilog=CODES)
def account_add(
    ctx: typer.Context,
    login: Login,
    addresses: Annotated[list[str] | None, typer.Argument(help="Their addresses; none: the login name.")] = None,
    password_stdin: Stdin = False,
    json: Json = False,
) -> None:
    """Make a mailbox. The password is asked for; an empty one is generated and shown once.

    Example: gatepost account add carol@example.org carol@example.org sales@example.org
    """
    password, generated = _new_password(login, from_stdin=password_stdin)
    stored = _hashed(password)
    with _writing(ctx, create=True) as conn:
        accounts.add(conn, login, stored, addresses or [login])
    _show_account(login, "was made", password if generated else "", json=json)


@account_app.command("passwd", epilog=CODES)
def account_passwd(ctx: typer.Context, login: Login, password_stdin: Stdin = False, json: Json = False) -> None:
    """Change a password. It is asked for; an empty one is generated and shown once.

    Example: gatepost account passwd carol@example.org
    """
    password, generated = _new_password(login, from_stdin=password_stdin)
    stored = _hashed(password)
    with _writing(ctx) as conn:
        if not accounts.set_password(conn, login, stored):
            raise Permanent(f"there is no account {login}")
    _show_account(login, "has a new password", password if generated else "", json=json)


@account_app.command("list", epilog=CODES)
def account_list(ctx: typer.Context, json: Json = False) -> None:
    """List the accounts and their addresses.

    Example: gatepost account list --json
    """
    with _reading(ctx) as conn:
        found = accounts.list(conn)
    if json:
        terminal.as_json(found)
    else:
        rows = ((one.login, terminal.moment(one.created_at), ", ".join(one.addresses)) for one in found)
        terminal.table("", ("login", "since", "addresses"), rows)


@account_app.command("remove", epilog=CODES)
def account_remove(ctx: typer.Context, login: Login, yes: Yes = False, json: Json = False) -> None:
    """Remove an account with its addresses and all mail in its mailbox.

    Example: gatepost account remove carol@example.org --yes
    """
    _ask(f"Remove {login} and all its mail for ever?", yes=yes)
    with _writing(ctx) as conn:
        if not accounts.remove(conn, login):
            raise Permanent(f"there is no account {login}")
    _show_account(login, "was removed", "", json=json)


def _new_password(login: str, *, from_stdin: bool) -> tuple[str, bool]:
    """A password, and whether we made it up."""
    if from_stdin:
        return sys.stdin.readline(accounts.PASSWORD + 2).rstrip("\r\n"), False
    if sys.stdin.isatty():
        words = f"New password of {login} (empty: make one up)"
        typed = str(typer.prompt(words, default="", show_default=False, hide_input=True, confirmation_prompt=True))
        if typed:
            return typed, False
    return welcome.new_password(), True


def _hashed(password: str) -> str:
    try:
        return accounts.hash_password(password)
    except ValueError as error:
        raise Permanent(str(error)) from None


def _show_account(login: str, what: str, password: str, *, json: bool) -> None:
    if json:
        terminal.as_json({"login": login} | ({"password": password} if password else {}))
        return
    terminal.say(f"{login} {what}")
    if password:
        terminal.say(f"password, shown this once: {password}", style="bold")

"""The verbs that take a message: put it through the gateway, or say what would become of it."""

from __future__ import annotations

import datetime
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import typer

from gateway import config, roles, send, terminal, tls, welcome
from gateway.cli.base import CODES, DONE, REFUSED, UNREACHABLE, Json, wiring_of, word
from gateway.cli.lives import show_reasons
from gateway.config import Config, Listener
from gateway.model import Action, Direction, Envelope, ListenerKind, Recipient, Session
from gateway.pipeline.outcome import Explained, Kind
from gateway.smtp.address import rcpt
from gateway.smtp.replies import ProtocolError

MAX_MESSAGE = 1 << 30

TEST_MESSAGE = """From: {sender}
To: {recipient}
Date: {date}
Message-ID: <{stamp}@gatepost.invalid>
Subject: A test of Gatepost

This message was made by `gatepost send`.
"""

FROM_HERE = (
    "As if a host of your own had sent it: SPF, DMARC and what else asks who sends were left out. "
    "Name the host that it came from, as --peer 192.0.2.7."
)

_REFUSED = {
    Kind.NO_SUCH_USER: "the domain is ours, and there is no such user",
    Kind.NOT_OURS: "mail for this domain is not taken from this peer (routes.toml)",
}

MessageFile = Annotated[Path, typer.Argument(help="An RFC 5322 message; - reads standard input.")]

app = typer.Typer()


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
    made = wiring_of(ctx).config()
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
    # Behind a proxy nobody else may connect, not even we
    fitting = [one for one in made.listeners if (one.name == name if name else one.kind is kind and not one.proxy_from)]
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

    Exits 0 when every recipient would get it, 1 when it would be held, rejected or refused for one, 3 when deferred.

    Example: gatepost explain suspicious.eml --from a@b.example --peer 192.0.2.7 --to alice@demo.example
    """
    wiring = wiring_of(ctx)
    envelope = Envelope(sender, tuple(map(_recipient, to)))
    with tempfile.TemporaryFile() as message:
        message.write(re.sub(rb"\r?\n", b"\r\n", _read(file)))
        message.flush()
        message.seek(0)
        session = _session(peer, helo, user)
        explained = wiring.explain(wiring.config(), session, envelope, message)
    if json:
        words = {"found": explained.found, "verdicts": explained.verdicts, "refused": explained.refused}
        terminal.as_json(words)
    else:
        _show_explained(explained)
    if session.direction is Direction.INBOUND and session.peer.is_loopback:
        terminal.complain(FROM_HERE)
    code = _code_of([verdict.action for verdict in explained.verdicts.values()])
    raise typer.Exit(code or (REFUSED if explained.refused else DONE))


def _recipient(text: str) -> Recipient:
    """*text* as RCPT TO would have it."""
    try:
        return rcpt(f"TO:<{text}>", smtputf8=True)
    except ProtocolError:
        raise typer.BadParameter(f"{text} is not an address", param_hint="--to") from None


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
    for to, verdict in explained.verdicts.items():
        score = f"{verdict.score:.1f}"
        terminal.facts([("to", to), ("verdict", word(verdict.action)), ("score", score), ("why", verdict.sentence)])
        show_reasons(verdict.reasons)
    for to, kind in explained.refused.items():
        terminal.say(f"{to} would be refused at RCPT TO: {_REFUSED[kind]}", style="bold")

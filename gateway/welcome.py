"""The first start: folders, tables, a certificate, demo mailboxes; and what to type next.

A later start finds all of it and makes nothing anew. Generated passwords are shown once and kept nowhere.
"""

from __future__ import annotations

import secrets
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from rich.text import Text

from gateway import accounts, terminal, tls
from gateway.config import Config, Listener
from gateway.model import ListenerKind
from gateway.store.engine import Store

_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
"""What nobody misreads."""

_FROM = {
    ListenerKind.MX: "mail from the world",
    ListenerKind.SUBMISSION: "mail of your users",
    ListenerKind.RELAY: "mail of your hosts",
}


def prepare(config: Config, store: Store) -> dict[str, str]:
    """Make what is missing; return the passwords of the mailboxes that were made, by login."""
    store.migrate()
    tls.certificate_files(config)
    return _demo_accounts(config, store)


def _demo_accounts(config: Config, store: Store) -> dict[str, str]:
    logins = [f"{name}@{config.demo.domain}" for name in config.demo.mailboxes if config.demo.domain]
    with store.reading() as conn:
        if not logins or accounts.list(conn):
            return {}
    made = {login: new_password() for login in logins}
    hashes = {login: accounts.hash_password(password) for login, password in made.items()}
    with store.begin() as conn:
        for login, stored in hashes.items():
            accounts.add(conn, login, stored, [login])
    return made


def new_password() -> str:
    """A password that can be read out: sixteen characters in fours, 79 bits."""
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(4)) for _ in range(4))


def show_passwords(made: Mapping[str, str]) -> None:
    """Show the passwords of new mailboxes: at once, lest something that fails later swallows them."""
    if made:
        terminal.say()
        terminal.say("Mailboxes were made. Their passwords are shown this once:")
        terminal.facts((f"  {login}", Text(password, "bold")) for login, password in made.items())


def greet(config: Config, scanner: str) -> None:
    """Say what runs where, and what to type next."""
    terminal.say()
    terminal.say(f"Gatepost runs as {config.server.hostname}; Ctrl-C stops it. Data: {config.server.data.absolute()}")
    terminal.facts(_listening(config))
    if scanner:
        terminal.say(scanner, style="yellow")
    if config.demo.domain and config.demo.mailboxes:
        _teach(config)


def _listening(config: Config) -> list[tuple[str, str]]:
    smtp = [(f"  {x.name}", f"{x.address}  {_FROM[x.kind]}{_tls(x.tls)}") for x in config.listeners]
    pop3 = [(f"  {x.name}", f"{x.address}  mailboxes{_tls(x.tls)}") for x in config.pop3]
    return [*smtp, *pop3]


def _tls(kind: str) -> str:
    return {"starttls": ", STARTTLS", "implicit": ", TLS"}.get(kind, ", no TLS")


def _teach(config: Config) -> None:
    people = [f"{name}@{config.demo.domain}" for name in config.demo.mailboxes]
    first, last = people[0], people[-1]
    terminal.say()
    terminal.say("To try it, type in a second terminal:")
    for what, typed in _lessons(config, first, last):
        terminal.say(f"  {typed}  # {what}")
    terminal.say()


def _lessons(config: Config, first: str, last: str) -> list[tuple[str, str]]:
    """What there is to try, and what to type for it; a line each, so that it can be copied."""
    me = command()
    lessons = []
    if (mx := _first(config, ListenerKind.MX)) is not None:
        lessons += [
            ("a mail from outside", f"{me} send --from you@somewhere.example --to {first}"),
            ("the same", f"swaks --server {mx.address} --from you@somewhere.example --to {first}"),
        ]
    if _first(config, ListenerKind.SUBMISSION) is not None:
        lessons.append(("as a user", f"{me} send --user {last} --from {last} --to {first}"))
    if pop3 := next((x for x in config.pop3 if x.tls == "implicit"), None):
        lessons.append(("fetch the first mail", f"curl -k --user {first} pop3s://{pop3.address}/1"))
    lessons += [
        ("what became of all mail", f"{me} track"),
        ("one mail's life, and why; the id stands in the list", f"{me} track ID"),
        ("judge a file; nothing is sent", f"{me} explain FILE --to {first}"),
        ("how everything is", f"{me} status"),
    ]
    return lessons


def _first(config: Config, kind: ListenerKind) -> Listener | None:
    return next((listener for listener in config.listeners if listener.kind is kind), None)


def command() -> str:
    """How this program is called from here."""
    called = Path(sys.argv[0])
    if called.name != "gatepost":
        return "gatepost"
    found = shutil.which("gatepost")
    if found and Path(found).resolve() == called.resolve():
        return "gatepost"
    return str(called.relative_to(Path.cwd()) if called.is_relative_to(Path.cwd()) else called)

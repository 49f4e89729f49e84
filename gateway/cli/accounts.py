"""The verbs of accounts. A password is shown once, where we made it up, and never otherwise."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from gateway import accounts, terminal, welcome
from gateway.cli.base import CODES, Json, Yes, ask, new_app, reading, writing
from gateway.model import Permanent

app = new_app("Who has a mailbox, or sends through us.")

Stdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]
Login = Annotated[str, typer.Argument(help="The login name, usually an address.")]


@app.command("add", epilog=CODES)
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
    with writing(ctx, create=True) as conn:
        accounts.add(conn, login, stored, addresses or [login])
    _show_account(login, "was made", password if generated else "", json=json)


@app.command("passwd", epilog=CODES)
def account_passwd(ctx: typer.Context, login: Login, password_stdin: Stdin = False, json: Json = False) -> None:
    """Change a password. It is asked for; an empty one is generated and shown once.

    Example: gatepost account passwd carol@example.org
    """
    password, generated = _new_password(login, from_stdin=password_stdin)
    stored = _hashed(password)
    with writing(ctx) as conn:
        if not accounts.set_password(conn, login, stored):
            raise Permanent(f"there is no account {login}")
    _show_account(login, "has a new password", password if generated else "", json=json)


@app.command("list", epilog=CODES)
def account_list(ctx: typer.Context, json: Json = False) -> None:
    """List the accounts and their addresses.

    Example: gatepost account list --json
    """
    with reading(ctx) as conn:
        found = accounts.list(conn)
    if json:
        terminal.as_json(found)
    else:
        rows = ((one.login, terminal.moment(one.created_at), ", ".join(one.addresses)) for one in found)
        terminal.table("", ("login", "since", "addresses"), rows)


@app.command("remove", epilog=CODES)
def account_remove(ctx: typer.Context, login: Login, yes: Yes = False, json: Json = False) -> None:
    """Remove an account with its addresses and all mail in its mailbox.

    Example: gatepost account remove carol@example.org --yes
    """
    ask(f"Remove {login} and all its mail for ever?", yes=yes)
    with writing(ctx) as conn:
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

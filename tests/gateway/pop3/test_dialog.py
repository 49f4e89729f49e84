"""What the conversations of tests/dialogs/pop3 cannot show: answers of the store that do not come, and the effects."""

import ast
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway.model import Temporary
from gateway.pop3 import dialog, replies
from gateway.pop3.dialog import CheckPassword, Close, Dialog, OpenMaildrop, Prompt, Reply, SendMessage, StartTls, Update

ENTRIES = [SimpleNamespace(uid="u1", size=10), SimpleNamespace(uid="u2", size=20)]


def effects(steps, answers=()):
    """The effects of one line; *answers* are sent in turn, or thrown where they are exceptions, to those that ask."""
    waiting, seen = list(answers), []
    effect = next(steps, None)
    while effect is not None:
        seen.append(effect)
        asks = isinstance(effect, CheckPassword | OpenMaildrop | Prompt | StartTls | Update | SendMessage)
        answer = waiting.pop(0) if asks and waiting else None
        try:
            effect = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)
        except StopIteration:
            effect = None
    return seen


@pytest.fixture
def fresh():
    return Dialog(secure=True, offers_tls=True)


@pytest.fixture
def opened(fresh):
    effects(fresh.line(b"USER alice\r\n"))
    effects(fresh.line(b"PASS x\r\n"), ["alice", ENTRIES])
    assert fresh.state is dialog.State.TRANSACTION
    return fresh


def test_it_does_no_io():
    tree = ast.parse(Path(dialog.__file__).read_text("utf-8"))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not imported & {"asyncio", "socket", "ssl", "sqlalchemy"}
    assert not any(name.startswith("gateway.store") for name in imported)


def test_the_account_that_the_password_names_is_opened(fresh):
    effects(fresh.line(b"USER Alice@Example.org\r\n"))
    seen = effects(fresh.line(b"PASS  a b \r\n"), ["alice", ENTRIES])
    assert seen == [
        CheckPassword("Alice@Example.org", " a b "),
        OpenMaildrop("alice"),
        Reply(b"+OK 2 messages (30 octets)"),
    ]


def test_a_wrong_password_opens_nothing(fresh):
    effects(fresh.line(b"USER alice\r\n"))
    assert effects(fresh.line(b"PASS x\r\n"), [""]) == [CheckPassword("alice", "x"), Reply(replies.WRONG_PASSWORD)]


def test_a_maildrop_that_is_open_elsewhere_can_be_tried_again(fresh):
    effects(fresh.line(b"USER alice\r\n"))
    assert effects(fresh.line(b"PASS x\r\n"), ["alice", None])[-1] == Reply(replies.IN_USE)
    assert fresh.state is dialog.State.AUTHORIZATION


@pytest.mark.parametrize("answers", [[Temporary("x")], ["alice", Temporary("x")]])
def test_what_cannot_be_told_now_is_no_login(fresh, answers):
    effects(fresh.line(b"USER alice\r\n"))
    assert effects(fresh.line(b"PASS x\r\n"), answers)[-1] == Reply(replies.TEMPORARY)
    assert fresh.state is dialog.State.AUTHORIZATION


def test_a_message_that_cannot_be_read_now_is_refused(opened):
    seen = effects(opened.line(b"RETR 2\r\n"), [Temporary("x")])
    assert seen == [SendMessage(b"+OK 20 octets", 2), Reply(replies.TEMPORARY)]


def test_only_quit_deletes_and_says_so_after_it_is_done(opened):
    effects(opened.line(b"DELE 2\r\n"))
    assert effects(opened.line(b"QUIT\r\n"), [True]) == [Update((2,)), Reply(replies.BYE), Close()]
    assert effects(opened.line(b"NOOP\r\n")) == [Reply(replies.WRONG_STATE)]


@pytest.mark.parametrize("answer", [False, Temporary("x")])
def test_quit_admits_that_nothing_was_deleted(opened, answer):
    effects(opened.line(b"DELE 2\r\n"))
    assert effects(opened.line(b"QUIT\r\n"), [answer])[1:] == [Reply(replies.NOT_DELETED), Close()]


def test_the_answer_to_a_challenge_is_bounded(fresh):
    seen = effects(fresh.line(b"AUTH PLAIN\r\n"), [b"A" * (dialog.MAX_SASL - 1) + b"\r\n"])
    assert seen == [Prompt(replies.CHALLENGE), Reply(replies.TOO_LONG)]


def test_an_answer_without_a_line_end_is_none(fresh):
    assert effects(fresh.line(b"AUTH PLAIN\r\n"), [b"AGEAYg==\n"])[-1] == Reply(replies.SYNTAX)


@pytest.mark.parametrize("line", [b"PASS x\r\n", b"USER x\r\n", b"AUTH PLAIN AGEAYg==\r\n", b"AUTH PLAIN\r\n"])
def test_no_password_is_checked_without_tls(line):
    seen = effects(Dialog(secure=False, offers_tls=True).line(line))
    assert seen == [Reply(replies.TLS_FIRST)]

"""POP3 without I/O: command lines in, effects out (RFC 1939, 2449, 2595, 3206, 5034, 6856).

`Dialog.line` returns a generator of effects; whoever runs it carries each one out and sends its answer back in. An
effect that asks the store or for a password may be answered by throwing `Temporary`. Messages are deleted only by
`Update`, which only QUIT yields.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from gateway.backoff import HeldBack
from gateway.model import Temporary
from gateway.pop3 import replies
from gateway.pop3.maildrop import Entry, Maildrop

MAX_COMMAND = 255
"""Octets of a command line with its end (RFC 2449 4)."""
MAX_SASL = 12288
"""Octets of a line that answers a SASL challenge (RFC 5034 4)."""
MAX_FAULTS = 20
"""Commands that may be wrong before the session ends."""
MAX_FAILURES = 3
"""Wrong passwords before the session ends."""


class State(Enum):
    """The states of RFC 1939 3."""

    AUTHORIZATION = auto()
    TRANSACTION = auto()
    UPDATE = auto()


@dataclass(frozen=True, slots=True)
class Reply:
    """Send one line. No answer."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Listing:
    """Send a line, then *lines*, then the end of a multi-line answer. *lines* never begin with a dot. No answer."""

    text: bytes
    lines: Iterable[bytes]


@dataclass(frozen=True, slots=True)
class Prompt:
    """Send one line and read one: the answer is that line, with its end."""

    text: bytes


@dataclass(frozen=True, slots=True)
class StartTls:
    """Send the line and start TLS. Answer: False, and nothing sent, where more had already arrived (RFC 2595 4)."""

    text: bytes


@dataclass(frozen=True, slots=True)
class CheckPassword:
    """Answer: the account that *user* names, if this is its password; else nothing."""

    user: str
    password: str


@dataclass(frozen=True, slots=True)
class OpenMaildrop:
    """Lock the maildrop of *account*. Answer: its entries, or None where another session has it."""

    account: str


@dataclass(frozen=True, slots=True)
class SendMessage:
    """Send the line and message *number*: whole, or its header and *lines* lines of its body. No answer."""

    text: bytes
    number: int
    lines: int | None = None


@dataclass(frozen=True, slots=True)
class Update:
    """Delete the messages *numbers* and release the maildrop. Answer: whether they are gone."""

    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Close:
    """End the session."""


Effect = Reply | Listing | Prompt | StartTls | CheckPassword | OpenMaildrop | SendMessage | Update | Close
Steps = Generator[Effect, Any, None]
Command = tuple[Callable[["Dialog", str], Steps], str]
"""What carries a command out, and how its argument is written (a regular expression for all of it)."""

_COMMAND = re.compile(r"([A-Za-z0-9]{3,4})(?: (.+))?")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]*={0,2}")

_NOTHING = ""
_NUMBER = r"(?:0|[1-9][0-9]*)"
_OPTIONAL_NUMBER = rf"(?:{_NUMBER})?"
_NUMBER_AND_LINES = rf"{_NUMBER} {_NUMBER}"
_WORD = r"\S+"
_ANYTHING = r".+"
_LANGUAGE = r"(?:\*|[A-Za-z0-9-]{1,40})?"
_MECHANISM = r"[A-Za-z0-9_-]{1,20}(?: \S+)?"


class Dialog:
    """One session. *secure*: TLS is on. *offers_tls*: STLS can start it. *trusted*: passwords may go without it."""

    def __init__(self, *, secure: bool, offers_tls: bool, trusted: bool = False) -> None:
        self.state = State.AUTHORIZATION
        self._secure = secure
        self._offers_tls = offers_tls
        self._trusted = trusted
        self._utf8 = False
        self._user = ""
        self._faults = 0
        self._failures = 0
        self._maildrop = Maildrop(())

    def line(self, line: bytes) -> Steps:
        """The effects of one command line, which comes with its end (a line that is cut may lack it)."""
        if len(line) > _limit(line):
            return self._refuse(replies.TOO_LONG)
        text = _text(line, utf8=self._utf8)
        parsed = _COMMAND.fullmatch(text) if text is not None else None
        if parsed is None:
            return self._refuse(replies.SYNTAX)
        return self._command(parsed[1].upper(), parsed[2] or "")

    def _command(self, keyword: str, argument: str) -> Steps:
        command = _COMMANDS[self.state].get(keyword)
        if command is None:
            known = any(keyword in commands for commands in _COMMANDS.values())
            return self._refuse(replies.WRONG_STATE if known else replies.UNKNOWN)
        act, grammar = command
        if not re.fullmatch(grammar, argument):
            return self._refuse(replies.SYNTAX)
        return act(self, argument)

    def _refuse(self, reply: bytes) -> Steps:
        """Answer a command that is wrong; too many of them end the session."""
        self._faults += 1
        if self._faults < MAX_FAULTS:
            yield Reply(reply)
        else:
            yield Reply(replies.TOO_MANY_FAULTS)
            yield Close()

    # Either state

    def _capa(self, _: str) -> Steps:
        yield Listing(replies.CAPABILITIES, self._capabilities())

    def _capabilities(self) -> Iterator[bytes]:
        """What this session can do now (RFC 2449 5 and 6). Ways to log in are named only while they would be taken."""
        yield from (b"TOP", b"UIDL", b"RESP-CODES", b"AUTH-RESP-CODE", b"PIPELINING", b"EXPIRE NEVER")
        yield from (b"UTF8 USER", b"LANG", b"IMPLEMENTATION Gatepost")
        if self.state is not State.AUTHORIZATION:
            return
        if self._may_start_tls:
            yield b"STLS"
        if self._may_log_in:
            yield from (b"USER", b"SASL PLAIN")

    @property
    def _may_start_tls(self) -> bool:
        return self._offers_tls and not self._secure

    @property
    def _may_log_in(self) -> bool:
        """Passwords go over TLS, or stay on this machine (RFC 8314 3.3)."""
        return self._secure or self._trusted

    def _lang(self, tag: str) -> Steps:
        """RFC 6856 3: one language, English, which is also i-default."""
        if not tag:
            yield Listing(replies.LANGUAGES, (b"en English", b"i-default English"))
        elif tag.lower() in ("*", "en", "i-default"):
            yield Reply(replies.LANGUAGE_SET)
        else:
            yield Reply(replies.NO_SUCH_LANGUAGE)

    # AUTHORIZATION

    def _stls(self, _: str) -> Steps:
        """RFC 2595 4: only what was said under TLS counts, so all that was learnt before is forgotten."""
        if not self._may_start_tls:
            yield from self._refuse(replies.NO_TLS)
        elif (yield StartTls(replies.BEGIN_TLS)):
            self._secure, self._user, self._utf8 = True, "", False
        else:
            yield Reply(replies.STLS_ALONE)
            yield Close()

    def _utf8_on(self, _: str) -> Steps:
        """RFC 6856 2.1. Messages go out as they are in either mode: there is no down-converted copy to offer."""
        self._utf8 = True
        yield Reply(replies.UTF8_ON)

    def _user_is(self, user: str) -> Steps:
        if not self._may_log_in:
            yield from self._refuse(replies.TLS_FIRST)
        else:
            self._user = user
            yield Reply(replies.SEND_PASSWORD)

    def _pass(self, password: str) -> Steps:
        """All that follows the one space is the password, spaces included (RFC 1939 7)."""
        user, self._user = self._user, ""
        if not self._may_log_in:
            yield from self._refuse(replies.TLS_FIRST)
        elif not user:
            yield from self._refuse(replies.USER_FIRST)
        else:
            yield from self._log_in(user, password)

    def _auth(self, argument: str) -> Steps:
        """RFC 5034 4: AUTH PLAIN, with the response at once or after an empty challenge."""
        mechanism, _, initial = argument.partition(" ")
        if not self._may_log_in:
            yield from self._refuse(replies.TLS_FIRST)
        elif mechanism.upper() != "PLAIN":
            yield from self._refuse(replies.NO_SUCH_MECHANISM)
        else:
            response = f"{initial}\r\n".encode() if initial else (yield Prompt(replies.CHALLENGE))
            yield from self._plain(response)

    def _plain(self, response: bytes) -> Steps:
        if len(response) > MAX_SASL:
            yield from self._refuse(replies.TOO_LONG)
        elif response == b"*\r\n":
            yield from self._refuse(replies.CANCELLED)
        elif credentials := _credentials(response):
            yield from self._log_in(*credentials)
        else:
            yield from self._refuse(replies.SYNTAX)

    def _log_in(self, user: str, password: str) -> Steps:
        try:
            account = yield CheckPassword(user, password)
            if not account:
                yield from self._wrong_password(replies.WRONG_PASSWORD)
                return
            entries: Sequence[Entry] | None = yield OpenMaildrop(account)
        except HeldBack:
            yield from self._wrong_password(replies.HELD_BACK)
            return
        except Temporary:
            yield from self._refuse(replies.TEMPORARY)
            return
        if entries is None:
            yield from self._refuse(replies.IN_USE)
            return
        self._maildrop = Maildrop(entries)
        self.state = State.TRANSACTION
        yield Reply(replies.maildrop(self._maildrop.count, self._maildrop.octets))

    def _wrong_password(self, reply: bytes) -> Steps:
        """The same words whether the user is unknown or the password is wrong."""
        self._failures += 1
        yield Reply(reply)
        if self._failures >= MAX_FAILURES:
            yield Close()

    def _leave(self, _: str) -> Steps:
        yield Reply(replies.BYE)
        yield Close()

    # TRANSACTION

    def _stat(self, _: str) -> Steps:
        yield Reply(replies.drop_listing(self._maildrop.count, self._maildrop.octets))

    def _list(self, argument: str) -> Steps:
        if not argument:
            lines = (b"%d %d" % (number, entry.size) for number, entry in self._maildrop.entries())
            yield Listing(replies.maildrop(self._maildrop.count, self._maildrop.octets), lines)
        elif entry := self._maildrop.entry(int(argument)):
            yield Reply(replies.scan_listing(int(argument), entry.size))
        else:
            yield Reply(replies.NO_SUCH_MESSAGE)

    def _uidl(self, argument: str) -> Steps:
        if not argument:
            lines = (b"%d %s" % (number, entry.uid.encode("ascii")) for number, entry in self._maildrop.entries())
            yield Listing(replies.UNIQUE_IDS, lines)
        elif entry := self._maildrop.entry(int(argument)):
            yield Reply(replies.unique_id(int(argument), entry.uid))
        else:
            yield Reply(replies.NO_SUCH_MESSAGE)

    def _retr(self, argument: str) -> Steps:
        entry = self._maildrop.entry(int(argument))
        if entry is None:
            yield Reply(replies.NO_SUCH_MESSAGE)
        else:
            yield from self._send(SendMessage(replies.octets(entry.size), int(argument)))

    def _top(self, argument: str) -> Steps:
        number, lines = map(int, argument.split(" "))
        if self._maildrop.entry(number) is None:
            yield Reply(replies.NO_SUCH_MESSAGE)
        else:
            yield from self._send(SendMessage(replies.TOP_FOLLOWS, number, lines))

    def _send(self, effect: SendMessage) -> Steps:
        try:
            yield effect
        except Temporary:  # nothing of the message has been sent
            yield Reply(replies.TEMPORARY)

    def _dele(self, argument: str) -> Steps:
        yield Reply(replies.DELETED if self._maildrop.mark(int(argument)) else replies.NO_SUCH_MESSAGE)

    def _noop(self, _: str) -> Steps:
        yield Reply(replies.OK)

    def _rset(self, _: str) -> Steps:
        self._maildrop.reset()
        yield Reply(replies.maildrop(self._maildrop.count, self._maildrop.octets))

    def _quit(self, _: str) -> Steps:
        """RFC 1939 6: the only way into UPDATE, and so the only way to delete."""
        self.state = State.UPDATE
        try:
            done = yield Update(self._maildrop.marked)
        except Temporary:
            done = False
        yield Reply(replies.BYE if done else replies.NOT_DELETED)
        yield Close()


_EITHER: dict[str, Command] = {
    "CAPA": (Dialog._capa, _NOTHING),
    "LANG": (Dialog._lang, _LANGUAGE),
}
_COMMANDS: dict[State, dict[str, Command]] = {
    State.AUTHORIZATION: _EITHER
    | {
        "STLS": (Dialog._stls, _NOTHING),
        "UTF8": (Dialog._utf8_on, _NOTHING),
        "USER": (Dialog._user_is, _WORD),
        "PASS": (Dialog._pass, _ANYTHING),
        "AUTH": (Dialog._auth, _MECHANISM),
        "QUIT": (Dialog._leave, _NOTHING),
    },
    State.TRANSACTION: _EITHER
    | {
        "STAT": (Dialog._stat, _NOTHING),
        "LIST": (Dialog._list, _OPTIONAL_NUMBER),
        "UIDL": (Dialog._uidl, _OPTIONAL_NUMBER),
        "RETR": (Dialog._retr, _NUMBER),
        "TOP": (Dialog._top, _NUMBER_AND_LINES),
        "DELE": (Dialog._dele, _NUMBER),
        "NOOP": (Dialog._noop, _NOTHING),
        "RSET": (Dialog._rset, _NOTHING),
        "QUIT": (Dialog._quit, _NOTHING),
    },
    State.UPDATE: {},
}


def _limit(line: bytes) -> int:
    """How long *line* may be: a SASL response does not fit where a command has to (RFC 5034 4)."""
    return MAX_SASL if line[:5].upper() == b"AUTH " else MAX_COMMAND


def _text(line: bytes, *, utf8: bool) -> str | None:
    """The line without its CRLF as text; None where it does not end so, or has octets that no command has."""
    if not line.endswith(b"\r\n"):
        return None
    try:
        text = line[:-2].decode("utf-8" if utf8 else "ascii")
    except UnicodeDecodeError:
        return None
    return None if _CONTROLS.search(text) else text


def _credentials(response: bytes) -> tuple[str, str] | None:
    """User and password of a PLAIN response (RFC 4616 2); None where it is malformed or wants to act as another."""
    encoded = response.removesuffix(b"\r\n")
    if not _BASE64.fullmatch(encoded):
        return None
    try:
        acting_as, user, password = base64.b64decode(encoded, validate=True).decode("utf-8").split("\0")
    except (binascii.Error, ValueError):  # not base64, not UTF-8, or not three parts
        return None
    if not user or not password or acting_as not in ("", user) or _CONTROLS.search(user + password):
        return None
    return user, password

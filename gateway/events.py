"""Everything that happens to a mail, one function per event: one sanitised line in the log, findable by the mail's id.

No other module writes the log, and nobody waits for it. Values may be strangers' text: each is stripped of control and
bidirectional characters and capped here, so no caller has to think of it.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from typing import Literal

from gateway.model import Session, State, Verdict
from gateway.outlet import Outlet

MAX_VALUE = 512
"""Characters that one value of a line may have."""

REPEATED = 1.0
"""Seconds within which the same words of a library are told once."""

_log = logging.getLogger("gatepost")
_HIDDEN = {
    *range(0x20),
    *range(0x7F, 0xA0),
    0x061C,
    0x200B,
    0x200E,
    0x200F,
    *range(0x2028, 0x202F),
    *range(0x2060, 0x206A),
    0xFEFF,
}
_CLEAN = {**dict.fromkeys(_HIDDEN, "\N{REPLACEMENT CHARACTER}"), **dict.fromkeys(b"\t\r\n", " ")}


def clean(text: str, limit: int = MAX_VALUE) -> str:
    """*text* on one line, without control, zero-width or bidirectional characters, at most *limit* characters long."""
    short = text if len(text) <= limit else text[: limit - 1] + "…"
    if short.isprintable():
        return short
    return short.translate(_CLEAN).encode("utf-8", "replace").decode("utf-8")


class _Json(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        head = {"time": _stamp(record.created), "process": self._process, "event": record.msg}
        return json.dumps({**head, **_fields(record)}, ensure_ascii=True)


class _Text(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        words = [f"{key}={value}" for key, value in _fields(record).items() if value not in ("", None)]
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        return " ".join([clock, f"{self._process}:", str(record.msg), *words])


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields: dict[str, object] = getattr(record, "fields", None) or {}
    return fields


def _stamp(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{int(moment % 1 * 1000):03d}Z"


class _Sender(logging.Handler):
    """Hands lines to the outlet, and says how many were lost as soon as one goes out again."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__()
        self._outlet = outlet
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        if self._lost and self._put(_record("log lines lost", count=self._lost)):
            self._lost = 0
        self._lost += not self._put(record)

    def _put(self, record: logging.LogRecord) -> bool:
        return self._outlet.put(f"{self.format(record)}\n".encode("utf-8", "replace"))


class _Libraries(logging.Handler):
    """What libraries log, as events of ours. asyncio may say the same hundreds of times in one breath."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._last, self._until = "", 0.0

    def emit(self, record: logging.LogRecord) -> None:
        words, now = record.getMessage().partition("\n")[0], time.monotonic()
        if words == self._last and now < self._until:
            return
        self._last, self._until = words, now + REPEATED
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            say("library", name=record.name, text=words)
        else:
            failure(record.name, error, about=words)


def configure(form: Literal["text", "json"], process: str) -> None:
    """Send events to standard error, as *form*; called once by each *process* of the gateway ("smtp-1")."""
    if sys.stderr is None:  # it was closed before we began
        return
    handler = _Sender(Outlet(sys.stderr.fileno()))
    handler.setFormatter(_Json(process) if form == "json" else _Text(process))
    _log.handlers[:] = [handler]
    _log.propagate = False
    _log.setLevel(logging.INFO)
    logging.getLogger().addHandler(_Libraries())
    logging.raiseExceptions = False  # trouble with the log must not stop the mail
    threading.excepthook = sys.unraisablehook = _unhandled


def _unhandled(trouble: threading.ExceptHookArgs | sys.UnraisableHookArgs) -> None:
    """What no caller can hear of. Python itself would write it to standard error, and wait there."""
    if trouble.exc_value is not None:
        failure("background", trouble.exc_value)


def say(event: str, **fields: object) -> None:
    """Write one line for *event*; for what has no function of its own below."""
    if _log.isEnabledFor(logging.INFO):
        _log.handle(_record(event, **fields))


def _record(event: str, **fields: object) -> logging.LogRecord:
    record = logging.LogRecord(_log.name, logging.INFO, "", 0, event, None, None)
    record.fields = {key: _shown(value) for key, value in fields.items()}
    return record


def _shown(value: object) -> object:
    if isinstance(value, bool | int | float | None):
        return value
    if isinstance(value, Mapping):
        return clean(json.dumps(value, default=str))
    if isinstance(value, list | tuple | set | frozenset):
        return clean(", ".join(map(str, value)))
    return clean(str(value))


def connected(session: Session) -> None:
    """A peer opened a session."""
    say("connected", peer=session.peer, listener=session.listener)


def refused_connection(peer: object, listener: str, why: str) -> None:
    """A peer was turned away before it could speak."""
    say("connection refused", peer=peer, listener=listener, why=why)


def authenticated(session: Session, login: str, ok: bool) -> None:
    """Somebody tried to log in to the submission service."""
    say("login" if ok else "login failed", peer=session.peer, listener=session.listener, login=login)


def refused_command(session: Session, command: str, reply: str, **fields: object) -> None:
    """A MAIL, RCPT or other command got a refusal."""
    say("command refused", peer=session.peer, listener=session.listener, command=command, reply=reply, **fields)


def accepted(mail_id: str, session: Session, sender: str, recipients: Mapping[str, Verdict], size: int) -> None:
    """The store has the mail: the responsibility for it is ours."""
    for recipient, verdict in recipients.items():
        say(
            "accepted",
            id=mail_id,
            peer=session.peer,
            user=session.user,
            sender=sender,
            recipient=recipient,
            size=size,
            action=verdict.action.value,
            score=round(verdict.score, 2),
            why=verdict.sentence,
        )


def refused(mail_id: str, session: Session, sender: str, recipient: str, verdict: Verdict) -> None:
    """The mail was rejected or deferred at the end of its data; nothing of it is kept but this."""
    word = "deferred" if verdict.action.value == "defer" else "rejected"
    say(
        word, id=mail_id, peer=session.peer, user=session.user, sender=sender, recipient=recipient, why=verdict.sentence
    )


def reported(mail_id: str, sentence: str) -> None:
    """The mail was to bring a report of DMARC; *sentence* says which, or why it cannot be used."""
    say("dmarc report", id=mail_id, what=sentence)


def attempted(mail_id: str, recipient: str, host: str, state: State, reply: str, attempts: int) -> None:
    """A delivery was tried; *state* says what it is now."""
    say("attempt", id=mail_id, recipient=recipient, host=host, state=state.value, attempts=attempts, reply=reply)


def noticed(mail_id: str, recipient: str, action: str, notice_id: str) -> None:
    """The sender of *mail_id* was told what became of it, by the mail *notice_id*."""
    say("notice", id=mail_id, recipient=recipient, action=action, notice=notice_id)


def policies_loaded(names: object) -> None:
    """A set of policies came into force."""
    say("policies in force", names=names)


def policies_refused(faults: object) -> None:
    """An edited set of policies cannot be used; the old set stays in force."""
    say("policies refused, the old ones stay in force", faults=faults)


def failure(where: str, error: BaseException, **fields: object) -> None:
    """Something of ours went wrong that should not have; the place is told, never to a peer."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    place = " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in reversed(frames))
    say("failure", where=where, error=type(error).__name__, text=str(error), place=place, **fields)

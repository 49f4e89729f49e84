"""Cut out of a mail what its policy wants gone, and say in its place what that was, why, and how to ask for it.

The rule: only a part that every reader sees in the same place is cut out. All other octets stay what they are, and the
result is as well-formed as the mail was: nothing that a stranger wrote stands in a note but a short name, indented.
"""

from __future__ import annotations

import base64
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from gateway.events import clean
from gateway.model import Action, Content, Part, Reason, Verdict
from gateway.pipeline.actions import Piece, fields, name_of

MAX_NAME = 100
MAX_REASONS = 5
_MESSAGES = ("message/rfc822", "message/global", "message/news")
_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")
_LINE = 68
_MARGIN = "    "
"""No line of a stranger's begins at the margin, where it could be a boundary."""


@dataclass(frozen=True, slots=True)
class Removal:
    """A part that goes: its name, where it stands in the mail, and why it goes, in sentences for its reader.

    `body` is where its body begins where the part is all that a message holds, whose header has to stay; else None.
    """

    name: str
    span: tuple[int, int]
    why: tuple[str, ...]
    body: int | None = None


def feasible(verdict: Verdict, content: Content) -> Verdict:
    """*verdict*, but quarantine where what it wants gone cannot be cut out: the stricter, never the milder."""
    if verdict.action is not Action.STRIP or removals(verdict, content):
        return verdict
    sentence = f"held because {_why_not(verdict)}; otherwise it would have been {verdict.sentence}"
    return Verdict(Action.QUARANTINE, verdict.score, tuple(map(_holding, verdict.reasons)), sentence)


def _holding(reason: Reason) -> Reason:
    """*reason* as it came to count: what is held by it is found by it, in lists and tracking."""
    return replace(reason, effect=Action.QUARANTINE) if reason.effect is Action.STRIP else reason


def _why_not(verdict: Verdict) -> str:
    """Why not all that *verdict* wants gone can be cut out."""
    nowhere = [one.finding for one in verdict.reasons if one.effect is Action.STRIP and not one.finding.part]
    if nowhere:
        return f"one of the findings that strip names no part to cut out ({nowhere[0].code}: {nowhere[0].detail})"
    return "what should be stripped cannot be cut out for every reader"


def removals(verdict: Verdict, content: Content) -> tuple[Removal, ...]:
    """What *verdict* wants gone, in the order of the mail; nothing where not all of it can be cut out."""
    if content.ambiguities or content.unscannable:
        return ()  # who knows what else stands there for another reader?
    by_path = {part.path: part for part in content.parts if part.span}
    reasons: dict[str, list[Reason]] = {}
    for reason in verdict.reasons:
        if reason.effect is Action.STRIP:
            path = _cuttable(reason.finding.part, by_path)
            if path not in by_path:
                return ()
            reasons.setdefault(path, []).append(reason)
    heads = {0, *(_body(part) for part in content.parts if part.span and part.media_type in _MESSAGES)}
    made = [_removal(by_path[path], some, heads) for path, some in reasons.items()]
    return tuple(sorted(made, key=lambda one: one.span))


def _cuttable(path: str, known: dict[str, Part]) -> str:
    """The part to cut out for one at *path*: itself, or what it is packed or encoded in."""
    path = path.partition("/")[0]
    while path not in known and "." in path:
        path = path.rpartition(".")[0]
    return path


def _removal(part: Part, reasons: Sequence[Reason], heads: set[int]) -> Removal:
    span = part.span or (0, 0)
    return Removal(part.filename, span, _sentences(reasons), _body(part) if span[0] in heads else None)


def _body(part: Part) -> int:
    """Where the body of *part* begins, which has a place in the mail."""
    return part.span[1] - part.size if part.span else 0


def _sentences(reasons: Sequence[Reason]) -> tuple[str, ...]:
    said = dict.fromkeys(
        f"{one.finding.detail or one.finding.code} ({one.filter}: {one.finding.code})" for one in reasons
    )
    more = ["and more"] if len(said) > MAX_REASONS else []
    return (*list(said)[:MAX_REASONS], *more)


@dataclass(frozen=True, slots=True)
class Whole:
    """Where to ask for what was removed: the number of the mail as it came, and our host."""

    mail_id: str
    hostname: str


def stripped(
    file: BinaryIO, block: bytes, size: int, removed: Sequence[Removal], whole: Whole
) -> tuple[bytes, list[Piece]]:
    """The header and the pieces of the message in *file* with a note in the place of each of *removed*.

    *block* is its header, *size* all its octets. A part that is all of a message takes with it only the fields that are
    about the body.
    """
    if removed and removed[0].span[0] == 0:
        head, text = _note(removed[0], whole)
        return _kept(block) + head, [b"\r\n" + text]
    pieces: list[Piece] = []
    position = len(block)
    for one in removed:
        start, end = one.span
        if start >= position:  # else it is inside a part that is gone already
            head, text = _note(one, whole)
            kept = _kept(_read(file, start, one.body)) if one.body is not None else b""
            pieces += [(position, start), kept + head + b"\r\n" + text]
            position = end
    return block, [*pieces, (position, size)]


def _read(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(end - start).removesuffix(b"\r\n")


def _kept(block: bytes) -> bytes:
    """What stays of the header of a message that gets another body: all but what describes the body, and MIME-Version.

    A line that is no field goes as well, for some readers take it for the end of the header.
    """
    own = [field for field in fields(block) if _FIELD.match(field) and not name_of(field).startswith(b"content-")]
    missing = b"" if b"mime-version" in map(name_of, own) else b"MIME-Version: 1.0\r\n"
    return b"".join(own) + missing


def _note(removed: Removal, whole: Whole) -> tuple[bytes, bytes]:
    """The fields and the text that stand in its place. The text ends with a line end, as the part may not have."""
    text = _text(removed, whole)
    if text.isascii():
        charset, encoding, body = "us-ascii", "7bit", text.replace("\n", "\r\n").encode("ascii")
    else:  # base64 and no quoted-printable, which could put "--" at the start of a line
        charset, encoding = "utf-8", "base64"
        body = base64.encodebytes(text.replace("\n", "\r\n").encode("utf-8")).replace(b"\n", b"\r\n")
    head = (
        f"Content-Type: text/plain; charset={charset}\r\nContent-Disposition: inline\r\n"
        f"Content-Transfer-Encoding: {encoding}\r\n"
    )
    return head.encode("ascii"), body


def _text(removed: Removal, whole: Whole) -> str:
    name = clean(removed.name, MAX_NAME) or "(without a name)"
    reasons = "\n".join(_indented(clean(why)) for why in removed.why)
    return (
        "An attachment of this message was removed by the mail gateway:\n\n"
        f"{_indented(name)}\n\n"
        "The policy of this site does not let it pass, because of this:\n\n"
        f"{reasons}\n\n"
        "The message as it came is kept in quarantine. To have it, write to\n\n"
        f"{_MARGIN}postmaster@{whole.hostname}\n\n"
        "and give this number:\n\n"
        f"{_MARGIN}{whole.mail_id}\n"
    )


def _indented(text: str) -> str:
    return textwrap.fill(text, _LINE, initial_indent=_MARGIN, subsequent_indent=_MARGIN)

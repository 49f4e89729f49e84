"""What stands above a mail that we pass on, and how a changed mail is read.

What the sender sent is never re-serialised: the result is spliced from spans of the original and new header lines, so
the body keeps every octet. `strip` is the one action that changes a body, knowingly (`stripping.py`).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import BinaryIO

from typing_extensions import Buffer

from gateway.events import clean
from gateway.model import Envelope, Session, Verdict

Piece = bytes | tuple[int, int]
"""New octets, or a span (start, end) of the original message."""


class Splice(io.RawIOBase):
    """A readable file made of pieces, so that a changed message never stands in memory whole."""

    def __init__(self, original: BinaryIO, pieces: Iterable[Piece]) -> None:
        super().__init__()
        self._original = original
        self._pieces = [piece for piece in pieces if _length(piece)]
        self.size = sum(map(_length, self._pieces))
        self._index = self._offset = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It can be read again, from any offset."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to *offset* from the start, or to the end (`SEEK_END` with 0); return the position."""
        if whence not in {io.SEEK_SET, io.SEEK_END} or (whence == io.SEEK_END and offset):
            raise io.UnsupportedOperation("a splice is sought from its start")
        left = position = self.size if whence == io.SEEK_END else min(max(offset, 0), self.size)
        self._index = 0
        while self._index < len(self._pieces) and left >= _length(self._pieces[self._index]):
            left -= _length(self._pieces[self._index])
            self._index += 1
        self._offset = left
        return position

    def readinto(self, buffer: Buffer, /) -> int:
        """Fill *buffer* from the piece in turn; 0 at the end."""
        view = memoryview(buffer).cast("B")
        if self._index == len(self._pieces):
            return 0
        piece = self._pieces[self._index]
        count = min(len(view), _length(piece) - self._offset)
        if isinstance(piece, bytes):
            view[:count] = piece[self._offset : self._offset + count]
        else:
            self._original.seek(piece[0] + self._offset)
            data = self._original.read(count)
            if len(data) != count:
                raise OSError("the spooled message is shorter than it was")
            view[:count] = data
        self._offset += count
        if self._offset == _length(piece):
            self._index, self._offset = self._index + 1, 0
        return count


def _length(piece: Piece) -> int:
    return len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]


def header_end(message: BinaryIO, limit: int) -> int:
    """The offset behind the last field of the header (before the empty line); -1 where it is larger than *limit*."""
    message.seek(0)
    start = message.read(limit + 4)
    if start.startswith(b"\r\n"):
        return 0
    end = start.find(b"\r\n\r\n")
    if end >= 0:
        return end + 2
    return len(start) if len(start) < limit + 4 else -1


def fields(block: bytes) -> list[bytes]:
    """The fields of a header block, each with its continuation lines and its CRLF."""
    return [field for field in re.split(rb"(?<=\r\n)(?![ \t])", block) if field]


def name_of(field: bytes) -> bytes:
    """The name of a field in lower case, as a reader that forgives white space before the colon sees it."""
    return field.partition(b":")[0].strip().lower()


def received(session: Session, envelope: Envelope, mail_id: str, hostname: str, now: float) -> bytes:
    """The trace field that we prepend (RFC 5321 4.4; protocol words of RFC 3848 and RFC 6531 4.3)."""
    peer = f"IPv6:{session.peer}" if session.peer.version == 6 else str(session.peer)
    recipient = f"\r\n\tfor <{envelope.recipients[0].address}>" if len(envelope.recipients) == 1 else ""
    tls = f" ({session.tls})" if session.tls else ""
    text = (
        f"Received: from {session.helo or 'unknown'} ([{peer}])\r\n\tby {hostname} (Gatepost)"
        f" with {_protocol(session, envelope)}{tls} id {mail_id}{recipient};\r\n\t{date(now)}\r\n"
    )
    return text.encode("utf-8")


def _protocol(session: Session, envelope: Envelope) -> str:
    if not session.esmtp:
        return "SMTP"
    base = "UTF8SMTP" if envelope.smtputf8 else "ESMTP"
    return base + ("S" if session.tls else "") + ("A" if session.user else "")


def date(now: float) -> str:
    """*now* as a date-time of RFC 5322 3.3."""
    return format_datetime(datetime.fromtimestamp(now, UTC))


def completion(block: bytes, mail_id: str, hostname: str, now: float) -> bytes:
    """Date and Message-ID for submitted mail that lacks them (RFC 6409 8.1, 8.2)."""
    names = {name_of(field) for field in fields(block)}
    added = b"" if b"date" in names else f"Date: {date(now)}\r\n".encode()
    return added if b"message-id" in names else added + f"Message-ID: <{mail_id}@{hostname}>\r\n".encode()


def verdict_fields(mail_id: str, verdict: Verdict) -> bytes:
    """What one recipient's copy says of its verdict, above the message."""
    text = f"X-Gatepost-Verdict: {verdict.action.value}; score={verdict.score:.1f}; id={mail_id}\r\n"
    reason = re.sub(r"[^ -~]", "?", clean(verdict.sentence, 900))
    return (text + f"X-Gatepost-Reason: {_folded(reason)}\r\n").encode("ascii")


_LINE = re.compile(r".{1,76}(?= |$)| ?\S+")


def _folded(text: str) -> str:
    """*text* folded at its spaces (RFC 5322 2.2.3); a word that is too long for a line stands on one of its own."""
    lines = _LINE.findall(" ".join(["X-Gatepost-Reason:", *text.split()]))
    return "\r\n".join(lines).removeprefix("X-Gatepost-Reason:").lstrip()


def mailbox_fields(sender: str, recipient: str) -> bytes:
    """What final delivery puts on top (RFC 5321 4.4)."""
    return f"Return-Path: <{sender}>\r\nDelivered-To: {recipient}\r\n".encode()

"""What a host answered, as one bounded printable line; how it is kept in the store and read back.

Nothing that a peer said leaves this folder without passing here: printable ASCII, one line, `MAX_TEXT` characters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

MAX_TEXT = 480
"""Characters of a reply that are kept, so that it fits a header field and an SMTP line with what stands around it."""

_STATUS = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?: |$)")
_STORED = re.compile(r"(?:(\S+(?: \[[0-9A-Fa-f:.]+\])?): )?([2345]\d\d) (\d\.\d{1,3}\.\d{1,3})(?: (.*))?")


@dataclass(frozen=True, slots=True)
class Reply:
    """An SMTP reply: code, status (RFC 3463) and text.

    `host` names who said it ("mx.example.net [192.0.2.1]"); empty, the words are our own.
    """

    code: int
    status: str
    text: str = ""
    host: str = ""

    @property
    def ok(self) -> bool:
        """Was it done?"""
        return self.code // 100 == 2

    @property
    def permanent(self) -> bool:
        """Is there no use in trying again?"""
        return self.code // 100 == 5

    def __str__(self) -> str:
        words = f"{self.code} {self.status} {self.text}".rstrip()
        return f"{self.host}: {words}" if self.host else words


class Failed(Exception):
    """A way to a destination came to its end: no host, no connection, no session. `reply` says why."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


def printable(text: str, limit: int = MAX_TEXT) -> str:
    """*text* as one line of printable ASCII of at most *limit* characters; what cannot be shown becomes "?"."""
    if len(text) <= limit and text.isascii() and text.isprintable():
        return text
    shown = "".join(char if " " <= char <= "~" else "?" for char in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def heard(code: int, lines: Sequence[bytes], host: str) -> Reply:
    """The reply that *host* gave in *lines* (without code and line ends)."""
    text = " ".join(line.decode("ascii", "replace").strip() for line in lines[:10])
    match = _STATUS.match(text)
    if match and match[1][0] == str(code)[0]:
        return Reply(code, match[1], printable(text[match.end() :]).strip(), host)
    return Reply(code, f"{code // 100}.0.0", printable(text).strip(), host)


def stored(line: str) -> Reply | None:
    """The reply that `str()` once made into *line*; None where it is none."""
    match = _STORED.fullmatch(printable(line, 1000))
    return Reply(int(match[2]), match[3], match[4] or "", match[1] or "") if match else None

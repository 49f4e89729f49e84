"""What comes back to the challenges of AUTH: base64, and the message of PLAIN. Pure functions."""

from __future__ import annotations

import base64

from gateway.smtp import replies
from gateway.smtp.replies import ProtocolError


def decoded(answer: str) -> str:
    """The text in base64 *answer*; "=" is the empty one (RFC 4954 4)."""
    try:
        return "" if answer == "=" else base64.b64decode(answer, validate=True).decode("utf-8")
    except ValueError:
        raise ProtocolError(replies.AUTH_SYNTAX) from None


def plain(message: str) -> tuple[str, str]:
    """Login and password of a PLAIN message (RFC 4616 2). Nobody may act for somebody else."""
    acting_for, *credentials = message.split("\0")
    if len(credentials) != 2 or not all(credentials):
        raise ProtocolError(replies.AUTH_SYNTAX)
    login, password = credentials
    if acting_for not in ("", login):
        raise ProtocolError(replies.AUTH_FAILED)
    return login, password

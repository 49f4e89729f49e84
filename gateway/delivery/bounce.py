"""Delivery status notifications (RFC 3464, RFC 6533): a multipart/report for people, for programs, and the original.

Nearly every word in one was written by strangers: each field is one line of safe characters, and the boundary stands
in no part.
"""

from __future__ import annotations

import re
import secrets
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime

from gateway import events
from gateway.delivery import reply as replies
from gateway.delivery.reply import Reply, printable
from gateway.model import Delivery, Notice, new_id

MAX_FIELD = 900
"""Characters of a value, so that its line stays under the 998 of RFC 5322 2.1.1."""

_SUBJECTS = {
    Notice.FAILED: "Your mail could not be delivered",
    Notice.DELAYED: "Your mail is delayed",
    Notice.RELAYED: "Your mail was passed on",
    Notice.DELIVERED: "Your mail was delivered",
}
_SENTENCES = {
    Notice.FAILED: "Your mail could not be delivered to the recipients below. We have given up trying for them.",
    Notice.DELAYED: "Your mail has not yet been delivered to the recipients below. You need not send it again: we go "
    "on trying until {until}, and tell you if that fails.",
    Notice.RELAYED: "Your mail was passed on for the recipients below, to a host that confirms no deliveries.",
    Notice.DELIVERED: "Your mail was delivered to the recipients below.",
}


@dataclass(frozen=True, slots=True)
class Original:
    """The mail that a notice is about: its first octets, and whether these are all of it."""

    octets: bytes
    complete: bool


def compose(owed: Sequence[Delivery], original: Original, *, hostname: str, now: float, expire_after: float) -> bytes:
    """One notice, with CRLF, to the one sender of the deliveries *owed*, which belong to one mail.

    The original comes back whole only after a failure, to people of ours, where it is complete and the sender did not
    ask for its header alone (RFC 3461 4.3).
    """
    names = [word for one in owed for word in (one.recipient.address, _decoded(one.recipient.orcpt))]
    wide = not "".join(names).isascii()
    parts = [
        _part("text/plain", _text(owed, hostname, expire_after)),
        _part(
            "message/global-delivery-status" if wide else "message/delivery-status",
            _status(owed, hostname, now, expire_after, wide=wide),
        ),
        _returned(owed, original),
    ]
    boundary = _boundary(parts)
    body = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + b"--\r\n"
    return _header(owed, hostname, now, boundary.decode(), eight_bit=not body.isascii()) + b"\r\n" + body


def _header(owed: Sequence[Delivery], hostname: str, now: float, boundary: str, *, eight_bit: bool) -> bytes:
    subject = next(_SUBJECTS[notice] for notice in _SUBJECTS if any(one.notice is notice for one in owed))
    lines = [
        f"From: Mail Delivery System <MAILER-DAEMON@{hostname}>",
        f"To: <{_line(owed[0].sender, wide=True)}>",
        f"Subject: {subject}",
        f"Date: {_date(now)}",
        f"Message-ID: <{new_id()}@{hostname}>",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status;\r\n boundary="{boundary}"',
        *(["Content-Transfer-Encoding: 8bit"] if eight_bit else []),
    ]
    return _lines(lines)


# ---- For people ---------------------------------------------------------------------------------------------------


def _text(owed: Sequence[Delivery], hostname: str, expire_after: float) -> bytes:
    lines = [f"This is the mail system of {hostname}.", ""]
    for notice, sentence in _SENTENCES.items():
        if concerned := [one for one in owed if one.notice is notice]:
            until = _date(max(one.queued_at for one in concerned) + expire_after)
            lines += [*textwrap.wrap(sentence.format(until=until), 76), ""]
            for one in concerned:
                lines += [*_told(one), ""]
    return _lines([*lines, f"If you need help, write to postmaster@{hostname}, and enclose this mail."])


def _told(delivery: Delivery) -> list[str]:
    """One recipient: the address, and what was said about it."""
    said = replies.stored(delivery.last_reply)
    address = f"    <{_line(delivery.recipient.address, wide=True)}>"
    if said is None or delivery.notice is Notice.DELIVERED:
        return [address]
    words = f"{said.code} {said.status} {said.text}"
    why = f"The host {said.host} said: {words}" if said.host else f"Reason: {words}"
    indent = " " * 8
    return [address, *textwrap.wrap(why, 76, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)]


# ---- For programs -------------------------------------------------------------------------------------------------


def _status(owed: Sequence[Delivery], hostname: str, now: float, expire_after: float, *, wide: bool) -> bytes:
    first = owed[0]
    lines = [f"Reporting-MTA: dns; {hostname}"]
    lines += [f"Original-Envelope-Id: {_line(_decoded(first.envid), wide=wide)}"] if first.envid else []
    lines += [f"Arrival-Date: {_date(first.accepted_at)}"]
    for one in owed:
        lines += ["", *_about(one, now, expire_after, wide=wide)]
    return _lines(lines)


def _about(delivery: Delivery, now: float, expire_after: float, *, wide: bool) -> list[str]:
    notice = delivery.notice or Notice.FAILED
    said = replies.stored(delivery.last_reply)
    lines = (
        [f"Original-Recipient: {_original(delivery.recipient.orcpt, wide=wide)}"] if delivery.recipient.orcpt else []
    )
    lines += [
        f"Final-Recipient: {_typed(delivery.recipient.address, wide=wide)}",
        f"Action: {notice.value}",
        f"Status: {_code(notice, said)}",
    ]
    if said is not None and notice is not Notice.DELIVERED:
        lines += [f"Remote-MTA: dns; {_mta(said.host)}"] if said.host else []
        kind = "smtp" if said.host else "X-Gatepost"
        lines += [f"Diagnostic-Code: {kind}; {_line(f'{said.code} {said.status} {said.text}'.rstrip())}"]
    lines += [f"Last-Attempt-Date: {_date(now)}"] if notice is not Notice.DELIVERED else []
    lines += [f"Will-Retry-Until: {_date(delivery.queued_at + expire_after)}"] if notice is Notice.DELAYED else []
    return lines


def _mta(host: str) -> str:
    """The name in "mx.example.net [192.0.2.1]", or its address literal where the address is all the name it has."""
    name, _, literal = host.partition(" ")
    return literal if literal == f"[{name}]" else name


def _code(notice: Notice, said: Reply | None) -> str:
    """The status that fits the action: after a host that only ever deferred, time ran out (4.4.7, RFC 3463 3.5)."""
    if notice in (Notice.DELIVERED, Notice.RELAYED):
        return "2.0.0"
    if notice is Notice.FAILED:
        return said.status if said and said.permanent else "4.4.7" if said else "5.0.0"
    return f"4{said.status[1:]}" if said else "4.0.0"


def _original(orcpt: str, *, wide: bool) -> str:
    """The Original-Recipient for an ORCPT parameter, "type;xtext" (RFC 3461 4.2, RFC 3464 2.3.1)."""
    kind, _, value = orcpt.partition(";")
    return f"{printable(kind, 40).strip()}; {_line(_decoded(value), wide=wide)}"


def _typed(address: str, *, wide: bool) -> str:
    kind = "rfc822" if address.isascii() else "utf-8"
    return f"{kind}; {_line(address, wide=wide)}"


def _decoded(xtext: str) -> str:
    r"""xtext, "+2B" for "+" (RFC 3461 4), and the "\x{17F}" of RFC 6533 3, as plain text, still to be made safe."""
    text = re.sub(r"\+([0-9A-F]{2})", lambda match: _ascii(int(match[1], 16)), xtext[:2000])
    return re.sub(r"\\x\{([0-9A-F]{2,6})\}", lambda match: _char(int(match[1], 16)), text)


def _ascii(number: int) -> str:
    return chr(number) if number < 0x80 else "?"


def _char(number: int) -> str:
    return "?" if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF else chr(number)


# ---- The mail itself ----------------------------------------------------------------------------------------------


def _returned(owed: Sequence[Delivery], original: Original) -> bytes:
    header, _, _ = original.octets.partition(b"\r\n\r\n")
    utf8 = owed[0].smtputf8 and not header.isascii()
    failed = any(one.notice is Notice.FAILED for one in owed)
    # We sign what we send: whatever a stranger wrote, he would get it back, or have it sent to another, in our name
    if failed and owed[0].outbound and original.complete and owed[0].ret != "HDRS":
        return _part("message/global" if utf8 else "message/rfc822", original.octets)
    if utf8:
        return _part("message/global-headers", _whole_lines(header, original))
    ascii_only = header.decode("ascii", "replace").replace("\ufffd", "?").encode()
    return _part("text/rfc822-headers", _whole_lines(ascii_only, original))


def _whole_lines(header: bytes, original: Original) -> bytes:
    """*header*, without the line at which the limit cut it."""
    if not original.complete and b"\r\n\r\n" not in original.octets:
        header = header.rpartition(b"\r\n")[0]
    return header + b"\r\n"


# ---- MIME ---------------------------------------------------------------------------------------------------------


def _part(media_type: str, content: bytes) -> bytes:
    """A body part. Its content ends in CRLF, the boundary's own CRLF comes after it."""
    plain = content.isascii()
    charset = f"; charset={'us-ascii' if plain else 'utf-8'}" if media_type.startswith("text/") else ""
    lines = [f"Content-Type: {media_type}{charset}", f"Content-Transfer-Encoding: {'7bit' if plain else '8bit'}"]
    return _lines(lines) + b"\r\n" + content


def _boundary(parts: Iterable[bytes]) -> bytes:
    content = b"".join(parts)
    while (boundary := f"=_{secrets.token_hex(16)}".encode()) in content:
        pass
    return boundary


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\r\n" for line in lines).encode()


def _line(text: str, *, wide: bool = False) -> str:
    """*text* on one line: printable ASCII, or with *wide* UTF-8 without control and bidirectional characters."""
    if not wide or text.isascii():
        return printable(text, MAX_FIELD)
    return events.clean(text, MAX_FIELD // 4)


def _date(moment: float) -> str:
    return format_datetime(datetime.fromtimestamp(moment, UTC))

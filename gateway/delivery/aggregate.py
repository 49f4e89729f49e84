"""DMARC aggregate reports (RFC 9990): rows that were counted become XML, and the XML the mail that carries it.

Half of the words were written by strangers: each is escaped, rid of what XML cannot hold, and one of the schema's where
the schema has a list. No row is written that does not fit any more; how many are left out is told.
"""

from __future__ import annotations

import base64
import re
import secrets
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime

from gateway.store.observations import Published, Row

NAMESPACE = "urn:ietf:params:xml:ns:dmarc-2.0"
GENERATOR = "Gatepost"

_POLICIES = ("none", "quarantine", "reject")
_WORDS = {
    "p": _POLICIES,
    "sp": _POLICIES,
    "np": _POLICIES,
    "adkim": ("r", "s"),
    "aspf": ("r", "s"),
    "testing": ("n", "y"),
    "discovery_method": ("treewalk", "psl"),
    "disposition": ("none", "pass", "quarantine", "reject"),
    "type": ("other", "local_policy", "mailing_list", "policy_test_mode", "trusted_forwarder"),
}
"""What the schema allows (RFC 9990 Appendix A); the first stands for everything else."""
_AUTHENTICATED = ("none", "pass", "fail", "softfail", "policy", "neutral", "temperror", "permerror")
_ESCAPES = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;"}
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, production 2


@dataclass(frozen=True, slots=True)
class Subject:
    """What a report is about, and who makes it: a domain, and its day from *begins* to before *ends*."""

    domain: str
    begins: float
    ends: float
    hostname: str
    organisation: str
    contact: str

    @property
    def id(self) -> str:
        """The Report-ID: the same whenever this day is reported, by whichever of our nodes (RFC 9990 3.5.1)."""
        return f"{self.begins:.0f}.{self.domain}@{self.hostname}"

    @property
    def filename(self) -> str:
        """RFC 9990 3.5.2."""
        return f"{self.hostname}!{self.domain}!{self.begins:.0f}!{self.ends - 1:.0f}.xml.gz"


@dataclass
class Records:
    """The rows of a report as XML, as many as fit into *room* octets; *left_out* counts the mails of all others."""

    room: int
    written: list[bytes] = field(default_factory=list)
    mails: int = 0
    left_out: int = 0

    def add(self, row: Row, mails: int) -> None:
        """Write down that *mails* came in the way of *row*."""
        record = _record(row, mails).encode()
        if self.left_out or len(record) > self.room:
            self.left_out += mails
            return
        self.written.append(record)
        self.room -= len(record)
        self.mails += mails


# ---- XML ----------------------------------------------------------------------------------------------------------


def xml(about: Subject, published: Published, records: Records) -> Iterator[bytes]:
    """The report, a piece at a time."""
    yield f'<?xml version="1.0" encoding="UTF-8"?>\n<feedback xmlns="{NAMESPACE}">\n<version>1.0</version>\n'.encode()
    yield _element("report_metadata", *_metadata(about, records.left_out)).encode()
    yield _element("policy_published", *_policy(published)).encode()
    yield from records.written
    yield b"</feedback>\n"


def _metadata(about: Subject, left_out: int) -> Iterator[str]:
    yield _text("org_name", about.organisation)
    yield _text("email", about.contact)
    yield _text("report_id", about.id)
    yield _element("date_range", _text("begin", f"{about.begins:.0f}"), _text("end", f"{about.ends - 1:.0f}"))
    if left_out:
        yield _text("error", f"This report is not complete: {left_out} more mails did not fit into it.")
    yield _text("generator", GENERATOR)


def _policy(published: Published) -> Iterator[str]:
    yield _text("domain", published.domain)
    yield _word("p", published.p)
    optional = {"sp": published.sp, "np": published.np, "adkim": published.adkim, "aspf": published.aspf}
    optional |= {"discovery_method": published.method, "testing": published.t}
    yield from (_word(name, value) for name, value in optional.items() if value in _WORDS[name])
    if published.fo:
        yield _text("fo", published.fo)


def _record(row: Row, mails: int) -> str:
    reasons = (_element("reason", _word("type", kind), *_optional("comment", text)) for kind, text in row.reasons)
    evaluated = _word("disposition", row.disposition), _aligned("dkim", row.dkim), _aligned("spf", row.spf)
    return _element(
        "record",
        _element(
            "row",
            _text("source_ip", row.source),
            _text("count", str(mails)),
            _element("policy_evaluated", *evaluated, *reasons),
        ),
        _element(
            "identifiers",
            _text("header_from", row.header_from),
            _text("envelope_from", row.envelope_from),
            *_optional("envelope_to", row.envelope_to),
        ),
        _element("auth_results", *_dkim(row), *_spf(row)),
    )


def _dkim(row: Row) -> Iterator[str]:
    for domain, selector, result in row.signatures:
        known = result if result in _AUTHENTICATED and result != "softfail" else "none"
        yield _element("dkim", _text("domain", domain), _text("selector", selector), _text("result", known))


def _spf(row: Row) -> Iterator[str]:
    if row.checked:
        domain, result = row.checked
        known = result if result in _AUTHENTICATED else "none"
        yield _element("spf", _text("domain", domain), _text("scope", "mfrom"), _text("result", known))


def _aligned(name: str, result: str) -> str:
    return _text(name, "pass" if result == "pass" else "fail")


def _word(name: str, value: str) -> str:
    return _text(name, value if value in _WORDS[name] else _WORDS[name][0])


def _optional(name: str, value: str) -> Iterator[str]:
    if value:
        yield _text(name, value)


def _text(name: str, value: str) -> str:
    return f"<{name}>{_UNWRITABLE.sub('?', value).translate(_ESCAPES)}</{name}>\n"


def _element(name: str, *content: str) -> str:
    return f"<{name}>\n{''.join(content)}</{name}>\n"


# ---- The mail -----------------------------------------------------------------------------------------------------


def packed(pieces: Iterable[bytes]) -> bytes:
    """*pieces* as one gzip file, the same for the same pieces."""
    packer = zlib.compressobj(wbits=31)  # gzip with no time in its header
    return b"".join([*map(packer.compress, pieces), packer.flush()])


def mail(about: Subject, file: bytes, *, mails: int, sender: str, to: Iterable[str], now: float) -> bytes:
    """The report *file* (gzip) as a mail with CRLF from *sender* to the addresses *to*; *mails* is what it counts."""
    boundary = f"=_{secrets.token_hex(16)}"
    parts = (_letter(about, mails), _attachment(about.filename, file))
    body = b"".join(b"--%s\r\n%s\r\n" % (boundary.encode(), part) for part in parts)
    return _header(about, sender, to, now, boundary) + b"\r\n" + body + f"--{boundary}--\r\n".encode()


def _header(about: Subject, sender: str, to: Iterable[str], now: float, boundary: str) -> bytes:
    """RFC 9990 3.5.2: the subject is for programs, so each of its words stands where the grammar wants it."""
    return _lines(
        f"From: DMARC reports <{sender}>",
        "To: " + ",\r\n ".join(f"<{one}>" for one in to),
        f"Subject: Report Domain: {about.domain}",
        f" Submitter: {about.hostname}",
        f" Report-ID: <{about.id}>",
        f"Date: {format_datetime(datetime.fromtimestamp(now, UTC))}",
        f"Message-ID: <{about.id}>",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/mixed;\r\n boundary="{boundary}"',
    )


def _letter(about: Subject, mails: int) -> bytes:
    day = datetime.fromtimestamp(about.begins, UTC).strftime("%d %B %Y")
    count = "1 mail" if mails == 1 else f"{mails} mails"
    return _lines(
        "Content-Type: text/plain; charset=us-ascii",
        "Content-Transfer-Encoding: 7bit",
        "",
        "This is a DMARC aggregate report (RFC 9990) about mail that named",
        f"    {about.domain}",
        "in its From field, or a domain below it that has no policy of its own.",
        "",
        f"On {day} (UTC), {count} came to the mail gateway",
        f"    {about.hostname}",
        "",
        "The report is attached. You get it because the DMARC record of the domain",
        "asks for it (rua); nobody reads answers to this address.",
    )


def _attachment(name: str, file: bytes) -> bytes:
    header = _lines(
        f'Content-Type: application/gzip;\r\n name="{name}"',
        f'Content-Disposition: attachment;\r\n filename="{name}"',
        "Content-Transfer-Encoding: base64",
        "",
    )
    return header + base64.encodebytes(file).replace(b"\n", b"\r\n")


def _lines(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in lines).encode("ascii", "replace")

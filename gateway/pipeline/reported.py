"""A report that a mail brought: whether it is kept, and what the record of the mail says of it.

Only reports about domains of ours are kept, so nobody fills our tables with the domains of others. Whether its sender
is proved is what `filters/dmarc.py` found of the mail (RFC 9990 3.4: reports have to pass DMARC themselves).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from gateway import routes as ways
from gateway.model import Found, Mail, Report, Result
from gateway.stages import Stages
from gateway.store.reports import Proof, Received

_EARLY = 2 * 86400.0
"""Seconds that a reporter's clock may be ahead of ours."""


@dataclass(frozen=True, slots=True)
class Told:
    """What is kept of a report, if anything, and a sentence for the record."""

    received: Received | None
    sentence: str


def told(mail: Mail, found: Found, stages: Stages, now: float) -> Told | None:
    """What becomes of the report in *mail*; None where it is for nobody who gets reports."""
    report = mail.content.report
    if report is None:
        return None
    if why := unusable(report, stages, now):
        return Told(None, f"not read: {why}")
    sender, proof = _sender(mail, found)
    return Told(Received(report, now, mail.id, sender, proof), sentence(report))


def unusable(report: Report, stages: Stages, now: float) -> str:
    """Why *report* cannot be kept, in our words; "" where it can."""
    if report.fault:
        return report.fault
    if not _is_ours(stages, report.domain):
        return f"the report is about {report.domain}, which is no domain of ours"
    return "the report tells of days to come" if report.ends > now + _EARLY else ""


def sentence(report: Report) -> str:
    """What *report* is, in one line."""
    mails = sum(record.count for record in report.records) + report.left_mails
    return f"a report by {report.org} about {report.domain}, {days(report.begins, report.ends)}: {mails} mails"


def days(begins: float, ends: float) -> str:
    """The day (UTC) of a report, or its first and its last."""
    last = max(begins, ends - 1)  # a day ends when the next begins
    return " to ".join(dict.fromkeys(f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}" for at in (begins, last)))


def _is_ours(stages: Stages, domain: str) -> bool:
    """Whether *domain*, or one above it, is one whose mail we take, or that reports.toml names."""
    labels = domain.split(".")
    names = (".".join(labels[start:]) for start in range(len(labels)))
    return any(ways.accepts_from_world(stages.routes, name) or name in stages.reports.domains for name in names)


def _sender(mail: Mail, found: Found) -> tuple[str, Proof]:
    """The domain that the mail came from, and how that is known."""
    results = [finding.result for finding in found.get("dmarc", ()) if finding.result is not None]
    passed = next((result for result in results if _passes(result)), None)
    return (passed.get("header.from"), Proof.DMARC) if passed else (mail.content.author.domain, Proof.NONE)


def _passes(result: Result) -> bool:
    return (result.method, result.result) == ("dmarc", "pass") and bool(result.get("header.from"))

"""Is the mail from the domain that its reader sees in From? (DMARC, RFC 9989)

What SPF, DKIM and ARC have found is compared with the author's domain, under the record that its owner publishes. No
content is parsed here, and the only questions are those of the tree walk (4.10); what nobody could tell is `temperror`.

The facts tell an aggregate report (RFC 9990) what it needs, as `key=value`; what a record does not say is left out:
policy.domain (where the record stands), policy.p, .sp, .np, .adkim, .aspf, .t, .psd, .fo, .rua (mailto: addresses with
commas between them), .method (treewalk, or psl where the public suffix list decided), aligned.dkim and aligned.spf
(pass or fail), and override=trusted_forwarder where a chain of ARC sets the wish of the owner aside. The DNS answers
that were used come last.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from filters._dmarc.alignment import Aligner, Alignment, Evidence, evidence, is_domain
from filters._dmarc.walks import MIN_QUERIES, Walks
from gateway.dmarc.record import WISHES, Record
from gateway.dmarc.tree import applying, is_within
from gateway.model import Author, Direction, Finding, Found, Mail, Result, Stage, Temporary, Tools

MAX_RUA = 480
"""Characters of all addresses in `policy.rua`: a fact keeps 500."""

_METHODS = {"spf": "SPF", "dkim": "DKIM"}


@dataclass(frozen=True, slots=True)
class Settings:
    """How much the domains of one mail may ask of us, and whose mail is not asked about."""

    max_queries: int = 16
    """DNS questions for one mail; at least 12, which the author's domain may cost alone."""

    timeout: float = 20.0
    """Seconds for one mail. Afterwards the result is `temperror`."""

    parents_align: bool = False
    """Whether a parent may vouch for an author's domain that alone has a record, as before RFC 9989."""

    own_relays: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """Networks of hosts that hand on mail of others to us: SPF cannot tell for them, and DMARC is not judged."""


class Filter:
    """Judges each mail from outside once."""

    stage: ClassVar[Stage] = Stage.MESSAGE
    codes: ClassVar[frozenset[str]] = frozenset(
        {"pass", "none", "fail_none", "fail_quarantine", "fail_reject", "forwarded", "temperror", "permerror"}
    )
    after: ClassVar[frozenset[str]] = frozenset({"spf", "dkim", "arc"})

    def __init__(self, settings: Settings, tools: Tools) -> None:
        if settings.max_queries < MIN_QUERIES:
            raise ValueError(f"max_queries has to be {MIN_QUERIES} at least: one author's domain may need as many")
        if not settings.timeout > 0:
            raise ValueError("timeout is above 0")
        self._settings, self._tools = settings, tools
        self._own = [ipaddress.ip_network(network) for network in settings.own_relays]

    async def check(self, mail: Mail, found: Found) -> Sequence[Finding]:
        """Exactly one finding; none for mail of our own people and relays."""
        if mail.session.direction is not Direction.INBOUND or self._is_own(mail):
            return []
        author = mail.content.author
        if author.doubts or not is_domain(author.domain):
            return [_nobody() if _is_bounce_of_nobody(mail) else _no_author(author)]
        walks = Walks(self._tools.dns, self._settings.max_queries, self._settings.timeout)
        finding = await _judged(author.domain, evidence(mail, found), walks, parents_align=self._settings.parents_align)
        return [replace(finding, facts=(*finding.facts, *walks.facts()))]

    def _is_own(self, mail: Mail) -> bool:
        return any(mail.session.peer in network for network in self._own)


# --- the judgement (5.3) ---------------------------------------------------------------------------------------------


async def _judged(author: str, evidence: Evidence, walks: Walks, *, parents_align: bool) -> Finding:
    try:
        return await _weighed(author, evidence, walks, parents_align)
    except Temporary as error:
        why = f"what {author} wants could not be asked: {error}"
        return Finding("temperror", why, result=_result("temperror", author))


async def _weighed(author: str, evidence: Evidence, walks: Walks, parents_align: bool) -> Finding:
    record, listed = await applying(author, walks.record)
    if record is None or record.useless:
        why = walks.missing() if record is None else "has a DMARC record without a valid policy"
        return Finding("none", f"{author} {why}", result=_result("none", author))
    alignment = await Aligner(author, record, walks, parents_align).sort(evidence.identifiers)
    facts = (*_published(record, listed=listed), *(f"aligned.{one}={alignment.result(one)}" for one in ("dkim", "spf")))
    if alignment.aligned:
        wish = _wish(author, record, existing=True)
        return Finding("pass", _vouched(author, alignment), facts=facts, result=_result("pass", author, wish))
    exists = record.domain == author or not record.np or await walks.exists(author)
    whose = "" if record.domain == author else " of its subdomains" if exists else " of subdomains that do not exist"
    return _failed(author, _Failure(record, _wish(author, record, existing=exists), whose, evidence, alignment, facts))


@dataclass(frozen=True, slots=True)
class _Failure:
    """A mail that no aligned identifier vouches for, and what its owner wishes then; `whose` says for which mail."""

    record: Record
    wish: str
    whose: str
    evidence: Evidence
    alignment: Alignment
    facts: tuple[str, ...]

    @property
    def unknown(self) -> bool:
        return self.evidence.unsure or bool(self.alignment.unknown)


def _failed(author: str, failure: _Failure) -> Finding:
    """Its code is the wish of the owner, or `temperror` where not all could be asked and anything hangs on it.

    A wish for nothing must not hold up a mail (5.4).
    """
    wish, facts = failure.wish, failure.facts
    detail = _unaligned(author, wish, failure)
    result = _result("temperror" if failure.unknown else "fail", author, wish)
    if failure.evidence.forwarded:
        detail, facts = f"{detail}; a trusted forwarder saw it pass", (*facts, "override=trusted_forwarder")
        return Finding("forwarded", detail, facts=facts, result=result)
    if failure.unknown and wish != "none":
        return Finding("temperror", f"{detail}, but not all could be asked", facts=facts, result=result)
    return Finding(f"fail_{wish}", detail, facts=facts, result=result)


def _wish(author: str, record: Record, *, existing: bool) -> str:
    """The policy that applies to *author* (4.10.1), one step milder while its owner is testing it (t=y, 4.7)."""
    if record.faulty:
        return "none"
    wish = record.p if record.domain == author else ("" if existing else record.np) or record.sp or record.p
    return WISHES[max(0, WISHES.index(wish) - 1)] if record.t == "y" else wish


def _result(result: str, author: str, policy: str = "") -> Result:
    about = (("header.from", author),)
    return Result("dmarc", result, (*about, ("policy.dmarc", policy)) if policy else about)


def _is_bounce_of_nobody(mail: Mail) -> bool:
    """Whether it has no sender, and no reader sees an author's address: old mail systems write "MAILER-DAEMON" so.

    Some readers show Sender or Resent-From where From has none.
    """
    author = mail.content.author
    return not (mail.envelope.sender or author.address or author.doubts or author.senders)


def _nobody() -> Finding:
    """It bears nobody's domain, so there is nothing that DMARC could protect, and honest bounces are not held."""
    return Finding("none", "a bounce that names no author's domain", result=Result("dmarc", "none"))


def _no_author(author: Author) -> Finding:
    """Several authors or none: there is no domain whose wish could be asked (5.3.1, 11.5)."""
    why = author.doubts[0] if author.doubts else "no domain in From" if author.address else "no author in From"
    return Finding("permerror", f"it cannot be told who wrote the mail: {why}", result=Result("dmarc", "permerror"))


# --- the facts -------------------------------------------------------------------------------------------------------


def _published(record: Record, *, listed: bool) -> Iterator[str]:
    """What the owner publishes, for an aggregate report (RFC 9990)."""
    said = {
        "domain": record.domain,
        "p": "none" if record.faulty else record.p,
        "sp": record.sp,
        "np": record.np,
        "adkim": record.adkim,
        "aspf": record.aspf,
        "t": record.t,
        "psd": record.psd,
        "fo": record.fo[:20],
        "rua": ",".join(_fitting(record.rua)),
        "method": "psl" if listed else "treewalk",
    }
    return (f"policy.{name}={value}" for name, value in said.items() if value)


def _fitting(uris: Iterable[str]) -> Iterator[str]:
    """The first of *uris* that fit into one fact, each of them whole."""
    left = MAX_RUA
    for uri in uris:
        left -= len(uri) + 1
        if left >= 0:
            yield uri


# --- words -----------------------------------------------------------------------------------------------------------


def _vouched(author: str, alignment: Alignment) -> str:
    by = dict.fromkeys(f"{_METHODS[one.method]} for {one.domain}" for one in alignment.aligned[:3])
    return f"{author} is the sender: {' and '.join(by)} passed"


def _unaligned(author: str, wish: str, failure: _Failure) -> str:
    passed = [one for one in failure.evidence.identifiers if one.passed]
    spf = next((f"SPF passed for {one.domain}" for one in passed if one.method == "spf"), "SPF did not pass")
    dkim = f"no DKIM signature of {author} held"
    owner, testing = failure.record.domain, " while it is testing" if failure.record.t == "y" else ""
    wants = {
        "none": f"{owner} asks for nothing where a mail{failure.whose} is not aligned",
        "quarantine": f"{owner} wants unaligned mail{failure.whose} held",
        "reject": f"{owner} wants unaligned mail{failure.whose} rejected",
    }
    return f"{wants[wish]}{testing}: {spf}, {dkim}{_near_miss(failure)}"


def _near_miss(failure: _Failure) -> str:
    """Who passed, and would have vouched if the owner were content with the same organisation."""
    record, demand = failure.record, {"spf": failure.record.aspf, "dkim": failure.record.adkim}
    for one in failure.evidence.identifiers:
        if one.passed and demand[one.method] == "s" and is_within(one.domain, record.domain):
            words = f"{_METHODS[one.method]} for {one.domain} does not count, for the owner wants"
            return f"; {words} the very domain in From (a{one.method}=s)"
    return ""

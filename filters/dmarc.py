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

import asyncio
import functools
import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from gateway.model import ERROR, Author, Direction, Dns, Finding, Found, Mail, Result, Stage, Temporary, Tools

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

MAX_LABELS = 7
"""Labels of the longest name that a tree walk asks for after the domain itself: so it asks eight times (4.10)."""

EXISTENCE = ("MX", "A", "AAAA", "TXT")
"""What a domain may have that exists. The DNS we ask does not tell NXDOMAIN from a name without such records."""

MIN_QUERIES = 1 + MAX_LABELS + len(EXISTENCE)
"""Questions that the record of the author's domain can cost; what is left is for the domains of SPF and DKIM."""

MAX_RUA = 480
"""Characters of all addresses in `policy.rua`: a fact keeps 500."""

_WISHES = ("none", "quarantine", "reject")
"""What an owner can ask for, mildest first."""

_METHODS = {"spf": "SPF", "dkim": "DKIM"}

_VERSION = re.compile(rb"[vV][ \t]*=[ \t]*DMARC1[ \t]*(?:;|\Z)")
_DOMAIN = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_SERVICE = re.compile(r"(?:\A|\.)_")
"""A name of this form is no host (RFC 8552): often strangers may publish there, to answer challenges for instance."""

_URI = re.compile(r"[a-z][a-z0-9+.-]*:[^\s,!]+", re.IGNORECASE)
_MAILTO = re.compile(r"mailto:[^\s,!@?;]+@[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?", re.IGNORECASE)
_SIZE = re.compile(r"![0-9]+[kmgt]?\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Settings:
    """How much the domains of one mail may ask of us, and whose mail is not asked about."""

    max_queries: int = 16
    """DNS questions for one mail; at least 12, which the author's domain may cost alone."""

    timeout: float = 20.0
    """Seconds for one mail. Afterwards the result is `temperror`."""

    parents_align: bool = True
    """Whether a parent may vouch for an author's domain that alone has a record, as before RFC 9989."""

    own_relays: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """Networks of hosts that hand on mail of others to us: SPF cannot tell for them, and DMARC is not judged."""


class _TooMany(Exception):
    """The domains of one mail ask more questions than the settings allow."""


@dataclass(frozen=True, slots=True)
class Record:
    """What the owner of `domain` publishes (4.7): defaults where nothing valid is said, "" where there is none.

    `faulty`: `p` is missing or wrong, or `sp` or `np` is wrong. `uris`: whether `rua` names one valid URI at least, of
    whatever kind; `rua` has the mailto: ones.
    """

    domain: str
    p: str = ""
    sp: str = ""
    np: str = ""
    adkim: str = "r"
    aspf: str = "r"
    psd: str = "u"
    t: str = "n"
    fo: str = ""
    rua: tuple[str, ...] = ()
    uris: bool = False
    faulty: bool = False

    @property
    def useless(self) -> bool:
        """Whether no DMARC processing is to be done with it (4.10.1)."""
        return self.faulty and not self.uris


class _Identifier(NamedTuple):
    """A domain that has authenticated the mail, or that could not be asked now whether it did."""

    method: str
    domain: str
    passed: bool


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What the filters before have found. `unsure`: one of them could not tell, and nobody knows about which domain."""

    identifiers: tuple[_Identifier, ...]
    unsure: bool
    forwarded: bool


class _Organisation(NamedTuple):
    """An organisational domain, and whether the public suffix list had to say which it is."""

    domain: str
    listed: bool = False


@dataclass(frozen=True, slots=True)
class _Alignment:
    """Which identifiers align. `unknown` are those that nobody could tell about, or that could not tell themselves."""

    aligned: tuple[_Identifier, ...]
    unknown: tuple[_Identifier, ...]

    def result(self, method: str) -> str:
        """What an aggregate report says of *method*."""
        return "pass" if any(one.method == method for one in self.aligned) else "fail"


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
        if author.doubts or not _is_domain(author.domain):
            return [_nobody() if _is_bounce_of_nobody(mail) else _no_author(author)]
        walks = _Walks(self._tools.dns, self._settings)
        finding = await _judged(author.domain, _evidence(mail, found), walks, self._settings)
        return [replace(finding, facts=(*finding.facts, *walks.facts()))]

    def _is_own(self, mail: Mail) -> bool:
        return any(mail.session.peer in network for network in self._own)


# --- the judgement (5.3) ---------------------------------------------------------------------------------------------


async def _judged(author: str, evidence: _Evidence, walks: _Walks, settings: Settings) -> Finding:
    try:
        return await _weighed(author, evidence, walks, settings)
    except Temporary as error:
        why = f"what {author} wants could not be asked: {error}"
        return Finding("temperror", why, result=_result("temperror", author))


async def _weighed(author: str, evidence: _Evidence, walks: _Walks, settings: Settings) -> Finding:
    record, method = await _policy(author, walks)
    if record is None or record.useless:
        why = walks.missing() if record is None else "has a DMARC record without a valid policy"
        return Finding("none", f"{author} {why}", result=_result("none", author))
    alignment = await _Aligner(author, record, walks, settings).sort(evidence.identifiers)
    facts = (*_published(record, method), *(f"aligned.{one}={alignment.result(one)}" for one in ("dkim", "spf")))
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
    evidence: _Evidence
    alignment: _Alignment
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
    return _WISHES[max(0, _WISHES.index(wish) - 1)] if record.t == "y" else wish


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


# --- what the filters before have found ------------------------------------------------------------------------------


def _evidence(mail: Mail, found: Found) -> _Evidence:
    asked = [finding for name in ("spf", "dkim") for finding in found.get(name, ())]
    unsure = any(finding.code in {ERROR, "temperror"} and finding.result is None for finding in asked)
    # That of arc.py says: a trusted sealer would vouch for it. A refusal could not be taken back.
    unsure |= any(finding.code in {ERROR, "temperror"} for finding in found.get("arc", ()))
    identifiers = tuple(dict.fromkeys(_identifiers(mail, asked)))
    forwarded = any(finding.code == "trusted" for finding in found.get("arc", ()))
    return _Evidence(identifiers, unsure, forwarded)


def _identifiers(mail: Mail, findings: Iterable[Finding]) -> Iterator[_Identifier]:
    """The domains of SPF and DKIM results. HELO stands in for an empty MAIL FROM alone (4.4.2, RFC 7208 2.4)."""
    properties = {"spf": "smtp.mailfrom" if mail.envelope.sender else "smtp.helo", "dkim": "header.d"}
    for result in (finding.result for finding in findings):
        if result is not None and result.method in properties and result.result in {"pass", "temperror"}:
            domain = result.get(properties[result.method]).lower().removesuffix(".")
            if _is_domain(domain) and not _SERVICE.search(domain):
                yield _Identifier(result.method, domain, result.result == "pass")


# --- alignment (4.4, 4.10.2) -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Aligner:
    author: str
    record: Record
    walks: _Walks
    settings: Settings

    async def sort(self, identifiers: Iterable[_Identifier]) -> _Alignment:
        """Which of *identifiers* align. One that could not be told is unknown, and so is an aligned one that did not
        pass because nobody could tell."""
        aligned: list[_Identifier] = []
        unknown: list[_Identifier] = []
        for one in sorted(identifiers, key=_cost):
            try:
                if await self._aligns(one):
                    (aligned if one.passed else unknown).append(one)
            except Temporary:
                unknown.append(one)
            except _TooMany:
                continue  # it is too far away to count
        return _Alignment(tuple(aligned), tuple(unknown))

    async def _aligns(self, identifier: _Identifier) -> bool:
        if identifier.domain == self.author:
            return True
        mode = self.record.adkim if identifier.method == "dkim" else self.record.aspf
        if mode == "s" or _last_label(identifier.domain) != _last_label(self.author):
            return False
        return await self._same_organisation(identifier.domain)

    async def _same_organisation(self, domain: str) -> bool:
        """Relaxed alignment. Only a domain at or under the author's organisational one is worth a walk."""
        records = await self.walks.walk(self.author)
        ours = organisation(self.author, records).domain
        if _is_within(domain, ours):
            return organisation(domain, await self.walks.walk(domain)).domain == ours
        return self.settings.parents_align and _is_parent(domain, self.author, records)


def _cost(identifier: _Identifier) -> tuple[bool, int]:
    """What passed comes first, and short names, which need few questions."""
    return not identifier.passed, _count(identifier.domain)


def _is_parent(domain: str, author: str, records: Sequence[Record]) -> bool:
    """The fallback to the public suffix list: *domain* has no record, *author* below it has one, and no `psd` says
    where the organisation begins. For RFC 9989 these are two; for RFC 7489, by which many still publish, they are one.
    Whoever holds a name can publish for all names below it, so this lets nobody in who could not come in anyway: a
    sister of *author* is still a stranger, and so is whatever is itself a public suffix.
    """
    if any(record.psd in {"y", "n"} for record in records) or not _is_within(author, domain):
        return False
    return _count(domain) > _count(_public_suffix(author))


# --- the record that applies (4.10) ----------------------------------------------------------------------------------


async def _policy(author: str, walks: _Walks) -> tuple[Record | None, str]:
    """The record for *author* and how it was found: its own, its organisational domain's, or its public suffix's."""
    if (own := await walks.record(author)) is not None:
        return own, "treewalk"
    records = await walks.walk(author)
    ours, listed = organisation(author, records)
    method = "psl" if listed else "treewalk"
    return next((record for record in records if _is_within(ours, record.domain)), None), method


def organisation(domain: str, records: Sequence[Record]) -> _Organisation:
    """The organisational domain of *domain*, whose tree walk found *records*, longest name first (4.10.2).

    The public suffix list is a guard here: what a registry publishes must not make one organisation of all who have
    registered there. Where the walk ends at a public suffix or above it ("co.uk", whose record has no psd; or "uk",
    whose record has psd=y while "co.uk" has none), the organisation begins below the suffix. Only psd=n says otherwise.
    """
    if not records or records[-1].psd == "n":
        return _Organisation(records[-1].domain if records else domain)
    found = records[-1].domain
    if records[-1].psd == "y":
        found = _shortened(domain, _count(found) + 1)
    if found == domain or _count(found) > (suffix := _count(_public_suffix(domain))):
        return _Organisation(found)
    private = [record.domain for record in records if _count(record.domain) > suffix]
    return _Organisation(private[-1] if private else _shortened(domain, suffix + 1), listed=True)


class _Walks:
    """The questions for one mail, each asked once. What has no answer by the end of its time is `Temporary`, so what
    was told before then still counts.
    """

    def __init__(self, dns: Dns, settings: Settings) -> None:
        self._dns, self._settings = dns, settings
        self._ends = asyncio.get_running_loop().time() + settings.timeout
        self._answers: dict[tuple[str, str], Sequence[Any] | Temporary] = {}
        self._records: dict[str, Record | None] = {}

    async def walk(self, domain: str) -> list[Record]:
        """The records of *domain* and of the domains above it, up to one that says where to stop."""
        found = []
        for name in tree(domain):
            if (record := await self.record(name)) is not None:
                found.append(record)
                if record.psd in {"y", "n"}:
                    break
        return found

    async def record(self, domain: str) -> Record | None:
        """The record of *domain* itself."""
        if domain not in self._records:
            # The existence of the author's domain is asked last, and there have to be questions left for that.
            texts = await self._ask("TXT", f"_dmarc.{domain}", self._settings.max_queries - len(EXISTENCE))
            self._records[domain] = parse(domain, texts)
        return self._records[domain]

    async def exists(self, domain: str) -> bool:
        """Whether *domain* has any of the records that domains of mail have (A.4)."""
        for kind in EXISTENCE:
            if await self._ask(kind, domain, self._settings.max_queries):
                return True
        return False

    def missing(self) -> str:
        """Why no record was found, in words."""
        for name in (name for name, record in self._records.items() if record is None):
            texts = self._answers.get(("TXT", f"_dmarc.{name}"), ())
            if not isinstance(texts, Temporary) and (count := sum(1 for text in texts if _VERSION.match(text))) > 1:
                return f"has no DMARC record that counts: there are {count} at _dmarc.{name}"
        return "has no DMARC record"

    async def _ask(self, kind: str, name: str, limit: int) -> Sequence[Any]:
        if (kind, name) not in self._answers:
            if len(self._answers) >= limit:
                raise _TooMany
            self._answers[kind, name] = await self._answer(kind, name)
        answer = self._answers[kind, name]
        if isinstance(answer, Temporary):
            raise answer
        return answer

    async def _answer(self, kind: str, name: str) -> Sequence[Any] | Temporary:
        ask = {"TXT": self._dns.txt, "MX": self._dns.mx, "A": self._dns.a, "AAAA": self._dns.aaaa}[kind]
        try:
            async with asyncio.timeout_at(self._ends):
                return await ask(name)
        except TimeoutError:
            return Temporary(f"no answer within {self._settings.timeout:g} s")
        except Temporary as error:
            return error

    def facts(self) -> Iterator[str]:
        """The answers that were used, one on a line."""
        for (kind, name), answer in self._answers.items():
            if isinstance(answer, Temporary):
                yield f"{kind} {name}: nobody could tell"
            else:
                yield f"{kind} {name}: {', '.join(map(_plain, answer[:5])) or 'none'}"


def tree(domain: str) -> list[str]:
    """The names at which the tree walk for *domain* asks, in their order: eight at most (4.10)."""
    labels = domain.split(".")
    return [domain, *(".".join(labels[-count:]) for count in range(min(len(labels) - 1, MAX_LABELS), 0, -1))]


@functools.cache
def _public_suffixes() -> PublicSuffixList:
    """Read when first needed: it takes 40 ms, and 4 MB for as long as the process lives."""
    from publicsuffixlist import PublicSuffixList  # noqa: PLC0415  see above

    return PublicSuffixList()


def _public_suffix(domain: str) -> str:
    """The part of *domain* below which anybody can register: "co.uk". The last label of domains that nobody lists."""
    return _public_suffixes().publicsuffix(domain) or domain


# --- the record itself (4.7, 4.8) ------------------------------------------------------------------------------------


def parse(domain: str, texts: Iterable[bytes]) -> Record | None:
    """The record among the TXT records of _dmarc.*domain*; several are as good as none (4.10, step 2)."""
    own = [text for text in texts if _VERSION.match(text)]
    return _read(domain, _tags(own[0])) if len(own) == 1 else None


def _read(domain: str, tags: dict[str, str]) -> Record:
    rua = [_SIZE.sub("", uri.strip()) for uri in tags.get("rua", "").split(",")]
    wishes = {name: _one_of(tags, name, _WISHES) for name in ("p", "sp", "np")}
    return Record(
        domain,
        **wishes,
        adkim=_one_of(tags, "adkim", "rs") or "r",
        aspf=_one_of(tags, "aspf", "rs") or "r",
        psd=_one_of(tags, "psd", "ynu") or "u",
        t=_one_of(tags, "t", "yn") or "n",
        fo=tags.get("fo", ""),
        rua=tuple(uri for uri in rua if _MAILTO.fullmatch(uri)),
        uris=any(_URI.fullmatch(uri) for uri in rua),
        faulty=not wishes["p"] or any(name in tags and not wishes[name] for name in ("sp", "np")),
    )


def _tags(text: bytes) -> dict[str, str]:
    """The tags of a record. One that is malformed or stands there twice counts as wrong: it has the value ""."""
    tags: dict[str, str] = {}
    for tag in text.decode("ascii", "replace").split(";")[1:]:
        name, _, value = (word.strip(" \t") for word in tag.partition("="))
        valid = name.lower() not in tags and value.isascii() and value.isprintable()
        tags[name.lower()] = value if valid else ""
    return tags


def _one_of(tags: dict[str, str], name: str, allowed: Iterable[str]) -> str:
    value = tags.get(name, "").lower()
    return value if value in tuple(allowed) else ""


def _published(record: Record, method: str) -> Iterator[str]:
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
        "method": method,
    }
    return (f"policy.{name}={value}" for name, value in said.items() if value)


def _fitting(uris: Iterable[str]) -> Iterator[str]:
    """The first of *uris* that fit into one fact, each of them whole."""
    left = MAX_RUA
    for uri in uris:
        left -= len(uri) + 1
        if left >= 0:
            yield uri


# --- names and words -------------------------------------------------------------------------------------------------


def _is_domain(domain: str) -> bool:
    return len(domain) <= 253 and _DOMAIN.fullmatch(domain) is not None


def _is_within(domain: str, other: str) -> bool:
    """Whether *domain* is *other* or lies below it."""
    return domain == other or domain.endswith(f".{other}")


def _count(domain: str) -> int:
    """The labels of *domain*."""
    return domain.count(".") + 1


def _shortened(domain: str, labels: int) -> str:
    """The last *labels* of *domain*; all of it where it has no more."""
    return ".".join(domain.split(".")[-labels:])


def _last_label(domain: str) -> str:
    return domain.rpartition(".")[2]


def _vouched(author: str, alignment: _Alignment) -> str:
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
        if one.passed and demand[one.method] == "s" and _is_within(one.domain, record.domain):
            words = f"{_METHODS[one.method]} for {one.domain} does not count, for the owner wants"
            return f"; {words} the very domain in From (a{one.method}=s)"
    return ""


def _plain(value: object) -> str:
    """An answer of the DNS, printable and short."""
    match value:
        case bytes() as text:
            words = text.decode("ascii", "replace")
        case (int() as preference, str() as host):
            words = f"{preference} {host}"
        case _:
            words = str(value)
    return re.sub(r"[^\x20-\x7e]", "?", words[:400])

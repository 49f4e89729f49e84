"""May this host send mail in the name of that domain: the one of MAIL FROM, and the one of HELO? (SPF, RFC 7208)

pyspf does the evaluation, but never a query: it runs over the DNS answers known so far, and as soon as it wants another
one, that one is fetched by our own resolver and the evaluation starts again. The text behind `exp=` is never fetched.
MAIL FROM comes first, so that a costly record behind HELO cannot use up the questions that it needs.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import idna
import spf

from gateway.model import Direction, Dns, Finding, Found, Mail, Oversized, Result, Stage, Temporary, Tools

MAX_TERM = 512
"""Characters of one macro string. Longer ones cannot make a domain name, and are costly to expand."""

MAX_INLINE = 8192
"""Octets of SPF records that are evaluated at once; more go to a thread, so that nobody else waits for them."""

RESULTS = frozenset({"none", "neutral", "pass", "fail", "softfail", "temperror", "permerror"})
"""The results of RFC 7208 2.6."""

EVERYONE = "everyone"
"""The code of a `pass` that says nothing, because the records let everybody pass."""

_HELO = {"pass": "helo_pass", "fail": "helo_fail", "temperror": "helo_temperror"}
_HELO_UNCLEAR = "helo_unclear"
"""The code of all other results for HELO but `none`, which is not worth a word."""

HELO_KEPT = 60.0
"""Seconds for which a result of HELO is kept: hosts have several mails, and most of them one name."""

MAX_HOSTS = 200
"""Hosts whose result is kept, by address and name; each may take 15 KB of facts."""

MAX_FACT = 500
"""Characters of a fact; more is never shown."""

_ANYBODY = re.compile(
    rb"""[ ]\+?(?: all
    | (?:a|mx|ip4) (?: :[^ /]* )? /[0-7] (?: //[0-9]+ )?
    | (?:a|mx) (?: :[^ /]* )? (?: /[0-9]+ )? //(?:1[0-5]|[0-9])
    | ip6 :[^ /]* /(?:1[0-5]|[0-9])
    ) (?: [ ] | $ )""",
    re.IGNORECASE | re.VERBOSE,
)
"""A term that lets everybody pass, or a network too large for one owner (theirs are at most IPv4 /8 and IPv6 /19)."""


_NO_PART = re.compile(r"%\{[a-z]0+(?!\d)", re.IGNORECASE)
"""RFC 7208 7.3: the number is not zero."""

_DOMAIN = re.compile(r"(?:[^. ]{1,63}\.)+(?=[^.]{1,63}$)[a-z0-9-]*[a-z][a-z0-9-]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Settings:
    """How much a sender's records may ask of us, and whose mail is not asked about."""

    max_queries: int = 30
    """DNS questions for one mail, both identities together. RFC 7208 4.6.4 alone would allow more than a hundred."""

    timeout: float = 20.0
    """Seconds for one mail (RFC 7208 4.6.4: at least 20). Afterwards the result is `temperror`."""

    own_relays: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """Networks of hosts that hand on mail of others to us, a secondary MX for instance: SPF cannot tell for them."""


class _Question(NamedTuple):
    """A DNS question of the evaluation; the name is lower case, without a final dot."""

    name: str
    kind: str


class _Wanted(Exception):
    """The evaluation cannot go on without this answer."""

    def __init__(self, question: _Question) -> None:
        self.question = question
        super().__init__("one more answer is needed")


class _TooMuch(Exception):
    """The records ask more questions than the settings allow."""


_Answers = dict[_Question, "list[Any] | Temporary"]


@dataclass(frozen=True, slots=True)
class _Claim:
    """What is to be checked: that `ip` may send for `local`@`domain`, which `identity` named ("smtp.mailfrom")."""

    identity: str
    ip: str
    local: str
    domain: str
    helo: str
    receiver: str


class Filter:
    """Asks once for each mail from outside, at MAIL FROM; the findings go along to the message."""

    stage: ClassVar[Stage] = Stage.SENDER
    codes: ClassVar[frozenset[str]] = RESULTS | {EVERYONE, _HELO_UNCLEAR, *_HELO.values()}
    after: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, settings: Settings, tools: Tools, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._tools, self._clock = settings, tools, clock
        self._hosts: dict[_Claim, tuple[float, list[Finding]]] = {}
        self._own = [ipaddress.ip_network(network) for network in settings.own_relays]

    async def check(self, mail: Mail, found: Found) -> Sequence[Finding]:  # noqa: ARG002  it reads no other filter
        """Exactly one finding of MAIL FROM, its code the result, and one of HELO where its name is another one.

        None for mail of our own people and relays.
        """
        if mail.session.direction is not Direction.INBOUND or self._is_own(mail):
            return []
        host = _claim_of_helo(mail, self._tools.hostname)
        claim = _claim_of_sender(mail, host) if mail.envelope.sender else host  # RFC 7208 2.4
        if _has_control_characters(mail.envelope.sender + mail.session.helo):
            return [_finding(claim, "permerror", "a control character in the identity", {})]
        answers: _Answers = {}
        ends = asyncio.get_running_loop().time() + self._settings.timeout
        findings = [await self._of_sender(claim, answers, ends)]
        if host.domain != claim.domain and _is_checkable(host.domain):  # RFC 7208 2.3
            findings += await self._of_helo(host, answers, ends)
        return findings

    def _is_own(self, mail: Mail) -> bool:
        return any(mail.session.peer in network for network in self._own)

    async def _of_sender(self, claim: _Claim, answers: _Answers, ends: float) -> Finding:
        if not _is_checkable(claim.domain):
            return _finding(claim, "none", "it is no domain", {})  # RFC 7208 4.3
        result, why = await self._within_limits(claim, answers, ends)
        return _finding(claim, result, why, answers)

    async def _of_helo(self, claim: _Claim, answers: _Answers, ends: float) -> list[Finding]:
        """The finding of HELO, with code and facts of its own; none where its domain says nothing."""
        until, kept = self._hosts.get(claim, (0.0, []))
        if until > self._clock():
            return kept
        known = set(answers)
        result, why = await self._within_limits(claim, answers, ends)
        more = {question: answer for question, answer in answers.items() if question not in known}
        finding = replace(_finding(claim, result, why, more), code=_HELO.get(result, _HELO_UNCLEAR))
        findings = [finding] if result != "none" else []
        if result != "temperror":
            self._keep(claim, findings)
        return findings

    def _keep(self, claim: _Claim, findings: list[Finding]) -> None:
        self._hosts.pop(claim, None)
        self._hosts[claim] = self._clock() + HELO_KEPT, findings
        if len(self._hosts) > MAX_HOSTS:
            del self._hosts[next(iter(self._hosts))]

    async def _within_limits(self, claim: _Claim, answers: _Answers, ends: float) -> tuple[str, str]:
        alone = not answers
        try:
            async with asyncio.timeout_at(ends):
                return await self._evaluate(claim, answers)
        except TimeoutError:
            return "temperror", f"no result within {self._settings.timeout:g} s"
        except _TooMuch:  # which is the fault of the records, unless others had their share before
            return "permerror" if alone else "temperror", f"more than {self._settings.max_queries} DNS questions"

    async def _evaluate(self, claim: _Claim, answers: _Answers) -> tuple[str, str]:
        """Evaluate over *answers*, adding to them what is wanted, until there is a result and its ground."""
        record = _Question(claim.domain, "TXT")
        if record not in answers:
            await self._ask(claim, record, answers)
        if not answers[record]:
            return "none", ""
        evaluation = _Replay(claim, answers)
        while True:
            try:
                if _size(answers) > MAX_INLINE:
                    return await asyncio.to_thread(evaluation.result)
                return evaluation.result()
            except _Wanted as wanted:
                await self._ask(claim, wanted.question, answers)

    async def _ask(self, claim: _Claim, question: _Question, answers: _Answers) -> None:
        if len(answers) >= self._settings.max_queries:
            raise _TooMuch
        answers[question] = await _answer(self._tools.dns, claim, question)


class _Replay(spf.query):  # type: ignore[misc]  # pyspf carries no type hints
    """The evaluation of one claim, over the answers known so far; begun again whenever there is one more."""

    def __init__(self, claim: _Claim, answers: _Answers) -> None:
        super().__init__(i=claim.ip, s=f"{claim.local}@{claim.domain}", h=claim.helo, receiver=claim.receiver)
        # pyspf splits at the first "@", which a quoted local part may contain.
        self.l, self.o, self.d = claim.local, claim.domain, claim.domain
        self._answers = answers
        self._expanded: dict[tuple[str, str, bool], str] = {}
        self._validated: dict[tuple[str, str], Any] = {}

    def result(self) -> tuple[str, str]:
        """The result and its ground, or `_Wanted`."""
        result, _, text = self.check()
        if result in {"temperror", "permerror"}:
            return result, text.split("Error: ", 1)[-1]
        return result, f"matched {self.mechanism}" if self.mechanism else ""

    def dns(self, name: str, qtype: str, *, ignore_void: bool = False) -> list[Any]:
        """The known answer, void look-ups counted (RFC 7208 4.6.4)."""
        question = _Question(name.removesuffix(".").lower(), qtype)
        answer = self._answers.get(question)
        if answer is None:
            raise _Wanted(question)
        if isinstance(answer, Temporary):
            raise (spf.PermError if isinstance(answer, Oversized) else spf.TempError)(str(answer))
        if not answer and not ignore_void:
            self._count_void()
        return list(answer)

    def _count_void(self) -> None:
        self.void_lookups += 1
        if self.void_lookups > spf.MAX_VOID_LOOKUPS:
            raise spf.PermError(f"more than {spf.MAX_VOID_LOOKUPS} void lookups")

    def validated_ptrs(self) -> list[str]:
        """The names of the peer that lead back to it. What cannot be asked is left out (RFC 7208 5.5).

        The peer writes them, so none may spoil the result of somebody else's record: they count as no void look-ups.
        """
        return [name for name in self._names(self.dns_ptr, self.i)[: spf.MAX_PTR] if self._leads_back(name)]

    def _leads_back(self, name: str) -> bool:
        addresses = self._names(lambda wanted: self.dns(wanted, self.A, ignore_void=True), name)
        return bool(self.cidrmatch(addresses, self.cidrmax))

    @staticmethod
    def _names(look: Callable[[str], list[str]], name: str) -> list[str]:
        try:
            return look(name)
        except spf.TempError:
            return []

    def validate_mechanism(self, mech: str) -> Any:
        """pyspf's reading of one term, done once for all evaluations."""
        key = (mech, self.d)
        if key not in self._validated:
            self._validated[key] = super().validate_mechanism(mech)
        return self._validated[key]

    def get_explanation(self, spec: str) -> None:
        """None: the explanation is a stranger's text for which we have no use."""

    def expand(self, s: str, stripdot: bool = True) -> str:
        """pyspf's expansion, bounded, and done once for all evaluations."""
        if len(s) > MAX_TERM:
            raise spf.PermError("a macro string is too long")
        if _NO_PART.search(s):
            raise spf.PermError("a macro wants no part of a name")
        key = (s, self.d, stripdot)
        if key not in self._expanded:
            self._expanded[key] = super().expand(s, stripdot)
        return self._expanded[key]


async def _answer(dns: Dns, claim: _Claim, question: _Question) -> list[Any] | Temporary:
    """The answer in the form pyspf wants; TXT records that are none of SPF are left out."""
    try:
        match question.kind:
            case "A":
                return list(await dns.a(question.name))
            case "AAAA":
                return list(await dns.aaaa(question.name))
            case "MX":
                return list(await dns.mx(question.name))
            case "TXT":
                return [(text,) for text in await dns.txt(question.name) if spf.RE_SPF.match(text)][:2]
            case _:  # PTR: pyspf only ever asks for the address that the claim is about
                return list(await dns.ptr(claim.ip))
    except Temporary as error:
        return error


def _claim_of_helo(mail: Mail, receiver: str) -> _Claim:
    """The identity of HELO. Its domain learns nothing about the sender: the local part is postmaster (RFC 7208 4.3)."""
    ip = str(mail.session.peer).partition("%")[0]
    helo = _ascii_domain(mail.session.helo)
    return _Claim("smtp.helo", ip, "postmaster", helo, helo, receiver)


def _claim_of_sender(mail: Mail, host: _Claim) -> _Claim:
    local, _, domain = mail.envelope.sender.rpartition("@")
    return _Claim("smtp.mailfrom", host.ip, local or "postmaster", _ascii_domain(domain), host.helo, host.receiver)


def _ascii_domain(domain: str) -> str:
    """*domain* in A-labels (RFC 8616 4) and lower case; one that has none stays as it is, and nobody is asked."""
    if not domain.isascii():
        try:
            domain = idna.encode(unicodedata.normalize("NFC", domain).lower(), strict=True).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            return domain
    return domain.removesuffix(".").lower()


def _is_checkable(domain: str) -> bool:
    """Whether *domain* is a name of several labels, and no address or address literal (RFC 7208 4.3)."""
    return len(domain) <= 253 and domain.isascii() and bool(_DOMAIN.fullmatch(domain))


def _has_control_characters(text: str) -> bool:
    return bool(re.search(r"[\x00-\x1f\x7f]", text))


def _records(answers: _Answers) -> list[bytes]:
    lists = [answer for question, answer in answers.items() if question.kind == "TXT" and isinstance(answer, list)]
    return [text for answer in lists for (text,) in answer]


def _size(answers: _Answers) -> int:
    return sum(map(len, _records(answers)))


_SAID = {
    "none": "{0} says nothing of {2}",
    "temperror": "what {0} says of {2} could not be asked",
    "permerror": "what {0} says of {2} is faulty, and counts for nothing",
}
"""Results that are no word of the domain, in our own."""


def _finding(claim: _Claim, result: str, why: str, answers: _Answers) -> Finding:
    """What RFC 7208 calls *result*, for the policy and for Authentication-Results (RFC 8601 2.7.2)."""
    code = EVERYONE if result == "pass" and _lets_everybody_pass(answers) else result
    domain, ground = _shown(claim.domain, 253), f" ({_shown(why)})" if why else ""
    said = _SAID.get(result, "{} says {} for {}").format(_shown(domain), result, claim.ip)
    about = Result("spf", result, ((claim.identity, domain),))
    return Finding(code, f"{said}{ground}", facts=tuple(map(_fact, answers.items())), result=about)


def _lets_everybody_pass(answers: _Answers) -> bool:
    """Whether one of the records that were used opens the door to the whole world, be it not the term that matched."""
    return any(_ANYBODY.search(text) for text in _records(answers))


def _fact(item: tuple[_Question, list[Any] | Temporary]) -> str:
    """One DNS answer that was used, on one line."""
    (name, kind), answer = item
    if isinstance(answer, Temporary):
        return f"{kind} {_shown(name)}: nobody could tell"
    values = ", ".join(_shown(_plain(value), 400) for value in answer[:10])
    return f"{kind} {_shown(name)}: {values or 'none'}"[:MAX_FACT]


def _plain(value: object) -> str:
    match value:
        case (bytes() as text,):
            return text.decode("ascii", "replace")
        case (int() as preference, str() as host):
            return f"{preference} {host}"
        case _:
            return str(value)


def _shown(text: str, limit: int = 100) -> str:
    """A stranger's *text*, printable and short."""
    return re.sub(r"[^\x20-\x7e]", "?", text[:limit])

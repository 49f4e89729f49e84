"""May this host send mail in the name of that domain? (SPF, RFC 7208)

pyspf does the evaluation, but never a query: it runs over the DNS answers known so far, and as soon as it wants another
one, that one is fetched by our own resolver and the evaluation starts again. The text behind `exp=` is never fetched.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import spf

from gateway.model import Direction, Dns, Finding, Found, Mail, Stage, Temporary, Tools

MAX_TERM = 512
"""Characters of one macro string. Longer ones cannot make a domain name, and are costly to expand."""

MAX_INLINE = 8192
"""Octets of SPF records that are evaluated at once; more go to a thread, so that nobody else waits for them."""

RESULTS = frozenset({"none", "neutral", "pass", "fail", "softfail", "temperror", "permerror"})
"""The results of RFC 7208 2.6."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How much a sender's records may ask of us, and whose mail is not asked about."""

    max_queries: int = 30
    """DNS questions for one mail. RFC 7208 4.6.4 alone would allow more than a hundred."""

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
    """What is to be checked: that `ip` may send for `local`@`domain`; `expanded` keeps macro expansions."""

    ip: str
    local: str
    domain: str
    helo: str
    receiver: str
    expanded: dict[tuple[str, str, bool], str]


class Filter:
    """Asks once for each mail from outside, at MAIL FROM; the finding goes along to the message."""

    stage: ClassVar[Stage] = Stage.SENDER
    codes: ClassVar[frozenset[str]] = RESULTS
    after: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, settings: Settings, tools: Tools) -> None:
        self._settings, self._tools = settings, tools
        self._own = [ipaddress.ip_network(network) for network in settings.own_relays]

    async def check(self, mail: Mail, found: Found) -> Sequence[Finding]:  # noqa: ARG002  it reads no other filter
        """Exactly one finding, its code the result; none for mail of our own people and relays."""
        if mail.session.direction is not Direction.INBOUND or self._is_own(mail):
            return []
        if _has_control_characters(mail.envelope.sender + mail.session.helo):
            return [Finding("permerror", "a control character in the identity")]
        claim = _claim(mail, self._tools.hostname)
        if not _is_checkable(claim.domain):
            return [Finding("none", f"{_shown(claim.domain)} is no domain")]  # RFC 7208 4.3
        answers: _Answers = {}
        code, why = await self._within_limits(claim, answers)
        return [Finding(code, _detail(claim, code, why), facts=tuple(map(_fact, answers.items())))]

    def _is_own(self, mail: Mail) -> bool:
        return any(mail.session.peer in network for network in self._own)

    async def _within_limits(self, claim: _Claim, answers: _Answers) -> tuple[str, str]:
        try:
            async with asyncio.timeout(self._settings.timeout):
                return await self._evaluate(claim, answers)
        except TimeoutError:
            return "temperror", f"no result within {self._settings.timeout:g} s"
        except _TooMuch:
            return "permerror", f"more than {self._settings.max_queries} DNS questions"

    async def _evaluate(self, claim: _Claim, answers: _Answers) -> tuple[str, str]:
        """Evaluate over *answers*, adding to them what is wanted, until there is a result and its ground."""
        while True:
            try:
                if _size(answers) > MAX_INLINE:
                    return await asyncio.to_thread(_result, claim, answers)
                return _result(claim, answers)
            except _Wanted as wanted:
                if len(answers) >= self._settings.max_queries:
                    raise _TooMuch from None
                answers[wanted.question] = await _answer(self._tools.dns, claim, wanted.question)


class _Replay(spf.query):  # type: ignore[misc]  # pyspf carries no type hints
    """One evaluation over the answers known so far; `_Wanted` when one more is needed."""

    def __init__(self, claim: _Claim, answers: _Answers) -> None:
        super().__init__(i=claim.ip, s=f"{claim.local}@{claim.domain}", h=claim.helo, receiver=claim.receiver)
        # pyspf splits at the first "@", which a quoted local part may contain.
        self.l, self.o, self.d = claim.local, claim.domain, claim.domain
        self._answers, self._expanded = answers, claim.expanded

    def dns(self, name: str, qtype: str, *, ignore_void: bool = False) -> list[Any]:
        """The known answer, void look-ups counted (RFC 7208 4.6.4)."""
        question = _Question(name.removesuffix(".").lower(), qtype)
        answer = self._answers.get(question)
        if answer is None:
            raise _Wanted(question)
        if isinstance(answer, Temporary):
            raise spf.TempError(str(answer))
        if not answer and not ignore_void:
            self._count_void()
        return list(answer)

    def _count_void(self) -> None:
        self.void_lookups += 1
        if self.void_lookups > spf.MAX_VOID_LOOKUPS:
            raise spf.PermError(f"more than {spf.MAX_VOID_LOOKUPS} void lookups")

    def get_explanation(self, spec: str) -> None:
        """None: the explanation is a stranger's text for which we have no use."""

    def expand(self, s: str, stripdot: bool = True) -> str:
        """pyspf's expansion, bounded, and done once for all evaluations of one mail."""
        if len(s) > MAX_TERM:
            raise spf.PermError("a macro string is too long")
        key = (s, self.d, stripdot)
        if key not in self._expanded:
            self._expanded[key] = super().expand(s, stripdot)
        return self._expanded[key]


def _result(claim: _Claim, answers: _Answers) -> tuple[str, str]:
    """The result over *answers* and its ground, or `_Wanted`."""
    evaluation = _Replay(claim, answers)
    result, _, text = evaluation.check()
    if result in {"temperror", "permerror"}:
        return result, text.split("Error: ", 1)[-1]
    return result, f"matched {evaluation.mechanism}" if evaluation.mechanism else ""


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


def _claim(mail: Mail, receiver: str) -> _Claim:
    """MAIL FROM is the identity, or postmaster at HELO where it is empty (RFC 7208 2.4)."""
    local, _, domain = mail.envelope.sender.rpartition("@")
    if not mail.envelope.sender:
        domain = mail.session.helo
    peer = mail.session.peer
    mapped = peer.ipv4_mapped if isinstance(peer, ipaddress.IPv6Address) else None
    ip = str(mapped or peer).partition("%")[0]
    helo = _ascii_domain(mail.session.helo)
    return _Claim(ip, local or "postmaster", _ascii_domain(domain), helo, receiver, {})


def _ascii_domain(domain: str) -> str:
    """*domain* in A-labels (RFC 8616 4); one that has none stays as it is, and no record is found for it."""
    if domain.isascii():
        return domain.removesuffix(".")
    try:
        return domain.encode("idna").decode("ascii").removesuffix(".")
    except UnicodeError:
        return domain


def _is_checkable(domain: str) -> bool:
    """Whether *domain* is a name of several labels, and no address or address literal (RFC 7208 4.3)."""
    labels = domain.split(".")
    if len(domain) > 253 or len(labels) < 2 or not all(0 < len(label) < 64 for label in labels):
        return False
    return bool(re.fullmatch(r"[a-z0-9-]*[a-z][a-z0-9-]*", labels[-1], re.IGNORECASE)) and domain.isascii()


def _has_control_characters(text: str) -> bool:
    return bool(re.search(r"[\x00-\x1f\x7f]", text))


def _size(answers: _Answers) -> int:
    records = [answer for question, answer in answers.items() if question.kind == "TXT" and isinstance(answer, list)]
    return sum(len(text) for answer in records for (text,) in answer)


def _detail(claim: _Claim, code: str, why: str) -> str:
    ground = f" ({_shown(why)})" if why else ""
    return f"{_shown(claim.domain)} says {code} for {claim.ip}{ground}"


def _fact(item: tuple[_Question, list[Any] | Temporary]) -> str:
    """One DNS answer that was used, on one line."""
    (name, kind), answer = item
    if isinstance(answer, Temporary):
        return f"{kind} {_shown(name)}: nobody could tell"
    return f"{kind} {_shown(name)}: {', '.join(_shown(_plain(value), 400) for value in answer[:10]) or 'none'}"


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

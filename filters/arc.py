"""Does a chain of those who handed the mail on vouch for it? (ARC, RFC 8617)

Forwarders and mailing lists break SPF and DKIM; a chain says what each found before. It is judged by RFC 8617 5.2.
It is worth something only where we trust those who sealed it, for everybody can seal anything.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from gateway.model import Arc, ArcSet, Checked, Direction, Finding, Found, Mail, Result, Signature, Stage, Tools

MAX_SETS = 50
"""Sets that a chain may have (RFC 8617 5.1)."""

_DOMAIN = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})+")


@dataclass(frozen=True, slots=True)
class Settings:
    """Whom we trust, and how much a chain may cost us."""

    trusted_sealers: tuple[str, ...] = ()
    """Domains (d= of seals, to the letter) whose word on a mail's author is believed."""

    sets: int = MAX_SETS
    """Sets of a chain; one with more of them fails."""

    queries: int = 6
    """Different keys of a chain; one that needs more fails. With those of dkim and dmarc, 30 questions for a mail."""

    timeout: float = 8.0
    """Seconds for all keys together; afterwards nobody can tell whether the chain holds."""


class Filter:
    """Asks for the keys of a chain, all at the same time, where a mail from outside has one."""

    stage: ClassVar[Stage] = Stage.MESSAGE
    codes: ClassVar[frozenset[str]] = frozenset({"pass", "trusted", "fail", "temperror", "unchecked"})
    after: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, settings: Settings, tools: Tools, clock: Callable[[], float] = time.time) -> None:
        _check(settings)
        self._settings, self._tools, self._clock = settings, tools, clock

    async def check(self, mail: Mail, found: Found) -> Sequence[Finding]:  # noqa: ARG002  it reads no other filter
        """One finding on the chain; none where there is no chain."""
        arc = mail.content.arc
        if mail.session.direction is not Direction.INBOUND or not (arc.sets or arc.fault):
            return []
        if why := arc.fault or self._out_of_bounds(arc):
            return [Finding("fail", why, result=_result(mail, "fail"))]
        checks = await self._ask(arc)
        facts = tuple(dict.fromkeys(checked.fact for checked in checks.values() if checked.fact))
        code, result, detail = self._judged(mail, arc, checks)
        oldest = _oldest_pass(arc.sets, checks) if result == "pass" else ""
        return [Finding(code, detail, facts=facts, result=_result(mail, result, oldest))]

    def _out_of_bounds(self, arc: Arc) -> str:
        """Why the chain fails without a question, or nothing."""
        if len(arc.sets) > self._settings.sets:
            return f"a chain of more than {self._settings.sets} sets"
        if arc.sets[-1].cv == "fail":  # RFC 8617 5.2, step 2
            return f"{arc.sets[-1].seal.domain or 'the last sealer'} found the chain broken"
        needed = _needed(arc.sets)
        if broken := next((one for one in needed if one.fault or one.broken or one.partial), None):
            return f"the chain is broken: {_which(broken)} {broken.fault or 'does not cover this body'}"
        if len({_key(one) for one in needed}) > self._settings.queries:
            return f"a chain with more than {self._settings.queries} different keys"
        return ""

    async def _ask(self, arc: Arc) -> dict[Signature, Checked]:
        """What became of each signature that decides, and of older ones whose key is at hand anyway."""
        needed = _needed(arc.sets)
        keys = {_key(one) for one in needed}
        asked = list(dict.fromkeys([*needed, *(one.message for one in arc.sets if _key(one.message) in keys)]))
        now = self._clock()
        checks = await asyncio.gather(*(self._ask_one(one, now) for one in asked))
        return dict(zip(asked, checks, strict=True))

    async def _ask_one(self, signature: Signature, now: float) -> Checked:
        try:
            async with asyncio.timeout(self._settings.timeout):
                return await self._tools.signatures.check(signature, now)
        except TimeoutError:
            return Checked("temperror", f"its key did not come within {self._settings.timeout:g} s")

    def _judged(self, mail: Mail, arc: Arc, checks: dict[Signature, Checked]) -> tuple[str, str, str]:
        """Our code, the result for Authentication-Results, and the ground (RFC 8617 5.2, steps 4 and 6)."""
        checked = [(one, checks[one]) for one in _needed(arc.sets)]
        broken = [(one, answer) for one, answer in checked if answer.result not in {"pass", "temperror"}]
        if broken:
            return "fail", "fail", f"the chain is broken: {_said(*broken[0])}"
        voucher = self._voucher(arc.sets, mail.content.author.domain)
        unknown = [(one, answer) for one, answer in checked if answer.result == "temperror"]
        if unknown:
            return "temperror" if voucher else "unchecked", "temperror", f"nobody can tell: {_said(*unknown[0])}"
        if voucher:
            return "trusted", "pass", f"{voucher} vouches for {mail.content.author.domain}, and the chain holds"
        return "pass", "pass", f"the chain holds: {_sealers(arc.sets)}"

    def _voucher(self, sets: Sequence[ArcSet], author: str) -> str:
        """The sealer whose word that the mail is from *author* may be believed if the chain holds, or nothing.

        We believe the newest sealer if we trust it, and through it the one before, if we trust that as well: for the
        newer has sealed that the chain it got was whole (cv=pass). A stranger among the later ones could have put any
        mail under an old word, so nobody before a stranger is believed. A word is a single dmarc result, and about the
        author that our reader sees: sealers let their customers rewrite From.
        """
        for one in reversed(sets if author else ()):
            if one.seal.domain not in self._settings.trusted_sealers:
                return ""
            dmarc = [result for method, result in one.results if method == "dmarc"]
            if dmarc == ["pass"] and one.author == author:
                return one.seal.domain
            if len(dmarc) > 1:
                return ""
        return ""


def _check(settings: Settings) -> None:
    if not 1 <= settings.sets <= MAX_SETS:
        raise ValueError(f"sets is 1 to {MAX_SETS} (RFC 8617 5.1)")
    if settings.queries < 1 or not settings.timeout > 0:
        raise ValueError("queries and timeout are above 0")
    for name in settings.trusted_sealers:
        if not _DOMAIN.fullmatch(name):
            raise ValueError(f"{name!r} is no domain of a sealer: it is written in lower case, like example.org")


def _needed(sets: Sequence[ArcSet]) -> list[Signature]:
    """The signatures that must hold: that of the newest set over the message, and every seal."""
    return [sets[-1].message, *(one.seal for one in sets)]


def _key(signature: Signature) -> tuple[str, str]:
    return signature.domain, signature.selector


def _oldest_pass(sets: Sequence[ArcSet], checks: dict[Signature, Checked]) -> str:
    """The oldest set from which on all signatures over the message hold; "0" where all do (RFC 8617 5.2, step 5)."""
    oldest = sets[-1].instance
    for one in reversed(sets):
        if (checked := checks.get(one.message)) is None or checked.result != "pass":
            return str(oldest)
        oldest = one.instance
    return "0"


def _result(mail: Mail, result: str, oldest: str = "") -> Result:
    """In the words of RFC 8617 10.1."""
    properties = (("header.oldest-pass", oldest), ("smtp.remote-ip", str(mail.session.peer)))
    return Result("arc", result, tuple((name, value) for name, value in properties if value))


def _said(signature: Signature, checked: Checked) -> str:
    return f"{_which(signature)} {checked.why or checked.result}"


def _which(signature: Signature) -> str:
    return f"{signature.domain or 'no domain'}, selector {signature.selector or '?'}:"


def _sealers(sets: Sequence[ArcSet]) -> str:
    return ", then ".join(dict.fromkeys(one.seal.domain for one in sets[-5:]))

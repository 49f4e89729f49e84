"""Is the mail signed by a domain, and does the signature hold? (DKIM, RFC 6376, RFC 8463, RFC 8301)

The confined child has read and hashed, `Tools.signatures` has keys and arithmetic. Here is said what an answer means: a
signature that does not hold, beside one that does, is as if it were not there (RFC 6376 6.1).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from gateway.model import Checked, Direction, Finding, Found, Mail, Result, Signature, Stage, Tools

READ = 8
"""Signatures that the confined child reads at most."""

SHOWN = 8
"""Characters of a signature's value that tell it from the others (RFC 6008 3)."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How much signatures may cost us, and how good one has to be."""

    signatures: int = READ
    """Signatures that are checked, from the top of the header."""

    smallest_key: int = 1024
    """Bits of an RSA key below which a signature is `weak`. RFC 8301 3.2 allows no fewer than 1024."""

    partial: bool = False
    """Whether one that covers the first octets of the body only (l=) counts like any other."""

    timeout: float = 8.0
    """Seconds for all keys together; a signature whose key did not come is `temperror`."""


class Filter:
    """Asks for the key of each signature of a mail from outside, all at the same time."""

    stage: ClassVar[Stage] = Stage.MESSAGE
    codes: ClassVar[frozenset[str]] = frozenset(
        {"pass", "fail", "none", "weak", "partial", "testing", "surplus", "temperror", "permerror"}
    )
    after: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, settings: Settings, tools: Tools, clock: Callable[[], float] = time.time) -> None:
        _check(settings)
        self._settings, self._tools, self._clock = settings, tools, clock

    async def check(self, mail: Mail, found: Found) -> Sequence[Finding]:  # noqa: ARG002  it reads no other filter
        """One finding for each signature, in the order of the header, and one for those that are not looked at."""
        if mail.session.direction is not Direction.INBOUND:
            return []
        signatures = mail.content.signatures
        if not signatures:
            return [Finding("none", "nobody signed it", result=Result("dkim", "none"))]
        findings = [*await self._all(signatures[: self._settings.signatures]), *self._rest(len(signatures))]
        return _beside_one_that_holds(findings) if any(one.code == "pass" for one in findings) else findings

    async def _all(self, signatures: Sequence[Signature]) -> list[Finding]:
        now = self._clock()
        checked = await asyncio.gather(*(self._ask(one, now) for one in signatures))
        return [self._finding(*pair) for pair in zip(signatures, checked, strict=True)]

    async def _ask(self, signature: Signature, now: float) -> Checked:
        try:
            async with asyncio.timeout(self._settings.timeout):
                return await self._tools.signatures.check(signature, now)
        except TimeoutError:
            return Checked("temperror", f"its key did not come within {self._settings.timeout:g} s")

    def _rest(self, count: int) -> Iterator[Finding]:
        if count > self._settings.signatures:
            yield Finding("permerror", f"signatures beyond the first {self._settings.signatures} are not looked at")

    def _finding(self, signature: Signature, checked: Checked) -> Finding:
        code, result, why = self._judged(signature, checked)
        facts = (checked.fact,) if checked.fact else ()
        return Finding(code, _detail(signature, code, why, checked.bits), "", facts, _result(signature, result))

    def _judged(self, signature: Signature, checked: Checked) -> tuple[str, str, str]:
        """Our code, the result of RFC 8601 2.7.1, and the ground.

        There "policy" is a signature that holds and does not suffice, "neutral" one that shall not count. A domain in
        test (t=y) is not to suffer from a signature that fails (RFC 6376 3.6.1); one that holds is proof all the same.
        """
        if checked.result in {"fail", "permerror"} and checked.testing:
            return "testing", "neutral", f"{checked.why}; its owner is testing"
        if checked.result != "pass":
            return checked.result, checked.result, checked.why
        if signature.partial and not self._settings.partial:
            return "partial", "policy", "covers a part of the body only"
        if signature.algorithm.startswith("rsa") and checked.bits < self._settings.smallest_key:
            return "weak", "policy", "has a key that is too small"
        return "pass", "pass", checked.why


def _check(settings: Settings) -> None:
    if not 1 <= settings.signatures <= READ:
        raise ValueError(f"signatures is 1 to {READ}: no more are read")
    if not 1024 <= settings.smallest_key <= 4096:
        raise ValueError("smallest_key is 1024 to 4096: no other keys are taken")
    if not settings.timeout > 0:
        raise ValueError("timeout is above 0")


def _beside_one_that_holds(findings: list[Finding]) -> list[Finding]:
    """Only the code changes: what each is by itself stays in its result, which DMARC reads."""
    return [one if one.code == "pass" else replace(one, code="surplus") for one in findings]


_WORDS = {"pass": "holds", "fail": "does not hold", "temperror": "cannot be checked now", "permerror": "cannot count"}


def _detail(signature: Signature, code: str, why: str, bits: int) -> str:
    size = f", {bits} bits" if bits else ""
    which = f"selector {signature.selector or '?'}, {signature.algorithm or 'no algorithm'}{size}"
    ground = f": {why}" if why else ""
    return f"the signature of {signature.domain or 'no domain'} {_WORDS.get(code, 'does not count')}{ground} ({which})"


def _result(signature: Signature, result: str) -> Result:
    """What Authentication-Results is to say; `header.b` tells signatures of one domain apart (RFC 6008)."""
    named = (
        ("header.d", signature.domain.lower()),
        ("header.i", signature.identity),
        ("header.s", signature.selector),
        ("header.a", signature.algorithm),
        ("header.b", signature.value[:SHOWN]),
    )
    return Result("dkim", result, tuple((name, value) for name, value in named if value))

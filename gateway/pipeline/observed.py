"""What one mail showed of the domain in its From, for the report that its owner wants (RFC 9990); made of findings.

It tells what DMARC led to and nothing else of our judgement (RFC 9990 8.3): a mail that passed DMARC, and was refused
for the virus in it, has passed. A mail for several recipients counts once, by the strictest that DMARC led to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from gateway.events import clean
from gateway.model import Action, Finding, Found, Mail, Result, Verdict
from gateway.store.observations import Observation, Published, Row

DMARC, DKIM, SPF = "dmarc", "dkim", "spf"
"""The filters whose findings count."""
MAX_SIGNATURES = 100
"""Signatures of one mail that are told (RFC 9990 3.1.3)."""
MAX_NAME = 253
"""Characters of a domain, and of whatever a stranger wrote in place of one (RFC 1035 2.3.4)."""
_HELD = {Action.QUARANTINE: "quarantine", Action.REJECT: "reject"}
_COMMENTS = {"trusted_forwarder": "an ARC chain says that it passed before it was forwarded"}
_WISHES = {"fail_none": "none", "fail_quarantine": "quarantine", "fail_reject": "reject"}


def observation(mail: Mail, found: Found, verdicts: Mapping[str, Verdict], now: float) -> Observation | None:
    """What *mail* showed, or None where nobody wants to know; *verdicts* are those for its recipients."""
    told = next(
        (one for one in found.get(DMARC, ()) if any(fact.startswith("policy.rua=") for fact in one.facts)), None
    )
    if told is None:
        return None
    facts = dict(fact.partition("=")[::2] for fact in told.facts)
    published = _published(facts)
    if not (published.domain and published.rua):
        return None
    return Observation(now, published, _row(mail, found, verdicts, told, facts))


def _published(facts: Mapping[str, str]) -> Published:
    plain = {name: clean(facts.get(f"policy.{name}", ""), MAX_NAME) for name in _TAGS}
    return Published(**plain, rua=tuple(filter(None, facts.get("policy.rua", "").split(","))))


_TAGS = ("domain", "method", "p", "sp", "np", "adkim", "aspf", "t", "fo")


def _row(mail: Mail, found: Found, verdicts: Mapping[str, Verdict], told: Finding, facts: Mapping[str, str]) -> Row:
    passed = told.code == "pass"
    disposition = _passed(told) if passed else _disposition(verdicts.values())
    header_from = told.result.get("header.from") if told.result else ""
    return Row(
        source=str(mail.session.peer),
        disposition=disposition,
        dkim=_aligned(facts, DKIM),
        spf=_aligned(facts, SPF),
        header_from=clean(header_from, MAX_NAME),
        envelope_from=_domain(mail.envelope.sender),
        envelope_to=_one_domain(one.address for one in mail.envelope.recipients),
        reasons=() if passed else tuple(_reasons(told, facts, disposition)),
        signatures=tuple(_signatures(found, header_from)),
        checked=_checked(mail, found),
    )


def _passed(told: Finding) -> str:
    """RFC 9990 Appendix A: "pass" is for those who ask for something where mail fails."""
    wish = told.result.get("policy.dmarc") if told.result else ""
    return "pass" if wish in {"quarantine", "reject"} else "none"


def _aligned(facts: Mapping[str, str], method: str) -> str:
    return "pass" if facts.get(f"aligned.{method}") == "pass" else "fail"


def _disposition(verdicts: Iterable[Verdict]) -> str:
    """The strictest that findings of DMARC led to. Where others get the mail, who would refuse it gets it held."""
    every = list(verdicts)
    effects = (r.effect for one in every for r in one.reasons if r.filter == DMARC and isinstance(r.effect, Action))
    strictest = Action.strictest(*effects)
    if strictest is Action.REJECT and any(one.action is not Action.REJECT for one in every):
        strictest = Action.QUARANTINE
    return _HELD.get(strictest, "none")


def _reasons(told: Finding, facts: Mapping[str, str], disposition: str) -> Iterator[tuple[str, str]]:
    """Why it is not what the owner published (RFC 9990 3.1.6)."""
    wish = _WISHES.get(told.code, "")
    if override := facts.get("override"):
        yield override, _COMMENTS.get(override, "")
    if wish and wish != disposition:
        yield "local_policy", ""
    elif not wish and not override:
        yield "other", "DMARC could not be evaluated"


def _signatures(found: Found, header_from: str) -> Iterable[tuple[str, str, str]]:
    """Domain, selector and result of each signature, those that mean most first (RFC 9990 3.1.3)."""
    results = [one for one in _results(found, DKIM) if one.get("header.d")]
    results.sort(key=lambda one: _rank(one, header_from))
    told = ((one.get("header.d"), one.get("header.s"), one.result) for one in results[:MAX_SIGNATURES])
    return ((clean(domain, MAX_NAME), clean(selector, MAX_NAME), result) for domain, selector, result in told)


def _rank(one: Result, header_from: str) -> int:
    domain = one.get("header.d")
    if one.result != "pass":
        return 3
    return 0 if domain == header_from else 1 if header_from.endswith(f".{domain}") else 2


def _checked(mail: Mail, found: Found) -> tuple[str, ...]:
    """The domain of the MAIL FROM identity and its result; without a sender that is the HELO name (RFC 7208 2.4)."""
    name = "smtp.mailfrom" if mail.envelope.sender else "smtp.helo"
    return next(((_domain(one.get(name)), one.result) for one in _results(found, SPF) if one.get(name)), ())


def _results(found: Found, method: str) -> Iterator[Result]:
    return (one.result for one in found.get(method, ()) if one.result is not None and one.result.method == method)


def _domain(address: str) -> str:
    return clean(address.rpartition("@")[2].lower(), MAX_NAME)


def _one_domain(addresses: Iterable[str]) -> str:
    domains = {_domain(one) for one in addresses}
    return domains.pop() if len(domains) == 1 else ""

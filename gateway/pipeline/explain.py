"""A verdict in one sentence, with what would have changed it. The same text stands in the log, the CLI, and on pages.

The counterfactual is not guessed: the policies decide again without the findings in question, or from which score on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice

from gateway.model import ERROR, Action, Finding, Found, Mail, Reason, Result, Verdict
from gateway.pipeline.policy import Policies

WORDS = {
    Action.ACCEPT: "delivered",
    Action.TAG: "delivered with a tag",
    Action.STRIP: "delivered without the parts in question",
    Action.QUARANTINE: "held",
    Action.DEFER: "deferred",
    Action.REJECT: "rejected",
}
MAX_NAMED = 3
_SHOWABLE = re.compile(r"(?=.{1,60}\Z)[a-z0-9_-]+(?:\.[a-z0-9_-]+)+")
"""A domain in A-labels for which there is room in a reply."""
_VIEWS = {
    "library": "as Python's library reads the mail",
    "mailparse": "as mailparse reads the mail",
    "anywhere": "somewhere in the mail, in no part of it",
    "around": "in the text around the parts",
}
"""Where parts are that our own reading does not see: paths begin so (`views.py`, `content.py`)."""


def judge(policies: Policies, found: Found, mail: Mail, recipient: str) -> Verdict:
    """The verdict for *recipient*, explained."""
    verdict = policies.decide(found, mail, recipient)
    words = sentence(policies, found, mail, recipient, verdict)
    return Verdict(verdict.action, verdict.score, verdict.reasons, words)


def sentence(policies: Policies, found: Found, mail: Mail, recipient: str, verdict: Verdict) -> str:
    """Why *verdict* is as it is, and what would have made it milder (or, for mail let through, stricter)."""
    decisive = [reason for reason in verdict.reasons if reason.effect is verdict.action]
    if verdict.action is Action.ACCEPT or not (decisive or _by_score(policies, verdict)):
        return f"{WORDS[verdict.action]}: {_nothing_against(verdict)}{_distance(policies, verdict)}"
    if decisive:
        return (
            f"{WORDS[verdict.action]} because {_named(decisive)}; "
            f"without {_files(policies, decisive)} {_otherwise(policies, found, mail, recipient, verdict, decisive)}"
        )
    weighty = sorted((r for r in verdict.reasons if _points(r) > 0), key=_points, reverse=True)
    limit = policies.stages.score.reject if verdict.action is Action.REJECT else policies.stages.score.quarantine
    return (
        f"{WORDS[verdict.action]} because the score {verdict.score:.1f} reaches {limit:g} "
        f"(score.toml {'reject' if verdict.action is Action.REJECT else 'quarantine'}): {_named(weighty)}; "
        f"without {_files(policies, weighty[:1])} {_otherwise(policies, found, mail, recipient, verdict, weighty[:1])}"
    )


def _by_score(policies: Policies, verdict: Verdict) -> bool:
    return policies.stages.score.action(verdict.score) is verdict.action


def _points(reason: Reason) -> float:
    return 0.0 if isinstance(reason.effect, Action) else reason.effect


def _named(reasons: Sequence[Reason]) -> str:
    """The findings as clauses, those of one code in one: "attachments says executable (invoice.exe, part 2)"."""
    alike: dict[tuple[str, str], list[Reason]] = {}
    for reason in reasons:
        alike.setdefault((reason.filter, reason.finding.code), []).append(reason)
    return _some([_clause(some) for some in islice(alike.values(), MAX_NAMED)], len(alike))


def _some(texts: Sequence[str], count: int) -> str:
    """The first of *texts*, and how many more there are of *count* in all."""
    more = count - MAX_NAMED
    return "; ".join([*texts[:MAX_NAMED], *([f"and {more} more"] if more > 0 else [])])


def _clause(alike: Sequence[Reason]) -> str:
    """What one filter says, once, however often it found that."""
    first = alike[0]
    verb = "could not tell" if first.finding.code == ERROR else f"says {first.finding.code}"
    places = list(dict.fromkeys(filter(None, (about(reason.finding) for reason in alike))))
    told = _some(places, len(places))
    points = "" if isinstance(first.effect, Action) else f" {sum(map(_points, alike)):+.1f}"
    return f"{first.filter} {verb}{points}{f' ({told})' if told else ''}"


def about(finding: Finding) -> str:
    """What was found, and where: "invoice.exe, part 2"."""
    return ", ".join(filter(None, (finding.detail, _where(finding))))


def _where(finding: Finding) -> str:
    """In which part it was found, for people; empty where it is about the whole mail."""
    path = finding.part.rstrip("/")  # a file in an archive or a page may be without a name
    return _VIEWS.get(path.partition("/")[0], f"part {path}" if path else "")


def _files(policies: Policies, reasons: Sequence[Reason]) -> str:
    keys = dict.fromkeys(f"{policies.by_name[r.filter].file} `{r.finding.code}`" for r in reasons)
    return " and ".join(list(keys)[:MAX_NAMED]) + (" …" if len(keys) > MAX_NAMED else "")


def _otherwise(
    policies: Policies, found: Found, mail: Mail, recipient: str, verdict: Verdict, without: Sequence[Reason]
) -> str:
    """What the policies say when no finding of the same filter and code as one of *without* is there."""
    gone = {(reason.filter, reason.finding.code) for reason in without}
    rest = {name: [f for f in findings if (name, f.code) not in gone] for name, findings in found.items()}
    other = policies.decide(rest, mail, recipient)
    still = "still " if other.action is verdict.action else ""
    return f"it would {still}have been {WORDS[other.action]}"


def _nothing_against(verdict: Verdict) -> str:
    tagged = [reason for reason in verdict.reasons if reason.effect is verdict.action]
    if tagged:
        return _named(tagged)
    counted = [reason for reason in verdict.reasons if _points(reason)]
    return (
        _named(sorted(counted, key=lambda r: abs(_points(r)), reverse=True))
        if counted
        else "nothing was found against it"
    )


def _distance(policies: Policies, verdict: Verdict) -> str:
    score = policies.stages.score
    return f"; score {verdict.score:.1f}, held from {score.quarantine:g} on (score.toml quarantine)"


def reference(verdict: Verdict) -> str:
    """The decisive filter and code in our own words ("attachments/executable"), fit for an SMTP reply.

    Where the owner of a domain wanted it so, the domain too: honest senders learn whom to turn to (RFC 9989 7.2).
    """
    decisive = next((reason for reason in verdict.reasons if reason.effect is verdict.action), None)
    return f"{decisive.filter}/{decisive.finding.code}{_wish(decisive.finding)}" if decisive else "score"


def _wish(finding: Finding) -> str:
    result = finding.result
    if result is None or (result.method, result.result) != ("dmarc", "fail"):
        return ""
    domain, wish = result.get("header.from"), result.get("policy.dmarc")
    return f": {domain} asks for {wish}" if wish and _SHOWABLE.fullmatch(domain) else ""


def as_facts(found: Found) -> dict[str, list[dict[str, object]]]:
    """*found* as JSON-able evidence."""
    return {name: [_fact(finding) for finding in findings] for name, findings in found.items()}


def _fact(finding: Finding) -> dict[str, object]:
    fact: dict[str, object] = {
        "code": finding.code,
        "detail": finding.detail,
        "part": finding.part,
        "facts": list(finding.facts),
        "result": finding.result and _result(finding.result),
    }
    return {key: value for key, value in fact.items() if value}


def _result(result: Result) -> dict[str, object]:
    """As `asdict` gives it, which takes ten times as long."""
    return {"method": result.method, "result": result.result, "properties": result.properties}

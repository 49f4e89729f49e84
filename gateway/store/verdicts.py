"""Verdicts as text and back: what a policy decided is kept with the delivery it was decided for."""

from __future__ import annotations

import json
from typing import Any

from gateway.model import Action, Finding, Reason, Verdict


def dumps(verdict: Verdict) -> str:
    """*verdict* as JSON. An action stays a word and a score a number, as in the policy file."""
    return json.dumps(
        {
            "action": verdict.action,
            "score": verdict.score,
            "sentence": verdict.sentence,
            "reasons": [_reason_out(reason) for reason in verdict.reasons],
        }
    )


def loads(text: str) -> Verdict:
    """The verdict that `dumps` wrote."""
    plain = json.loads(text)
    reasons = tuple(_reason_in(reason) for reason in plain["reasons"])
    return Verdict(Action(plain["action"]), float(plain["score"]), reasons, plain["sentence"])


def mark(filter_: str, code: str = "") -> str:
    """What stands in the text of a verdict in which *filter_* found *code* (or anything), and in no other."""
    found = f'"filter": {json.dumps(filter_)}, "code": "'
    return f"{found[:-1]}{json.dumps(code)}" if code else found


def _reason_out(reason: Reason) -> dict[str, object]:
    found = reason.finding
    return {
        "filter": reason.filter,
        "code": found.code,
        "detail": found.detail,
        "part": found.part,
        "facts": found.facts,
        "effect": reason.effect,
    }


def _reason_in(plain: dict[str, Any]) -> Reason:
    effect = plain["effect"]
    finding = Finding(plain["code"], plain["detail"], plain["part"], tuple(plain["facts"]))
    return Reason(plain["filter"], finding, Action(effect) if isinstance(effect, str) else float(effect))

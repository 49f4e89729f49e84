"""Run the pure filters on one mail, and make what filters find safe to show. In the confined child.

A filter that raises or reports a code that it never declared becomes a finding itself, with the code "error". Nothing
here waits: what asks the world is `inspect.py`, which the confined child does not load.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

from gateway import events
from gateway.model import ERROR, Content, Finding, Found, Mail, PureFilter, Result, Temporary
from gateway.pipeline.policy import Policy, Waves

MAX_FINDINGS = 20
"""Findings of one filter and one code that are kept: a mail with 500 bad attachments is bad enough with 20.

The last of them then says how many more there are. It names no part: a policy that strips parts must not take the
rest for harmless, and holds what it cannot cut out."""

MAX_ROUNDS = 3
"""Files within each other that filters find one by one: a script in a notebook in a PDF."""


def think(mail: Mail, policies: Waves, grown: Callable[[Content], Content]) -> tuple[Content, Found]:
    """What the pure filters among *policies* find, and the content as it is afterwards. The parser has run before.

    *grown* adds the files that filters have found in parts. Of these, who judges by part is asked in turn.
    """
    found = _found(mail, policies, {})
    for _ in range(MAX_ROUNDS):
        content = grown(mail.content)
        if content is mail.content:
            return content, found
        new = content.parts[len(mail.content.parts) :]
        mail = replace(mail, content=content)
        found = _found(replace(mail, content=replace(content, parts=new)), _by_part(policies), found)
    content = grown(mail.content)
    if content is not mail.content:
        content = replace(content, unscannable=content.unscannable or "files are nested too deeply")
    return content, found


def _found(mail: Mail, policies: Waves, before: Found) -> Found:
    """What *policies* find in *mail*, behind what was found *before*."""
    found = dict(before)
    for wave in policies:
        for policy in wave:
            if findings := _think(policy, partial(cast("PureFilter", policy.filter).check, mail, found), mail):
                found[policy.name] = [*found.get(policy.name, ()), *findings]
    return found


def _by_part(policies: Waves) -> Waves:
    return tuple(tuple(one for one in wave if getattr(one.filter, "by_part", False)) for wave in policies)


def _think(policy: Policy, check: Callable[[], Sequence[Finding]], mail: Mail) -> Sequence[Finding]:
    try:
        return declared(policy, check())
    except MemoryError:
        raise  # the limit of the whole child, not a fault of this filter
    except Exception as error:  # noqa: BLE001  whatever a filter does, it is a finding and not the end of the mail
        return [failed(policy, mail, error)]


def declared(policy: Policy, findings: Sequence[Finding]) -> list[Finding]:
    """*findings* made safe to show; `LookupError` where one has a code that the filter never declared."""
    if len(findings) == 0:  # as nearly always; what has no length is no answer, and raises
        return []
    codes = cast("PureFilter", policy.filter).codes | {ERROR}
    if strangers := {finding.code for finding in findings} - codes:
        raise LookupError(f"undeclared findings: {sorted(strangers)}")
    by_code: dict[str, list[Finding]] = {}
    for finding in findings:
        by_code.setdefault(finding.code, []).append(finding)
    return [tidy(finding) for same in by_code.values() for finding in _bounded(same)]


def _bounded(same: list[Finding]) -> list[Finding]:
    if len(same) <= MAX_FINDINGS:
        return same
    return [*same[: MAX_FINDINGS - 1], Finding(same[0].code, f"and {len(same) - MAX_FINDINGS + 1} more")]


def tidy(finding: Finding) -> Finding:
    """*finding* with its texts on one line, capped, and free of control characters: they may be a stranger's."""
    return Finding(
        finding.code,
        events.clean(finding.detail, 300),
        events.clean(finding.part, 200),
        tuple([events.clean(fact, 500) for fact in finding.facts[:40]]),
        finding.result and _tidy_result(finding.result),
    )


def _tidy_result(result: Result) -> Result:
    properties = tuple([(name, events.clean(value, 320)) for name, value in result.properties[:10]])
    return Result(result.method, result.result, properties)


def failed(policy: Policy, mail: Mail, error: Exception) -> Finding:
    """The finding `error` that a filter becomes which raised *error*."""
    if isinstance(error, TimeoutError):
        return tidy(Finding(ERROR, f"no answer within {policy.timeout:g} s"))
    if isinstance(error, Temporary):
        return tidy(Finding(ERROR, str(error)))
    events.failure(f"filters/{policy.name}.py", error, id=mail.id)
    return tidy(Finding(ERROR, f"{type(error).__name__} in filters/{policy.name}.py"))

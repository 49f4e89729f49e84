"""Ask the asking filters of one stage, and collect what they find.

Filters that do not read each other's findings run at the same time. A filter that raises, hangs or reports a code that
it never declared becomes a finding itself, with the code "error": its policy has to say what that means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from typing import cast

from gateway.model import AskingFilter, Finding, Found, Mail, Stage
from gateway.pipeline.policy import Policies, Policy
from gateway.pipeline.think import declared, failed


async def ask(mail: Mail, stage: Stage, policies: Policies, known: Found) -> Found:
    """Return what was *known* with everything that the asking filters of *stage* find."""
    found = known
    for wave in policies.asking(stage):
        answers = await _all(_ask(policy, mail, found) for policy in wave)
        found = {**found, **{policy.name: some for policy, some in zip(wave, answers, strict=True) if some}}
    return found


async def _all(questions: Iterable[Awaitable[Sequence[Finding]]]) -> list[Sequence[Finding]]:
    first, *others = questions
    return [await first] if not others else await asyncio.gather(first, *others)  # one alone needs no task


async def _ask(policy: Policy, mail: Mail, found: Found) -> Sequence[Finding]:
    check = cast("AskingFilter", policy.filter).check
    try:
        async with asyncio.timeout(policy.timeout):
            return declared(policy, await check(mail, found))
    except Exception as error:  # noqa: BLE001  whatever a filter does, it is a finding and not the end of the mail
        return [failed(policy, mail, error)]

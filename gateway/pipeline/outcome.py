"""What the SMTP dialog can be answered, and what a dry run tells. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.model import Content, Found, Verdict


class Kind(StrEnum):
    """How a question was answered. Each has its replies in `gateway.smtp.replies`."""

    OK = "ok"
    REJECTED = "rejected"
    DEFERRED = "deferred"
    NOT_OURS = "not ours"
    NO_SUCH_USER = "no such user"
    NOT_YOURS = "not yours"
    LOOP = "loop"
    TOO_BIG = "too big"
    FULL = "full"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer to one question. `id` is the mail's; `reference` the decisive filter and code, in words of ours."""

    kind: Kind = Kind.OK
    id: str = ""
    reference: str = ""


OK = Outcome()


@dataclass(frozen=True, slots=True)
class Explained:
    """What a dry run found, and the verdict for each recipient. `found` is that of the first recipient.

    `refused` are the recipients whom the dialog would refuse, whatever the verdict: for the peer they are not ours.
    """

    id: str
    content: Content
    found: Found
    verdicts: Mapping[str, Verdict]
    refused: Mapping[str, Kind] = field(default_factory=dict)

"""Are the header fields that every mail must have there, once, and readable? (RFC 5322 3.6; From: from_header.py)"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import ClassVar

from gateway.model import Content, Finding, Found, Mail, Stage

MAX_DATE = 200
"""Characters of a Date field; a longer one is none."""

_AT_MOST_ONCE = ("Date", "Sender", "Reply-To", "To", "Cc", "Message-ID", "In-Reply-To", "References", "Subject")


@dataclass(frozen=True, slots=True)
class Settings:
    """How much of what is malformed is told."""

    defects: int = 5
    """Defects named in one finding; the rest is counted."""


class Filter:
    """Reads names and values of the outermost header, as the parser saw them."""

    stage: ClassVar[Stage] = Stage.MESSAGE
    codes: ClassVar[frozenset[str]] = frozenset({"malformed", "missing_date", "bad_date"})
    after: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, settings: Settings) -> None:
        if settings.defects < 1:
            raise ValueError("headers.defects must be at least 1")
        self._settings = settings

    def check(self, mail: Mail, found: Found) -> Sequence[Finding]:  # noqa: ARG002  it reads no other filter
        """At most one finding for each code. None where the parser could not read the header: `content` says that."""
        content = mail.content
        if content.unscannable and not content.headers:
            return []
        return [*self._malformed(content), *_date(content)]

    def _malformed(self, content: Content) -> Iterator[Finding]:
        defects = [*content.defects, *_repeated(content)]
        if defects:
            more = len(defects) - self._settings.defects
            named = "; ".join(defects[: self._settings.defects])
            yield Finding("malformed", f"{named}; and {more} more" if more > 0 else named)


def _repeated(content: Content) -> list[str]:
    """Fields that stand there more than once, against RFC 5322 3.6."""
    counts = Counter(name.lower() for name, _ in content.headers)
    return [f"there are {counts[name.lower()]} {name} fields" for name in _AT_MOST_ONCE if counts[name.lower()] > 1]


def _date(content: Content) -> Iterator[Finding]:
    values = content.values("Date")
    if not values:
        yield Finding("missing_date", "there is no Date field")
    elif not _is_date(values[0]):
        yield Finding("bad_date", "the Date field is no date")


def _is_date(value: str) -> bool:
    try:
        parsedate_to_datetime(value[:MAX_DATE])
    except (ValueError, TypeError, IndexError, OverflowError):
        return False
    return len(value) <= MAX_DATE

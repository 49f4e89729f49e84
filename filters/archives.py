"""What do the archives of the mail hold, and can anybody look into them, and into all else?

They were opened by the parser, whose limits are those of content.toml: this reads what it noted on their files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from gateway.model import Finding, Found, Mail, Part, Stage

_INVISIBLE = re.compile("[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufffd]")
_DRIVE = re.compile(r"[A-Za-z]:(?!:)")


@dataclass(frozen=True, slots=True)
class Settings:
    """Which names may stand in an archive."""

    absolute: bool = False
    """Whether a name may begin at the root of a disk: programs that unpack make it relative, the careless do not."""


class Filter:
    """One finding of each kind for each archive, however many of its files it is about: a score counts it once."""

    stage: ClassVar[Stage] = Stage.MESSAGE
    codes: ClassVar[frozenset[str]] = frozenset({"encrypted", "sealed", "password_in_mail", "unreadable", "traversal"})
    after: ClassVar[frozenset[str]] = frozenset()
    by_part: ClassVar[bool] = True

    def __init__(self, settings: Settings) -> None:
        self._absolute = settings.absolute

    def check(self, mail: Mail, found: Found) -> Sequence[Finding]:  # noqa: ARG002  it reads no other filter
        """Files that are locked, that were unlocked, that cannot be read, and that would land outside the folder."""
        parts = mail.content.parts
        return [
            *_once("encrypted", parts, lambda part: "needs a password" if part.encrypted else ""),
            *_once("sealed", parts, lambda part: "is encrypted for its reader" if part.sealed else ""),
            *_once("password_in_mail", parts, lambda part: "needs the password in the mail" if part.unlocked else ""),
            *_once("unreadable", parts, lambda part: part.unreadable),
            *_once("traversal", parts, self._leaves),
        ]

    def _leaves(self, part: Part) -> str:
        """How *part*, a file in an archive, would leave the folder that it is unpacked to, or ""."""
        if "/" not in part.path:
            return ""
        if _climbs(part.filename):
            return "has a name that climbs out of the folder"
        if _is_absolute(part.filename) and not self._absolute:
            return "has a name that begins at the root of a disk"
        folder = _steps(part.filename)[:-1]
        if part.link and (_is_absolute(part.link) or _climbs("/".join([*folder, part.link]))):
            return "is a link that leads out of the folder"
        return ""


def _once(code: str, parts: Sequence[Part], why: Callable[[Part], str]) -> Iterator[Finding]:
    """One finding for each part of the message in which there are such: the first, and how many more."""
    seen: dict[str, list[tuple[Part, str]]] = {}
    for part in parts:
        if words := why(part):
            seen.setdefault(part.path.partition("/")[0], []).append((part, words))
    for (first, words), *others in seen.values():
        more = f" (and {len(others)} more like it)" if others else ""
        yield Finding(code, f"{_named(first)}: {words}{more}", first.path)


def _steps(name: str) -> list[str]:
    return [step for step in re.split(r"[/\\]", name) if step.strip(" ") not in {"", "."}]


def _climbs(name: str) -> bool:
    """Whether the steps of *name* lead above where they begin, at any time."""
    depth = 0
    for step in _steps(name):
        depth += -1 if step.strip(" ") == ".." else 1
        if depth < 0:
            return True
    return False


def _is_absolute(name: str) -> bool:
    return bool(_steps(name)) and (name.startswith(("/", "\\")) or bool(_DRIVE.match(name)))


def _named(part: Part) -> str:
    """The name of *part* for people: what is invisible is shown as "?"."""
    return _INVISIBLE.sub("?", part.filename)[:100] or "a part without a name"

"""The tags of a page that can do something, each with its attributes. Linear, and nothing hides a tag.

The rule: browsers differ in what is a comment, a quoted value or the text of a script, so none of these hides a tag
here: whatever looks like one counts. What that costs is counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import unescape

from filters._html.seen import Meter

MAX_VALUE = 1 << 16
"""Characters of a value whose references are resolved."""

_TAG = re.compile(
    r"<(?:[a-z]{1,20}:)?(script|input|form|meta|base|iframe|frame|object|embed|applet|link|img|image|a|area|button"
    r"|video|audio|source|track|body|table|td|use|animate|set|portal|fencedframe|bgsound)(?=[\s/>])"
)
_ATTRIBUTE = re.compile(
    r"""[\s/]*+([^\s/>][^\s/>=]*+)(?:\s*+=\s*+(?:"([^"]*+)"|'([^']*+)'|([^\s>]*+)))?+"""  # HTML 13.2.5.32 to 37
)
_SPACES = str.maketrans("", "", "\t\n\r\f")


@dataclass(frozen=True, slots=True)
class Tag:
    """A start tag: name and names of attributes in lower case, values with their character references resolved."""

    name: str
    attributes: Mapping[str, str]

    def get(self, name: str) -> str:
        """The value of attribute *name*, without white space around it; "" where there is none."""
        return self.attributes.get(name, "").strip()

    def link(self, *names: str) -> str:
        """The address in the first of *names* that has one, as a browser reads it (URL, 4.4: no line ends, no tabs)."""
        return next((value.translate(_SPACES) for name in names if (value := self.get(name))), "")


def lowered(text: str) -> str:
    """*text* in lower case, each character in its place."""
    lower = text.lower()
    return lower if len(lower) == len(text) else text.encode("latin-1", "replace").decode("latin-1").lower()


def tags(text: str, lower: str, meter: Meter) -> Iterator[Tag]:
    """Each tag of *text* that can do something, in order; *lower* is the same `lowered`, which is quicker to search."""
    for match in _TAG.finditer(lower):
        yield Tag(match[1], dict(_attributes(text, match.end(), meter)))


def _attributes(text: str, at: int, meter: Meter) -> Iterator[tuple[str, str]]:
    seen = set()
    while match := _ATTRIBUTE.match(text, at):
        meter.count(match.end() - at + 16)
        at = match.end()
        name = match[1].lower().rpartition(":")[2]
        if name not in seen:  # the first counts (HTML 13.2.5.33)
            seen.add(name)
            yield name, unescape((match[2] or match[3] or match[4] or "")[:MAX_VALUE])

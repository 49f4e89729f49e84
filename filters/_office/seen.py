"""What the readers of documents give: what they saw, and the files inside, which others read; and what it may cost."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass


class Unreadable(Exception):
    """It is no document of its kind, or exceeds a limit. The text says which, in our words."""


class Exhausted(Unreadable):
    """All documents of the mail together exceed a limit: nothing more of them is read."""


@dataclass(frozen=True, slots=True)
class Sight:
    """Something that a document does. `code` is one of the filter's; `words` go on where "the file" began."""

    code: str
    words: str


@dataclass(frozen=True, slots=True)
class Inner:
    """A file inside the document. `name` is what it says its name is, "" where it has none.

    `whole` says that people can open it by itself: others than readers of documents are to see it, too.
    """

    octets: bytes
    name: str = ""
    whole: bool = False


Seen = Iterator[Sight | Inner]


class Meter:
    """How many more octets and files may be looked at, and in how many steps; one for all documents of a mail.

    Of locked ones besides: the *words* of the mail that may be passwords, and how many rounds of hashing may be spent.
    """

    def __init__(
        self, octets: int, files: int, steps: int, rounds: int = 0, words: Callable[[], Sequence[bytes]] = tuple
    ) -> None:
        self._octets = octets
        self._files = files
        self._steps = steps
        self._rounds = rounds
        self.words = words

    def octets(self, count: int) -> None:
        """Count *count* octets; `Exhausted` where they are too many."""
        self._octets -= count
        if self._octets < 0:
            raise Exhausted("holds more than is looked at in one mail")

    def file(self) -> None:
        """Count one file; `Exhausted` where it is one too many."""
        self._files -= 1
        if self._files < 0:
            raise Exhausted("holds more files than are looked at in one mail")

    def steps(self, count: int) -> None:
        """Count *count* steps, each some 0.2 microseconds; `Exhausted` where they are too many."""
        self._steps -= count
        if self._steps < 0:
            raise Exhausted("takes longer to read than is spent on one mail")

    def rounds(self, count: int) -> bool:
        """Whether *count* rounds of hashing, each some microsecond, may still be spent; then they are."""
        if not 0 <= count <= self._rounds:
            return False
        self._rounds -= count
        return True


def shown(text: str) -> str:
    """*text* of a stranger as it may stand in a sentence: short, and nothing in it that is not seen."""
    short = text if len(text) <= 60 else text[:59] + "…"
    return "".join(one if one.isprintable() else "?" for one in short)


# One sentence for one kind of thing, however the document that holds it is written.

_FIELD = re.compile(r"(?<![A-Za-z])DDE(?:AUTO)?(?![A-Za-z])", re.IGNORECASE)
# Pictures from the web stand in many honest documents that were copied from there; those on shares in none.
_FETCHING = re.compile(
    r"""(?<![A-Za-z])(?:(INCLUDEPICTURE|IMPORT)\s{1,9}(?=["\s]{0,9}(?:file:|[\\/]{2}))|(?:INCLUDETEXT|RD|LINK\s{1,9}\S{1,60})\s)"""
    r"""["\s]{0,9}((?:https?|ftp|mhtml|file):[^\s"]{1,300}|[\\/]{2}[^\s"]{1,300})""",
    re.IGNORECASE,
)
_QUOTE = re.compile(r"QUOTE((?:\s{1,9}\d{1,3}){3,200})", re.IGNORECASE)
# A path on the own disk, on a machine that is named without a dot and so in the own network, or beside the document.
_LOCAL = re.compile(
    r"(?:file:/{0,3}(?:localhost/)?)?[a-z][:|][\\/]|(?:file:/{0,3})?[\\/]{2}[a-z][\w-]*[\\/]|[^:\\/][^:]*$|/(?![\\/])|$",
    re.IGNORECASE,
)


def fields(text: str) -> Iterator[Sight]:
    """What the field codes of a text document, one after another, do. `QUOTE` makes letters of their numbers."""
    spelt = _QUOTE.sub(lambda match: "".join(chr(int(number)) for number in match[1].split()), text)
    if _FIELD.search(spelt.replace('"', "")):
        yield Sight("dde", "starts another program by a DDE field")
    for match in _FETCHING.finditer(spelt.replace("\\\\", "\\")):
        yield from remote("a picture" if match[1] else "a text", match[2])


def remote(what: str, target: str) -> Iterator[Sight]:
    """*what* is fetched from *target*, unless that is on the reader's own machine."""
    target = target.strip("\0 \t\r\n")
    if not _LOCAL.match(target):
        yield Sight("remote", f"fetches {what} from {shown(target)} when it is opened")

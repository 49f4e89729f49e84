"""What the readers give, what reading may cost, and what a file is by its first octets."""

from __future__ import annotations

import re
from dataclasses import dataclass

DISK = (0x8001, b"CD001")
"""Where a disk image says so (ECMA-119, 8.4.2)."""

_FIRST: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL), words)
    for pattern, words in (
        (rb"MZ(?=.{60})(?=[^\0]{0,61}\0)", "a program"),
        (rb"\x7fELF|\xfe\xed\xfa[\xce\xcf]|[\xce\xcf]\xfa\xed\xfe|\xca\xfe\xba\xbe|#! ?/", "a program"),
        (rb"L\0\0\0\x01\x14\x02\0|\[InternetShortcut\]", "a shortcut"),
        (rb"PK\x03\x04|PK\x05\x06|7z\xbc\xaf\x27\x1c|Rar!\x1a\x07|MSCF\0\0\0\0|\x1f\x8b\x08|BZh[1-9]1AY", "an archive"),
        (rb"\xfd7zXZ\0|.{7}\*\*ACE\*\*|.{257}ustar", "an archive"),
        (rb"conectix|vhdxfile", "a disk image"),
        (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1|\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d|\{\\rt|ITSF|%PDF-", "a document"),
    )
)


class Exhausted(Exception):
    """The pages of the mail take more to be read than is spent on one mail."""


@dataclass(frozen=True, slots=True)
class Sight:
    """Something that a page or a shortcut does. `words` go on where "the page" began; `link` is where it leads.

    `octets` are the file that it is about, where there is one, and `file` its name. Without a `code` there is nothing
    to tell but that file.
    """

    code: str
    words: str
    link: str = ""
    octets: bytes = b""
    file: str = ""


@dataclass(slots=True)
class Meter:
    """How many more characters may be read; one for all pages of a mail."""

    left: int

    def count(self, characters: int) -> None:
        """Count what was read; `Exhausted` where it is too much."""
        self.left -= characters
        if self.left < 0:
            raise Exhausted


def kind(octets: bytes) -> str:
    """What runs, or holds what runs, in words; "" for pictures, fonts, and whatever else says nothing."""
    if octets.startswith(DISK[1], DISK[0]):
        return "a disk image"
    return next((words for pattern, words in _FIRST if pattern.match(octets)), "")

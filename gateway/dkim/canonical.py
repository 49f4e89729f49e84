"""The canonical forms of header fields and bodies (RFC 6376 3.4), in linear time and little memory, whatever comes.

Rule: an octet that is not part of a CRLF is an ordinary one, a bare CR or LF too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

CRLF = b"\r\n"
WSP = b" \t"
PIECE = 64 << 10
"""Octets that are looked at together."""

_TABS_AS_SPACES = bytes.maketrans(b"\t", b" ")
_SPACES = re.compile(b"  +")
_FOLDS = re.compile(rb"\r\n(?![ \t])")


def fields(block: bytes) -> list[bytes]:
    """The fields of the header *block*, each as it stands there, with its continuation lines and its CRLF."""
    return [field + CRLF for field in _FOLDS.split(block) if field]


def field(octets: bytes, *, relaxed: bool) -> bytes:
    """The canonical form of one field, which ends in CRLF (RFC 6376 3.4.1, 3.4.2)."""
    if not relaxed:
        return octets
    name, colon, value = octets.replace(CRLF, b"").partition(b":")
    return name.strip().lower() + colon + _reduced(value).strip(WSP) + CRLF


class Body:
    """A body on its way into SHA-256, in canonical form (RFC 6376 3.4.3, 3.4.4).

    Give it the octets in turn by `update`, then ask for `digest`. *cuts* are the lengths, in octets of the canonical
    body, of which the digest will be asked too (the l= tags).
    """

    def __init__(self, *, relaxed: bool, cuts: Iterable[int] = ()) -> None:
        self._relaxed = relaxed
        self._cuts = sorted(set(cuts), reverse=True)
        self._digests: dict[int | None, bytes] = {}
        self._hash = hashlib.sha256()
        self._held = b""  # what may become the end of a line: at most a space and a CR
        self._empty_lines = 0  # or ends of lines: they count when something follows
        self.size = 0

    def update(self, octets: bytes) -> None:
        """Take the next *octets* of the body."""
        for start in range(0, len(octets), PIECE):
            self._take(octets[start : start + PIECE])

    def digest(self, length: int | None = None) -> bytes | None:
        """The hash of the whole, or of the first *length* octets (one of the cuts); None where it is shorter.

        The body is complete then; `size` is its length in canonical form.
        """
        if None not in self._digests:
            self._finish()
        return self._digests.get(length)

    def _take(self, octets: bytes) -> None:
        text = self._held + octets
        if self._relaxed:
            text = _reduced(text)
        text, self._held = _parted(text, self._relaxed)
        if self._relaxed:
            text = text.replace(b" \r\n", CRLF)
        kept = len(text) - 2 * _line_ends(text)
        if kept:
            self._put_empty_lines()
            self._put(text[:kept])
        self._empty_lines += (len(text) - kept) // 2

    def _put_empty_lines(self) -> None:
        while self._empty_lines:
            count = min(self._empty_lines, PIECE)
            self._put(CRLF * count)
            self._empty_lines -= count

    def _put(self, canonical: bytes) -> None:
        while self._cuts and self._cuts[-1] <= self.size + len(canonical):
            cut = self._cuts.pop()
            digest = self._hash.copy()
            digest.update(canonical[: cut - self.size])
            self._digests[cut] = digest.digest()
        self._hash.update(canonical)
        self.size += len(canonical)

    def _finish(self) -> None:
        """The last line ends in CRLF; of a relaxed body without any line nothing is left (RFC 6376 3.4.4)."""
        if rest := self._held.rstrip(b" "):
            self._put_empty_lines()
            self._put(rest)
        if self.size or not self._relaxed:
            self._put(CRLF)
        self._put(b"")  # for a cut at 0
        self._digests[None] = self._hash.digest()


def _reduced(text: bytes) -> bytes:
    """*text* with one space for each run of spaces and tabs."""
    if b"\t" in text:
        text = text.translate(_TABS_AS_SPACES)
    return b" ".join(_SPACES.split(text)) if b"  " in text else text  # quicker than sub()


def _parted(text: bytes, relaxed: bool) -> tuple[bytes, bytes]:
    """*text* without, and what may become the end of a line when the next octets come."""
    kept = len(text) - text.endswith(b"\r")
    if relaxed and text.endswith(b" ", 0, kept):
        kept -= 1
    return text[:kept], text[kept:]


def _line_ends(text: bytes) -> int:
    """How many CRLF stand at the end of *text*."""
    ending = text[len(text.rstrip(CRLF)) :].replace(CRLF, b" ")  # where a bare CR or LF stays as it is
    return len(ending) - len(ending.rstrip(b" "))

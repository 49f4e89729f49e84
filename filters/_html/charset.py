"""The characters that a browser would see in the octets of a page: more readings than one, where readers differ.

The rule: markup is ASCII in every charset that a browser knows, so the charset counts only where it moves ASCII.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

_MARKS = ((codecs.BOM_UTF8, "latin-1"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_UTF7 = re.compile(r"\+AD[w-z]|utf-7", re.IGNORECASE)  # "<" begins a run in UTF-7 (RFC 2152), or it is declared
_ESCAPES = re.compile(r"\x1b[$(][(]?[@-J]")  # ISO-2022 (RFC 1468): browsers drop them, also from amid a tag


@dataclass(frozen=True, slots=True)
class Reading:
    """The text of a page, and in our words what keeps others from reading it so; "" where nothing does."""

    text: str
    hidden: str = ""


def prepare() -> None:
    """Load the codecs, which could not be loaded later, when the process is confined."""
    for name in ("latin-1", "utf-8", "utf-7", "utf-16-le", "utf-16-be"):
        codecs.lookup(name)


def readings(octets: bytes) -> Iterator[Reading]:
    """Every text that *octets* are to some browser. The first is what nearly all see."""
    text, nulls = _decoded(octets)
    yield Reading(text, "NUL octets" if nulls else "")
    if "+A" in text and _UTF7.search(text):
        yield Reading(text.encode("latin-1", "replace").decode("utf-7", "ignore"), "UTF-7")
    if _ESCAPES.search(text):
        yield Reading(_ESCAPES.sub("", text), "shifts of ISO-2022")


def _decoded(octets: bytes) -> tuple[str, bool]:
    """The text, and whether NUL octets stood in it: readers pass over them, and unmarked UTF-16 is full of them."""
    for mark, name in _MARKS:
        if octets.startswith(mark):
            return octets[len(mark) :].decode(name, "replace"), False
    return octets.replace(b"\0", b"").decode("latin-1"), b"\0" in octets

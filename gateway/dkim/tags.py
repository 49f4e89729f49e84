"""Lists of tags, as signatures and key records are written (RFC 6376 3.2). Read to the letter, or not at all."""

from __future__ import annotations

import re

_TAG = re.compile(r"([A-Za-z][A-Za-z0-9_]*)[ \t]*=[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")


class Malformed(ValueError):
    """It is no list of tags. The text says why, in our words."""


def parse(value: bytes) -> dict[str, str]:
    """The tags of *value* by name, in their order; `Malformed` where it is no list of tags.

    Names differ by case. Values have lost their folds and the white space around them, not the one within.
    """
    try:
        text = value.replace(b"\r\n", b"").decode()  # RFC 8616 5: UTF-8 may stand there
    except UnicodeDecodeError:
        raise Malformed("a list of tags is not UTF-8") from None
    found: dict[str, str] = {}
    for part in _parts(text):
        match = _TAG.fullmatch(part.strip(" \t"))
        if match is None:
            raise Malformed("a list of tags is malformed")
        if match[1] in found:
            raise Malformed("a tag stands there twice")
        found[match[1]] = match[2]
    return found


def _parts(text: str) -> list[str]:
    """The tags, without the empty one that a last semicolon makes."""
    *parts, last = text.split(";")
    return [*parts, last] if last.strip(" \t") or not parts else parts


def without_spaces(value: str) -> str:
    """*value* without the white space that may stand anywhere in it: base64, and lists (RFC 6376 2.10)."""
    return value.replace(" ", "").replace("\t", "")

"""Lists of tags, as signatures and key records are written (RFC 6376 3.2). Read to the letter, or not at all."""

from __future__ import annotations

import re

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_SPACE = " \t"
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Malformed(ValueError):
    """It is no list of tags. The text says why, in our words."""


def parse(value: bytes) -> dict[str, str]:
    """The tags of *value* by name, in their order; `Malformed` where it is no list of tags.

    Names differ by case. Values have lost their folds and the white space around them, not the one within.
    """
    text = value.replace(b"\r\n", b"")
    if _FORBIDDEN.search(text) or not text.strip():
        raise Malformed("a list of tags is malformed")
    try:
        tags = text.decode().strip(_SPACE).removesuffix(";").split(";")  # UTF-8 by RFC 8616 5
    except UnicodeDecodeError:
        raise Malformed("a list of tags is malformed") from None
    found: dict[str, str] = {}
    for name, equals, tag in (one.partition("=") for one in tags):
        if not equals or not _NAME.fullmatch(name := name.strip(_SPACE)):
            raise Malformed("a list of tags is malformed")
        if name in found:
            raise Malformed("a tag stands there twice")
        found[name] = tag.strip(_SPACE)
    return found


def without_spaces(value: str) -> str:
    """*value* without the white space that may stand anywhere in it: base64, and lists (RFC 6376 2.10)."""
    return value.replace(" ", "").replace("\t", "")

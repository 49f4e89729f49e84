"""Lists of tags, as signatures and key records are written (RFC 6376 3.2). Read to the letter, or not at all."""

from __future__ import annotations

import binascii
import re

from dkim.util import DuplicateTag, InvalidTagValueList, parse_tag_value

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Malformed(ValueError):
    """It is no list of tags. The text says why, in our words."""


def parse(value: bytes) -> dict[str, str]:
    """The tags of *value* by name, in their order; `Malformed` where it is no list of tags.

    Names differ by case. Values have lost their folds and the white space around them, not the one within.
    """
    text = value.replace(b"\r\n", b"")
    # dkimpy lets both pass, and looks at the first letter of a name only
    if _FORBIDDEN.search(text) or not text.strip():
        raise Malformed("a list of tags is malformed")
    try:
        found = {name.decode(): tag.decode() for name, tag in parse_tag_value(text).items()}  # UTF-8 by RFC 8616 5
    except DuplicateTag:
        raise Malformed("a tag stands there twice") from None
    except (InvalidTagValueList, UnicodeDecodeError):
        raise Malformed("a list of tags is malformed") from None
    if not all(map(_NAME.fullmatch, found)):
        raise Malformed("a list of tags is malformed")
    return found


def without_spaces(value: str) -> str:
    """*value* without the white space that may stand anywhere in it: base64, and lists (RFC 6376 2.10)."""
    return value.replace(" ", "").replace("\t", "")


def octets(value: str) -> bytes:
    """The octets that *value* stands for in base64; `ValueError` where it is none.

    White space may stand anywhere in it, and "=" need not stand at its end (RFC 6376 2.10).
    """
    text = without_spaces(value)
    return binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)

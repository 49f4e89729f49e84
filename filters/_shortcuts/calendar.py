"""An appointment, a task or a card (RFC 5545, RFC 6350): the files and addresses in it. Linear, nothing is followed."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass

_FOLD = re.compile(r"\r?\n[ \t]")  # RFC 5545 3.1
_ADDRESSED = frozenset({"attach", "url", "source", "image", "conference", "photo", "logo", "sound", "key"})
_FILE = re.compile(  # vCard 2.1 leaves out what the parameter is called
    r"(?:^|;)\s*(?:(?:encoding|value)\s*=\s*)?\"?(?:base64|b|binary)\"?\s*(?:;|$)", re.IGNORECASE
)
_NAME = re.compile(r'(?:^|;)\s*(?:x-(?:\w{1,20}-)?)?filename\s*=\s*"?([^";]{1,255})')  # RFC 8607 4.2, and before it
_HEAD = re.compile(r'([^":]*+(?:"[^"]*+"[^":]*+)*+):')  # a colon within quotes does not end it (RFC 5545 3.2)
_DATA = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Entry:
    """A property: `address` is where it leads, `octets` the file in it; `alarm` that it goes off by itself.

    `file` is what the file says its name is.
    """

    name: str
    address: str = ""
    octets: bytes = b""
    alarm: bool = False
    file: str = ""


def entries(text: str) -> Iterator[Entry]:
    """Every property of *text* that leads somewhere or holds a file."""
    runs = False
    for line in _FOLD.sub("", text).splitlines():
        head = _HEAD.match(line)
        if not head:
            continue
        name, _, parameters = head[1].strip().lower().partition(";")
        value = line[head.end() :].strip()
        if name == "action":
            runs = value.lower() == "procedure"  # a program that runs at a time: RFC 2445 4.8.6.1
        if name in _ADDRESSED or _FILE.search(parameters):
            yield _entry(name, parameters, value, runs)


def _entry(name: str, parameters: str, value: str, runs: bool) -> Entry:
    called = _NAME.search(parameters)
    file = called[1] if called else ""
    if match := _DATA.match(value):
        return Entry(name, octets=_base64(value[match.end() :]), alarm=runs, file=file)
    if _FILE.search(parameters):
        return Entry(name, octets=_base64(value), alarm=runs, file=file)
    return Entry(name, address=value, alarm=runs)


def _base64(value: str) -> bytes:
    kept = re.sub(r"[^A-Za-z0-9+/]", "", value)
    return binascii.a2b_base64(kept[: len(kept) - (len(kept) % 4 == 1)] + "=" * (-len(kept) % 4))

"""Rich text (RTF 1.9.1): objects, fields and templates, however their words are torn apart.

Only the groups that matter are read, from the control word that opens each; what stands between costs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from filters._office import compound, inside
from filters._office.seen import Inner, Meter, Seen, Sight, fields, remote

_OPENS = re.compile(rb"\\(objdata|fldinst|template)(?![a-z])-?\d{0,10}", re.IGNORECASE)
_UPDATES = re.compile(rb"\\obj(?:update|autlink)(?![a-z])", re.IGNORECASE)
_TOKEN = re.compile(
    rb"(?P<open>\{)|(?P<close>\})|\\bin(?P<raw>\d{1,10}) ?|\\'(?P<hex>[0-9A-Fa-f]{2})|(?P<star>\\\*)"
    rb"|\\[A-Za-z]+-?\d* ?|\\.|(?P<text>[^\\{}]+)|.",
    re.DOTALL,
)
_MAGIC = compound.MAGIC.hex().encode()
_NO_HEX = bytes(set(range(256)) - set(b"0123456789abcdefABCDEF"))


def look(data: bytes, meter: Meter) -> Seen:
    """What the document *data* does, and the objects in it."""
    updates = _UPDATES.search(data) is not None
    instructions: list[str] = []
    for match in _OPENS.finditer(data):
        meter.steps(20)
        if _is_shown(data, match.start()):
            continue
        word = match[1].lower()
        if word == b"objdata":
            tokens = _group(data, match.end(), meter)
            if any(token["hex"] for token in tokens):
                yield Sight("exploit", "has an object in escapes, of which each reader makes something else")
            yield from _object(_hexadecimal(data, tokens), updates)
        elif word == b"fldinst":
            instructions.append(_text(data, match.end(), meter))
        elif word == b"template":
            yield from remote("a template", _text(data, match.end(), meter))
    yield from fields("".join(instructions))


def _is_shown(data: bytes, at: int) -> bool:
    """Whether the backslash at *at* is text: an odd number of others stands before it."""
    before = data[max(0, at - 4096) : at]
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 1


def _object(digits: bytes, updates: bool) -> Seen:
    """What *digits* stand for. Readers lose a digit here or there; a compound file says how they pair."""
    digits = digits.lower()
    octets = _paired(digits[digits.find(_MAGIC) % 2 if _MAGIC in digits else 0 :])
    yield from inside.classes(octets, updates)
    at = octets.find(compound.MAGIC)
    if at >= 0:
        yield Inner(octets[at:])
    else:
        yield from inside.packed(octets)


def _paired(digits: bytes) -> bytes:
    return bytes.fromhex(digits[: len(digits) & ~1].decode("ascii"))


def _hexadecimal(data: bytes, tokens: Iterable[re.Match[bytes]]) -> bytes:
    """The hexadecimal digits of a group, with those of groups within that are no destinations of their own."""
    return b"".join(
        match["text"].translate(None, _NO_HEX) if match["text"] else _raw(data, match).hex().encode()
        for match in tokens
        if match["text"] or match["raw"]
    )


def _text(data: bytes, at: int, meter: Meter) -> str:
    """The text of the group, torn apart by formatting or not."""
    pieces = (
        bytes.fromhex(match["hex"].decode()) if match["hex"] else re.sub(rb"[\r\n]", b"", match["text"] or b"")
        for match in _group(data, at, meter)
    )
    return b"".join(pieces).decode("latin-1")


def _raw(data: bytes, match: re.Match[bytes]) -> bytes:
    return data[match.end() : match.end() + int(match["raw"])]


def _group(data: bytes, at: int, meter: Meter) -> list[re.Match[bytes]]:
    """The tokens from *at* to the end of the group, without groups that readers are to pass over (`{\\*...}`)."""
    tokens: list[re.Match[bytes]] = []
    depth, passing = 0, 0
    while match := _TOKEN.match(data, at):
        meter.steps(8 + (match.end() - at) // 32)
        at = match.end() + (int(match["raw"]) if match["raw"] else 0)
        depth += bool(match["open"]) - bool(match["close"])
        if depth < 0:
            return tokens
        passing = passing if passing <= depth else 0
        if match["star"]:
            passing = passing or depth
        if not passing:
            tokens.append(match)
    return tokens

"""The tokens and values of PDF (ISO 32000-1, 7.2 and 7.3), from any place in the octets, tolerant as readers are."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

MAX_DEPTH = 32
"""Arrays and dictionaries within each other."""
MAX_STRING = 1 << 16
"""Octets of a string that are read."""
MAX_BEFORE = 1 << 16
"""Octets before a key in which the dictionary that holds it is looked for, and how many beginnings are tried."""
MAX_BEGINNINGS = 16

_STRIDE = 1 << 20
_OVERLAP = 256

WHITE = rb"[\0\t\n\f\r ]"
REGULAR = rb"[^\0\t\n\f\r ()<>\[\]{}/%]"
SKIPPED = rb"(?:" + WHITE + rb"++|%[^\r\n]*+)*+"
"""White space and comments, which may stand between any two tokens."""

_SKIPPED = re.compile(SKIPPED)
_REFERENCE = re.compile(rb"(\d{1,10}+)" + SKIPPED + rb"\d{1,5}+" + SKIPPED + rb"R(?!" + REGULAR + rb")")
_WORD = re.compile(REGULAR + rb"*+")
_HEXADECIMAL = re.compile(rb"[^>]*+")
_MARK = re.compile(rb"[()\\]")
_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|(\r\n|[\r\n])|(.))", re.DOTALL)
_ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f"}
_HASH = re.compile(rb"#([0-9A-Fa-f]{2})")


class Unreadable(Exception):
    """It cannot be read, or exceeds a limit. The text says how, in our words, going on where "the file" began."""


class Meter:
    """How many more values may be read, octets unpacked, seconds of CPU spent; one for all files of a mail.

    The time counts from when it is made.
    """

    def __init__(self, steps: int, octets: int, seconds: float) -> None:
        self._steps = steps
        self._until = time.process_time() + seconds
        self.octets = octets

    def step(self) -> None:
        """One more value, or place to look at."""
        self._steps -= 1
        if self._steps < 0:
            raise Unreadable("is too intricate to be read to its end")
        if not self._steps & 31:
            self.tick()

    def tick(self) -> None:
        """Some time has passed."""
        if time.process_time() > self._until:
            raise Unreadable("takes too long to be read to its end")

    def unpacked(self, octets: int) -> None:
        """So many octets more."""
        self.octets -= octets
        if self.octets < 0:
            raise Unreadable("unpacks to more than is read")
        self.tick()


class Name(str):
    """A name, without its solidus, with its #xx read."""

    __slots__ = ()


class String(bytes):
    """A string as it stands there, which may be encrypted."""

    __slots__ = ()


class Reference(NamedTuple):
    """Stands for the object of this number."""

    number: int


Value = None | bytes | Name | Reference | list["Value"] | dict[str, "Value"]
"""A string is bytes, of which `text` makes text. Numbers and words are bytes too: nobody here counts with them."""


def name(raw: bytes) -> Name:
    """The name that is written as *raw*."""
    if b"#" in raw:
        raw = _HASH.sub(lambda match: bytes.fromhex(match[1].decode()), raw)
    return Name(raw.decode("latin-1"))


def text(value: Value) -> str:
    """The text of a string (ISO 32000-1, 7.9.2.2); "" for all that is none."""
    if not isinstance(value, bytes):
        return ""
    for mark, codec in ((b"\xfe\xff", "utf-16-be"), (b"\xff\xfe", "utf-16-le"), (b"\xef\xbb\xbf", "utf-8")):
        if value.startswith(mark):
            return value[len(mark) :].decode(codec, "replace")
    return value.decode("latin-1")


def number(value: Value) -> int:
    """The whole number that *value* is, or 0."""
    return int(value) if isinstance(value, bytes) and value.isdigit() and len(value) < 10 else 0


@dataclass(slots=True)
class Lexer:
    """Reads values from *position* on, and stands behind them afterwards."""

    data: bytes
    position: int
    meter: Meter

    def value(self, depth: int = 0) -> Value:
        """The next value. None at the end, and where there stands the end of something else."""
        self.meter.step()
        start = self.skip()
        first = self.data[start : start + 1]
        if self.data.startswith(b"<<", start):
            return self._dictionary(depth + 1)
        if first == b"/":
            return name(self._word(start + 1))
        if first == b"(":
            return self._string()
        if first == b"<":
            return self._hexadecimal()
        if first == b"[":
            return self._array(depth + 1)
        return self._reference() if first.isdigit() else self._word(start) or None

    def skip(self) -> int:
        """Go to the next token; where that is."""
        match = _SKIPPED.match(self.data, self.position)
        self.position = match.end() if match else self.position
        return self.position

    def _word(self, start: int) -> bytes:
        match = _WORD.match(self.data, start)
        self.position = match.end() if match else start
        return match[0][:MAX_STRING] if match else b""

    def _reference(self) -> Value:
        match = _REFERENCE.match(self.data, self.position)
        if not match:
            return self._word(self.position)
        self.position = match.end()
        return Reference(int(match[1]))

    def _dictionary(self, depth: int) -> dict[str, Value]:
        found: dict[str, Value] = {}
        for key in self._until(b">>", 2, depth):
            if isinstance(key, Name) and not self.data.startswith(b">>", self.skip()):
                found[key] = self.value(depth)
        return found

    def _array(self, depth: int) -> list[Value]:
        return list(self._until(b"]", 1, depth))

    def _until(self, end: bytes, opening: int, depth: int) -> Iterator[Value]:
        """Values up to *end*, or to where there are no more; a stray delimiter is passed over."""
        if depth > MAX_DEPTH:
            raise Unreadable("nests more deeply than is read")
        self.position += opening
        while not self.data.startswith(end, self.skip()):
            before = self.position
            if before >= len(self.data):
                return
            value = self.value(depth)
            self.position += self.position == before
            yield value
        self.position += len(end)

    def _string(self) -> bytes:
        """A literal string (7.3.4.2): brackets within it are in pairs, or escaped."""
        start = at = self.position + 1
        open_ = 1
        while open_ and (match := _MARK.search(self.data, at, start + MAX_STRING)):
            at = match.end() + (match[0] == b"\\")
            open_ += {b"(": 1, b")": -1}.get(match[0], 0)
        if open_:
            raise Unreadable("has a string that is not read to its end")
        self.position = at
        return String(_ESCAPE.sub(_unescaped, self.data[start : at - 1]))

    def _hexadecimal(self) -> bytes:
        match = _HEXADECIMAL.match(self.data, self.position + 1)
        self.position = match.end() + 1 if match else self.position + 1
        digits = re.sub(rb"[^0-9A-Fa-f]", b"", match[0][: 2 * MAX_STRING]) if match else b""
        return String(bytes.fromhex((digits + b"0" * (len(digits) % 2)).decode()))


def _unescaped(match: re.Match[bytes]) -> bytes:
    octal, line_end, other = match.groups()
    if octal:
        return bytes([int(octal, 8) & 255])
    return b"" if line_end else _ESCAPED.get(other, other)


def occurrences(pattern: re.Pattern[bytes], data: bytes, meter: Meter) -> Iterator[re.Match[bytes]]:
    """Where *pattern*, which is short, stands in *data*; each is a step."""
    for start in range(0, len(data), _STRIDE):
        meter.tick()
        for match in pattern.finditer(data, start, start + _STRIDE + _OVERLAP):
            if match.start() < start + _STRIDE:
                meter.step()
                yield match


def holder(data: bytes, position: int, meter: Meter) -> tuple[dict[str, Value], int]:
    """The innermost dictionary around *position*, and where it ends; an empty one where none is seen."""
    start = position
    for _ in range(MAX_BEGINNINGS):
        start = data.rfind(b"<<", max(0, position - MAX_BEFORE), start)
        if start < 0:
            break
        lexer = Lexer(data, start, meter)
        found = lexer.value()
        if isinstance(found, dict) and lexer.position > position:
            return found, lexer.position
    return {}, position

"""What an ARC-Authentication-Results field says (RFC 8617 4.1.1, RFC 8601 2.2). Read to the letter, or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MAX_RESULTS = 50
"""Results that one field may hold; nobody does so many checks."""

_CFWS = r"(?:\s|\([^()\\]*+\))*+"
_QUOTED = r'"(?:[^"\\]|\\.)*+"'
_INSTANCE = re.compile(rf"{_CFWS}i{_CFWS}={_CFWS}([1-9][0-9]?){_CFWS};", re.ASCII)
_OUTSIDE = re.compile(rf'{_QUOTED}|[();]|[^"();\\]++', re.DOTALL)
_COMMENT = re.compile(r"\\.|[()]|[^()\\]++", re.DOTALL)
_SERVER = re.compile(rf"\s*(?:{_QUOTED}|[^\s\"=]++)(?:\s+[0-9]++)?\s*", re.ASCII | re.DOTALL)
_NOTHING = re.compile(r"\s*none\s*", re.ASCII | re.IGNORECASE)
_CHECK = re.compile(r"\s*([a-z][a-z0-9-]*+)\s*+(?:/\s*[0-9]++\s*+)?=\s*+([a-z][a-z0-9-]*+)", re.ASCII | re.IGNORECASE)
_PROPERTY = re.compile(
    rf"\s++([a-z][a-z0-9-]*+(?:\s*+\.\s*+[a-z][a-z0-9_-]*+)?)\s*+=\s*+((?:{_QUOTED}|[^\s\"])++)",
    re.ASCII | re.IGNORECASE | re.DOTALL,
)
"""A property, or the reason. Large sites write further words without a "ptype"; they cannot be taken for a result."""

_DOMAIN = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Said:
    """The instance that a field names, and its results as (method, result) in lower case.

    `author` is the domain (header.from) that its one dmarc result is about; empty where it does not say.
    """

    instance: int
    results: tuple[tuple[str, str], ...] = ()
    author: str = ""


def said(value: bytes) -> Said | None:
    """What the *value* of a field says; None where it names no instance. One that breaks the grammar has no results."""
    text = value.decode("utf-8", "surrogateescape")
    match = _INSTANCE.match(text)
    if match is None:
        return None
    try:
        results, author = _results(_parts(text[match.end() :]))
    except ValueError:
        return Said(int(match[1]))
    return Said(int(match[1]), results, author)


def _parts(text: str) -> list[str]:
    """What stands between the semicolons, without comments; `ValueError` where they or quotes are not closed."""
    parts, kept, depth, at = list[str](), list[str](), 0, 0
    while at < len(text):
        match = (_COMMENT if depth else _OUTSIDE).match(text, at)
        if match is None or (match[0] == ")" and not depth):
            raise ValueError("a quote, a comment or a backslash out of place")
        at, piece = match.end(), match[0]
        if piece in {"(", ")"}:
            depth += 1 if piece == "(" else -1
            kept.append(" ")
        elif piece == ";" and not depth:
            parts.append("".join(kept))
            kept.clear()
        elif not depth:
            kept.append(piece)
    if depth:
        raise ValueError("a comment is not closed")
    return [*parts, "".join(kept)]


def _results(parts: Sequence[str]) -> tuple[tuple[tuple[str, str], ...], str]:
    """The results, and the author; `ValueError` where the grammar is broken anywhere."""
    server, *checks = parts
    if not _SERVER.fullmatch(server) or len(checks) > MAX_RESULTS:
        raise ValueError("no name of a server, or too many results")
    if checks and not checks[-1].strip():
        checks.pop()  # a last semicolon, which some write
    if len(checks) == 1 and _NOTHING.fullmatch(checks[0]):
        return (), ""
    read = [_check(check) for check in checks]
    authors = [value for method, _, properties in read if method == "dmarc" for value in _authors(properties)]
    return tuple((method, result) for method, result, _ in read), authors[0] if len(authors) == 1 else ""


def _check(text: str) -> tuple[str, str, list[tuple[str, str]]]:
    """Method, result and properties."""
    match = _CHECK.match(text)
    if match is None:
        raise ValueError("no method and result")
    return match[1].lower(), match[2].lower(), list(_properties(text.rstrip(), match.end()))


def _properties(text: str, at: int) -> Iterator[tuple[str, str]]:
    while at < len(text):
        match = _PROPERTY.match(text, at)
        if match is None:
            raise ValueError("a property out of place")
        at = match.end()
        yield re.sub(r"\s", "", match[1]).lower(), match[2]


def _authors(properties: Sequence[tuple[str, str]]) -> list[str]:
    """The domains of all header.from; "" for what is none. Some write the address."""
    values = [value.strip('"').lower().rpartition("@")[2] for name, value in properties if name == "header.from"]
    return [value if _DOMAIN.fullmatch(value) else "" for value in values]

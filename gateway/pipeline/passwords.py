"""Words of a mail that may be the password of an archive in it. It runs in the confined child.

The rule: the likely ones come first, and there are never more than `MOST`: each costs time to try.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator

MOST = 50
MAX_TEXT = 20_000
MAX_WORD = 64
SHORT = 60
"""Words of a body so short that any of them may be the password."""

_TAG = re.compile(r"<[^<>]{0,500}>")
_CALLED = re.compile(
    r"(?:pass\s?-?(?:word|code|phrase|wort)|kennwort|\bpw[dz]?\b|\bpass\b|contraseñ?n?a|\bclave\b|mot\s+de\s+passe|\bmdp\b"
    r"|wachtwoord|\bsenha\b|\bparola?\b|hasł?l?o\b|парол\w*|lösenord|adgangskode|passord|salasana|\bheslo\b|jelszó|şifre"
    r"|密码|密碼|パスワード|비밀번호|\bpin\b|\bcode\b|\bkey\b)(.{0,120})",
    re.IGNORECASE | re.DOTALL,
)
_MARKS = "\"'`„“”\u201a\u2018\u2019»«\u300c\u300d\u300e\u300f"
_QUOTED = re.compile(rf"[{_MARKS}\[(]([^\s{_MARKS}\[\]()][^\r\n{_MARKS}\[\]()]{{0,62}})[{_MARKS}\])]")
_AROUND = " \t()[]<>{}.,;:!?=*\uff1a\uff0c\u3002" + _MARKS
_FILLER = re.compile(
    r"is|ist|lautet|es|est|è|e|to|for|the|of|archive|file|attachment|zip|für|das|die|der|den|datei|archiv|del|la|le|de|du"
    r"|your|ihr|and|und|this|that|an?|in|as|follows|[-:=]+"
)


def candidates(texts: Iterable[str]) -> list[bytes]:
    """At most `MOST` words of *texts* (bodies, subject; HTML or not), as the octets that a password is made of."""
    plain = [html.unescape(_TAG.sub(" ", text[:MAX_TEXT])) for text in texts]
    words: dict[bytes, None] = {}
    for find in (_called, _quoted, _all):
        for text in plain:
            for word in find(text):
                for octets in _encoded(word):
                    words[octets] = None
                if len(words) >= MOST:
                    return list(words)[:MOST]
    return list(words)


def _called(text: str) -> Iterator[str]:
    """What stands behind the word "password", in many languages: the first words that could be one."""
    for match in _CALLED.finditer(text):
        found = [word for word in match[1].split() if not _FILLER.fullmatch(word.strip(_AROUND).lower() or "-")]
        for word in found[:3]:
            yield from _variants(word)


def _quoted(text: str) -> Iterator[str]:
    for match in _QUOTED.finditer(text):
        yield match[1]


def _all(text: str) -> Iterator[str]:
    words = text.split()
    if len(words) <= SHORT:
        for word in words:
            yield from _variants(word)


def _variants(word: str) -> Iterator[str]:
    """*word* without what stands around it, without a stop behind it alone, and as it is."""
    yield word.strip(_AROUND)
    yield word.lstrip(":=").rstrip(".,;")
    yield word


def _encoded(word: str) -> Iterator[bytes]:
    if 0 < len(word) <= MAX_WORD:
        yield word.encode("utf-8", "replace")
        if not word.isascii():
            yield word.encode("cp1252", "replace")

"""The header block of a message -> its `Author`: the one mailbox that every reader takes for it, or why there is none.

Strict where mail programs guess: of RFC 5322 3.4 only what all of them read alike is taken, and whatever else some of
them may take for an author is a doubt. Runs in the confined child; each octet is looked at a bounded number of times.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from gateway.events import clean
from gateway.idn import a_labels
from gateway.model import Author
from gateway.pipeline.mime import Header, decode_words, raw_text

MAX_VALUE = 8192
"""Octets of a From field. Longer ones are not read: no person has such a name."""

COMMON = 200
"""Octets of a From field that may be remembered: most people write more than one mail."""

MAX_FIELDS = 10
"""Lines like a From field that are looked at, and Sender fields that are read."""

MAX_DOMAINS = 20
MAX_ADDRESS = 320
MAX_DISPLAY = 998
_SENDERS = ("sender", "resent-from", "resent-sender")

_TOO_LONG = f"a From field is longer than {MAX_VALUE} octets"
_CONTINUES = "a line that continues a field looks like a From field"
_LIKE_FROM = re.compile(rb"f[^!-~]*+r[^!-~]*+o[^!-~]*+m[^!-~]*+:", re.IGNORECASE)
_NAME = re.compile(rb"from:", re.IGNORECASE)
_END = re.compile(rb"\r\n(?![ \t])")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_DOMAIN_OF = re.compile(r"@([^\s@<>(),;:\"\[\]\\]{1,255})")
_ADDRESS_IN = re.compile(r"[^\s@<>(),;:\"\[\]\\]{1,255}@[^\s@<>(),;:\"\[\]\\]{1,255}")
_LABELS = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.(?!-)[a-z0-9_-]{1,63})*", re.IGNORECASE)
_ENCODED = re.compile(r"=\?[^?]*\?[bq]\?", re.IGNORECASE)
_WORD = re.compile(r"=\?[^?]*\?(?P<by>[bq])\?(?P<coded>[^?]*)\?=", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/]*")
_UTF7 = re.compile(r"=\?[^?]*utf-?7[^?]*\?", re.IGNORECASE)

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_TOKEN = re.compile(
    r"""(?P<space>[ \t]+) | "(?P<quoted>(?:[^"\\]|\\.)*+)" | \((?P<comment>[^()<>@"\\]*)\)
      | (?P<word>[^ \t"()<>@,;:.\[\]\\]+) | (?P<special>.)""",
    re.VERBOSE | re.DOTALL,
)
_LETTERS = {"space": " ", "quoted": "q", "comment": "c", "word": "w"}
_ADDRESS = r"(?:[w.]+|q)@w(?:\.w)*"
_MAILBOX = re.compile(
    rf"(?P<name>[wq. c]*|[ ]*(?P<repeated>{_ADDRESS})[ ]*)<[ ]?(?P<angled>{_ADDRESS})[ ]?>[ c]*"
    rf"|[ c]*(?P<bare>{_ADDRESS})[ c]*"
)
"""One mailbox of RFC 5322 3.4, one letter for each token: a name and an address in angle brackets, or an address."""

_SIGNS = {
    ",": "there are several mailboxes, or a comma without quotes",
    ":": "there is a group or a route, or a colon without quotes",
    "\\": "there is a backslash without quotes",
    "[": "there are square brackets",
    "(": "a comment cannot be read in one way",
    '"': "quotes are not closed",
}


class _Unclear(Exception):
    """Readers may see different authors. The text says why, in our words."""


@dataclass(frozen=True, slots=True)
class _From:
    """A line that readers may take for a From field, its folds in it; `odd` says why not all of them do."""

    value: bytes
    odd: str = ""


class _Token(NamedTuple):
    letter: str
    text: str


class _Mailbox(NamedTuple):
    address: str
    display: str


def read(block: bytes, header: Header) -> Author:
    """The author that *block*, the outermost header, names; *header* is the same as the parser read it.

    Without an address and without doubts there is none: nobody will see any.
    """
    found = list(_lines(block))
    senders = tuple(_senders(header))
    doubts = _doubts_about(found)
    if not doubts and not (found and _shows_an_address(found[0].value)):
        return Author(senders=senders)
    if not doubts:
        try:
            address, display = _mailbox(found[0].value) if len(found[0].value) > COMMON else _known(found[0].value)
        except _Unclear as unclear:
            doubts = (str(unclear),)
        else:
            return Author(address, address.rpartition("@")[2], display, senders=senders)
    domains = dict.fromkeys(domain for one in found for domain in _domains(one.value))
    return Author(doubts=doubts, domains=tuple(domains)[:MAX_DOMAINS], senders=senders)


def _doubts_about(found: Sequence[_From]) -> tuple[str, ...]:
    """What can be said before any of them is read."""
    several = [f"there are {len(found)} From fields"] if len(found) > 1 else []
    long = [_TOO_LONG] if any(len(one.value) > MAX_VALUE for one in found) else []
    return tuple(dict.fromkeys([*several, *long, *(one.odd for one in found if one.odd)]))


def _lines(block: bytes) -> Iterator[_From]:
    """Every line of *block* that begins like a From field, by the grammar or not; `MAX_FIELDS` at most."""
    starts = ((match, _line_start(block, match.start())) for match in _LIKE_FROM.finditer(block))
    for number, (match, start) in enumerate((match, start) for match, start in starts if start >= 0):
        if number == MAX_FIELDS:
            yield _From(b"", "too many lines look like a From field")
            return
        end = _END.search(block, match.end())
        value = block[match.end() : end.start() if end else len(block)]
        odd = _oddity(block, start, match)
        if odd is not _CONTINUES or _shows_an_address(value):
            yield _From(value, odd)


def _line_start(block: bytes, at: int) -> int:
    """Where the line begins in which nothing that is printed stands before *at*; -1 where something does."""
    while at > 0 and block[at - 1] not in b"\r\n":
        at -= 1
        if 0x21 <= block[at] <= 0x7E:
            return -1
    return at


def _oddity(block: bytes, start: int, match: re.Match[bytes]) -> str:
    if start > 0 and block[start - 2 : start] != b"\r\n":
        return "a From field stands behind a bare CR or LF"
    if block[start : match.start()].strip(b" \t") or not re.fullmatch(rb"from\s*:", match[0], re.IGNORECASE):
        return "unprintable octets stand in the name of a From field"
    if start < match.start():
        return _CONTINUES
    return "" if _NAME.fullmatch(match[0]) else "white space stands before the colon of a From field"


def _shows_an_address(value: bytes) -> bool:
    """Whether anybody may see one in it, as it is or with its encoded words decoded."""
    if b"@" in value:
        return True
    text = raw_text(value[:MAX_VALUE])
    decoded = decode_words(text)
    return "@" in decoded or _is_opaque(text, decoded)


def _is_opaque(text: str, decoded: str) -> bool:
    """Whether others may decode an encoded word of *text* that we do not, or decode it otherwise."""
    if "=?" not in text:
        return False
    return bool(_UTF7.search(text) or _ENCODED.search(decoded)) or any(map(_is_broken, _WORD.finditer(text)))


def _is_broken(word: re.Match[str]) -> bool:
    """Whether readers mend an encoded word in different ways: strange octets in it, or base64 that ends nowhere."""
    coded = word["coded"].rstrip("=")
    if word["by"] in "Bb":
        return len(coded) % 4 == 1 or not _BASE64.fullmatch(coded)
    return not coded.isascii()


def _domains(value: bytes) -> list[str]:
    """Every domain that somebody may see in it, as it is or with its encoded words decoded."""
    text = raw_text(value[:MAX_VALUE])
    seen = dict.fromkeys(_DOMAIN_OF.findall(text) + _DOMAIN_OF.findall(decode_words(text) if "=?" in text else ""))
    return [domain for name in list(seen)[:MAX_DOMAINS] if (domain := _normal(name))]


def _normal(name: str) -> str:
    try:
        return clean(a_labels(name), 255)
    except ValueError:
        return clean(name.lower(), 255)


def _senders(header: Header) -> Iterator[str]:
    """The addresses of the fields that say who sent it; "" for one that cannot be read, and for those too many."""
    for name in _SENDERS:
        values = header.all(name)
        yield from map(_address_of, values[:MAX_FIELDS])
        if len(values) > MAX_FIELDS:
            yield ""


def _address_of(value: str) -> str:
    """The address of a Sender field, or "" where it is not one that all see alike."""
    try:
        return _mailbox(value.encode("utf-8", "replace")).address
    except _Unclear:
        return ""


def _mailbox(value: bytes) -> _Mailbox:
    """The one mailbox that *value* holds. Raises `_Unclear`."""
    if len(value) > MAX_VALUE:
        raise _Unclear(_TOO_LONG)
    folded = raw_text(value)
    text = folded.replace("\r\n", "").strip(" \t")
    if _CONTROL.search(text):
        raise _Unclear("there are control characters")
    tokens = [_token(match) for match in _TOKEN.finditer(text)]
    shape = "".join(token.letter for token in tokens)
    match = _MAILBOX.fullmatch(shape)
    if match is None:
        raise _Unclear(_misshapen(shape))
    start, end = match.span("angled" if match["angled"] else "bare")
    at = shape.index("@", start)
    address = _address(value, tokens[start:at], _joined(tokens[at + 1 : end]))
    if match["repeated"] and _joined(tokens[slice(*match.span("repeated"))]).lower() != address.lower():
        raise _Unclear("another address stands before the one in angle brackets")
    named = tokens[: match.end("name")] if match["angled"] else [token for token in tokens if token.letter == "c"]
    display = _display(named)
    _demand_harmless(text, display, address, tokens)
    if any("\r\n" in quoted and _others(quoted, address) for quoted in _QUOTED.findall(folded)):
        raise _Unclear("a quoted string that is folded holds a second address")  # for Python's library it ends there
    return _Mailbox(address, clean(display, MAX_DISPLAY))


_known = lru_cache(maxsize=1024)(_mailbox)


def _token(match: re.Match[str]) -> _Token:
    kind = match.lastgroup or ""
    return _Token(_LETTERS.get(kind, match[0]), match[kind] if kind in {"quoted", "comment"} else match[0])


def _misshapen(shape: str) -> str:
    if shape.count("@") > 1 or shape.count("<") > 1:
        return "there are several addresses"
    return next((words for sign, words in _SIGNS.items() if sign in shape), "it cannot be read as one mailbox")


def _joined(tokens: Sequence[_Token]) -> str:
    return "".join(f'"{token.text}"' if token.letter == "q" else token.text for token in tokens)


def _address(value: bytes, local: Sequence[_Token], domain: str) -> str:
    """The address, its domain in A-labels. Who decodes, unquotes or cuts it must see the same as who does not."""
    name = _joined(local)
    if re.fullmatch(r'"[\w+-]+(?:\.[\w+-]+)*"', name):
        name = name.strip('"')  # which means the same (RFC 5321 4.1.2)
    if "=?" in name:
        raise _Unclear("there is an encoded word in the address")
    if local[0].letter == "q" and not re.fullmatch(r"[\w.+ -]+", local[0].text):
        raise _Unclear("special characters are quoted in the address")
    if not (name + domain).isascii() and not (name.isprintable() and _is_utf8(value)):
        raise _Unclear("the address holds octets that are not UTF-8")
    address = f"{name}@{_domain(domain)}"
    if len(address) > MAX_ADDRESS:
        raise _Unclear(f"the address is longer than {MAX_ADDRESS} characters")
    return address


def _is_utf8(value: bytes) -> bool:
    return raw_text(value).encode("utf-8") == value


def _domain(name: str) -> str:
    try:
        domain = a_labels(name)
    except ValueError:
        domain = ""
    if len(domain) > 253 or not _LABELS.fullmatch(domain):
        raise _Unclear("what stands behind the @ is no domain name")
    return domain


def _display(tokens: Sequence[_Token]) -> str:
    return decode_words("".join(map(_unquoted, tokens)).strip(" \t"))


def _unquoted(token: _Token) -> str:
    return re.sub(r"\\(.)", r"\1", token.text, flags=re.DOTALL)


def _demand_harmless(text: str, display: str, address: str, tokens: Sequence[_Token]) -> None:
    """No second address may come to light where somebody decodes or unquotes before reading the grammar."""
    comments = decode_words(" ".join(token.text for token in tokens if token.letter == "c"))
    if _is_opaque(text, f"{display} {comments}"):
        raise _Unclear("an encoded word cannot be decoded")
    if ("=?" in text and _shows_another(display, address)) or _others(comments, address):
        raise _Unclear("an encoded word holds a second address")
    paired = [_unquoted(token) for token in tokens if token.letter == "q" and "\\" in token.text]
    if any("<" in name or _others(name, address) for name in paired):
        raise _Unclear("quoted pairs hide a second address")


def _others(text: str, address: str) -> set[str]:
    """The addresses in *text* that are not *address*."""
    return {one.lower() for one in _ADDRESS_IN.findall(text)} - {address.lower()}


def _shows_another(display: str, address: str) -> bool:
    """Whether *display* has another address for who decodes first, and then looks past the white space in it."""
    joined = "".join(display.split()).lower()
    return "@" in joined and "@" in re.sub(rf"{re.escape(address.lower())}(?![\w.-])", "", joined)

"""Does the mail show a plain mark of spam or phishing?

A small set of rules that each stand for themselves, and GTUBE. Text is bounded and every pattern runs in linear time;
hidden text and links are read as the mail program of the victim would show them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from html import unescape
from ipaddress import IPv4Address
from typing import ClassVar

from gateway.model import Content, Finding, Found, Mail, Stage

GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*" + "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL" + "*C.34X"
"""The text that every spam filter must find, for tests. In two pieces, so that no scanner stumbles over this file."""

MAX_FIELD = 1000
"""Characters of a header field that are read."""

_LINK = re.compile(r"https?://(?:[^\s/\"'<>?#@]{0,100}@)?([^\s/\"'<>?#:@]{1,253})")  # in lower case: far quicker
_ANCHOR = re.compile(r"<a\s([^<>]{1,2000})>\s{0,50}([^<>\s]{4,200})\s{0,50}</a", re.IGNORECASE)
_SHOWN_HOST = re.compile(r"(?:https?://|(?=www\.))((?:[a-z0-9-]{1,63}\.){1,6}[a-z]{2,24})(?:[/?#:]|$)", re.IGNORECASE)
_ADDRESS = re.compile(r"[^\s@<>\"'(),;:]{1,64}@((?:[a-z0-9-]{1,63}\.){1,6}[a-z]{2,24})", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]{0,2000}>")
_PASSWORD = re.compile(r"<input\b[^<>]{0,500}\btype\s{0,5}=\s{0,5}[\"']?password", re.IGNORECASE)
_SPLIT_WORD = re.compile("[\u00ad\u200b\u2060\ufeff](?<=[^\\W\\d_].)(?=[^\\W\\d_])")
_SECOND_LEVELS = frozenset({"ac", "co", "com", "edu", "go", "gob", "gov", "gv", "ne", "net", "or", "org"})
_REPLACED = "\N{REPLACEMENT CHARACTER}"
"""The parser puts it for characters that nobody sees, and for those that turn the direction of writing."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Word lists of the rules, and how much text they read."""

    text_size: int = 65536
    """Characters of plain text, and of HTML, that are read. GTUBE is looked for everywhere."""

    shorteners: tuple[str, ...] = (
        *("bit.ly", "tinyurl.com", "is.gd", "v.gd", "t.ly", "ow.ly", "rb.gy", "cutt.ly", "shorturl.at", "rebrand.ly"),
        *("tiny.cc", "buff.ly", "s.id", "shrtco.de", "goo.gl", "qrco.de", "lnkd.in", "urlz.fr", "bl.ink", "soo.gd"),
    )
    """Hosts behind whose short links anything may stand."""

    freemail: tuple[str, ...] = (
        *("gmail.com", "googlemail.com", "yahoo.com", "ymail.com", "hotmail.com", "outlook.com", "live.com", "aol.com"),
        *(
            "msn.com",
            "gmx.com",
            "gmx.net",
            "gmx.de",
            "web.de",
            "mail.com",
            "mail.ru",
            "yandex.com",
            "yandex.ru",
            "qq.com",
        ),
        *("163.com", "126.com", "protonmail.com", "proton.me", "icloud.com", "zoho.com", "tutanota.com", "inbox.ru"),
    )
    """Domains at which anybody gets an address."""

    phrases: tuple[str, ...] = (
        *("next of kin", "million dollars", "million usd", "million united states dollars", "us$", "beneficiary"),
        *("inheritance", "strictly confidential", "utmost confidence", "lottery", "winning number", "western union"),
        *(
            "moneygram",
            "atm card",
            "compensation fund",
            "late client",
            "deceased",
            "bank draft",
            "diplomatic",
            "barrister",
        ),
        *("remit", "foreign partner", "business proposal", "fund transfer", "transfer of the fund", "god bless"),
        *("your webcam", "i recorded you", "bitcoin wallet", "btc wallet", "processing fee", "security company"),
    )
    """Phrases of those who offer or demand money, in lower case."""

    min_phrases: int = 3
    """Different phrases from which on a mail is told."""


class Filter:
    """Asks each rule once; one finding for each that matches."""

    stage: ClassVar[Stage] = Stage.MESSAGE
    codes: ClassVar[frozenset[str]] = frozenset(
        {"gtube", "no_subject", "shouting", "no_recipients", "html_only", "link_to_address", "link_shortener"}
        | {"link_disguised", "password_form", "address_in_name", "reply_elsewhere", "money_phrases", "split_words"}
    )
    after: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, settings: Settings) -> None:
        if settings.min_phrases < 1 or settings.text_size < 1:
            raise ValueError("spam.min_phrases and spam.text_size must be at least 1")
        self._settings = settings

    def check(self, mail: Mail, found: Found) -> Sequence[Finding]:  # noqa: ARG002  it reads no other filter
        """At most one finding for each rule; the detail says what was seen."""
        content = mail.content
        if any(GTUBE in part.text for part in content.parts) or GTUBE in content.subject:
            return [Finding("gtube", "the test text for spam filters")]
        letter = _read(content, self._settings)
        return [Finding(code, seen) for code, rule in _RULES.items() if (seen := rule(letter))]


@dataclass(frozen=True, slots=True)
class _Letter:
    """What the rules look at. `visible` is all text without markup; `hosts` are those that links lead to."""

    settings: Settings
    content: Content
    author: str
    reply_to: str
    html: str
    visible: str
    hosts: tuple[str, ...]


def _read(content: Content, settings: Settings) -> _Letter:
    plain = _text_of(content, "text/plain", settings.text_size)
    html = _text_of(content, "text/html", settings.text_size)
    visible = f"{plain}\n{unescape(_TAG.sub(' ', html))}"
    hosts = dict.fromkeys(host.rstrip(".") for host in _LINK.findall(f"{plain}\n{unescape(html)}".lower()))
    return _Letter(settings, content, _field(content, "From"), _field(content, "Reply-To"), html, visible, tuple(hosts))


def _text_of(content: Content, media_type: str, limit: int) -> str:
    return "\n".join(part.text for part in content.parts if part.media_type == media_type)[:limit]


def _field(content: Content, name: str) -> str:
    """The first field *name* with its encoded words decoded (RFC 2047), shortened."""
    value = next(iter(content.values(name)), "")[:MAX_FIELD]
    try:
        return str(make_header(decode_header(value))) if "=?" in value else value
    except (HeaderParseError, LookupError, ValueError):
        return value


def _no_subject(letter: _Letter) -> str:
    return "" if letter.content.subject.strip() else "there is no subject"


def _shouting(letter: _Letter) -> str:
    subject = letter.content.subject
    shouts = subject.isupper() and " " in subject.strip() and sum(map(str.isalpha, subject)) >= 10
    return _shown(subject) if shouts else ""


def _no_recipients(letter: _Letter) -> str:
    return "" if any("@" in value for value in _recipients(letter)) else "neither To nor Cc names anybody"


def _html_only(letter: _Letter) -> str:
    kinds = {part.media_type for part in letter.content.parts if not part.filename}
    return "there is HTML, but no plain text" if "text/html" in kinds and "text/plain" not in kinds else ""


def _link_to_address(letter: _Letter) -> str:
    return next((_shown(host) for host in letter.hosts if _is_public_address(host)), "")


def _is_public_address(host: str) -> bool:
    """Whether *host* is an IPv4 address, also as one number ("http://3232235777/"), that is not of an inner network."""
    if not host[-1:].isdigit():
        return False
    try:
        return (IPv4Address(int(host)) if host.isascii() and host.isdigit() else IPv4Address(host)).is_global
    except ValueError:
        return False


def _link_shortener(letter: _Letter) -> str:
    return next((_shown(host) for host in letter.hosts if host.removeprefix("www.") in letter.settings.shorteners), "")


def _link_disguised(letter: _Letter) -> str:
    """A link whose text shows one host while it leads to another."""
    for attributes, text in _ANCHOR.findall(letter.html):
        shown, target = _SHOWN_HOST.match(unescape(text)), _LINK.search(unescape(attributes).lower())
        if shown and target and "." in target[1] and not _related(shown[1], target[1]):
            return f"{_shown(shown[1])} leads to {_shown(target[1])}"
    return ""


def _password_form(letter: _Letter) -> str:
    return "the HTML asks for a password" if _PASSWORD.search(letter.html) else ""


def _address_in_name(letter: _Letter) -> str:
    """An author whose name is an address, and not the one the mail is from."""
    name, bracket, address = letter.author.rpartition("<")
    shown, real = _ADDRESS.search(_as_seen(name)), _ADDRESS.match(address.strip())
    if bracket and shown and real and not _related(shown[1], real[1]):
        return f"{_shown(shown[0])} is in truth {_shown(real[0])}"
    return ""


def _as_seen(text: str) -> str:
    """*text* as eyes read it: full-width letters and signs as plain ones, without characters that nobody sees."""
    if text.isascii() and text.isprintable():
        return text
    seen = "".join(one for one in text if one != _REPLACED and unicodedata.category(one) != "Cf")
    return unicodedata.normalize("NFKC", seen).replace("\N{IDEOGRAPHIC FULL STOP}", ".")


def _reply_elsewhere(letter: _Letter) -> str:
    """Replies go to an address that anybody can get, though the author claims a domain of their own."""
    author, reply = _address(letter.author), _address(letter.reply_to)
    if not (author and reply) or author[1].lower() in letter.settings.freemail or _is_list(letter, author[0]):
        return ""
    return (
        f"{_shown(author[0])} wants replies at {_shown(reply[0])}"
        if reply[1].lower() in letter.settings.freemail
        else ""
    )


def _address(value: str) -> re.Match[str] | None:
    return _ADDRESS.search(value.rpartition("<")[2])


def _is_list(letter: _Letter, author: str) -> bool:
    """Whether the mail is also addressed to its *author*, as a mailing list does that speaks for its members."""
    return any(author.lower() in value[:MAX_FIELD].lower() for value in _recipients(letter))


def _recipients(letter: _Letter) -> list[str]:
    return [*letter.content.values("To"), *letter.content.values("Cc")]


def _money_phrases(letter: _Letter) -> str:
    text = f" {' '.join(letter.visible.lower().split())} "
    named = [phrase for phrase in letter.settings.phrases if phrase in text]
    return ", ".join(named[:10]) if len(named) >= letter.settings.min_phrases else ""


def _split_words(letter: _Letter) -> str:
    """Words cut by characters that nobody sees, so that filters do not know them."""
    text = f"{letter.content.subject}\n{letter.visible}"
    count = 0 if text.isascii() else sum(1 for _ in _SPLIT_WORD.finditer(text))
    return f"{count} words are cut by invisible characters" if count >= 5 else ""


_RULES: dict[str, Callable[[_Letter], str]] = {
    "no_subject": _no_subject,
    "shouting": _shouting,
    "no_recipients": _no_recipients,
    "html_only": _html_only,
    "link_to_address": _link_to_address,
    "link_shortener": _link_shortener,
    "link_disguised": _link_disguised,
    "password_form": _password_form,
    "address_in_name": _address_in_name,
    "reply_elsewhere": _reply_elsewhere,
    "money_phrases": _money_phrases,
    "split_words": _split_words,
}


def _related(one: str, other: str) -> bool:
    """Whether two hosts end in the same name: a rough likeness, without a list of public suffixes."""
    return _ending(one) == _ending(other)


def _ending(host: str) -> str:
    """The last two labels of *host*, or three where the second last is one like the "co" of "co.uk"."""
    labels = host.lower().rstrip(".").split(".")
    return ".".join(labels[-3:] if len(labels) > 2 and labels[-2] in _SECOND_LEVELS else labels[-2:])


def _shown(text: str) -> str:
    """A stranger's *text*, printable and short."""
    return "".join(character if character.isprintable() else "?" for character in text[:80])

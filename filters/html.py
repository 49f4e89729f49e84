"""Does a page of the mail do something when it is opened, or ask for a password?

Pages are what browsers open: HTML, SVG, XML, web archives, attached or in an archive. The body is one that mail
programs show without running its script, so most of what an attachment must not do is only a fact there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from filters._html import archive, charset, page
from filters._html.seen import Exhausted, Meter, Sight, kind
from gateway.model import Finding, Found, Mail, Part, Payloads, Stage

MAX_LINKS = 10
MAX_WORDS = 3
"""Things that one finding names."""
READS = 10
"""Times that the characters of a page may be read, decoded ones included."""
HEAD = 4096
LARGE = 200_000
"""Octets from which on the text of a body may not be all of it."""

_TYPES = frozenset({"text/html", "image/svg+xml", "application/xhtml+xml", "application/hta", "multipart/related"})
_XML = frozenset({"text/xml", "application/xml", "text/xsl", "application/xslt+xml"})
_ARCHIVES = frozenset({"application/x-mimearchive", "multipart/related"})
_SUFFIXES = (".htm", ".html", ".xhtml", ".xht", ".shtml", ".shtm", ".svg", ".hta", ".htt", ".htc", ".jhtml", ".dhtml")
_XML_SUFFIXES = (".xml", ".xsl", ".xslt", ".xhtm", ".xspf", ".rdf")
_ARCHIVE_SUFFIXES = (".mht", ".mhtml")
_DOCUMENTS = re.compile(r"\.(?:do[ct]|xl|pp[ts]|po[t]|od|ot|vs|epub|key|numbers|pages|pub)[a-z]{0,2}$", re.IGNORECASE)
_DOES = re.compile(rb"<\?xml-stylesheet|1999/xhtml|<(?:[a-z]{1,20}:)?script", re.IGNORECASE)
_IN_BODY = {
    **dict.fromkeys(("script", "redirect", "remote", "obfuscated"), "body_active"),
    **dict.fromkeys(("password_form", "form"), "body_form"),
}
_ACTIVE = (
    *("<script", "<input", "<form", "refresh", "<base", "<iframe", "<frame", "<object", "<embed", "<applet"),
    *("-ms:", "ms-", "script:", "jnlp:", "mk:@", "file:", "smb:", "shell:", "crumb", "data:text", "data:app", "\\\\"),
    *('href="data:', "href='data:", "href=data:"),
)
"""A body without any of these does nothing that is looked for."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is read of the pages of one mail."""

    pages: int = 50
    """Pages that are read, those in archives included."""

    size: int = 4_000_000
    """Octets that they may have together."""


class Filter:
    """Reads every page, one after another, within what one mail may cost."""

    stage: ClassVar[Stage] = Stage.MESSAGE
    codes: ClassVar[frozenset[str]] = frozenset(
        {"script", "smuggled", "password_form", "form", "redirect", "remote", "network_path", "launch", "obfuscated"}
        | {"body_active", "body_form", "unreadable"}
    )
    after: ClassVar[frozenset[str]] = frozenset()
    by_part: ClassVar[bool] = True

    def __init__(self, settings: Settings, payloads: Payloads) -> None:
        if min(settings.pages, settings.size) < 1:
            raise ValueError("html.pages and html.size must be at least 1")
        self._settings = settings
        self._payloads = payloads

    def check(self, mail: Mail, found: Found) -> Sequence[Finding]:  # noqa: ARG002  it reads no other filter
        """For each page at most one finding of each code."""
        bodies, pages = self._sorted(mail.content.parts)
        findings: list[Finding] = []
        room = self._settings.size
        for part in bodies:
            text = self._text(part, room)
            if _is_active(text):
                sights = _bounded(_of_body(text[:room], whole=len(text) <= room))
                findings += _told(part, self._handed_on(part, sights), body=True)
                room = max(0, room - len(text))
        for part in pages[: self._settings.pages]:
            octets = self._payloads.of(part, room + 1)
            sights = _of_page(part, octets[:room], whole=len(octets) <= room)
            findings += _told(part, self._handed_on(part, _bounded(sights)), body=False)
            room = max(0, room - len(octets))
        if len(pages) > self._settings.pages:
            findings.append(Finding("unreadable", f"more than {self._settings.pages} pages: the others are not read"))
        return findings

    def _handed_on(self, part: Part, sights: Iterator[Sight]) -> Iterator[Sight]:
        """*sights*; the files that they are about are added to the mail, each once."""
        seen: set[bytes] = set()
        for sight in sights:
            if sight.octets and sight.octets not in seen:
                seen.add(sight.octets)
                self._payloads.add(part, sight.file, sight.octets)
            if sight.code:
                yield sight

    def _text(self, part: Part, room: int) -> str:
        """The text of a body; that of a large one was shortened."""
        if part.size < LARGE:
            return part.text.replace("\0", "")
        return next(charset.readings(self._payloads.of(part, room + 1))).text

    def _sorted(self, parts: Sequence[Part]) -> tuple[list[Part], list[Part]]:
        """The bodies, and all other pages; each part once, though it has several names."""
        bodies: dict[str, Part] = {}
        pages: dict[str, Part] = {}
        names = {part.path: part.filename for part in parts if part.filename}
        for part in parts:
            if _is_body(part, bodies):
                bodies[part.path] = part
            elif part.path not in pages and self._is_page(part, names):
                pages[part.path] = part
        return list(bodies.values()), list(pages.values())

    def _is_page(self, part: Part, names: dict[str, str]) -> bool:
        """Whether a browser would open it. The files of an office document are for another filter to read."""
        name = _cleaned(part.filename).rstrip(" .\ufffd").lower()
        types = {part.media_type, part.sniffed}
        if part.media_type.startswith("message/") or name.endswith(".eml"):  # the parser has read these
            return False
        if types & _TYPES or part.media_type in _ARCHIVES or name.endswith(_SUFFIXES + _ARCHIVE_SUFFIXES):
            return not part.encrypted
        if not types & _XML and not name.endswith(_XML_SUFFIXES):
            return False
        if _DOCUMENTS.search(names.get(part.path.rpartition("/")[0], "")):
            return False
        return bool(_DOES.search(self._payloads.of(part, HEAD).replace(b"\0", b"")))


def prepare() -> None:
    """Load what could not be loaded later, when the process is confined."""
    charset.prepare()


def _is_body(part: Part, bodies: dict[str, Part]) -> bool:
    """The first HTML without a name in each multipart. Others may be attachments that only lack a name."""
    if part.media_type != "text/html" or part.filename or "/" in part.path or part.view:
        return False
    folder = part.path.rpartition(".")[0]
    return all(path.rpartition(".")[0] != folder for path in bodies)


def _is_active(text: str) -> bool:
    lower = text.lower()
    return any(mark in lower for mark in _ACTIVE)


def _of_body(text: str, *, whole: bool) -> Iterator[Sight]:
    if not whole:
        yield Sight("unreadable", "is larger than is read")
    yield from page.sights(text, Meter(READS * len(text) + HEAD * 64))


def _of_page(part: Part, octets: bytes, *, whole: bool) -> Iterator[Sight]:
    if not whole:
        yield Sight("unreadable", "is larger than is read")
    elif not octets and part.size:
        yield Sight("unreadable", "cannot be read")
    meter = Meter(READS * len(octets) + HEAD * 64)
    for one in _pieces(part, octets):
        if what := kind(one):
            if one is not octets:
                yield Sight("smuggled", f"holds {what}", octets=one)
            continue
        yield from _read(one, meter)


def _pieces(part: Part, octets: bytes) -> Iterator[bytes]:
    """The page itself, or those in a web archive."""
    named = part.media_type in _ARCHIVES or part.filename.lower().endswith(_ARCHIVE_SUFFIXES)
    if named or archive.is_archive(octets):
        yield from archive.parts(octets)
    else:
        yield octets


def _read(octets: bytes, meter: Meter) -> Iterator[Sight]:
    """What the page does in each reading; what only an odd reading shows is hidden."""
    plain: set[str] = set()
    for reading in charset.readings(octets):
        for sight in page.sights(reading.text, meter):
            if reading.hidden and sight.code not in plain:
                yield Sight("obfuscated", f"hides by {reading.hidden} what it does")
            plain.add(sight.code)
            yield sight


def _bounded(sights: Iterator[Sight]) -> Iterator[Sight]:
    try:
        yield from sights
    except Exhausted:
        yield Sight("unreadable", "takes longer to be read than is spent on one mail")


def _told(part: Part, sights: Iterator[Sight], *, body: bool) -> Iterator[Finding]:
    """One finding for each code, with the links that belong to it."""
    words: dict[str, dict[str, None]] = {}
    links: dict[str, dict[str, None]] = {}
    for sight in sights:
        code = _IN_BODY.get(sight.code, sight.code) if body else sight.code
        words.setdefault(code, {})[sight.words] = None
        if sight.link and len(some := links.setdefault(code, {})) < MAX_LINKS:
            some[f"link={_cleaned(sight.link)}"] = None
    title = "the HTML of the mail" if body else _named(part)
    for code, some in words.items():
        yield Finding(code, f"{title} {' and '.join([*some][:MAX_WORDS])}", part.path, tuple(links.get(code, ())))


def _cleaned(stranger: str) -> str:
    return "".join(one for one in stranger if one.isprintable()).strip()


def _named(part: Part) -> str:
    return "".join(one if one.isprintable() else "?" for one in part.filename[:100]) or "a page without a name"

"""Does a PDF of the mail do something when it is opened, or hold what nobody sees?

What links lead to is handed on in facts, for filters that know addresses. What opens without a password, or with one
that stands in the mail, is read like all else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import urlsplit

from filters import _ciphers
from filters._pdf.lexer import Meter
from filters._pdf.sights import Held, Link, Sight, sights
from gateway.model import Finding, Found, Mail, Part, Payloads, Stage

MAX_STEPS = 200_000
"""Values and places that are read in the PDFs of one mail; and seconds of CPU for them."""
SECONDS = 0.7
MAX_LINK = 480
"""Characters of a link that are handed on."""
MAX_WORDS = 3
"""Things that one finding names; and how many links at most are told apart."""
MAX_LINKS_SEEN = 2000

_TYPES = frozenset({"application/pdf", "application/x-pdf", "application/acrobat"})
_SUFFIXES = (".pdf", ".fdf", ".xfdf", ".pdx")
_PROGRAMS = (
    *(b"MZ", b"\x7fELF", b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe"),
    *(b"\xca\xfe\xba\xbe", b"L\0\0\0\x01\x14\x02\0", b"ITSF", b"#!"),
)
_INVISIBLE = re.compile("[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufffd]")


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is read, and what files inside a PDF are by their names. Suffixes begin with a dot."""

    files: int = 20
    """PDFs of one mail that are read."""

    size: int = 40_000_000
    """Octets that they may have together."""

    unpacked: int = 16_000_000
    """Octets that may be unpacked from them."""

    links: int = 40
    """Links of one PDF that are handed on."""

    programs: tuple[str, ...] = (
        *(".apk", ".bat", ".chm", ".cmd", ".com", ".cpl", ".dll", ".exe", ".hta", ".img", ".iso", ".jar", ".js"),
        *(".jse", ".lnk", ".msc", ".msi", ".pif", ".ps1", ".reg", ".scf", ".scr", ".settingcontent-ms", ".url"),
        *(".vbe", ".vbs", ".vhd", ".vhdx", ".wsf", ".wsh", ".xll"),
    )
    """Suffixes of files that run when they are opened."""

    data: tuple[str, ...] = (
        *(".xml", ".json", ".csv", ".txt", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".pdf", ".joboptions"),
    )
    """Suffixes of files that only hold data: electronic invoices hold their figures as XML."""


class Filter:
    """Reads every PDF, one after another, within what one mail may cost."""

    stage: ClassVar[Stage] = Stage.MESSAGE
    codes: ClassVar[frozenset[str]] = frozenset(
        {
            *("javascript", "automatic", "launch", "remote", "network_path", "embedded_program", "embedded_file"),
            *("encrypted", "password_in_mail", "unreadable", "links"),
        }
    )
    after: ClassVar[frozenset[str]] = frozenset()
    by_part: ClassVar[bool] = True

    def __init__(self, settings: Settings, payloads: Payloads) -> None:
        if wrong := [suffix for suffix in settings.programs + settings.data if not suffix.startswith(".")]:
            raise ValueError(f"a suffix begins with a dot, not so {wrong[0]!r}")
        if not 0 <= settings.links <= 40:
            raise ValueError("pdf.links must be from 0 to 40")
        if min(settings.files, settings.size, settings.unpacked) < 1:
            raise ValueError("pdf.files, pdf.size and pdf.unpacked must be at least 1")
        self._settings = settings
        self._payloads = payloads

    def check(self, mail: Mail, found: Found) -> Sequence[Finding]:  # noqa: ARG002  it reads no other filter
        """For each PDF at most one finding of each code."""
        files = [part for part in mail.content.parts if _is_pdf(part)]
        if not files:
            return []
        room, meter = self._settings.size, Meter(MAX_STEPS, self._settings.unpacked, SECONDS)
        findings: list[Finding] = []
        for part in files[: self._settings.files]:
            octets = self._payloads.of(part, room + 1)
            findings += self._of(part, octets, meter, room)
            room = max(0, room - len(octets))
        if len(files) > self._settings.files:
            findings.append(Finding("unreadable", f"more than {self._settings.files} PDFs: the others are not read"))
        return findings

    def _of(self, part: Part, octets: bytes, meter: Meter, room: int) -> Iterator[Finding]:
        words: dict[str, dict[str, None]] = {}
        if len(octets) > room:
            words["unreadable"] = {"is larger than is read": None}
        if part.size and not octets:
            words["unreadable"] = {"cannot be decoded": None}
        links: dict[str, None] = {}
        for one in sights(octets, meter, self._payloads.words):
            if isinstance(one, Link):
                if len(links) < MAX_LINKS_SEEN and (link := _cleaned(one.target)[:MAX_LINK]):
                    links[link] = None
                continue
            if isinstance(one, Held) and one.octets:
                self._payloads.add(part, _cleaned(one.name), one.octets)
            if sight := one if isinstance(one, Sight) else self._judged(one):
                words.setdefault(sight.code, {})[sight.words] = None
        for code, some in words.items():
            yield Finding(code, f"{_named(part)} {' and '.join([*some][:MAX_WORDS])}", part.path)
        if links and self._settings.links:
            yield self._links(part, list(links))

    def _judged(self, held: Held) -> Sight | None:
        """What the file that is *held* is; None where it holds data only."""
        name = _cleaned(held.name).rstrip(" .").lower()
        shown = f"the file {_cleaned(held.name)[:100]}" if name else "a file without a name"
        if held.octets.startswith(_PROGRAMS) or name.endswith(self._settings.programs):
            return Sight("embedded_program", f"holds {shown}, a program")
        return None if name.endswith(self._settings.data) else Sight("embedded_file", f"holds {shown}")

    def _links(self, part: Part, links: list[str]) -> Finding:
        """As many as may be, and those of one host behind those of others: each host is shown once at first."""
        seen: dict[str, int] = {}
        turns: list[int] = []
        for link in links:
            host = _host(link)
            seen[host] = seen.get(host, 0) + 1
            turns.append(seen[host])
        first = [link for _, link in sorted(zip(turns, links, strict=True), key=lambda pair: pair[0])]
        facts = tuple(f"link={link}" for link in first[: self._settings.links])
        return Finding("links", f"{_named(part)} has {len(links)} links", part.path, facts)


def prepare() -> None:
    """Load what could not be loaded later, when the process is confined."""
    _ciphers.prepare()


def _is_pdf(part: Part) -> bool:
    by_name = part.filename.rstrip(" .").lower().endswith(_SUFFIXES)
    return part.sniffed == "application/pdf" or part.media_type in _TYPES or by_name


def _host(link: str) -> str:
    try:
        return urlsplit(link).hostname or ""
    except ValueError:
        return ""


def _cleaned(stranger: str) -> str:
    return _INVISIBLE.sub("", stranger).strip()


def _named(part: Part) -> str:
    return _INVISIBLE.sub("?", part.filename)[:100] or "a PDF without a name"

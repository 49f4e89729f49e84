"""Does a shortcut of the mail start a command, or an appointment carry what does?

Shortcuts are read whatever their names say: Windows ones, and the small text files that other desktops and programs
follow. What appointments and cards attach, or lead to, is looked at likewise.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from filters._html.seen import kind
from filters._shortcuts import calendar, link
from gateway.model import Finding, Found, Mail, Part, Payloads, Stage

SIZE = 1 << 20
"""Octets of one file that are read; appointments with a file in them are longer than shortcuts."""
MAX_FILES = 50
MAX_LINK = 480
BEHIND = 16384
"""Octets that honest shortcuts do not have after their end."""
MAX_FOUND = 200

_WINDOWS = "application/x-ms-shortcut"
_TEXT_TYPES = frozenset({"application/x-url-shortcut", "application/internet-shortcut", "application/x-desktop"})
_TEXT_SUFFIXES = (
    *(".url", ".website", ".desktop", ".webloc", ".fileloc", ".inetloc", ".library-ms", ".search-ms", ".scf", ".theme"),
    *(".searchconnector-ms", ".settingcontent-ms", ".appref-ms", ".application", ".contact", ".themepack"),
)
_CALENDAR_TYPES = frozenset({"text/calendar", "text/vcard", "text/x-vcard", "text/x-vcalendar", "application/ics"})
_CALENDAR_SUFFIXES = (".ics", ".ical", ".ifb", ".vcs", ".vcf")
_LEADS = re.compile(
    r"(?:^|\n)[ \t]{0,20}(?:baseurl|url|iconfile|icon|workingdirectory|exec|tryexec|command|wallpaper|stylesheet)"
    r"[ \t]{0,20}=[ \t]{0,20}([^\r\n]{1,2000})"
    r"|<(?:[a-z]{1,20}:)?(?:url|deeplink|string|value|codebase)>\s{0,20}([^<]{1,2000})"
)
_SHARE = re.compile(r"\\\\(?!localhost\\)[^\\/\s]|file:/{2}(?!localhost)[^/\s]|file:/{4,}|smb:|(?<![:\w])//[\w.-]{3,}@")
_WEB = re.compile(r"(?:https?|ftp)://[^\s\"'<>]{1,2000}")
_STARTS = re.compile(
    r"(?:search-ms|ms-[a-z-]{2,30}|vbscript|javascript|jnlp|shell|mk|data|mhtml):|\.(?:hta|jse?|vbe?|wsf|lnk|exe)$"
)
_LOCAL = re.compile(r"file:|cid:|[a-z]:[\\/]")
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8")
"""How the portraits of cards begin."""
_PADDED = re.compile(r"\s{40}")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a shortcut must not start. Case does not matter, nor does ".exe" behind the name."""

    commands: tuple[str, ...] = (
        *("bash", "bitsadmin", "certutil", "cmd", "conhost", "cscript", "curl", "forfiles", "ftp", "hh", "installutil"),
        *("ie4uinit", "javaw", "msbuild", "mshta", "msiexec", "odbcconf", "pcalua", "powershell", "pwsh", "python"),
        *("regasm", "regsvr32", "rundll32", "schtasks", "scriptrunner", "ssh", "wmic", "wscript", "wsl"),
    )
    """Programs that run what they are given, or fetch what runs."""


class Filter:
    """Reads every shortcut and every appointment by itself."""

    stage: ClassVar[Stage] = Stage.MESSAGE
    codes: ClassVar[frozenset[str]] = frozenset({"command", "share", "starts", "carries", "address", "unreadable"})
    after: ClassVar[frozenset[str]] = frozenset()
    by_part: ClassVar[bool] = True

    def __init__(self, settings: Settings, payloads: Payloads) -> None:
        if wrong := [name for name in settings.commands if not re.fullmatch(r"[\w-]{1,40}", name)]:
            raise ValueError(f"a command is a name without folder and suffix, not so {wrong[0]!r}")
        words = "|".join(re.escape(name.lower()) for name in settings.commands)
        self._commands = re.compile(rf"(?<![\w.-])({words})(?![\w-])(?!\.(?!exe))" if words else r"(?!)")
        self._payloads = payloads

    def check(self, mail: Mail, found: Found) -> Sequence[Finding]:  # noqa: ARG002  it reads no other filter
        """For each file at most one finding of each code."""
        files = {part.path: part for part in mail.content.parts if _is_ours(part)}
        findings: dict[tuple[str, str], Finding] = {}
        for part in list(files.values())[:MAX_FILES]:
            for finding in self._of(part):
                findings.setdefault((finding.code, finding.part), finding)
        if len(files) > MAX_FILES:
            findings["", ""] = Finding("unreadable", f"more than {MAX_FILES} shortcuts: the others are not read")
        return list(findings.values())

    def _of(self, part: Part) -> Iterator[Finding]:
        octets = self._payloads.of(part, SIZE + 1)
        if not octets and part.size:
            yield _finding("unreadable", part, "cannot be read")
        elif octets.startswith(link.SIGNATURE):
            yield from self._of_windows(part, octets)
        elif _ends(part, _CALENDAR_SUFFIXES) or part.media_type in _CALENDAR_TYPES:
            yield from self._of_calendar(part, octets)
        elif kind(octets) in {"", "a shortcut"}:
            yield from self._of_text(part, octets)

    def _of_windows(self, part: Part, octets: bytes) -> Iterator[Finding]:
        try:
            shortcut = link.read(octets)
        except link.Torn:
            yield _finding("unreadable", part, "is a shortcut that breaks off")
            return
        if _PADDED.search(shortcut.arguments):
            yield _finding("command", part, "hides its arguments behind white space")
        if shortcut.behind > BEHIND:
            yield _finding("carries", part, "has another file behind its end")
        yield from self._lead(part, f"{shortcut.target} {shortcut.arguments}".lower())

    def _of_text(self, part: Part, octets: bytes) -> Iterator[Finding]:
        text = _text(octets)
        leads = (match[1] or match[2] for match, _ in zip(_LEADS.finditer(text), range(MAX_FOUND), strict=False))
        for lead in leads:
            yield from self._lead(part, lead.strip())

    def _of_calendar(self, part: Part, octets: bytes) -> Iterator[Finding]:
        if len(octets) > SIZE:
            yield _finding("unreadable", part, "is larger than is read")
        text = octets[:SIZE].replace(b"\0", b"").decode("latin-1")
        for entry in itertools.islice(calendar.entries(text), MAX_FOUND):
            if entry.octets and not entry.octets.startswith(_PICTURES):
                self._payloads.add(part, entry.file, entry.octets)
            yield from _of_entry(part, entry)

    def _lead(self, part: Part, text: str) -> Iterator[Finding]:
        """What *text*, in lower case, starts and leads to."""
        if match := self._commands.search(text):
            yield _finding("command", part, f"starts {match[1]}")
        if _SHARE.search(text):
            yield _finding("share", part, "leads to a share of files on the network")
        if _STARTS.match(text):
            yield _finding("starts", part, "starts a program by its address")
        if match := _WEB.search(text):
            yield _finding("address", part, "leads to the web", match[0])


def _of_entry(part: Part, entry: calendar.Entry) -> Iterator[Finding]:
    if entry.alarm:
        yield _finding("command", part, "has an alarm that starts a program")
    if (what := kind(entry.octets)) and what != "a document":
        yield _finding("carries", part, f"holds {what}")
    address = entry.address.lower()
    if _SHARE.match(address):
        yield _finding("share", part, "leads to a share of files on the network")
    elif _STARTS.match(address) or (_LOCAL.match(address) and not address.startswith("cid:")):
        yield _finding("starts", part, "has an address that starts something on the own machine")


def _is_ours(part: Part) -> bool:
    types = {part.media_type, part.sniffed}
    if part.encrypted:
        return False
    by_type = part.sniffed == _WINDOWS or types & (_TEXT_TYPES | _CALENDAR_TYPES)
    return bool(by_type) or _ends(part, (".lnk", *_TEXT_SUFFIXES, *_CALENDAR_SUFFIXES))


def _ends(part: Part, suffixes: tuple[str, ...]) -> bool:
    return _cleaned(part.filename).rstrip(" .\ufffd").lower().endswith(suffixes)


def _text(octets: bytes) -> str:
    """The characters of a small text file, in lower case; UTF-16 is read without its NUL octets."""
    return octets[:SIZE].replace(b"\0", b"").decode("latin-1").lower()


def _finding(code: str, part: Part, words: str, address: str = "") -> Finding:
    name = "".join(one if one.isprintable() else "?" for one in part.filename[:100]) or "a file without a name"
    facts = (f"link={_cleaned(address)[:MAX_LINK]}",) if address else ()
    return Finding(code, f"{name} {words}", part.path, facts)


def _cleaned(stranger: str) -> str:
    return "".join(one for one in stranger if one.isprintable())

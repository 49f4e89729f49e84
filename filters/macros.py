"""Does a document of the mail do something when it is opened: run macros, start programs, fetch what does?

The readers in `_office` say what each document does; here they are given every part that an office program would open,
files inside archives too, and what they say becomes findings. What they cannot read is a finding as well.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from filters import _ciphers
from filters._office import documents
from filters._office.seen import Inner, Meter, Sight, shown
from filters._office.vba import Calls
from gateway.model import Finding, Found, Mail, Part, Payloads, Stage

MAX_OCTETS = 64 << 20
"""Octets that one document may have."""
MAX_ALL_OCTETS = 256 << 20
MAX_FILES = 5000
MAX_STEPS = 2_000_000
MAX_ROUNDS = 500_000
"""What all documents of a mail may cost: octets, files, steps of some 0.2 microseconds, and rounds of hashing."""

_OPENED = {"application/x-ole-storage", "application/rtf", "application/onenote", "text/xml"}
_ZIP = "application/zip"
_CODECS = ("ascii", "cp437", "latin-1", "utf-8", "utf-16", "utf-16-be", "utf-16-le")
"""What the readers decode; cp437 is for names in zips."""
_BODIES = {"text/plain", "text/html"}
_SUFFIXES = {
    "text/csv": ".csv",
    "application/csv": ".csv",
    "application/vnd.ms-excel": ".xls",
    "application/msword": ".doc",
    "application/xml": ".xml",
}
"""What mail programs put behind a name that has no suffix, by the declared type."""
_PROGRAMS = ((".do", "Word"), (".rtf", "Word"), (".xl", "Excel"), (".pp", "PowerPoint"), (".one", "OneNote"))


@dataclass(frozen=True, slots=True)
class Settings:
    """What speaks against a macro, and what an embedded file must not be. Case does not matter."""

    calls: tuple[str, ...] = (
        *("Shell", "ShellExecute", "ShellExecuteA", "WScript", "CreateObject", "GetObject", "CallByName"),
        *("URLDownloadToFile", "URLDownloadToFileA", "XMLHTTP", "WinHttpRequest", "ADODB", "PowerShell", "cmd"),
        *("mshta", "rundll32", "regsvr32", "certutil", "bitsadmin", "schtasks", "Win32_Process", "RegWrite"),
        *("SaveToFile", "ExecuteExcel4Macro", "MacScript", "AppleScriptTask", "Environ", "SendKeys", "StrReverse"),
    )
    """Words of a macro that start programs, fetch files or hide what they do."""

    programs: tuple[str, ...] = (
        *(
            ".exe",
            ".com",
            ".scr",
            ".pif",
            ".cpl",
            ".dll",
            ".msi",
            ".bat",
            ".cmd",
            ".ps1",
            ".vbs",
            ".vbe",
            ".js",
            ".jse",
        ),
        *(
            ".wsf",
            ".wsh",
            ".hta",
            ".lnk",
            ".url",
            ".chm",
            ".jar",
            ".reg",
            ".iso",
            ".img",
            ".vhd",
            ".xll",
            ".sct",
            ".scf",
        ),
        *(".settingcontent-ms",),
    )
    """How the names of embedded files end that run when they are opened."""


class Filter:
    """Looks at every part by itself."""

    stage: ClassVar[Stage] = Stage.MESSAGE
    codes: ClassVar[frozenset[str]] = frozenset(
        {"macro", "macro_suspicious", "macro_auto", "macro_hidden", "xlm", "dde", "remote", "program", "exploit"}
        | {"encrypted", "password_in_mail", "unreadable"}
    )
    after: ClassVar[frozenset[str]] = frozenset()
    by_part: ClassVar[bool] = True

    def __init__(self, settings: Settings, payloads: Payloads) -> None:
        if wrong := [suffix for suffix in settings.programs if not suffix.startswith(".")]:
            raise ValueError(f"a suffix begins with a dot, not so {wrong[0]!r}")
        for name in _CODECS:
            codecs.lookup(name)  # which opens a file the first time, and later none can be opened
        programs = tuple(suffix.lower() for suffix in settings.programs)
        self._words = documents.Words(Calls.of(settings.calls), programs)
        self._payloads = payloads

    def check(self, mail: Mail, found: Found) -> Sequence[Finding]:  # noqa: ARG002  it reads no other filter
        """For each document what it does, each code once."""
        by_path = _by_path(mail.content.parts)
        meter = Meter(MAX_ALL_OCTETS, MAX_FILES, MAX_STEPS, MAX_ROUNDS, self._payloads.words)
        findings: dict[tuple[str, str], Finding] = {}
        for part in by_path.values():
            document = _document(part, by_path)
            for sight in self._of(part, by_path, meter):
                detail = f"{_title(document)} {sight.words}"
                findings.setdefault((sight.code, document.path), Finding(sight.code, detail, part.path))
        return list(findings.values())

    def _of(self, part: Part, by_path: Mapping[str, Part], meter: Meter) -> Iterator[Sight]:
        """What *part* does, if it is a document or a file in one."""
        if part.encrypted or not self._is_opened(part, by_path):
            return
        octets = self._payloads.of(part, MAX_OCTETS + 1)
        if (not octets and part.size) or len(octets) > MAX_OCTETS:
            yield Sight("unreadable", "cannot be read" if not octets else f"has more than {MAX_OCTETS} octets")
        else:
            for seen in documents.look(Inner(octets, _name(part)), self._words, meter):
                if isinstance(seen, Sight):
                    yield seen
                else:
                    self._payloads.add(part, seen.name, seen.octets)

    def _is_opened(self, part: Part, by_path: Mapping[str, Part]) -> bool:
        """Whether an office program would open it. What the parser unpacked is looked at file by file."""
        if part.sniffed == _ZIP:
            return documents.is_named(_name(part)) and not self._is_unpacked(part, by_path)
        if part.sniffed in _OPENED or documents.is_named(_name(part)):
            return True
        if "/" in part.path and part.filename.lower().endswith(".rels"):
            return True
        if documents.is_script(part.filename) and documents.is_named(_document(part, by_path).filename):
            return True
        if part.sniffed or (part.media_type in _BODIES and not part.filename):
            return False
        return documents.is_document(self._payloads.of(part, documents.MAX_HEAD), part.filename)

    def _is_unpacked(self, part: Part, by_path: Mapping[str, Part]) -> bool:
        """Whether the files in *part* are parts that can be read, or are locked, which is for others to tell."""
        inside = f"{part.path}/"
        members = [one for path, one in by_path.items() if path.startswith(inside) and one.size]
        readable = next((one for one in members if not one.encrypted), None)
        return bool(self._payloads.of(readable, 1)) if readable else bool(members)


def prepare() -> None:
    """Load what could not be loaded later, when the process is confined."""
    _ciphers.prepare()


def _by_path(parts: Sequence[Part]) -> dict[str, Part]:
    """Each part once, though it has several names: one that an office program opens, if there is one."""
    by_path: dict[str, Part] = {}
    for part in parts:
        if part.path not in by_path or documents.is_named(part.filename):
            by_path[part.path] = part
    return by_path


def _name(part: Part) -> str:
    """The name by which *part* is opened."""
    return part.filename if "." in part.filename else part.filename + _SUFFIXES.get(part.media_type, "")


def _document(part: Part, by_path: Mapping[str, Part]) -> Part:
    """The part that people see: the document that *part* is a piece of, or itself."""
    path = part.path
    while "/" in path:
        path = path.rpartition("/")[0]
        if (outer := by_path.get(path)) and outer.sniffed == _ZIP:
            return outer if documents.is_named(outer.filename) else part
    return part


def _title(document: Part) -> str:
    """The document in words: what program opens it, as far as its name says that, and its name."""
    suffix = document.filename.lower()[document.filename.rfind(".") :]
    program = next((f"{what} " for begin, what in _PROGRAMS if suffix.startswith(begin)), "")
    return f"the {program}file {shown(document.filename) or 'without a name'}"

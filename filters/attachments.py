"""Does the mail carry a file that runs when somebody opens it?

Names are read as a desktop reads them, and the first bytes count whatever the name says. Archives were opened by the
parser: their members are parts like any other.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from gateway.model import Finding, Found, Mail, Part, Stage

MAX_NAME = 255
"""Characters that a file name can have on a desktop; what stands behind them nobody sees."""

# An override turns the end of a name around: "gpj.exe" is shown as "exe.jpg" (CVE-2009-3376 and many since). The other
# bidirectional controls can do so too, but Hebrew and Arabic desktops put them into honest names.
_OVERRIDE = re.compile("[\u202d\u202e]")
_TURNED = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# Controls, and what has no width in any font (Unicode, Default_Ignorable_Code_Point): browsers leave it out of names.
_INVISIBLE = re.compile(
    "[\u0000-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\ufffd\U000e0000-\U000e0fff]"
)
_CUT = re.compile("[\u0000-\u001f\u007f-\u009f\ufffd]")  # the parser puts U+FFFD in the place of control characters
_PADDED = re.compile(r"\s{4,}\.\S{1,12}$")
_STREAM = re.compile(r"::\$data$")
"""What NTFS takes for the file itself."""
_SPACED = re.compile(r"\.\s+(?=\w{1,12}$)")
"""Where a folded header leaves a space, and some programs none."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What counts as able to run, by name and by first bytes. Suffixes begin with a dot; case does not matter."""

    suffixes: tuple[str, ...] = (
        *(".accda", ".accdb", ".accde", ".accdr", ".accdu", ".ade", ".adp", ".air", ".apk", ".app"),
        *(".appcontent-ms", ".appinstaller", ".applescript", ".application", ".appref-ms", ".appx", ".appxbundle"),
        *(".bas", ".bat", ".chm", ".cmd", ".cnt", ".com", ".command", ".cpl", ".crx", ".csh", ".deskthemepack"),
        *(".desktop", ".diagcab", ".diagcfg", ".diagpkg", ".dll", ".dmg", ".dqy", ".exe", ".fileloc", ".fxp"),
        *(".gadget", ".grp", ".hlp", ".hpj", ".hta", ".htc", ".img", ".inetloc", ".inf", ".ins", ".iqy", ".iso"),
        *(".isp", ".its", ".jar", ".jnlp", ".job", ".js", ".jse", ".ksh", ".library-ms", ".lnk", ".mad", ".maf"),
        *(".mag", ".mam", ".mar", ".mas", ".mau", ".mav", ".maw", ".mcf", ".mcl", ".mda", ".mdb", ".mde", ".mdt"),
        *(".mdw", ".mdz", ".mjs", ".mobileconfig", ".msc", ".msh", ".msh1", ".msh1xml", ".msh2", ".msh2xml"),
        *(".mshxml", ".msi", ".msix", ".msixbundle", ".msp", ".msrcincident", ".mst", ".msu", ".ocx", ".odc"),
        *(".ops", ".oqy", ".osd", ".pcd", ".pif", ".pkg", ".plg", ".prf", ".prg", ".printerexport", ".ps1"),
        *(".ps1xml", ".ps2", ".ps2xml", ".psc1", ".psc2", ".psd1", ".psm1", ".py", ".pyc", ".pyo", ".pyw", ".pyz"),
        *(".pyzw", ".rdp", ".reg", ".rqy", ".scf", ".scpt", ".scptd", ".scr", ".sct", ".search-ms"),
        *(".searchconnector-ms", ".settingcontent-ms", ".shb", ".shs", ".sys", ".terminal", ".theme"),
        *(".themepack", ".udf", ".udl", ".url", ".vb", ".vbe", ".vbp", ".vbs", ".vhd", ".vhdx", ".vsix"),
        *(".vsmacros", ".vsto", ".vsw", ".webloc", ".webpnp", ".website", ".wim", ".workflow", ".ws", ".wsc"),
        *(".wsf", ".wsh", ".xbap", ".xdp", ".xll", ".xnk", ".xpi"),
    )
    """Suffixes of files that run, install, mount, or start another program when they are opened."""

    types: tuple[str, ...] = (
        *("application/x-dosexec", "application/x-executable", "application/x-sharedlib", "application/x-mach-binary"),
        *("application/java-vm", "application/java-archive", "application/x-ms-shortcut", "application/x-url-shortcut"),
        *("application/x-vhd", "application/x-iso9660-image", "application/vnd.ms-htmlhelp", "text/x-wsf"),
    )
    """Media types that run, as the first bytes tell them."""

    declared: tuple[str, ...] = (
        *("application/hta", "application/x-msdownload", "application/x-msdos-program", "application/x-ms-installer"),
        *("application/x-msi", "application/bat", "application/x-bat", "application/x-sh", "application/x-csh"),
        *("application/x-perl", "application/x-python-code", "application/vnd.android.package-archive"),
        *("application/javascript", "application/x-javascript", "text/javascript", "text/jscript", "text/vbscript"),
        *("text/scriptlet", "application/x-ms-shortcut", "application/x-ms-application"),
        *("application/x-java-jnlp-file",),
    )
    """Declared types of what has no name: mail programs make one of the type ("ATT00001.hta")."""

    documents: tuple[str, ...] = (
        *(".pdf", ".doc", ".docx", ".xls", ".xlsx", ".ppt", ".pptx", ".odt", ".ods", ".rtf", ".txt", ".csv", ".eml"),
        *(".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".mp3", ".mp4", ".wav", ".htm", ".html"),
        *(".xml", ".zip", ".rar", ".7z", ".svg", ".ics", ".vcf", ".msg"),
    )
    """Suffixes that people open without a thought: a program behind one of them is disguised."""


class Filter:
    """Looks at every part by itself."""

    stage: ClassVar[Stage] = Stage.MESSAGE
    codes: ClassVar[frozenset[str]] = frozenset({"executable", "disguised"})
    after: ClassVar[frozenset[str]] = frozenset()
    by_part: ClassVar[bool] = True

    def __init__(self, settings: Settings) -> None:
        if wrong := [suffix for suffix in settings.suffixes + settings.documents if not suffix.startswith(".")]:
            raise ValueError(f"a suffix begins with a dot, not so {wrong[0]!r}")
        self._suffixes = tuple(suffix.lower() for suffix in settings.suffixes)
        self._documents = tuple(suffix.lower() for suffix in settings.documents)
        self._types = frozenset(kind.lower() for kind in settings.types)
        self._declared = frozenset(kind.lower() for kind in settings.declared)

    def check(self, mail: Mail, found: Found) -> Sequence[Finding]:  # noqa: ARG002  it reads no other filter
        """For each part what it does when it is opened."""
        return [finding for part in mail.content.parts for finding in self._of(part)]

    def _of(self, part: Part) -> Iterator[Finding]:
        if why := self._disguise(part):
            yield Finding("disguised", why, part.path)
        elif why := self._runs(part):
            yield Finding("executable", why, part.path)

    def _disguise(self, part: Part) -> str:
        """How *part* hides what it is, or ""."""
        name = _visible(part.filename)
        if _OVERRIDE.search(part.filename) or (_TURNED.search(part.filename) and self._is_runnable(name)):
            return f"{_named(part)} is written partly from right to left"
        if len(part.filename) > MAX_NAME:
            return f"{_named(part)} has a name too long to be read to its end"
        if any(self._is_runnable(_visible(piece)) for piece in _cut(part.filename)[:-1]):
            return f"{_named(part)} goes on behind a control character, where many programs see its end"
        if self._is_runnable(name) and (_PADDED.search(name) or self._is_document(name.rpartition(".")[0].rstrip())):
            return f"{_named(part)} has two suffixes"
        if self._runs_by_content(part) and (self._is_document(name) or _is_media(part.media_type)):
            return f"{_named(part)} is {part.sniffed}"
        return ""

    def _runs(self, part: Part) -> str:
        """Why *part* can run, or ""."""
        if self._is_runnable(_visible(part.filename)):
            return _named(part)
        if self._runs_by_content(part):
            return f"{_named(part)} is {part.sniffed}"
        is_declared = not part.filename and part.media_type in self._declared
        return f"{_named(part)} is declared as {part.media_type}" if is_declared else ""

    def _is_runnable(self, name: str) -> bool:
        return name.endswith(self._suffixes) or _SPACED.sub(".", name).endswith(self._suffixes)

    def _is_document(self, name: str) -> bool:
        return name.endswith(self._documents)

    def _runs_by_content(self, part: Part) -> bool:
        """Whether the first bytes are a program's. A text may begin with "MZ" too, but it has no NUL."""
        text_only = part.media_type.startswith("text/") and part.text != "" and "\0" not in part.text
        return part.sniffed in self._types and not text_only


def _visible(filename: str) -> str:
    """The name a desktop would open *filename* by: no folders, nothing invisible, no dots or spaces at its end."""
    path = filename.rstrip("/\\")
    base = re.split(r"[/\\]", path)[-1] if len(path) <= MAX_NAME else path[-MAX_NAME:]
    plain = _INVISIBLE.sub("", base)
    if not plain.isascii():  # wide letters and dots: where names have to be ASCII, Windows makes ASCII of them
        plain = unicodedata.normalize("NFKC", plain)
    return _STREAM.sub("", plain.lstrip(" \t\"'").rstrip(" .\t\"'").lower()).rstrip(" .")


def _cut(filename: str) -> list[str]:
    """*filename* cut at control characters. Programs that take NUL for its end see the first piece only."""
    return [piece for piece in _CUT.split(filename) if piece]


def _is_media(media_type: str) -> bool:
    return media_type.startswith(("image/", "audio/", "video/")) or media_type == "application/pdf"


def _named(part: Part) -> str:
    """The name of *part* for people: what is invisible is shown as "?"."""
    return _INVISIBLE.sub("?", part.filename)[:100] or "a part without a name"

"""What walks through one message have gathered: its parts, what is wrong with it, and what is left of the limits.

The rule: a file that stands in no MIME part of its own is a part like any other, and laid out as one that no scanner
sees.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO
from weakref import proxy

from gateway.model import Part
from gateway.pipeline import cms, embedded, openpgp, tnef
from gateway.pipeline.archives import Archives
from gateway.pipeline.mime import file_name, suffix
from gateway.pipeline.sniff import CMS, OPENED, PREFIX, TNEF, is_message, sniff
from gateway.pipeline.tray import Tray, Unscannable
from gateway.stages import Content as ContentPolicy

Limits = ContentPolicy.Settings
MAX_DEFECTS = 20
SIGNED = (".p7m", ".p7s", ".p7z")


@dataclass
class Gathered:
    """One for each message, whatever is encoded in it. `odd`: other programs may read it otherwise than we do."""

    limits: Limits
    tray: Tray
    message: Callable[[Gathered, bytes, str], None]
    """Walks a mail that was found in a file, into this."""
    parts: list[Part] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)
    ambiguities: list[str] = field(default_factory=list)
    odd: bool = False
    known: set[bytes] = field(default_factory=set)
    """What was seen so far of an odd mail, by `digest_of`."""
    taken: int = 0
    """Octets that were taken out of texts, winmail.dat and other readings so far."""

    _kinds: set[str] = field(default_factory=set)
    _told: int = 0

    def __post_init__(self) -> None:
        us = proxy(self)  # no circle: what a mail held is given back with it, not when somebody collects
        ambiguous, opens = partial(Gathered.ambiguous, us), partial(Gathered.opens, us)
        self.archives = Archives(self.limits, self.tray, self.parts, ambiguous, opens)

    def defect(self, words: str) -> None:
        """Something is malformed, so that others may read it otherwise."""
        self.odd = True
        if words not in self.defects and len(self.defects) < MAX_DEFECTS:
            self.defects.append(words)

    def ambiguous(self, words: str) -> None:
        """Readers may see what we do not; what we do see is looked at all the same."""
        self.odd = True
        if words not in self.ambiguities and len(self.ambiguities) < MAX_DEFECTS:
            self.ambiguities.append(words)

    def keep(self, part: Part) -> None:
        """One more part."""
        if len(self.parts) >= self.limits.parts + self.limits.archive_members:
            raise Unscannable(f"there are more than {self.limits.parts} parts")
        self.parts.append(part)

    def kinds(self) -> set[str]:
        """What the names of all parts so far end with."""
        self._kinds.update(suffix(part.filename) for part in self.parts[self._told :])
        self._told = len(self.parts)
        return self._kinds

    def file(self, name: str, octets: bytes, path: str, view: str = "") -> None:
        """A file that we took out of something, and what it holds in turn; *path* is that of what held it."""
        if path.count("/") > self.limits.archive_depth:
            raise Unscannable(f"files are nested more than {self.limits.archive_depth} deep")
        self.known.add(digest_of(octets))
        self.taken += len(octets)
        if self.taken > self.limits.archive_size:
            raise Unscannable(f"what is encoded in it holds more than {self.limits.archive_size} octets")
        name = file_name(name)
        part = Part(self.tray.free(f"{path}/{name}"), "", name, sniff(octets[:PREFIX]), len(octets), view=view)
        self.keep(part)
        self.tray.put(part.path, lambda most: octets[:most], unseen=True)
        if part.sniffed in OPENED or not view:
            self.opens(octets, part.path, name)
        self.archive(lambda: io.BytesIO(octets), part, [name])

    def archive(self, opened: Callable[[], BinaryIO], part: Part, names: Iterable[str]) -> None:
        """Look into what *part* holds, if it is an archive; *opened* gives it as a file. A body is none."""
        if any(names) or not part.media_type.startswith("text/"):
            self.archives.look(opened(), part)

    def opens(self, octets: bytes, path: str, name: str = "") -> None:
        """Look into a file that is no archive, if a mail program opens it: a mail, signed or not, or a winmail.dat."""
        sniffed = sniff(octets[:PREFIX])
        if sniffed == TNEF:
            self.tnef(octets, path)
        elif sniffed == CMS:
            self.cms(octets, path, name or path.rpartition("/")[2])
        elif openpgp.is_named(name or path):
            self.openpgp(octets, path, name or path.rpartition("/")[2])
        elif is_message(octets[:PREFIX]):
            self.message(self, octets, path)

    def text(self, text: bytes, path: str, name: str = "") -> None:
        """The files that stand in *text* itself; *name* is that of those without one."""
        for file in embedded.files(text, self.limits.archive_size):
            self.file(file.name or name, file.octets, path)
        for message in openpgp.armoured(text):
            self._openpgp(message, path, name)

    def uuencoded(self, body: bytes, path: str) -> None:
        """What *body*, declared as uuencoded, holds for those who need no line that begins it."""
        for octets in embedded.uudecoded(body):
            if digest_of(octets) not in self.known:
                self.file("", octets, path)

    def cms(self, message: bytes, path: str, name: str) -> None:
        """What a signed message holds: a mail, or the file of which it has the name, with an ending more."""
        try:
            octets = cms.content(message, self.limits.archive_size)
        except cms.Torn:
            self.ambiguous("a signed message (S/MIME) breaks off, or is none from some place on")
        except cms.Sealed:
            self.archives.amend(path, sealed=True)
        else:
            if octets:
                self.file(name[:-4] if name.lower().endswith(SIGNED) else "", octets, path)

    def openpgp(self, octets: bytes, path: str, name: str) -> None:
        """What OpenPGP messages in a file of that *name* hold, in armour or not."""
        for message in [*openpgp.armoured(octets)] or [octets]:
            self._openpgp(message, path, name)

    def _openpgp(self, message: bytes, path: str, name: str) -> None:
        """The files of a message: programs save each by the *name* without its ending, or by the one inside."""
        try:
            for file in openpgp.files(message, self.limits.archive_size):
                for title in dict.fromkeys(filter(None, (name[:-4], file.name))) or [""]:
                    self.file(title, file.octets, path)
        except openpgp.Torn:
            self.ambiguous("a message of OpenPGP breaks off, or is none from some place on")
        except openpgp.Sealed:
            self.archives.amend(path, sealed=True)

    def tnef(self, stream: bytes, path: str) -> None:
        """The files in a winmail.dat."""
        try:
            for file in tnef.files(stream):
                self.file(file.name, file.octets, path)
        except tnef.Torn:
            self.ambiguous("a winmail.dat breaks off, or is none from some place on")


def digest_of(octets: bytes) -> bytes:
    """Which octets these are, but for white space: readers differ on line ends, and that is no difference to people."""
    return hashlib.sha256(octets.translate(None, b" \t\r\n")).digest()

"""What the archives of one mail hold, as parts like any other. It runs in the confined child.

The rule: what an archive says of its files is never trusted; what exceeds a limit makes the mail `Unscannable`; a file
that nobody here can look into says so (`encrypted`, `unreadable`), and is never passed over as if it were not there.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from gateway.model import Part
from gateway.pipeline import kinds, libarchive, methods, openpgp, rar, zips
from gateway.pipeline.budget import Budget, Limits, where
from gateway.pipeline.kinds import Kind
from gateway.pipeline.mime import file_name
from gateway.pipeline.passwords import candidates
from gateway.pipeline.sniff import OPENED, PREFIX, is_message, sniff
from gateway.pipeline.tray import Tray, Unscannable

MOST_LOCKED = 10
"""Locked archives of one mail that passwords are tried on."""
HEADERS = "headers in the archive"
"""The view of readers that follow the headers before the files of a zip, not its directory."""

_SEEN_BY_SCANNERS = frozenset({methods.STORED, methods.DEFLATED, 9, methods.BZIP2})


@dataclass(frozen=True, slots=True)
class _Locked:
    """A file of a zip that needs a password: the `number`-th in the order in which they stand there."""

    archive: zips.Zip
    entry: zips.Entry
    number: int
    path: str
    depth: int


class Archives:
    """The archives of one mail, and what is left of their limits.

    *parts* is where their files are added; their octets are laid out on *tray*; *ambiguous* is told where readers
    differ; *opens* gets the octets and the path of each file that mail programs open.
    """

    def __init__(
        self,
        limits: Limits,
        tray: Tray,
        parts: list[Part],
        ambiguous: Callable[[str], None],
        opens: Callable[[bytes, str], None],
    ) -> None:
        self._budget = Budget(limits)
        self._tray = tray
        self._parts = parts
        self._ambiguous = ambiguous
        self._opener = opens
        self._depth = 0
        self._locked: deque[list[_Locked]] = deque()

    def look(self, file: BinaryIO, part: Part) -> None:
        """Look into *file*, which is what *part* holds, whatever it says that it is."""
        self._look(file, part, self._depth + 1)

    def _look(self, file: BinaryIO, part: Part, depth: int) -> None:
        found = kinds.of(file, part.sniffed, part.filename)
        if found:
            self._budget.archive(file.seek(0, 2), depth)
        before = len(self._parts)
        for kind in found:
            self._open(kinds.cut(file, kind), part, kind, depth)
        is_told = any(kind.certain for kind in found) or len(self._parts) > before
        if not is_told and kinds.is_named(part.filename) and kinds.is_binary(_first(file)):
            self.amend(part.path, unreadable="it has the name of an archive, and is of no kind that is known here")

    def _open(self, file: BinaryIO, part: Part, kind: Kind, depth: int) -> None:
        if kind.name == kinds.ZIP:
            self._zip(file, part, depth)
        elif kind.name in kinds.FORMS:
            for form in kinds.forms(file, kind):
                self._other(file, part, kind, form, depth)
        else:
            self.amend(part.path, unreadable=f"it is {kinds.CLOSED[kind.name]}, which nobody here can open")

    def unlock(self, texts: Iterable[str]) -> None:
        """Try the words of *texts* as passwords of what is locked; what opens is looked into like all else."""
        words: list[bytes] = candidates(texts) if self._locked else []
        for _ in range(MOST_LOCKED):
            if not self._locked:
                return
            locked = self._locked.popleft()
            smallest = min(locked, key=lambda one: one.entry.packed)
            for word in words:
                if self._budget.is_late():
                    return
                if smallest.archive.is_key(smallest.entry, word) and self._opens(locked, word):
                    break

    def _zip(self, file: BinaryIO, part: Part, depth: int) -> None:
        try:
            archive = self._read_zip(file, part, self._budget.members_left)
        except zips.TooMany:
            raise self._budget.too_many() from None
        except zips.Locked:
            self.amend(part.path, encrypted=True)
            return
        if archive.overlapping:
            raise Unscannable(f"the files of {where(part.path)} overlap")
        for words in archive.differences:
            self._ambiguous(f"{where(part.path)} can be read in two ways: {words}")
        self._budget.promise(sum(entry.size for entry in archive.entries))
        self._zip_entries(archive, part, depth)

    def _read_zip(self, file: BinaryIO, part: Part, most: int) -> zips.Zip:
        """By its directory; where that is broken, what can be found without it."""
        try:
            return zips.opened(file, most)
        except (zips.Broken, ValueError):
            self.amend(part.path, unreadable="it is a zip file without a directory that can be read")
            return zips.loose(file, most)

    def _zip_entries(self, archive: zips.Zip, part: Part, depth: int) -> None:
        locked: list[_Locked] = []
        rare: dict[int, str] = {}
        order = {id(entry): number for number, entry in enumerate(sorted(archive.entries, key=lambda e: e.offset))}
        for entry in archive.entries:
            path = self._zip_entry(archive, entry, part, depth)
            if entry.encrypted:
                locked.append(_Locked(archive, entry, order[id(entry)], path, depth))
            elif entry.method not in methods.UNPACKED:
                rare[order[id(entry)]] = path
        for entry in archive.hidden:
            self._zip_entry(archive, entry, part, depth, HEADERS)
        if rare:
            self._unpack(archive.file, rare, depth)
        if locked:
            self._locked.append(locked)

    def _zip_entry(self, archive: zips.Zip, entry: zips.Entry, part: Part, depth: int, view: str = "") -> str:
        """Add one file; what nobody here can unpack, or not without a password, only by its name. Return its path."""
        name = file_name(entry.name)
        path = self._path(part.path, name)
        new = Part(path, "", name, "", entry.size, entry.encrypted, view=view)
        if entry.encrypted or entry.folder:
            self._parts.append(new)
            return path
        try:
            first = self._budget.counted(archive.read(entry, PREFIX))
        except zips.Broken:
            self._parts.append(replace(new, unreadable="it is packed in a way that nobody here can unpack"))
            return path
        unseen = bool(view) or entry.method not in _SEEN_BY_SCANNERS
        link = first.decode("utf-8", "replace") if entry.link else ""
        new = replace(new, sniffed=sniff(first), link=file_name(link))
        self._tray.put(path, lambda most: _quietly(archive, entry, most), unseen=unseen)
        self._parts.append(new)
        if _is_opened(first, new.sniffed, [name]):
            whole = archive.read(entry, self._budget.octets_left + 1)
            self._within(self._budget.counted(whole), new, depth)
        return path

    def _other(self, file: BinaryIO, part: Part, kind: Kind, form: kinds.Form, depth: int) -> None:
        """What libarchive sees: it goes through the file once, so each octet is kept while the mail is in hand."""
        if _locked_by_header(file, kind.name):
            self.amend(part.path, encrypted=True)
            return
        if rar.is_locked(file):  # which libarchive does not notice
            self.amend(part.path, encrypted=True)
        found = False
        try:
            found = self._entries(file, part, form, depth)
            if not found and "raw" in form.formats:  # zeros pass for a tar without files
                found = self._entries(file, part, form._replace(formats=("raw",)), depth)
        except libarchive.Broken:
            if self._budget.is_late():
                raise self._budget.too_long(part.path) from None
            if kind.certain or self._parts[-1].path.startswith(f"{part.path}/"):
                self.amend(part.path, unreadable="it is an archive that cannot be read to its end")
        else:
            if not found and "raw" not in form.formats and kind.certain:
                self.amend(part.path, unreadable="it is an archive in which no file can be seen")

    def _entries(self, file: BinaryIO, part: Part, form: kinds.Form, depth: int) -> bool:
        """Add each file; whether there were any."""
        found = False
        bare = _names_of_packed(file, part)  # now: from here on the place in the file is libarchive's
        with libarchive.opened(file, *form[:2], None, self._budget.deadline, form.without) as entries:
            for entry in entries:
                self._entry(entry, bare if entry.bare else [entry.name], part, depth)
                found = True
        return found

    def _entry(self, entry: libarchive.Entry, names: list[str], part: Part, depth: int) -> None:
        path = self._path(part.path, file_name(names[0]))
        new = Part(path, "", file_name(names[0]), "", entry.size, entry.encrypted, link=file_name(entry.link))
        if entry.encrypted or entry.folder or entry.device:
            self._parts.append(
                replace(new, unreadable="it is a device or a folder, and some programs unpack a file" * entry.device)
            )
            return
        data, whole = self._taken(entry, part.path)
        new = replace(new, sniffed=sniff(data[:PREFIX]), size=len(data))
        if not whole:
            new = replace(new, unreadable="it cannot be unpacked to its end")
        self._tray.put(path, lambda most: data[:most], unseen=True)  # a scanner may stop before we do, or know less
        self._parts += [replace(new, filename=file_name(name)) for name in names]
        if _is_opened(data[:PREFIX], new.sniffed, names):
            self._within(data, new, depth)
        if not whole:
            raise libarchive.Broken  # reading on behind a failure is where libarchive 3.6 crashes

    def _taken(self, entry: libarchive.Entry, path: str) -> tuple[bytes, bool]:
        """What the entry holds, and whether that is all."""
        data = io.BytesIO()  # whose value is no copy
        try:
            while block := self._budget.counted(entry.read(libarchive.BLOCK)):
                data.write(block)
                self._budget.promise(len(block))
                if self._budget.is_late():
                    raise self._budget.too_long(path)
        except libarchive.Broken:
            return data.getvalue(), False
        return data.getvalue(), True

    def _unpack(self, file: BinaryIO, wanted: dict[int, str], depth: int, password: bytes | None = None) -> set[str]:
        """Have libarchive unpack the files of a zip at the numbers of *wanted*; return the paths that it could."""
        done = set()
        deadline = self._budget.deadline
        with suppress(libarchive.Broken), libarchive.opened(file, ("zip_seekable",), "", password, deadline) as entries:
            for path, entry in ((wanted[number], entry) for number, entry in enumerate(entries) if number in wanted):
                data, whole = self._taken(entry, path)
                if not whole:
                    break
                self._replace(path, data, depth, unlocked=password is not None)
                done.add(path)
        return done

    def _opens(self, locked: list[_Locked], password: bytes) -> bool:
        wanted = {one.number: one.path for one in locked}
        return bool(self._unpack(locked[0].archive.file, wanted, locked[0].depth, password))

    def _replace(self, path: str, data: bytes, depth: int, *, unlocked: bool) -> None:
        """What could not be looked into at first can be now. A scanner behind us still cannot."""
        sniffed = sniff(data[:PREFIX])
        self.amend(path, sniffed=sniffed, size=len(data), encrypted=False, unreadable="", unlocked=unlocked)
        self._tray.put(path, lambda most: data[:most], unseen=True)
        part = next(part for part in self._parts if part.path == path)
        if _is_opened(data[:PREFIX], sniffed, [part.filename]):
            self._within(data, part, depth)

    def _within(self, data: bytes, part: Part, depth: int) -> None:
        """What a file of an archive holds; archives in a mail in it are as deep as if they stood here."""
        if is_message(data[:PREFIX]) or part.sniffed in OPENED or openpgp.is_named(part.filename):
            before, self._depth = self._depth, depth
            self._opener(data, part.path)
            self._depth = before
        self._look(io.BytesIO(data), part, depth + 1)

    def amend(self, path: str, **changes: Any) -> None:
        """Change what is said of the part at *path*."""
        for number, part in enumerate(self._parts):
            if part.path == path:
                self._parts[number] = replace(part, **changes)

    def _path(self, container: str, name: str) -> str:
        """A path that no other part has; the member is counted."""
        self._budget.member(container)
        return self._tray.free(f"{container}/{name}")


def _is_opened(first: bytes, sniffed: str, names: Iterable[str]) -> bool:
    """Whether there is a program that opens a file that begins with *first*, and may see others in it."""
    held = sniffed in OPENED or is_message(first) or kinds.may_hold(first, sniffed, names)
    return bool(first) and (held or any(map(openpgp.is_named, names)))


def _first(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read(PREFIX)


def _locked_by_header(file: BinaryIO, kind: str) -> bool:
    """Whether not even names can be told: 7z and RAR can encrypt their headers too."""
    file.seek(0)
    head = file.read(32)
    if kind == "application/x-7z-compressed":  # 7zFormat.txt: the next header may be packed, and with AES
        at, size = int.from_bytes(head[12:20], "little"), int.from_bytes(head[20:28], "little")
        file.seek(min(32 + at, 1 << 62))
        header = file.read(min(size, 4096))
        return header[:1] == b"\x17" and b"\x06\xf1\x07\x01" in header
    return kind == "application/x-rar" and rar.is_nameless(file)


def _names_of_packed(file: BinaryIO, part: Part) -> list[str]:
    """The names of the one file that is packed without any around it: its container's, and what gzip remembers."""
    stem = part.filename.rpartition(".")[0] or "data"
    file.seek(0)
    head = file.read(PREFIX)
    if head[:2] != b"\x1f\x8b" or not head[3:4] or not head[3] & 8:
        return [stem]
    start = 12 + int.from_bytes(head[10:12], "little") if head[3] & 4 else 10  # RFC 1952 2.3
    remembered = head[start:].partition(b"\0")[0].decode("latin-1")
    return list(dict.fromkeys(name for name in (stem, remembered) if name))


def _quietly(archive: zips.Zip, entry: zips.Entry, most: int) -> bytes:
    try:
        return archive.read(entry, most)
    except zips.Broken:
        return b""

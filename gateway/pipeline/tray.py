"""What the parts of one mail hold: laid out by the parser, for the pure filters to look into. In the confined child.

The rule: nothing is decoded before somebody asks, and what was decoded last is kept, for filters ask one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from gateway.model import Part
from gateway.pipeline.passwords import candidates

Source = Callable[[int], bytes]
"""Gives at most so many octets."""


class Unscannable(Exception):
    """A limit of the parser is exceeded. The text says which, in our words."""


class Taken(NamedTuple):
    """A file that a filter found inside the part at `path`."""

    path: str
    name: str
    octets: bytes


class Tray:
    """`gateway.model.Payloads`, by the paths of parts."""

    def __init__(self) -> None:
        self._sources: dict[str, Source] = {}
        self._names: dict[str, int] = {}
        self.unseen: list[str] = []
        """Paths of the parts that a scanner would not see in the message as it is, in order, each once."""
        self.texts: Sequence[str] = ()
        """Where people would look for a password: subject and bodies."""
        self._taken: list[Taken] = []
        self._last: tuple[str, int, bytes] = ("", 0, b"")

    def free(self, path: str) -> str:
        """*path*, or one like it: no file that was taken out of something has it, or gets it any more."""
        free = path
        while free in self._names:
            self._names[path] += 1
            free = f"{path} ({self._names[path]})"
        self._names[free] = 1
        return free

    def put(self, path: str, source: Source, *, unseen: bool = False) -> None:
        """Lay out the part at *path*; the first one of that path stays."""
        if path not in self._sources:
            self._sources[path] = source
            self.unseen += [path] * unseen

    def hide(self, path: str) -> None:
        """Say of the part at *path* that a scanner may not see it in the message as it is."""
        if path in self._sources and path not in self.unseen:
            self.unseen.append(path)

    def of(self, part: Part, most: int) -> bytes:
        """At most *most* octets of *part*; none where it was not laid out."""
        path, size, octets = self._last
        if path != part.path or (size < most and len(octets) == size):
            source = self._sources.get(part.path)
            octets = source(most) if source else b""
            self._last = part.path, most, octets
        return octets[:most]

    def words(self) -> Sequence[bytes]:
        """Words of the mail that may be a password, the likely ones first."""
        return candidates(self.texts)

    def add(self, part: Part, name: str, octets: bytes) -> None:
        """A file that was found inside *part*; whoever walks the mail fetches it by `taken`."""
        self._taken.append(Taken(part.path, name, octets))

    def taken(self) -> Sequence[Taken]:
        """What was added since this was asked last."""
        taken, self._taken = self._taken, []
        return taken

    def clear(self) -> None:
        """Forget the mail."""
        self._sources.clear()
        self._names.clear()
        self.unseen.clear()
        self.texts = ()
        self._taken.clear()
        self._last = ("", 0, b"")

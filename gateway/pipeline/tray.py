"""What the parts of one mail hold: laid out by the parser, for the pure filters to look into. In the confined child.

The rule: nothing is decoded before somebody asks, and what was decoded last is kept, for filters ask one after another.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.model import Part

Source = Callable[[int], bytes]
"""Gives at most so many octets."""


class Unscannable(Exception):
    """A limit of the parser is exceeded. The text says which, in our words."""


class Tray:
    """`gateway.model.Payloads`, by the paths of parts."""

    def __init__(self) -> None:
        self._sources: dict[str, Source] = {}
        self._names: dict[str, int] = {}
        self.unseen: list[str] = []
        """Paths of the parts that a scanner would not see in the message as it is, in order, each once."""
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

    def clear(self) -> None:
        """Forget the mail."""
        self._sources.clear()
        self._names.clear()
        self.unseen.clear()
        self._last = ("", 0, b"")

"""The messages of one session and which of them are marked as deleted. Numbers never change within a session."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol


class Entry(Protocol):
    """One message as the dialog needs to see it: its unique id (RFC 1939 7) and its size in octets."""

    @property
    def uid(self) -> str: ...

    @property
    def size(self) -> int: ...


class Maildrop:
    """What STAT, LIST, UIDL, DELE and RSET talk about. `count` and `octets` leave out what is marked."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries
        self._marked: set[int] = set()
        self._whole = sum(entry.size for entry in entries)
        self.octets = self._whole

    @property
    def count(self) -> int:
        """How many messages are not marked."""
        return len(self._entries) - len(self._marked)

    @property
    def marked(self) -> tuple[int, ...]:
        """The numbers of the messages to delete, in order."""
        return tuple(sorted(self._marked))

    def entry(self, number: int) -> Entry | None:
        """Message *number*, from 1; None where there is none or it is marked."""
        if not 1 <= number <= len(self._entries) or number in self._marked:
            return None
        return self._entries[number - 1]

    def entries(self) -> Iterator[tuple[int, Entry]]:
        """All messages that are not marked, with their numbers."""
        return ((n, entry) for n, entry in enumerate(self._entries, 1) if n not in self._marked)

    def mark(self, number: int) -> bool:
        """Mark message *number* as deleted; False where there is none."""
        entry = self.entry(number)
        if entry is None:
            return False
        self._marked.add(number)
        self.octets -= entry.size
        return True

    def reset(self) -> None:
        """Take all marks back."""
        self._marked.clear()
        self.octets = self._whole

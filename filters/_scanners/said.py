"""What is given to a scanner, and what it can say: the words that all engines share.

The rule: an engine says one of four things, or `Failed` why it says none.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import socket
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple, Protocol

CHUNK = 64 << 10
"""Octets that are held in memory at a time."""

CODES = frozenset({"clean", "infected", "encrypted", "unscanned"})
"""What an engine can say: nothing bad in it, something bad, nobody can look into it, not all of it was looked at."""

MAX_NAME = 100

_TURN = 16
"""Chunks that are hashed at a time: about a millisecond's work."""


class Said(NamedTuple):
    """What an engine said: one of `CODES`, the name it gives to what it found, and its own words, made harmless."""

    code: str
    name: str = ""
    answer: str = ""


class Version(NamedTuple):
    """Program and signatures in its own words. `label` names exactly these; empty where the words do not tell."""

    words: str = ""
    label: str = ""


class Failed(Exception):
    """An engine could not tell. The text says why."""


class Unreadable(Exception):
    """What is to be scanned cannot be read; no engine is to blame."""


class Refused(Failed):
    """An engine could not tell about these octets, and is well."""


@dataclass(slots=True)
class Octets:
    """The octets of a file from `start` to `end`, or to its end. `open` opens it anew, at its start."""

    open: Callable[[], BinaryIO]
    start: int = 0
    end: int | None = None
    _digest: str = ""
    _hashing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def pieces(self) -> Generator[bytes, None, None]:
        """All of them in order, `CHUNK` at a time. `Unreadable` where they cannot be read, or are fewer."""
        at, end = self.start, self.end
        with self._opened() as file:
            while end is None or at < end:
                piece = _read(file, CHUNK if end is None else min(CHUNK, end - at))
                if not piece:
                    break
                at += len(piece)
                yield piece
        if end is not None and at < end:
            raise Unreadable("what was taken out of the mail is not whole")

    def _opened(self) -> BinaryIO:
        try:
            file = self.open()
            if self.start:
                file.seek(self.start)
        except OSError as error:
            raise Unreadable(why(error)) from error
        return file

    async def digest(self) -> str:
        """Their SHA-256 in hexadecimal digits, reckoned once, however many engines ask for it at a time."""
        async with self._hashing:
            self._digest = self._digest or await self._hashed()
        return self._digest

    async def _hashed(self) -> str:
        """Their SHA-256; others have their turn meanwhile."""
        hashed = hashlib.sha256()
        with closing(self.pieces()) as pieces:
            for number, piece in enumerate(pieces, 1):
                hashed.update(piece)
                if number % _TURN == 0:
                    await asyncio.sleep(0)
        return hashed.hexdigest()


def _read(file: BinaryIO, size: int) -> bytes:
    try:
        return file.read(size)
    except OSError as error:
        raise Unreadable(why(error)) from error


class Engine(Protocol):
    """One scanner at one place, as it is `written` in the policy. Deadlines are times of the event loop."""

    written: str

    async def version(self, deadline: float) -> Version: ...
    async def scan(self, octets: Octets, deadline: float) -> Said: ...


def name_of(text: str) -> str:
    """The name of what was found, made harmless."""
    return re.sub(r"[^A-Za-z0-9._:/()+-]", "?", text[:MAX_NAME])


def shown(text: str) -> str:
    """A scanner's words, printable and short."""
    return re.sub(r"[^\x20-\x7e]", "?", text[:200])


def why(error: OSError) -> str:
    """What *error* means, in a few words."""
    if isinstance(error, TimeoutError):
        return "took too long"
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    return os.strerror(error.errno) if error.errno else shown(str(error) or type(error).__name__)

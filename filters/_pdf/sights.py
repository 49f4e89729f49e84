"""What a PDF does, or holds, as far as its reader does not see it on the page: what mail is judged by."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from filters._pdf.document import HEADER, Document, Place
from filters._pdf.lexer import Meter, Name, Reference, Unreadable, Value, text

MAX_NEXT = 8
"""Actions that follow each other."""
MAX_FORM = 4 << 20


@dataclass(frozen=True, slots=True)
class Sight:
    """Something that the file does. `words` go on where "the file" began."""

    code: str
    words: str


@dataclass(frozen=True, slots=True)
class Link:
    """Where a click leads, as it stands there."""

    target: str


@dataclass(frozen=True, slots=True)
class Held:
    """A file inside: its name, "" where none is seen, and its octets, b"" where they cannot be read."""

    name: str
    octets: bytes


Seen = Iterator[Sight | Link | Held]

_ACTIONS = {
    "JavaScript": Sight("javascript", "has JavaScript"),
    "Launch": Sight("launch", "starts another program"),
    "GoToR": Sight("remote", "opens another file"),
    "GoToE": Sight("remote", "opens a file that is inside another"),
    "SubmitForm": Sight("remote", "sends away what is filled in"),
    "ImportData": Sight("remote", "fills itself in from another file"),
}
_ACTIVE = frozenset({*_ACTIONS, "URI"})
# What happens without a click (ISO 32000-1, 12.6.3): a page or an annotation comes into view, the pointer passes, the
# document is closed, saved or printed. Not what a form does while it is filled in: K, F, V, C, Fo, Bl, D and U.
_EVENTS = frozenset({"O", "PO", "PC", "PV", "PI", "E", "X", "WC", "WS", "DS", "WP", "DP"})
_SCRIPT = re.compile(rb"<(?:[\w.-]+:)?script[\s>]", re.IGNORECASE)
_NETWORK = re.compile(r"\\\\[^\\/]|(?i:file:)(?://|/{4,})[^/\\]")
_SHARE = re.compile(r"[\\/]{2}[^\\/]|(?i:file:)(?://|/{4,})[^/\\]")


def sights(data: bytes, meter: Meter, words: Callable[[], Sequence[bytes]] = tuple) -> Seen:
    """What is seen of *data*; nothing where it is no PDF. What cannot be read is `unreadable`, and the rest is seen.

    *words* gives what may be the password.
    """
    if b"%PDF-" not in data[:HEADER] and b"obj" not in data:
        return
    try:
        yield from _Reading(Document(data, meter, words)).seen()
    except Unreadable as error:
        yield Sight("unreadable", str(error))


class _Reading:
    """One document, read once."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._keys = list(document.keys())
        self._encrypted = document.locked and not document.ring

    def seen(self) -> Seen:
        if self._document.locked:
            yield Sight("encrypted", "is encrypted")
        if any(key.in_mail for key in self._document.ring):
            yield Sight("password_in_mail", "opens with a password that stands in the mail")
        if not self._encrypted:
            yield from (Sight("unreadable", words) for words in self._document.faults)
        for key, place in self._keys:
            yield from self._at(key, place)
        if not any(key == "EF" for key, _ in self._keys) and any(key == "EmbeddedFile" for key, _ in self._keys):
            yield Held("", b"")

    def _at(self, key: str, place: Place) -> Seen:
        """What the name *key* means, with what stands behind it."""
        if key in _ACTIONS:
            yield _ACTIONS[key]
        if key == "JavaScript" and isinstance(self._document.value(place), Reference | dict):
            yield Sight("automatic", "has JavaScript for the whole document")  # 7.7.4: run when it is opened
        elif key in {"URI", "F", "UF"}:
            yield from self._target(key, place)
        elif key in {"OpenAction", "AA"}:
            yield from self._automatic(key, place)
        elif key == "Rendition" and "JS" in self._document.around(place):
            yield _ACTIONS["JavaScript"]
        elif key == "EF":
            yield from self._files(place)
        elif key == "XFA":
            yield from self._form(place)

    def _target(self, key: str, place: Place) -> Seen:
        """What an address or a file specification leads to."""
        for value in self._values(place):
            target = text(value.get("Base") if isinstance(value, dict) else value)
            if not target:
                continue
            if (_NETWORK if key == "URI" else _SHARE).match(target.strip()):
                yield Sight("network_path", "leads to a file on a computer in the network")
            if target.strip().lower().startswith("javascript:"):
                yield _ACTIONS["JavaScript"]
            if key == "URI" or "://" in target:
                yield Link(target)

    def _values(self, place: Place) -> Sequence[Value]:
        return self._document.meant(self._document.value(place))

    def _automatic(self, key: str, place: Place) -> Seen:
        for value in self._values(place):
            events = [value]
            if key == "AA":
                events = [value[event] for event in value if event in _EVENTS] if isinstance(value, dict) else []
            for action in events:
                if kind := self._does(action, MAX_NEXT):
                    yield Sight("automatic", f"does something without a click ({kind})")

    def _does(self, action: Value, more: int) -> str:
        """The kind of *action*, or of one that follows it, that is more than to show another page; "" where none is."""
        for one in self._document.meant(action) if more else ():
            if not isinstance(one, dict):
                continue
            kind = one.get("S")
            if isinstance(kind, Name) and (kind in _ACTIVE or (kind == "Rendition" and "JS" in one)):
                return kind
            following = one.get("Next")
            for another in following if isinstance(following, list) else [following]:
                if found := self._does(another, more - 1):
                    return found
        return ""

    def _files(self, place: Place) -> Seen:
        """The file that a specification holds (7.11.4): its name stands beside, its octets in a stream."""
        specification = self._document.around(place)
        name = text(specification.get("UF")) or text(specification.get("F"))
        for value in self._values(place):
            for reference in value.values() if isinstance(value, dict) else ():
                yield from self._file(name, reference)

    def _file(self, name: str, reference: Value) -> Seen:
        found = False
        for octets in self._streams(reference, self._document.meter.octets + 1):
            found = True
            yield Held(name, octets)
        if not found:
            yield Held(name, b"")

    def _form(self, place: Place) -> Seen:
        """XFA forms are XML, whole or in pieces (12.7.8)."""
        for value in self._values(place):
            for piece in [self._document.value(place), *(value if isinstance(value, list) else [])]:
                if any(_SCRIPT.search(form) for form in self._streams(piece, MAX_FORM)):
                    yield Sight("javascript", "has a form with scripts")

    def _streams(self, reference: Value, most: int) -> Iterator[bytes]:
        """Every version of a stream; where nothing opens the file, as if it only said that it is encrypted."""
        try:
            yield from (found for found in self._document.stream(reference, most) if found)
        except Unreadable:
            if not self._encrypted:
                raise

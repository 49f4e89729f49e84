"""What any reader could come to see of a PDF: its octets, those of its object streams, and where objects stand.

Object streams are found by what they say that they are, and by how they begin. Older versions of an object, which an
incremental update leaves in place, count like the last one.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from filters._pdf import crypt, streams
from filters._pdf.lexer import (
    REGULAR,
    SKIPPED,
    Lexer,
    Meter,
    Name,
    Reference,
    String,
    Unreadable,
    Value,
    holder,
    name,
    number,
    occurrences,
)

HEADER = 1024
"""Octets in which readers look for a header (annex H.3)."""
MAX_OBJECT_STREAM = 4 << 20
MAX_VERSIONS = 4
"""Places of one number that are looked at."""
MAX_FRONT = 1 << 18
"""Octets in front of an object stream that say which objects it holds, and where."""
_PEEKED = 256

_KEYS = (
    *("JavaScript", "Rendition", "Launch", "GoToR", "GoToE", "SubmitForm", "ImportData", "OpenAction", "AA", "URI"),
    *("Encrypt", "EmbeddedFile", "EF", "ObjStm", "First", "XFA"),
)
# A name is a solidus and what follows; any octet of it may be written as #xx. Of file specifications, which are many,
# only those that are strings are looked at.
_SEEN = re.compile(
    rb"/(?:(" + "|".join(_KEYS).encode() + rb")(?!" + REGULAR + rb")|(U?F)(?=[\0\t\n\f\r ]{0,64}+(?:[(%]|<(?!<)))"
    rb"|(" + REGULAR[:2] + rb"#" + REGULAR[2:] + rb"{0,40}+#" + REGULAR + rb"{1,120}))"
)
_WANTED = frozenset({*_KEYS, "F", "UF"})
_OBJECT = re.compile(rb"obj(?<!endobj)")
_NUMBERED = re.compile(rb"(\d{1,10})" + SKIPPED + rb"(\d{1,5})" + SKIPPED + rb"$")
_IDENTIFIER = re.compile(rb"/(?:I|#49)(?:D|#44)(?=" + SKIPPED + rb"[\[\d])")
_STREAM = re.compile(rb"stream(?<!endstream)\r?\n?(?=[\x08\x18\x28\x38\x48\x58\x68\x78])")
_PAIRS = re.compile(rb"\s*+(?:\d+\s++\d+\s*+)+(?:$|[<\[(/%])")
_FRONT = re.compile(rb"[\d\s]*+")
_INTEGERS = re.compile(rb"\d{1,10}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands: a position in one of the views of a document."""

    view: bytes
    position: int


@dataclass(slots=True)
class Document:
    """The octets of a file; `views` are they themselves and what its object streams hold, as far as `meter` allows."""

    data: bytes
    meter: Meter
    words: Callable[[], Sequence[bytes]] = tuple
    """Gives what may be the password."""
    views: list[bytes] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What could not be read, in our words."""
    locked: bool = False
    """Whether it says that it is encrypted, and nothing opens it."""
    ring: list[crypt.Key] = field(default_factory=list)
    """What opens it. Whoever can say that it is encrypted can lie: what is read with a key is read without one, too."""
    _firsts: list[int] = field(default_factory=lambda: [0])
    """For each view where the first of its objects stands, 0 where that is not said."""
    _objects: dict[int, list[Place]] = field(default_factory=dict)
    _known: set[int] = field(default_factory=set)
    _seen: list[tuple[str, int]] = field(default_factory=list)
    """Names that may matter, in the octets of the file itself."""
    _marks: list[tuple[int, int, int]] = field(default_factory=list)
    """Where each object of the file begins, its number and its generation."""

    def __post_init__(self) -> None:
        self.views.append(self.data)
        self._seen = list(self._keys_in(self.data))
        for lock in self._locks():
            self._try(lock)
        for start, dictionary in self._object_streams():
            self._open(start, dictionary)

    def keys(self) -> Iterator[tuple[str, Place]]:
        """Each name that may matter, and the place behind it."""
        for key, position in self._seen:
            yield key, Place(self.data, position)
        for view in self.views[1:]:
            for key, position in self._keys_in(view):
                yield key, Place(view, position)

    def value(self, place: Place) -> Value:
        """The value at *place*."""
        return self._cleared(Lexer(place.view, place.position, self.meter).value(), place)

    def around(self, place: Place) -> dict[str, Value]:
        """The dictionary that holds what stands at *place*."""
        found = holder(place.view, place.position, self.meter)[0]
        return {key: self._cleared(value, place) for key, value in found.items()}

    def meant(self, value: Value) -> list[Value]:
        """*value*, or every version of the object that it refers to."""
        if not isinstance(value, Reference):
            return [value]
        return [self.value(place) for place in self._places(value.number)]

    def stream(self, value: Value, most: int) -> Iterator[bytes]:
        """At most *most* octets of every version of the stream that *value* refers to."""
        for place in self._places(value.number) if isinstance(value, Reference) else ():
            lexer = Lexer(place.view, place.position, self.meter)
            dictionary = lexer.value()
            start = streams.beginning(place.view, lexer.position)
            if start >= 0 and isinstance(dictionary, dict):
                yield from self._unpacked(start, dictionary, most)

    def _unpacked(self, start: int, dictionary: dict[str, Value], most: int) -> Iterator[bytes]:
        """At most *most* octets of the stream at *start*, in each reading."""
        faults: list[Unreadable] = []
        for data, begin in self._readings(start):
            try:
                found = streams.unpacked(data, begin, dictionary, min(most, self.meter.octets + 1))
            except Unreadable as error:  # which may be so of one reading alone
                faults.append(error)
                continue
            self.meter.unpacked(len(found))
            yield found
        if len(faults) == 1 + sum(len(key.streams) for key in self.ring):
            raise faults[0]

    def _readings(self, start: int) -> Iterator[tuple[bytes, int]]:
        """What the stream at *start* is with each key, and without one: octets, and where in them it begins."""
        for key in self.ring:
            end = self.data.find(b"endstream", start, start + 2 * streams.MAX_PACKED)
            octets = self.data[start : end if end >= 0 else len(self.data)]
            for clear in key.stream(octets, self._object_at(start)):
                self.meter.unpacked(len(octets))
                yield clear, 0
        yield self.data, start

    def _cleared(self, value: Value, place: Place) -> Value:
        """*value* with its strings decrypted. Those in object streams were, together with all that is in those."""
        if not (self.ring or self.locked) or place.view is not self.data:
            return value
        if isinstance(value, dict):
            return {key: self._cleared(one, place) for key, one in value.items()}
        if isinstance(value, list):
            return [self._cleared(one, place) for one in value]
        return self._clear(value, place.position) if isinstance(value, String) else value

    def _clear(self, string: String, position: int) -> bytes:
        """The first reading of *string* that is text: as it stands, or with a key; b"" where nothing opens it."""
        object_ = self._object_at(position)
        readings = [string, *(key.string(string, object_) for key in self.ring)]
        return next((one for one in readings if crypt.is_text(one)), readings[-1] if self.ring else b"")

    def _locks(self) -> Iterator[dict[str, Value] | None]:
        """Each dictionary that says how the file is encrypted; None for one that cannot be found."""
        for key, position in self._seen:
            value = Lexer(self.data, position, self.meter).value() if key == "Encrypt" else b""
            if isinstance(value, dict):
                yield value
            elif isinstance(value, Reference):
                for one in self._meant_in_file(value) or [None]:
                    yield one if isinstance(one, dict) else None

    def _try(self, lock: dict[str, Value] | None) -> None:
        try:
            key = self._key(lock)
        except Unreadable as error:
            self.faults.append(str(error))
            return
        if key is None:
            self.locked = True
        elif key not in self.ring:
            self.ring.append(key)

    def _key(self, lock: dict[str, Value] | None) -> crypt.Key | None:
        if lock is None:
            raise Unreadable("has a lock that cannot be found")
        for identifier in self._identifiers():
            self.meter.tick()
            if key := crypt.key(lock, identifier, self.words()):
                return key
        return None

    def _identifiers(self) -> list[bytes]:
        """What may be the first half of the file's identifier (14.4); b"" is that of a file without one."""
        found: dict[bytes, None] = {}
        for match in occurrences(_IDENTIFIER, self.data, self.meter):
            for value in self._meant_in_file(Lexer(self.data, match.end(), self.meter).value()):
                if isinstance(value, list) and value and isinstance(value[0], bytes):
                    found[value[0]] = None
            if len(found) > MAX_VERSIONS:
                raise Unreadable("has more identifiers than are tried")
        return [*found, b""]

    def _meant_in_file(self, value: Value) -> list[Value]:
        """*value*, or the last versions of what it refers to, before object streams are read."""
        if not isinstance(value, Reference):
            return [value]
        places = [at for at, number_, _ in self._objects_of_file() if number_ == value.number][-MAX_VERSIONS:]
        return [Lexer(self.data, at, self.meter).value() for at in places]

    def _object_at(self, position: int) -> tuple[int, int]:
        """Number and generation of the object of the file that *position* is in."""
        marks = self._objects_of_file()
        index = bisect.bisect_right(marks, (position, 0, 0)) - 1
        return marks[index][1:] if index >= 0 else (0, 0)

    def _objects_of_file(self) -> list[tuple[int, int, int]]:
        if not self._marks:
            for match in occurrences(_OBJECT, self.data, self.meter):
                if before := _NUMBERED.search(self.data[max(0, match.start() - 64) : match.start()]):
                    self._marks.append((match.end(), int(before[1]), int(before[2])))
        return self._marks

    def _object_streams(self) -> Iterator[tuple[int, dict[str, Value]]]:
        """Where those begin whose octets, unpacked, can hold objects; with their dictionaries."""
        for key, position in self._seen:
            if key == "ObjStm" or (key == "First" and self._is_locked_stream(position)):
                dictionary, end = holder(self.data, position, self.meter)
                yield streams.beginning(self.data, end), dictionary
        for match in occurrences(_STREAM, self.data, self.meter):
            peeked = streams.inflated(self.data[match.end() : match.end() + 2 * _PEEKED], _PEEKED)
            if _PAIRS.match(peeked):
                yield match.end(), {"Filter": Name("FlateDecode")}

    def _is_locked_stream(self, position: int) -> bool:
        """Whether /First, whose value is at *position*, is that of an encrypted object stream, whatever its type."""
        if not self.ring or not isinstance(Lexer(self.data, position, self.meter).value(), bytes):
            return False
        return streams.beginning(self.data, holder(self.data, position, self.meter)[1]) >= 0

    def _open(self, start: int, dictionary: dict[str, Value]) -> None:
        if start in self._known:
            return
        self._known.add(start)
        try:
            for view in self._objects_in(start, dictionary):
                self.views.append(view)
                self._firsts.append(number(dictionary.get("First")))
        except Unreadable as error:
            self.faults.append(str(error))

    def _objects_in(self, start: int, dictionary: dict[str, Value]) -> list[bytes]:
        if start < 0:
            raise Unreadable("has objects that cannot be found")
        views = [view for view in self._unpacked(start, dictionary, MAX_OBJECT_STREAM + 1) if view]
        if not views or any(len(view) > MAX_OBJECT_STREAM for view in views):
            raise Unreadable("has objects that cannot be unpacked")
        return views

    def _keys_in(self, view: bytes) -> Iterator[tuple[str, int]]:
        for match in occurrences(_SEEN, view, self.meter):
            key = name(match[3]) if match[3] else (match[1] or match[2]).decode("ascii")
            if key in _WANTED:
                yield key, match.end()

    def _places(self, wanted: int) -> list[Place]:
        if not self._objects:
            for one, place in self._numbered():
                self.meter.step()
                self._objects.setdefault(one, []).append(place)
        return self._objects.get(wanted, [])[-MAX_VERSIONS:]

    def _numbered(self) -> Iterator[tuple[int, Place]]:
        """Every object: those of the file (7.3.10), and those in object streams (7.5.7)."""
        for position, number_, _ in self._objects_of_file():
            yield number_, Place(self.data, position)
        for view, first in zip(self.views[1:], self._firsts[1:], strict=True):
            yield from _packed(view, first)


def _packed(view: bytes, first: int) -> Iterator[tuple[int, Place]]:
    """The numbers in front of an object stream are pairs: which object, and how far behind *first* it stands."""
    match = _FRONT.match(view)
    first = first or (match.end() if match else 0)
    integers = [int(one) for one in _INTEGERS.findall(view[: min(first, MAX_FRONT)])]
    for one, offset in zip(integers[::2], integers[1::2], strict=False):
        yield one, Place(view, first + offset)

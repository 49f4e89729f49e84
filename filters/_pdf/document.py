"""What any reader could come to see of a PDF: its octets, those of its object streams, and where objects stand.

Object streams are found by what they say that they are, and by how they begin. Older versions of an object, which an
incremental update leaves in place, count like the last one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from filters._pdf import streams
from filters._pdf.lexer import (
    REGULAR,
    SKIPPED,
    Lexer,
    Meter,
    Name,
    Reference,
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
    *("Encrypt", "EmbeddedFile", "EF", "ObjStm", "XFA"),
)
# A name is a solidus and what follows; any octet of it may be written as #xx. Of file specifications, which are many,
# only those that are strings are looked at.
_SEEN = re.compile(
    rb"/(?:(" + "|".join(_KEYS).encode() + rb")(?!" + REGULAR + rb")|(U?F)(?=[\0\t\n\f\r ]{0,64}+(?:[(%]|<(?!<)))"
    rb"|(" + REGULAR[:2] + rb"#" + REGULAR[2:] + rb"{0,40}+#" + REGULAR + rb"{1,120}))"
)
_WANTED = frozenset({*_KEYS, "F", "UF"})
_OBJECT = re.compile(rb"obj(?<!endobj)")
_NUMBERED = re.compile(rb"(\d{1,10})" + SKIPPED + rb"\d{1,5}" + SKIPPED + rb"$")
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
    views: list[bytes] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What could not be read, in our words."""
    _firsts: list[int] = field(default_factory=lambda: [0])
    """For each view where the first of its objects stands, 0 where that is not said."""
    _objects: dict[int, list[Place]] = field(default_factory=dict)
    _known: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.views.append(self.data)
        for start, dictionary in self._object_streams():
            self._open(start, dictionary)

    def keys(self) -> Iterator[tuple[str, Place]]:
        """Each name that may matter, and the place behind it."""
        for view in self.views:
            for key, position in self._keys_in(view):
                yield key, Place(view, position)

    def value(self, place: Place) -> Value:
        """The value at *place*."""
        return Lexer(place.view, place.position, self.meter).value()

    def around(self, place: Place) -> dict[str, Value]:
        """The dictionary that holds what stands at *place*."""
        return holder(place.view, place.position, self.meter)[0]

    def meant(self, value: Value) -> list[Value]:
        """*value*, or every version of the object that it refers to."""
        if not isinstance(value, Reference):
            return [value]
        return [self.value(place) for place in self._places(value.number)]

    def stream(self, value: Value, most: int) -> Iterator[bytes]:
        """At most *most* octets of every version of the stream that *value* refers to."""
        for place in self._places(value.number) if isinstance(value, Reference) else ():
            yield self.stream_at(place, most)

    def stream_at(self, place: Place, most: int) -> bytes:
        """At most *most* octets of the stream whose dictionary stands at *place*; none where there is none."""
        lexer = Lexer(place.view, place.position, self.meter)
        dictionary = lexer.value()
        start = streams.beginning(place.view, lexer.position)
        if start < 0 or not isinstance(dictionary, dict):
            return b""
        return self._unpacked(start, dictionary, most)

    def _unpacked(self, start: int, dictionary: dict[str, Value], most: int) -> bytes:
        found = streams.unpacked(self.data, start, dictionary, min(most, self.meter.octets + 1))
        self.meter.unpacked(len(found))
        return found

    def _object_streams(self) -> Iterator[tuple[int, dict[str, Value]]]:
        """Where those begin whose octets, unpacked, can hold objects; with their dictionaries."""
        for key, position in self._keys_in(self.data):
            if key == "ObjStm":
                dictionary, end = holder(self.data, position, self.meter)
                yield streams.beginning(self.data, end), dictionary
        for match in occurrences(_STREAM, self.data, self.meter):
            peeked = streams.inflated(self.data[match.end() : match.end() + 2 * _PEEKED], _PEEKED)
            if _PAIRS.match(peeked):
                yield match.end(), {"Filter": Name("FlateDecode")}

    def _open(self, start: int, dictionary: dict[str, Value]) -> None:
        if start in self._known:
            return
        self._known.add(start)
        try:
            view = self._objects_in(start, dictionary)
        except Unreadable as error:
            self.faults.append(str(error))
        else:
            self.views.append(view)
            self._firsts.append(number(dictionary.get("First")))

    def _objects_in(self, start: int, dictionary: dict[str, Value]) -> bytes:
        if start < 0:
            raise Unreadable("has objects that cannot be found")
        view = self._unpacked(start, dictionary, MAX_OBJECT_STREAM + 1)
        if len(view) > MAX_OBJECT_STREAM or not view:
            raise Unreadable("has objects that cannot be unpacked")
        return view

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
        for match in occurrences(_OBJECT, self.data, self.meter):
            if before := _NUMBERED.search(self.data[max(0, match.start() - 64) : match.start()]):
                yield int(before[1]), Place(self.data, match.end())
        for view, first in zip(self.views[1:], self._firsts[1:], strict=True):
            yield from _packed(view, first)


def _packed(view: bytes, first: int) -> Iterator[tuple[int, Place]]:
    """The numbers in front of an object stream are pairs: which object, and how far behind *first* it stands."""
    match = _FRONT.match(view)
    first = first or (match.end() if match else 0)
    integers = [int(one) for one in _INTEGERS.findall(view[: min(first, MAX_FRONT)])]
    for one, offset in zip(integers[::2], integers[1::2], strict=False):
        yield one, Place(view, first + offset)

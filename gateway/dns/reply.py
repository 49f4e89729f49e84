"""What a name server has replied: record after record, read by dnspython, and what they say to the question.

Rule: reading ends after `MAX_READ` records. dnspython's own `Message` makes sets of them, in a time that grows with the
square of the labels of each name: 16 KB from a stranger's zone would hold up everybody for two seconds.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import dns.exception
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.wire
from dns.rdatatype import AAAA, CNAME, MX, NS, OPT, PTR, SOA, TXT, A, RdataType

MAX_RECORDS = 256
"""Records of one answer that are looked at."""

MAX_CHAIN = 16
"""Aliases that are followed from name to name."""

WITHOUT_SOA = 5.0
"""Seconds for which "there is none" holds where nobody says for how long: some block lists never do."""

MAX_READ = MAX_RECORDS + MAX_CHAIN
_NAMED = frozenset({A, AAAA, MX, TXT, PTR, CNAME, SOA})
_HEADER = struct.Struct("!HHHHHH")


class Contradiction(dns.exception.DNSException):
    """There are aliases without end, or there is an answer for a name that does not exist."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record. `value` is dnspython's, and None for the types that nobody here asks for."""

    owner: dns.name.Name
    kind: RdataType
    ttl: int
    value: Any


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply as far as it was read. `questions` are (name, type, class)."""

    rcode: dns.rcode.Rcode
    questions: Sequence[tuple[dns.name.Name, int, int]]
    answer: Sequence[Record]
    authority: Sequence[Record]

    def to(self, kind: RdataType) -> tuple[list[Any], float]:
        """The values of type *kind* that the (first) question leads to, each once, and the seconds for which they hold.

        Where there are none, an SOA says for how long; without one it is hardly kept (RFC 2308 5).
        """
        known: dict[tuple[dns.name.Name, RdataType], list[Record]] = defaultdict(list)
        for record in self.answer:
            known[record.owner, record.kind].append(record)
        name, ttl = self.questions[0][0], float("inf")
        for _ in range(MAX_CHAIN):
            if found := known.get((name, kind)):
                return self._existing(found), min(ttl, *(record.ttl for record in found))
            if not (aliases := known.get((name, CNAME))):
                return [], min(ttl, self._negative_ttl)
            name, ttl = aliases[0].value.target, min(ttl, aliases[0].ttl)
        raise Contradiction

    def _existing(self, found: Sequence[Record]) -> list[Any]:
        if self.rcode == dns.rcode.NXDOMAIN:
            raise Contradiction
        return [record.value for record in found]

    @property
    def _negative_ttl(self) -> float:
        bounds = (min(one.ttl, one.value.minimum) for one in self.authority if one.kind == SOA)
        return min(bounds, default=WITHOUT_SOA)

    @property
    def is_referral(self) -> bool:
        """Whether it names servers in place of an answer: that looks as if there were none, but has no SOA."""
        kinds = {record.kind for record in self.authority}
        return NS in kinds and SOA not in kinds


def read(wire: bytes) -> Reply:
    """*wire* as a reply. Raises DNSException, ValueError or struct.error where it is none."""
    _, flags, *counts = _HEADER.unpack_from(wire)
    parser = dns.wire.Parser(wire, _HEADER.size)
    questions = [(parser.get_name(decompress=True), *parser.get_struct("!HH")) for _ in range(min(counts[0], 2))]
    sections: list[list[Record]] = [[], [], []]
    for section in _order(counts[1:]):
        if (record := _record(parser)) is not None:
            sections[section].append(record)
    if sum(counts[1:]) <= MAX_READ and parser.remaining():
        raise dns.exception.FormError
    extended = next((record.ttl >> 24 << 4 for record in sections[2] if record.kind == OPT), 0)  # RFC 6891 6.1.3
    return Reply(dns.rcode.Rcode.make(flags & 0xF | extended), questions, sections[0], sections[1])


def _order(counts: Sequence[int]) -> Iterator[int]:
    """The section of each record that is read."""
    left = MAX_READ
    for section, count in enumerate(counts):
        for _ in range(min(count, left)):
            yield section
        left -= min(count, left)


def _record(parser: dns.wire.Parser) -> Record | None:
    """The next record; None where it is of another class."""
    owner = parser.get_name(decompress=True)
    kind, family, ttl, length = parser.get_struct("!HHLH")
    with parser.restrict_to(length):
        if family != dns.rdataclass.IN or kind not in _NAMED:
            parser.get_remaining()
            return Record(owner, kind, ttl, None) if family == dns.rdataclass.IN or kind == OPT else None
        return Record(owner, kind, ttl, dns.rdata.from_wire_parser(family, kind, parser))

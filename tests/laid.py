"""What a pure filter is tested with: parts and a mail of them, `Payloads` that keep what is added, and the question.

Rule: whatever a filter finds has one of its codes and is about a part of this mail; `asked` holds that for all of them.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from gateway.model import Content, Finding, Mail, Part, PureFilter, Session
from gateway.pipeline.sniff import PREFIX, sniff


class Laid:
    """Parts that hold *octets*, in a mail with these *words*."""

    def __init__(self, octets: Mapping[str, bytes], words: Sequence[bytes] = ()) -> None:
        self._octets = octets
        self._words = words
        self.added: list[tuple[str, str, bytes]] = []
        """Path of the part, name of the file, and its octets."""

    def of(self, part: Part, most: int) -> bytes:
        return self._octets.get(part.path, b"")[:most]

    def words(self) -> Sequence[bytes]:
        return self._words

    def add(self, part: Part, name: str, octets: bytes) -> None:
        self.added.append((part.path, name, octets))


def mail_of(*parts: Part) -> Mail:
    """A mail from outside that holds *parts*."""
    return Mail("id", Session(ipaddress.ip_address("192.0.2.1")), content=Content(parts=parts))


def attached(
    name: str, octets: bytes, path: str = "2", media_type: str = "application/octet-stream"
) -> tuple[Part, bytes]:
    """A file as the parser gives it, and what it holds."""
    return Part(path, media_type, name, sniff(octets[:PREFIX]), len(octets)), octets


def asked(filter_: PureFilter, mail: Mail) -> Sequence[Finding]:
    """What *filter_* finds in *mail*."""
    found = filter_.check(mail, {})
    assert {finding.code for finding in found} <= filter_.codes
    assert {finding.part for finding in found} <= {"", *(part.path for part in mail.content.parts)}
    return found


def asked_for_print(filter_: PureFilter, mail: Mail) -> Sequence[Finding]:
    """As `asked`, of a filter that cleans what it says of its own accord (`think.py` does it for all, and cuts)."""
    found = asked(filter_, mail)
    assert all(finding.detail.isprintable() and len(finding.detail) < 400 for finding in found)
    assert all(fact.isprintable() and len(fact) <= 500 for finding in found for fact in finding.facts)
    return found


def damaged(octets: bytes, changes: Iterable[tuple[int, bytes]]) -> bytes:
    """*octets* with pieces written over them, each at its offset modulo their length."""
    copy = bytearray(octets)
    for at, piece in changes:
        copy[at % len(octets) : at % len(octets) + len(piece)] = piece
    return bytes(copy)

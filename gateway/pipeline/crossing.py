"""What crosses between the gateway and a confined worker: frames on the socket, and JSON in them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from pydantic import TypeAdapter

from gateway.model import Content, Finding, Mail

FRAME = struct.Struct("!I")
ANSWER = struct.Struct("!II?")
"""How long the JSON of an answer is, how many octets follow it that were taken out of the mail, and whether the worker
ends after it: the next mail needs another."""
MAX_REQUEST = 1 << 20
MAX_REPLY = 8 << 20
MAX_OBJECTS = 250_000
"""Objects and lists in the JSON of an answer: the largest report has so many. Small ones by the million would stop the
gateway for seconds, and cost it a gigabyte, before it knew that they are nonsense."""
OUT_OF_MEMORY = 3
"""How a worker exits that got no memory any more."""


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a worker answers: the content as parsed, and the findings of the pure filters by name."""

    content: Content = field(default_factory=Content)
    found: dict[str, tuple[Finding, ...]] = field(default_factory=dict)


MAIL = TypeAdapter(Mail)
SCANNED = TypeAdapter(Scanned)


def fits(reply: bytes) -> bool:
    """Whether the JSON of an answer is so small that it may be read."""
    return len(reply) <= MAX_REPLY and reply.count(b"{") + reply.count(b"[") <= MAX_OBJECTS

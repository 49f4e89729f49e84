"""Slow peers by the hundred, and an honest one beside them: in time, in bounded memory, and all gone by the limits."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from tests.bench import usage
from tests.e2e import gateway as gateways
from tests.e2e import mails
from tests.e2e.gateway import Gateway, taken, transaction
from tests.peers import slow

REPLIES = {
    "commands": "Nothing heard from you",
    "data": "Your message comes too slowly",
    "deaf": "You do not read our replies",
}
"""What those whom a limit ended were told, by kind; those in a handshake are told nothing."""


@dataclass(frozen=True)
class Siege:
    """What was seen. Memory in MB, as the sum of proportional set sizes of all processes; times in seconds."""

    peers: int
    before: float
    during: float
    after: float
    sessions: tuple[float, ...]
    gone_after: float
    ended: Mapping[str, int]

    @property
    def slowest(self) -> float:
        return max(self.sessions)

    def check(self) -> "Siege":
        """Itself, where the honest were served within a second and the limits ended all others, each by its own."""
        assert self.slowest < 1.0, self
        assert set(self.ended.values()) == {self.peers // len(self.ended)}, self
        assert self.during - self.before < self.peers / 10, self
        return self

    def __str__(self) -> str:
        each = (self.during - self.before) * 1024 / self.peers
        return (
            f"{self.peers} slow peers: {len(self.sessions)} honest sessions took {sorted(self.sessions)[len(self.sessions) // 2]:.2f} s "
            f"(median), {self.slowest:.2f} s (slowest); memory {self.before:.0f} MB before, {self.during:.0f} during "
            f"({each:.0f} KB each), {self.after:.0f} after; all gone {self.gone_after:.0f} s after the last had come; "
            f"ended by {dict(self.ended)}"
        )


def edge(seconds: float) -> str:
    """edge.toml for a siege: room for all, and limits that end each kind after *seconds*.

    Those who read nothing would be ended by the number of their commands, or for speaking out of turn, long before.
    """
    time_out = f'"{seconds}s"'
    return gateways.shipped(
        "edge",
        connections="5000",
        commands="1000000",
        strict_turns="false",
        idle_timeout=time_out,
        data_window=time_out,
        write_timeout=time_out,
        handshake_timeout=time_out,
    )


def run(own: Gateway, each: int, seconds: float, *, pause: float = 1.0, sessions: int = 5) -> Siege:
    """Besiege *own*, whose edge.toml is `edge(seconds)`, with *each* of every kind."""
    root = own.process.pid
    honest_session(own)
    usage.settle(root)
    before, since = usage.memory(root), own.mark()
    with slow.run(own.ports, each, pause) as crowd:
        crowd.wait("ready", each, 60 + each / 10)
        began = time.monotonic()
        times = [honest_session(own) for _ in range(sessions)]
        during = usage.memory(root)
        crowd.wait("gone", each, seconds + 60)
        gone_after = time.monotonic() - began
    usage.settle(root)
    return Siege(
        each * len(slow.KINDS), before, during, usage.memory(root), tuple(times), gone_after, ended(own, since)
    )


def honest_session(own: Gateway) -> float:
    """The seconds that one mail takes, from the connection to QUIT."""
    began = time.monotonic()
    with own.session() as client:
        taken(transaction(client, "ann@out.example", ["alice@in.example"], mails.mail()))
    return time.monotonic() - began


def ended(own: Gateway, since: int) -> dict[str, int]:
    """How many were ended by which limit."""
    told = [event["reply"] for event in own.events("timeout", since)]
    found = {kind: sum(words in reply for reply in told) for kind, words in REPLIES.items()}
    return found | {"handshake": len(own.events("handshake failed", since))}

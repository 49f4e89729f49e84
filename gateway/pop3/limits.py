"""How much the POP3 service takes on, from whom, and for how long; and who has tried too many passwords."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Limits:
    """Times are seconds.

    `idle` may not be shorter than ten minutes (RFC 1939 3); `login` is how long anybody may take to log in. `write` is
    how long a peer may leave 64 KB of what we sent unread. `delay` passes before a wrong password is answered.
    """

    sessions: int = 500
    sessions_per_address: int = 20
    login: float = 60.0
    idle: float = 600.0
    handshake: float = 10.0
    write: float = 60.0
    linger: float = 5.0
    lease: float = 60.0
    delay: float = 2.0
    failures_per_user: int = 5
    failures_per_address: int = 50
    memory: float = 600.0
    remembered: int = 10_000


class Gate:
    """Counts sessions and wrong passwords of one process: share one between its listeners.

    A user is only ever held back at the address that guessed, so nobody can lock another out from elsewhere.
    """

    def __init__(self, limits: Limits | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits or Limits()
        self._clock = clock
        self._sessions: Counter[str] = Counter()
        self._failures: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()

    def enter(self, peer: Address) -> bool:
        """Count a session of *peer* in; False where there are too many, and it is not counted."""
        place = _place(peer)
        full = self._sessions.total() >= self.limits.sessions
        if full or self._sessions[place] >= self.limits.sessions_per_address:
            return False
        self._sessions[place] += 1
        return True

    def leave(self, peer: Address) -> None:
        """Count a session out that `enter` counted in."""
        place = _place(peer)
        self._sessions[place] -= 1
        if not self._sessions[place]:
            del self._sessions[place]

    def attempt(self, peer: Address, user: str) -> bool:
        """Whether a password of *user* that *peer* offers is to be looked at. If so it counts as wrong until proved."""
        keys = self._keys(peer, user)
        most = (self.limits.failures_per_user, self.limits.failures_per_address)
        if any(self._count(key) >= limit for key, limit in zip(keys, most, strict=True)):
            return False
        for key in keys:
            self._failures[key] = self._count(key) + 1, self._clock()
            self._failures.move_to_end(key)
        while len(self._failures) > self.limits.remembered:
            self._failures.popitem(last=False)
        return True

    def withdraw(self, peer: Address, user: str) -> None:
        """The last attempt was not wrong after all, or nobody could tell."""
        for key in self._keys(peer, user):
            count, last = self._failures.get(key, (1, 0.0))
            self._failures[key] = count - 1, last
            if count <= 1:
                del self._failures[key]

    def succeeded(self, peer: Address, user: str) -> None:
        """The password was right: forget the wrong ones of *user* at *peer*."""
        self.withdraw(peer, user)
        self._failures.pop(self._keys(peer, user)[0], None)

    def _keys(self, peer: Address, user: str) -> tuple[tuple[str, str], tuple[str, str]]:
        return (_place(peer), user.lower()), (_place(peer), "")

    def _count(self, key: tuple[str, str]) -> int:
        count, last = self._failures.get(key, (0, 0.0))
        return count if self._clock() - last < self.limits.memory else 0


def _place(peer: Address) -> str:
    """Who is counted as one: an IPv4 address, or an IPv6 network of 64 bits, which one customer has to himself."""
    if isinstance(peer, IPv6Address):
        return str(peer.ipv4_mapped or ip_network((peer, 64), strict=False))
    return str(peer)

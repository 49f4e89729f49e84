"""Who is connected to us: their addresses, whom they count with, and how many there are.

Rule: a connection counts from the moment it is accepted until it is gone, whatever it is doing; one that was turned
away never counts, so that nobody fills the house by knocking.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from enum import Enum, auto
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Protocol

Address = IPv4Address | IPv6Address
Place = tuple[int, int]
"""A network: its version, and its leading bits as a number."""


class Full(Enum):
    """Which limit of the number of connections is reached."""

    PROCESS = auto()
    ADDRESS = auto()
    NETWORK = auto()


class TooMany(Exception):
    """There is no room for one more; `full` says where."""

    def __init__(self, full: Full) -> None:
        self.full = full
        super().__init__(full.name)


class Room(Protocol):
    """How many connections there may be at once: the settings of edge.toml and pop3.toml."""

    @property
    def connections(self) -> int: ...
    @property
    def connections_per_peer(self) -> int: ...
    @property
    def connections_per_network(self) -> int: ...
    @property
    def network_ipv4(self) -> int: ...
    @property
    def network_ipv6(self) -> int: ...


def plain(address: Address) -> Address:
    """*address*; IPv4 within IPv6 as IPv4, so that no rule for it is escaped."""
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def address_of(transport: asyncio.BaseTransport) -> Address | None:
    """Who is at the other end; None where they have left already."""
    name = transport.get_extra_info("peername")
    return plain(ip_address(str(name[0]).partition("%")[0])) if isinstance(name, tuple) else None


def network(address: Address, ipv4: int = 32, ipv6: int = 64) -> str:
    """The network that *address* lies in, its prefix so many bits long: a /64 of IPv6 is what one customer has."""
    return str(ip_network((address, ipv4 if address.version == 4 else ipv6), strict=False))


def _place(address: Address, ipv4: int, ipv6: int) -> Place:
    bits = ipv4 if address.version == 4 else ipv6
    return address.version, int(address) >> (address.max_prefixlen - bits)


class Crowd:
    """The connections of one process: all of them, and by address (a /64 of IPv6) and network."""

    def __init__(self) -> None:
        self.size = 0
        self._addresses: Counter[Place] = Counter()
        self._networks: Counter[Place] = Counter()

    def enter(self, room: Room) -> None:
        """Count a connection in, whoever it is; `TooMany` where there is no room, and it is not counted."""
        if self.size >= room.connections:
            raise TooMany(Full.PROCESS)
        self.size += 1

    def identify(self, address: Address, room: Room) -> tuple[Place, Place]:
        """Count a connection that has entered for its *address*, and return what `leave` is to be told.

        `TooMany` where there are enough of them; it is still counted as one that has entered.
        """
        own = _place(address, 32, 64)
        around = _place(address, room.network_ipv4, room.network_ipv6)
        if self._addresses[own] >= room.connections_per_peer:
            raise TooMany(Full.ADDRESS)
        if self._networks[around] >= room.connections_per_network:
            raise TooMany(Full.NETWORK)
        self._addresses[own] += 1
        self._networks[around] += 1
        return own, around

    def leave(self, places: tuple[Place, Place] | None = None) -> None:
        """A connection that had entered is gone; *places* is what `identify` said of it, if it got so far."""
        self.size -= 1
        if places is not None:
            for counter, place in zip((self._addresses, self._networks), places, strict=True):
                counter[place] -= 1
                if not counter[place]:
                    del counter[place]

"""The PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt): who is behind a proxy. Pure functions.

Rule: what is not exactly a header is `Malformed`; `wanted` never asks for an octet that may belong to what follows.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

from gateway.peers import Address, plain

MAX_V1 = 107
"""Octets of a header of version 1 with its CRLF."""
MAX_V2 = 2048
"""Octets of a header of version 2: the addresses, and what proxies add about TLS."""

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIRST = len(_SIGNATURE)
_FIXED = 16
_SHORTEST = {b"PROXY TCP4 ": len("PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n"), b"PROXY TCP6 ": len("PROXY TCP6 :: :: 1 1\r\n")}
_PORT = r"(?:0|[1-9][0-9]{0,4})"
_V1 = re.compile(
    rf"PROXY (?:UNKNOWN(?: [^\r\n]*)?|TCP4 ([0-9.]+) ([0-9.]+) ({_PORT}) ({_PORT})"
    rf"|TCP6 ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) ({_PORT}) ({_PORT}))\r\n"
)
_LOCAL, _PROXY = 0x20, 0x21
_SIZES = {0x11: 4, 0x21: 16}
"""Octets of an address, by family and transport: TCP over IPv4, TCP over IPv6."""


class Malformed(Exception):
    """This is no PROXY header, or one that we cannot use."""


def wanted(data: bytes) -> int:
    """How many more octets belong to the header that begins with *data*, at least; 0 where it is complete."""
    start = data[:_FIRST]
    if not (_SIGNATURE.startswith(start) or b"PROXY "[: len(start)] == start[:6]):
        raise Malformed("no header")
    if len(data) < _FIRST:
        return _FIRST - len(data)
    return _wanted_v2(data) if start == _SIGNATURE else _wanted_v1(data)


def _wanted_v1(data: bytes) -> int:
    if data.endswith(b"\n"):
        return 0
    if len(data) >= MAX_V1:
        raise Malformed("too long")
    return max(1, _SHORTEST.get(data[:11], 1) - len(data))


def _wanted_v2(data: bytes) -> int:
    if len(data) < _FIXED:
        return _FIXED - len(data)
    size = _FIXED + int.from_bytes(data[14:16], "big")
    if size > MAX_V2:
        raise Malformed("too long")
    return size - len(data)


def source(header: bytes) -> Address | None:
    """Who is behind the proxy, from a complete *header*; None where the proxy speaks for itself (LOCAL, UNKNOWN)."""
    return _source_v2(header) if header.startswith(_SIGNATURE) else _source_v1(header)


def _source_v1(header: bytes) -> Address | None:
    found = _V1.fullmatch(header.decode("latin-1"))
    if found is None or any(int(port or 0) > 65535 for port in found.group(3, 4, 7, 8)):
        raise Malformed("syntax")
    try:
        return _checked_v1(found)
    except ValueError:
        raise Malformed("address") from None


def _checked_v1(found: re.Match[str]) -> Address | None:
    """The source address; the one that the peer has connected to must be one, too."""
    four, four_here, six, six_here = found.group(1, 2, 5, 6)
    if four:
        return (IPv4Address(four), IPv4Address(four_here))[0]
    return plain((IPv6Address(six), IPv6Address(six_here))[0]) if six else None


def _source_v2(header: bytes) -> Address | None:
    command, family = header[12:14]
    if command == _LOCAL:
        return None
    size = _SIZES.get(family, 0)
    if command != _PROXY or not size or len(header) < _FIXED + 2 * size + 4:
        raise Malformed("what it says of the connection")
    octets = header[_FIXED : _FIXED + size]
    return IPv4Address(octets) if size == 4 else plain(IPv6Address(octets))

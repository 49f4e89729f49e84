"""One name server: how it is asked, which of what comes back is its answer, and whether it answers at all.

Rule: only what has our id and our question is an answer (RFC 5452 9.1); anything else is as if it had not come. Each
question has a socket of its own, so that the kernel chooses a port that nobody can guess.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import socket
import struct
from dataclasses import dataclass, field
from typing import TypeAlias

import dns.exception
import dns.flags
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype

from gateway.dns import reply
from gateway.dns.reply import Reply

MAX_UDP = 1232
"""Octets of an answer by UDP, which pass every network unfragmented; longer ones come by TCP."""

MAX_TCP = 16 << 10
"""Octets of an answer by TCP. To read a longer one would hold up everybody else."""

STRAYS = 100
"""Datagrams that may come in place of an answer: somebody is guessing, and would keep us from all else."""

TRIAL = 10.0
"""Seconds after which a server that was silent is tried again."""

_HEADER = struct.Struct("!HHHHHH")
_RECORD = struct.Struct("!HHLH")  # type, class, time to live, length
_RD = 0x0100
_QR_AND_OPCODE = 0xF8
_ONE_IN_AUTHORITY = struct.pack("!HHH", 1, 0, 1)  # the counts of an answer with one question and one SOA
_OPT = struct.pack("!BHHLH", 0, dns.rdatatype.OPT, MAX_UDP, 0, 0)  # RFC 6891 6.1.2
_KINDS = {kind: struct.pack("!HH", dns.rdatatype.from_text(kind), dns.rdataclass.IN) for kind in (
    "A", "AAAA", "MX", "TXT", "PTR", "NS"
)}  # fmt: skip
_WITHOUT_QUESTION = {dns.rcode.FORMERR, dns.rcode.SERVFAIL, dns.rcode.NOTIMP, dns.rcode.REFUSED}


@dataclass(frozen=True, slots=True)
class Question:
    """A name (its labels, without the root) and a record type ("MX"). `wire` is what asks for them, after the id."""

    labels: tuple[bytes, ...]
    kind: str
    asked: bytes = field(init=False)

    def __post_init__(self) -> None:
        name = b"".join(bytes((len(label),)) + label for label in self.labels)
        object.__setattr__(self, "asked", name + b"\0" + _KINDS[self.kind])

    @property
    def wire(self) -> bytes:
        """The query, without its id."""
        return _HEADER.pack(0, _RD, 1, 0, 0, 1)[2:] + self.asked + _OPT

    @property
    def name(self) -> dns.name.Name:
        """The name, absolute."""
        return dns.name.Name((*self.labels, b""))


@dataclass(frozen=True, slots=True)
class Missing:
    """There is no such name, for `ttl` seconds."""

    ttl: float


Answer: TypeAlias = Reply | Missing


class Truncated(dns.exception.DNSException):
    """The whole answer does not come even by TCP."""


class TooLong(dns.exception.DNSException):
    """The answer has more than `MAX_TCP` octets."""


class Server:
    """The name server at `host` (an address) and `port`."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._heard = float("-inf")
        self._trial = 0.0
        self.silent = False

    def __str__(self) -> str:
        return f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"

    async def ask(self, question: Question, within: float) -> Answer:
        """The answer, whatever it says, *within* so many seconds.

        Raises TimeoutError, OSError, EOFError or DNSException where there is none.
        """
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(within):
                response = await self._by_udp(question) or await self._by_tcp(question)
        except (TimeoutError, OSError):
            if self._heard < began:  # else it is only slow to learn this one answer
                self.silent, self._trial = True, asyncio.get_running_loop().time() + TRIAL
            raise
        self.silent, self._heard = False, asyncio.get_running_loop().time()
        return response

    def wants_trial(self) -> bool:
        """Whether it is time to see if a silent server is back; True once in `TRIAL` seconds."""
        now = asyncio.get_running_loop().time()
        if not self.silent or now < self._trial:
            return False
        self._trial = now + TRIAL
        return True

    async def _by_udp(self, question: Question) -> Answer | None:
        """The answer; None where it was cut short."""
        identity = secrets.token_bytes(2)
        with socket.socket(self._family, socket.SOCK_DGRAM) as udp:
            udp.setblocking(False)
            udp.connect((self._host, self._port))
            udp.send(identity + question.wire)
            for _ in range(STRAYS):
                wire = await asyncio.get_running_loop().sock_recv(udp, 4096)
                if not _is_reply(wire, identity):
                    continue
                if _is_truncated(wire):
                    return None
                if (response := _answer(wire, question)) is not None:
                    return response
        raise EOFError

    async def _by_tcp(self, question: Question) -> Answer:
        identity = secrets.token_bytes(2)
        reader, writer = await asyncio.open_connection(self._host, self._port, limit=MAX_TCP)
        try:
            writer.write(struct.pack("!H", len(question.wire) + 2) + identity + question.wire)
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            if length > MAX_TCP:
                raise TooLong
            wire = await reader.readexactly(length)
        finally:
            writer.transport.abort()
        response = _answer(wire, question) if _is_reply(wire, identity) else None
        if response is None:
            raise EOFError
        if _is_truncated(wire):
            raise Truncated
        return response


def _is_reply(wire: bytes, identity: bytes) -> bool:
    return len(wire) >= _HEADER.size and wire.startswith(identity) and wire[2] & _QR_AND_OPCODE == dns.flags.QR >> 8


def _is_truncated(wire: bytes) -> bool:
    return wire[2] & dns.flags.TC >> 8 != 0


def _answer(wire: bytes, question: Question) -> Answer | None:
    """*wire* understood; None where it is garbage or the answer to something else."""
    return _missing(wire, question) or _understood(wire, question)


def _missing(wire: bytes, question: Question) -> Missing | None:
    """The commonest answer of all, "no such name" and one SOA (RFC 2308 2.1), without the price of reading it whole.

    None for every other one.
    """
    end = _HEADER.size + len(question.asked)
    if wire[3] & 0xF != dns.rcode.NXDOMAIN or wire[4:10] != _ONE_IN_AUTHORITY or wire[12:end] != question.asked:
        return None
    try:
        start = _after_name(wire, end)
        kind, _, ttl, length = _RECORD.unpack_from(wire, start)
        (minimum,) = struct.unpack_from("!L", wire, start + _RECORD.size + length - 4)
    except (struct.error, IndexError):
        return None
    return Missing(min(ttl, minimum)) if kind == dns.rdatatype.SOA and length >= 22 else None


def _after_name(wire: bytes, start: int) -> int:
    while 0 < wire[start] < 64:
        start += wire[start] + 1
    return start + (2 if wire[start] else 1)


def _understood(wire: bytes, question: Question) -> Reply | None:
    try:
        response = reply.read(wire)
    except (dns.exception.DNSException, ValueError, IndexError, struct.error):
        return None
    if not response.questions:  # whoever does not understand the question may leave it out
        return response if response.rcode in _WITHOUT_QUESTION else None
    kind = dns.rdatatype.from_text(question.kind)
    return response if response.questions == [(question.name, kind, dns.rdataclass.IN)] else None


def at(written: str) -> Server:
    """The server "192.0.2.1", "192.0.2.1:53", "2001:db8::1" or "[2001:db8::1]:53"; ValueError where it is none."""
    host, _, port = written.removeprefix("[").partition("]:" if written.startswith("[") else ":")
    if written.count(":") > 1 and not written.startswith("["):
        host, port = written, ""
    if not (port or "53").isdecimal() or not 0 < int(port or 53) < 1 << 16:
        raise ValueError("a port is a number from 1 to 65535")
    return Server(str(ipaddress.ip_address(host.removesuffix("]"))), int(port or 53))

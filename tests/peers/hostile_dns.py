"""A name server, UDP and TCP, that tells the truth, or misbehaves in one of the ways that name servers know.

`name_server` answers by a function; `run` answers from records, with a fault for all that lies below a name. The faults
are those of RFC 5452 (forgery), of broken servers, and of senders who run their own.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.peers import loop, processes
from tests.peers.dns import quoted

Query = dns.message.Message
Answerer = Callable[[Query, bool], bytes | Sequence[bytes]]
"""(query, whether it came by TCP) -> the reply, or several, or none at all."""

Records = Mapping[tuple[str, str], Sequence[str]]
FORGED = {"A": "203.0.113.66", "AAAA": "2001:db8:bad::1", "MX": "1 evil.example.", "PTR": "evil.example.", "NS": "a."}
MAX_UDP = 1232  # octets that the gateway takes by UDP, and a server that tells the truth sends
FORGED_TEXT = '"v=spf1 +all"'


def record(name: dns.name.Name, kind: str, *rdata: str, ttl: int = 60) -> dns.rrset.RRset:
    return dns.rrset.from_text(name, ttl, "IN", kind, *rdata)


def reply(
    query: Query, *answers: dns.rrset.RRset, rcode: int = dns.rcode.NOERROR, flags: int = 0
) -> dns.message.Message:
    made = dns.message.make_response(query)
    made.flags |= dns.flags.RA | flags
    made.set_rcode(dns.rcode.Rcode(rcode))
    made.answer.extend(answers)
    return made


def wire(message: dns.message.Message) -> bytes:
    return message.to_wire(max_size=65535)


def asked(query: Query) -> tuple[dns.name.Name, str]:
    return query.question[0].name, dns.rdatatype.to_text(query.question[0].rdtype)


def forged(query: Query) -> dns.rrset.RRset:
    """What a liar would have us believe."""
    name, kind = asked(query)
    return record(name, kind, FORGED.get(kind, FORGED_TEXT))


# ---- Faults: (query, by TCP, the truth) -> what comes instead ---------------------------------------------------------

Fault = Callable[[Query, bool, bytes], bytes | Sequence[bytes]]


def _truncated(query: Query) -> bytes:
    return wire(reply(query, flags=dns.flags.TC))


def _wrong_id(query: Query) -> bytes:
    return struct.pack("!H", query.id ^ 1) + wire(reply(query, forged(query)))[2:]


def _wrong_question(query: Query) -> bytes:
    other = dns.message.make_query("bank.example", "A")
    other.id = query.id
    return wire(reply(other, record(dns.name.from_text("bank.example"), "A", FORGED["A"])))


def _not_a_reply(query: Query) -> bytes:
    made = bytearray(wire(reply(query, forged(query))))
    made[2] &= 0x7F
    return bytes(made)


def _not_of_a_query(query: Query) -> bytes:
    made = bytearray(wire(reply(query, forged(query))))
    made[2] |= dns.opcode.UPDATE << 3
    return bytes(made)


def _other_section(query: Query) -> bytes:
    made = reply(query)
    made.additional.append(forged(query))
    return wire(made)


def _loop(query: Query, length: int) -> bytes:
    """A chain of *length* aliases that bites its tail."""
    names = [asked(query)[0], *(dns.name.from_text(f"c{number}.loop.example") for number in range(1, length))]
    links = zip(names, [*names[1:], names[0]], strict=True)
    return wire(reply(query, *(record(name, "CNAME", str(target)) for name, target in links)))


def _zero_ttl(truth: bytes) -> bytes:
    made = dns.message.from_wire(truth)
    for records in (*made.answer, *made.authority):
        records.ttl = 0
    return wire(made)


def _huge(query: Query) -> bytes:
    name, _ = asked(query)
    texts = [" ".join(f'"{number:03d}{"x" * 250}"' for _ in range(15)) for number in range(16)]
    return wire(reply(query, record(name, "TXT", *texts)))


def _referral(query: Query) -> bytes:
    made = reply(query)
    made.authority.append(record(dns.name.from_text("example."), "NS", "ns.example."))
    return wire(made)


FAULTS: Mapping[str, Fault] = {
    "silent": lambda query, tcp, truth: (),
    "servfail": lambda query, tcp, truth: wire(reply(query, rcode=dns.rcode.SERVFAIL)),
    "refused": lambda query, tcp, truth: wire(reply(query, rcode=dns.rcode.REFUSED)),
    "formerr": lambda query, tcp, truth: truth[:2] + struct.pack("!HHHHH", 0x8181, 0, 0, 0, 0),
    "referral": lambda query, tcp, truth: _referral(query),
    "garbage": lambda query, tcp, truth: truth[:2] + b"\xff" * 60,
    "wrong-id": lambda query, tcp, truth: _wrong_id(query),
    "flood": lambda query, tcp, truth: (_wrong_id(query),) * 300,
    "wrong-question": lambda query, tcp, truth: _wrong_question(query),
    "not-a-reply": lambda query, tcp, truth: _not_a_reply(query),
    "not-of-a-query": lambda query, tcp, truth: _not_of_a_query(query),
    "loop": lambda query, tcp, truth: _loop(query, 2),
    "long-loop": lambda query, tcp, truth: _loop(query, 100),
    "nxdomain-with-answer": lambda query, tcp, truth: wire(reply(query, forged(query), rcode=dns.rcode.NXDOMAIN)),
    "nxdomain-with-garbage": lambda query, tcp, truth: (
        wire(reply(query, rcode=dns.rcode.NXDOMAIN))[:6] + struct.pack("!HHH", 9, 9, 9) + b"\xc0\x0c" * 40
    ),
    "truncated-tcp-silent": lambda query, tcp, truth: () if tcp else _truncated(query),
    "truncated-for-ever": lambda query, tcp, truth: _truncated(query),
    "huge": lambda query, tcp, truth: _huge(query) if tcp else _truncated(query),
}
"""Behind each of these nobody can tell what the truth is."""

HARMLESS: Mapping[str, Fault] = {
    "zero-ttl": lambda query, tcp, truth: _zero_ttl(truth),
    "forgery-first": lambda query, tcp, truth: truth if tcp else (_wrong_id(query), _wrong_question(query), truth),
    "by-tcp-alone": lambda query, tcp, truth: truth if tcp else _truncated(query),
}
"""Each of these has to end in the truth all the same."""

LYING: Mapping[str, Fault] = {"other-section": lambda query, tcp, truth: _other_section(query)}
"""The record that the liar wants believed must not be; that there is none, nobody can disprove."""


@contextmanager
def name_server(answer: Answerer) -> Iterator[tuple[str, list[str]]]:
    """A server that replies what *answer* makes of a query; yields it ("127.0.0.1:port") and what it was asked."""
    log: list[str] = []

    def replies(packet: bytes, tcp: bool) -> Sequence[bytes]:
        query = dns.message.from_wire(packet)
        log.append(f"{'tcp' if tcp else 'udp'} {asked(query)[0]}")
        made = answer(query, tcp)
        return (made,) if isinstance(made, bytes) else made

    async def over_tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (size,) = struct.unpack("!H", await reader.readexactly(2))
        made = replies(await reader.readexactly(size), True)
        for one in made:
            writer.write(struct.pack("!H", len(one)) + one)
        if not made:
            await reader.read()  # silent, until the client goes

    def over_udp(listener: socket.socket) -> None:
        while (packet := listener.recvfrom(65535))[0]:
            for one in replies(packet[0], False):
                listener.sendto(one, packet[1])

    with loop.serving(over_tcp) as port, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind((processes.HOST, port))
        thread = threading.Thread(target=over_udp, args=(listener,), name="name server")
        thread.start()
        try:
            yield f"{processes.HOST}:{port}", log
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stopper:
                stopper.sendto(b"", (processes.HOST, port))
            thread.join(5)


@dataclass
class HostileDns:
    """A server that knows `records`, each good for `ttl` seconds; what lies below a name in `faults` gets that fault.

    "" is everything.
    """

    records: dict[tuple[str, str], Sequence[str]]
    ttl: int = 60
    faults: dict[str, Fault] = field(default_factory=dict)
    port: int = 0
    asked: list[str] = field(default_factory=list)

    def answer(self, query: Query, tcp: bool) -> bytes | Sequence[bytes]:
        """The reply, or several, or none."""
        name = str(asked(query)[0]).rstrip(".").lower()
        faults = [fault for below, fault in self.faults.items() if not below or f".{name}".endswith(f".{below}")]
        truth = self.truth(query)
        if faults:
            return faults[0](query, tcp, truth)
        return truth if tcp or len(truth) <= MAX_UDP else _truncated(query)

    def truth(self, query: Query) -> bytes:
        """What the records say, with an SOA where there is nothing."""
        name, kind = asked(query)
        plain = str(name).rstrip(".").lower()
        if found := self.records.get((plain, kind)):
            rdata = [quoted(one) if kind == "TXT" else one for one in found]
            return wire(reply(query, record(name, kind, *rdata, ttl=self.ttl)))
        exists = any(known == plain for known, _ in self.records)
        made = reply(query, rcode=dns.rcode.NOERROR if exists else dns.rcode.NXDOMAIN)
        made.authority.append(record(dns.name.root, "SOA", "a. b. 1 2 3 4 60", ttl=self.ttl))
        return wire(made)


@contextmanager
def run(records: Records | None = None, ttl: int = 60) -> Iterator[HostileDns]:
    """A server that tells the truth until a test gives it faults."""
    hostile = HostileDns(dict(records or {}), ttl)
    with name_server(hostile.answer) as (server, log):
        hostile.port, hostile.asked = int(server.rpartition(":")[2]), log
        yield hostile

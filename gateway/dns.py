"""Questions to the DNS, asked so that a lying, slow or dead server costs a deadline and never the gateway.

The rule: an empty answer means that there is no such record; when nobody could tell, `Temporary` is raised. Names are
absolute and checked here, answers are bounded and checked here, and callers see plain values only.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver
import dns.reversename

from gateway.model import Temporary

MAX_RECORDS = 256
"""Records of one answer that are looked at."""

MAX_TXT = 4096
"""Octets a TXT record may have, its strings joined. A longer one is as if it were not there."""

MAX_TTL = 3600.0
MAX_NEGATIVE_TTL = 300.0
"""Seconds for which an answer, or the answer that there is none, is kept at most."""

CACHE_SIZE = 16 << 20
"""Octets of all answers kept, reckoned generously."""

CONCURRENT = 256
"""Questions under way at the same time; others wait, inside their own deadline."""

_ENTRY_SIZE = 512  # what a cache entry costs beside its texts
_HOST_NAME = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")

_Value: TypeAlias = str | bytes | tuple[int, str]
_Question: TypeAlias = tuple[dns.name.Name, str]


class Resolver:
    """`gateway.model.Dns` over dnspython.

    `servers` are written "192.0.2.1", "192.0.2.1:5353", "2001:db8::1" or "[2001:db8::1]:53"; where there are none,
    /etc/resolv.conf names them. `timeout` is the seconds one question may take, all tries and servers included.
    """

    def __init__(self, servers: Sequence[str] = (), timeout: float = 5.0) -> None:
        self._resolver = _stub(servers, timeout)
        self._timeout = timeout
        self._cache = _Cache(CACHE_SIZE)
        self._asked: dict[_Question, asyncio.Task[tuple[_Value, ...]]] = {}
        self._turns = asyncio.Semaphore(CONCURRENT)

    async def a(self, name: str) -> Sequence[str]:
        """The IPv4 addresses of *name*."""
        return await self._ask(_absolute(name), "A")

    async def aaaa(self, name: str) -> Sequence[str]:
        """The IPv6 addresses of *name*."""
        return await self._ask(_absolute(name), "AAAA")

    async def mx(self, name: str) -> Sequence[tuple[int, str]]:
        """The (preference, host) pairs of *name*, best first. A null MX (RFC 7505) is (0, "")."""
        return await self._ask(_absolute(name), "MX")

    async def txt(self, name: str) -> Sequence[bytes]:
        """The TXT records of *name*, the strings of each joined."""
        return await self._ask(_absolute(name), "TXT")

    async def ptr(self, address: str) -> Sequence[str]:
        """The host names that the reverse zone gives for *address*. They are claims, not proof."""
        return await self._ask(_reverse(address), "PTR")

    async def _ask(self, name: dns.name.Name | None, kind: str) -> Sequence[Any]:
        """Answer from the cache, or from the question that is already under way, or by a new one."""
        if name is None:
            return ()
        question = (name, kind)
        if (known := self._cache.get(question)) is not None:
            return known
        if (task := self._asked.get(question)) is None:
            task = asyncio.ensure_future(self._query(question))
            self._asked[question] = task
            task.add_done_callback(lambda done: self._forget(question, done))
        return await asyncio.shield(task)  # one caller that gives up does not take the answer from the others

    def _forget(self, question: _Question, task: asyncio.Task[tuple[_Value, ...]]) -> None:
        self._asked.pop(question, None)
        if not task.cancelled():
            task.exception()  # seen, so that nothing is logged when every caller has gone

    async def _query(self, question: _Question) -> tuple[_Value, ...]:
        name, kind = question
        try:
            async with asyncio.timeout(self._timeout), self._turns:
                answer = await self._resolver.resolve(name, kind, raise_on_no_answer=False, search=False)
            _be_whole(answer)
            values, ttl = _values(answer, kind), float(answer.chaining_result.minimum_ttl)
        except dns.resolver.NXDOMAIN as missing:
            values, ttl = (), _negative_ttl(missing)
        except (TimeoutError, dns.exception.Timeout):
            raise Temporary(f"no name server answered within {self._timeout:g} s") from None
        except (dns.exception.DNSException, OSError, EOFError, ValueError) as error:
            raise Temporary(f"the DNS could not be asked ({type(error).__name__})") from None
        self._cache.put(question, values, min(ttl, MAX_TTL if values else MAX_NEGATIVE_TTL))
        return values


class _Cache:
    """Answers by question. The least recently used are thrown out until the rest fits into `limit` octets."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._clock = limit, clock
        self._entries: OrderedDict[_Question, tuple[float, tuple[_Value, ...]]] = OrderedDict()
        self.size = 0

    def get(self, question: _Question) -> tuple[_Value, ...] | None:
        """The answer kept, or None. An answer of no records is the empty tuple."""
        if (entry := self._entries.get(question)) is None:
            return None
        if entry[0] <= self._clock():
            self._drop(question)
            return None
        self._entries.move_to_end(question)
        return entry[1]

    def put(self, question: _Question, values: tuple[_Value, ...], ttl: float) -> None:
        """Keep *values* for *ttl* seconds."""
        if ttl <= 0:
            return
        if question in self._entries:
            self._drop(question)
        self._entries[question] = (self._clock() + ttl, values)
        self.size += _cost(values)
        while self.size > self._limit:
            self._drop(next(iter(self._entries)))

    def _drop(self, question: _Question) -> None:
        self.size -= _cost(self._entries.pop(question)[1])


def _cost(values: tuple[_Value, ...]) -> int:
    return _ENTRY_SIZE + sum(64 + (len(value) if isinstance(value, (str, bytes)) else 320) for value in values)


def _stub(servers: Sequence[str], timeout: float) -> dns.asyncresolver.Resolver:
    resolver = _system_stub() if not servers else dns.asyncresolver.Resolver(configure=False)
    if servers:
        resolver.nameservers = [dns.nameserver.Do53Nameserver(*_host_and_port(server)) for server in servers]
    resolver.lifetime = timeout
    resolver.timeout = min(2.0, timeout / 2.5)  # for one try, so that others are left
    resolver.use_edns(0, 0, 1232)  # what passes every network unfragmented; longer answers come by TCP
    return resolver


def _system_stub() -> dns.asyncresolver.Resolver:
    try:
        return dns.asyncresolver.Resolver()
    except dns.resolver.NoResolverConfiguration:
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = ["127.0.0.1"]  # resolv.conf(5): the default without an entry
        return resolver


def _host_and_port(server: str) -> tuple[str, int]:
    """Split "192.0.2.1:53", "[::1]:53" or a bare address; raise ValueError where it is no address."""
    match = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::(\d{1,5}))?|([0-9.]+)(?::(\d{1,5}))?", server)
    host = (match[1] or match[3]) if match else server
    port = int((match[2] or match[4] or 53) if match else 53)
    if not 0 < port < 1 << 16:
        raise ValueError("a port is a number from 1 to 65535")
    return str(ipaddress.ip_address(host)), port


def _absolute(name: str) -> dns.name.Name | None:
    """*name* as an absolute DNS name, or None where no such name can exist (RFC 1035 2.3.4).

    Any printable ASCII character may stand in a label, for SPF macros make such names; international names come
    as A-labels (RFC 5891 4.4).
    """
    labels = name.removesuffix(".").lower().split(".")
    if len(name.removesuffix(".")) > 253 or not all(0 < len(label) < 64 for label in labels):
        return None
    if not (name.isascii() and name.isprintable()):
        return None
    return dns.name.Name([*(label.encode("ascii") for label in labels), b""])


def _reverse(address: str) -> dns.name.Name | None:
    try:
        return dns.reversename.from_address(str(ipaddress.ip_address(address)))
    except ValueError:
        return None


def _be_whole(answer: dns.resolver.Answer) -> None:
    """Raise `Temporary` where *answer* only looks as if there were no record (RFC 2308 2.2: a referral has no SOA)."""
    if answer.response.flags & dns.flags.TC:
        raise Temporary("a name server cut its answer short")
    kinds = {records.rdtype for records in answer.response.authority}
    if not answer.rrset and dns.rdatatype.NS in kinds and dns.rdatatype.SOA not in kinds:
        raise Temporary("a name server that does not resolve referred us to others")


def _values(answer: dns.resolver.Answer, kind: str) -> tuple[_Value, ...]:
    """The records of *answer* as plain values, at most `MAX_RECORDS`."""
    records = list(answer.rrset or ())[:MAX_RECORDS]
    match kind:
        case "A" | "AAAA":
            return tuple(str(ipaddress.ip_address(record.address)) for record in records)
        case "MX":
            return tuple(sorted((record.preference, _text(record.exchange)) for record in records))
        case "TXT":
            return tuple(text for text in map(_joined, records) if len(text) <= MAX_TXT)
        case _:
            return tuple(_host_names(_text(record.target) for record in records))


def _text(name: dns.name.Name) -> str:
    """*name* in lower case without the last dot; dnspython writes odd octets as escapes, so it is printable."""
    return "" if name == dns.name.root else name.to_text(omit_final_dot=True).lower()


def _joined(record: Any) -> bytes:
    return b"".join(record.strings)


def _host_names(names: Iterable[str]) -> list[str]:
    """Those of *names* that are spelled like host names; whoever writes a reverse zone may write anything."""
    return [name for name in names if _HOST_NAME.fullmatch(name) and len(name) <= 253]


def _negative_ttl(missing: dns.resolver.NXDOMAIN) -> float:
    """For how long a name that does not exist stays so (RFC 2308 5); 0 where the server did not say."""
    responses: dict[dns.name.Name, dns.message.Message] = missing.kwargs.get("responses") or {}
    return min(map(_chain_ttl, responses.values()), default=0.0)


def _chain_ttl(response: dns.message.Message) -> float:
    try:
        return float(response.resolve_chaining().minimum_ttl)  # type: ignore[attr-defined]  # it is a QueryMessage
    except (dns.exception.DNSException, AttributeError):
        return 0.0

"""Questions to the DNS, asked so that a lying, slow or dead server costs a deadline and never the gateway.

The rule: an empty answer means that there is no such record; when nobody could tell, `Temporary` is raised. Names are
absolute and checked here, answers are bounded and checked here, and callers see plain values only.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import re
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

import dns.exception
import dns.name
import dns.rcode
import dns.rdatatype
import dns.resolver

from gateway.dns import server
from gateway.dns.cache import Cache, Key, Value
from gateway.dns.reply import MAX_RECORDS
from gateway.dns.server import Answer, Missing, Question, Server
from gateway.model import Oversized, Temporary

MAX_TXT = 4096
"""Octets a TXT record may have, its strings joined. A longer one is as if it were not there."""

MAX_TTL = 3600.0
MAX_NEGATIVE_TTL = 300.0
"""Seconds for which an answer, or the answer that there is none, is kept at most."""

CACHE_SIZE = 16 << 20
"""Octets of all answers kept, reckoned generously."""

CONCURRENT = 1024
"""Questions under way at the same time; others wait, inside their own deadline."""

AGAIN = 0.1
"""Seconds until servers that were silent are asked once more; twice as long each time."""

_HOST_NAME = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")


class _Useless(Exception):
    """A server has answered, but that is no answer; the text says why."""


class Resolver:
    """`gateway.model.Dns`, asked of recursive name servers; dnspython reads their answers.

    `servers` are written "192.0.2.1", "192.0.2.1:5353", "2001:db8::1" or "[2001:db8::1]:53"; where there are none,
    /etc/resolv.conf names them. `timeout` is the seconds one question may take, all tries and servers included.
    """

    def __init__(self, servers: Sequence[str] = (), timeout: float = 5.0) -> None:
        self._servers = [server.at(one) for one in servers or _of_the_system()]
        self._timeout, self._try = timeout, min(2.0, timeout / 2.5)  # for one try, so that others are left
        self._cache = Cache(CACHE_SIZE)
        self._asked: dict[Key, asyncio.Task[tuple[Value, ...]]] = {}
        self._trials: set[asyncio.Task[bool]] = set()
        self._turns = asyncio.Semaphore(CONCURRENT)

    async def a(self, name: str) -> Sequence[str]:
        """The IPv4 addresses of *name*."""
        return await self._ask(name, "A")

    async def aaaa(self, name: str) -> Sequence[str]:
        """The IPv6 addresses of *name*."""
        return await self._ask(name, "AAAA")

    async def mx(self, name: str) -> Sequence[tuple[int, str]]:
        """The (preference, host) pairs of *name*, best first. A null MX (RFC 7505) is (0, "")."""
        return await self._ask(name, "MX")

    async def txt(self, name: str) -> Sequence[bytes]:
        """The TXT records of *name*, the strings of each joined."""
        return await self._ask(name, "TXT")

    async def ptr(self, address: str) -> Sequence[str]:
        """The host names that the reverse zone gives for *address*. They are claims, not proof."""
        try:
            name = _reverse(address)
        except ValueError:
            return ()
        return await self._ask(name, "PTR")

    async def silent(self) -> list[str]:
        """The servers that do not answer now, asked one by one; for `status`."""
        question = Question((), "NS")
        answers = await asyncio.gather(*(self._answers(one, question) for one in self._servers))
        return [str(one) for one, answer in zip(self._servers, answers, strict=True) if not answer]

    async def _ask(self, name: str, kind: str) -> Sequence[Any]:
        """Answer from the cache, or from the question that is already under way, or by a new one."""
        key = (name.lower().removesuffix("."), kind)
        if (known := self._cache.get(key)) is not None:
            return known
        if (task := self._asked.get(key)) is None:
            if not (labels := _labels(key[0])):
                return ()
            task = self._asked[key] = asyncio.ensure_future(self._query(key, Question(labels, kind)))
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)  # one caller that gives up does not take the answer from the others

    def _forget(self, key: Key, task: asyncio.Task[tuple[Value, ...]]) -> None:
        self._asked.pop(key, None)
        if not task.cancelled():
            task.exception()  # seen, so that nothing is logged when every caller has gone

    async def _query(self, key: Key, question: Question) -> tuple[Value, ...]:
        try:
            async with asyncio.timeout(self._timeout), self._turns:
                values, ttl = await self._answer(question)
        except TimeoutError:
            raise Temporary(f"no name server answered within {self._timeout:g} s") from None
        self._cache.put(key, values, min(ttl, MAX_TTL if values else MAX_NEGATIVE_TTL))
        return values

    async def _answer(self, question: Question) -> tuple[tuple[Value, ...], float]:
        """Ask server after server until one can tell, those that were only silent again and again."""
        servers, pause, why = self._in_order(question), AGAIN, ""
        while servers:
            for one in list(servers):
                try:
                    return _understood(await one.ask(question, self._try), question.kind)
                except TimeoutError:
                    continue
                except server.TooLong:
                    raise Oversized(f"the answer has more than {server.MAX_TCP >> 10} KB") from None
                except _Useless as useless:
                    why = str(useless)
                except (dns.exception.DNSException, OSError, EOFError, ValueError) as error:
                    why = type(error).__name__
                servers.remove(one)
            if servers:
                await asyncio.sleep(pause)
                pause *= 2
        raise Temporary(f"the name servers could not tell ({why})")

    def _in_order(self, question: Question) -> list[Server]:
        """Those that answer come first. Whether a silent one is back is tried beside, so that nobody waits for it."""
        for one in self._servers:
            if len(self._servers) > 1 and one.wants_trial():
                self._begin(self._answers(one, question))
        return sorted(self._servers, key=lambda one: one.silent)

    def _begin(self, trial: Coroutine[Any, Any, bool]) -> None:
        task = asyncio.ensure_future(trial)
        self._trials.add(task)
        task.add_done_callback(self._trials.discard)

    async def _answers(self, one: Server, question: Question) -> bool:
        try:
            await one.ask(question, self._try)
        except (TimeoutError, dns.exception.DNSException, OSError, EOFError, ValueError):
            return False
        return True


@functools.lru_cache(4096)
def _reverse(address: str) -> str:
    """The name in the reverse zone for *address*, which a session asks about again and again."""
    return ipaddress.ip_address(address).reverse_pointer


def _of_the_system() -> list[str]:
    try:
        return [str(name) for name in dns.resolver.Resolver().nameservers]
    except dns.resolver.NoResolverConfiguration:
        return ["127.0.0.1"]  # resolv.conf(5): the default without an entry


def _labels(name: str) -> tuple[bytes, ...]:
    """The labels of *name*, or none where no such name can exist (RFC 1035 2.3.4).

    Any printable ASCII character may stand in a label, for SPF macros make such names; international names come
    as A-labels (RFC 5891 4.4).
    """
    labels = name.split(".")
    if len(name) > 253 or not all(0 < len(label) < 64 for label in labels):
        return ()
    if not (name.isascii() and name.isprintable()):
        return ()
    return tuple(label.encode("ascii") for label in labels)


def _understood(response: Answer, kind: str) -> tuple[tuple[Value, ...], float]:
    """The values that *response* tells and the seconds for which they hold; `_Useless` where it tells nothing.

    A referral to others looks as if there were no record (RFC 2308 2.2: it has no SOA).
    """
    if isinstance(response, Missing):
        return (), response.ttl
    if response.rcode not in {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}:
        raise _Useless(dns.rcode.to_text(response.rcode))
    records, ttl = response.to(dns.rdatatype.from_text(kind))
    if not records and response.is_referral:
        raise _Useless("they refer us to others")
    return tuple(dict.fromkeys(_values(records, kind))), ttl


def _values(answer: Sequence[Any], kind: str) -> tuple[Value, ...]:
    """The records of *answer* as plain values, at most `MAX_RECORDS`."""
    records = answer[:MAX_RECORDS]
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

"""The questions that the domains of one mail cost: each asked once, no more than allowed, within their time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from typing import Any

from gateway.dmarc.record import Record, is_record, parse
from gateway.dmarc.tree import MAX_LABELS
from gateway.model import Dns, Oversized, Temporary

EXISTENCE = ("MX", "A", "AAAA", "TXT")
"""What a domain may have that exists. The DNS we ask does not tell NXDOMAIN from a name without such records."""

MIN_QUERIES = 1 + MAX_LABELS + len(EXISTENCE)
"""Questions that the record of the author's domain can cost; what is left is for the domains of SPF and DKIM."""


class TooMany(Exception):
    """The domains of one mail ask more questions than the settings allow."""


class Walks:
    """The questions for one mail, each asked once. What has no answer by the end of its time is `Temporary`, so what
    was told before then still counts.
    """

    def __init__(self, dns: Dns, queries: int, timeout: float) -> None:
        self._dns, self._queries, self._timeout = dns, queries, timeout
        self._ends = asyncio.get_running_loop().time() + timeout
        self._answers: dict[tuple[str, str], Sequence[Any] | Temporary] = {}
        self._records: dict[str, Record | None] = {}

    async def record(self, domain: str) -> Record | None:
        """The record of *domain* itself."""
        if domain not in self._records:
            # The existence of the author's domain is asked last, and there have to be questions left for that.
            texts = await self._ask("TXT", f"_dmarc.{domain}", self._queries - len(EXISTENCE))
            self._records[domain] = parse(domain, texts)
        return self._records[domain]

    async def exists(self, domain: str) -> bool:
        """Whether *domain* has any of the records that domains of mail have (A.4)."""
        for kind in EXISTENCE:
            if await self._ask(kind, domain, self._queries):
                return True
        return False

    def missing(self) -> str:
        """Why no record was found, in words."""
        for name in (name for name, record in self._records.items() if record is None):
            texts = self._answers.get(("TXT", f"_dmarc.{name}"), ())
            if not isinstance(texts, Temporary) and (count := sum(map(is_record, texts))) > 1:
                return f"has no DMARC record that counts: there are {count} at _dmarc.{name}"
        return "has no DMARC record"

    async def _ask(self, kind: str, name: str, limit: int) -> Sequence[Any]:
        if (kind, name) not in self._answers:
            if len(self._answers) >= limit:
                raise TooMany
            self._answers[kind, name] = await self._answer(kind, name)
        answer = self._answers[kind, name]
        if isinstance(answer, Temporary):
            raise answer
        return answer

    async def _answer(self, kind: str, name: str) -> Sequence[Any] | Temporary:
        ask = {"TXT": self._dns.txt, "MX": self._dns.mx, "A": self._dns.a, "AAAA": self._dns.aaaa}[kind]
        try:
            async with asyncio.timeout_at(self._ends):
                return await ask(name)
        except TimeoutError:
            return Temporary(f"no answer within {self._timeout:g} s")
        except Oversized:  # there is something, and it is no record that says what the owner wants
            return (b"too large",)
        except Temporary as error:
            return error

    def facts(self) -> Iterator[str]:
        """The answers that were used, one on a line."""
        for (kind, name), answer in self._answers.items():
            if isinstance(answer, Temporary):
                yield f"{kind} {name}: nobody could tell"
            else:
                yield f"{kind} {name}: {', '.join(map(_plain, answer[:5])) or 'none'}"


def _plain(value: object) -> str:
    """An answer of the DNS, printable and short."""
    match value:
        case bytes() as text:
            words = text.decode("ascii", "replace")
        case (int() as preference, str() as host):
            words = f"{preference} {host}"
        case _:
            words = str(value)
    return re.sub(r"[^\x20-\x7e]", "?", words[:400])

"""Which of the domains that authenticated a mail are of its author's organisation (RFC 9989 4.4, 4.10.2)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from filters._dmarc.walks import TooMany, Walks
from gateway.dmarc.record import Record
from gateway.dmarc.tree import count, is_of_organisation, is_within, organisation, public_suffix, walk
from gateway.model import ERROR, Finding, Found, Mail, Temporary

_DOMAIN = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_SERVICE = re.compile(r"(?:\A|\.)_")
"""A name of this form is no host (RFC 8552): often strangers may publish there, to answer challenges for instance."""


class Identifier(NamedTuple):
    """A domain that has authenticated the mail, or that could not be asked now whether it did."""

    method: str
    domain: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the filters before have found. `unsure`: one of them could not tell, and nobody knows about which domain."""

    identifiers: tuple[Identifier, ...]
    unsure: bool
    forwarded: bool


@dataclass(frozen=True, slots=True)
class Alignment:
    """Which identifiers align. `unknown` are those that nobody could tell about, or that could not tell themselves."""

    aligned: tuple[Identifier, ...]
    unknown: tuple[Identifier, ...]

    def result(self, method: str) -> str:
        """What an aggregate report says of *method*."""
        return "pass" if any(one.method == method for one in self.aligned) else "fail"


def evidence(mail: Mail, found: Found) -> Evidence:
    """What counts here of the findings of spf, dkim and arc."""
    asked = [finding for name in ("spf", "dkim") for finding in found.get(name, ())]
    unsure = any(finding.code in {ERROR, "temperror"} and finding.result is None for finding in asked)
    # That of arc.py says: a trusted sealer would vouch for it. A refusal could not be taken back.
    unsure |= any(finding.code in {ERROR, "temperror"} for finding in found.get("arc", ()))
    identifiers = tuple(dict.fromkeys(_identifiers(mail, asked)))
    forwarded = any(finding.code == "trusted" for finding in found.get("arc", ()))
    return Evidence(identifiers, unsure, forwarded)


def _identifiers(mail: Mail, findings: Iterable[Finding]) -> Iterator[Identifier]:
    """The domains of SPF and DKIM results. HELO stands in for an empty MAIL FROM alone (4.4.2, RFC 7208 2.4)."""
    properties = {"spf": "smtp.mailfrom" if mail.envelope.sender else "smtp.helo", "dkim": "header.d"}
    for result in (finding.result for finding in findings):
        if result is not None and result.method in properties and result.result in {"pass", "temperror"}:
            domain = result.get(properties[result.method]).lower().removesuffix(".")
            if is_domain(domain) and not _SERVICE.search(domain):
                yield Identifier(result.method, domain, result.result == "pass")


@dataclass(frozen=True, slots=True)
class Aligner:
    """Knows which identifiers align with `author`, as `record` wants it."""

    author: str
    record: Record
    walks: Walks
    parents_align: bool

    async def sort(self, identifiers: Iterable[Identifier]) -> Alignment:
        """Which of *identifiers* align. One that could not be told is unknown, and so is an aligned one that did not
        pass because nobody could tell."""
        aligned: list[Identifier] = []
        unknown: list[Identifier] = []
        for one in sorted(identifiers, key=_cost):
            try:
                if await self._aligns(one):
                    (aligned if one.passed else unknown).append(one)
            except Temporary:
                unknown.append(one)
            except TooMany:
                continue  # it is too far away to count
        return Alignment(tuple(aligned), tuple(unknown))

    async def _aligns(self, identifier: Identifier) -> bool:
        if identifier.domain == self.author:
            return True
        mode = self.record.adkim if identifier.method == "dkim" else self.record.aspf
        if mode == "s" or identifier.domain.rpartition(".")[2] != self.author.rpartition(".")[2]:
            return False
        return await is_of_organisation(identifier.domain, self.author, self.walks.record) or (
            self.parents_align
            and _is_parent(identifier.domain, self.author, await walk(self.author, self.walks.record))
        )


def _cost(identifier: Identifier) -> tuple[bool, int]:
    """What passed comes first, and short names, which need few questions."""
    return not identifier.passed, count(identifier.domain)


def _is_parent(domain: str, author: str, records: Sequence[Record]) -> bool:
    """The fallback to the public suffix list: *domain* has no record, *author* below it has one, and no `psd` says
    where the organisation begins. For RFC 9989 these are two; for RFC 7489, by which many still publish, they are one.
    A sister of *author* is still a stranger, and so is whatever is itself a public suffix; but a parent that signs for
    all its customers, and that no list knows, vouches for any of them in the name of another.
    """
    if any(record.psd in {"y", "n"} for record in records) or not is_within(author, domain):
        return False
    if is_within(domain, organisation(author, records).domain):
        return False  # whose it is, the records have said
    return count(domain) > count(public_suffix(author))


def is_domain(domain: str) -> bool:
    """Whether it is spelled like a domain, in lower case; "_" is let pass."""
    return len(domain) <= 253 and _DOMAIN.fullmatch(domain) is not None

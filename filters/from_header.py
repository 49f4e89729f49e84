"""Does every reader see the same author, and may this sender write in that name? (RFC 5322 3.6.2)

The confined parser has read the From field (`Content.author`) and says where it is in doubt. Here is judged what its
display name pretends, and whether a mail of a user of ours bears an address of that user.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from gateway.model import Author, Direction, Finding, Found, Mail, Stage, Tools

MAX_ASKED = 8
"""Addresses of one mail that are looked up; a user who names more is nobody whom we know."""

_REPLACED = "\N{REPLACEMENT CHARACTER}"
"""The parser puts it for control characters, and for those that nobody sees or that turn the direction of writing."""

_ADDRESS = re.compile(r"([\w.+'-]{1,64}) ?@ ?((?:[\w-]{1,63}\.){1,9}[\w-]{2,63})")

_PROVEN = ("smtp.mailfrom", "header.d", "header.from")
"""What of a result is a domain that has been shown to stand behind the mail."""

_LOOKALIKES = {"CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE"}


@dataclass(frozen=True, slots=True)
class Settings:
    """Whom nobody from outside may pretend to be."""

    our_names: tuple[str, ...] = ()
    """Names of people and brands of ours; case does not matter."""


class Filter:
    """Asks once for each mail, when its header has been read."""

    stage: ClassVar[Stage] = Stage.MESSAGE
    codes: ClassVar[frozenset[str]] = frozenset(
        {"missing", "ambiguous", "misleading_name", "poses_as_ours", "unproven_ours", "sender_differs", "not_yours"}
    )
    after: ClassVar[frozenset[str]] = frozenset({"spf", "dkim", "dmarc"})

    def __init__(self, settings: Settings, tools: Tools) -> None:
        if any(len(name.strip()) < 3 for name in settings.our_names):
            raise ValueError("from_header.our_names: a name has at least three letters")
        self._names = tuple(_folded(name.strip()) for name in settings.our_names)
        self._tools = tools

    async def check(self, mail: Mail, found: Found) -> Sequence[Finding]:
        """At most one finding for each code. None where the parser could not read the header: `content` says that."""
        if mail.content.unscannable and not mail.content.headers:
            return []
        findings = list(_unclear(mail.content.author))
        if mail.session.direction is Direction.INBOUND:
            findings += [*[one async for one in self._pretended(mail)], *_unproven(mail, found)]
            return [*findings, *_sender_differs(mail.content.author)]
        return [*findings, *[one async for one in self._not_yours(mail)]]

    async def _pretended(self, mail: Mail) -> AsyncIterator[Finding]:
        """What the display name says that the address does not."""
        author = mail.content.author
        shown = _read(author.display)
        others = [match for match in _ADDRESS.finditer(shown) if not _related(match[2], author.domain)]
        if ours := await self._ours(mail, shown, [f"{match[1]}@{match[2]}" for match in others]):
            yield Finding("poses_as_ours", f"the name shows {ours}, and the address is at {author.domain}")
        elif others:
            yield Finding("misleading_name", f"the name shows an address at {others[0][2]}, not at {author.domain}")
        elif _mixes_alphabets(author.domain):
            yield Finding("misleading_name", f"{author.domain} mixes letters of several alphabets that look the same")

    async def _ours(self, mail: Mail, shown: str, addresses: Sequence[str]) -> str:
        """What of us a stranger shows in the name, in words; "" for nothing, and for authors of ours."""
        here = _here(mail)
        if not shown or any(_related(domain, mail.content.author.domain) for domain in here):
            return ""
        for domain in here:
            if re.search(rf"(?<![\w.-]){re.escape(domain)}(?![\w-])", shown):
                return f"the recipient's domain {domain}"
        for address in addresses[:MAX_ASKED]:
            if await self._tools.account_of(address):
                return f"{address}, which is a user here"
        return next(("a name that is ours" for name in self._names if name in shown), "")

    async def _not_yours(self, mail: Mail) -> AsyncIterator[Finding]:
        """Every address that says who wrote or sent it has to be one of the account's."""
        user, author = mail.session.user, mail.content.author
        claimed = dict.fromkeys([*filter(None, [author.address]), *author.senders])
        if not user or not claimed:
            return
        if len(claimed) > MAX_ASKED:
            yield Finding("not_yours", f"it names {len(claimed)} senders")
            return
        for address in claimed:
            if await self._tools.account_of(address) != user:
                yield Finding("not_yours", f"{address or 'an unreadable sender'} is no address of {user}")
                return


def _unclear(author: Author) -> Iterator[Finding]:
    if author.doubts:
        seen = f" (seen by one or another: {', '.join(author.domains)})" if author.domains else ""
        yield Finding("ambiguous", "; ".join(author.doubts[:3]) + seen, facts=author.domains)
    elif not author.address:
        yield Finding("missing", "no author's address is shown")


def _unproven(mail: Mail, found: Found) -> Iterator[Finding]:
    """A stranger who writes as a colleague of the recipient, where nothing shows that our domain lets him.

    Silent where SPF and DMARC are, as for hosts that hand other people's mail on to us: there nobody can tell.
    """
    domain = mail.content.author.domain
    results = [one.result for name in ("spf", "dkim", "dmarc") for one in found.get(name, ()) if one.result]
    passed = {one.get(name) for one in results if one.result == "pass" for name in _PROVEN}
    asked = any(one.method in {"spf", "dmarc"} for one in results)
    forwarded = any(one.code == "forwarded" for one in found.get("dmarc", ()))
    ours = next((here for here in sorted(_here(mail)) if domain == here or domain.endswith(f".{here}")), "")
    proven = forwarded or any(_related(one, ours) for one in passed if one)
    if asked and ours and not proven:
        yield Finding(
            "unproven_ours", f"it is written in the name of {ours}, the recipient's own, and nothing proves it"
        )


def _mixes_alphabets(domain: str) -> bool:
    """Whether a label of *domain* has Latin letters beside those of which many look like them (UTS 39, 5.1)."""
    for label in domain.split("."):
        try:
            letters = label[4:63].encode("ascii").decode("punycode") if label.startswith("xn--") else ""
        except UnicodeError:
            continue
        alphabets = {unicodedata.name(one, "").partition(" ")[0] for one in letters if one.isalpha()}
        if "LATIN" in alphabets and alphabets & _LOOKALIKES:
            return True
    return False


def _here(mail: Mail) -> set[str]:
    """The domains of the recipients."""
    return {one.address.rpartition("@")[2].lower() for one in mail.envelope.recipients}


def _sender_differs(author: Author) -> Iterator[Finding]:
    """Some programs show who sent it beside the author, or in place of the author ("on behalf of")."""
    domains = [address.rpartition("@")[2] or "an unreadable address" for address in author.senders]
    others = [domain for domain in domains if not _related(domain, author.domain)]
    if author.domain and others:
        yield Finding("sender_differs", f"sent by {others[0]}, written by {author.domain}")


def _related(one: str, other: str) -> bool:
    """Whether the domains are the same, or one lies in the other."""
    one = _a_labels(one)
    return one == other or one.endswith(f".{other}") or other.endswith(f".{one}")


def _a_labels(domain: str) -> str:
    """*domain* as the DNS compares it, as the address already is; as it stands where it has no such form."""
    try:
        return domain if domain.isascii() else domain.encode("idna").decode("ascii")
    except UnicodeError:
        return domain


def _read(display: str) -> str:
    """What eyes may read in a name: backwards too, where a character that turns the direction may have stood in it."""
    shown = _folded(display)
    return f"{shown} {shown[::-1]}" if _REPLACED in display and not _ADDRESS.search(shown) else shown


def _folded(text: str) -> str:
    """*text* as eyes compare it: full-width letters and signs as plain ones, without case and what is not seen."""
    seen = "".join(one for one in text if one != _REPLACED and unicodedata.category(one) != "Cf")
    return unicodedata.normalize("NFKC", seen).replace("\N{IDEOGRAPHIC FULL STOP}", ".").casefold()

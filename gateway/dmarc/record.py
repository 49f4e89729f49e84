"""DMARC records: what the owner of a domain publishes (RFC 9989 4.7, 4.8), read as tolerantly as that wants.

Rule: what is malformed counts as not said; only the version at its beginning makes a text a record.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

WISHES = ("none", "quarantine", "reject")
"""What an owner can ask for, mildest first."""

_VERSION = re.compile(rb"[vV][ \t]*=[ \t]*DMARC1[ \t]*(?:;|\Z)")
_URI = re.compile(r"[a-z][a-z0-9+.-]*:[^\s,!]+", re.IGNORECASE)
_MAILTO = re.compile(r"mailto:[^\s,!@?;]+@[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?", re.IGNORECASE)
_SIZE = re.compile(r"![0-9]+[kmgt]?\Z", re.IGNORECASE)
"""Behind a URI it is of RFC 7489, and counts no more (RFC 9989 4.8)."""


@dataclass(frozen=True, slots=True)
class Record:
    """What the owner of `domain` publishes (4.7): defaults where nothing valid is said, "" where there is none.

    `faulty`: `p` is missing or wrong, or `sp` or `np` is wrong. `uris`: whether `rua` names one valid URI at least, of
    whatever kind; `rua` has the mailto: ones, without sizes.
    """

    domain: str
    p: str = ""
    sp: str = ""
    np: str = ""
    adkim: str = "r"
    aspf: str = "r"
    psd: str = "u"
    t: str = "n"
    fo: str = ""
    rua: tuple[str, ...] = ()
    uris: bool = False
    faulty: bool = False

    @property
    def useless(self) -> bool:
        """Whether no DMARC processing is to be done with it (4.10.1)."""
        return self.faulty and not self.uris


def is_record(text: bytes) -> bool:
    """Whether *text* is a DMARC record, or one that wants reports of others (RFC 9990 4), whatever else it says."""
    return _VERSION.match(text) is not None


def parse(domain: str, texts: Iterable[bytes]) -> Record | None:
    """The record among the TXT records of _dmarc.*domain*; several are as good as none (4.10, step 2)."""
    own = [text for text in texts if is_record(text)]
    return _read(domain, tags(own[0])) if len(own) == 1 else None


def _read(domain: str, found: dict[str, str]) -> Record:
    rua = [_SIZE.sub("", uri.strip()) for uri in found.get("rua", "").split(",")]
    wishes = {name: _one_of(found, name, WISHES) for name in ("p", "sp", "np")}
    return Record(
        domain,
        **wishes,
        adkim=_one_of(found, "adkim", "rs") or "r",
        aspf=_one_of(found, "aspf", "rs") or "r",
        psd=_one_of(found, "psd", "ynu") or "u",
        t=_one_of(found, "t", "yn") or "n",
        fo=found.get("fo", ""),
        rua=tuple(uri for uri in rua if _MAILTO.fullmatch(uri)),
        uris=any(_URI.fullmatch(uri) for uri in rua),
        faulty=not wishes["p"] or any(name in found and not wishes[name] for name in ("sp", "np")),
    )


def tags(text: bytes) -> dict[str, str]:
    """The tags of a record behind its version. One that is malformed or stands there twice has the value ""."""
    found: dict[str, str] = {}
    for tag in text.decode("ascii", "replace").split(";")[1:]:
        name, _, value = (word.strip(" \t") for word in tag.partition("="))
        valid = name.lower() not in found and value.isascii() and value.isprintable()
        found[name.lower()] = value if valid else ""
    return found


def _one_of(found: dict[str, str], name: str, allowed: Iterable[str]) -> str:
    value = found.get(name, "").lower()
    return value if value in tuple(allowed) else ""

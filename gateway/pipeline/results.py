"""Authentication-Results (RFC 8601): the one field that says what we found, and away with all that pretend to be ours.

What stands in ours is written by its grammar, whatever strangers called themselves. What claims to be ours and is not
never reaches a reader, as somebody believes it: a mail program, the next host, or we ourselves on the way out.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator
from contextlib import suppress

from gateway.idn import a_labels
from gateway.model import Arc, Found, Result
from gateway.pipeline.actions import fields, name_of
from gateway.pipeline.mime import MAX_VALUE, MAX_WORDS, decode_words, raw_text

MAX_RESULTS = 50
WIDTH = 78
_ORDER = ("spf", "dkim", "arc", "dmarc")
_WORD = re.compile(r"[a-z][a-z0-9-]{0,39}")
_PROPERTY = re.compile(r"[a-z][a-z0-9-]{0,39}\.[a-z][a-z0-9_-]{0,39}")
_PLAIN = re.compile(r"(?:[\w!#$%&'*+^`{|}~.-]*@)?[\w.-]+|[\w!#$%&'*+^`{|}~.-]+", re.ASCII)

_NAMES = {b"authentication-results", b"arc-authentication-results"}
_PERHAPS_FORGED = (b"gatepost-", b"authentication-results")
"""Without these, which is quick to see, there is no need to look at each field."""
_UNPRINTABLE = bytes({*range(256)} - {*range(0x21, 0x7F)})
_COMMENT = re.compile(r"\([^()]*\)")
_NESTED = 10
"""Comments within each other that are looked past."""
_FLAT_COMMENT = re.compile(r"\([^)]*\)?")
_QUOTED_SIGN = re.compile(r'\\[()"=]')
MAX_NAME = 254
"""Characters at the end of a name that are compared: one more than a domain has."""
_ASSIGNED = re.compile(r'="?[^\s;"()<>,]*')
_INSTANCE = re.compile(rb"\s*i\s*=\s*([0-9]{1,3})\s*;", re.IGNORECASE)


def field(hostname: str, found: Found) -> bytes:
    """Our field: every result that a filter *found*, one a line, or "none" where nothing was checked (RFC 8601 2.2)."""
    results = [finding.result for findings in found.values() for finding in findings if finding.result is not None]
    results.sort(key=lambda result: _ORDER.index(result.method) if result.method in _ORDER else len(_ORDER))
    clauses = list(dict.fromkeys(map(_clause, filter(_is_sound, results))))[:MAX_RESULTS] or ["none"]
    return ";\r\n\t".join([f"Authentication-Results: {hostname}", *clauses]).encode("ascii") + b"\r\n"


def _is_sound(result: Result) -> bool:
    return bool(_WORD.fullmatch(result.method) and _WORD.fullmatch(result.result))


def _clause(result: Result) -> str:
    """One result with its properties, folded between them; properties without a value are left out."""
    lines, line = [], f"{result.method}={result.result}"
    for name, value in result.properties:
        if not value or not _PROPERTY.fullmatch(name):
            continue
        word = f"{name}={_value(value)}"
        if len(line) + len(word) >= WIDTH:
            lines.append(line)
            line = f"\t {word}"
        else:
            line += f" {word}"
    return "\r\n".join([*lines, line])


def _value(text: str) -> str:
    """*text* as a pvalue of RFC 8601 2.2: a token, a domain or an address as it is, anything else quoted."""
    text = text[:255]
    return text if _PLAIN.fullmatch(text) else '"' + re.sub(r"[^ !#-\[\]-~]", "?", text) + '"'


def genuine(
    block: bytes, hostname: str, kept: Collection[int] = (), *, domains: Collection[str] = frozenset()
) -> bytes:
    """*block* without what only we may write: X-Gatepost-*, and results that claim to be ours (RFC 8601 5).

    Of the ARC sets those in *kept* stay (see `own_sets`). For mail from the world *domains* are ours, in A-labels: who
    trusts one host of ours may trust all, so results of a host under them are taken out too. Lines that continue
    nothing are gone as well: they would continue a field of ours, which comes to stand above them.
    """
    block = re.sub(rb"\A(?:[ \t][^\n]*\n)+", b"", block)
    seen = block.translate(None, _UNPRINTABLE).lower()
    if not any(one in seen for one in _PERHAPS_FORGED):
        return block
    return b"".join(one for one in fields(block) if not _is_forged(one, hostname, kept, domains))


def own_sets(arc: Arc, found: Found, hostname: str, sealer: str = "") -> frozenset[int]:
    """The instances of the ARC sets that we made ourselves, when the mail passed us before, in a chain that holds.

    To take one of them out would break the chain of those who handed the mail on (RFC 8617 5.1). One that bears our
    name under somebody else's seal, or in a chain that does not hold, vouches for nothing but might be believed.
    """
    if not any(finding.result and finding.result.result == "pass" for finding in found.get("arc", ())):
        return frozenset()
    return frozenset(one.instance for one in arc.sets if _is_seal_of(one.seal.domain, hostname, sealer))


def _is_seal_of(domain: str, hostname: str, sealer: str) -> bool:
    domain, hostname = domain.lower(), hostname.lower()
    return bool(domain) and (
        domain in {hostname, sealer.lower()} or ("." in domain and hostname.endswith(f".{domain}"))
    )


def _is_forged(one: bytes, hostname: str, kept: Collection[int], domains: Collection[str]) -> bool:
    """Whether the field is of a kind that only we write; octets in its name that nobody sees do not count."""
    name = name_of(one).translate(None, _UNPRINTABLE)
    if name.startswith(b"x-gatepost-"):
        return True
    is_arc = name.startswith(b"arc-")
    if name not in _NAMES or not _claims(one, hostname, () if is_arc else domains):
        return False
    match = _INSTANCE.match(one.partition(b":")[2]) if is_arc else None
    return match is None or int(match[1]) not in kept


def _claims(one: bytes, hostname: str, domains: Collection[str]) -> bool:
    """Whether some reader may find our name where the server's stands: comments and quotes end elsewhere for others."""
    text = raw_text(one.partition(b":")[2].replace(b"\r\n", b""))
    if text.count("=?") > MAX_WORDS or (len(text) > MAX_VALUE and "=?" in text):
        return True  # nobody honest writes so, and we would not decode all of it
    wanted, readings = hostname.lower().rstrip("."), {_seen(text), _seen(decode_words(text))}
    everywhere = readings | set(map(_closed_up, readings))
    if any(name == wanted for reading in everywhere for name in _names_in(reading)):
        return True
    places = {place for reading in readings for place in _places(reading)} if domains else set[str]()
    if any(len(place) > MAX_VALUE for place in places):
        return True  # nor so
    ours = {wanted, *domains}
    return any(_is_within(name, ours) for place in places for name in _names_in(place))


def _seen(text: str) -> str:
    """*text* as who compares names maps it: no characters that nobody sees, dots and full-width letters plain."""
    if text.isascii():
        return text
    seen = "".join(one for one in text if unicodedata.category(one) != "Cf")
    return unicodedata.normalize("NFKC", seen).replace("\N{IDEOGRAPHIC FULL STOP}", ".")


def _places(text: str) -> Iterator[str]:
    """What stands before the first result, where the server's name has to be: readers end comments in different ways.

    Behind it honest servers name whom the mail is from, in comments too.
    """
    for one in {text, _QUOTED_SIGN.sub("", text)}:
        for reading in {one, _FLAT_COMMENT.sub(" ", one), _closed_up(one)}:
            yield reading.partition("=")[0]


def _is_within(name: str, domains: Collection[str]) -> bool:
    """Whether *name* is one of *domains*, or lies below one."""
    name = name[-MAX_NAME:]
    while name and name not in domains:
        name = name.partition(".")[2]
    return bool(name)


def _closed_up(text: str) -> str:
    """*text* as those read it who look past comments and white space around each dot, as OpenDMARC does."""
    for _ in range(_NESTED if "(" in text else 0):
        text = _COMMENT.sub(" ", text)
    return ".".join(map(str.strip, text.split(".")))


def _names_in(text: str) -> Iterator[str]:
    """All that might be the server's name, without regard to case, quotes and a final dot, in A-labels.

    Values of properties are not: "smtp.helo=gw.example" is said of us by others, not in our name.
    """
    text = _ASSIGNED.sub("=", text.replace("\\", "").lower())
    for word in re.split(r"[\s;\"=()<>,/:@\x00-\x1f]+", text):
        name = word.rstrip(".")
        with suppress(ValueError):
            name = name if name.isascii() else a_labels(name)
        yield name

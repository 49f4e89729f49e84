"""The grammar of what MAIL, RCPT and EHLO carry: RFC 5321 4.1, 6531 3.3, 1870, 6152, 3461, 4954. Pure functions.

Rule: what comes out is normalised, and is what everybody after us sees, routes and logs: the domain as lower-case
A-labels, the local part as sent, with quotes only where it needs them. What the grammar does not know is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from gateway.idn import a_labels
from gateway.model import Envelope, Recipient
from gateway.smtp import replies
from gateway.smtp.replies import ProtocolError, Reply

MAX_LOCAL = 64
MAX_DOMAIN = 255
MAX_PATH = 254
"""Octets, without the angle brackets (RFC 5321 4.5.3.1, with erratum 1690)."""

# UTF8-non-ascii of RFC 6531 without what no eye can see: C1 controls, zero width and bidirectional marks, surrogates.
_UTF8 = r"\u00a0-\u200a\u200c\u200d\u2010-\u2027\u202f-\u205f\u2070-\ud7ff\ue000-\ufefe\uff00-\U0010ffff"
_ATOM = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~{_UTF8}-]+"
_DOT_STRING = rf"{_ATOM}(?:\.{_ATOM})*"
_QUOTED = rf'"(?:[ !#-\[\]-~{_UTF8}]|\\[ -~])*"'
_LITERAL = r"\[[!-Z^-~]+\]"
_NAME = rf"[A-Za-z0-9.{_UTF8}-]+"

_PATH = re.compile(
    rf" ?<(?:(?P<route>@[^\s:<>\"]+):)?(?P<local>{_DOT_STRING}|{_QUOTED})@(?P<domain>{_LITERAL}|{_NAME})>(?P<rest>.*)"
)
_NULL = re.compile(r" ?<>(?P<rest>.*)")
_POSTMASTER = re.compile(r" ?<(?P<local>postmaster)>(?P<rest>.*)", re.IGNORECASE)
_PARAMETER = re.compile(rf"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~{_UTF8}]+))?")
_LDH = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_HELO_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[2-7][0-9A-F])+")
_XTEXT_UTF8 = re.compile(rf"(?:[!-*,-<>-~{_UTF8}]|\+[2-9A-F][0-9A-F])+")
_ROUTING = re.compile(r"[@%!]")


def mail(argument: str) -> tuple[Envelope, int]:
    """What follows MAIL, as an envelope without recipients and the size declared (0 where it was not)."""
    path, rest = _reverse_path(_after("FROM:", argument, replies.BAD_MAIL))
    given = _parameters(rest, replies.BAD_MAIL)
    size = _number(given.pop("SIZE", "0"))
    body = given.pop("BODY", "7BIT").upper()
    smtputf8 = _flag(given, "SMTPUTF8")
    ret = given.pop("RET", "").upper()
    envid = given.pop("ENVID", "")
    author = given.pop("AUTH", "<>")
    _demand(not given, replies.UNKNOWN_PARAMETER)
    _demand(body in ("7BIT", "8BITMIME") and ret in ("", "FULL", "HDRS"), replies.BAD_PARAMETER)
    _demand(not envid or _is_xtext(envid, 100), replies.BAD_PARAMETER)
    # Who is said to have submitted it (RFC 4954 5) is checked and forgotten: we trust nobody to say so.
    _demand(author == "<>" or _is_xtext(author, 500), replies.BAD_PARAMETER)
    sender = _normalised(path, replies.BAD_SENDER, smtputf8=smtputf8)
    _demand(not sender.endswith("]"), replies.SENDER_LITERAL)
    return Envelope(sender=sender, eight_bit=body == "8BITMIME", smtputf8=smtputf8, ret=ret, envid=envid), size


def rcpt(argument: str, *, smtputf8: bool = False) -> Recipient:
    """What follows RCPT. `<postmaster>` comes out as "postmaster", without a domain (RFC 5321 4.5.1)."""
    path, rest = _forward_path(_after("TO:", argument, replies.BAD_RCPT))
    given = _parameters(rest, replies.BAD_RCPT)
    notify = given.pop("NOTIFY", "").upper()
    orcpt = given.pop("ORCPT", "")
    _demand(not given, replies.UNKNOWN_PARAMETER)
    wishes = frozenset(notify.split(",")) if notify else frozenset()
    _demand(_may_notify(notify, wishes) and (not orcpt or _is_orcpt(orcpt, smtputf8)), replies.BAD_PARAMETER)
    if path is None:
        return Recipient("postmaster", wishes, orcpt)
    # No literal is an address of ours, and whoever asks for a route asks us to relay (RFC 5321 appendix C).
    _demand(not path["route"] and not path["domain"].startswith("["), replies.NOT_OURS)
    return Recipient(_normalised(path, replies.BAD_RECIPIENT, smtputf8=smtputf8), wishes, orcpt)


def helo(argument: str) -> str:
    """The name after HELO or EHLO, as A-labels or as an address literal.

    An underscore may stand in it, against the letter of RFC 5321: workstations have such names, and nothing here
    depends on it.
    """
    name = argument
    if name.startswith("["):
        _demand(_is_literal(name), replies.BAD_HELO)
        return name
    if not name.isascii():
        name = _a_labels(name, replies.BAD_HELO)
    labels_fit = all(_HELO_LABEL.fullmatch(label) for label in name.split("."))
    _demand(labels_fit and len(name) <= MAX_DOMAIN, replies.BAD_HELO)
    return name


def routes_onward(address: str) -> bool:
    """Whether the local part of *address* asks some host behind us to send it elsewhere (`user%there@here`)."""
    return bool(_ROUTING.search(address.rpartition("@")[0]))


def _demand(fine: bool, reply: Reply) -> None:
    if not fine:
        raise ProtocolError(reply)


def _after(keyword: str, argument: str, reply: Reply) -> str:
    _demand(argument[: len(keyword)].upper() == keyword, reply)
    return argument[len(keyword) :]


def _reverse_path(text: str) -> tuple[re.Match[str] | None, str]:
    """The match of a path (None for the null path) and what follows it.

    One space before the bracket is let pass: too many clients have always sent it.
    """
    if found := _NULL.fullmatch(text):
        return None, found["rest"]
    return _mailbox(text, replies.BAD_MAIL, replies.BAD_SENDER)


def _forward_path(text: str) -> tuple[re.Match[str] | None, str]:
    """The match of a path (None for `<postmaster>`) and what follows it."""
    if found := _POSTMASTER.fullmatch(text):
        return None, found["rest"]
    return _mailbox(text, replies.BAD_RCPT, replies.BAD_RECIPIENT)


def _mailbox(text: str, syntax: Reply, malformed: Reply) -> tuple[re.Match[str], str]:
    found = _PATH.fullmatch(text)
    if found is None:
        raise ProtocolError(malformed if re.match(" ?<", text) else syntax)
    return found, found["rest"]


def _parameters(rest: str, syntax: Reply) -> dict[str, str]:
    """The parameters in *rest* by upper-case keyword; one without a value has an empty one."""
    given: dict[str, str] = {}
    _demand(not rest or rest.startswith(" "), syntax)
    for word in filter(None, rest.split(" ")):
        found = _PARAMETER.fullmatch(word)
        if found is None or found[1].upper() in given:
            raise ProtocolError(replies.BAD_PARAMETER)
        given[found[1].upper()] = found[2] or ""
    _demand("" not in (given.get(key, "-") for key in _WITH_VALUE), replies.BAD_PARAMETER)
    return given


_WITH_VALUE = ("SIZE", "BODY", "RET", "ENVID", "AUTH", "NOTIFY", "ORCPT")


def _number(text: str) -> int:
    _demand(text.isascii() and text.isdigit() and len(text) <= 20, replies.BAD_PARAMETER)
    return int(text)


def _flag(given: dict[str, str], keyword: str) -> bool:
    value = given.pop(keyword, None)
    _demand(not value, replies.BAD_PARAMETER)
    return value is not None


def _normalised(path: re.Match[str] | Mapping[str, str] | None, malformed: Reply, *, smtputf8: bool) -> str:
    """The address of *path* as everybody after us will see it; empty for the null path."""
    if path is None:
        return ""
    sent = f"{path['local']}@{path['domain']}"
    _demand(sent.isascii() or smtputf8, replies.NEEDS_SMTPUTF8)
    _demand(not path["route"], malformed)
    local = _unquoted(path["local"])
    domain = _domain(path["domain"], malformed)
    fits = len(local.encode()) <= MAX_LOCAL and len(f"{local}@{domain}".encode()) <= MAX_PATH
    _demand(fits and len(sent.encode()) <= MAX_PATH, malformed)
    return f"{local}@{domain}"


def _unquoted(local: str) -> str:
    """*local* without quotes and backslashes that it does not need."""
    if not local.startswith('"'):
        return local
    bare = re.sub(r"\\(.)", r"\1", local[1:-1])
    if re.fullmatch(_DOT_STRING, bare):
        return bare
    return '"' + re.sub(r'(["\\])', r"\\\1", bare) + '"'


def _domain(text: str, malformed: Reply) -> str:
    if text.startswith("["):
        _demand(_is_literal(text), malformed)
        return text
    _demand(len(text.encode()) <= MAX_DOMAIN, malformed)
    name = text.lower()
    if not name.isascii() or "xn--" in name:
        name = _a_labels(name, malformed)
    *_, top = labels = name.split(".")
    # No top-level domain is a number (RFC 3696 2): what ends in one somebody else reads as an address
    _demand(all(map(_LDH.fullmatch, labels)) and not top.isdigit(), malformed)
    return name


def _a_labels(name: str, malformed: Reply) -> str:
    """The name by IDNA 2008. Strict: no dot but the dot, so that two readers cannot split it differently."""
    try:
        return a_labels(name)
    except ValueError:
        raise ProtocolError(malformed) from None


def _is_literal(text: str) -> bool:
    inner = text[1:-1]
    try:
        if inner[:5].upper() == "IPV6:":
            IPv6Address(inner[5:])
            return text.endswith("]") and "%" not in inner
        IPv4Address(inner)
    except AddressValueError:
        return False
    return text.endswith("]")


def _is_xtext(text: str, limit: int) -> bool:
    """Whether *text* is xtext (RFC 3461 4) that hides no control characters."""
    return len(text) <= limit and bool(_XTEXT.fullmatch(text)) and "+7F" not in text


def _may_notify(notify: str, wishes: frozenset[str]) -> bool:
    """NEVER alone, or some of the others (RFC 3461 4.1)."""
    return not notify or wishes == {"NEVER"} or wishes <= {"SUCCESS", "FAILURE", "DELAY"}


def _is_orcpt(orcpt: str, smtputf8: bool) -> bool:
    """An address type, a semicolon and xtext; type utf-8 may hold more (RFC 3461 4.2, 6533 3)."""
    kind, semicolon, value = orcpt.partition(";")
    if not semicolon or not re.fullmatch(r"[A-Za-z0-9-]{1,32}", kind) or len(orcpt.encode()) > 500:
        return False
    if kind.upper() == "UTF-8":
        return bool(_XTEXT_UTF8.fullmatch(value)) and (smtputf8 or value.isascii())
    return _is_xtext(value, 500)

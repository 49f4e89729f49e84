"""The nouns of the gateway. Read this file first.

A peer opens a `Session` and sends `Mail`. Filters return `Finding`s about it; a policy turns them into one
`Verdict` for each recipient; the store keeps one `Delivery` for each recipient. Everything here is a value:
frozen, comparable, free of I/O, and made of the standard library alone.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import BinaryIO, ClassVar, Protocol

ERROR = "error"
"""The code of every filter that could not tell. Each policy file has to decide it."""


class Stage(StrEnum):
    """The moment in the SMTP dialog at which a question can first be answered.

    At `RECIPIENT` the envelope has the recipients so far; the last of them is the one in question.
    """

    CONNECT = "connect"
    SENDER = "sender"
    RECIPIENT = "recipient"
    MESSAGE = "message"


class Action(StrEnum):
    """What a policy can do with a finding, mildest first.

    Text, not numbers: a policy file may also put a number where an action can stand, and the two must never be
    mistaken for each other.
    """

    ACCEPT = "accept"
    TAG = "tag"
    STRIP = "strip"
    QUARANTINE = "quarantine"
    DEFER = "defer"
    REJECT = "reject"

    @classmethod
    def strictest(cls, *actions: Action) -> Action:
        """The strictest of *actions*; `accept` where there are none."""
        return max((cls.ACCEPT, *actions), key=_STRICTNESS.__getitem__)


_STRICTNESS = {action: rank for rank, action in enumerate(Action)}


class Direction(StrEnum):
    """Where a mail comes from: the world, or our own people and networks."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


class ListenerKind(StrEnum):
    """What a listener is for: the world's mail, our users' mail, or our own hosts' mail."""

    MX = "mx"
    SUBMISSION = "submission"
    RELAY = "relay"


class State(StrEnum):
    """What has become of a mail for one recipient. The transitions stand in `gateway.store.queue`."""

    QUEUED = "queued"
    HELD = "held"
    MAILBOX = "mailbox"
    SENT = "sent"
    FAILED = "failed"
    DROPPED = "dropped"
    REFUSED = "refused"


class Notice(StrEnum):
    """What the sender is still to be told about a delivery (RFC 3464 2.3.3, the `Action` field)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"


@dataclass(frozen=True, slots=True)
class Session:
    """Who is talking to us, and how far they have proved it.

    `peer` is never IPv4 within IPv6. `tls` names the protocol version ("TLSv1.3"), or is empty. `user` is the login
    name after AUTH.
    """

    peer: IPv4Address | IPv6Address
    listener: str = "mx"
    kind: ListenerKind = ListenerKind.MX
    helo: str = ""
    tls: str = ""
    user: str = ""
    esmtp: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.peer, IPv6Address) and (mapped := self.peer.ipv4_mapped):
            object.__setattr__(self, "peer", mapped)  # so that no rule for IPv4 is escaped

    @property
    def direction(self) -> Direction:
        """Outbound is what our own people and hosts send; all else is inbound."""
        return Direction.INBOUND if self.kind is ListenerKind.MX and not self.user else Direction.OUTBOUND


@dataclass(frozen=True, slots=True)
class Recipient:
    """One RCPT TO: the address as normalised, and the DSN wishes of RFC 3461 (raw xtext, checked by grammar)."""

    address: str
    notify: frozenset[str] = frozenset()
    orcpt: str = ""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What MAIL FROM and RCPT TO said. An empty sender is a bounce.

    `ret` is "FULL", "HDRS" or empty; `envid` is raw xtext (RFC 3461 4.3, 4.4).
    """

    sender: str = ""
    recipients: tuple[Recipient, ...] = ()
    eight_bit: bool = False
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """One entity of the message: a body, an attachment, or a file inside an archive.

    `path` is "1.2" for MIME parts and "1.2/name" for what an archive in part 1.2 holds. `media_type` is declared,
    `sniffed` is what the first bytes say ("" where they say nothing). `text` is the decoded text of text parts,
    shortened, and only there for filters that run in the confined child. `span` is where the entity (its header
    included) stands in the bytes of the message, or None inside archives. `view` names the reading that alone saw it:
    "" is our own. `stored` is where its octets stand among those that were taken out of the mail (`Tools.open_stored`):
    what a scanner would not see in the message as it is; None for all else.

    Of archives and their files: `encrypted` is what nobody can look into, `unlocked` what was, with a password that
    stands in the mail; `unreadable` says in our words why nobody here can look into it, `link` where a link points.
    `sealed` is a message of S/MIME or OpenPGP that only its reader can open.
    """

    path: str
    media_type: str = ""
    filename: str = ""
    sniffed: str = ""
    size: int = 0
    encrypted: bool = False
    text: str = ""
    span: tuple[int, int] | None = None
    view: str = ""
    stored: tuple[int, int] | None = None
    unlocked: bool = False
    unreadable: str = ""
    link: str = ""
    sealed: bool = False


@dataclass(frozen=True, slots=True)
class Author:
    """Who wrote the mail, as its reader sees it: the one mailbox of the one From field (RFC 5322 3.6.2).

    `domain` is in A-labels and lower case; `display` is the display name, decoded. `doubts` says in our words why
    readers may see different authors; then `address` and `domain` are empty, and `domains` holds every one that
    somebody may see. Where there are neither doubts nor an address, nobody sees any. `senders` are the addresses of the
    fields Sender, Resent-From and Resent-Sender, "" for one that cannot be read.
    """

    address: str = ""
    domain: str = ""
    display: str = ""
    doubts: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    senders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Signature:
    """A DKIM-Signature, ARC-Message-Signature or ARC-Seal as the confined parser read it (RFC 6376 3.5, RFC 8617).

    What it claims, and what we computed of the mail: `value` has to be a signature of `digest`, the hash over the
    signed header fields, both in base64. `fault` says in our words why it cannot count, whatever the key; `broken` that
    the body is not the signed one. `partial`: it signs the first octets of the body only (l=). Times are seconds since
    the epoch, 0 where none is given.
    """

    domain: str = ""
    selector: str = ""
    algorithm: str = ""
    identity: str = ""
    value: str = ""
    digest: str = ""
    signed_at: int = 0
    expires: int = 0
    partial: bool = False
    broken: bool = False
    fault: str = ""


@dataclass(frozen=True, slots=True)
class ArcSet:
    """One hop of an ARC chain (RFC 8617 4.1): what it found, its signature over the message, its seal over the chain.

    `cv` is "none", "pass" or "fail", as the seal says. `results` are the results that the hop's own
    ARC-Authentication-Results name, as (method, result) in lower case; a method may stand there twice. `author` is the
    domain (header.from) that its one dmarc result is about; empty where it does not say.
    """

    instance: int
    cv: str
    message: Signature
    seal: Signature
    results: tuple[tuple[str, str], ...] = ()
    author: str = ""


@dataclass(frozen=True, slots=True)
class Arc:
    """The ARC chain of a message, oldest set first. `fault` says in our words why it is none (RFC 8617 5.2, step 3)."""

    sets: tuple[ArcSet, ...] = ()
    fault: str = ""


@dataclass(frozen=True, slots=True)
class ReportRecord:
    """One record of a DMARC aggregate report: `count` mails of address `source`, and what became of them (RFC 9990).

    `dkim` and `spf` say whether an aligned identifier passed ("pass", "fail"). `header_from` and `envelope_from` are
    domains. `results` has (method, result, domain, selector or scope) of each check. Words that the RFC does not know
    are "other".
    """

    source: str
    count: int
    disposition: str = "none"
    dkim: str = "fail"
    spf: str = "fail"
    header_from: str = ""
    envelope_from: str = ""
    reasons: tuple[str, ...] = ()
    results: tuple[tuple[str, str, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """A DMARC aggregate report about `domain`, as the confined reader saw it; every value cleaned, typed and capped.

    `fault` says in our words why it is none; then nothing else counts. Times are seconds since the epoch. `policy` is
    what `org` found published, as (tag, value). `faulty` counts the records that could not be read, `left` those that
    were too many, and `left_mails` the mails that these tell of.
    """

    fault: str = ""
    org: str = ""
    email: str = ""
    id: str = ""
    domain: str = ""
    begins: int = 0
    ends: int = 0
    policy: tuple[tuple[str, str], ...] = ()
    errors: tuple[str, ...] = ()
    records: tuple[ReportRecord, ...] = ()
    faulty: int = 0
    left: int = 0
    left_mails: int = 0


@dataclass(frozen=True, slots=True)
class Content:
    """The message as the confined parser saw it. Empty until DATA ends.

    `headers` holds name and unfolded value, in order, as text without control characters; `subject` is the first
    Subject with its encoded words decoded. `defects` names in our own words what is malformed, `ambiguities` what mail
    programs may read in two ways. `unscannable` says why the parser gave up, or is empty. `signatures` (DKIM, in the
    order of the header) and `arc` are read for mail from outside alone, `report` in mail for an address that reports
    are sent to.
    """

    headers: tuple[tuple[str, str], ...] = ()
    subject: str = ""
    parts: tuple[Part, ...] = ()
    defects: tuple[str, ...] = ()
    ambiguities: tuple[str, ...] = ()
    unscannable: str = ""
    size: int = 0
    author: Author = Author()
    signatures: tuple[Signature, ...] = ()
    arc: Arc = Arc()
    report: Report | None = None

    def values(self, name: str) -> list[str]:
        """All values of header field *name*, in order."""
        wanted = name.lower()
        length = len(name)  # which tells most names apart, and is quicker than lower()
        return [value for key, value in self.headers if len(key) == length and key.lower() == wanted]


@dataclass(frozen=True, slots=True)
class Mail:
    """Everything a filter may look at."""

    id: str
    session: Session
    envelope: Envelope = field(default_factory=Envelope)
    content: Content = field(default_factory=Content)


@dataclass(frozen=True, slots=True)
class Result:
    """What Authentication-Results says of one check (RFC 8601 2.2): method "dkim", result "pass", and what about.

    `properties` are named as there, in their order: ("header.d", "example.org"). Filters that build on others read
    them.
    """

    method: str
    result: str
    properties: tuple[tuple[str, str], ...] = ()

    def get(self, name: str) -> str:
        """The value of property *name*; empty where it has none."""
        return next((value for key, value in self.properties if key == name), "")


@dataclass(frozen=True, slots=True)
class Finding:
    """A fact that a filter established. It says nothing about what to do.

    `detail` is for people, one line; `part` the path of the part it is about; `facts` the evidence it rests on
    (the DNS answers used, the scanner's answer), as strings; `result` what Authentication-Results shall say of it.
    """

    code: str
    detail: str = ""
    part: str = ""
    facts: tuple[str, ...] = ()
    result: Result | None = None


Found = Mapping[str, Sequence[Finding]]
"""All findings on one mail, by the name of the filter that made them."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One finding and what the policy made of it for one recipient: an action, or an amount of score."""

    filter: str
    finding: Finding
    effect: Action | float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happens to the mail for one recipient, and why. `sentence` says it for people."""

    action: Action = Action.ACCEPT
    score: float = 0.0
    reasons: tuple[Reason, ...] = ()
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One mail for one recipient, as the store hands it out. Times are seconds since the epoch (UTC).

    `header` stands before the message's own bytes for this recipient. `mailbox` is the account it belongs to, or empty
    where the mail goes on to another host. `destination` is the recipient's domain. `size` counts `header` too.
    `queued_at` is when it came into its state: after a release from quarantine, retries count from there. `claims`
    counts the leases since the last one that ended in order. `outbound`: our own people or hosts, or we, wrote it.
    """

    id: int
    message_id: str
    sender: str
    recipient: Recipient
    state: State
    destination: str
    mailbox: str = ""
    header: bytes = b""
    size: int = 0
    attempts: int = 0
    accepted_at: float = 0.0
    queued_at: float = 0.0
    next_attempt: float = 0.0
    warned: bool = False
    notice: Notice | None = None
    last_reply: str = ""
    eight_bit: bool = False
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""
    claims: int = 0
    outbound: bool = False


class Temporary(Exception):
    """It cannot be told or done now; later it may. The text is ours, never a stranger's."""


class Oversized(Temporary):
    """The DNS has answered, with more than anybody honest says. Who knows no better takes it for no answer at all."""


class Permanent(Exception):
    """It cannot be done, and trying again will not help. The text is ours, never a stranger's."""


class Dns(Protocol):
    """Questions to the DNS. An empty answer means that there is no such record; `Temporary` that nobody could tell, and
    `Oversized` among them that an answer is too large to be read.
    """

    async def a(self, name: str) -> Sequence[str]: ...
    async def aaaa(self, name: str) -> Sequence[str]: ...
    async def mx(self, name: str) -> Sequence[tuple[int, str]]: ...
    async def txt(self, name: str) -> Sequence[bytes]: ...
    async def ptr(self, address: str) -> Sequence[str]: ...


class Shared(Protocol):
    """Small values and counters that all processes share, and that may be lost. `Temporary` when out of reach.

    Everything is forgotten `ttl` seconds after it was made; adding to a counter does not prolong its life. `add_all` is
    `add` for several counters in one step, with the counts in their order; an amount of 0 only reads.
    """

    async def get(self, key: str) -> str | None: ...
    async def put(self, key: str, value: str, ttl: float) -> None: ...
    async def add(self, key: str, amount: int, ttl: float) -> int: ...
    async def add_all(self, amounts: Mapping[str, int], ttl: float) -> Sequence[int]: ...
    async def claim(self, key: str, ttl: float) -> bool: ...


@dataclass(frozen=True, slots=True)
class Checked:
    """What became of a signature: `result` is that of RFC 8601 2.7.1 (pass, fail, neutral, permerror, temperror).

    `why` says it in our words. `bits` is the size of the key, 0 where there is none; `testing` that its owner is still
    trying (t=y). `fact` is the DNS answer that was used.
    """

    result: str
    why: str = ""
    bits: int = 0
    testing: bool = False
    fact: str = ""


class Signatures(Protocol):
    """Checks signatures against the keys that their domains publish. `now` is in seconds since the epoch."""

    async def check(self, signature: Signature, now: float) -> Checked: ...


@dataclass(frozen=True, slots=True)
class Tools:
    """What the gateway lends to a filter that asks the world. Tests lend fakes.

    `hostname` is our own name. `open_message` opens the bytes of the mail in hand for reading from their start.
    `open_stored` opens what the confined parser took out of it (`Part.stored`), read-only; `LookupError` where it took
    nothing. `account_of` gives the login that an address of ours belongs to, "" for others.
    """

    dns: Dns
    state: Shared
    hostname: str
    open_message: Callable[[Mail], BinaryIO]
    signatures: Signatures
    account_of: Callable[[str], Awaitable[str]]
    open_stored: Callable[[Mail], BinaryIO]


class Payloads(Protocol):
    """The octets of the parts of the mail in hand, decoded. Lent to pure filters alone, in the confined child.

    `of` gives at most *most* octets of *part*, fewer where there are no more, none where it cannot be read. `words` are
    those of the mail that may be the password of something in it, the likely ones first. `add` lays out a file that was
    found inside *part*: it becomes a part of its own, for scanners and for filters that judge `by_part`.
    """

    def of(self, part: Part, most: int) -> bytes: ...
    def words(self) -> Sequence[bytes]: ...
    def add(self, part: Part, name: str, octets: bytes) -> None: ...


class PureFilter(Protocol):
    """One question about the content, answered in the confined child: `def check` sees nothing but the mail.

    `codes` lists every finding it can report (`error` is understood), so that a policy can be checked for completeness
    before the first mail arrives. `after` names the filters whose findings it reads; a pure one may only read pure
    ones. One that judges each part by itself says so (`by_part = True`): of files that are found in parts it is asked
    in turn, by a mail with these alone. The module also holds a frozen dataclass `Settings`; the filter is made as
    `Filter(settings)`, or as `Filter(settings, payloads)` where it looks into parts. One that reads files of its own
    (`filters/yara.py`) has `folders`, where they are, and `version`, which names their texts: when one changes, all
    policies are loaded anew.
    """

    stage: ClassVar[Stage]
    codes: ClassVar[frozenset[str]]
    after: ClassVar[frozenset[str]]

    def check(self, mail: Mail, found: Found) -> Sequence[Finding]: ...


class AskingFilter(Protocol):
    """One question that needs the world: `async def check` asks through the `Tools` it was made with.

    It is made as `Filter(settings, tools)`, and runs in the gateway's process, so it never parses content itself.
    """

    stage: ClassVar[Stage]
    codes: ClassVar[frozenset[str]]
    after: ClassVar[frozenset[str]]

    def check(self, mail: Mail, found: Found) -> Awaitable[Sequence[Finding]]: ...


_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id() -> str:
    """A new mail id: 18 characters that sort by time (48 bits of milliseconds, then 42 random bits)."""
    number = int(time.time() * 1000) << 42 | secrets.randbits(42)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(85, -1, -5))

"""The policies of stages that are not filters: edge, logins, content, score, routes, queue, relay, quarantine, pop3,
reports, signing.

Each class is one file of the policy directory, and says what its settings mean; `gateway.pipeline.policy` reads the
files of filters. A file in the configured directory replaces the shipped one of the same name, whole.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from gateway import toml
from gateway.config import SHIPPED_POLICIES, Network, Networks
from gateway.idn import a_labels
from gateway.model import Action
from gateway.toml import Duration, Fault, FaultyFiles, List, Size, Table

Count = Annotated[int, Field(ge=1)]
Wait = Annotated[Duration, Field(gt=0)]
"""A time that no peer can do without."""

_HOME = ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")


def _home() -> tuple[Network, ...]:
    """Loopback and private networks (RFC 1918, RFC 4193)."""
    return tuple(map(ip_network, _HOME))


class Edge(Table):
    """edge.toml: what one SMTP session may ask of us. Every limit has a reply of its own."""

    message_size: Size = 50 << 20
    header_size: Size = 256 << 10
    recipients: Count = 100
    null_sender_recipients: Count = 1
    hops: Count = 50
    commands: Count = 1000
    errors: Count = 10
    unknown_recipients: Count = 20
    messages: Count = 100
    auth_failures: Count = 3
    idle_timeout: Duration = 300.0
    data_timeout: Duration = 180.0
    data_rate: Annotated[int, Field(ge=0)] = 100
    data_window: Wait = 180.0
    write_timeout: Wait = 60.0
    handshake_timeout: Wait = 30.0
    proxy_timeout: Wait = 5.0
    session_time: Duration = 3600.0
    connections: Count = 1000
    connections_per_peer: Count = 100
    connections_per_network: Count = 200
    network_ipv4: Annotated[int, Field(ge=8, le=32)] = 24
    network_ipv6: Annotated[int, Field(ge=16, le=64)] = 48
    crowded: Annotated[int, Field(ge=1, le=100)] = 80
    crowded_timeout: Wait = 10.0
    strict_turns: bool = True
    greeting_delay: Duration = 3.0
    greeting_pass: Duration = 7 * 86400.0
    greeting_exempt: Networks = Field(default_factory=_home)
    memory_spool: Size = 256 << 10


class Logins(Table):
    """logins.toml: how often somebody may guess, over SMTP and POP3 together."""

    free_per_user: Count = 5
    free_per_peer: Count = 50
    pause: Wait = 10.0
    longest_pause: Wait = 900.0
    memory: Wait = 3600.0
    delay: Duration = 2.0
    turn: Wait = 10.0
    known: Duration = 30 * 86400.0
    threads: Count = 2


class Pop3(Table):
    """pop3.toml: what one POP3 session may ask of us.

    `idle_timeout` may not be shorter than ten minutes (RFC 1939 3). `write_timeout` is how long a peer may leave what
    we sent unread, `linger` how long it may take to hang up.
    """

    login_timeout: Wait = 60.0
    idle_timeout: Wait = 600.0
    handshake_timeout: Wait = 10.0
    proxy_timeout: Wait = 5.0
    write_timeout: Wait = 60.0
    linger: Wait = 5.0
    lease: Wait = 60.0
    connections: Count = 500
    connections_per_peer: Count = 20
    connections_per_network: Count = 100
    network_ipv4: Annotated[int, Field(ge=8, le=32)] = 24
    network_ipv6: Annotated[int, Field(ge=16, le=64)] = 48


class Content(Table):
    """content.toml: how much of a mail the confined parser looks at, and what happens to mail it cannot read."""

    class Settings(Table):
        """Limits of the parser and of the processes that it runs in."""

        header_size: Size = 256 << 10
        fields: Count = 1000
        parts: Count = 500
        depth: Count = 20
        parameters: Count = 50
        encoded_words: Count = 1000
        archive_members: Count = 2000
        archive_size: Size = 64 << 20
        archive_depth: Count = 3
        archive_ratio: Count = 200
        text_size: Size = 256 << 10
        cpu: Duration = 2.0
        timeout: Duration = 5.0
        memory: Size = 176 << 20
        payload_size: Size = 64 << 20
        confinement: Literal["full", "best"] = "full"

    settings: Settings = Settings()


class Score(Table):
    """score.toml: from which total score on a mail is held or refused."""

    quarantine: Annotated[float, Field(strict=True)] = 6.0
    reject: Annotated[float, Field(strict=True)] = 12.0

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.quarantine > self.reject:
            raise ValueError("quarantine must not be higher than reject")
        return self

    def action(self, score: float) -> Action:
        """What the total *score* alone leads to."""
        if score >= self.reject:
            return Action.REJECT
        return Action.QUARANTINE if score >= self.quarantine else Action.ACCEPT


def _domain(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError('a domain is written like "example.org"')
    try:
        name = a_labels(value.rstrip("."))
    except ValueError:
        raise ValueError(f"{value} is not a domain name") from None
    if len(name) > 253 or not re.fullmatch(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)(?:\.[a-z0-9_-]{1,63})*", name):
        raise ValueError(f"{value} is not a domain name")
    return name


Domain = Annotated[str, BeforeValidator(_domain)]
NextHopTls = Literal["never", "may", "must", "implicit"]


class NextHop(Table):
    """A fixed host to hand mail to.

    `tls`: never, may (opportunistic), must (verified certificate), implicit (port 465, verified).
    `password_file` names a file with the password on its first line: no secret stands in a policy. `ca_file` names the
    certificates (PEM) to verify against, in place of those of the system.
    """

    host: Annotated[str, Field(max_length=253, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]*$|^[0-9A-Fa-f:.]+$")]
    port: Annotated[int, Field(ge=1, le=65535)] = 25
    tls: NextHopTls = "may"
    user: Annotated[str, Field(max_length=255)] = ""
    password_file: str = ""
    ca_file: str = ""

    @model_validator(mode="after")
    def _secrets_are_covered(self) -> Self:
        if bool(self.user) != bool(self.password_file):
            raise ValueError("user and password_file go together")
        if self.user and self.tls not in ("must", "implicit"):
            raise ValueError('a password goes only over verified TLS: write tls = "must" or "implicit"')
        return self


class Route(Table):
    """Where the mail of some domains goes: "*" stands for every domain that no other route names."""

    domains: List[str]
    via: NextHop
    accept_from_world: bool = False

    @field_validator("domains")
    @classmethod
    def _are_domains(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name if name == "*" else str(_domain(name)) for name in value)

    @model_validator(mode="after")
    def _is_no_open_relay(self) -> Self:
        if self.accept_from_world and "*" in self.domains:
            raise ValueError('accept_from_world needs the domains by name: "*" would relay for anybody')
        return self


class Routes(Table):
    """routes.toml: which domains are ours, and which way all others go."""

    local: List[Domain] = ()
    postmaster: str = ""
    routes: List[Route] = ()

    @model_validator(mode="after")
    def _each_domain_goes_one_way(self) -> Self:
        seen: set[str] = set()
        for name in (*self.local, *(name for route in self.routes for name in route.domains)):
            if name in seen:
                raise ValueError(f"{name} is named twice: a domain is local or goes one way")
            seen.add(name)
        return self


class Queue(Table):
    """queue.toml: when a delivery is tried again, when its sender is told, when we give up."""

    first_retries: List[Duration] = (300.0, 600.0, 1200.0)
    retry_every: Annotated[Duration, Field(gt=0)] = 1800.0
    warn_after: Duration = 4 * 3600.0
    expire_after: Duration = 5 * 86400.0
    lease: Annotated[Duration, Field(ge=1)] = 20.0
    poll: Annotated[Duration, Field(gt=0)] = 5.0
    concurrency: Count = 100
    per_destination: Count = 5
    bounce_size: Size = 64 << 10
    drain: Duration = 20.0
    housekeeping: Annotated[Duration, Field(gt=0)] = 600.0


class Timeouts(Table):
    """How long we wait for another host, by the names and with the minimum values of RFC 5321 4.5.3.2."""

    greeting: Duration = 300.0
    mail: Duration = 300.0
    rcpt: Duration = 300.0
    data_start: Duration = 120.0
    data_block: Duration = 180.0
    data_end: Duration = 600.0


def _address(value: object) -> object:
    try:
        return ip_address(str(value))
    except ValueError:
        raise ValueError('an address is written like "192.0.2.1" or "2001:db8::1"') from None


Addresses = List[Annotated[IPv4Address | IPv6Address, BeforeValidator(_address)]]


class Relay(Table):
    """relay.toml: how we speak to other hosts."""

    tls: Literal["never", "may", "must"] = "may"
    port: Annotated[int, Field(ge=1, le=65535)] = 25
    connect_timeout: Duration = 30.0
    transaction_time: Annotated[Duration, Field(ge=1)] = 1800.0
    timeouts: Timeouts = Timeouts()
    helo_name: Annotated[str, Field(max_length=253, pattern=r"^[A-Za-z0-9.\-]*$")] = ""
    source_addresses: Addresses = ()
    own_addresses: Addresses = ()
    allow_private: Networks = ()
    hosts_tried: Count = 10
    recipients_per_message: Count = 100
    messages_per_connection: Count = 100
    connections_per_host: Count = 20
    idle_connection: Duration = 5.0
    send_eight_bit_anyway: bool = False


class Quarantine(Table):
    """quarantine.toml: how long held mail is kept."""

    keep: Duration = 30 * 86400.0
    keep_records: Duration = 90 * 86400.0


_MAILBOX = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@(?=.{1,253}$)[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*")
_NOBODYS = re.compile(
    r"(?:.*\.)?(?:localhost|local|invalid|test|example|example\.(?:com|net|org)|internal|home\.arpa)|[^.]*"
)
"""Names that no mail host of the world has (RFC 2606, RFC 6761, RFC 6762, RFC 8375)."""


def _mailbox(value: object) -> object:
    if isinstance(value, str) and _MAILBOX.fullmatch(value):
        return value
    raise ValueError('an address is written like "dmarc@example.org"')


Mailbox = Annotated[str, BeforeValidator(_mailbox)]


class Reports(Table):
    """reports.toml: what the owners of domains hear of their mail (RFC 9990), and where we hear of ours.

    Empty texts stand for what can be made of our host name. `size` is that of the XML, `delay` and `spread` count from
    the end of the day (UTC) that a report tells of.
    """

    send: Literal["auto", "always", "never"] = "auto"
    organisation: Annotated[str, Field(max_length=200)] = ""
    contact: Annotated[str, Field(max_length=200)] = ""
    sender: Annotated[str, BeforeValidator(lambda value: value and _mailbox(value))] = ""
    addresses: Annotated[int, Field(ge=1, le=20)] = 5
    rows: Annotated[int, Field(ge=1, le=20_000)] = 10_000
    size: Annotated[Size, Field(ge=64 << 10, le=10 << 20)] = 10 << 20
    delay: Annotated[Duration, Field(ge=60)] = 900.0
    spread: Annotated[Duration, Field(le=43200)] = 4 * 3600.0
    patience: Annotated[Duration, Field(le=5 * 86400)] = 86400.0
    keep: Annotated[Duration, Field(ge=7 * 86400)] = 400 * 86400.0
    receive: List[Mailbox] = ()
    domains: List[Domain] = ()

    def sends(self, hostname: str) -> bool:
        """Whether we report: where that is left to us, only under a name that the world could know."""
        if self.send == "auto":
            return not _NOBODYS.fullmatch(hostname.lower())
        return self.send == "always"


_CHANGES_ON_THE_WAY = re.compile(
    r"return-path|received|(?:resent-)?bcc|dkim-signature|authentication-results|arc-.*|x-gatepost-.*|delivered-to"
)


def _field_name(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"[!-9;-~]{1,76}", value):
        raise ValueError('the name of a header field is written like "reply-to"')
    if _CHANGES_ON_THE_WAY.fullmatch(value.lower()):
        raise ValueError(f"{value} is added, taken out or changed on the way: a signature over it would not hold")
    return value.lower()


FieldName = Annotated[str, BeforeValidator(_field_name)]


class Signing(Table):
    """signing.toml: what we sign of the mail that we send, and what we say of the mail that we hand on.

    `expires` is how long a DKIM signature counts, 0 for ever. `look_every` is the time between two looks into the DNS
    for the records of new keys.
    """

    dkim: bool = True
    subdomains: bool = True
    missing_key: Literal["wait", "send"] = "wait"
    expires: Duration = 0.0
    oversigned: List[FieldName] = (
        *("from", "to", "cc", "subject", "date", "message-id", "reply-to", "in-reply-to", "references"),
        *("mime-version", "content-type", "content-transfer-encoding"),
    )
    signed: List[FieldName] = (
        *("sender", "content-id", "content-disposition", "content-language", "auto-submitted"),
        *("resent-from", "resent-sender", "resent-to", "resent-cc", "resent-date", "resent-message-id"),
        *("list-id", "list-help", "list-unsubscribe", "list-unsubscribe-post", "list-subscribe", "list-post"),
        *("list-owner", "list-archive"),
    )
    arc: bool = True
    arc_domain: Annotated[str, BeforeValidator(lambda value: value and _domain(value))] = ""
    look_every: Annotated[Duration, Field(ge=1)] = 300.0

    @field_validator("expires")
    @classmethod
    def _outlives_queues(cls, value: float) -> float:
        if 0 < value < 86400:
            raise ValueError("mail may wait in queues for days: 0s for ever, or 1d at least")
        return value

    @field_validator("oversigned")
    @classmethod
    def _holds_from(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "from" not in value:
            raise ValueError('the author must not be changed: it has to hold "from"')
        return value


class Stages(Table):
    """Every stage policy, loaded and checked."""

    edge: Edge = Edge()
    logins: Logins = Logins()
    content: Content = Content()
    score: Score = Score()
    routes: Routes = Routes()
    queue: Queue = Queue()
    relay: Relay = Relay()
    quarantine: Quarantine = Quarantine()
    pop3: Pop3 = Pop3()
    reports: Reports = Reports()
    signing: Signing = Signing()


STAGE_FILES: dict[str, type[Table]] = {
    "edge": Edge,
    "logins": Logins,
    "score": Score,
    "routes": Routes,
    "queue": Queue,
    "relay": Relay,
    "quarantine": Quarantine,
    "pop3": Pop3,
    "reports": Reports,
    "signing": Signing,
}
"""The stage policies by the stem of their file. `content` has actions too, and is read by `gateway.pipeline.policy`."""


def files(configured: Path | None) -> dict[str, Path]:
    """The policy files in force, by stem: the shipped ones, each replaced by its namesake in *configured*."""
    found = {path.stem: path for path in sorted(SHIPPED_POLICIES.glob("*.toml"))}
    if configured is not None:
        if not configured.is_dir():
            raise FaultyFiles([Fault(str(configured), 0, "", "is not a folder", "see [server] policies")])
        found |= {path.stem: path for path in sorted(configured.glob("*.toml"))}
    return found


def load(configured: Path | None) -> Stages:
    """Read the stage policies, or raise `FaultyFiles` with every fault in all of them."""
    tables: dict[str, Table] = {}
    faults: list[Fault] = []
    for stem, path in files(configured).items():
        if stem in STAGE_FILES:
            try:
                tables[stem] = toml.validated(STAGE_FILES[stem], *_read(path))
            except FaultyFiles as error:
                faults += error.faults
    if faults:
        raise FaultyFiles(faults)
    return Stages.model_validate(tables)


def _read(path: Path) -> tuple[dict[str, object], Path, str]:
    table, text = toml.read(path)
    return table, path, text

"""gatepost.toml -> one frozen `Config`, or faults that name file, line, key and cure.

Here stands what belongs to the machine: names, addresses, files, databases. What happens to mail stands in the
policy files. Every default is written in the class that declares the setting; without a file, `embedded()` applies.
"""

from __future__ import annotations

import os
import re
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator

from gateway import toml
from gateway.model import ListenerKind
from gateway.toml import Duration, Fault, FaultyFiles, List, Table

SHIPPED_POLICIES = Path(__file__).resolve().parent.parent / "policies"
PLACES = (Path("gatepost.toml"), Path("/etc/gatepost/gatepost.toml"))
"""Where the configuration is looked for, in this order, when no file is named."""

Network = IPv4Network | IPv6Network


def _network(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError('a network is written like "192.0.2.0/24" or "2001:db8::/32"')
    try:
        return ip_network(value)
    except ValueError:
        raise ValueError('a network is written like "192.0.2.0/24", with no host bits set') from None


def _path(value: object) -> object:
    if not isinstance(value, (str, Path)) or "\0" in str(value):
        raise ValueError("a path is written as text")
    return Path(value)


_WORDS = {word.value: word for word in ListenerKind}


def _kind(value: object) -> object:
    if isinstance(value, ListenerKind):
        return value
    if isinstance(value, str) and value in _WORDS:
        return _WORDS[value]
    raise ValueError('a listener is of kind "mx", "submission" or "relay"')


Networks = List[Annotated[Network, BeforeValidator(_network)]]
FilePath = Annotated[Path, BeforeValidator(_path)]
Tls = Literal["none", "starttls", "implicit"]


class Address(Table):
    """Where something listens: `address` is "127.0.0.1:2525" or "[::1]:2525"."""

    address: str

    @field_validator("address")
    @classmethod
    def _is_address(cls, value: str) -> str:
        split_address(value)
        return value

    @property
    def host_port(self) -> tuple[str, int]:
        """Host and port, ready to bind."""
        return split_address(self.address)


def split_address(value: str) -> tuple[str, int]:
    """Split "127.0.0.1:25" or "[::1]:25" into host and port; `ValueError` says how it should look."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):(\d{1,5})", value)
    if not match or int(match[3]) > 65535:
        raise ValueError('an address to listen on is written like "0.0.0.0:25" or "[::]:25"')
    host = match[1] or match[2]
    try:
        ip_address(host)
    except ValueError:
        raise ValueError(f"{host} is not an IP address") from None
    return host, int(match[3])


class Listener(Address):
    """One SMTP port. `networks` says who may talk to it: needed for `relay`, the world when empty otherwise.

    `proxy_from` names proxies: only they may connect, and each has to say by the PROXY protocol whom it brings.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
    kind: Annotated[ListenerKind, BeforeValidator(_kind)]
    tls: Tls = "starttls"
    networks: Networks = ()
    proxy_from: Networks = ()


class Pop3Listener(Address):
    """One POP3 port. `cleartext_login` allows USER/PASS without TLS from loopback addresses, for local agents.

    `proxy_from` is that of `Listener`.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
    tls: Tls = "starttls"
    cleartext_login: bool = False
    proxy_from: Networks = ()


class Server(Table):
    """The machine: its name towards others, and its folders."""

    hostname: str = "gatepost.localhost"
    data: FilePath = Path("var")
    policies: FilePath | None = None
    smtp_processes: Annotated[int, Field(ge=1, le=64)] = 1
    scan_processes: Annotated[int, Field(ge=1, le=64)] = 2

    @field_validator("hostname")
    @classmethod
    def _is_name(cls, value: str) -> str:
        if len(value) > 253 or not re.fullmatch(
            r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.(?!$)|$))+", value
        ):
            raise ValueError('a host name is written like "mx1.example.org"')
        return value


class TlsFiles(Table):
    """Certificate chain and key as PEM files; made self-signed under the data folder when both are left out."""

    certificate: FilePath | None = None
    key: FilePath | None = None
    profile: Literal["modern", "compatible"] = "compatible"


def _store_url(value: object) -> object:
    """No fault shows the value: a password may stand in it."""
    if not isinstance(value, str) or not (value == "" or value.startswith(("sqlite:///", *_POSTGRES))):
        raise ValueError('a store is named like "postgresql+psycopg://user@host/database" or "sqlite:////path/to/file"')
    if value.startswith(_POSTGRES) and _shows_password(value):
        raise ValueError("a password does not belong here: write it into a file, and name that as password_file")
    return value


_POSTGRES = ("postgresql+psycopg://", "postgresql://")


def _shows_password(url: str) -> bool:
    name, _, query = url.partition("://")[2].partition("?")
    return ":" in name.rpartition("@")[0] or any(word.startswith("password=") for word in query.split("&"))


class Store(Table):
    """Where messages are kept, and how long a write waits for its turn. Empty: SQLite under the data folder.

    `password_file` holds the password of PostgreSQL on its first line; without it, ~/.pgpass or $PGPASSFILE may.
    """

    url: Annotated[str, BeforeValidator(_store_url), Field(repr=False)] = ""
    password_file: str = ""
    patience: Annotated[Duration, Field(ge=0.1, le=60)] = 30.0


_STATE_URL = re.compile(
    r"(?:redis|rediss|valkey|valkeys)://(?:[^@/?#\s]*@)?(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._\-]+)(?::\d{1,5})?(?:/\d{0,4})?"
    r"|unix://(?:[^@/?#\s]*@)?/[^?#\s]+(?:\?db=\d{1,4})?"
)


def _state_url(value: object) -> object:
    """No fault shows the value: a password may stand in it."""
    if isinstance(value, str) and (value == "" or _is_state_url(value)):
        return value
    raise ValueError('a shared state is named like "redis://127.0.0.1:6379/0" or "unix:///run/redis/redis.sock?db=0"')


def _is_state_url(value: str) -> bool:
    try:
        return bool(_STATE_URL.fullmatch(value)) and urlsplit(value).port != 0
    except ValueError:  # a port above 65535
        return False


class State(Table):
    """Where counters and marks are kept that all processes share and that may be lost. Empty: a file in the run folder.

    `password_file` holds the password on its first line, in place of one in the URL. `ca_file` names the certificates
    (PEM) that rediss:// and valkeys:// verify against, in place of those of the system. `timeout` is for one question.
    """

    url: Annotated[str, BeforeValidator(_state_url), Field(repr=False)] = ""
    password_file: str = ""
    ca_file: str = ""
    timeout: Annotated[Duration, Field(ge=0.05, le=30)] = 1.0


class Dns(Table):
    """Which name servers to ask ("127.0.0.1:53", "[::1]:53"). Empty: those of /etc/resolv.conf."""

    servers: List[str] = ()
    timeout: Duration = 5.0

    @field_validator("servers")
    @classmethod
    def _are_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for server in value:
            split_address(server)
        return value


class Clamd(Table):
    """Whether `gatepost run` starts a clamd of its own when none answers at the sockets of antivirus.toml."""

    start: bool = False
    program: str = "clamd"
    database: FilePath = Path("/var/lib/clamav")


class Log(Table):
    """How events are written to standard error: "text" for people, "json" for collectors."""

    format: Literal["text", "json"] = "json"


class Demo(Table):
    """Mailboxes that the first start makes, with generated passwords that are shown once."""

    domain: str = ""
    mailboxes: List[str] = ()


class Config(Table):
    """The whole of gatepost.toml."""

    server: Server = Server()
    listeners: List[Listener] = ()
    pop3: List[Pop3Listener] = ()
    tls: TlsFiles = TlsFiles()
    store: Store = Store()
    state: State = State()
    dns: Dns = Dns()
    clamd: Clamd = Clamd()
    log: Log = Log()
    demo: Demo = Demo()

    @property
    def store_url(self) -> str:
        """The SQLAlchemy URL of the store."""
        return self.store.url or f"sqlite:///{(self.server.data / 'gatepost.db').absolute()}"

    @property
    def run_dir(self) -> Path:
        """Sockets, process files and shared counters: what may be lost at a restart."""
        return self.server.data / "run"

    @property
    def keys_dir(self) -> Path:
        """The private keys that mail is signed with."""
        return self.server.data / "dkim"


def embedded() -> Config:
    """What applies without a file: everything on loopback, under ./var, for a first look."""
    return Config(
        listeners=(
            Listener(name="mx", kind=ListenerKind.MX, address="127.0.0.1:2525"),
            Listener(name="submission", kind=ListenerKind.SUBMISSION, address="127.0.0.1:2587"),
            Listener(name="submissions", kind=ListenerKind.SUBMISSION, address="127.0.0.1:2465", tls="implicit"),
        ),
        pop3=(
            Pop3Listener(name="pop3", address="127.0.0.1:2110"),
            Pop3Listener(name="pop3s", address="127.0.0.1:2995", tls="implicit"),
        ),
        clamd=Clamd(start=True),
        log=Log(format="text"),
        demo=Demo(domain="demo.example", mailboxes=("alice", "bob")),
    )


def find(named: Path | None = None) -> Path | None:
    """The configuration file that applies: the one named, $GATEPOST_CONFIG, or the first of `PLACES` that exists."""
    if named is None and (variable := os.environ.get("GATEPOST_CONFIG")):
        named = Path(variable)
    return named or next((place for place in PLACES if place.exists()), None)


def load(path: Path | None) -> Config:
    """Read *path*, or the embedded default for None; raise `FaultyFiles` with everything that is wrong."""
    if path is None:
        return embedded()
    table, text = toml.read(path)
    config = toml.validated(Config, table, path, text)
    if faults := list(_contradictions(config, path, text)):
        raise FaultyFiles(faults)
    return config


def _contradictions(config: Config, path: Path, text: str) -> list[Fault]:
    """What is wrong between keys that are right one by one."""
    faults = []

    def fault(location: tuple[int | str, ...], problem: str, cure: str) -> None:
        faults.append(Fault(str(path), toml.line_of(text, location), ".".join(map(str, location)), problem, cure))

    seen: set[str] = set()
    named = [("listeners", i, x) for i, x in enumerate(config.listeners)]
    mailboxes = [("pop3", i, x) for i, x in enumerate(config.pop3)]
    every: list[tuple[str, int, Listener | Pop3Listener]] = [*named, *mailboxes]
    for table, index, listener in every:
        for value in (listener.name, listener.address):
            if value in seen:
                fault((table, index), f"{value} is used twice", "give each listener its own name and address")
            seen.add(value)
    for index, listener in enumerate(config.listeners):
        if listener.kind is ListenerKind.RELAY and not listener.networks:
            fault(("listeners", index, "networks"), "is missing", "say which networks of your own may relay")
        if listener.kind is ListenerKind.SUBMISSION and listener.tls == "none":
            fault(("listeners", index, "tls"), "submission needs TLS", 'write "starttls" or "implicit"')
    if (config.tls.certificate is None) != (config.tls.key is None):
        fault(("tls",), "certificate and key go together", "name both or neither")
    return faults

"""What is measured: Gatepost and Postfix in several arrangements, each started fresh with its data on the same disk.

Sink, resolver and scanner run beside the stack and are not counted in it; the scanner is listed apart.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.peers import clamd, dns, postfix, processes

ROOT = Path(__file__).resolve().parents[2]
RELAYED = "reader%d@sink.example"
LOCAL = "reader%d@box.example"
MAILBOXES = 10
DOMAINS = 20
"""Sender domains of the load generator: d0.load.example and so on."""

CONFIG = """
[server]
hostname = "gatepost.bench.example"
data = "{home}/data"
policies = "{home}/policies"
smtp_processes = {smtp_processes}
scan_processes = {scan_processes}

[[listeners]]
name = "mx"
kind = "mx"
address = "127.0.0.1:{port}"

[dns]
servers = ["127.0.0.1:{dns}"]

[demo]
domain = "box.example"
mailboxes = {mailboxes}
"""
MANY = {"connections": "5000", "connections_per_peer": "5000", "connections_per_network": "5000"}
ROUTES = """
local = ["box.example"]

[[routes]]
domains = ["sink.example"]
accept_from_world = true
via = {{ host = "127.0.0.1", port = {sink}, tls = "never" }}
"""


@dataclass(frozen=True)
class Sink:
    """A running smtp-sink, which counts and forgets."""

    port: int
    process: processes.Process

    def count(self) -> int:
        """Messages taken since its start: the last number that it wrote of "sess=1 quit=1 mesg=1"."""
        with self.process.log.open("rb") as log:
            log.seek(max(0, log.seek(0, 2) - 200))
            found = re.findall(rb"mesg=(\d+)", log.read())
        return int(found[-1]) if found else 0


@dataclass(frozen=True)
class Stack:
    """A running stack. `count` tells how many messages were delivered so far; None where to accept is to deliver."""

    port: int
    process: processes.Process
    recipient: str
    scanner: processes.Process | None = None
    count: Callable[[], int] | None = None


@dataclass(frozen=True)
class Size:
    """How many processes a Gatepost has."""

    smtp_processes: int
    scan_processes: int


@contextmanager
def sink() -> Iterator[Sink]:
    """smtp-sink as the next hop."""
    processes.require("smtp-sink")
    with processes.workspace("bench-sink") as home:
        port = processes.free_port()
        argv = ["smtp-sink", "-4", "-c", f"{processes.HOST}:{port}", "1024"]
        if os.geteuid() == 0:
            argv[1:1] = ["-u", "nobody"]
        with processes.running(argv, home, lambda: processes.listening(port)) as process:
            yield Sink(port, process)


@contextmanager
def full(size: Size) -> Iterator[Stack]:
    """All filters, a real clamd, relay to the sink."""
    with clamd.run() as scanner, _relaying(size, looking(scanner.unix_socket), scanner.process) as one:
        yield one


@contextmanager
def no_scanner(size: Size) -> Iterator[Stack]:
    """All filters but antivirus."""
    with _relaying(size, looking(None)) as one:
        yield one


@contextmanager
def no_filters(size: Size) -> Iterator[Stack]:
    """Nothing is asked, and nothing looked at: a plain relay."""
    with _relaying(size, dict.fromkeys(FILTERS, OFF)) as one:
        yield one


@contextmanager
def mailboxes(size: Size) -> Iterator[Stack]:
    """All filters, a real clamd, mailboxes of our own."""
    with (
        clamd.run() as scanner,
        processes.workspace("bench") as home,
        _gatepost(home, size, 9, looking(scanner.unix_socket)) as (port, process),
    ):
        yield Stack(port, process, LOCAL, scanner.process)


@contextmanager
def stock_postfix(_size: Size) -> Iterator[Stack]:
    """Postfix as a plain relay to the sink: it looks at nothing."""
    with _postfix({}) as one:
        yield one


@contextmanager
def unthrottled_postfix(_size: Size) -> Iterator[Stack]:
    """The same, but senders need not wait a second each when mail comes in faster than it goes out."""
    with _postfix({"in_flow_delay": "0s"}) as one:
        yield one


@contextmanager
def _postfix(settings: Mapping[str, str]) -> Iterator[Stack]:
    with sink() as drain, postfix.run(relayhost=(processes.HOST, drain.port), settings=settings) as server:
        yield Stack(server.port, server.process, RELAYED, None, drain.count)


FULL = "all filters + clamd"
BASE = "Postfix relay"
ALL: Mapping[str, Callable[[Size], AbstractContextManager[Stack]]] = {
    FULL: full,
    "all, no scanner": no_scanner,
    "no filters": no_filters,
    "mailboxes + clamd": mailboxes,
    BASE: stock_postfix,
    "Postfix, no delay": unthrottled_postfix,
}

FILTERS = sorted({path.stem for path in (ROOT / "filters").glob("[a-z]*.py")} | {"content"})
Settings = Mapping[str, str]
"""What stands behind "=" in a policy, by key."""
OFF: Settings = {"enabled": "false"}


def looking(scanner: Path | None) -> dict[str, Settings]:
    """What makes every filter work on mail from loopback, which none would otherwise ask about."""
    asked = {name: {"own_relays": "[]"} for name in ("dmarc", "dnsbl", "greylist", "helo", "rate", "spf")}
    return {**asked, "antivirus": OFF if scanner is None else {"sockets": f'["unix:{scanner}"]'}}


@contextmanager
def _relaying(
    size: Size, settings: Mapping[str, Settings], scanner: processes.Process | None = None
) -> Iterator[Stack]:
    with (
        sink() as drain,
        processes.workspace("bench") as home,
        _gatepost(home, size, drain.port, settings) as (port, process),
    ):
        yield Stack(port, process, RELAYED, scanner, drain.count)


@contextmanager
def _gatepost(
    home: Path, size: Size, sink_port: int, settings: Mapping[str, Settings]
) -> Iterator[tuple[int, processes.Process]]:
    with resolver() as names:
        port = write_config(home, size, sink_port, names, settings)
        argv = command(home, "run")
        with processes.running(argv, home, lambda: _is_up(home, port), within=40, env=ENVIRONMENT) as process:
            yield port, process


def command(home: Path, *words: str) -> list[str]:
    """`gatepost` with the configuration in *home*."""
    return [sys.executable, "-P", "-m", "gateway", "--config", str(home / "gatepost.toml"), *words]


ENVIRONMENT = {"PYTHONPATH": str(ROOT)}


def _is_up(home: Path, port: int) -> bool:
    """The smtp processes bind nothing themselves, so each says in a file when it serves."""
    ready = {path.name for path in (home / "data/run").glob("*.pid")}
    return processes.listening(port) and {"smtp-1.pid", "deliver-1.pid"} <= ready


@contextmanager
def resolver() -> Iterator[int]:
    """The port of an unbound in which loopback has a name, may send for each sender domain, and is on no list."""
    records = {(f"d{number}.load.example", "TXT"): ["v=spf1 ip4:127.0.0.0/8 -all"] for number in range(DOMAINS)}
    records |= {("1.0.0.127.in-addr.arpa", "PTR"): ["load.example."], ("load.example", "A"): [processes.HOST]}
    with dns.run(records) as names:
        yield names.port


def write_config(home: Path, size: Size, sink_port: int, dns_port: int, settings: Mapping[str, Settings]) -> int:
    """Write gatepost.toml and accepting policies into *home*; return the port of its listener."""
    port = processes.free_port()
    people = [f"reader{number}" for number in range(MAILBOXES)]
    text = CONFIG.format(home=home, port=port, dns=dns_port, mailboxes=_list(people), **vars(size))
    (home / "gatepost.toml").write_text(text)
    folder = home / "policies"
    folder.mkdir()
    (folder / "routes.toml").write_text(ROUTES.format(sink=sink_port))
    for shipped in sorted((ROOT / "policies").glob("*.toml")):
        text = shipped.read_text("utf-8")
        if shipped.stem in FILTERS:
            (folder / shipped.name).write_text(accept_all(text, settings.get(shipped.stem, {})), "utf-8")
        elif shipped.stem == "edge":  # all of the load comes from one address
            (folder / shipped.name).write_text(with_settings(text, MANY), "utf-8")
    return port


def accept_all(policy: str, settings: Settings) -> str:
    """The shipped text with every action "accept" and these *settings*, so that all stacks do the same work."""
    head, found, rest = policy.partition("\n[actions]\n")
    if not found:
        raise ValueError("a policy without actions")
    if "enabled" in settings:
        head = f"enabled = false\n{re.sub('(?m)^enabled = .*', '', head)}"
        settings = {key: value for key, value in settings.items() if key != "enabled"}
    actions, exceptions, others = rest.partition("\n[[exceptions]]")
    accepting = re.sub(r'(?m)^(\w+)( *=) *("\w+"|[-\d.]+)', r'\1\2 "accept"', actions)
    return with_settings(head, settings) + found + accepting + exceptions + others


def with_settings(text: str, settings: Settings) -> str:
    """*text* with other values for keys that stand in it."""
    for key, value in settings.items():
        # Neither key nor value holds a backslash, which alone is special in a replacement.
        text, changed = re.subn(rf"(?m)^{key} = (?:\[[^\]]*\]|\S+)", f"{key} = {value}", text, count=1)
        if not changed:
            raise ValueError(f"the shipped policy has no setting {key} any more")
    return text


def _list(words: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{word}"' for word in words) + "]"


def require(stacks: Sequence[str]) -> None:
    """Raise what the harness of the tests raises where a program of *stacks* is missing."""
    processes.require("unbound", "smtp-sink")
    if any("clamd" in name for name in stacks):
        processes.require("clamd")
    if any("Postfix" in name for name in stacks):
        processes.require_root("Postfix")
        processes.require(postfix.MASTER)

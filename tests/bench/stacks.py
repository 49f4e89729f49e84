"""What is measured: Gatepost in four arrangements and Postfix, each started fresh with its data on the same disk.

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
    with clamd.run() as scanner, _relaying(size, {"antivirus": _sockets(scanner.unix_socket)}, scanner.process) as one:
        yield one


@contextmanager
def no_scanner(size: Size) -> Iterator[Stack]:
    """The same without clamd: its filter fails at once, which costs next to nothing."""
    with _relaying(size, {}) as one:
        yield one


@contextmanager
def relay(size: Size) -> Iterator[Stack]:
    """Nothing is asked outside, neither clamd nor DNS; the confined parser and the pure filters have no switch."""
    with _relaying(size, {"spf": {"own_relays": '["127.0.0.0/8"]'}}) as one:
        yield one


@contextmanager
def mailboxes(size: Size) -> Iterator[Stack]:
    """All filters, a real clamd, mailboxes of our own."""
    with (
        clamd.run() as scanner,
        processes.workspace("bench") as home,
        _gatepost(home, size, 9, {"antivirus": _sockets(scanner.unix_socket)}) as (port, process),
    ):
        yield Stack(port, process, LOCAL, scanner.process)


@contextmanager
def plain_postfix(_size: Size) -> Iterator[Stack]:
    """Postfix as a plain relay to the sink: it looks at nothing."""
    # By default it makes senders wait a second each when mail comes in faster than it goes out: no measure of speed.
    settings = {"in_flow_delay": "0s"}
    with sink() as drain, postfix.run(relayhost=(processes.HOST, drain.port), settings=settings) as server:
        yield Stack(server.port, server.process, RELAYED, None, drain.count)


BASE = "Postfix relay"
ALL: Mapping[str, Callable[[Size], AbstractContextManager[Stack]]] = {
    "all filters + clamd": full,
    "all, no scanner": no_scanner,
    "relay, asks nobody": relay,
    "mailboxes + clamd": mailboxes,
    BASE: plain_postfix,
}


def _sockets(path: Path) -> dict[str, str]:
    return {"sockets": f'["unix:{path}"]'}


@contextmanager
def _relaying(
    size: Size, settings: Mapping[str, Mapping[str, str]], scanner: processes.Process | None = None
) -> Iterator[Stack]:
    with (
        sink() as drain,
        processes.workspace("bench") as home,
        _gatepost(home, size, drain.port, settings) as (port, process),
    ):
        yield Stack(port, process, RELAYED, scanner, drain.count)


@contextmanager
def _gatepost(
    home: Path, size: Size, sink_port: int, settings: Mapping[str, Mapping[str, str]]
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
    """The port of an unbound in which each sender domain publishes that loopback may send for it."""
    records = {(f"d{number}.load.example", "TXT"): ["v=spf1 ip4:127.0.0.0/8 -all"] for number in range(DOMAINS)}
    with dns.run(records) as names:
        yield names.port


def write_config(
    home: Path, size: Size, sink_port: int, dns_port: int, settings: Mapping[str, Mapping[str, str]]
) -> int:
    """Write gatepost.toml and accepting policies into *home*; return the port of its listener."""
    port = processes.free_port()
    people = [f"reader{number}" for number in range(MAILBOXES)]
    text = CONFIG.format(home=home, port=port, dns=dns_port, mailboxes=_list(people), **vars(size))
    (home / "gatepost.toml").write_text(text)
    folder = home / "policies"
    folder.mkdir()
    (folder / "routes.toml").write_text(ROUTES.format(sink=sink_port))
    nowhere = {"antivirus": _sockets(home / "nowhere.sock")}
    for shipped in sorted((ROOT / "policies").glob("*.toml")):
        if (
            accepting := accept_all(shipped.read_text("utf-8"), (nowhere | dict(settings)).get(shipped.stem, {}))
        ) is not None:
            (folder / shipped.name).write_text(accepting, "utf-8")
    return port


def accept_all(policy: str, settings: Mapping[str, str]) -> str | None:
    """The shipped text with every action "accept" and these *settings*, so that all stacks do the same work."""
    head, found, rest = policy.partition("\n[actions]\n")
    if not found:
        return None
    for key, value in settings.items():
        # Neither key nor value holds a backslash, which alone is special in a replacement.
        head, changed = re.subn(rf"(?m)^{key} = \[.*?\]", f"{key} = {value}", head, count=1)
        if not changed:
            raise ValueError(f"the shipped policy has no setting {key} any more")
    actions, exceptions, others = rest.partition("\n[[exceptions]]")
    return head + found + re.sub(r'(?m)^(\w+)( *=) *("\w+"|[-\d.]+)', r'\1\2 "accept"', actions) + exceptions + others


def _list(words: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{word}"' for word in words) + "]"


def require(stacks: Sequence[str]) -> None:
    """Raise what the harness of the tests raises where a program of *stacks* is missing."""
    processes.require("unbound", "smtp-sink")
    if any("clamd" in name for name in stacks):
        processes.require("clamd")
    if BASE in stacks:
        processes.require_root("Postfix")
        processes.require(postfix.MASTER)

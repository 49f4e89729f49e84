"""unbound: a real recursive resolver whose whole internet is the records a test gives it; it asks no other server."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.peers import processes

Records = Mapping[tuple[str, str], Sequence[str]]
CHUNK = 255  # bytes in one string of a TXT record (RFC 1035 3.3.14)

CONFIG = """
server:
    interface: {host}@{port}
    username: ""
    chroot: ""
    directory: "{home}"
    pidfile: ""
    use-syslog: no
    logfile: ""
    verbosity: 1
    num-threads: 1
    do-ip6: no
    do-not-query-localhost: yes
    module-config: "iterator"
    qname-minimisation: no
    edns-buffer-size: 1232
    minimal-responses: yes
    unblock-lan-zones: yes
    insecure-lan-zones: yes
    local-zone: "localhost." nodefault
    local-zone: "test." nodefault
    local-zone: "invalid." nodefault
    local-zone: "127.in-addr.arpa." nodefault
    local-zone: "ip6.arpa." nodefault
remote-control:
    control-enable: yes
    control-interface: {home}/control.socket
    control-use-cert: no
auth-zone:
    name: "."
    zonefile: "{home}/root.zone"
    for-downstream: no
    for-upstream: yes
    fallback-enabled: no
"""


@dataclass(frozen=True)
class Dns:
    """A running unbound on `host:port`, UDP and TCP; `records` and names with `faults` are those in force."""

    port: int
    directory: Path
    process: processes.Process
    records: dict[tuple[str, str], Sequence[str]] = field(default_factory=dict)
    faults: set[str] = field(default_factory=set)
    host: str = processes.HOST

    def clear(self) -> None:
        """As at the start: no records, no faults."""
        for name in sorted(self.faults):
            self.heal(name)
        if self.records:
            self.replace({})

    def replace(self, records: Records) -> None:
        """These records from now on, and no others; nothing older is left in the cache."""
        self.records.clear()
        self.update(records)

    def update(self, records: Records) -> None:
        """These records, besides those of other names or types; an empty list removes."""
        self.records.update(records)
        _write_zone(self.directory, self.records)
        self._control("auth_zone_reload", ".")
        self._forget()

    def refuse(self, name: str) -> None:
        """REFUSED for the name and all below it."""
        self.faults.add(name)
        self._control("local_zone", name, "always_refuse")

    def ignore(self, name: str) -> None:
        """No answer at all for the name and all below it: the client's own deadline must end its wait."""
        self.faults.add(name)
        self._control("local_zone", name, "always_deny")

    def fail(self, name: str) -> None:
        """SERVFAIL for the name and all below it: its only server is one that unbound may not ask."""
        self.faults.add(name)
        self._control("stub_add", name, processes.HOST)
        self._forget()

    def heal(self, name: str) -> None:
        """Ends `refuse`, `ignore` and `fail` of the name."""
        self.faults.discard(name)
        self._control("local_zone_remove", name)
        self._control("stub_remove", name)
        self._forget()

    def log(self) -> str:
        return self.process.output()

    def _forget(self) -> None:
        self._control("flush_zone", ".")
        self._control("flush_infra", "all")

    def _control(self, *words: str) -> None:
        argv: list[str | Path] = ["unbound-control", "-c", self.directory / "unbound.conf", *words]
        done = processes.complete(argv, self.directory)
        if done.code != 0:
            raise RuntimeError(f"unbound-control {' '.join(words)} failed:\n{done.text}{self.log()}")


@contextmanager
def run(records: Records | None = None) -> Iterator[Dns]:
    """An unbound that knows {(name, type): [rdata, ...]} and answers NXDOMAIN to all else.

    Names need no final dot. rdata is as in a zone file, except that the text of TXT (and SPF) is plain: it is quoted
    and cut into strings here.
    """
    processes.require("unbound", "unbound-control")
    with processes.workspace("dns") as home:
        port = processes.free_port()
        (home / "unbound.conf").write_text(CONFIG.format(host=processes.HOST, port=port, home=home))
        mine = dict(records or {})
        _write_zone(home, mine)
        argv: list[str | Path] = ["unbound", "-d", "-p", "-c", home / "unbound.conf"]
        control = home / "control.socket"
        with processes.running(argv, home, lambda: control.exists() and processes.listening(port)) as process:
            yield Dns(port, home, process, mine)


def _write_zone(home: Path, records: Records) -> None:
    """All in one zone, the root: so that names of any top-level domain can be given, and CNAMEs may lead anywhere."""
    lines = [". 60 IN SOA root.peer.example. admin.peer.example. 1 3600 600 86400 1", ". 60 IN NS root.peer.example."]
    lines += ["root.peer.example. 60 IN A 192.0.2.53"]
    lines += [_line(name, kind, rdata) for (name, kind), datas in records.items() for rdata in datas]
    (home / "root.zone").write_text("".join(f"{line}\n" for line in lines), "utf-8")


def _line(name: str, kind: str, rdata: str) -> str:
    text = quoted(rdata) if kind.upper() in ("TXT", "SPF") else rdata
    return f"{name.removesuffix('.')}. 60 IN {kind} {text}"


def quoted(text: str) -> str:
    """Text as strings of a zone file, each of at most 255 bytes; other bytes than printable ASCII as \\DDD."""
    data = text.encode()
    chunks = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)] or [b""]
    return " ".join(f'"{"".join(map(_escaped, chunk))}"' for chunk in chunks)


def _escaped(byte: int) -> str:
    return chr(byte) if 0x20 <= byte < 0x7F and byte not in b'"\\' else f"\\{byte:03d}"

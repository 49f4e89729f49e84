"""redis-server: shared state on a unix socket and a port of loopback, which keeps nothing on disk."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.peers import processes
from tests.peers.certificates import Certificate

CONFIG = """
bind {host}
port {port}
tls-port {tls_port}
unixsocket {home}/redis.sock
unixsocketperm 700
dir {home}
save ""
appendonly no
daemonize no
databases 4
{more}
"""


@dataclass(frozen=True)
class Redis:
    """A running redis-server."""

    port: int
    tls_port: int
    home: Path
    process: processes.Process
    password: str = ""
    host: str = processes.HOST

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}/0"

    @property
    def unix_url(self) -> str:
        return f"unix://{self.home}/redis.sock?db=1"

    def ask(self, *words: str) -> str:
        """What redis-cli says, asked for database 0."""
        argv = ["redis-cli", "-s", str(self.home / "redis.sock"), *words]
        return processes.complete(
            argv, self.home, env={"REDISCLI_AUTH": self.password} if self.password else {}
        ).text.strip()

    def clear(self) -> None:
        assert self.ask("FLUSHALL") == "OK"

    def names(self) -> list[str]:
        """All keys of database 0."""
        return sorted(self.ask("KEYS", "*").split())

    def freeze(self) -> None:
        """From now on it takes connections, and answers nothing."""
        self.process.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.signal(signal.SIGCONT)


@contextmanager
def run(
    *, port: int = 0, password: str = "", certificate: Certificate | None = None, more: Sequence[str] = ()
) -> Iterator[Redis]:
    """A redis-server, over TLS too where there is a *certificate*; *more* are lines of its configuration."""
    processes.require("redis-server", "redis-cli")
    with processes.workspace("redis") as home:
        port, tls_port = port or processes.free_port(), processes.free_port() if certificate else 0
        lines = [*more, *([f"requirepass {password}"] if password else [])]
        if certificate:
            lines += [
                f"tls-cert-file {certificate.certificate}",
                f"tls-key-file {certificate.key}",
                "tls-auth-clients no",
            ]
        text = CONFIG.format(host=processes.HOST, port=port, tls_port=tls_port, home=home, more="\n".join(lines))
        (home / "redis.conf").write_text(text)
        ready = (home / "redis.sock").exists
        argv: list[str | Path] = ["redis-server", home / "redis.conf"]
        with processes.running(argv, home, lambda: ready() and processes.listening(port)) as process:
            try:
                yield Redis(port, tls_port, home, process, password)
            finally:
                process.signal(signal.SIGCONT)

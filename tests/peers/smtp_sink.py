"""smtp-sink and smtp-source of Postfix: a receiver that accepts, defers, refuses or hangs up, and a source of load."""

import functools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.peers import processes

HEADERS = (b"X-Client-Addr", b"X-Client-Proto", b"X-Helo-Args", b"X-Mail-Args", b"X-Rcpt-Args")


@dataclass(frozen=True)
class Dump:
    """One transaction that smtp-sink took: arguments as the client wrote them, the message with LF."""

    helo: bytes
    mail: bytes
    recipients: tuple[bytes, ...]
    raw: bytes


@dataclass(frozen=True)
class SmtpSink:
    """A running smtp-sink."""

    port: int
    process: processes.Process
    directory: Path
    host: str = processes.HOST

    def received(self) -> list[Dump]:
        """The finished transactions, oldest first."""
        unfinished = self._open_files()
        done = [path for path in self.directory.iterdir() if str(path) not in unfinished]
        return [_parse(path.read_bytes()) for path in sorted(done, key=lambda path: path.stat().st_mtime_ns)]

    def wait_received(self, count: int, within: float = 10.0) -> list[Dump]:
        """All transactions as soon as there are at least `count`; raises Late."""
        processes.wait_until(lambda: len(self.received()) >= count, within, f"{count} messages in smtp-sink")
        return self.received()

    def _open_files(self) -> set[str]:
        """smtp-sink writes straight into the dump, so a file that it still holds open is not all there."""
        names = set()
        for descriptor in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                names.add(os.readlink(descriptor))
        return names


@contextmanager
def run(
    *,
    soft: Sequence[str] = (),
    hard: Sequence[str] = (),
    hang_up: Sequence[str] = (),
    close_421: Sequence[str] = (),
    delays: Sequence[str] = (),
    soft_reply: str | None = None,
    hard_reply: str | None = None,
    options: Sequence[str] = (),
    port: int | None = None,
) -> Iterator[SmtpSink]:
    """Accept and keep each mail, except that the named commands (CONNECT, EHLO, MAIL, RCPT, DATA, `.`, QUIT, ...) get
    450 (`soft`), 500 (`hard`), a closed connection without a word (`hang_up`) or after 421 (`close_421`). `delays` are
    `command:seconds`; other `options` as in smtp-sink(1), for instance `-e` (no ESMTP), `-p` (no PIPELINING).
    A given `port` is for a sink that takes the place of one that ended."""
    processes.require("smtp-sink")
    with processes.workspace("sink") as home:
        dumps = home / "dumps"
        dumps.mkdir()
        dumps.chmod(0o777)
        port = port or processes.free_port()
        argv = ["smtp-sink", "-4", "-d", f"{dumps}/mail."]
        argv += ["-u", "nobody"] if os.geteuid() == 0 else []
        lists = {"-r": soft, "-f": hard, "-q": hang_up, "-Q": close_421}
        argv += [word for option, commands in lists.items() if commands for word in (option, ",".join(commands))]
        argv += [word for delay in delays for word in ("-W", delay)]
        argv += ["-b", soft_reply] if soft_reply else []
        argv += ["-B", hard_reply] if hard_reply else []
        argv += [*options, f"{processes.HOST}:{port}", "128"]
        with processes.running(argv, home, functools.partial(processes.listening, port)) as process:
            yield SmtpSink(port, process, dumps)


def load(
    port: int,
    *,
    messages: int,
    sessions: int = 1,
    size: int = 1000,
    sender: str = "source@load.example",
    recipient: str = "sink@load.example",
    options: Sequence[str] = (),
    within: float = 60.0,
) -> processes.Output:
    """Send `messages` mails of `size` bytes over `sessions` parallel connections by smtp-source; exit code 0 means all
    were taken."""
    processes.require("smtp-source")
    argv = [
        "smtp-source",
        "-4",
        "-m",
        str(messages),
        "-s",
        str(sessions),
        "-l",
        str(size),
        "-f",
        sender,
        "-t",
        recipient,
    ]
    with processes.workspace("source") as home:
        return processes.complete([*argv, *options, f"{processes.HOST}:{port}"], home, within=within)


def _parse(dump: bytes) -> Dump:
    """smtp-sink puts its own headers first, its Received line last of them, and one empty line at the end."""
    fields: dict[bytes, list[bytes]] = {name: [] for name in HEADERS}
    rest = dump
    while (name := rest.partition(b": ")[0]) in fields:
        line, _, rest = rest.partition(b"\n")
        fields[name].append(line.partition(b": ")[2])
    helo, mail = (b"".join(fields[name]) for name in (b"X-Helo-Args", b"X-Mail-Args"))
    return Dump(helo, mail, tuple(fields[b"X-Rcpt-Args"]), _without_received(rest).removesuffix(b"\n"))


def _without_received(rest: bytes) -> bytes:
    lines = rest.splitlines(keepends=True)
    end = next((number for number, line in enumerate(lines[1:], 1) if not line.startswith(b"\t")), len(lines))
    return b"".join(lines[end:])

"""The load generator, a process of its own: `python -m tests.bench.load --help`. It prints its results as JSON.

All that is sent was made before the clock starts: dot-stuffed messages from one file. Standard library only, one
thread, and no parsing beyond reply codes, so that its own cost stays small beside what it measures.
"""

import argparse
import json
import mmap
import selectors
import socket
import struct
import sys
import time
from collections import Counter, deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

FRAME = struct.Struct(">BI")
Step = tuple[bytes | memoryview, int]
"""What to send next, and how many replies to wait for."""


def write(path: Path, messages: Iterable[bytes]) -> None:
    """Lay *messages* (CRLF) down as they go over the wire: stuffed (RFC 5321 4.5.2), with the final dot."""
    with path.open("wb") as file:
        for message in messages:
            stuffed = (b"." + message if message.startswith(b".") else message).replace(b"\r\n.", b"\r\n..") + b".\r\n"
            file.write(FRAME.pack(not message.isascii(), len(stuffed)) + stuffed)


def read(path: Path) -> list[tuple[bool, memoryview]]:
    """The messages of `write`, each with whether it has octets beyond ASCII."""
    with path.open("rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
    found, at = [], 0
    while at < len(data):
        eight_bit, size = FRAME.unpack(data[at : at + FRAME.size])
        at += FRAME.size
        found.append((bool(eight_bit), data[at : at + size]))
        at += size
    return found


@dataclass
class Results:
    """Times are of the monotonic clock, which all processes share."""

    begin: float = field(default_factory=time.monotonic)
    end: float = 0.0
    replies: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    def note(self, code: bytes, seconds: float) -> None:
        """A reply to the final dot."""
        self.replies[code.decode("ascii", "replace")] += 1
        self.end = time.monotonic()
        if code.startswith(b"2"):
            self.seconds.append(seconds)


@dataclass
class Job:
    """What is left to send, shared by all connections."""

    messages: Sequence[tuple[bool, memoryview]]
    numbers: deque[int]
    recipients: int
    recipient: str
    per_connection: int
    pipelining: bool
    results: Results = field(default_factory=Results)

    def envelope(self, number: int, eight_bit: bool) -> list[bytes]:
        """MAIL, RCPT and DATA: twenty sender domains take turns, and the mailboxes too."""
        body = " BODY=8BITMIME" if eight_bit else ""
        mail = f"MAIL FROM:<writer{number}@d{number % 20}.load.example>{body}\r\n"
        return [mail.encode(), f"RCPT TO:<{self.recipient % (number % self.recipients)}>\r\n".encode(), b"DATA\r\n"]


class Refused(Exception):
    """Not the reply that a message needs to get on."""


class Connection:
    """One connection: sends what its dialog yields, and hands it the replies."""

    def __init__(self, address: tuple[str, int], job: Job) -> None:
        self.socket = socket.create_connection(address, 30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.sent_at = 0.0
        self._out = memoryview(b"")
        self._in = b""
        self._codes: list[bytes] = []
        self._awaited = 1
        self._dialog = _dialog(self, job)
        next(self._dialog)

    def write(self) -> bool:
        """Send what can be sent; True when all of it has gone."""
        if self._out:
            try:
                self._out = self._out[self.socket.send(self._out) :]
            except BlockingIOError:
                return False
            if not self._out:
                self.sent_at = time.monotonic()
        return not self._out

    def read(self) -> None:
        """Take in replies, and go on. `StopIteration` at the end of the dialog, `EOFError` when the peer hung up."""
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        *lines, self._in = (self._in + data).split(b"\r\n")
        self._codes += [line[:3] for line in lines if line[3:4] != b"-"]
        if len(self._codes) >= self._awaited:
            codes, self._codes = self._codes, []
            self._out, self._awaited = _step(self._dialog.send(codes))
            self.write()

    @property
    def blocked(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._out)


def _step(step: Step) -> tuple[memoryview, int]:
    return memoryview(step[0]), step[1]


def _dialog(connection: Connection, job: Job) -> Generator[Step, list[bytes], None]:
    _expect((yield b"", 1), b"220")
    _expect((yield b"EHLO load.example\r\n", 1), b"250")
    for _ in range(job.per_connection):
        if not job.numbers:
            break
        number = job.numbers.popleft()
        eight_bit, message = job.messages[number % len(job.messages)]
        commands = job.envelope(number, eight_bit)
        for part in [b"".join(commands)] if job.pipelining else commands:
            codes = yield part, part.count(b"\r\n")
            _expect(codes, *[b"250", b"250", b"354"] if job.pipelining else [b"354" if part == b"DATA\r\n" else b"250"])
        codes = yield message, 1
        job.results.note(codes[0], time.monotonic() - connection.sent_at)
    yield b"QUIT\r\n", 1


def _expect(codes: list[bytes], *wanted: bytes) -> None:
    if codes != list(wanted):
        raise Refused(b"/".join(codes).decode("ascii", "replace"))


def run(address: tuple[str, int], job: Job, concurrency: int, patience: float) -> Results:
    """Send all of *job*; a refused message costs its connection. Ends early when nothing moves for *patience* s."""
    with selectors.DefaultSelector() as selector:
        for _ in range(min(concurrency, len(job.numbers))):
            _open(selector, address, job)
        while selector.get_map():
            ready = selector.select(patience)
            if not ready:
                job.results.replies["no answer"] += len(selector.get_map())
                break
            for key, _ in ready:
                _serve(selector, key.data, address, job)
    return job.results


def _open(selector: selectors.BaseSelector, address: tuple[str, int], job: Job) -> None:
    connection = Connection(address, job)
    selector.register(connection.socket, selectors.EVENT_READ, connection)


def _serve(selector: selectors.BaseSelector, connection: Connection, address: tuple[str, int], job: Job) -> None:
    try:
        if connection.write():
            connection.read()
    except BlockingIOError:
        pass
    except (StopIteration, Refused, OSError, EOFError) as end:
        if not isinstance(end, StopIteration):
            job.results.replies[f"{type(end).__name__} {end}".strip()] += 1
        selector.unregister(connection.socket)
        connection.socket.close()
        if job.numbers:
            _open(selector, address, job)
        return
    wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.blocked else 0)
    if selector.get_key(connection.socket).events != wanted:
        selector.modify(connection.socket, wanted, connection)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse *argv*, send, print."""
    parser = argparse.ArgumentParser(description="Send messages by SMTP and time the replies to the final dot.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--messages", type=Path, required=True, help="a file of tests.bench.load.write")
    parser.add_argument("--count", type=int, default=0, help="messages to send (default: each once)")
    parser.add_argument("--concurrency", type=int, default=10)
    parser.add_argument("--per-connection", type=int, default=5, help="messages before QUIT")
    parser.add_argument("--recipient", default="reader%d@sink.example", help="with %%d for a number")
    parser.add_argument("--recipients", type=int, default=10, help="how many such recipients take turns")
    parser.add_argument("--pipelining", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--patience", type=float, default=60.0, help="seconds without a reply after which to give up")
    args = parser.parse_args(argv)
    messages = read(args.messages)
    numbers = deque(range(args.count or len(messages)))
    job = Job(messages, numbers, args.recipients, args.recipient, args.per_connection, args.pipelining)
    results = run((args.host, args.port), job, args.concurrency, args.patience)
    json.dump(vars(results) | {"cpu": time.process_time()}, sys.stdout)


if __name__ == "__main__":
    main()

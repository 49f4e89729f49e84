"""What memory the gateway needs: at rest, with a thousand idle connections, and while a large message passes."""

import base64
import io
import resource
import socket
import sys
import threading
import time
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from random import Random
from smtplib import SMTP

from tests.bench import usage
from tests.bench.stacks import ALL, FULL, MAILBOXES, RELAYED, Size, Stack

CONNECTIONS = 1000
LARGE = 40 << 20
PAUSE = 0.02
"""Seconds between two looks at the memory of all processes."""
MB = 1 << 20


@dataclass(frozen=True)
class Needs:
    """MB of proportional set size. `large` has for each kind of process how much the one that grew most has grown."""

    idle: Mapping[str, float]
    connections: float
    large: Mapping[str, float]
    large_anonymous: Mapping[str, float]

    def told(self) -> list[str]:
        """As lines for people."""
        by_size = sorted(self.idle.items(), key=lambda item: -item[1])
        return [
            f"memory at rest, {FULL}: {sum(self.idle.values()):.0f} MB ({_listed(dict(by_size))})",
            f"{CONNECTIONS} idle connections: {self.connections:+.0f} MB",
            f"a message of {LARGE // MB} MB, largest growth of a process: {_listed(self.large)}",
            f"the same without pages of files: {_listed(self.large_anonymous)}",
        ]


def _listed(parts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.1f}" for name, value in parts.items())


def measure(size: Size) -> Needs:
    """Start all filters and a scanner, and look. The scanner is not counted."""
    with ALL[FULL](size) as stack:
        usage.settle(stack.process.pid)
        before = usage.memory_by_process(stack.process.pid)
        with _idle_connections(stack, CONNECTIONS):
            usage.settle(stack.process.pid)
            connected = usage.memory(stack.process.pid)
        _send(stack, b"Subject: warm\r\n\r\nup\r\n")
        usage.settle(stack.process.pid)
        peaks = _Peaks(stack.process.pid)
        with peaks:
            _send(stack, large_message())
            _wait_until_delivered(stack, 2)
        idle: dict[str, float] = defaultdict(float)
        for (_, part), (all_pages, _) in before.items():
            idle[part] += all_pages
        return Needs(dict(idle), connected - sum(idle.values()), peaks.growth(0), peaks.growth(1))


@contextmanager
def _idle_connections(stack: Stack, count: int) -> Iterator[None]:
    """*count* sessions that have said EHLO and say no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, count + 500)), hard))
    with ExitStack() as open_ones:
        for _ in range(count):
            one = open_ones.enter_context(socket.create_connection(("127.0.0.1", stack.port), 30))
            _expect(one, b"220")
            one.sendall(b"EHLO load.example\r\n")
            _expect(one, b"250")
        yield


def _expect(one: socket.socket, code: bytes) -> None:
    if (answer := one.recv(4096))[:3] != code:
        raise RuntimeError(f"no idle connection: {answer!r}")


def large_message() -> bytes:
    """A message of `LARGE` octets: a text, a zip of ten files, and an attachment, all but the text in base64."""
    chance = Random(1)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(10):
            archive.writestr(f"{number}.txt", chance.randbytes(400_000).hex())
    head = b'Subject: large\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n\r\nhello\r\n'
    zipped = _attached(b"files.zip", packed.getvalue())
    rest = LARGE - len(head) - len(zipped)
    return head + zipped + _attached(b"data.bin", chance.randbytes(rest * 57 // 79)) + b"--b--\r\n"


def _attached(name: bytes, content: bytes) -> bytes:
    lines = base64.encodebytes(content).replace(b"\n", b"\r\n")
    return (
        b"--b\r\nContent-Type: application/octet-stream; name=%s\r\nContent-Transfer-Encoding: base64\r\n\r\n" % name
        + lines
    )


def _send(stack: Stack, message: bytes) -> None:
    with SMTP("127.0.0.1", stack.port, timeout=60) as client:
        client.sendmail("writer@d1.load.example", [RELAYED % (MAILBOXES - 1)], message)


def _wait_until_delivered(stack: Stack, count: int) -> None:
    deadline = time.monotonic() + 30
    while stack.count is not None and stack.count() < count:
        if time.monotonic() > deadline:
            raise RuntimeError("the large message was not delivered")
        time.sleep(PAUSE)


@dataclass
class _Peaks:
    """Looks at the processes below *root* again and again, in a thread, for as long as the block lasts."""

    root: int
    before: dict[tuple[int, str], tuple[float, float]] = field(default_factory=dict)
    most: dict[tuple[int, str], tuple[float, float]] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> None:
        self.before = usage.memory_by_process(self.root)
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(PAUSE):
            for process, now in usage.memory_by_process(self.root).items():
                most = self.most.get(process, (0.0, 0.0))
                self.most[process] = max(most[0], now[0]), max(most[1], now[1])

    def growth(self, which: int) -> dict[str, float]:
        """MB by which the process of each kind that grew most has grown; one that is new counts whole."""
        found: dict[str, float] = {}
        for process, most in self.most.items():
            grown = most[which] - self.before.get(process, (0.0, 0.0))[which]
            found[process[1]] = max(found.get(process[1], 0.0), grown)
        return dict(sorted(found.items(), key=lambda item: -item[1]))


if __name__ == "__main__":
    print("\n".join(measure(Size(2, 2)).told()), file=sys.stdout)

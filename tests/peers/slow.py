"""Peers that hold connections and do next to nothing with them, by the hundred, in a process of their own.

They come from many networks of loopback, as those do who mean it. `python -m tests.peers.slow MX SUBMISSIONS EACH PAUSE`
says again and again, as a line of JSON, how many connections of each kind have got where they want to be (`ready`), and
how many were cut off (`gone`).
"""

import asyncio
import contextlib
import json
import resource
import socket
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tests.peers import processes
from tests.peers.processes import Process

PER_NETWORK = 50
AT_ONCE = 50  # connections that are being made
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500
NOISE = b"EHLO slow.example\r\n" * 500
DIALOG = (
    (b"EHLO slow.example\r\n", b"250"),
    (b"MAIL FROM:<slow@out.example>\r\n", b"250"),
    (b"RCPT TO:<alice@in.example>\r\n", b"250"),
    (b"DATA\r\n", b"354"),
)
KINDS = ("commands", "data", "handshake", "deaf")

_numbers = count()


# ---- What a test sees ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Crowd:
    """The process in which they live."""

    process: Process

    def now(self) -> dict[str, dict[str, int]]:
        """The numbers of `ready`, `gone` and, for what should not have happened, `wrong`, by kind."""
        *_, line, _ = ["{}", *self.process.output().split("\n")]
        found: dict[str, dict[str, int]] = json.loads(line)
        return found

    def wait(self, what: str, number: int, within: float) -> None:
        """Until *number* of each kind are `ready` or `gone`; fails at once where something went wrong."""

        def reached() -> bool:
            now = self.now()
            assert not now.get("wrong"), now
            return all(now.get(what, {}).get(kind, 0) >= number for kind in KINDS)

        try:
            processes.wait_until(reached, within, f"{number} slow peers of each kind to be {what}")
        except processes.Late as late:
            raise processes.Late(f"{late}: {self.now()}") from None


@contextmanager
def run(ports: Mapping[str, int], each: int, pause: float = 1.0) -> Iterator[Crowd]:
    """So many of each kind at the ports `mx` and `submissions`, each doing something once in *pause* seconds."""
    with processes.workspace("slow") as home:
        words = [str(word) for word in (ports["mx"], ports["submissions"], each, pause)]
        argv: Sequence[str | Path] = [sys.executable, "-m", "tests.peers.slow", *words]
        env = {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        with processes.running(argv, home, lambda: True, env=env) as process:
            yield Crowd(process)


# ---- The process --------------------------------------------------------------------------------------------------


class Peers:
    """All of them. `ready`, `gone` and `wrong` count by kind."""

    def __init__(self, mx: int, submissions: int, pause: float) -> None:
        self.mx, self.submissions, self.pause = mx, submissions, pause
        self.ready: Counter[str] = Counter()
        self.gone: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self._making = asyncio.Semaphore(AT_ONCE)

    async def live(self, kind: str, act: Callable[[str], Awaitable[None]]) -> None:
        """One connection, until it is cut off, which nobody else can be blamed for."""
        try:
            await act(kind)
        except OSError:
            self.gone[kind] += 1
        except Exception as error:  # counted, and a test fails on it
            self.wrong[f"{kind}: {error!r}"] += 1

    async def commands(self, kind: str) -> None:
        async with self._connected(self.mx) as (reader, writer):
            await _expect(reader, b"220")
            await self._drip(kind, b"EHLO " + b"x" * 4000, reader, writer)

    async def data(self, kind: str) -> None:
        async with self._connected(self.mx) as (reader, writer):
            await _expect(reader, b"220")
            for line, code in DIALOG:
                writer.write(line)
                await _expect(reader, code)
            await self._drip(kind, b"Subject: slow\r\n\r\n" + b"x" * 900, reader, writer)

    async def handshake(self, kind: str) -> None:
        async with self._connected(self.submissions) as (reader, writer):
            await self._drip(kind, HELLO, reader, writer)

    async def deaf(self, kind: str) -> None:
        """Ask and ask, and read no answer."""
        async with self._connected(self.mx, receive=4096) as (reader, writer):
            await _expect(reader, b"220")
            writer.transport.pause_reading()
            self.ready[kind] += 1
            while not writer.transport.is_closing():
                if writer.transport.get_write_buffer_size() < len(NOISE):
                    writer.write(NOISE)
                await asyncio.sleep(self.pause)
        raise ConnectionResetError

    async def _drip(self, kind: str, octets: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One octet in each `pause`, until the other side has closed."""
        self.ready[kind] += 1
        for number in range(len(octets)):
            writer.write(octets[number : number + 1])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.pause):
                    while await reader.read(1000):
                        pass
                    raise ConnectionResetError

    @contextlib.asynccontextmanager
    async def _connected(self, port: int, receive: int = 0):  # type: ignore[no-untyped-def]
        async with self._making:
            reader, writer = await asyncio.open_connection(sock=await _socket(port, receive))
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


async def _socket(port: int, receive: int) -> socket.socket:
    """Connected from a network of loopback that it shares with few others."""
    number = next(_numbers)
    made = socket.socket()
    if receive:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    made.bind((f"127.9.{number // PER_NETWORK}.{number % PER_NETWORK + 1}", 0))
    made.setblocking(False)
    await asyncio.get_running_loop().sock_connect(made, (processes.HOST, port))
    return made


async def _expect(reader: asyncio.StreamReader, code: bytes) -> None:
    line = b"xxx-"
    while line[3:4] == b"-":
        line = await reader.readline()
    if not line:
        raise ConnectionResetError
    if not line.startswith(code):
        raise ValueError(line)


async def _main(mx: int, submissions: int, each: int, pause: float) -> None:
    peers = Peers(mx, submissions, pause)
    lives = [asyncio.create_task(peers.live(kind, getattr(peers, kind))) for _ in range(each) for kind in KINDS]
    said = ""
    while True:
        now = json.dumps({"ready": peers.ready, "gone": peers.gone, "wrong": peers.wrong, "lives": len(lives)})
        if now != said:
            print(said := now, flush=True)
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(_main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))

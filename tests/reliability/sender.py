"""The load of the ledger: n connections that hand over numbered mails, whatever becomes of the other side.

A connection that breaks is opened anew, at the next door where there are several, and the same number is sent again until
somebody takes it. How each try ended is in the book before the next one begins.
"""

import asyncio
import random
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import cycle

from tests.peers import processes
from tests.reliability.ledger import Book, Entry, Mail, Make

PER_SESSION = 20
"""Mails before QUIT."""
PAUSE = 0.1
"""Seconds, about, between a try that failed and the next one."""

_ID = re.compile(r"\b[0-9abcdefghjkmnpqrstvwxyz]{18}\b")


class Refused(Exception):
    """A reply that is not what the command wanted."""


class Broken(Exception):
    """The connection is gone, or nothing was said in time."""


class Sender:
    """Sends from a thread of its own: `send` a number of mails, or without end between `start` and `stop`.

    *pause* is how many seconds each connection rests after a mail, where the gateway is not to be flooded.
    """

    def __init__(
        self,
        book: Book,
        doors: Sequence[int],
        make: Make,
        *,
        connections: int = 8,
        reply_within: float = 20.0,
        pause: float = 0.0,
    ) -> None:
        self._book, self._make, self._reply_within, self._pause = book, make, reply_within, pause
        self._doors = list(doors)
        self._connections = connections
        self._left: int | None = None
        self._until = float("inf")
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def send(self, count: int, within: float = 60.0) -> None:
        """Send *count* more mails; return when all are accepted. Fails after *within* seconds."""
        before = self._book.count("accepted")
        self._left, self._until = count, time.monotonic() + within
        asyncio.run(self._run())
        accepted = self._book.count("accepted") - before
        last = [str(one) for one in self._book.entries()[-10:]]
        assert accepted == count, f"{accepted} of {count} mails were accepted within {within} s; at last: {last}"

    def start(self) -> None:
        """Send from now on."""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="sender")
        self._thread.start()

    def stop(self) -> None:
        """Finish the tries that are under way; what was not accepted then is given up."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(self._reply_within * 4)
            assert not self._thread.is_alive(), "the sender does not end"

    async def _run(self) -> None:
        doors = [iter(cycle(self._doors[n:] + self._doors[:n])) for n in range(len(self._doors))]
        await asyncio.gather(*(self._connection(doors[n % len(doors)]) for n in range(self._connections)))

    def _is_over(self) -> bool:
        return self._stopping.is_set() or time.monotonic() > self._until

    def _next(self) -> Mail | None:
        if self._is_over() or self._left == 0:
            return None
        if self._left is not None:
            self._left -= 1
        return self._make(self._book.next_number())

    async def _connection(self, doors: Iterator[int]) -> None:
        """Mail after mail; a link serves several, and a new one is made where it broke."""
        link: Link | None = None
        while mail := self._next():
            done = False
            while not done and not self._is_over():
                try:
                    link = link or await Link.open(next(doors), self._reply_within)
                    done = await self._hand_over(link, mail)
                    link = link if done and link.mails < PER_SESSION else await _closed(link)
                except Broken:
                    link = await _closed(link)
                await asyncio.sleep(self._pause if done else PAUSE * random.uniform(0.5, 1.5))
        await _closed(link)

    async def _hand_over(self, link: "Link", mail: Mail) -> bool:
        """One try, and its entry in the book."""
        link.mails += 1
        try:
            recipients = await link.envelope(mail)
            entry = await link.content(mail, recipients)
        except Refused as refused:
            entry = Entry(mail.number, "refused", reply=str(refused))
        self._book.write(entry)
        if entry.how == "unknown":
            raise Broken
        return entry.how == "accepted"


class Link:
    """One SMTP session."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reply_within: float) -> None:
        self._reader, self._writer, self._reply_within = reader, writer, reply_within
        self.mails = 0

    @classmethod
    async def open(cls, port: int, reply_within: float) -> "Link":
        try:
            async with asyncio.timeout(reply_within):
                link = cls(*await asyncio.open_connection(processes.HOST, port), reply_within)
        except (OSError, TimeoutError) as error:
            raise Broken from error
        try:
            await link.expect("220")
            await link.command("EHLO ledger.example", "250")
        except (Refused, Broken) as error:
            link.close()
            raise Broken from error
        return link

    async def envelope(self, mail: Mail) -> tuple[str, ...]:
        """MAIL and RCPT; those recipients that were taken, or `Refused` where none was."""
        await self.command(f"MAIL FROM:<{mail.sender}>", "250")
        taken, last = [], Refused()
        for one in mail.recipients:
            try:
                await self.command(f"RCPT TO:<{one}>", "250")
                taken.append(one)
            except Refused as refused:
                last = refused
        if not taken:
            raise last
        return tuple(taken)

    async def content(self, mail: Mail, recipients: tuple[str, ...]) -> Entry:
        """The content, by BDAT where the number is a multiple of four, and what was said to it."""
        if mail.number % 4:
            await self.command("DATA", "354")
            body, last = mail.raw.replace(b"\r\n.", b"\r\n.."), b".\r\n"
        else:
            half = len(mail.raw) // 2
            await self._write(b"BDAT %d\r\n" % half + mail.raw[:half])
            await self.expect("250")
            body, last = b"BDAT %d LAST\r\n" % (len(mail.raw) - half) + mail.raw[half:-1], mail.raw[-1:]
        await self._write(body)
        return await self._end(mail, recipients, last)

    async def _end(self, mail: Mail, recipients: tuple[str, ...], last: bytes) -> Entry:
        """From here on it may be theirs."""
        try:
            await self._write(last)
            reply = await self.expect("250")
        except Broken as broken:
            return Entry(mail.number, "unknown", recipients, reply=str(broken))
        ids = _ID.findall(reply)
        assert len(ids) == 1, f"no id in {reply!r}"
        return Entry(mail.number, "accepted", recipients, ids[0], reply)

    async def command(self, line: str, wanted: str) -> str:
        await self._write(line.encode() + b"\r\n")
        return await self.expect(wanted)

    async def expect(self, wanted: str) -> str:
        try:
            async with asyncio.timeout(self._reply_within):
                while (line := (await self._reader.readline()).decode())[3:4] == "-":
                    pass
        except (OSError, TimeoutError) as error:
            raise Broken(repr(error)) from error
        if not line.endswith("\n"):
            raise Broken("closed")
        if line.startswith("421"):  # the peer closes; it says so in place of any other reply (RFC 5321 3.8)
            raise Refused(line.strip())
        if not line.startswith(wanted):
            raise Refused(line.strip())
        return line.strip()

    async def _write(self, octets: bytes) -> None:
        try:
            self._writer.write(octets)
            async with asyncio.timeout(self._reply_within):
                await self._writer.drain()
        except (OSError, TimeoutError) as error:
            raise Broken(repr(error)) from error

    def close(self) -> None:
        with suppress(OSError, RuntimeError):
            self._writer.write(b"QUIT\r\n")
        self._writer.close()


async def _closed(link: Link | None) -> None:
    if link is not None:
        link.close()


@contextmanager
def sending(
    book: Book,
    doors: Sequence[int],
    make: Make,
    *,
    connections: int = 8,
    reply_within: float = 20.0,
    pause: float = 0.0,
) -> Iterator[Sender]:
    """Load without end during the block. *doors* are ports of loopback, of one gateway or of several."""
    sender = Sender(book, doors, make, connections=connections, reply_within=reply_within, pause=pause)
    sender.start()
    try:
        yield sender
    finally:
        sender.stop()

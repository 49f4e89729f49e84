"""The next hop of the ledger: an SMTP server in a thread of its own that notes each mail before it says 250.

A script can make it refuse, defer, stall or hang up: a function of verb and argument that returns the reply (or `DROP`,
or a number of seconds to wait first), None where all is well.
"""

import asyncio
import contextlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from tests.peers import processes
from tests.reliability import ledger
from tests.reliability.ledger import Arrival

DROP = "DROP"
"""Close the connection without a word."""

Script = Callable[[str, str], str | float | None]
"""Verb (CONNECT, EHLO, MAIL, RCPT, DATA, "." for the end of the content) and argument -> what to say instead."""

_ID = re.compile(rb"\bid ([0-9abcdefghjkmnpqrstvwxyz]{18})\b")
_TOLD = re.compile(rb"(?mi)^Final-Recipient: rfc822; *(\S+)\r?$")


def well(_verb: str, _argument: str) -> None:
    """The script of a host that takes everything."""


def by_domain(replies: Mapping[str, str]) -> Script:
    """RCPT to these domains gets this reply: "450 4.2.0 Later", "550 5.1.1 No", or `DROP`."""

    def script(verb: str, argument: str) -> str | None:
        return replies.get(argument.rpartition("@")[2]) if verb == "RCPT" else None

    return script


class Sink:
    """A running sink. `script` may be replaced at any time."""

    def __init__(self, script: Script, port: int) -> None:
        self.script = script
        self.port = port
        self._arrivals: list[Arrival] = []
        self._loop: asyncio.AbstractEventLoop
        self._ended = asyncio.Event()

    def arrivals(self) -> list[Arrival]:
        """All mails taken so far, oldest first, one for each recipient."""
        return list(self._arrivals)

    async def serve(self, ready: threading.Event) -> None:
        """Take mail until `end`; what is under way then is cut off."""
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._client, processes.HOST, self.port, limit=1 << 20)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._ended.wait()
        server.close()

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await _Talk(self, reader, writer).run()
        writer.transport.abort()

    def note(self, sender: str, recipients: list[str], raw: bytes, *, answered: bool) -> None:
        """Each recipient has the mail from here on."""
        found, told = _ID.search(raw[:4096]), tuple(x.decode() for x in _TOLD.findall(raw)) if not sender else ()
        id_, whole = found[1].decode() if found else "", not sender or ledger.intact([raw])
        for one in recipients:
            number = ledger.number_of(sender or one)
            self._arrivals.append(Arrival(number, id_, sender, one, whole, answered, told))


class _Talk:
    """One connection."""

    def __init__(self, sink: Sink, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._sink, self._reader, self._writer = sink, reader, writer
        self._sender, self._recipients = "", list[str]()

    async def run(self) -> None:
        if not await self._say("CONNECT", "", "220 sink.example ESMTP"):
            return
        while line := (await self._reader.readline()).decode("utf-8", "replace").strip():
            verb, _, rest = line.partition(" ")
            if not await self._obey(verb.upper(), rest):
                return

    async def _obey(self, verb: str, rest: str) -> bool:
        match verb:
            case "EHLO":
                return await self._say(verb, rest, "250-sink.example\r\n250-8BITMIME\r\n250 PIPELINING")
            case "MAIL":
                self._sender, self._recipients = _address(rest), []
                return await self._say(verb, self._sender, "250 2.1.0 ok")
            case "RCPT":
                return await self._rcpt(_address(rest))
            case "DATA":
                return await self._data()
            case "QUIT":
                await self._say(verb, rest, "221 2.0.0 bye")
                return False
        return await self._say(verb, rest, "250 2.0.0 ok" if verb in ("RSET", "NOOP", "HELO") else "502 5.5.1 no")

    async def _rcpt(self, address: str) -> bool:
        reply = await self._reply("RCPT", address, "250 2.1.5 ok")
        if reply.startswith("250"):
            self._recipients.append(address)
        return await self._send(reply)

    async def _data(self) -> bool:
        reply = await self._reply("DATA", "", "354 go on" if self._recipients else "554 5.5.1 no recipients")
        if not await self._send(reply) or not reply.startswith("354"):
            return reply != DROP
        raw = bytearray()
        while (line := await self._reader.readline()) != b".\r\n":
            if not line.endswith(b"\n"):
                return False
            raw += line[1:] if line.startswith(b".") else line
        reply = await self._reply(".", self._sender, "250 2.0.0 taken")
        if reply == DROP or reply.startswith("250"):
            self._sink.note(self._sender, self._recipients, bytes(raw), answered=reply != DROP)
        return await self._send(reply)

    async def _say(self, verb: str, argument: str, usual: str) -> bool:
        return await self._send(await self._reply(verb, argument, usual))

    async def _reply(self, verb: str, argument: str, usual: str) -> str:
        said = self._sink.script(verb, argument)
        if isinstance(said, int | float):
            await asyncio.sleep(said)
            return usual
        return said or usual

    async def _send(self, reply: str) -> bool:
        if reply == DROP:
            return False
        self._writer.write(reply.encode() + b"\r\n")
        await self._writer.drain()
        return True


def _address(rest: str) -> str:
    return rest.partition("<")[2].partition(">")[0]


@contextmanager
def running(script: Script = well, port: int = 0) -> Iterator[Sink]:
    """A sink at *port* (0: one from the system) during the block; it has a thread and a loop of its own."""
    sink, ready = Sink(script, port), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(sink.serve(ready)), name="sink")
    thread.start()
    try:
        assert ready.wait(10), "the sink does not listen"
        yield sink
    finally:
        sink.end()
        thread.join(10)

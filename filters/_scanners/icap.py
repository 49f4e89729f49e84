"""An ICAP service (RFC 3507), asked whether it would change what is shown to it: the mail, as the body of a web page.

"Clean" is what leaves all of it alone: 204, or 200 with the very same octets. A header that names a threat, or another
page in the mail's place, is a find; all else is `Failed`.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Generator
from contextlib import aclosing, closing, suppress
from dataclasses import dataclass, field
from typing import Literal

from filters._scanners.icap_wire import Address, Reply, Wire
from filters._scanners.said import Failed, Octets, Said, Unreadable, Version, name_of, shown, why

VERSION_TIMEOUT = 3.0
"""Seconds that a service may take to tell its version."""

SETTLED = 0.1
"""Seconds after which what is still not sent was not waited for."""

_ASKED = b"GET http://mail.invalid/mail.eml HTTP/1.1\r\nHost: mail.invalid\r\n\r\n"
_PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: message/rfc822\r\nTransfer-Encoding: chunked\r\n\r\n"
_UPLOAD = (
    b"POST http://mail.invalid/mail.eml HTTP/1.1\r\nHost: mail.invalid\r\nContent-Type: message/rfc822\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_NAMING = (
    "x-infection-found", "x-virus-id", "x-virus-name", "x-fsecure-infection-name", "x-violations-found", "x-blocked",
    "x-block-reason", "x-blocked-reason",
)  # fmt: skip
"""Header fields in which scanners name what they found, the most telling first."""

_THREAT = re.compile(r"\bThreat=([^;]+)")
_CONTAINER = re.compile(r"\bType=2\b")
_HTTP = re.compile(rb"HTTP/1\.[01] (\d{3})")
_OK = re.compile(rb"HTTP/1\.[01] 200\b")

Method = Literal["RESPMOD", "REQMOD"]


class Icap:
    """One service at *written*, "icap://192.0.2.1:1344/avscan"; connections are kept for the next scan.

    It is shown the first *preview* octets before the rest, or all at once where that is 0.
    """

    def __init__(self, written: str, method: Method = "RESPMOD", preview: int = 0) -> None:
        self.written = written
        self._address, self._method, self._preview = Address.of(written), method, preview
        self._idle: list[Wire] = []

    async def version(self, deadline: float) -> Version:
        """Its program and the tag of its state, which changes with its signatures (4.7)."""
        try:
            reply = await self.options(deadline)
        except Failed:
            return Version("version unknown")
        tag = reply.fields.get("istag", "").strip('"')
        words = shown(f"{reply.fields.get('service', 'ICAP')} {tag}".strip())
        return Version(words, f"{self.written} {tag}" if tag else "")

    async def options(self, deadline: float) -> Reply:
        """What it says of itself (4.10). `Failed` where it does not offer what we ask of it."""
        deadline = min(deadline, asyncio.get_running_loop().time() + VERSION_TIMEOUT)
        try:
            async with asyncio.timeout_at(deadline):
                with closing(await Wire.to(self._address)) as wire:
                    await wire.send(self._address.head("OPTIONS", "Encapsulated: null-body=0"))
                    reply = await wire.reply()
        except OSError as error:
            raise Failed(why(error)) from None
        if reply.status != 200 or self._method not in reply.fields.get("methods", "").upper():
            raise Failed(f"offers no {self._method} (answered {reply.status})")
        return reply

    async def scan(self, octets: Octets, deadline: float) -> Said:
        """What it makes of *octets*. `Failed` where that says nothing."""
        try:
            async with asyncio.timeout_at(deadline):
                if wire := self._kept():
                    with suppress(ConnectionError):  # it was closed while nobody looked
                        return await self._scan_on(wire, octets)
                return await self._scan_on(await Wire.to(self._address), octets)
        except OSError as error:
            raise Failed(why(error)) from None

    def _kept(self) -> Wire | None:
        """A connection that was kept and is still good."""
        while self._idle:
            if (wire := self._idle.pop()).usable:
                return wire
            wire.close()
        return None

    async def _scan_on(self, wire: Wire, octets: Octets) -> Said:
        talk = _Talk(wire, self._address, self._method, self._preview)
        try:
            with closing(octets.pieces()) as pieces:
                return await talk.result(pieces)
        finally:
            if talk.reusable:
                self._idle.append(wire)
            else:
                wire.close()


@dataclass(slots=True)
class _Talk:
    """One request and its reply, which may begin before the request ends: both ways go on at the same time."""

    wire: Wire
    address: Address
    method: Method
    preview: int
    reusable: bool = False
    _sent: hashlib._Hash = field(default_factory=hashlib.sha256)
    _size: int = 0
    _whole: bool = False
    _fault: Unreadable | None = None
    _sending: asyncio.Task[None] | None = None

    async def result(self, pieces: Generator[bytes, None, None]) -> Said:
        """What it says to *pieces*."""
        await self.wire.send(self._head())
        rest = b""
        if self.preview:
            rest = await self._send_preview(pieces)
            reply = await self.wire.reply()
            if reply.status != 100 or self._whole:  # 4.5: with 100 it wants the rest
                return await self._judged(reply)
        self._sending = asyncio.create_task(self._send_all(rest, pieces))
        try:
            return await self._judged(await self.wire.reply())
        except ConnectionError as error:
            raise self._fault or error from None
        finally:
            self._sending.cancel()
            await asyncio.wait((self._sending,))

    def _head(self) -> bytes:
        """The header of the request, and those of the page that is shown (4.4.1)."""
        blocks = [("req-hdr", _ASKED), ("res-hdr", _PAGE)] if self.method == "RESPMOD" else [("req-hdr", _UPLOAD)]
        places, offset = [], 0
        for name, block in blocks:
            places.append(f"{name}={offset}")
            offset += len(block)
        places.append(f"{blocks[-1][0][:3]}-body={offset}")
        wants = [f"Preview: {self.preview}"] if self.preview else []
        fields = ("Allow: 204", *wants, f"Encapsulated: {', '.join(places)}")
        return self.address.head(self.method, *fields) + b"".join(block for _, block in blocks)

    async def _send_preview(self, pieces: Generator[bytes, None, None]) -> bytes:
        """Send the first octets, and say so where these are all ("ieof", 4.5); what was read beyond them."""
        first = next(pieces, b"")
        if len(first) <= self.preview:
            first += next(pieces, b"")  # pieces are larger than any preview, but for the last
        await self._send_chunk(first[: self.preview])
        self._whole = len(first) <= self.preview
        await self.wire.send(b"0; ieof\r\n\r\n" if self._whole else b"0\r\n\r\n")
        return first[self.preview :]

    async def _send_all(self, rest: bytes, pieces: Generator[bytes, None, None]) -> None:
        with suppress(ConnectionError):  # it may have said why before it closed
            try:
                await self._send_chunk(rest)
                for piece in pieces:
                    await self._send_chunk(piece)
            except Unreadable as error:
                self._fault = error
                self.wire.hang_up()
                return
            await self.wire.send(b"0\r\n\r\n")
            self._whole = True

    async def _send_chunk(self, octets: bytes) -> None:
        if octets:
            self._sent.update(octets)
            self._size += len(octets)
            await self.wire.send(b"%x\r\n%b\r\n" % (len(octets), octets))

    async def _judged(self, reply: Reply) -> Said:
        """What *reply* means. `Failed` where it means nothing that we could rely on."""
        answer = f"ICAP {reply.status}"
        if named := _named(reply):
            return Said(*named, answer=shown(f"{answer} {'; '.join(_words(reply))}"))
        if reply.status == 200:
            return await self._compared(reply, answer)
        if reply.status != 204:
            raise Failed(f"answered {answer}")
        if not await self._all_is_sent():
            if self._sending:
                raise Failed("answered before it had taken the mail")
            return Said("unscanned", f"no more than its first {self.preview} octets were looked at", answer)
        self.reusable = not reply.closes
        return Said("clean", answer=answer)

    async def _all_is_sent(self) -> bool:
        """Whether it can have seen the whole mail; what was sent last may just have left."""
        if self._sending:
            await asyncio.wait((self._sending,), timeout=SETTLED)
        return self._whole

    async def _compared(self, reply: Reply, answer: str) -> Said:
        """200: what it would have in the mail's place, which may be the mail."""
        (first, _), *_, (last, end) = [*reply.blocks, reply.blocks[-1]]
        head = await self.wire.exactly(end)
        kind = "res" if self.method == "RESPMOD" else "req"
        ours = first == f"{kind}-hdr" and last == f"{kind}-body" and (kind == "req" or _OK.match(head))
        if not ours or not await self._is_ours():
            status = _HTTP.match(head)
            return Said("infected", f"another page in its place{f' ({status[1].decode()})' if status else ''}", answer)
        self.reusable = not reply.closes
        return Said("clean", answer=answer)

    async def _is_ours(self) -> bool:
        """Whether the body that follows is what was sent, all of it."""
        got, size = hashlib.sha256(), 0
        async with aclosing(self.wire.chunks()) as chunks:
            async for piece in chunks:
                got.update(piece)
                size += len(piece)
                if size > self._size:
                    return False
        return await self._all_is_sent() and size == self._size and got.digest() == self._sent.digest()


def _words(reply: Reply) -> list[str]:
    """The header fields that name something, as they stand."""
    return [
        f"{name}: {value}"
        for name in _NAMING
        if (value := reply.fields.get(name)) and not (name == "x-violations-found" and value == "0")
    ]


def _named(reply: Reply) -> tuple[str, str] | None:
    """What the header names as found: the code and the name.

    Type 2 of X-Infection-Found is what is packed so that it cannot be looked into (draft-stecher-icap-subid 3.3).
    """
    words = _words(reply)
    if not words:
        return None
    threat = _THREAT.search(words[0])
    code = "unscanned" if _CONTAINER.search(reply.fields.get("x-infection-found", "")) else "infected"
    return code, name_of(threat[1].strip() if threat else words[0].partition(": ")[2])

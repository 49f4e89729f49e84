"""One mail over one SMTP session: MAIL, RCPT, DATA, and one answer for each recipient.

What the host cannot carry is settled before anything is sent: SIZE (RFC 1870), 8BITMIME (RFC 6152), SMTPUTF8
(RFC 6531). A message with a bare CR or LF never leaves this house: other hosts see two messages in it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from gateway.delivery.relay import Connection, Lost
from gateway.delivery.reply import Reply
from gateway.model import Recipient, Temporary
from gateway.routes import normal

MAX_HEADER = 1 << 20
"""Octets that are searched for the end of the header."""

_UNSAFE_WORD = re.compile(r"[\x00-\x20\x7f]")
_UNSAFE_ADDRESS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A mail on its way. `chunks` gives its `size` octets, with CRLF, from the start each time it is called."""

    sender: str
    recipients: tuple[Recipient, ...]
    size: int
    chunks: Callable[[], AsyncGenerator[bytes, None]]
    eight_bit: bool = False
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one recipient. `elsewhere`: this host has not taken it, and another one may, now.

    `dsn`: the host keeps the promise of RFC 3461, so that we owe no notice of success.
    """

    reply: Reply
    elsewhere: bool = False
    dsn: bool = False


class Stale(Exception):
    """The connection, used before, turned out dead before this mail began: nothing has happened, try a fresh one."""


class Stuffing:
    """Dot-stuffing (RFC 5321 4.5.2) of a message that comes in pieces. Raises `BareLineEnd`."""

    def __init__(self) -> None:
        self._tail = b"\r\n"

    def of(self, chunk: bytes) -> bytes:
        """The octets to send for *chunk*."""
        joined = self._tail + chunk
        if _has_bare_end(joined[1:]):
            raise BareLineEnd
        self._tail = joined[-2:]
        return joined.replace(b"\r\n.", b"\r\n..")[2:]

    def end(self) -> bytes:
        """The octets that end the data."""
        if self._tail[-1:] == b"\r":
            raise BareLineEnd
        return b".\r\n" if self._tail == b"\r\n" else b"\r\n.\r\n"


class BareLineEnd(Exception):
    """The message has a CR without LF, or a LF without CR."""


def _has_bare_end(data: bytes) -> bool:
    """*data* begins with the last octet of what came before, so only a CR at its end may wait for its LF."""
    pairs = data.count(b"\r\n")
    waiting = data.endswith(b"\r")
    alone = data.startswith(b"\n")  # its CR was seen before this octet
    return data.count(b"\r") - waiting != pairs or data.count(b"\n") - alone != pairs


async def send(connection: Connection, mail: Outgoing) -> list[Result]:
    """Send *mail*; return one result for each recipient, in their order. Raises `Stale`, and nothing else."""
    connection.messages += 1
    transaction = _Transaction(connection, mail)
    try:
        async with asyncio.timeout(connection.relay.transaction_time):
            await transaction.run()
    except TimeoutError:  # each single wait has its own limit, and ends in `Lost`
        transaction.broken(Reply(451, "4.4.2", "it is too slow for one message"), elsewhere=False)
    except Lost as lost:
        transaction.broken(lost.reply)
    except Temporary:
        transaction.broken(Reply(451, "4.3.0", "the message cannot be read from the store now"), elsewhere=False)
    except BareLineEnd:
        transaction.broken(
            Reply(550, "5.6.0", "the message has a bare CR or LF, which is not sent on"), elsewhere=False
        )
    return transaction.results()


class _Transaction:
    def __init__(self, connection: Connection, mail: Outgoing) -> None:
        self._to = connection
        self._mail = mail
        self._times = connection.relay.timeouts
        self._answers: list[Reply | None] = [None] * len(mail.recipients)
        self._elsewhere = [False] * len(mail.recipients)
        self._utf8 = False
        self._answered = False
        self._ahead = connection.offers("PIPELINING")
        self._ended = False

    def results(self) -> list[Result]:
        dsn = self._to.offers("DSN")
        unknown = Reply(451, "4.3.0", "no answer")
        return [
            Result(answer or unknown, elsewhere, dsn)
            for answer, elsewhere in zip(self._answers, self._elsewhere, strict=True)
        ]

    def broken(self, reply: Reply, elsewhere: bool = True) -> None:
        """The session ended on *reply*. After the final dot another host must not get the mail too, for now."""
        self._to.drop()
        if self._to.messages > 1 and not self._answered and elsewhere:
            raise Stale
        for index in self._open():
            self._answers[index] = reply
            self._elsewhere[index] = elsewhere and not self._ended

    def _open(self) -> list[int]:
        return [index for index, answer in enumerate(self._answers) if answer is None]

    def _settle(self, reply: Reply) -> None:
        for index in self._open():
            self._answers[index] = reply

    async def run(self) -> None:
        """Leave an answer for every recipient, and a session that is ready for the next mail."""
        await self._object()
        wanted = self._open()
        if not wanted:
            return
        if self._ahead:
            lines = [self._mail_line(), *(self._rcpt_line(index) for index in wanted), "DATA"]
            await self._to.write("".join(f"{line}\r\n" for line in lines).encode(), self._times.mail)
        took = await self._envelope(wanted)
        if self._ahead or self._open():
            took = await self._data()
        if not took:
            await self._reset()

    async def _object(self) -> None:
        """Answer for the host where its EHLO already says that it cannot take the mail."""
        if _is_unsafe(self._mail):
            return self._settle(Reply(553, "5.1.3", "an address or parameter has characters that no command may have"))
        if too_big := self._too_big():
            return self._settle(too_big)
        if not self._to.offers("8BITMIME") and not self._to.relay.send_eight_bit_anyway and await self._is_eight_bit():
            return self._settle(Reply(554, "5.6.3", f"{self._to.hop} takes no 8-bit mail, and we do not re-encode it"))
        await self._object_to_utf8()
        return None

    def _too_big(self) -> Reply | None:
        limit = self._to.extensions.get("SIZE", "")
        if limit.isascii() and limit.isdigit() and len(limit) < 20 and 0 < int(limit) < self._mail.size:
            return Reply(552, "5.3.4", f"{self._to.hop} takes messages of up to {int(limit)} octets")
        return None

    async def _is_eight_bit(self) -> bool:
        async with aclosing(self._mail.chunks()) as chunks:
            async for chunk in chunks:
                if not chunk.isascii():
                    return True
        return False

    async def _object_to_utf8(self) -> None:
        """A domain can be written as A-labels, a local part or a header in UTF-8 cannot (RFC 6531 3.2)."""
        mail, offered = self._mail, self._to.offers("SMTPUTF8")
        addresses = (mail.sender, *(recipient.address for recipient in mail.recipients))
        if offered:
            self._utf8 = mail.smtputf8 or not all(map(str.isascii, addresses))
            return None
        refusal = Reply(553, "5.6.7", f"{self._to.hop} takes no mail with international addresses or header fields")
        if not _ascii(mail.sender).isascii() or (mail.smtputf8 and not await self._header_is_ascii()):
            return self._settle(refusal)
        for index, recipient in enumerate(mail.recipients):
            if not _ascii(recipient.address).isascii():
                self._answers[index] = refusal
        return None

    async def _header_is_ascii(self) -> bool:
        seen, tail = 0, b""
        async with aclosing(self._mail.chunks()) as chunks:
            async for chunk in chunks:
                header, end, _ = (tail + chunk).partition(b"\r\n\r\n")
                if not header.isascii():
                    return False
                seen += len(chunk)
                if end or seen > MAX_HEADER:
                    break
                tail = chunk[-3:]
        return True

    def _address(self, address: str) -> str:
        return address if self._utf8 else _ascii(address)

    def _mail_line(self) -> str:
        mail, offers = self._mail, self._to.offers
        words = [f"MAIL FROM:<{self._address(mail.sender)}>"]
        words += [f"SIZE={mail.size}"] if offers("SIZE") else []
        words += ["BODY=8BITMIME"] if offers("8BITMIME") and (mail.eight_bit or self._utf8) else []
        words += ["SMTPUTF8"] if self._utf8 else []
        if offers("DSN"):
            words += [f"RET={mail.ret}"] if mail.ret else []
            words += [f"ENVID={mail.envid}"] if mail.envid else []
        return " ".join(words)

    def _rcpt_line(self, index: int) -> str:
        recipient = self._mail.recipients[index]
        words = [f"RCPT TO:<{self._address(recipient.address)}>"]
        if self._to.offers("DSN"):
            words += [f"NOTIFY={','.join(sorted(recipient.notify))}"] if recipient.notify else []
            words += (
                [f"ORCPT={recipient.orcpt}"] if recipient.orcpt and (self._utf8 or recipient.orcpt.isascii()) else []
            )
        return " ".join(words)

    async def _ask(self, line: str, seconds: float) -> Reply:
        """The answer to *line*, which has been sent ahead where the host allows it (RFC 2920)."""
        reply = await (self._to.reply(seconds) if self._ahead else self._to.command(line, seconds))
        self._answered = True
        return reply

    async def _envelope(self, wanted: list[int]) -> bool:
        """MAIL and RCPT; recipients that the host refuses have their answer then."""
        mail = await self._ask(self._mail_line(), self._times.mail)
        for index in wanted if self._ahead or mail.ok else ():
            reply = await self._ask(self._rcpt_line(index), self._times.rcpt)
            if mail.ok and not reply.ok:
                self._answers[index] = _too_many(reply)
        if not mail.ok:
            self._settle(mail)
        return False

    async def _data(self) -> bool:
        """DATA and the message; True when the host has taken it."""
        start = await self._ask("DATA", self._times.data_start)
        if start.code != 354:
            if start.ok:
                raise self._to.lost("its answers are out of step")
            self._settle(start)
            return False
        if not self._open():  # RFC 2920 3.1: nobody is left, and the host waits for a message all the same
            await self._to.write(b".\r\n", self._times.data_block)
            await self._to.reply(self._times.data_end)
            return False
        reply = await self._body()
        self._settle(reply)
        return reply.ok

    async def _body(self) -> Reply:
        stuffing = Stuffing()
        try:
            last = b""
            async with aclosing(self._mail.chunks()) as chunks:
                async for chunk in chunks:
                    if last:
                        await self._to.write(last, self._times.data_block)
                    if self._to.interrupted:
                        return await self._interruption()
                    last = stuffing.of(chunk)
            last += stuffing.end()  # in one segment: the host's reply is all that we wait for
            self._ended = self._to.alive
            await self._to.write(last, self._times.data_block)
        except Lost as lost:
            if not self._to.interrupted:
                raise
            return await self._last_words(lost)
        return await self._to.reply(self._times.data_end)

    async def _interruption(self) -> Reply:
        """The host answers before the end: take its refusal, and leave, for the two of us are out of step."""
        reply = await self._to.reply(self._times.data_end)
        if reply.code // 100 in (2, 3):
            raise self._to.lost("its answers are out of step")
        self._to.drop()
        return reply

    async def _last_words(self, lost: Lost) -> Reply:
        """Why the host hung up, where it said so first."""
        reply = await self._to.reply(self._times.data_block)
        if reply.code // 100 in (2, 3):
            raise lost
        return reply

    async def _reset(self) -> None:
        """Clear the session for the next mail; it no longer matters to this one how that ends."""
        if self._to.alive:
            try:
                await self._to.command("RSET", self._times.mail)
            except Lost:
                self._to.drop()


def _is_unsafe(mail: Outgoing) -> bool:
    """Would a command line made of this end early? The edge refuses such addresses; this is the second lock."""
    words = (mail.ret, mail.envid, *(word for one in mail.recipients for word in (one.orcpt, *one.notify)))
    addresses = (mail.sender, *(one.address for one in mail.recipients))
    return bool(_UNSAFE_WORD.search("".join(words)) or _UNSAFE_ADDRESS.search("".join(addresses)))


def _ascii(address: str) -> str:
    """*address* with its domain as A-labels, which every host understands; the local part stays what it is."""
    local, at, domain = address.rpartition("@")
    return address if address.isascii() or not at else f"{local}@{normal(domain)}"


def _too_many(reply: Reply) -> Reply:
    """RFC 5321 4.5.3.1.10: 552 at RCPT means "too many recipients", unless its status says another thing."""
    if reply.code == 552 and reply.status in ("5.0.0", "5.5.3"):
        return Reply(452, f"4{reply.status[1:]}", reply.text, reply.host)
    return reply

"""The stream from the peer: command lines by the letter, and blocks of content. What is unread is bounded.

Rule: a command is one line of text that ends with CRLF (RFC 5321 2.3.8); what holds a bare LF or a control character,
or does not end, is never executed, in whole or in part.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

from gateway.smtp import replies
from gateway.smtp.replies import ProtocolError

MAX_LINE = 4096
"""Octets of a command line: more than all extensions together ask for, and enough for AUTH with long passwords."""

AT_ONCE = 20
"""Command lines after which a peer that sends them in one go leaves room for the others."""

_TEXT = re.compile(rb"[^\x00-\x1f\x7f]*\r\n")
_VERB = re.compile(rb"[A-Za-z]+[ \r]")
_MAY_BEGIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz\r\n")
_UNREAD = 16 << 10


class Reader(asyncio.StreamReader):
    """What aiosmtpd reads from. `waiting` is true while we wait for a command and nothing else goes on."""

    # asyncio keeps these, and has no public way to put octets back
    _buffer: bytearray
    _eof: bool
    _maybe_resume_transport: Callable[[], None]
    _wait_for_data: Callable[[str], Awaitable[None]]

    def __init__(self) -> None:
        super().__init__(limit=_UNREAD, loop=asyncio.get_running_loop())
        self.waiting = False
        self._taken = 0

    async def readuntil(self, separator: object = b"\n") -> bytes:  # noqa: ARG002 - the signature is asyncio's
        """The next command line. `ProtocolError` for what cannot be one, `ConnectionResetError` at the end."""
        self._taken += 1
        if not self._taken % AT_ONCE:
            await asyncio.sleep(0)
        self.waiting = True
        try:
            await self._until_begun()
            line = await self.line()
        finally:
            self.waiting = False
        if not _VERB.match(line):
            raise ProtocolError(replies.BAD_LINE)
        return line

    async def line(self) -> bytes:
        """The next line of text with its CRLF, whatever it means."""
        while (end := self._buffer.find(b"\n", 0, MAX_LINE)) < 0:
            if len(self._buffer) >= MAX_LINE:
                raise ProtocolError(replies.LINE_TOO_LONG)
            await self._more()
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        self._maybe_resume_transport()
        if not _TEXT.fullmatch(line):
            # After a BDAT that we cannot read, what comes next may be its chunk
            raise ProtocolError(replies.BAD_CHUNK if line[:4].upper() == b"BDAT" else replies.BAD_LINE)
        return line

    async def _until_begun(self) -> None:
        """Wait for the first octet. TLS, SSH and RDP clients show by it that they do not mean us."""
        while not self._buffer:
            await self._more()
        if self._buffer[0] not in _MAY_BEGIN:
            raise ProtocolError(replies.NOT_SMTP)

    async def is_silent(self, seconds: float) -> bool:
        """Whether nothing comes for *seconds*; False as soon as something does."""
        try:
            async with asyncio.timeout(seconds):
                while not (self._buffer or self._eof):
                    await self._wait_for_data("silence")
        except TimeoutError:
            pass
        return not self._buffer

    async def _more(self) -> None:
        if (error := self.exception()) is not None:
            raise error
        if self._eof:
            raise ConnectionResetError
        await self._wait_for_data("line")

    @property
    def has_line(self) -> bool:
        """Whether the peer has sent another line already: the group of commands is not over (RFC 2920 3.2)."""
        return b"\n" in self._buffer

    @property
    def is_empty(self) -> bool:
        """Whether nothing is unread."""
        return not self._buffer

    def unread(self, octets: bytes) -> None:
        """Put *octets* back to the front."""
        self._buffer[:0] = octets

    def discard(self) -> None:
        """Forget what is unread."""
        self._buffer.clear()
        self._maybe_resume_transport()

"""An SMTP client session with one host: connect, greet, STARTTLS, AUTH, then mail after mail (RFC 5321).

Every wait has a deadline, named as in RFC 5321 4.5.3.2. A mail's octets pass through and are never whole in memory.
When the connection breaks after the final dot and before the answer, the host may or may not have the mail: we send
it again later, for a mail may come twice but must not be lost (RFC 5321 4.5.5 leaves the client no better choice).
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import ssl
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from gateway.delivery.paths import Hop
from gateway.delivery.reply import Failed, Reply, heard
from gateway.delivery.wire import Closed, Wire
from gateway.stages import Relay

MAX_LINES = 100
"""Lines of one reply."""
MAX_PASSWORD = 1024
QUIT_TIMEOUT = 2.0

_REPLY = re.compile(rb"[2-5]\d\d(?:([ -]).*)?", re.DOTALL)


class Lost(Exception):
    """The session is over before its time; `reply` says why, in the peer's words (421) or in ours."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class _TlsBroken(Exception):
    """TLS was offered and did not come about; `reply` says why."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class Connection:
    """A session that is ready for mail. `extensions` are those of the last EHLO, by name, with their arguments.

    `target` is the hop that was asked for; `hop` differs from it where TLS was given up.
    """

    def __init__(self, wire: Wire, hop: Hop, relay: Relay) -> None:
        self.target = hop
        self.hop = hop
        self.relay = relay
        self.extensions: dict[str, str] = {}
        self.messages = 0
        self._wire = wire
        self._begun: list[bytes] = []

    @property
    def alive(self) -> bool:
        """Could it take another mail?"""
        return self._wire.alive

    @property
    def tls(self) -> str:
        """The version of TLS in use, or empty."""
        return self._wire.tls

    def offers(self, extension: str) -> bool:
        """Did the host offer *extension* (upper case)?"""
        return extension in self.extensions

    @property
    def interrupted(self) -> bool:
        """Has the host said something unasked?"""
        return self._wire.unread

    async def write(self, data: bytes, seconds: float) -> None:
        """Send *data* and wait until there is room for more; raise `Lost`."""
        try:
            if not self._wire.write(data):
                async with asyncio.timeout(seconds):
                    await self._wire.room()
        except Closed as error:
            raise self.lost(str(error)) from None
        except TimeoutError:
            raise self.lost("it takes no more data") from None

    async def reply(self, seconds: float) -> Reply:
        """The next reply; raise `Lost` on 421, on silence for *seconds*, and on what is no SMTP."""
        answer, _ = await self._answer(seconds)
        return answer

    async def _answer(self, seconds: float) -> tuple[Reply, list[bytes]]:
        """The next reply, and its lines without the code."""
        try:
            if not self._has_reply():
                async with asyncio.timeout(seconds):
                    while not self._has_reply():
                        await self._wire.more()
        except Closed as error:
            raise self.lost(str(error)) from None
        except TimeoutError:
            raise self.lost("it does not answer") from None
        lines, self._begun = self._begun, []
        code = int(lines[0][:3])
        answer = heard(code, [line[4:] for line in lines], str(self.hop))
        if code == 421:  # RFC 5321 3.8: the host closes, whatever we asked
            self._wire.close()
            raise Lost(answer)
        return answer, [line[4:] for line in lines]

    def _has_reply(self) -> bool:
        """Take in the lines that are there; True when they are one whole reply (RFC 5321 4.2.1)."""
        while (line := self._wire.line()) is not None:
            match = _REPLY.fullmatch(line)
            if not match or (self._begun and line[:3] != self._begun[0][:3]):
                raise Closed("it does not speak SMTP")
            self._begun.append(line)
            if match[1] != b"-":
                return True
            if len(self._begun) == MAX_LINES:
                raise Closed("its reply does not end")
        return False

    async def command(self, line: str, seconds: float) -> Reply:
        """Send one command line and return the reply."""
        await self.write(line.encode() + b"\r\n", seconds)
        return await self.reply(seconds)

    def lost(self, why: str) -> Lost:
        """Drop the connection; the exception to raise for it."""
        self._wire.close()
        return Lost(Reply(421, "4.4.2", f"conversation with {self.hop} broke off: {why}"))

    async def greet(self, name: str, tls: bool = False) -> None:
        """EHLO, or HELO for hosts that do not know it; raise `Failed` when we are not welcome."""
        seconds = self.relay.timeouts.greeting
        self.extensions = {}
        await self.write(f"EHLO {name}\r\n".encode(), seconds)
        answer, lines = await self._answer(seconds)
        if answer.ok:
            self.extensions = _extensions(lines[1:])
            return
        if answer.permanent and not tls:
            answer = await self.command(f"HELO {name}", seconds)
        if not answer.ok:
            raise Failed(answer)

    async def start_tls(self, name: str) -> None:
        """STARTTLS and a second EHLO (RFC 3207 4.2: what was offered in clear is forgotten)."""
        answer = await self.command("STARTTLS", self.relay.timeouts.mail)
        if answer.code != 220:
            raise _TlsBroken(answer)
        try:
            async with asyncio.timeout(self.relay.connect_timeout):
                await self._wire.start_tls(_context(self.hop), self.hop.host)
        except (OSError, ValueError, TimeoutError, Closed) as error:  # ssl.SSLError is an OSError
            self._wire.close()
            raise _TlsBroken(_tls_failure(self.hop, error)) from None
        try:
            await self.greet(name, tls=True)
        except Lost as lost:  # in TLS 1.3 a host can still refuse the handshake after we thought it done
            raise _TlsBroken(lost.reply) from None

    async def log_in(self) -> None:
        """AUTH PLAIN (RFC 4616), under TLS only. Trouble with it is trouble of ours, so it is never permanent."""
        if not self.tls:
            raise Failed(Reply(451, "4.7.11", f"{self.hop}: a password is configured, and there is no TLS"))
        if "PLAIN" not in self.extensions.get("AUTH", "").upper().split():
            raise Failed(Reply(451, "4.7.0", f"{self.hop} does not offer AUTH PLAIN"))
        secret = base64.b64encode(f"\0{self.hop.user}\0{_password(self.hop)}".encode()).decode()
        answer = await self.command(f"AUTH PLAIN {secret}", self.relay.timeouts.mail)
        if not answer.ok:
            raise Failed(answer)

    async def quit(self) -> None:
        """Leave politely if the host lets us, and in any case."""
        try:
            await self.command("QUIT", QUIT_TIMEOUT)
        except Lost:
            pass
        finally:
            self._wire.close()

    def drop(self) -> None:
        """Leave without a word."""
        self._wire.close()


async def connect(hop: Hop, name: str, relay: Relay) -> Connection:
    """Open a session with *hop*, as *name*; raise `Failed`, whose reply is about the host, not about a mail.

    Where TLS only *may* be, its failure leads to one more connection, in clear.
    """
    try:
        return await _open(hop, name, relay)
    except _TlsBroken as broken:
        if hop.tls != "may":
            raise Failed(broken.reply) from None
    connection = await _open(replace(hop, tls="never"), name, relay)
    connection.target = hop
    return connection


async def _open(hop: Hop, name: str, relay: Relay) -> Connection:
    connection = Connection(await _wire(hop, relay), hop, relay)
    try:
        await _introduce(connection, name)
    except Lost as lost:
        raise Failed(lost.reply) from None
    except BaseException:
        connection.drop()
        raise
    return connection


async def _wire(hop: Hop, relay: Relay) -> Wire:
    try:
        context = _context(hop) if hop.tls == "implicit" else None
        async with asyncio.timeout(relay.connect_timeout):
            return await Wire.connect(str(hop.address), hop.port, hop.source, context, hop.host)
    except ssl.SSLError as error:
        raise Failed(_tls_failure(hop, error)) from None
    except (OSError, ValueError, TimeoutError) as error:
        why = "no answer" if isinstance(error, TimeoutError) else _reason(error)
        raise Failed(Reply(451, "4.4.1", f"{hop} cannot be reached: {why}")) from None


async def _introduce(connection: Connection, name: str) -> None:
    hop = connection.hop
    greeting = await connection.reply(connection.relay.timeouts.greeting)
    if not greeting.ok:
        raise Failed(greeting)
    await connection.greet(name)
    if hop.tls in ("may", "must"):
        await _secure(connection, name)
    if hop.user:
        await connection.log_in()


async def _secure(connection: Connection, name: str) -> None:
    """STARTTLS where it is offered; where it must be and is not, an attacker may have removed the offer."""
    if connection.offers("STARTTLS"):
        await connection.start_tls(name)
    elif connection.hop.tls == "must":
        raise Failed(Reply(451, "4.7.10", f"{connection.hop} does not offer the TLS that our policy asks for"))


def _extensions(lines: Iterable[bytes]) -> dict[str, str]:
    words = (line.decode("ascii", "replace").strip().partition(" ") for line in lines)
    return {keyword.upper(): arguments for keyword, _, arguments in words}


def _context(hop: Hop) -> ssl.SSLContext:
    return _verifying(hop.ca_file) if hop.tls in ("must", "implicit") else _encrypting()


@lru_cache(maxsize=16)
def _verifying(ca_file: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


@lru_cache(maxsize=1)
def _encrypting() -> ssl.SSLContext:
    """Opportunistic TLS (RFC 7435): it keeps listeners out, and proves nothing, which still beats clear text."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _password(hop: Hop) -> str:
    try:
        with Path(hop.password_file).open("rb") as file:
            return file.readline(MAX_PASSWORD).decode().strip()
    except (OSError, UnicodeDecodeError):
        raise Failed(Reply(451, "4.7.0", f"the password file for {hop.host} cannot be read")) from None


def _tls_failure(hop: Hop, error: BaseException) -> Reply:
    return Reply(451, "4.7.5", f"TLS with {hop} failed: {_reason(error)}")


def _reason(error: BaseException) -> str:
    """What went wrong, in words of ours or of the system's, never of the peer's."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return (error.reason or "no agreement").replace("_", " ").lower()
    if isinstance(error, Closed):
        return str(error)
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return "no answer" if isinstance(error, TimeoutError) else type(error).__name__

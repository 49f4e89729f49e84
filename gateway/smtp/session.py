"""The commands of the SMTP edge: who may say what when, and the reply to each answer of the pipeline.

Knows `gateway.pipeline.intake` and nothing of what follows. Rule: only what intake calls OK is answered with 250, and a
refusal is always a constant of `replies`.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from aiosmtpd.smtp import TLSSetupException

from gateway import config, events, failpoints
from gateway.backoff import Backoff, HeldBack
from gateway.model import Direction, Envelope, ListenerKind, Temporary
from gateway.peers import Address, Crowd
from gateway.pipeline.intake import Intake, Kind, Outcome, Visit
from gateway.smtp import address, connection, greeting, replies, sasl
from gateway.smtp.connection import Connection
from gateway.smtp.data import Chunked, Dotted
from gateway.smtp.replies import ProtocolError, Reply
from gateway.smtp.spool import Spool
from gateway.smtp.transaction import Transaction

BLOCK = 64 << 10
SMALL_CHUNK = 1 << 10
"""Octets below which a chunk counts as a command of its own."""
JUDGEMENT = 600.0
"""Seconds after which no client waits for the reply to the end of data any more (RFC 5321 4.5.3.2.6)."""

_judging: set[asyncio.Task[Outcome]] = set()

_ANSWERS: Mapping[Kind, Reply] = {
    Kind.REJECTED: replies.REJECTED,
    Kind.DEFERRED: replies.DEFERRED,
    Kind.NOT_OURS: replies.NOT_OURS,
    Kind.NO_SUCH_USER: replies.NO_SUCH_USER,
    Kind.NOT_YOURS: replies.NOT_YOURS,
    Kind.LOOP: replies.LOOP,
    Kind.TOO_BIG: replies.TOO_BIG,
    Kind.FULL: replies.FULL,
    Kind.UNAVAILABLE: replies.UNAVAILABLE,
}


@dataclass(frozen=True, slots=True)
class Service:
    """What the sessions of one listener share. `starttls` is None where it is not offered."""

    listener: config.Listener
    intake: Intake
    starttls: ssl.SSLContext | None
    spool_dir: Path
    backoff: Backoff
    crowd: Crowd


def judgements() -> set[asyncio.Task[Outcome]]:
    """What is being judged in this process, its peer still there or not."""
    return set(_judging)


class Session(Connection):
    """One SMTP dialog."""

    def __init__(self, service: Service, peer: Address, left: Callable[[], None]) -> None:
        listener, intake = service.listener, service.intake
        super().__init__(intake.edge, intake.hostname, listener.kind, listener.name, peer, left)
        self._service = service
        self._visit: Visit = intake.visit()
        self._mail: Transaction | None = None
        self._verb = self._envelope_word = ""  # of the command in hand, for the log
        self._has_spoken = False
        self._reading_content = False
        self._commands = self._errors = self._unknown = self._messages = self._auth_failures = 0

    # The door

    async def welcome(self) -> bool:
        """Greet whom the listener, the limits and the policies let in."""
        refusal = self._door_refusal() or await self._judged_at_door()
        if refusal:
            events.refused_connection(self.peer.peer, self._service.listener.name, str(refusal))
            self.leave(refusal)
        return not refusal

    def _door_refusal(self) -> Reply | None:
        networks = self._service.listener.networks
        is_open = self._service.listener.kind is not ListenerKind.RELAY and not networks
        if not is_open and not any(self.peer.peer in network for network in networks):
            return replies.NOT_YOUR_NETWORK
        if len(_judging) > self.edge.connections:  # peers that have gone, and left work behind
            return replies.TOO_MANY_CONNECTIONS
        return None

    async def _judged_at_door(self) -> Reply | None:
        try:
            outcome = await self._visit.connect(self.peer)
        except Exception as error:  # noqa: BLE001 - a fault of ours lets nobody in
            events.failure("smtp connect", error, peer=self.peer.peer)
            return replies.PEER_DEFERRED
        if outcome.kind is Kind.REJECTED:
            return replies.PEER_REFUSED.naming(outcome.id, outcome.reference)
        if outcome.kind is not Kind.OK:
            return replies.PEER_DEFERRED.naming(outcome.id, outcome.reference)
        return None if await self._has_waited() else replies.TALKED_BEFORE_GREETING

    async def _has_waited(self) -> bool:
        """Whether the peer says nothing before our greeting (RFC 5321 3.1). Strangers get time to show it."""
        if not (
            self.edge.strict_turns and await greeting.has_to_wait(self.peer, self.edge, self._service.intake.state)
        ):
            return not self._is_out_of_turn()
        is_silent = await self._reader.is_silent(self.edge.greeting_delay)
        if is_silent:
            await greeting.has_waited(self.peer, self.edge, self._service.intake.state)
        return is_silent

    def _is_out_of_turn(self) -> bool:
        """Whether the peer sent more where it had to wait for our answer (RFC 2920 3.1)."""
        return self.edge.strict_turns and not self._reader.is_empty

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The peer may come in. Where that makes the house nearly full, nobody is to keep us waiting for long."""
        super().connection_made(transport)
        if self._is_crowded:
            for one in connection.connections():
                one.hurry()

    def patience(self) -> tuple[float, Reply]:
        """How many seconds we wait for a command, and what is said then."""
        if self._is_crowded:
            return min(self.edge.crowded_timeout, self.edge.idle_timeout), replies.CROWDED_OUT
        return self.edge.idle_timeout, replies.IDLE_TOO_LONG

    @property
    def _is_crowded(self) -> bool:
        return self._service.crowd.size * 100 >= self.edge.connections * self.edge.crowded

    def connection_lost(self, error: Exception | None) -> None:
        """The peer is gone: nothing is asked any more that only the next command would need."""
        self._visit.close()
        super().connection_lost(error)

    def forget(self) -> None:
        """Drop the transaction."""
        mail, self._mail = self._mail, None
        if mail is not None:
            mail.spool.close()

    # All commands

    async def obey(self, verb: str, argument: str | None) -> None:
        """Run one command within the limits of the session."""
        self._commands += 1
        if self._commands > self.edge.commands:
            raise ProtocolError(replies.TOO_MANY_COMMANDS)
        if self._errors >= self.edge.errors:
            raise ProtocolError(replies.TOO_MANY_ERRORS)
        command = _COMMANDS.get(verb)
        if command is None:
            raise ProtocolError(replies.UNKNOWN_COMMAND)
        self._verb, self._has_spoken = verb, True
        self._envelope_word = argument or "" if verb in ("MAIL", "RCPT") else ""
        await command(self, argument or "")
        self._verb = ""

    async def handle_exception(self, error: Exception) -> str:
        """The reply to a command that failed: the one it names, or a constant that tells nothing."""
        reply = error.reply if isinstance(error, ProtocolError) else self._failed(error)
        if reply.code == 500 and not self._has_spoken:  # whoever begins like this does not speak SMTP
            reply = replies.NOT_SMTP
        self._errors += reply.code >= 500
        events.refused_command(self.peer, self._verb, str(reply), argument=self._envelope_word)
        self._verb = self._envelope_word = ""
        return str(reply)

    def _failed(self, error: Exception) -> Reply:
        if not isinstance(error, Temporary | TLSSetupException):
            events.failure("smtp", error, peer=self.peer.peer, command=self._verb)
        # Where content was not read to its end, what comes next must not be taken for commands
        return replies.BROKEN_OFF if self._reading_content else replies.UNAVAILABLE

    def _demand_entry(self) -> None:
        """Who is here may send mail: over TLS and logged in on the submission service, after EHLO everywhere."""
        is_submission = self.peer.kind is ListenerKind.SUBMISSION
        if is_submission and not self.peer.tls:
            raise ProtocolError(replies.TLS_FIRST)
        if not self.peer.helo:
            raise ProtocolError(replies.HELO_FIRST)
        if is_submission and not self.peer.user:
            raise ProtocolError(replies.AUTH_FIRST)

    async def helo(self, argument: str) -> None:
        """HELO: the plain old greeting."""
        self._greeted(argument, esmtp=False)
        await self.push(f"250 {self.hostname}")

    async def ehlo(self, argument: str) -> None:
        """EHLO: what we can do, in this state of the session (RFC 5321 4.1.1.1)."""
        self._greeted(argument, esmtp=True)
        *first, last = [self.hostname, *self._extensions()]
        await self.push("".join(f"250-{line}\r\n" for line in first) + f"250 {last}")

    def _greeted(self, argument: str, *, esmtp: bool) -> None:
        name = address.helo(argument)
        if self._is_out_of_turn():
            raise ProtocolError(replies.TALKED_OUT_OF_TURN)
        self.forget()
        self.peer = replace(self.peer, helo=name, esmtp=esmtp)

    def _extensions(self) -> list[str]:
        limits = f"LIMITS RCPTMAX={self.edge.recipients} MAILMAX={self.edge.messages}"  # RFC 9422
        words = ["PIPELINING", f"SIZE {self.edge.message_size}", "8BITMIME", "SMTPUTF8", "CHUNKING", "DSN", limits]
        if self._service.starttls is not None and not self.peer.tls:
            words.append("STARTTLS")
        if self.peer.kind is ListenerKind.SUBMISSION and self.peer.tls:
            words.append("AUTH PLAIN LOGIN")
        return [*words, "ENHANCEDSTATUSCODES"]

    async def noop(self, _: str) -> None:
        """NOOP, with any argument."""
        await self.say(replies.OK)

    async def rset(self, argument: str) -> None:
        """RSET: forget the transaction."""
        _demand_no(argument)
        self.forget()
        await self.say(replies.OK)

    async def quit(self, argument: str) -> None:
        """QUIT; what was sent after it is not read."""
        _demand_no(argument)
        self.leave(replies.BYE)

    async def help(self, _: str) -> None:
        """HELP: the same for everybody."""
        await self.say(replies.HELP)

    async def vrfy(self, _: str) -> None:
        """VRFY: tells nothing about who is here (RFC 5321 7.3)."""
        await self.say(replies.CANNOT_VERIFY)

    async def unsupported(self, _: str) -> None:
        """Commands that we know and do not have."""
        raise ProtocolError(replies.NOT_IMPLEMENTED)

    # TLS and AUTH

    async def starttls(self, argument: str) -> None:
        """STARTTLS (RFC 3207): afterwards nothing said before counts."""
        _demand_no(argument)
        if self.peer.tls:
            raise ProtocolError(replies.TLS_ALREADY)
        if self._service.starttls is None:
            raise ProtocolError(replies.NOT_IMPLEMENTED)
        self.forget()
        await self.start_tls(self._service.starttls)

    async def auth(self, argument: str) -> None:
        """AUTH PLAIN or LOGIN (RFC 4954)."""
        if self.peer.kind is not ListenerKind.SUBMISSION:
            raise ProtocolError(replies.NOT_IMPLEMENTED)
        if not self.peer.tls:
            raise ProtocolError(replies.AUTH_NEEDS_TLS)
        if not (self.peer.helo and self.peer.esmtp):
            raise ProtocolError(replies.HELO_FIRST)
        if self.peer.user:
            raise ProtocolError(replies.AUTH_ALREADY)
        login, password = await self._credentials(*argument.split(" "))
        await self._log_in(login, password)

    async def _credentials(self, mechanism: str, initial: str = "", *more: str) -> tuple[str, str]:
        if more:
            raise ProtocolError(replies.AUTH_SYNTAX)
        match mechanism.upper():
            case "PLAIN":
                return sasl.plain(sasl.decoded(initial) if initial else await self._challenge(replies.CHALLENGE))
            case "LOGIN":
                login = sasl.decoded(initial) if initial else await self._challenge(replies.ASK_USERNAME)
                return login, await self._challenge(replies.ASK_PASSWORD)
        raise ProtocolError(replies.AUTH_MECHANISM)

    async def _challenge(self, challenge: Reply) -> str:
        await self.say(challenge)
        await self.flush()
        answer = (await self._reader.line())[:-2].decode("ascii", "replace")
        if answer == "*":
            raise ProtocolError(replies.AUTH_CANCELLED)
        return sasl.decoded(answer)

    async def _log_in(self, login: str, password: str) -> None:
        identify = partial(self._visit.authenticate, self.peer, login, password)
        try:
            account = await self._service.backoff.checked(self.peer.peer, login, identify)
        except HeldBack:
            raise self._failed_login(replies.AUTH_HELD_BACK) from None
        except Temporary:
            raise ProtocolError(replies.AUTH_UNAVAILABLE) from None
        if not account:
            raise self._failed_login(replies.AUTH_FAILED)
        self.forget()
        self.peer = replace(self.peer, user=account)
        await self.say(replies.LOGGED_IN)

    def _failed_login(self, reply: Reply) -> ProtocolError:
        self._auth_failures += 1
        return ProtocolError(replies.TOO_MANY_LOGINS if self._auth_failures >= self.edge.auth_failures else reply)

    # The envelope

    async def mail(self, argument: str) -> None:
        """MAIL: a transaction begins."""
        self._demand_entry()
        if self._mail is not None:
            raise ProtocolError(replies.NESTED_MAIL)
        if self._messages >= self.edge.messages:
            raise ProtocolError(replies.TOO_MANY_MESSAGES)
        envelope, size = address.mail(argument)
        if size > self.edge.message_size:
            raise ProtocolError(replies.TOO_BIG)
        _demand_ok(await self._visit.sender(self.peer, envelope))
        self._mail = Transaction(envelope, Spool(self._service.spool_dir, self.edge.memory_spool))
        await self.say(replies.SENDER_OK)

    async def rcpt(self, argument: str) -> None:
        """RCPT: one recipient more."""
        self._demand_entry()
        mail = self._begun_mail()
        recipient = address.rcpt(argument, smtputf8=mail.envelope.smtputf8)
        self._demand_room(mail.envelope)
        if self.peer.direction is Direction.INBOUND and address.routes_onward(recipient.address):
            raise ProtocolError(replies.NOT_OURS)
        outcome = await self._visit.recipient(self.peer, mail.envelope, recipient)
        if outcome.kind is Kind.NO_SUCH_USER:
            self._count_unknown()
        _demand_ok(outcome)
        if all(known.address != recipient.address for known in mail.envelope.recipients):
            mail.envelope = replace(mail.envelope, recipients=(*mail.envelope.recipients, recipient))
        await self.say(replies.RECIPIENT_OK)

    def _count_unknown(self) -> None:
        """Strangers that try name after name find out little, and not for long."""
        self._unknown += 1
        if self._unknown >= self.edge.unknown_recipients and self.peer.direction is Direction.INBOUND:
            raise ProtocolError(replies.TOO_MANY_UNKNOWN)

    def _begun_mail(self) -> Transaction:
        if self._mail is None:
            raise ProtocolError(replies.MAIL_FIRST)
        if self._mail.chunks is not None:
            raise ProtocolError(replies.CHUNKS_UNDER_WAY)
        return self._mail

    def _demand_room(self, envelope: Envelope) -> None:
        if len(envelope.recipients) >= self.edge.recipients:
            raise ProtocolError(replies.TOO_MANY_RECIPIENTS)
        # A bounce goes to the one who sent the mail (RFC 5321 4.5.5); many recipients are an abuse of it
        if not envelope.sender and len(envelope.recipients) >= self.edge.null_sender_recipients:
            raise ProtocolError(replies.TOO_MANY_FOR_BOUNCE)

    # The content

    async def data(self, argument: str) -> None:
        """DATA: the content up to the line of one dot."""
        self._demand_entry()
        _demand_no(argument)
        mail = self._begun_mail()
        if not mail.envelope.recipients:
            raise ProtocolError(replies.RCPT_FIRST)
        if self._is_out_of_turn():
            raise ProtocolError(replies.TALKED_OUT_OF_TURN)
        await self.say(replies.GO_AHEAD)
        await self.flush()
        content = Dotted(self.edge.message_size, self.edge.header_size)
        self._reading_content = True
        self.begin_content()
        left = None
        while left is None:
            kept, left = content.feed(await self.octets(BLOCK))
            mail.keep(kept)
        self._reader.unread(left)
        self._reading_content = False
        await self._finish(mail, content)

    async def bdat(self, argument: str) -> None:
        """BDAT: a chunk of declared length (RFC 3030). Refused or not, its octets are never commands."""
        found = re.fullmatch(r"([0-9]{1,10})( +LAST)?", argument, re.IGNORECASE)
        if found is None:
            raise ProtocolError(replies.BAD_CHUNK)
        length, is_last = int(found[1]), bool(found[2])
        try:
            mail = self._mail_for_chunks()
        except ProtocolError:
            await self._read_chunk(length, lambda _: None)
            raise
        chunks = mail.chunks = mail.chunks or Chunked(self.edge.message_size, self.edge.header_size)
        await self._read_chunk(length, lambda block: mail.keep(chunks.feed(block)))
        if is_last:
            mail.keep(chunks.finish())
            await self._finish(mail, chunks)
        elif fault := chunks.fault or mail.trouble:
            raise ProtocolError(fault)
        else:
            self._commands -= length >= SMALL_CHUNK  # a large message may take many; its size bounds them
            await self.say(replies.CHUNK_OK)

    def _mail_for_chunks(self) -> Transaction:
        self._demand_entry()
        if self._mail is None:
            raise ProtocolError(replies.MAIL_FIRST)
        if not self._mail.envelope.recipients:
            raise ProtocolError(replies.RCPT_FIRST)
        return self._mail

    async def _read_chunk(self, length: int, take: Callable[[bytes], None]) -> None:
        self._reading_content = True
        self.begin_content()
        while length:
            block = await self.octets(min(length, BLOCK))
            length -= len(block)
            take(block)
        self._reading_content = False

    async def _finish(self, mail: Transaction, content: Dotted | Chunked) -> None:
        """The content is complete: the transaction ends here, well or not."""
        self._messages += 1
        try:
            if content.fault is not None:
                raise ProtocolError(content.fault)
            message = mail.finished()
            failpoints.hit("spooled")
            outcome = await self._judged(mail.envelope, message, content.size)
        finally:
            self.forget()
        _demand_ok(outcome)
        self._errors = self._commands = 0
        await self.say(replies.ACCEPTED.naming(outcome.id))
        failpoints.hit("answered")

    async def _judged(self, envelope: Envelope, message: BinaryIO, size: int) -> Outcome:
        """What intake makes of *message*. The judgement goes on where the peer has gone: it may be past the instant at
        which the mail became ours, and others read the file that ends with it."""
        self.allow(JUDGEMENT)
        judging = self.loop.create_task(_judge(self._visit.message(self.peer, envelope, message, size), message))
        _judging.add(judging)
        judging.add_done_callback(_judging.discard)
        return await asyncio.shield(judging)


async def _judge(question: Awaitable[Outcome], message: BinaryIO) -> Outcome:
    with message:
        async with asyncio.timeout(JUDGEMENT):
            return await question


def _demand_no(argument: str) -> None:
    if argument:
        raise ProtocolError(replies.NO_ARGUMENT)


def _demand_ok(outcome: Outcome) -> None:
    if outcome.kind is not Kind.OK:
        raise ProtocolError(_ANSWERS[outcome.kind].naming(outcome.id, outcome.reference))


_COMMANDS: Mapping[str, Callable[[Session, str], Awaitable[None]]] = {
    "HELO": Session.helo,
    "EHLO": Session.ehlo,
    "NOOP": Session.noop,
    "RSET": Session.rset,
    "QUIT": Session.quit,
    "HELP": Session.help,
    "VRFY": Session.vrfy,
    "EXPN": Session.unsupported,
    "ETRN": Session.unsupported,
    "TURN": Session.unsupported,
    "STARTTLS": Session.starttls,
    "AUTH": Session.auth,
    "MAIL": Session.mail,
    "RCPT": Session.rcpt,
    "DATA": Session.data,
    "BDAT": Session.bdat,
}

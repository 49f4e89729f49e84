"""The POP3 service: carries out the effects of `dialog` on sockets, passwords and the store.

A session holds its maildrop by a lease that it renews. Whatever ends it other than QUIT (a lost connection, a lost
lease, silence, a fault, a shutdown) deletes nothing.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol

from sqlalchemy import Connection as Transaction

from gateway import config, events, failpoints
from gateway.backoff import HeldBack
from gateway.door import Door, Entrance
from gateway.model import Temporary
from gateway.peers import Address, Full
from gateway.pop3 import dialog, replies
from gateway.pop3.connection import Connection, Gone
from gateway.pop3.framing import END, DotStuffer, Top
from gateway.pop3.lease import Lease, Store
from gateway.pop3.limits import Gate
from gateway.store import mailbox, messages

CRLF = b"\r\n"

FAREWELL = 0.3
"""Seconds that a stop waits for a client to answer our goodbye; over TLS, an idle one never does."""


class Authenticator(Protocol):
    """What of `gateway.accounts.Authenticator` is needed here."""

    async def identify(self, login: str, password: str) -> str: ...


def server_factory(
    listener: config.Pop3Listener,
    store: Store,
    authenticator: Authenticator,
    tls: ssl.SSLContext | None,
    gate: Gate,
) -> Service:
    """What `loop.create_server` calls for each connection to *listener*; implicit TLS, too, is started here.

    Listeners of one process share a *gate*, so that its limits hold for all of them together.
    """
    return Service(listener, store, authenticator, tls, gate)


class Service:
    """All sessions of one listener."""

    def __init__(
        self,
        listener: config.Pop3Listener,
        store: Store,
        authenticator: Authenticator,
        tls: ssl.SSLContext | None,
        gate: Gate,
    ) -> None:
        self.listener = listener
        self.store = store
        self.authenticator = authenticator
        self.tls = tls if listener.tls == "starttls" else None
        self.gate = gate
        self._sessions: dict[asyncio.Task[None], Session] = {}
        self._entrance = Entrance(
            name=listener.name,
            lobby=gate.lobby,
            limits=lambda: gate.limits,
            dialog=self._dialog,
            refusals=dict.fromkeys(Full, replies.TOO_MANY_SESSIONS.decode("ascii")),
            stranger=replies.NOT_YOUR_NETWORK.decode("ascii"),
            proxies=listener.proxy_from,
            context=tls if listener.tls == "implicit" else None,
        )

    def __call__(self) -> asyncio.BaseProtocol:
        return Door(self._entrance)

    def _dialog(self, peer: Address, left: Callable[[], None]) -> asyncio.Protocol:
        return Connection(self.gate.limits, dialog.MAX_SASL, partial(self._admit, peer, left))

    async def drain(self, grace: float = 10.0) -> None:
        """Let every session finish what it has been told, then end it; after *grace* seconds, end it anyway."""
        self.gate.lobby.clear()
        for session in self._sessions.values():
            session.shut_down()
        tasks = list(self._sessions)
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=grace)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def _admit(self, peer: Address, left: Callable[[], None], connection: Connection) -> Callable[[], None]:
        """Begin a session, and return what to call when its connection is lost."""
        session = Session(self, connection, peer)
        self._sessions[session.task] = session
        session.task.add_done_callback(self._sessions.pop)

        def lost() -> None:
            left()
            session.lost()

        return lost


class Session:
    """One peer, from the greeting to the end."""

    def __init__(self, service: Service, connection: Connection, peer: Address) -> None:
        self.peer = peer
        self._service = service
        self._limits = service.gate.limits
        self._connection = connection
        self._began = time.monotonic()
        self._user = ""
        self._listing: Sequence[mailbox.Message] = ()
        self._lease: Lease | None = None
        self._over = False
        self._leaving = False
        self._shutting_down = False
        self._why = "connection lost"
        self._sent = 0
        self._deleted = 0
        secure = bool(connection.tls)
        trusted = service.listener.cleartext_login and peer.is_loopback
        self._dialog = dialog.Dialog(secure=secure, offers_tls=service.tls is not None, trusted=trusted)
        self.task = asyncio.get_running_loop().create_task(self._run())

    def lost(self) -> None:
        """The connection is gone: nothing more can be asked or answered."""
        self._end("connection lost")

    def shut_down(self) -> None:
        """The service closes: finish the commands that have arrived, then end."""
        self._shutting_down = True
        self._why = "shutdown"
        self._connection.end()

    def _end(self, why: str) -> None:
        if not self._leaving:
            self._leaving = True
            self._why = why
            self.task.cancel()

    async def _run(self) -> None:
        try:
            await self._converse()
        except Gone:
            self._connection.abort()
        except TimeoutError:  # RFC 1939 3: the connection is closed without a word, and without UPDATE
            self._why = "timeout"
        except asyncio.CancelledError:
            self._connection.abort()
        except Exception as error:  # noqa: BLE001 - one session may fail, the service may not
            self._why = "failure"
            events.failure("pop3", error, peer=self.peer, user=self._user)
            self._connection.abort()
        finally:
            self._leaving = True
            await self._leave()

    async def _leave(self) -> None:
        try:
            if self._lease is not None:
                await self._lease.give_back()
        finally:
            await self._connection.close(FAREWELL if self._shutting_down else None)
        if self._user:
            seconds = round(time.monotonic() - self._began, 1)
            counts = {"sent": self._sent, "deleted": self._deleted, "seconds": seconds, "end": self._why}
            events.say("pop3-session", peer=self.peer, user=self._user, **counts)

    async def _converse(self) -> None:
        await self._say(replies.GREETING)
        while not self._over:
            line = await self._connection.line(self._patience())
            if line is None:
                await self._say_why()
                return
            await self._carry_out(self._dialog.line(line))

    async def _say_why(self) -> None:
        if self._shutting_down:
            await self._say(replies.SHUTTING_DOWN)

    def _patience(self) -> float:
        """How long to wait for the next command: the whole login has one deadline, later each command its own."""
        if self._dialog.state is not dialog.State.AUTHORIZATION:
            return self._limits.idle_timeout
        left = self._began + self._limits.login_timeout - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    async def _carry_out(self, steps: dialog.Steps) -> None:
        """Do what one command asks for, step by step, handing each answer back."""
        effect = next(steps, None)
        while effect is not None:
            try:
                answer = await self._do(effect)
            except Temporary as error:
                effect = _thrown(steps, error)
            else:
                effect = _sent(steps, answer)

    async def _do(self, effect: dialog.Effect) -> Any:
        answer: Any = None
        match effect:
            case dialog.Reply(text):
                await self._say(text)
            case dialog.Listing(text, lines):
                await self._list(text, lines)
            case dialog.SendMessage(text, number, top):
                await self._send(text, self._listing[number - 1], top)
            case dialog.Prompt(text):
                answer = await self._ask(text)
            case dialog.CheckPassword(user, password):
                answer = await self._check(user, password)
            case dialog.OpenMaildrop(account):
                answer = await self._open(account)
            case dialog.StartTls(text):
                answer = await self._start_tls(text)
            case dialog.Update(numbers):
                answer = await self._update(numbers)
            case dialog.Close():
                self._over, self._why = True, "closed"
        return answer

    # Words

    async def _say(self, text: bytes) -> None:
        await self._connection.send(text + CRLF)

    async def _ask(self, text: bytes) -> bytes:
        await self._say(text)
        line = await self._connection.line(self._patience())
        if line is None:
            raise Gone
        return line

    async def _list(self, text: bytes, lines: Iterable[bytes]) -> None:
        await self._say(text)
        for line in lines:
            await self._say(line)
        await self._connection.send(END)

    async def _start_tls(self, text: bytes) -> bool:
        """RFC 2595 4: what came with STLS in one go came in the clear, and is never read as a command."""
        if self._service.tls is None or self._connection.has_unread:
            return False
        await self._say(text)
        await self._connection.start_tls(self._service.tls)
        return True

    # Passwords

    async def _check(self, user: str, password: str) -> str:
        """The account, if the password is right."""
        identify = partial(self._service.authenticator.identify, user, password)
        try:
            account = await self._service.gate.backoff.checked(self.peer, user, identify)
        except HeldBack:
            self._tell("pop3-login-held-back", user)
            raise
        self._tell("pop3-login" if account else "pop3-login-failed", user)
        return account

    def _tell(self, event: str, user: str) -> None:
        events.say(event, peer=self.peer, listener=self._service.listener.name, user=user, tls=self._connection.tls)

    # The maildrop

    async def _open(self, account: str) -> Sequence[mailbox.Message] | None:
        """Lock and list. The lease is remembered first, so that it is given back whatever happens."""
        self._lease = Lease(self._service.store, account, self._limits.lease, lambda: self._end("lease lost"))
        try:
            if not await self._lease.take():
                return None
            self._listing = await self._service.store.read(lambda conn: mailbox.listing(conn, account))
        except Temporary:
            await self._lease.give_back()
            raise
        self._user = account
        return self._listing

    async def _update(self, numbers: Sequence[int]) -> bool:
        ids = [self._listing[number - 1].id for number in numbers]
        failpoints.hit("update")
        done = self._lease is not None and await self._lease.delete(ids)
        failpoints.hit("updated")
        self._deleted = len(ids) if done else 0
        return done

    # Messages

    async def _send(self, text: bytes, message: mailbox.Message, lines: int | None) -> None:
        """Stream one message, or its top; one chunk of it is in memory at a time."""
        top = Top(lines) if lines is not None else None
        stuffer = DotStuffer()
        begun = False
        async for chunk in self._chunks(message):
            if not begun:
                await self._say(text)
                begun = True
            await self._connection.send(stuffer.feed(top.feed(chunk) if top else chunk))
            if top and top.done:
                break
        await self._connection.send(stuffer.finish())
        self._sent += 1

    async def _chunks(self, message: mailbox.Message) -> AsyncIterator[bytes]:
        """`Temporary` before the first chunk, `Gone` after it: half a message is never made to look whole."""
        read = self._service.store.read
        count, first = await read(lambda conn: _beginning(conn, message))
        yield first
        for n in range(1, count):
            try:
                yield await read(lambda conn, n=n: messages.chunk(conn, message.message_id, n))  # type: ignore[misc]
            except (Temporary, LookupError):
                raise Gone from None


def _beginning(conn: Transaction, message: mailbox.Message) -> tuple[int, bytes]:
    """How many chunks there are, and the first, with the delivery's header on top."""
    count = messages.chunk_count(conn, message.message_id)
    if not count:
        raise Temporary("the message is gone")
    return count, mailbox.header(conn, message.id) + messages.chunk(conn, message.message_id, 0)


def _sent(steps: dialog.Steps, answer: object) -> dialog.Effect | None:
    try:
        return steps.send(answer)
    except StopIteration:
        return None


def _thrown(steps: dialog.Steps, error: Temporary) -> dialog.Effect | None:
    try:
        return steps.throw(error)
    except StopIteration:
        return None

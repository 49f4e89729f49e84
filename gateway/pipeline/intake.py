"""The door between the dialogs and the rest: what all sessions of one process share.

The policies in force and the confined workers that belong to them, swapped together; the keeping of what was judged;
and the way in for notices of our own. The only caller of `store.messages.accept`. `Visit` has one session's questions.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO, FileIO
from ipaddress import ip_address
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import Connection
from watchfiles import awatch

from gateway import accounts, events
from gateway import routes as ways
from gateway.accounts import Authenticator
from gateway.config import SHIPPED_POLICIES
from gateway.dkim.checker import Checker
from gateway.model import Dns, Envelope, ListenerKind, Mail, Recipient, Session, Shared, State, Temporary, Tools, new_id
from gateway.pipeline import actions, policy
from gateway.pipeline.outcome import OK, Explained, Kind, Outcome
from gateway.pipeline.policy import CONTENT, Policies
from gateway.pipeline.sandbox import Answer, Sandbox
from gateway.pipeline.visit import Visit
from gateway.stages import Edge, Stages
from gateway.store import messages
from gateway.store.engine import Store
from gateway.store.messages import Draft, Row
from gateway.toml import FaultyFiles

__all__ = ["OK", "Explained", "Intake", "Kind", "Outcome", "Visit"]


class Intake:
    """One for each process that takes in mail. Raises `FaultyFiles` where a policy cannot be used."""

    def __init__(
        self,
        store: Store,
        authenticator: Authenticator,
        dns: Dns,
        state: Shared,
        *,
        hostname: str,
        configured: Path | None = None,
    ) -> None:
        """*configured* is the folder of the site's own policies, which replace the shipped ones file by file."""
        self.store = store
        self.authenticator = authenticator
        self.state = state
        self.hostname = hostname
        self._configured = configured
        self._in_hand: dict[str, BinaryIO] = {}
        self._taken: dict[str, BinaryIO] = {}
        self._tools = Tools(dns, state, hostname, self._open, Checker(dns), self._account_of, self._open_stored)
        self._processes = 0
        self._sandbox: Sandbox | None = None
        self._swapping = asyncio.Lock()
        self.policies: Policies = policy.load(configured, self._tools)

    @property
    def stages(self) -> Stages:
        """The stage policies in force now."""
        return self.policies.stages

    @property
    def edge(self) -> Edge:
        """The limits of the SMTP edge in force now."""
        return self.policies.stages.edge

    @property
    def reports(self) -> bool:
        """Whether the owners of domains hear of the mail in their name."""
        return self.policies.stages.reports.sends(self.hostname)

    async def start(self, processes: int) -> None:
        """Start *processes* confined workers; needed before `scan`. Raises `Temporary` where they do not start."""
        self._processes = processes
        self._sandbox = await self._sandbox_of(self.policies)
        events.policies_loaded([*self.policies.by_name])

    async def _sandbox_of(self, policies: Policies) -> Sandbox | None:
        """The confined workers of *policies*; none where these look at no content, or this process scans none."""
        if not self._processes or CONTENT not in policies.by_name:
            return None
        return await Sandbox(policies, self._processes).start()

    async def close(self) -> None:
        """End the confined workers."""
        sandbox, self._sandbox = self._sandbox, None
        if sandbox is not None:
            await sandbox.close()

    def visit(self) -> Visit:
        """The memory of a new session."""
        return Visit(self)

    async def reload(self) -> bool:
        """Put the policies as they are on disk in force, all or none; False, and a line in the log, for faulty ones."""
        async with self._swapping:
            try:
                policies = await asyncio.to_thread(policy.load, self._configured, self._tools)
            except FaultyFiles as error:
                events.policies_refused([str(fault) for fault in error.faults])
                return False
            except Exception as error:  # noqa: BLE001  a filter that cannot be imported: the next edit may mend it
                events.failure("reload", error)
                return False
            return policies.version == self.policies.version or await self._swap(policies)

    async def _swap(self, policies: Policies) -> bool:
        try:
            new = await self._sandbox_of(policies)
        except Temporary as error:
            events.failure("reload", error)
            return False
        old, self.policies, self._sandbox = self._sandbox, policies, new
        events.policies_loaded([*policies.by_name])
        if old is not None:
            await old.retire()
        return True

    async def watch(self, stop: asyncio.Event) -> None:
        """Reload whenever a policy file changes, or a file of a filter, until *stop*."""
        while not stop.is_set():
            folders = self._watched()
            async for _ in awatch(*folders, stop_event=stop, recursive=False):
                await self.reload()
                if self._watched() != folders:
                    break

    def _watched(self) -> set[Path]:
        named = {SHIPPED_POLICIES, *self.policies.folders, *([self._configured] if self._configured else [])}
        return {folder for folder in named if folder.is_dir()}

    async def scan(self, mail: Mail, message: BinaryIO) -> Answer:
        """What the confined parser and the pure filters see in *message*."""
        if self._sandbox is None:
            raise Temporary("the confined parser is not started")
        return await self._sandbox.scan(mail, message)

    @contextlib.contextmanager
    def lent(self, mail: Mail, message: BinaryIO, taken: BinaryIO | None) -> Iterator[None]:
        """While this lasts, filters can open the bytes of *mail*, and what was *taken* out of it, by their tools."""
        self._in_hand[mail.id] = message
        if taken is not None:
            self._taken[mail.id] = taken
        try:
            yield
        finally:
            del self._in_hand[mail.id]
            self._taken.pop(mail.id, None)

    def _open(self, mail: Mail) -> BinaryIO:
        """The message of *mail*, as a file with a position of its own."""
        return _reopened(self._in_hand[mail.id])

    def _open_stored(self, mail: Mail) -> BinaryIO:
        """What the confined parser took out of *mail*; `LookupError` where it took nothing."""
        return _reopened(self._taken[mail.id])

    async def _account_of(self, address: str) -> str:
        return await self.store.read(lambda conn: accounts.mailbox_of(conn, address))

    async def keep(self, drafts: Sequence[tuple[Draft, Sequence[Row]]]) -> None:
        """Accept *drafts* in one transaction. Its return is the instant at which the mail becomes ours to keep.

        `Temporary` where an account was removed since RCPT: the next try will be told so.
        """

        def accept(conn: Connection) -> None:
            accounts.demand(conn, (row.mailbox for _, rows in drafts for row in rows if row.mailbox))
            for draft, rows in drafts:
                messages.accept(conn, draft, rows)

        await self.store.write(accept)
        if any(row.state is State.QUEUED for _, rows in drafts for row in rows):  # nobody sends mailboxes on
            self.store.ring()

    async def notify(self, dsn: bytes, recipient: Recipient, settle: Callable[[Connection], None]) -> str:
        """Take in a notice of our own from the null sender, with *settle* in the same transaction. Returns its id."""
        return await self._enter(_own_draft(dsn, "", [recipient], _NOTICE), settle)

    async def report(
        self, mail: bytes, sender: str, recipients: Sequence[Recipient], settle: Callable[[Connection], None]
    ) -> str:
        """Take in a report of our own from *sender*, with *settle* in the same transaction. Returns its id.

        It has a sender, for whoever gets it wants SPF to vouch for the domain in its From (RFC 9990 3.5.2).
        """
        return await self._enter(_own_draft(mail, sender, recipients, _Own("reports", "DMARC report", sender)), settle)

    async def _enter(self, draft: Draft, settle: Callable[[Connection], None]) -> str:
        def accept(conn: Connection) -> None:
            ends = (self._own_row(conn, draft.envelope.sender, one) for one in draft.envelope.recipients)
            if rows := [row for row in ends if row is not None]:
                messages.accept(conn, draft, rows)
            settle(conn)

        await self.store.write(accept)
        self.store.ring()
        return draft.id

    def _own_row(self, conn: Connection, sender: str, recipient: Recipient) -> Row | None:
        """The row of a mail of ours; None where its recipient is a mailbox of ours that is gone: nobody is left."""
        if not ways.is_local(self.stages.routes, recipient.address.rpartition("@")[2]):
            return Row(recipient, State.QUEUED)
        mailbox = accounts.mailbox_of(conn, recipient.address)
        header = actions.mailbox_fields(sender, recipient.address)
        return Row(recipient, State.MAILBOX, mailbox, header) if mailbox else None


def _reopened(file: BinaryIO) -> BinaryIO:
    return FileIO(f"/proc/self/fd/{file.fileno()}")


@dataclass(frozen=True, slots=True)
class _Own:
    """What the record of a mail of our own says of it."""

    listener: str
    subject: str
    author: str


_NOTICE = _Own("notices", "Delivery status notification", "MAILER-DAEMON")


def _own_draft(mail: bytes, sender: str, recipients: Sequence[Recipient], own: _Own) -> Draft:
    session = Session(ip_address("127.0.0.1"), own.listener, ListenerKind.RELAY)
    wide = not all(one.address.isascii() for one in recipients)
    envelope = Envelope(sender, tuple(recipients), eight_bit=not mail.isascii(), smtputf8=wide)
    return Draft(
        id=new_id(),
        received_at=time.time(),
        session=session,
        envelope=envelope,
        header=b"",
        body=BytesIO(mail),
        size=len(mail),
        subject=own.subject,
        header_from=own.author,
        header_message_id="",
        evidence={"session": {"listener": own.listener}, "direction": session.direction.value},
    )

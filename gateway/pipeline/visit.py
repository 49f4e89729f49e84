"""One session's questions: what is asked at each command, and what was found so far.

What is found at connect and at MAIL is decided at RCPT, where the policies' exceptions for recipients can be heard: so
those questions are asked in the background, while the dialog goes on. Whoever cannot be answered gets `unavailable`
or `deferred`; nobody gets in by a failure of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

from gateway import accounts, events, failpoints
from gateway import routes as ways
from gateway.model import (
    ERROR,
    Action,
    Content,
    Direction,
    Envelope,
    Finding,
    Found,
    Mail,
    Recipient,
    Session,
    Stage,
    State,
    Temporary,
    Verdict,
    new_id,
)
from gateway.pipeline import actions, explain, inspect, mime, observed, reported, stripping
from gateway.pipeline.drafts import Circumstances, Judged, Spooled, drafts, evidence
from gateway.pipeline.outcome import OK, Explained, Kind, Outcome
from gateway.pipeline.policy import CONTENT, Policies
from gateway.pipeline.sandbox import Answer
from gateway.store import messages
from gateway.store.engine import StorageFull
from gateway.store.messages import Draft, Row

if TYPE_CHECKING:
    from gateway.pipeline.intake import Intake

_RECEIVED = re.compile(rb"^[\f\v]*received\s*:", re.IGNORECASE | re.MULTILINE)


@dataclass
class _Transaction:
    """What is known between MAIL and the end of the data."""

    id: str = field(default_factory=new_id)
    found: asyncio.Task[Found] | None = None
    """What was known at connect and what is found at MAIL: under way since then."""
    by_recipient: dict[str, Found] = field(default_factory=dict)
    ends: dict[str, tuple[Recipient, str]] = field(default_factory=dict)
    """By the address of RCPT: for whom the mail is in the end, and the account (empty: it goes on to another host)."""


class Visit:
    """The memory of one session. Its methods are called in the order of the dialog."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._policies = intake.policies  # under which all was found so far
        self._at_connect: asyncio.Task[Found] | None = None
        self._now = _Transaction()

    async def connect(self, session: Session) -> Outcome:
        """A peer has connected. What is asked now, and found until RCPT, counts for every mail of the session."""
        events.connected(session)
        self._at_connect = self._ask_peer(session)
        return OK

    def close(self) -> None:
        """The session is over: what is still being asked for it, nobody wants to know any more."""
        for question in (self._now.found, self._at_connect):
            if question is not None:
                question.cancel()

    async def authenticate(self, session: Session, login: str, password: str) -> str:
        """The account that *login* (its name, or an address of it) and *password* belong to, or "".

        Raises `Temporary` where that cannot be told now.
        """
        account = await self._intake.authenticator.identify(login, password)
        events.authenticated(session, login, bool(account))
        return account

    async def sender(self, session: Session, envelope: Envelope) -> Outcome:
        """MAIL FROM: a new transaction. A user may send as the addresses of the account, and as no other."""
        self._begin_transaction()
        try:
            if session.user and not await self._may_send_as(session.user, envelope.sender):
                return Outcome(Kind.NOT_YOURS)
        except Temporary as error:
            return _unavailable("sender", error)
        self._ask_envelope(Mail(self._now.id, session, envelope), self._intake.policies)
        return OK

    def _begin_transaction(self) -> None:
        if self._now.found is not None:
            self._now.found.cancel()
        self._now = _Transaction()

    def _ask_peer(self, session: Session) -> asyncio.Task[Found]:
        """Ask in the background what there is to find without an envelope."""
        if self._at_connect is not None:
            self._at_connect.cancel()
        return _begun(inspect.ask(Mail(new_id(), session), Stage.CONNECT, self._policies, {}))

    def _ask_envelope(self, mail: Mail, policies: Policies) -> None:
        """Ask in the background what there is to find without recipients; where policies were swapped, at connect too.

        A filter that is new in them was never heard, and its silence must not pass for an answer.
        """
        if policies is not self._policies or self._at_connect is None:
            self._policies = policies
            self._at_connect = self._ask_peer(mail.session)
        bare = mail
        if mail.envelope.recipients:
            bare = replace(mail, envelope=replace(mail.envelope, recipients=()))
        self._now.found = _begun(_ask_sender(bare, policies, self._at_connect))

    async def _known(self) -> Found:
        """What connect and MAIL have found, as soon as it is there."""
        return await self._now.found if self._now.found is not None else {}

    async def _ask_recipients(self, mail: Mail) -> None:
        known, recipients = await self._known(), mail.envelope.recipients
        for number, one in enumerate(recipients, 1):
            asked = replace(mail, envelope=replace(mail.envelope, recipients=recipients[:number]))
            self._now.by_recipient[one.address] = await inspect.ask(asked, Stage.RECIPIENT, self._policies, known)

    async def _may_send_as(self, user: str, sender: str) -> bool:
        if not sender:
            return False  # a bounce comes from a mail system, never from a person (RFC 6409 6.1 lets us say so)
        return await self._intake.store.read(lambda conn: accounts.mailbox_of(conn, sender)) == user

    async def recipient(self, session: Session, envelope: Envelope, recipient: Recipient) -> Outcome:
        """RCPT TO: is the recipient ours, or may this peer send elsewhere; then what the policies say so far."""
        try:
            address = self._end_of(recipient.address)
            kind, mailbox = await self._whose(session, address)
            if kind is not Kind.OK:
                return Outcome(kind)
            end = recipient if mailbox or address == recipient.address else replace(recipient, address=address)
            self._now.ends[recipient.address] = end, mailbox
            asked = replace(envelope, recipients=(*envelope.recipients, recipient))
            return await self._so_far(Mail(self._now.id, session, asked), recipient)
        except Temporary as error:
            return _unavailable("recipient", error)

    async def _whose(self, session: Session, address: str) -> tuple[Kind, str]:
        """Whether mail for *address* is taken from this peer, and the account it belongs to."""
        routes = self._intake.stages.routes
        domain = address.rpartition("@")[2]
        if ways.is_local(routes, domain):
            mailbox = await self._intake.store.read(lambda conn: accounts.mailbox_of(conn, address))
            return (Kind.OK, mailbox) if mailbox else (Kind.NO_SUCH_USER, "")
        if session.direction is Direction.OUTBOUND or ways.accepts_from_world(routes, domain):
            return (Kind.OK, "") if "@" in address and "[" not in domain else (Kind.NOT_OURS, "")
        return Kind.NOT_OURS, ""

    def _end_of(self, address: str) -> str:
        """*address*, or where mail for the postmaster here goes, if routes.toml says it (RFC 5321 4.5.1)."""
        routes, (local, _, domain) = self._intake.stages.routes, address.rpartition("@")
        here = not local or ways.is_local(routes, domain) or ways.normal(domain) == ways.normal(self._intake.hostname)
        return routes.postmaster or address if here and (local or domain).lower() == "postmaster" else address

    async def _so_far(self, mail: Mail, recipient: Recipient) -> Outcome:
        """Refuse now only for a word of a policy: a score may still fall until the end of the data."""
        policies = self._policies
        found = await inspect.ask(mail, Stage.RECIPIENT, policies, await self._known())
        self._now.by_recipient[recipient.address] = found
        verdict = policies.decide(found, mail, recipient.address)
        words = Action.strictest(*(r.effect for r in verdict.reasons if isinstance(r.effect, Action)))
        if words not in {Action.REJECT, Action.DEFER}:
            return OK
        verdict = replace(verdict, action=words)
        sentence = explain.sentence(policies, found, mail, recipient.address, verdict)
        about = Circumstances(self._intake.hostname, time.time(), found, policies.version)
        nothing = Spooled(BytesIO(), 0, b"", 0)
        # A record of its own: the mail may still come in, for others
        alone = Mail(new_id(), mail.session, replace(mail.envelope, recipients=(recipient,)))
        await self._record_refusal(alone, nothing, about, {recipient.address: replace(verdict, sentence=sentence)})
        kind = Kind.REJECTED if words is Action.REJECT else Kind.DEFERRED
        return Outcome(kind, alone.id, explain.reference(verdict))

    async def message(self, session: Session, envelope: Envelope, spool: BinaryIO, size: int) -> Outcome:
        """The end of the data: judge the mail and take it, or not. After `OK` it is on stable storage."""
        mail = Mail(self._now.id, session, envelope)
        end = actions.header_end(spool, self._intake.edge.header_size)
        if end < 0:
            return Outcome(Kind.TOO_BIG, mail.id)
        spool.seek(0)
        spooled = Spooled(spool, size, spool.read(end), end)
        if _hops(spooled.head) > self._intake.edge.hops:
            events.refused_command(session, "DATA", "loop", id=mail.id)
            return Outcome(Kind.LOOP, mail.id)
        try:
            mail, found, verdicts = await self._judge(mail, spool)
            return await self._settle(mail, spooled, found, verdicts)
        except StorageFull as error:
            events.failure("intake", error, id=mail.id)
            return Outcome(Kind.FULL, mail.id)
        except Temporary as error:
            return _unavailable("message", error, mail.id)

    async def explain(self, session: Session, envelope: Envelope, message: BinaryIO) -> Explained:
        """A dry run of the whole dialog: every stage is asked, nothing is kept, nobody is told."""
        await self.connect(session)
        self._begin_transaction()
        mail = Mail(self._now.id, session, envelope)
        self._ask_envelope(mail, self._intake.policies)
        await self._ask_recipients(mail)
        mail, found, verdicts = await self._judge(mail, message)
        refused: dict[str, Kind] = {}
        with contextlib.suppress(Temporary):  # before the first start there is no store that knows users
            for address in verdicts:
                kind, _ = await self._whose(session, self._end_of(address))
                refused |= {address: kind} if kind is not Kind.OK else {}
        return Explained(mail.id, mail.content, found, verdicts, refused)

    async def _judge(self, mail: Mail, message: BinaryIO) -> tuple[Mail, Found, dict[str, Verdict]]:
        """The mail with its content, what was found at every stage, and the verdict for each recipient."""
        policies = self._intake.policies
        scanned = await self._scanned(mail, message)
        with scanned.taken or contextlib.nullcontext():
            return await self._judge_scanned(mail, message, scanned, policies)

    async def _judge_scanned(
        self, mail: Mail, message: BinaryIO, scanned: Answer, policies: Policies
    ) -> tuple[Mail, Found, dict[str, Verdict]]:
        if policies is not self._policies:
            self._ask_envelope(mail, policies)
            await self._ask_recipients(mail)
        mail = Mail(mail.id, mail.session, mail.envelope, scanned.content)
        found: dict[str, Sequence[Finding]] = {**await self._known(), **scanned.found}
        if seen := _of_content(scanned.content):
            found[CONTENT] = seen
        with self._intake.lent(mail, message, scanned.taken):
            asked = await inspect.ask(mail, Stage.MESSAGE, policies, found)
        verdicts = {}
        for one in mail.envelope.recipients:
            everything = {**self._now.by_recipient.get(one.address, {}), **asked}
            verdict = explain.judge(policies, everything, mail, one.address)
            verdicts[one.address] = stripping.feasible(verdict, mail.content)
        return mail, asked, verdicts

    async def _scanned(self, mail: Mail, message: BinaryIO) -> Answer:
        """What the sandbox says, if only that it could not be asked: content.toml decides that too."""
        if CONTENT not in self._intake.policies.by_name:
            return Answer()
        try:
            return await self._intake.scan(mail, message)
        except Temporary as error:
            return Answer(found={CONTENT: (Finding(ERROR, str(error)),)})

    async def _settle(self, mail: Mail, spooled: Spooled, found: Found, verdicts: Mapping[str, Verdict]) -> Outcome:
        """Refuse when all refuse, defer when one defers, else keep it for each."""
        now = time.time()
        told = reported.told(mail, found, self._policies.stages, now)
        sealer, domains = self._policies.stages.signing.arc_domain, ways.ours(self._policies.stages.routes)
        about = Circumstances(
            self._intake.hostname, now, found, self._policies.version, told=told, sealer=sealer, domains=domains
        )
        worst = [v for v in verdicts.values() if v.action is Action.DEFER]
        if not worst and self._intake.reports:  # what is deferred comes again, and is counted then
            about = replace(about, observation=observed.observation(mail, found, verdicts, about.now))
        if worst or all(v.action is Action.REJECT for v in verdicts.values()):
            decisive = (worst or list(verdicts.values()))[0]
            await self._record_refusal(mail, spooled, about, verdicts)
            kind = Kind.DEFERRED if worst else Kind.REJECTED
            return Outcome(kind, mail.id, explain.reference(decisive))
        judged = [self._judged(one, verdicts[one.address]) for one in mail.envelope.recipients]
        kept = drafts(mail, spooled, judged, about)
        failpoints.hit("judged")
        await self._intake.keep(kept)
        events.accepted(mail.id, mail.session, mail.envelope.sender, verdicts, spooled.size)
        if told is not None:
            events.reported(mail.id, told.sentence)
        return Outcome(Kind.OK, mail.id)

    def _judged(self, recipient: Recipient, verdict: Verdict) -> Judged:
        end, mailbox = self._now.ends[recipient.address]
        return Judged(end, verdict, mailbox)

    async def _record_refusal(
        self, mail: Mail, spooled: Spooled, about: Circumstances, verdicts: Mapping[str, Verdict]
    ) -> None:
        """Leave a record to answer "why did it not come?". That it fails changes nothing for the peer."""
        for address, verdict in verdicts.items():
            events.refused(mail.id, mail.session, mail.envelope.sender, address, verdict)
        draft, rows = _refusal(mail, spooled, about, verdicts)
        try:
            await self._intake.store.write(lambda conn: messages.refuse(conn, draft, rows))
        except Temporary as error:
            events.failure("record of a refusal", error, id=mail.id)


def _begun(question: Coroutine[Any, Any, Found]) -> asyncio.Task[Found]:
    return asyncio.get_running_loop().create_task(question)


async def _ask_sender(mail: Mail, policies: Policies, at_connect: asyncio.Task[Found]) -> Found:
    known = await asyncio.shield(at_connect)  # the next mail of the session needs it too
    return await inspect.ask(mail, Stage.SENDER, policies, known)


def _of_content(content: Content) -> list[Finding]:
    """What the parser itself has to say of the mail."""
    found = [Finding("ambiguous", "; ".join(content.ambiguities))] if content.ambiguities else []
    return [*found, Finding("unscannable", content.unscannable)] if content.unscannable else found


def _refusal(
    mail: Mail, spooled: Spooled, about: Circumstances, verdicts: Mapping[str, Verdict]
) -> tuple[Draft, list[Row]]:
    shown = mime.shown(spooled.head)
    draft = Draft(
        id=mail.id,
        received_at=about.now,
        session=mail.session,
        envelope=mail.envelope,
        header=b"",
        body=spooled.file,
        size=spooled.size,
        subject=shown.subject,
        header_from=shown.sender,
        header_message_id=shown.message_id,
        evidence=evidence(mail, about),
        observation=about.observation,
    )
    return draft, [Row(one, State.REFUSED, verdict=verdicts[one.address]) for one in mail.envelope.recipients]


def _hops(head: bytes) -> int:
    return len(_RECEIVED.findall(head))


def _unavailable(where: str, error: Temporary, mail_id: str = "") -> Outcome:
    events.failure(f"intake {where}", error, id=mail_id)
    return Outcome(Kind.UNAVAILABLE, mail_id)

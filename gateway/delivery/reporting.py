"""When the owners of domains are told of the mail in their name: each day (UTC) once, in a mail of ours (RFC 9990).

That a report is in our queue and that its day is settled is one transaction, whichever node makes it and wherever it is
killed; what was observed is forgotten afterwards, a piece at a time. A day that has begun is never told.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from sqlalchemy import Connection

from gateway import events, failpoints
from gateway.delivery import aggregate, destinations
from gateway.delivery.aggregate import Records, Subject
from gateway.delivery.destinations import Destinations
from gateway.model import Dns, Permanent, Recipient, Temporary
from gateway.stages import Reports
from gateway.store import observations
from gateway.store.engine import Store
from gateway.store.observations import DAY, Published, Sent, Waiting

EVERY = 300.0
"""Seconds between two looks at what is due."""
AGAIN = 1800.0
"""Seconds after which is asked again what the DNS could not tell."""
POSTPONED = 10_000
"""Domains of which we remember that; of others it is asked at the next look."""
BATCH = 500
"""Domains that are looked at in one go."""
AT_ONCE = 20
"""Domains whose name servers are asked at the same time: thousands that never answer must not hold up the others."""
UNTOLD = 7 * DAY
"""After so long an observation is forgotten, told or not: reports were switched off."""


class Intake(Protocol):
    """What we need of `gateway.pipeline.intake`."""

    def report(
        self, mail: bytes, sender: str, recipients: Sequence[Recipient], settle: Callable[[Connection], None]
    ) -> Awaitable[str]: ...


class Taken(Exception):
    """Another process has told of this day."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A report that could go out: what it is about, to whom, and the file; that is empty where nobody wants it."""

    about: Subject
    mails: int
    to: Destinations
    file: bytes = b""


class Reporting:
    """Makes the reports of *store* and hands them to *intake*. *policy* gives the settings in force, *now* the time."""

    def __init__(
        self,
        store: Store,
        intake: Intake,
        dns: Dns,
        policy: Callable[[], Reports],
        hostname: str,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._intake = intake
        self._dns = dns
        self._policy = policy
        self._hostname = hostname
        self._now = now
        self._postponed: dict[str, float] = {}
        self._composing = asyncio.Lock()  # a report may be large while it is made

    async def run(self) -> None:
        """Work until cancelled; what is under way then happens whole or not at all."""
        while True:
            try:
                await self.look()
            except Temporary as error:
                events.say("reports wait", why=str(error))
            except Exception as error:  # noqa: BLE001 - mail is delivered whatever becomes of reports
                events.failure("reports", error)
            await asyncio.sleep(EVERY)

    async def look(self) -> None:
        """Send what is due, and forget what nobody needs."""
        if self._policy().sends(self._hostname):
            async for some in self._due():
                await asyncio.gather(*map(self._guarded, some))
        await self._forget()

    async def work_off(self, domain: str = "", until: float | None = None) -> AsyncIterator[Sent]:
        """Send at once all that is to tell of *domain*, or of all, of days that ended by *until*; what became of each.

        A domain has one report for each day: we go round until nothing is left but what the DNS cannot tell, which
        `postponed` names. `Permanent` where the policy is not to report.
        """
        if not self._policy().sends(self._hostname):
            raise Permanent(f'reports are off: see send in reports.toml ("auto" sends none as {self._hostname})')
        sent = True
        while sent:
            sent = False
            async for one in self._told_now(domain, until):
                if done := await self.send(one):
                    sent = True
                    yield done

    @property
    def postponed(self) -> Sequence[str]:
        """The domains of which the DNS could not tell where their reports go."""
        return [*self._postponed]

    async def drafts(self, domain: str = "", until: float | None = None) -> AsyncIterator[Draft]:
        """What `work_off` would send first for each domain. Nothing is sent, nothing is settled."""
        async for one in self._told_now(domain, until):
            if draft := await self.draft(one, last_try=True):
                yield draft

    async def _told_now(self, domain: str, until: float | None) -> AsyncIterator[Waiting]:
        async for one in self._waiting():
            if domain in ("", one.domain) and self._ends(one) <= self._limit(until):
                yield one

    def _limit(self, until: float | None) -> float:
        """The end of the last day that has ended, or *until* where that is earlier."""
        today = self._now() // DAY * DAY
        return today if until is None else min(today, until)

    # ---- What waits -----------------------------------------------------------------------------------------------

    async def _waiting(self) -> AsyncIterator[Waiting]:
        """Every domain that there is something to tell of. What is told already is forgotten on the way."""
        after = ""
        while found := await self._store.read(partial(observations.waiting, after=after, limit=BATCH, now=self._now())):
            for one in found:
                if one.oldest < one.settled:
                    await self._forget_settled(one.domain, one.settled)
                else:
                    yield one
            after = found[-1].domain

    async def _due(self) -> AsyncIterator[Sequence[Waiting]]:
        """Those whose time has come, some at a time."""
        due = []
        async for one in self._waiting():
            if self._is_time(one):
                due.append(one)
            if len(due) == AT_ONCE:
                yield due
                due = []
        yield due

    def _ends(self, one: Waiting) -> float:
        return one.oldest // DAY * DAY + DAY

    def _is_time(self, one: Waiting) -> bool:
        """Each domain's report has its own moment, which differs from host to host: nobody gets all at once."""
        policy, ends = self._policy(), self._ends(one)
        chance = hashlib.sha256(f"{self._hostname} {one.domain} {ends}".encode()).digest()
        moment = ends + policy.delay + policy.spread * int.from_bytes(chance[:4]) / 2**32
        return max(moment, self._postponed.get(one.domain, 0.0)) <= self._now()

    # ---- One report -----------------------------------------------------------------------------------------------

    async def _guarded(self, one: Waiting) -> None:
        """One report that fails does not stop the others: it is tried again at the next look."""
        try:
            await self.send(one)
        except Temporary as error:
            events.say("report postponed", domain=one.domain, why=str(error))
        except Exception as error:  # noqa: BLE001 - see above
            events.failure("report", error, domain=one.domain)

    async def send(self, one: Waiting) -> Sent | None:
        """Put the report on the oldest day of *one* into the queue, or settle that nobody wants it.

        None where it has to wait because the DNS cannot tell, or where another process has done it.
        """
        try:
            draft = await self.draft(one, last_try=self._now() > self._ends(one) + self._policy().patience)
        except Temporary as error:
            self._postpone(one.domain, str(error))
            return None
        if draft is None:
            return None
        done = Sent(one.domain, draft.about.begins, draft.about.ends, self._now(), draft.mails, _outcome(draft.to))
        self._postponed.pop(one.domain, None)
        failpoints.hit("report")
        with suppress(Taken):
            await self._enter(draft, done)
            failpoints.hit("reported")
            events.say("report", domain=done.domain, mails=done.mails, outcome=done.outcome)
            await self._forget_settled(done.domain, done.ends)
            return done
        return None

    async def draft(self, one: Waiting, *, last_try: bool = False) -> Draft | None:
        """The report on the oldest day of *one*. `Temporary` where the DNS cannot tell to whom it goes, but not at the
        *last_try*; None where another process has told of it.
        """
        policy, ends = self._policy(), self._ends(one)
        about = self._subject(policy, one.domain, ends)
        published = await self._store.read(partial(_policy, about))
        if published is None:
            return None
        to = await self._destinations(published, policy, last_try=last_try)
        if not to.addresses:
            return Draft(about, await self._store.read(partial(_mails, about)), to)
        async with self._composing:
            return await self._store.read(partial(_compose, about=about, published=published, to=to, policy=policy))

    def _subject(self, policy: Reports, domain: str, ends: float) -> Subject:
        organisation = policy.organisation or self._hostname
        contact = policy.contact or f"postmaster@{self._hostname}"
        return Subject(domain, ends - DAY, ends, self._hostname, organisation, contact)

    async def _destinations(self, published: Published, policy: Reports, *, last_try: bool) -> Destinations:
        if not destinations.is_domain(published.domain):
            return Destinations((), ("it is no domain",))
        return await destinations.find(self._dns, published, policy.addresses, last_try=last_try)

    async def _enter(self, draft: Draft, done: Sent) -> None:
        settle = partial(_settle, done)
        if not draft.to.addresses:
            await self._store.write(settle)
            return
        sender = self._policy().sender or f"dmarc-reports@{self._hostname}"
        make = partial(aggregate.mail, mails=draft.mails, sender=sender, to=draft.to.addresses, now=done.at)
        mail = await asyncio.to_thread(make, draft.about, draft.file)
        # Nobody is told that a report did not arrive: tomorrow's may (RFC 3461 4.1)
        recipients = [Recipient(address, notify=frozenset({"NEVER"})) for address in draft.to.addresses]
        await self._intake.report(mail, sender, recipients, settle)

    def _postpone(self, domain: str, why: str) -> None:
        if len(self._postponed) >= POSTPONED:
            self._postponed.clear()
        self._postponed[domain] = self._now() + AGAIN
        events.say("report postponed", domain=domain, why=why)

    # ---- Forgetting -----------------------------------------------------------------------------------------------

    async def _forget_settled(self, domain: str, before: float) -> None:
        while await self._store.write(partial(observations.forget_settled, domain=domain, before=before)):
            pass

    async def _forget(self) -> None:
        now = self._now()
        old = partial(observations.forget, observed=now - UNTOLD, told=now - self._policy().keep)
        while await self._store.write(old):
            pass


def _settle(done: Sent, conn: Connection) -> None:
    if not observations.settle(conn, done):
        raise Taken("another process has told of this day")
    failpoints.hit("report-settle")


def _policy(about: Subject, conn: Connection) -> Published | None:
    return observations.published(conn, about.domain, about.begins, about.ends)


def _mails(about: Subject, conn: Connection) -> int:
    return observations.count(conn, about.domain, about.begins, about.ends)


def _compose(conn: Connection, about: Subject, published: Published, to: Destinations, policy: Reports) -> Draft:
    mails, records = _mails(about, conn), Records(policy.size)
    for row, number in observations.rows(conn, about.domain, about.begins, about.ends, policy.rows):
        records.add(row, number)
    records.left_out = mails - records.mails
    return Draft(about, mails, to, aggregate.packed(aggregate.xml(about, published, records)))


def _outcome(to: Destinations) -> str:
    ignored = f"; not to {', '.join(to.ignored)}" if to.ignored else ""
    if to.addresses:
        return f"sent to {', '.join(to.addresses)}{ignored}"
    return f"sent to nobody{ignored}" if ignored else "sent to nobody: it names no address that can be used"

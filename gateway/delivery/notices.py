"""Telling senders what became of their mail: the notices that deliveries owe, one mail to the sender of each message.

Whether anything is owed was decided when the delivery was settled (`schedule.wanted`); here only that is withheld which
would go to a forged sender. The notice enters by intake, and stops being owed, in one transaction.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from typing import Any, Protocol

from sqlalchemy import Connection

from gateway import events, failpoints
from gateway.delivery.bounce import Original, compose
from gateway.model import Delivery, Direction, Permanent, Recipient, Temporary
from gateway.stages import Queue
from gateway.store import messages, queue
from gateway.store.engine import Store

BATCH = 100


class Intake(Protocol):
    """What we need of `gateway.pipeline.intake`."""

    def notify(self, dsn: bytes, recipient: Recipient, settle: Callable[[Connection], None]) -> Awaitable[str]: ...


class Taken(Exception):
    """Another process has taken over the lease: it tells the sender, not we."""


class Notices:
    """Writes what is owed, under the leases of *owner*."""

    def __init__(self, store: Store, intake: Intake, hostname: str, owner: str, now: Callable[[], float]) -> None:
        self._store = store
        self._intake = intake
        self._hostname = hostname
        self._owner = owner
        self._now = now
        self._left: set[int] = set()

    async def tell(self, policy: Queue) -> int:
        """Send up to `BATCH` notices; return for how many deliveries."""
        ours, claimed = await self._store.write(partial(self._claim, left=tuple(self._left), lease=policy.lease))
        self._left = {*ours, *(one.id for one in claimed)}
        owed = sorted(claimed, key=lambda one: (one.message_id, one.id))
        for _, group in groupby(owed, key=lambda one: one.message_id):
            await self._guarded(list(group), policy)
        return len(owed)

    async def give_back(self) -> None:
        """Let others write what we did not get to; where the store cannot do it now, the leases run out."""
        if self._left:
            with suppress(Temporary):
                await self._store.write(partial(queue.release_claims, owner=self._owner, ids=tuple(self._left)))

    def _claim(self, conn: Connection, left: Sequence[int], lease: float) -> tuple[list[int], list[Delivery]]:
        """What of the *left* is still ours, for it waits for the store and killed nobody; and more that we lease."""
        ours = queue.absolve(conn, self._owner, left)
        return ours, queue.owed_notices(conn, self._owner, BATCH, self._now(), lease)

    async def _guarded(self, owed: Sequence[Delivery], policy: Queue) -> None:
        """One failing notice does not stop the others: it is tried again when its lease has run out."""
        try:
            await self._tell(owed, policy)
        except (Temporary, Taken) as error:
            events.say("notice postponed", id=owed[0].message_id, why=str(error))
            return
        except Permanent as error:
            await self._withhold(owed, str(error))
        except Exception as error:  # noqa: BLE001 - whatever one mail does, the others' senders are told
            events.failure("notice", error, id=owed[0].message_id)
        self._left.difference_update(one.id for one in owed)

    async def _tell(self, owed: Sequence[Delivery], policy: Queue) -> None:
        if any(one.claims >= queue.POISON for one in owed):
            await self._withhold(owed, "three times whoever wrote it died, or failed at it")
            return
        evidence, original = await self._store.read(
            partial(_look_up, message_id=owed[0].message_id, limit=policy.bounce_size)
        )
        if why := _withheld(owed[0], evidence):
            await self._withhold(owed, why)
            return
        now = self._now()
        dsn = compose(owed, original, hostname=self._hostname, now=now, expire_after=policy.expire_after)
        to = Recipient(owed[0].sender, notify=frozenset({"NEVER"}))  # RFC 3461 6.1: no notice about a notice
        failpoints.hit("notice")
        notice_id = await self._intake.notify(dsn, to, partial(self._settle, owed))
        failpoints.hit("noticed")
        for one in owed:
            events.noticed(one.message_id, one.recipient.address, one.notice.value if one.notice else "", notice_id)

    def _settle(self, owed: Sequence[Delivery], conn: Connection) -> None:
        if not queue.notice_sent(conn, [one.id for one in owed], self._owner, self._now()):
            raise Taken("another process tells the sender")
        failpoints.hit("notice-settle")

    async def _withhold(self, owed: Sequence[Delivery], why: str) -> None:
        events.say(
            "notice withheld", id=owed[0].message_id, recipients=[one.recipient.address for one in owed], why=why
        )
        await self._store.write(partial(self._quietly, owed))

    def _quietly(self, owed: Sequence[Delivery], conn: Connection) -> None:
        queue.notice_sent(conn, [one.id for one in owed], self._owner, self._now())


def _look_up(conn: Connection, message_id: str, limit: int) -> tuple[Mapping[str, Any], Original]:
    """The evidence on a mail, and its first *limit* octets."""
    octets, complete = b"", True
    for chunk in messages.read_chunks(conn, message_id):
        octets += chunk[: limit - len(octets) + 1]
        if len(octets) > limit:
            octets, complete = octets[:limit], False
            break
    return messages.evidence(conn, message_id), Original(octets, complete)


def _withheld(delivery: Delivery, evidence: Mapping[str, Any]) -> str:
    """Why the sender is not told, or nothing: backscatter hits those whose address was forged."""
    if not delivery.sender:
        return "it has no sender"
    if evidence.get("direction", Direction.INBOUND) != Direction.INBOUND:
        return ""
    spf = evidence.get("found", {}).get("spf", ())
    return "SPF said fail, so the sender is forged" if any(one.get("code") == "fail" for one in spf) else ""

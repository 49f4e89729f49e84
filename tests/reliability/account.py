"""What the product itself says of every mail: read from its store, on whichever database that is."""

import time
from collections.abc import Iterator

from sqlalchemy import Connection, or_, select

from gateway.model import State, Temporary
from gateway.store import messages, schema
from gateway.store.engine import Store
from tests.reliability import ledger
from tests.reliability.ledger import Kept

_LIVE = (State.QUEUED, State.HELD, State.MAILBOX)


def kept(store: Store) -> list[Kept]:
    """Every delivery in *store*. The bytes of all that is not settled are read."""
    with store.reading() as conn:
        return list(_kept(conn))


def _kept(conn: Connection) -> Iterator[Kept]:
    delivery, sound, endings = schema.delivery.c, dict[str, bool](), _endings(conn)
    query = select(schema.delivery, schema.message.c.sender).join(schema.message)
    for row in conn.execute(query.order_by(delivery.id)).all():
        if row.state in _LIVE and row.message_id not in sound:
            sound[row.message_id] = _is_sound(conn, row.message_id, row.sender)
        number = ledger.number_of(row.sender or row.recipient)
        intact, ended_by = sound.get(row.message_id, True), endings.get(row.id, "")
        yield Kept(
            number, row.message_id, row.sender, row.recipient, row.state, intact, row.notice is not None, ended_by
        )


def _is_sound(conn: Connection, message_id: str, sender: str) -> bool:
    """Whether all octets of a mail are there, and of a numbered mail the right ones."""
    blocks = list(messages.read_chunks(conn, message_id))
    size = conn.scalar(select(schema.message.c.size).where(schema.message.c.id == message_id))
    return sum(map(len, blocks)) == size and (not ledger.number_of(sender) or ledger.intact(blocks))


def _endings(conn: Connection) -> dict[int, str]:
    """How the deliveries that were dropped came to it."""
    event = schema.event.c
    query = select(event.delivery_id, event.kind, event.text).where(event.kind.in_(["drop", "delete", "expire"]))
    return {number: f"{kind} {text}".strip() for number, kind, text in conn.execute(query)}


def waiting(store: Store) -> list[str]:
    """What is queued, and whose sender is still to be told: for people who ask why, one line each."""
    delivery, now = schema.delivery.c, time.time()
    with store.reading() as conn:
        found = conn.execute(
            select(schema.delivery).where(or_(delivery.state == State.QUEUED, delivery.notice.is_not(None)))
        )
        return [
            f"{row.id} to {row.recipient}: {row.state}, due in {row.next_attempt - now:.1f} s, lease of "
            f"{row.lease_owner or 'nobody'} for {row.lease_until - now:.1f} s, {row.attempts} attempts, "
            f"{row.claims} claims, notice {row.notice}, {row.last_reply}"
            for row in found
        ]


def wait_settled(store: Store, within: float = 60.0) -> None:
    """Return when nothing is queued and nobody is owed a notice; fails after *within* seconds.

    The store may be out of reach meanwhile.
    """
    deadline, left = time.monotonic() + within, ["not looked yet"]
    while left:
        assert time.monotonic() < deadline, f"{len(left)} deliveries are not settled after {within} s: {left[:9]}"
        try:
            left = waiting(store)
        except Temporary as error:
            left = [str(error)]
        time.sleep(0.1 if left else 0)

"""Whether a transaction happened whose COMMIT was not answered: each leaves a mark, and the mark can be looked for.

A writer has one mark, with the number of its last transaction. Whoever looks for it waits until the transaction that
wrote it last has ended, on whatever server and in whatever way, and only then believes what it sees.
"""

from __future__ import annotations

import secrets
import time

from sqlalchemy import Connection, delete
from sqlalchemy.dialects.postgresql import insert

from gateway.store.schema import mark
from gateway.store.statements import Statement

KEPT = 30 * 86400.0
"""Seconds after which the mark of a writer that is no more is removed."""

_set = insert(mark)
_LEAVE = Statement(
    _set.on_conflict_do_update(
        index_elements=[mark.c.writer], set_={"number": _set.excluded.number, "at": _set.excluded.at}
    ),
    "writer",
    "number",
    "at",
)
# It writes, so that it waits for the other transaction's lock, and its own COMMIT for the standby.
_LOOK = Statement(
    _set.on_conflict_do_update(index_elements=[mark.c.writer], set_={"at": _set.excluded.at}).returning(mark.c.number),
    "writer",
    "number",
    "at",
)


class Marks:
    """The marks of one writer."""

    def __init__(self) -> None:
        self._writer = secrets.token_hex(8)
        self._number = 0

    def leave(self, conn: Connection) -> None:
        """Mark the transaction of *conn*, as its last statement: without it an aborted one would end in silence."""
        if self._number == 0:
            conn.execute(delete(mark).where(mark.c.at < time.time() - KEPT))
        self._number += 1
        _LEAVE.run(conn, self._values(self._number))

    def stands(self, conn: Connection) -> bool:
        """Whether the transaction marked last has happened. It is sure when that of *conn* is durable."""
        ((number,),) = _LOOK.rows(conn, self._values(0))
        return bool(number == self._number)

    def _values(self, number: int) -> dict[str, object]:
        return {"writer": self._writer, "number": number, "at": time.time()}

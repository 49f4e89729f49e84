"""What the store needs of a database, whichever it is: `sqlite` and `postgres` each have a function that makes one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from sqlalchemy import Connection, Engine


class AnyBell(Protocol):
    """Wakes who waits for work, in whichever process. It is a hint, and may be lost or come for nothing."""

    def ring(self) -> None:
        """Wake the listener. It cannot fail, and does not wait."""

    async def wait(self, timeout: float) -> None:  # noqa: ASYNC109 - the end of the wait is no error here
        """Return when it rings, at the latest after *timeout* seconds."""

    def close(self) -> None:
        """Stop listening and ringing."""


class AnyMarks(Protocol):
    """Tell whether a transaction happened whose COMMIT was not answered."""

    def leave(self, conn: Connection) -> None:
        """Mark the transaction of *conn*, as its last statement."""

    def stands(self, conn: Connection) -> bool:
        """Whether the transaction marked last has happened. It is sure when that of *conn* is durable."""


class Remark(NamedTuple):
    """Something about the database that administrators want to know, well or not."""

    subject: str
    ok: bool
    text: str


@dataclass(frozen=True, slots=True)
class Database:
    """Engines to write and to read with; `migrating` is a transaction in which nobody else migrates.

    `marks` is None where a COMMIT that fails has not happened. `try_out` raises what is wrong with the database,
    `remarks` tells what does not keep it from working.
    """

    writing: Engine
    reading: Engine
    migrating: Callable[[Engine], AbstractContextManager[Connection]]
    bell: AnyBell
    marks: AnyMarks | None = None
    try_out: Callable[[Connection], None] = lambda _: None
    remarks: Callable[[Connection], Sequence[Remark]] = lambda _: ()

"""The doorbell of PostgreSQL, for all processes of all nodes that share a database: NOTIFY rings, LISTEN hears.

It is a hint and may be lost: whoever waits looks again after a while by himself. The rings of a moment are one, for a
NOTIFY holds up the commits of others.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
from sqlalchemy import Engine, func, select

from gateway.model import Temporary

CHANNEL = "gatepost"
GAP = 0.02
"""Seconds between two rings of one process."""
PAUSE = 1.0
"""Seconds before a lost connection is made again."""
_NOTIFY = select(func.pg_notify(CHANNEL, ""))


class Notifications:
    """Rings on a connection of *engine*, and listens on one of its own, made with the words that *words* returns."""

    def __init__(self, engine: Engine, words: Callable[[], dict[str, Any]]) -> None:
        self._engine = engine
        self._words = words
        self._ringer = ThreadPoolExecutor(1, thread_name_prefix="store-bell")
        self._rung = threading.Event()
        self._listening: psycopg.AsyncConnection[Any] | None = None

    def ring(self) -> None:
        """Wake whoever listens, soon. That it cannot be done now is no error: what there is to do will be found."""
        if self._rung.is_set():
            return
        self._rung.set()
        with contextlib.suppress(RuntimeError):  # we are closed
            self._ringer.submit(self._ring)

    async def wait(self, timeout: float) -> None:  # noqa: ASYNC109 - the end of the wait is no error here
        """Return when it rings, at the latest after *timeout* seconds; also when it may have rung unheard."""
        try:
            async with asyncio.timeout(timeout):
                await self._hear(timeout)
        except TimeoutError:
            return
        except (OSError, psycopg.Error, Temporary):
            self._hang_up()
            await asyncio.sleep(min(timeout, PAUSE))

    def close(self) -> None:
        """Ring what is still to be rung, and let go of the connection."""
        self._ringer.shutdown()
        self._hang_up()

    def _ring(self) -> None:
        self._rung.clear()
        with contextlib.suppress(Exception), self._engine.begin() as conn:
            conn.execute(_NOTIFY)
        time.sleep(GAP)

    async def _hear(self, timeout: float) -> None:  # noqa: ASYNC109 - see above
        if self._listening is None:
            self._listening = await psycopg.AsyncConnection.connect(**self._words(), autocommit=True)
            await self._listening.execute(f"LISTEN {CHANNEL}")
            return  # what was rung before, nobody heard
        async for _ in self._listening.notifies(timeout=timeout, stop_after=1):
            return

    def _hang_up(self) -> None:
        if self._listening is not None:
            self._listening.pgconn.finish()  # without a farewell that would have to be awaited
            self._listening = None

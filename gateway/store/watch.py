"""Ends the wait for a database that is there and says nothing: no limit of its own would, once it hangs.

A connection that is in use for too long is cut, as if the network had failed; whoever waits on it learns of it at once.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from typing import Any

from sqlalchemy import Connection, Engine, event

LOOK = 0.5
"""Seconds between two looks, or less where less is allowed."""
_SOCKET, _DEADLINE = "watched socket", "deadline"


class Watch:
    """Cuts each connection of an engine that is in use for more than *limit* seconds at a time."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._in_use: dict[int, dict[str, Any]] = {}
        self._thread: threading.Thread | None = None

    def over(self, engine: Engine) -> None:
        """Begin to watch the connections of *engine*."""
        event.listen(engine, "connect", self._connected)
        event.listen(engine, "checkout", self._taken)
        event.listen(engine, "checkin", self._returned)
        event.listen(engine, "close", self._closed)

    @staticmethod
    def spare(conn: Connection) -> None:
        """Let the present use of *conn* last as long as it takes."""
        conn.info[_DEADLINE] = float("inf")

    def _connected(self, connection: Any, record: Any) -> None:
        # A descriptor of our own: the driver may close its one, and its number pass to a stranger, as we look.
        record.info[_SOCKET] = socket.socket(fileno=os.dup(connection.fileno()))

    def _taken(self, _connection: object, record: Any, _proxy: object) -> None:
        record.info[_DEADLINE] = time.monotonic() + self._limit
        with self._lock:
            self._in_use[id(record)] = record.info
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="store-watch", daemon=True)
                self._thread.start()

    def _returned(self, _connection: object, record: Any) -> None:
        with self._lock:
            self._in_use.pop(id(record), None)

    def _closed(self, _connection: object, record: Any) -> None:
        with self._lock:
            self._in_use.pop(id(record), None)
            if (ours := record.info.pop(_SOCKET, None)) is not None:
                ours.close()

    def _look(self) -> None:
        """Look as long as something is in use, and a little longer."""
        pause = min(LOOK, self._limit / 4)
        idle_since = time.monotonic()
        while True:
            time.sleep(pause)
            now = time.monotonic()
            with self._lock:
                if self._in_use:
                    idle_since = now
                elif now - idle_since > self._limit:
                    self._thread = None
                    return
                self._cut(now)

    def _cut(self, now: float) -> None:
        for info in self._in_use.values():
            if now > info[_DEADLINE] and (ours := info.get(_SOCKET)) is not None:
                with contextlib.suppress(OSError):
                    ours.shutdown(socket.SHUT_RDWR)

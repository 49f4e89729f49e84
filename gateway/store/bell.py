"""A doorbell between processes: whoever stores work rings, and the one who waits for work wakes at once.

It is a hint and may be lost: whoever waits looks again after a while by himself.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path


class Bell:
    """A Unix datagram socket at *path*; without a path nobody ever rings."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._listening: socket.socket | None = None

    def ring(self) -> None:
        """Wake the listener. That nobody listens, that it has been rung already, or that we lack a descriptor, is no
        error: what there is to do is on stable storage, and will be found."""
        if self._path is None:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(b"!", str(self._path))

    async def wait(self, timeout: float) -> None:  # noqa: ASYNC109 - the end of the wait is no error here
        """Return when it rings, at the latest after *timeout* seconds. One process listens at a time."""
        listening = self._listen()
        if listening is None:
            await asyncio.sleep(timeout)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await asyncio.get_running_loop().sock_recv(listening, 16)
        _drain(listening)

    def close(self) -> None:
        """Stop listening."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    def _listen(self) -> socket.socket | None:
        if self._listening is None and self._path is not None:
            with contextlib.suppress(OSError):  # e.g. a path of more than 107 octets: then there is only looking again
                self._listening = _bound(self._path)
        return self._listening


def _bound(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        listening.setblocking(False)
        listening.bind(str(path))
        path.chmod(0o600)
    except OSError:
        listening.close()
        raise
    return listening


def _drain(listening: socket.socket) -> None:
    """Many rings are one."""
    with contextlib.suppress(BlockingIOError):
        while True:
            listening.recv(16)

"""The way out for lines of the log: each goes to a file descriptor at once, or not at all.

Nobody waits for a reader that sleeps, and a full disk or a closed pipe costs lines, never mail.
"""

from __future__ import annotations

import os
import select
import socket
import stat
from collections.abc import Callable

Write = Callable[[bytes], int]


class Outlet:
    """Lines to the open descriptor *fd*, which stays its owner's."""

    def __init__(self, fd: int) -> None:
        self._write = _writer(fd)
        self._torn = False

    def put(self, line: bytes) -> bool:
        """Write *line*, which ends with a newline. False where it did not go out whole."""
        data = b"\n" + line if self._torn else line
        try:
            written = self._write(data)
        except OSError:
            return False
        self._torn = written < len(data)
        return not self._torn


def _writer(fd: int) -> Write:
    """How to write to *fd* without waiting. Its own flags stay as they are: other programs may share it."""
    kind = os.fstat(fd).st_mode
    if stat.S_ISSOCK(kind):
        return _sending(fd)
    if stat.S_ISREG(kind):
        return lambda data: os.write(fd, data)
    try:
        own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:  # a pipe that nobody reads, or another user's terminal
        return _when_ready(fd)
    return lambda data: os.write(own, data)


def _sending(fd: int) -> Write:
    """The journal of systemd is a socket. It is opened for each line, for it belongs to whoever gave it to us."""

    def write(data: bytes) -> int:
        with socket.socket(fileno=os.dup(fd)) as own:
            return own.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    return write


def _when_ready(fd: int) -> Write:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)

    def write(data: bytes) -> int:
        if not poll.poll(0):
            raise BlockingIOError
        return os.write(fd, data)

    return write

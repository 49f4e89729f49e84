"""Named places at which a test makes this process die, so that the promise can be tried at each of them.

Inert unless the environment variable names a folder and `arm` was called; then the file ROLE.PLACE in it, put there by
the test, is taken away by the first process of that role that comes by, which does what the file says: once.
"""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

FOLDER = "GATEPOST_FAILPOINTS"
"""The environment variable. Nobody outside can set it; `gatepost run` says so in its log when it is set."""

_armed = ""


class Failpoint(Exception):
    """What a failpoint raises."""


def arm(role: str) -> str:
    """Let this process, of *role*, heed its failpoints. Return the folder, or "" where there is none."""
    global _armed  # noqa: PLW0603 - looked at by every mail: one comparison, no call, while it is empty
    folder = os.environ.get(FOLDER, "")
    _armed = f"{folder}/{role}." if folder else ""
    return folder


def hit(place: str) -> None:
    """This process has come to *place*. Does nothing, unless a test wants it to break here."""
    if _armed:
        _break(Path(_armed + place))


def _break(order: Path) -> None:
    try:
        what = order.read_text("utf-8").strip()
        order.unlink()
    except FileNotFoundError:  # nobody wants it, or another process was quicker
        return
    match what:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(70)
        case "eio":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        case _:
            raise Failpoint(order.name)

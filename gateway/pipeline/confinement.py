"""What the processes that read strangers' mail give up, and how much of that this kernel lets them give up.

The rule: the parent of the workers gives up all that it does not need once everything is imported, a worker the rest
before the first octet of a stranger. There is no way back.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import struct
from collections.abc import Callable
from dataclasses import dataclass

from gateway.pipeline import landlock, seccomp
from gateway.stages import Content

GATEWAY = 3
"""The one descriptor of a worker, behind three standard streams that lead nowhere: its socket to the gateway."""
MAX_DESCRIPTORS = 16
ADDRESSES = 512 << 20
"""Address space beside its memory: libraries, and the message, which is mapped."""
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITIES = struct.pack("=Ii", 0x20080522, 0), bytes(24)
"""Header (version 3, this process) and data (none, three times) of capset(2)."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """What it can withhold: system calls, and the version of Landlock (0: none)."""

    seccomp: bool
    landlock: int

    @property
    def missing(self) -> tuple[str, ...]:
        """What full confinement lacks here."""
        return ("seccomp",) * (not self.seccomp) + ("Landlock",) * (not self.landlock)

    @property
    def words(self) -> str:
        """In a few words for people."""
        held = ["seccomp"] * self.seccomp + [f"Landlock {self.landlock}"] * bool(self.landlock) + ["limits"]
        return ", ".join(held)


def kernel() -> Kernel:
    """What this kernel lets us use; asking changes nothing."""
    return Kernel(seccomp.available(), landlock.version())


def lack(limits: Content.Settings) -> str:
    """What this kernel lacks of the confinement that *limits* ask for, and the cure; empty where it lacks nothing."""
    missing = kernel().missing if limits.confinement == "full" else ()
    if not missing:
        return ""
    what = " and no ".join(missing)
    return f'this kernel has no {what}, so no mail is parsed; confinement = "best" in content.toml does without'


def enclose_parent(*, full: bool) -> None:
    """Confine this process, which forks workers. With *full*, `OSError` where something cannot be given up."""
    os.environ.clear()
    _give_up_privileges()
    _hold(landlock.apply, full=full)
    _hold(lambda: seccomp.apply(parent=True), full=full)


def keep_descriptors(gateway: int, null: int) -> None:
    """Close all but the socket *gateway*, which becomes `GATEWAY`; *null*, which leads nowhere, stands before it."""
    for stream in range(GATEWAY):
        os.dup2(null, stream)
    if gateway != GATEWAY:
        os.dup2(gateway, GATEWAY)
    os.closerange(GATEWAY + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def enclose_worker(memory: int, *, full: bool) -> None:
    """Confine this process, which is to read mail, with *memory* octets that it may write to. `OSError` as above."""
    _limit(memory)
    _hold(landlock.apply, full=full)
    _hold(lambda: seccomp.apply(parent=False), full=full)


def _give_up_privileges() -> None:
    """Even root has none then, and no program that is run gives any."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0))) or libc.capset(*_CAPABILITIES):
        raise OSError(ctypes.get_errno(), "privileges cannot be given up")


def _limit(memory: int) -> None:
    """Writable memory is what counts (RLIMIT_DATA); the address space only bounds what else may be mapped."""
    for kind, most in (
        (resource.RLIMIT_DATA, memory),
        (resource.RLIMIT_AS, memory + ADDRESSES),
        (resource.RLIMIT_NOFILE, MAX_DESCRIPTORS),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        resource.setrlimit(kind, (most, most))


def _hold(layer: Callable[[], None], *, full: bool) -> None:
    with contextlib.nullcontext() if full else contextlib.suppress(OSError):
        layer()

"""Who holds a lease: a name that no other process has, and from which a process of the same machine can tell that its
owner is dead. About the processes of other machines, and of other containers, nothing can be told.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path


def myself(label: str) -> str:
    """The name of this process; *label* is for people, and holds no slash."""
    return f"{label[:64]}/{_machine()}/{os.getpid()}/{_birth(os.getpid())}"


def is_dead(owner: str) -> bool:
    """Whether the process is certainly gone that *owner*, a name of `myself` with or without more behind it, meant."""
    words = owner.split("/")
    if len(words) < 4 or words[1] != _machine() or not (words[2].isdecimal() and words[3].isdecimal()):
        return False
    return is_gone(int(words[2]), int(words[3]))


def is_gone(pid: int, began: int) -> bool:
    """Whether the process *pid* that began *began* ticks after boot has ended. Where we cannot look, it has not."""
    try:
        return ticks(pid) != began
    except OSError:  # e.g. no descriptor is free
        return False


def ticks(pid: int) -> int:
    """When the kernel started process *pid*, in ticks since boot; 0 where there is none, or only its corpse.

    Raises `OSError` where that cannot be told.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = stat.rpartition(b")")[2].split()
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


@cache
def _birth(pid: int) -> int:
    """`ticks` of ourselves, looked up once: our name stays the same when no descriptor is free."""
    return ticks(pid)


@cache
def _machine() -> str:
    """This run of this machine, and the set of processes that we can see on it."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return f"{boot}-{Path('/proc/self/ns/pid').stat().st_ino}"

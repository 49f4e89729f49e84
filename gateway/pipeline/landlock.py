"""No files, no network, no signals to others: a Landlock domain without a single rule (landlock(7)).

The rule: whatever this kernel can withhold is withheld; an older one withholds less.
"""

from __future__ import annotations

import ctypes
import os
import struct

_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_VERSION_FLAG = 1
_FILES_BY_ABI = {1: 13, 2: 14, 3: 15, 5: 16}
"""How many rights on files there are since which version: reading, writing, running, making, linking, truncating ..."""
_NETWORK_ABI, _NETWORK = 4, 0b11  # bind and connect, TCP
_SCOPE_ABI, _SCOPES = 6, 0b11  # abstract Unix sockets and signals


def version() -> int:
    """The version that this kernel knows; 0 where it has none, or where it was switched off."""
    return max(0, int(_libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)))


def apply() -> None:
    """Confine this process and all its children. `no_new_privs` has to be set. Raises `OSError` where refused."""
    libc, rules = _libc(), _ruleset(version())
    fd = libc.syscall(_CREATE_RULESET, rules, ctypes.c_size_t(len(rules)), 0)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "Landlock is refused")
    try:
        if libc.syscall(_RESTRICT_SELF, fd, 0):
            raise OSError(ctypes.get_errno(), "Landlock is refused")
    finally:
        os.close(fd)


def _ruleset(abi: int) -> bytes:
    """`struct landlock_ruleset_attr`, as long as version *abi* has it, with everything that it can handle."""
    count = max((rights for since, rights in _FILES_BY_ABI.items() if since <= abi), default=0)
    words = [(1 << count) - 1]
    if abi >= _NETWORK_ABI:
        words.append(_NETWORK)
    if abi >= _SCOPE_ABI:
        words.append(_SCOPES)
    return struct.pack(f"={len(words)}Q", *words)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)

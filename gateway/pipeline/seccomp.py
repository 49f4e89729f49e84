"""Which system calls a confined process may make: an allow-list that the kernel holds (seccomp(2)).

The rule: what is not named here does not exist (ENOSYS, for which libraries have a way out); what opens files is
refused; what no parser ever tries ends the process. Numbers are those of x86_64 and aarch64, in this order.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import struct
import termios
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Numbers = Mapping[str, tuple[int | None, int | None]]

# fmt: off
_WORK: Numbers = {
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67), "lseek": (8, 62),
    "close": (3, 57), "dup": (32, 23), "fstat": (5, 80), "fadvise64": (221, 223), "recvfrom": (45, 207),
    "recvmsg": (47, 212), "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72),
    "munmap": (11, 215), "mremap": (25, 216), "madvise": (28, 233), "brk": (12, 214), "futex": (202, 98),
    "getrandom": (318, 278), "exit": (60, 93), "exit_group": (231, 94), "restart_syscall": (219, 128),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132),
    "setitimer": (38, 103), "getitimer": (36, 102), "getrusage": (98, 165), "times": (100, 153),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "nanosleep": (35, 101),
    "gettimeofday": (96, 169), "time": (201, None), "getpid": (39, 172), "gettid": (186, 178), "getppid": (110, 173),
    "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177), "uname": (63, 160),
    "sysinfo": (99, 179), "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "getcpu": (309, 168),
    "membarrier": (324, 283), "rseq": (334, 293), "set_robust_list": (273, 99), "set_tid_address": (218, 96),
}
"""What a worker needs: its memory, its clocks, and the descriptors that it has."""

_PARENTAL: Numbers = {
    "clone": (56, 220), "wait4": (61, 260), "kill": (62, 129), "socketpair": (53, 199), "sendmsg": (46, 211),
    "sendto": (44, 206), "fcntl": (72, 25), "ioctl": (16, 29), "prlimit64": (302, 261), "prctl": (157, 167),
    "getsockname": (51, 204), "getsockopt": (55, 209), "seccomp": (317, 277), "close_range": (436, 436),
    "dup2": (33, None), "dup3": (292, 24), "landlock_create_ruleset": (444, 444), "landlock_restrict_self": (446, 446),
}
"""What the parent of the workers needs as well: to fork them, confine them, and let them go."""

_OPENING: Numbers = {
    "open": (2, None), "openat": (257, 56), "openat2": (437, 437), "creat": (85, None), "access": (21, None),
    "faccessat": (269, 48), "faccessat2": (439, 439), "stat": (4, None), "lstat": (6, None), "statx": (332, 291),
    "newfstatat": (262, 79), "readlink": (89, None), "readlinkat": (267, 78), "getcwd": (79, 17),
    "getdents64": (217, 61), "statfs": (137, 43), "chdir": (80, 49), "mkdir": (83, None), "mkdirat": (258, 34),
    "unlink": (87, None), "unlinkat": (263, 35), "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276),
    "truncate": (76, 45), "link": (86, None), "linkat": (265, 37), "symlink": (88, None), "symlinkat": (266, 36),
    "chmod": (90, None), "fchmodat": (268, 53), "chown": (92, None), "fchownat": (260, 54),
}
"""What libraries try as a matter of course, and do without (EACCES)."""

_FORBIDDEN: Numbers = {
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "process_madvise": (440, 440),
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424), "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203),
    "bind": (49, 200), "listen": (50, 201), "accept": (43, 202), "accept4": (288, 242), "bpf": (321, 280),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "userfaultfd": (323, 282),
    "perf_event_open": (298, 241), "mount": (165, 40), "umount2": (166, 39), "move_mount": (429, 429),
    "open_tree": (428, 428), "fsopen": (430, 430), "pivot_root": (155, 41), "chroot": (161, 51), "setns": (308, 268),
    "unshare": (272, 97), "setuid": (105, 146), "setgid": (106, 144), "setreuid": (113, 145), "setregid": (114, 143),
    "setresuid": (117, 147), "setresgid": (119, 149), "setgroups": (116, 159), "init_module": (175, 105),
    "finit_module": (313, 273), "kexec_load": (246, 104), "reboot": (169, 142), "open_by_handle_at": (304, 265),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196),
    "modify_ldt": (154, None), "personality": (135, 92),
}
"""What only somebody tries who has taken the process over (SIGSYS)."""
# fmt: on

_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_REFUSE, _UNKNOWN = _ERRNO | errno.EACCES, _ERRNO | errno.ENOSYS
_WORD = 0xFFFFFFFF
_PROT_EXEC = 4
_CLONE_THREAD = 0x10000
_F_DUPFD_CLOEXEC = 1030


def _low(place: int) -> int:
    """Where the lower half of an argument stands in `struct seccomp_data`; its upper half stands 4 octets behind."""
    return 16 + 8 * place


@dataclass(frozen=True, slots=True)
class _Must:
    """Of the word at *offset*, the bits in *mask* have to be one of *values*."""

    offset: int
    mask: int
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Guarded:
    """A call that leads to *then* where its arguments are as they must be, to *otherwise* for all others."""

    numbers: tuple[int | None, int | None]
    musts: tuple[_Must, ...]
    then: int = _ALLOW
    otherwise: int = _REFUSE


_PRIVATE = _Must(_low(3), mmap.MAP_SHARED | mmap.MAP_PRIVATE, (mmap.MAP_PRIVATE,))
"""Shared memory is not counted by RLIMIT_DATA, and would reach into the file of the message."""
_NO_CODE = _Must(_low(2), _PROT_EXEC, (0,))

_ALWAYS_GUARDED = (
    _Guarded((9, 222), (_NO_CODE, _PRIVATE)),  # mmap
    _Guarded((10, 226), (_NO_CODE,)),  # mprotect
    _Guarded((435, 435), (), then=_UNKNOWN),  # clone3: its flags cannot be seen; libraries fall back on clone
)
_WORK_GUARDED = (
    _Guarded((56, 220), (_Must(_low(0), _CLONE_THREAD, (_CLONE_THREAD,)),), _ERRNO | errno.EAGAIN, _KILL),  # clone
    _Guarded((44, 206), (_Must(_low(4), _WORD, (0,)), _Must(_low(4) + 4, _WORD, (0,)))),  # sendto, to nobody else
    _Guarded(
        (72, 25),  # fcntl
        (_Must(_low(1), _WORD, (_F_DUPFD_CLOEXEC, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL)),),
    ),
    _Guarded((16, 29), (_Must(_low(1), _WORD, (termios.TCGETS,)),), then=_ERRNO | errno.ENOTTY),  # ioctl: isatty
)

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""By machine: the column of its numbers, and its AUDIT_ARCH."""
_X32 = 0x40000000
_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_NUMBER, _ARCHITECTURE = 0, 4
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_SECCOMP = (317, 277)
_GET_ACTION_AVAIL = 2

Code = list[tuple[int, int, int, int]]
"""Instructions of classic BPF: operation, jump if true, jump if false, operand."""


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def available() -> bool:
    """Whether this kernel holds processes to such a list, and can end them."""
    if platform.machine() not in _ARCHITECTURES:
        return False
    column, _ = _ARCHITECTURES[platform.machine()]
    action = ctypes.c_uint32(_KILL)
    asked = ctypes.CDLL(None).syscall(_SECCOMP[column], _GET_ACTION_AVAIL, 0, ctypes.byref(action))
    return bool(asked == 0)


def apply(*, parent: bool) -> None:
    """Hold this process and all its children to the list: that of the *parent* of the workers, or that of a worker.

    `no_new_privs` has to be set. There is no way back. Raises `OSError` where the kernel refuses.
    """
    code = b"".join(struct.pack("=HBBI", *one) for one in program(platform.machine(), parent=parent))
    fprog = _Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_MODE_FILTER), ctypes.byref(fprog)):
        raise OSError(ctypes.get_errno(), "seccomp is refused")


def program(machine: str, *, parent: bool) -> Code:
    """The list as a program for the kernel of *machine*; `OSError` where its numbers are not known."""
    if machine not in _ARCHITECTURES:
        raise OSError(errno.ENOSYS, "the system calls of this machine are not known")
    column, architecture = _ARCHITECTURES[machine]
    code: Code = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        *_unless(_EQUAL, architecture, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
    ]
    for one in (*_ALWAYS_GUARDED, *(() if parent else _WORK_GUARDED)):
        if (number := one.numbers[column]) is not None:
            code += _when(number, [*_held(one), (_RETURN, 0, 0, one.then)])
    for number, action in _plain(column, parent=parent).items():
        code += _when(number, [(_RETURN, 0, 0, action)])
    return [*code, (_RETURN, 0, 0, _UNKNOWN)]


def _plain(column: int, *, parent: bool) -> dict[int, int]:
    """What happens at each call whose arguments do not matter; a word that comes later counts."""
    lists = [(_FORBIDDEN, _KILL), (_OPENING, _REFUSE), (_WORK, _ALLOW), *([(_PARENTAL, _ALLOW)] if parent else [])]
    return {
        number: action
        for calls, action in lists
        for numbers in calls.values()
        if (number := numbers[column]) is not None
    }


def _when(number: int, body: Code) -> Code:
    """*body*, which has to return, for this call only."""
    return [(_EQUAL, 0, len(body), number), *body]


def _unless(operation: int, operand: int, action: int) -> Code:
    return [(operation, 1, 0, operand), (_RETURN, 0, 0, action)]


def _held(call: _Guarded) -> Iterator[tuple[int, int, int, int]]:
    for must in call.musts:
        yield _LOAD, 0, 0, must.offset
        yield _AND, 0, 0, must.mask
        for left, value in zip(range(len(must.values), 0, -1), must.values, strict=True):
            yield _EQUAL, left, 0, value
        yield _RETURN, 0, 0, call.otherwise


def is_violation(status: int) -> bool:
    """Whether *status* (as of waitpid) tells of a process that was ended for a forbidden call."""
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == 31  # SIGSYS

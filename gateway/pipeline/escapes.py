"""What somebody tries who has taken a worker over: the confined side of `gatepost doctor sandbox`.

Run as a program in place of `confined`, with the same parent, confinement and limits; what its workers serve is the
only difference, so no mail ever leads here. The rule: an attempt returns only where it succeeded.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import mmap
import os
import platform
import resource
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.pipeline import confined
from gateway.pipeline.confined import Task
from gateway.pipeline.crossing import FRAME, MAX_REQUEST

DENIALS = frozenset(
    {errno.EACCES, errno.EPERM, errno.ENOSYS, errno.EAGAIN, errno.ENOMEM, errno.EBADF, errno.EFBIG, errno.EROFS}
)
"""What the kernel says to whoever may not; anything else (no such file ...) was said to somebody who may."""
POSSIBLE = "possible"
MANY = 10
MUCH = 1 << 30
_PTRACE_SEIZE = 0x4206
_CLONE_NEWUSER = 0x10000000
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_PROT_EXEC = 4
_IO_URING_SETUP = 425
_NEWFSTATAT = {"x86_64": 262, "aarch64": 79}


@dataclass(frozen=True, slots=True)
class Targets:
    """What is there to be reached: paths, a TCP port of this host, an abstract Unix socket, and a process."""

    store: str
    key: str
    folder: str
    port: int
    abstract: str
    gateway: int
    message: int = -1
    """The descriptor of the mail, in the worker."""


def main() -> None:
    """As `confined.main`, for workers that try what they are told to try."""
    confined.main(_serve)


def _serve(gateway: socket.socket, task: Task, worn: Callable[[], bool]) -> bool:  # noqa: ARG001  it ends anyhow
    """Try one thing and say what came of it; then this worker ends."""
    head, fds, _, _ = socket.recv_fds(gateway, FRAME.size, 1)
    confined.start_clocks(task.limits)
    order = json.loads(confined.read(gateway, min(FRAME.unpack(head)[0], MAX_REQUEST)))
    told = outcome(ATTEMPTS[order["attempt"]], Targets(**order["targets"], message=fds[0])).encode()
    gateway.sendall(FRAME.pack(len(told)) + told)
    return False


def outcome(attempt: Callable[[Targets], None], targets: Targets) -> str:
    """`POSSIBLE`, or the name of what it was denied with."""
    try:
        attempt(targets)
    except OSError as error:
        if error.errno in DENIALS:
            return errno.errorcode[error.errno]
    except (MemoryError, RuntimeError, ValueError) as error:  # threads and limits that are refused are these
        return type(error).__name__
    return POSSIBLE


def read_the_store(targets: Targets) -> None:
    """read the store"""
    Path(targets.store).read_bytes()[:1]


def read_a_private_key(targets: Targets) -> None:
    """read a private key"""
    Path(targets.key).read_bytes()[:1]


def read_passwd(_: Targets) -> None:
    """read /etc/passwd"""
    Path("/etc/passwd").read_bytes()


def list_a_folder(targets: Targets) -> None:
    """list a folder"""
    next(Path(targets.folder).iterdir())


def see_whether_a_file_is_there(targets: Targets) -> None:
    """see whether a file is there"""
    Path(targets.store).stat()


def see_it_by_a_detour(targets: Targets) -> None:
    """the same, in the way of fstat"""
    room = ctypes.create_string_buffer(256)
    number = _NEWFSTATAT[platform.machine()]
    _system_call(number, _AT_FDCWD, targets.store.encode(), room, _AT_EMPTY_PATH)


def write_a_file(targets: Targets) -> None:
    """write a file"""
    Path(targets.folder, "escaped").write_bytes(b"!")


def make_a_temporary_file(targets: Targets) -> None:
    """make a file without a name"""
    with tempfile.TemporaryFile(dir=targets.folder) as file:
        file.write(b"!")


def change_the_message(targets: Targets) -> None:
    """change the message in hand"""
    os.write(targets.message, b"!")


def map_the_message_to_change_it(targets: Targets) -> None:
    """change it through its mapping"""
    with mmap.mmap(targets.message, 1, prot=mmap.PROT_READ | mmap.PROT_WRITE) as shared:
        shared[0] = 33


def open_the_message_again(targets: Targets) -> None:
    """open it again to write"""
    os.open(f"/proc/self/fd/{targets.message}", os.O_RDWR)


def connect_to_loopback(targets: Targets) -> None:
    """connect to loopback"""
    with socket.socket() as one:  # getaddrinfo would import a codec first, and fail at that
        one.settimeout(1)
        one.connect(("127.0.0.1", targets.port))


def connect_to_an_abstract_socket(targets: Targets) -> None:
    """connect to an abstract Unix socket"""
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(f"\0{targets.abstract}")


def send_a_datagram(targets: Targets) -> None:
    """send a datagram"""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.sendto(b"!", ("127.0.0.1", targets.port))


def run_a_program(_: Targets) -> None:
    """run /bin/true"""
    os.execv("/bin/true", ["true"])  # noqa: S606


def run_a_program_from_memory(_: Targets) -> None:
    """run a program from memory"""
    fd = os.memfd_create("program")
    os.write(fd, b"#!/bin/true\n")
    os.execve(fd, ["true"], {})  # noqa: S606


def map_code(_: Targets) -> None:
    """make memory that can be run"""
    mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ | _PROT_EXEC)


def fork_many(_: Targets) -> None:
    """fork ten processes"""
    for _number in range(MANY):
        if (pid := os.fork()) == 0:
            os._exit(0)
        os.waitpid(pid, 0)


def start_a_thread(_: Targets) -> None:
    """start a thread"""
    thread = threading.Thread(target=int)
    thread.start()


def trace_its_parent(_: Targets) -> None:
    """trace its parent"""
    _checked(_libc().ptrace(_PTRACE_SEIZE, os.getppid(), None, None))


def open_the_memory_of_its_parent(_: Targets) -> None:
    """open the memory of its parent"""
    os.open(f"/proc/{os.getppid()}/mem", os.O_RDONLY)


def read_the_memory_of_its_parent(_: Targets) -> None:
    """read the memory of its parent"""
    octets = ctypes.create_string_buffer(1)
    piece = (ctypes.c_size_t * 2)(ctypes.addressof(octets), 1)  # struct iovec; parent and child share their addresses
    _checked(_libc().process_vm_readv(os.getppid(), piece, ctypes.c_ulong(1), piece, ctypes.c_ulong(1), 0))


def signal_the_gateway(targets: Targets) -> None:
    """signal the gateway"""
    os.kill(targets.gateway, 0)


def signal_its_parent(_: Targets) -> None:
    """signal its parent"""
    os.kill(os.getppid(), 0)


def become_another_user(_: Targets) -> None:
    """become another user"""
    os.setuid(65534)


def mount_something(_: Targets) -> None:
    """mount something"""
    _checked(_libc().mount(b"none", b"/gatepost.nowhere", b"tmpfs", 0, None))


def enter_a_new_namespace(_: Targets) -> None:
    """enter a new namespace"""
    _checked(_libc().unshare(_CLONE_NEWUSER))


def start_a_ring(_: Targets) -> None:
    """set up io_uring"""
    _system_call(_IO_URING_SETUP, 1, ctypes.create_string_buffer(256))


def raise_a_limit(_: Targets) -> None:
    """raise its limits"""
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def fill_memory(_: Targets) -> None:
    """fill 1 GB of memory"""
    b"!" * MUCH


def fill_shared_memory(_: Targets) -> None:
    """fill shared memory"""
    mmap.mmap(-1, MUCH)


def use_the_processor_without_end(_: Targets) -> None:
    """use the processor without end"""
    with contextlib.suppress(KeyboardInterrupt):
        while time.process_time() < 60:
            pass


def wait_without_end(_: Targets) -> None:
    """wait without end"""
    time.sleep(60)


ATTEMPTS: dict[str, Callable[[Targets], None]] = {
    attempt.__name__: attempt
    for attempt in (
        read_the_store,
        read_a_private_key,
        read_passwd,
        list_a_folder,
        see_whether_a_file_is_there,
        see_it_by_a_detour,
        write_a_file,
        make_a_temporary_file,
        change_the_message,
        map_the_message_to_change_it,
        open_the_message_again,
        connect_to_loopback,
        connect_to_an_abstract_socket,
        send_a_datagram,
        run_a_program,
        run_a_program_from_memory,
        map_code,
        fork_many,
        start_a_thread,
        trace_its_parent,
        open_the_memory_of_its_parent,
        read_the_memory_of_its_parent,
        signal_the_gateway,
        signal_its_parent,
        become_another_user,
        mount_something,
        enter_a_new_namespace,
        start_a_ring,
        raise_a_limit,
        fill_memory,
        fill_shared_memory,
        use_the_processor_without_end,
        wait_without_end,
    )
}
"""By name; the docstring of each says to people what it tries."""


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _system_call(number: int, *arguments: object) -> int:
    return _checked(_libc().syscall(ctypes.c_long(number), *arguments))


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "denied")
    return result


if __name__ == "__main__":
    main()

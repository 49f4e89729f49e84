"""Faults of the machine, made on purpose and taken back: no room, no descriptors, no store, another time of day."""

import os
import resource
import sqlite3
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from tests.peers import processes

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator["Disk"]:
    """A file system of its own at *folder*, which is made."""
    processes.require_root("mount")
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "gatepost-test", folder], check=True)
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


class Disk:
    """A small file system that a test can fill to the last octet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    @property
    def free(self) -> int:
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Take all the room but *leave* octets."""
        with self._filler.open("ab", buffering=0) as file, suppress(OSError):
            left = self.free - leave if leave else 1 << 40
            while left > 0:
                left -= file.write(bytes(min(left, 1 << 16)))

    def fill_again(self) -> None:
        """Take what somebody has given back since `fill`, while the disk is to be full."""
        if self._filler.exists():
            self.fill()

    def make_room(self) -> None:
        self._filler.unlink(missing_ok=True)

    @contextmanager
    def full(self, leave: int = 0) -> Iterator[None]:
        """No room during the block. Somebody may give some back meanwhile: `fill` again then."""
        self.fill(leave)
        try:
            yield
        finally:
            self.make_room()


@contextmanager
def limited(pids: Iterable[int], kind: int, number: int) -> Iterator[None]:
    """These processes may have only so much of a resource (`resource.RLIMIT_...`) during the block."""
    with ExitStack() as stack:
        for pid in pids:
            soft, hard = resource.prlimit(pid, kind)
            resource.prlimit(pid, kind, (number, hard))
            stack.callback(_unlimited, pid, kind, (soft, hard))
        yield


def _unlimited(pid: int, kind: int, limits: tuple[int, int]) -> None:
    with suppress(ProcessLookupError):  # it has died of it
        resource.prlimit(pid, kind, limits)


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Somebody else holds the write lock of an SQLite file during the block."""
    with closing(sqlite3.connect(database, isolation_level=None, timeout=10)) as other:
        other.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")


@contextmanager
def failing(pid: int, calls: str, error: str, file: Path) -> Iterator[None]:
    """These system calls ("fdatasync,pwrite64") of a process, on *file*, fail during the block."""
    processes.require("strace")
    argv = ["strace", "-f", "-qq", "-o", os.devnull, "-P", file, "-e", f"inject={calls}:error={error}", "-p", str(pid)]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as tracer:
        try:
            processes.wait_until(lambda: all(_traced(task) for task in _tasks(pid)), 10, f"strace to hold {pid}")
            yield
        finally:
            tracer.terminate()
            tracer.wait(10)


def _tasks(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/task").iterdir())


def _traced(task: Path) -> bool:
    with suppress(FileNotFoundError):  # this thread has ended
        return "TracerPid:\t0\n" not in (task / "status").read_text()
    return True


def cpu_seconds(pid: int) -> float:
    """What a process has used of the processor so far."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Clock:
    """The time of day of programs that were started with `environment`; the monotonic clock goes on as it is."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.shift("+0")
        self.environment = {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def shift(self, offset: str) -> None:
        """From now on it is *offset* later than it is: "+1d", "-1d", "+0"."""
        beside = self._file.with_suffix(".new")
        beside.write_text(f"{offset}\n")
        beside.rename(self._file)

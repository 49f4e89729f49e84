"""Start, await and end outside programs: each wait has a deadline, and only processes started here are ended."""

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest

HOST = "127.0.0.1"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
POLL = 0.01  # seconds between two looks
# Below the range from which the kernel takes the ports of clients, so that no connection can snatch one meanwhile.
PORTS = range(20000, 32000)
# Each worker of pytest-xdist has a share of them, and gives none twice: one may be kept for a listener to come.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_SHARE = PORTS[_WORKER :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]
_unused = random.sample(_SHARE, len(_SHARE))

T = TypeVar("T")


class Late(AssertionError):
    """Something did not happen before its deadline."""


@dataclass(frozen=True)
class Output:
    """What a finished program left: exit code and both streams."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        return (self.stdout + self.stderr).decode("utf-8", "replace")


@dataclass(frozen=True)
class Process:
    """A program in a process group of its own; `log` collects what it says."""

    name: str
    popen: "subprocess.Popen[bytes]"
    log: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    def output(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def alive(self) -> bool:
        """Leaves an ended process unreaped: its group id then cannot pass to a stranger before `stop`."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return self.popen.returncode is None and os.waitid(os.P_PID, self.pid, flags) is None

    def stop(self, grace: float = 5.0) -> None:
        """SIGTERM to the group, and SIGKILL to what is left of it when its leader ended, or after `grace` s."""
        if self.popen.returncode is not None:
            return
        self.signal(signal.SIGTERM)
        with suppress(Late):
            wait_until(lambda: not self.alive(), grace, f"{self.name} to end")
        self.signal(signal.SIGKILL)
        self.popen.wait(grace)

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)


def require(*programs: str) -> None:
    """Skip the test when a program is missing; fail instead where CI=true, for there all of them must be installed."""
    if missing := [program for program in programs if find(program) is None]:
        unavailable(f"needs {', '.join(missing)}: see tests/packages.debian")


def require_root(program: str) -> None:
    """Skip (fail where CI=true) unless root, for a program that starts its daemons under several users."""
    if os.geteuid() != 0:
        unavailable(f"needs root: {program} refuses to start as anyone else")


def unavailable(why: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


def find(program: str) -> str | None:
    """Daemons live in /usr/sbin, which the PATH of plain users lacks."""
    return shutil.which(program, path=PATH)


def wait_until(condition: Callable[[], T], within: float, what: str) -> T:
    """The first truthy value of `condition`, looked at until `within` seconds have passed; then raises Late."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Late(f"waited {within} s for {what}")
        time.sleep(POLL)
    return value


def free_port() -> int:
    """A TCP and UDP port of loopback that nobody uses now, and that neither the kernel nor we give to anybody else."""
    while _unused:
        port = _unused.pop()
        if _is_free(port, socket.SOCK_STREAM) and _is_free(port, socket.SOCK_DGRAM):
            return port
    raise RuntimeError("no free port on loopback")


def _is_free(port: int, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_INET, kind) as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def listening(port: int) -> bool:
    """Is there a listener on this TCP port? Asks the kernel, so that the test's own connection is the first one."""
    wanted = f":{port:04X}"
    return any(local.endswith(wanted) and state == "0A" for local, state in _tcp_sockets())


def _tcp_sockets() -> Iterator[tuple[str, str]]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(FileNotFoundError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                yield fields[1], fields[3]


@contextmanager
def workspace(name: str) -> Iterator[Path]:
    """A new directory, removed at the end. Directly in /tmp and open to all: daemons that drop their privileges must
    pass through it, and the path of a unix socket may have 107 bytes only."""
    path = Path(tempfile.mkdtemp(prefix=f"gatepost-{name}-", dir="/tmp"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def running(
    argv: Sequence[str | Path],
    home: Path,
    ready: Callable[[], object],
    *,
    within: float = 15.0,
    env: Mapping[str, str] | None = None,
) -> Iterator[Process]:
    """Run a program in the directory `home` from the moment it is ready until the block ends."""
    process = _start(argv, home, env or {})
    try:
        _await_ready(process, ready, within)
        yield process
    finally:
        process.stop()


def _start(argv: Sequence[str | Path], home: Path, env: Mapping[str, str]) -> Process:
    command = [str(word) for word in argv]
    name = Path(command[0]).name
    log = home / f"{name}.output"
    with log.open("ab") as output:
        popen = subprocess.Popen(
            [find(command[0]) or command[0], *command[1:]],
            cwd=home,
            env=environment(home, env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Process(name, popen, log)


def _await_ready(process: Process, ready: Callable[[], object], within: float) -> None:
    try:
        wait_until(lambda: ready() or not process.alive(), within, f"{process.name} to be ready")
    except Late as late:
        raise Late(f"{late}; it said:\n{process.output()}") from None
    if not process.alive():
        raise RuntimeError(f"{process.name} ended at its start; it said:\n{process.output()}")


def complete(
    argv: Sequence[str | Path],
    home: Path,
    *,
    stdin: bytes = b"",
    within: float = 20.0,
    env: Mapping[str, str] | None = None,
) -> Output:
    """Run a program to its end, in the directory `home`; raises Late after `within` seconds, when it is killed."""
    command = [str(word) for word in argv]
    with subprocess.Popen(
        [find(command[0]) or command[0], *command[1:]],
        cwd=home,
        env=environment(home, env or {}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as popen:
        try:
            stdout, stderr = popen.communicate(stdin, within)
        except BaseException as failure:
            os.killpg(popen.pid, signal.SIGKILL)  # unreaped as yet: the group id is still ours
            if isinstance(failure, subprocess.TimeoutExpired):
                raise Late(f"{command[0]} ran longer than {within} s") from None
            raise
    return Output(popen.returncode, stdout, stderr)


def environment(home: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """The same for every run, whatever the shell of the person who starts the tests holds."""
    return {"PATH": PATH, "HOME": str(home), "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC", **extra}

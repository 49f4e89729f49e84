"""clamd: the real scanner on a unix socket and a TCP port, with signatures made here: freshclam needs a network.

EICAR's test string stands in no file of ours, so that no scanner of the machine takes the tests for malware.
"""

import hashlib
import re
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.peers import processes

EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
EICAR_NAME = "Eicar-Test-Signature.UNOFFICIAL"  # clamd marks each signature that ClamAV did not sign
TESTFILE_NAME = "Clam-Test-File.UNOFFICIAL"
TESTFILES = Path("/usr/share/clamav-testfiles")
TESTFILE_TEXT = b"ClamAV-Test-File"
TIMEOUT = 20.0  # seconds for each command of ours


@dataclass(frozen=True)
class Clamd:
    """A running clamd, on `unix_socket` and on `host:port`."""

    port: int
    unix_socket: Path
    directory: Path
    process: processes.Process
    host: str = processes.HOST

    def write_signatures(self, patterns: Mapping[str, bytes]) -> None:
        """Detect, besides EICAR and the test files, these byte strings under these names; returns when it is so."""
        _write_signatures(self.directory / "signatures", patterns)
        before = self.process.output().count("Database correctly reloaded")
        self.command(b"RELOAD")
        reloaded = "Database correctly reloaded"
        processes.wait_until(lambda: self.process.output().count(reloaded) > before, TIMEOUT, "clamd to reload")

    def command(self, command: bytes) -> bytes:
        """One command in its z form (clamd(8)); its answer without the final NUL."""
        with socket.create_connection((self.host, self.port), TIMEOUT) as connection:
            connection.sendall(b"z" + command + b"\0")
            return _read_all(connection).rstrip(b"\0")

    def scan(self, data: bytes) -> bytes:
        """The answer to INSTREAM, such as `stream: OK`, by a socket and nothing else."""
        with socket.create_connection((self.host, self.port), TIMEOUT) as connection:
            connection.sendall(b"zINSTREAM\0" + struct.pack("!L", len(data)) + data + struct.pack("!L", 0))
            return _read_all(connection).rstrip(b"\0")

    def log(self) -> str:
        return self.process.output()


@contextmanager
def run(
    *,
    stream_max_length: int = 25_000_000,
    patterns: Mapping[str, bytes] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Clamd]:
    """A clamd that finds EICAR, ClamAV's test files and `patterns` (name: bytes); `settings` as in clamd.conf(5)."""
    processes.require("clamd")
    with processes.workspace("clamd") as home:
        port, path = processes.free_port(), home / "clamd.socket"
        _write_signatures(home / "signatures", patterns or {})
        lines = _config(home, path, port) | {"StreamMaxLength": str(stream_max_length)} | dict(settings or {})
        config = home / "clamd.conf"
        config.write_text("".join(f"{key} {value}\n" for key, value in lines.items()))
        argv: list[str | Path] = ["clamd", "--foreground", "--config-file", config]
        with processes.running(argv, home, lambda: _answers(path) and processes.listening(port), within=30) as process:
            yield Clamd(port, path, home, process)


def _config(home: Path, path: Path, port: int) -> dict[str, str]:
    return {
        "Foreground": "yes",
        "LocalSocket": str(path),
        "LocalSocketMode": "666",
        "TCPSocket": str(port),
        "TCPAddr": processes.HOST,
        "DatabaseDirectory": str(home / "signatures"),
        "TemporaryDirectory": str(home),
        "MaxThreads": "4",
        "SelfCheck": "0",
        "LogTime": "no",
    }


def _write_signatures(directory: Path, patterns: Mapping[str, bytes]) -> None:
    """Body signatures as `name:file type:offset:hex` (.ndb): type 0 is any file, offset 0 the very start."""
    if bad := [name for name in patterns if not re.fullmatch(r"[A-Za-z0-9.-]+", name)]:
        raise ValueError(f"clamd takes no such signature names: {bad}")
    directory.mkdir(exist_ok=True)
    lines = [f"Eicar-Test-Signature:0:0:{EICAR.hex()}"]
    lines += [f"{name}:0:*:{pattern.hex()}" for name, pattern in patterns.items()]
    (directory / "local.ndb").write_text("".join(f"{line}\n" for line in lines))
    if (testfile := TESTFILES / "clam.exe").exists():
        data = testfile.read_bytes()
        name = TESTFILE_NAME.removesuffix(".UNOFFICIAL")
        (directory / "local.hsb").write_text(f"{hashlib.sha256(data).hexdigest()}:{len(data)}:{name}:73\n")


def _read_all(connection: socket.socket) -> bytes:
    """clamd closes after its answer."""
    answer = b""
    while chunk := connection.recv(4096):
        answer += chunk
    return answer


def _answers(path: Path) -> bool:
    """Whether somebody listens at *path*: the file is there a moment earlier."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0

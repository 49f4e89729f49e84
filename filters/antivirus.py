"""Does clamd know a virus in this mail?

pyclamd streams the mail to clamd; what it makes of the answer is not trusted, for it takes silence and nonsense for
"clean". Only the two answers that clamd's manual names tell anything here; all else is no answer.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO, ClassVar, NamedTuple

import pyclamd

from gateway.model import Finding, Found, Mail, Stage, Temporary, Tools

CHUNK = 64 << 10
"""Octets of the mail that are held in memory at a time."""

MAX_ANSWER = 4096
"""Octets that an answer of clamd may have."""

VERSION_AGE = 30.0
"""Seconds for which clamd's word on its version and signatures is taken as still true."""

CONNECT_TIMEOUT = 3.0
"""Seconds that one clamd may take to accept a connection."""

_FOUND = re.compile(r"stream: (.+) FOUND")
_CODES = (("Heuristics.Limits.Exceeded", "unscanned"), ("Heuristics.Encrypted", "encrypted"))


@dataclass(frozen=True, slots=True)
class Settings:
    """Where clamd is, and how long we wait for it."""

    sockets: tuple[str, ...] = ("unix:var/run/clamd.sock", "unix:/run/clamav/clamd.ctl", "127.0.0.1:3310")
    """Where clamd listens: "unix:PATH" or "ADDRESS:PORT". The next is tried where one cannot tell."""

    timeout: float = 60.0
    """Seconds for one mail, the wait for a thread and all sockets included."""

    threads: int = 4
    """Mails that are scanned at the same time. More than clamd's MaxThreads is of no use."""


class _Socket(NamedTuple):
    """A place where clamd listens: a path, or an address and a port."""

    written: str
    family: socket.AddressFamily
    address: str | tuple[str, int]


class _Scan(NamedTuple):
    """What clamd answered, and with which signatures."""

    answer: str
    version: str


class _Failed(Exception):
    """One clamd could not tell. The text says why."""


class Filter:
    """Asks the first clamd that can tell. The calls of pyclamd block, so they run in threads of our own."""

    stage: ClassVar[Stage] = Stage.MESSAGE
    codes: ClassVar[frozenset[str]] = frozenset({"clean", "infected", "encrypted", "unscanned"})
    after: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, settings: Settings, tools: Tools) -> None:
        if settings.threads < 1 or not settings.sockets:
            raise ValueError("antivirus needs at least one thread and one socket")
        self._settings, self._tools = settings, tools
        self._sockets = [_socket(written) for written in settings.sockets]
        self._threads = ThreadPoolExecutor(settings.threads, "antivirus")
        self._versions: dict[str, tuple[float, str]] = {}

    async def check(self, mail: Mail, found: Found) -> Sequence[Finding]:  # noqa: ARG002  it reads no other filter
        """Exactly one finding: what clamd said. `Temporary` where no clamd could tell."""
        deadline = time.monotonic() + self._settings.timeout
        work = asyncio.get_running_loop().run_in_executor(self._threads, self._scan, mail, deadline)
        try:
            async with asyncio.timeout(self._settings.timeout + 1.0):
                scan = await work
        except TimeoutError:
            raise Temporary(f"clamd had no time within {self._settings.timeout:g} s") from None
        return [_finding(scan)]

    def _scan(self, mail: Mail, deadline: float) -> _Scan:
        """The answer of the first clamd that can tell."""
        failures = []
        for place in self._sockets:
            try:
                return self._scan_at(place, mail, deadline)
            except _Failed as failure:
                failures.append(f"{place.written}: {failure}")
        raise Temporary(f"no clamd could tell ({'; '.join(failures)})")

    def _scan_at(self, place: _Socket, mail: Mail, deadline: float) -> _Scan:
        with self._tools.open_message(mail) as message:
            answer = _Clamd(place, deadline).scan(message)
        if answer != "stream: OK" and not _FOUND.fullmatch(answer):
            raise _Failed(f"answered {_shown(answer)!r}")
        return _Scan(answer, self._version(place, deadline))

    def _version(self, place: _Socket, deadline: float) -> str:
        """Program and signatures as clamd names them; it may be set up not to tell, which is no fault."""
        at, version = self._versions.get(place.written, (0.0, ""))
        if not version or time.monotonic() - at > VERSION_AGE:
            try:
                version = _shown(_Clamd(place, deadline).ask("VERSION"))
            except _Failed:
                version = "version unknown"
            self._versions[place.written] = (time.monotonic(), version)
        return version


class _Clamd(pyclamd.ClamdNetworkSocket):  # type: ignore[misc]  # pyclamd carries no type hints
    """pyclamd for one command, made to fail closed: one deadline for all, whole answers, and never a guess."""

    def __init__(self, place: _Socket, deadline: float) -> None:
        # pyclamd's own __init__ would connect once more, only to see whether it can.
        self._place, self._deadline, self._answer = place, deadline, ""

    def scan(self, message: BinaryIO) -> str:
        """clamd's answer to the whole of *message*; `_Failed` where there is none or part was not taken."""
        try:
            self.scan_stream(message, CHUNK)
        except pyclamd.BufferTooLongError:
            raise _Failed("the mail is larger than its StreamMaxLength") from None
        except (OSError, ValueError, LookupError) as error:
            raise _Failed(self._last_word() or _why(error)) from None
        finally:
            self._disconnect()
        return self._answer

    def ask(self, command: str) -> str:
        """clamd's answer to a plain *command*."""
        try:
            self._init_socket()
            self._send_command(command)
            self._recv_response()
        except OSError as error:
            raise _Failed(_why(error)) from None
        finally:
            self._disconnect()
        return self._answer

    def _init_socket(self) -> None:
        self.clamd_socket = _Wire(self._place, self._deadline)

    def _recv_response(self) -> str:
        """The whole answer the first time, then "", by which pyclamd knows that there is no more."""
        if self._answer:
            return ""
        self._answer = self.clamd_socket.line()
        return self._answer

    def _last_word(self) -> str:
        """What clamd said that made no sense, or before it closed in the middle of the mail (its size limit)."""
        if self._answer:
            return f"answered {_shown(self._answer)!r}"
        with suppress(OSError, AttributeError):
            return f"closed early with {_shown(self.clamd_socket.line())!r}"
        return ""

    def _disconnect(self) -> None:
        with suppress(OSError, AttributeError):  # no attribute where it could not even connect
            self.clamd_socket.close()


class _Wire:
    """A connection to clamd that stands in for pyclamd's socket. Every wait ends at the deadline."""

    def __init__(self, place: _Socket, deadline: float) -> None:
        self._deadline, self._held = deadline, bytearray()
        self._socket = socket.socket(place.family, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(min(CONNECT_TIMEOUT, self._left()))
            self._socket.connect(place.address)
        except OSError:
            self._socket.close()
            raise

    def send(self, data: bytes) -> int:
        """Send *data* whole. Small pieces wait for the next, so that a length and its chunk go out together."""
        self._held += data
        if len(self._held) >= CHUNK:
            self._flush()
        return len(data)

    def line(self) -> str:
        """One line, ended as the n form of commands wants it; OSError where there is none."""
        self._flush()
        answer = bytearray()
        while not answer.endswith(b"\n"):
            self._socket.settimeout(self._left())
            piece = self._socket.recv(MAX_ANSWER)
            answer += piece
            if not piece or len(answer) > MAX_ANSWER:
                raise ConnectionAbortedError("closed without a whole answer" if not piece else "endless answer")
        return answer.decode("utf-8", "replace").rstrip("\n")

    def close(self) -> None:
        self._socket.close()

    def _flush(self) -> None:
        held, self._held = self._held, bytearray()
        if held:
            self._socket.settimeout(self._left())
            self._socket.sendall(held)

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def _socket(written: str) -> _Socket:
    """Read "unix:PATH", "192.0.2.1:3310" or "[::1]:3310"; ValueError where it is none of them."""
    if written.startswith("unix:") and len(written) > 5:
        return _Socket(written, socket.AF_UNIX, written.removeprefix("unix:"))
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):(\d{1,5})", written)
    if not match:
        raise ValueError(
            f'a socket of clamd is written "unix:/run/clamav/clamd.ctl" or "127.0.0.1:3310", not {written!r}'
        )
    address = ipaddress.ip_address(match[1] or match[2])
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return _Socket(written, family, (str(address), int(match[3])))


def _finding(scan: _Scan) -> Finding:
    facts = (_shown(scan.answer), scan.version)
    match = _FOUND.fullmatch(scan.answer)
    if not match:
        return Finding("clean", scan.version, facts=facts)
    code = next((code for prefix, code in _CODES if match[1].startswith(prefix)), "infected")
    return Finding(code, re.sub(r"[^A-Za-z0-9._:/()+-]", "?", match[1][:100]), facts=facts)


def _why(error: Exception) -> str:
    cause = error.__context__ if isinstance(error, pyclamd.ConnectionError) else error  # pyclamd hides the reason
    if isinstance(cause, TimeoutError):
        return "took too long"
    return _shown(getattr(cause, "strerror", None) or str(cause) or type(cause).__name__)


def _shown(text: str) -> str:
    return re.sub(r"[^\x20-\x7e]", "?", text[:200])

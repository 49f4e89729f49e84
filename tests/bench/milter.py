"""A client of one milter: it shows it messages as an MTA would, and tells what the milter makes of them (version 6)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gateway.dkim import canonical

ADD_HEADERS, CHANGE_HEADERS, ADD_RECIPIENTS, QUARANTINE = 0x01, 0x10, 0x04, 0x20
NO_REPLIES = 0x00000080 | 0x00001000 | 0x00002000 | 0x00004000 | 0x00008000 | 0x00010000 | 0x00040000 | 0x00080000
LEADING_SPACE = 0x00100000
"""Steps of the protocol (SMFIP_NR_* and SMFIP_HDR_LEADSPC), offered as Postfix offers them."""

CHUNK = 65535
FINAL = b"acdrt"  # accept, continue, discard, reject, tempfail


@dataclass
class Milter:
    """A connection to the milter at the unix socket `path`: one SMTP session, which shows message after message."""

    path: Path
    _silent: int = 0
    _connection: socket.socket = field(init=False)

    def __enter__(self) -> Milter:
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.settimeout(20)
        self._connection.connect(str(self.path))
        actions = ADD_HEADERS | CHANGE_HEADERS | ADD_RECIPIENTS | QUARANTINE
        self._send(b"O", struct.pack("!LLL", 6, actions, NO_REPLIES | LEADING_SPACE))
        _, data = self._receive()
        self._silent = struct.unpack("!LLL", data[:12])[2]
        self._ask(b"C", b"localhost\x004" + struct.pack("!H", 25) + b"127.0.0.1\x00", 0x00001000)
        self._ask(b"H", b"localhost\x00", 0x00002000)
        return self

    def __exit__(self, *_: object) -> None:
        self._send(b"Q")
        self._connection.close()

    def show(self, message: bytes) -> list[bytes]:
        """The header fields that the milter would add to *message* (with CRLF), as "name\\0value\\0"."""
        head, _, body = message.partition(b"\r\n\r\n")
        self._ask(b"M", b"<ann@example.org>\x00", 0x00004000)
        self._ask(b"R", b"<bob@example.net>\x00", 0x00008000)
        for one in canonical.fields(head + b"\r\n"):
            name, _, value = one.removesuffix(b"\r\n").partition(b":")
            self._ask(b"L", name + b"\x00" + value.replace(b"\r\n", b"\n") + b"\x00", 0x00000080)
        self._ask(b"N", b"", 0x00040000)
        for start in range(0, len(body), CHUNK):
            self._ask(b"B", body[start : start + CHUNK], 0x00080000)
        self._send(b"E")
        return list(self._added())

    def _added(self) -> Iterator[bytes]:
        while True:
            command, data = self._receive()
            if command in FINAL:
                return
            if command in b"hi":
                yield data.partition(b"\x00")[2] if command == b"h" else data[4:]

    def _ask(self, command: bytes, data: bytes, silent: int) -> None:
        self._send(command, data)
        if not self._silent & silent and (reply := self._receive()[0]) != b"c":
            raise RuntimeError(f"the milter does not go on after {command!r}: {reply!r}")

    def _send(self, command: bytes, data: bytes = b"") -> None:
        self._connection.sendall(struct.pack("!L", 1 + len(data)) + command + data)

    def _receive(self) -> tuple[bytes, bytes]:
        (length,) = struct.unpack("!L", self._read(4))
        octets = self._read(length)
        return octets[:1], octets[1:]

    def _read(self, count: int) -> bytes:
        octets = b""
        while len(octets) < count:
            if not (more := self._connection.recv(count - len(octets))):
                raise RuntimeError("the milter has closed the connection")
            octets += more
        return octets


def fields(added: Sequence[bytes], name: bytes) -> list[bytes]:
    """The values of the fields of *name* among *added*."""
    pairs = (one.rstrip(b"\x00").partition(b"\x00") for one in added)
    return [value for key, _, value in pairs if key.lower() == name.lower()]

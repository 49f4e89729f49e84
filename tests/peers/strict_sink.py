"""A receiver by the letter of RFC 5321: only CRLF ends a line, only CRLF.CRLF ends a message, and all octets are kept.

smtp-sink and mail servers are lenient, so what we send to them proves little about the line ends in it.
"""

import re
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tests.peers import processes

OFFER = b"250-strict.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 0\r\n"
ENDS = re.compile(rb"(?:\r\n|\r|\n)\0?\.\0?(?=\r|\n)")
"""What some server or other has taken for the end of a message."""


@dataclass(frozen=True)
class Taken:
    """One message; `octets` as they came after 354, with doubled dots, without the end."""

    sender: bytes
    recipients: tuple[bytes, ...]
    octets: bytes

    @property
    def raw(self) -> bytes:
        """The message with CRLF."""
        return (b"\r\n" + self.octets).replace(b"\r\n.", b"\r\n")[2:]

    def is_one_to_everybody(self) -> bool:
        """Whether nobody could see the end of a message before the true one, or another line end than CRLF."""
        ends = self.octets.count(b"\r\n")
        lines = ends == self.octets.count(b"\r") == self.octets.count(b"\n")
        return lines and b"\0" not in self.octets and not ENDS.search(b"\r\n" + self.octets)


@dataclass
class StrictSink:
    """A running sink. `refusal` is what it says to MAIL; `faults` holds lines that no client may send."""

    refusal: bytes = b""
    port: int = 0
    taken: list[Taken] = field(default_factory=list)
    faults: list[bytes] = field(default_factory=list)
    peers: list[socket.socket] = field(default_factory=list)

    def wait_taken(self, count: int, within: float = 20.0) -> list[Taken]:
        """All messages as soon as there are at least *count*; raises Late."""
        processes.wait_until(lambda: len(self.taken) >= count, within, f"{count} messages in the strict sink")
        return list(self.taken)


class _Talk(socketserver.BaseRequestHandler):
    sink: StrictSink

    def handle(self) -> None:
        self.rest, self.sender, self.recipients = b"", b"", list[bytes]()
        self.sink.peers.append(self.request)
        self.request.settimeout(30)
        self.request.sendall(b"220 strict.example ESMTP\r\n")
        while line := self.until(b"\r\n"):
            if set(line) & set(b"\r\n\0"):
                self.sink.faults.append(line)
                return
            self.request.sendall(self.answer(line))
            if line.upper() == b"QUIT":
                return

    def until(self, end: bytes) -> bytes:
        """The octets before *end*; none where the peer has gone."""
        while end not in self.rest:
            more = self.request.recv(1 << 16)
            if not more:
                return b""
            self.rest += more
        found, _, self.rest = self.rest.partition(end)
        return found

    def answer(self, line: bytes) -> bytes:
        verb, _, rest = line.partition(b" ")
        match verb.upper():
            case b"EHLO":
                return OFFER
            case b"MAIL":
                self.sender, self.recipients = rest, []
                return self.sink.refusal or b"250 2.1.0 ok\r\n"
            case b"RCPT":
                self.recipients.append(rest)
            case b"DATA":
                return self.content()
        return b"250 2.0.0 ok\r\n"

    def content(self) -> bytes:
        self.request.sendall(b"354 go on\r\n")
        self.rest = b"\r\n" + self.rest
        octets = self.until(b"\r\n.\r\n")[2:] + b"\r\n"
        self.sink.taken.append(Taken(self.sender, tuple(self.recipients), octets))
        return b"250 2.0.0 taken\r\n"


@contextmanager
def run(port: int = 0, refusal: bytes = b"") -> Iterator[StrictSink]:
    """A sink at *port* (0: one from the system) during the block; *refusal* is a whole reply to MAIL."""
    sink = StrictSink(refusal)
    handler = type("Handler", (_Talk,), {"sink": sink})

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True

    with Server((processes.HOST, port), handler) as server:
        sink.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield sink
        finally:
            server.shutdown()
            thread.join(10)
            for peer in sink.peers:  # a connection that is kept for more mail must not outlive its sink
                with suppress(OSError):
                    peer.shutdown(socket.SHUT_RDWR)
    assert sink.faults == []

"""Octets into command lines, and messages into what goes over the wire: line ends, dots, the top of a message."""

from __future__ import annotations

END = b".\r\n"
"""The line that ends a multi-line answer (RFC 1939 3)."""


class Lines:
    """Cuts what arrives at LF. Of a line longer than *limit*, limit + 1 octets are handed out and no more are kept."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._start = b""
        self._skipping = False

    def __len__(self) -> int:
        """How many octets wait, of whole lines and of one that is not yet whole."""
        return len(self._buffer) + len(self._start)

    def feed(self, data: bytes) -> None:
        """Add what arrived."""
        self._buffer += data

    def next(self) -> bytes | None:
        """The next line with its end, or None while it is not whole."""
        end = self._buffer.find(b"\n") + 1
        if not end:
            self._shorten()
            return None
        line = self._start if self._skipping else bytes(self._buffer[: min(end, self._limit + 1)])
        del self._buffer[:end]
        self._start, self._skipping = b"", False
        return line

    def _shorten(self) -> None:
        """Without a line end in sight, keep only as much as shows that the line is too long."""
        if len(self._buffer) > self._limit and not self._skipping:
            self._start, self._skipping = bytes(self._buffer[: self._limit + 1]), True
        if self._skipping:
            self._buffer.clear()


class DotStuffer:
    """Doubles the dot that begins a line, wherever the chunks of the message are cut (RFC 1939 3)."""

    def __init__(self) -> None:
        self._tail = b"\r\n"  # a message begins as if a line had just ended

    def feed(self, chunk: bytes) -> bytes:
        """*chunk*, as it goes over the wire."""
        joined = self._tail + chunk
        kept, self._tail = len(self._tail), joined[-2:]
        return joined.replace(b"\r\n.", b"\r\n..")[kept:]

    def finish(self) -> bytes:
        """The end of the answer, on a line of its own."""
        return END if self._tail == b"\r\n" else b"\r\n" + END


class Top:
    """The header, the empty line after it, and the first *lines* lines of the body (RFC 1939 7)."""

    def __init__(self, lines: int) -> None:
        self._left = lines
        self._tail = b"\r\n"  # an empty header is an empty line at once
        self._in_header = True
        self.done = False

    def feed(self, chunk: bytes) -> bytes:
        """What of *chunk* belongs to the top; nothing more once `done`."""
        if self.done:
            return b""
        start = 0
        if self._in_header:
            start = self._header_end(chunk)
        return chunk if self._in_header else chunk[: self._body_end(chunk, start)]

    def _header_end(self, chunk: bytes) -> int:
        joined = self._tail + chunk
        kept, self._tail = len(self._tail), joined[-3:]
        found = joined.find(b"\r\n\r\n")
        self._in_header = found < 0
        return found + 4 - kept

    def _body_end(self, chunk: bytes, start: int) -> int:
        lines = chunk.count(b"\n", start)
        if lines < self._left:
            self._left -= lines
            return len(chunk)
        self.done = True
        for _ in range(self._left):
            start = chunk.index(b"\n", start) + 1
        return start

"""Where the content of a message ends, and whether it may stand: the machines behind DATA and BDAT, without I/O.

Rule: only CRLF ends a line and only CRLF.CRLF ends DATA, however the octets are cut into blocks. Content with a bare CR
or LF, a NUL, an over-long line or too many octets is read to its end, kept nowhere, and refused with `fault`. What we
pass on can mean one message only, to us and to every host behind us (SMTP smuggling).
"""

from __future__ import annotations

from gateway.smtp import replies
from gateway.smtp.replies import Reply

MAX_LINE = 998
"""Octets in a line without its CRLF (RFC 5321 4.5.3.1.6)."""

_WINDOW = MAX_LINE + 2


class _Content:
    """Whole lines, counted and checked. The first fault stays, and from then on nothing is handed out."""

    _rest = b""

    def __init__(self, size_limit: int, header_limit: int) -> None:
        self.size = 0
        self.fault: Reply | None = None
        self._size_limit = size_limit
        self._header_limit = header_limit
        self._in_header = True

    def _hold(self, line: bytes) -> None:
        """Keep an unfinished *line* for the next block; of one too long already, what its end may depend on."""
        if len(line) > _WINDOW + 1:
            self.fault = self.fault or replies.TEXT_LINE_TOO_LONG
            self.size += len(line)
            line = b"x\r" if line.endswith(b"\r") else b"x"
        self._rest = line

    def _kept(self, lines: bytes) -> bytes:
        """*lines*, which begin and end at the borders of lines, or nothing once there is a fault."""
        self.size += len(lines)
        if self.fault is None:
            self.fault = self._fault_of(lines)
        return b"" if self.fault else lines

    def _fault_of(self, lines: bytes) -> Reply | None:
        ends = lines.count(b"\r\n")
        if lines.count(b"\n") != ends or lines.count(b"\r") != ends:
            return replies.BARE_NEWLINE
        if b"\0" in lines:
            return replies.NUL_OCTET
        if _has_long_line(lines):
            return replies.TEXT_LINE_TOO_LONG
        if self._in_header and not self._header_fits(lines):
            return replies.HEADER_TOO_BIG
        return replies.TOO_BIG if self.size > self._size_limit else None

    def _header_fits(self, lines: bytes) -> bool:
        before = self.size - len(lines)
        end = 0 if lines.startswith(b"\r\n") else lines.find(b"\r\n\r\n")
        self._in_header = end < 0
        return (self.size if end < 0 else before + end) <= self._header_limit


def _has_long_line(lines: bytes) -> bool:
    """Whether some line of *lines* is longer than `MAX_LINE`. Looks at the last LF of each window, so it is quick."""
    start = 0
    while len(lines) - start > _WINDOW:
        end = lines.rfind(b"\n", start, start + _WINDOW)
        if end < 0:
            return True
        start = end + 1
    return False


class Dotted(_Content):
    """The content of DATA: ends with a line of one dot, other lines may carry a dot too many (RFC 5321 4.5.2)."""

    def feed(self, block: bytes) -> tuple[bytes, bytes | None]:
        """Take the next *block*; return content to keep, and at the end of data what followed it (else None)."""
        block = self._rest + block
        end = _end_of_data(block)
        if end is not None:
            self._rest = b""
            return self._kept(_unstuffed(block[:end])), block[end + 3 :]
        border = block.rfind(b"\r\n") + 2 if b"\r\n" in block else 0
        self._hold(block[border:])
        return self._kept(_unstuffed(block[:border])), None


def _end_of_data(block: bytes) -> int | None:
    """Where the line of one dot begins in *block*, which begins at the border of a line."""
    if block.startswith(b".\r\n"):
        return 0
    found = block.find(b"\r\n.\r\n")
    return None if found < 0 else found + 2


def _unstuffed(lines: bytes) -> bytes:
    return (lines[1:] if lines.startswith(b".") else lines).replace(b"\r\n.", b"\r\n")


class Chunked(_Content):
    """The content of BDAT (RFC 3030): chunks whose lengths were declared, cut anywhere, with no dots to take away."""

    def feed(self, block: bytes) -> bytes:
        """Take the next *block* of a chunk; return content to keep."""
        block = self._rest + block
        border = block.rfind(b"\r\n") + 2 if b"\r\n" in block else 0
        self._hold(block[border:])
        return self._kept(block[:border])

    def finish(self) -> bytes:
        """The last chunk is complete: return what is left to keep.

        A message without CRLF at its end gets one, as DATA could not carry it onward otherwise; signatures do not
        see the difference (RFC 6376 3.4.3).
        """
        last, self._rest = self._rest, b""
        return self._kept(last + b"\r\n") if last else b""

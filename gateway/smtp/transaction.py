"""One message on its way in, from MAIL to the end of its content."""

from __future__ import annotations

from typing import BinaryIO

from gateway import events
from gateway.model import Envelope
from gateway.smtp import replies
from gateway.smtp.data import Chunked
from gateway.smtp.replies import ProtocolError, Reply
from gateway.smtp.spool import Spool, is_full


class Transaction:
    """`trouble` is what went wrong on our side while the content came in; the peer hears of it at the end."""

    def __init__(self, envelope: Envelope, spool: Spool) -> None:
        self.envelope = envelope
        self.spool = spool
        self.chunks: Chunked | None = None
        self.trouble: Reply | None = None

    def keep(self, content: bytes) -> None:
        """Spool *content*; where that fails, remember the reply, and let the rest of the message pass by."""
        if self.trouble is None:
            try:
                self.spool.write(content)
            except OSError as error:
                self.trouble = _spool_trouble(error)
                self.spool.close()

    def finished(self) -> BinaryIO:
        """The whole message for reading, or a `ProtocolError`."""
        if self.trouble is None:
            try:
                return self.spool.finish()
            except OSError as error:
                self.trouble = _spool_trouble(error)
        raise ProtocolError(self.trouble)


def _spool_trouble(error: OSError) -> Reply:
    events.failure("spool", error)
    return replies.FULL if is_full(error) else replies.UNAVAILABLE

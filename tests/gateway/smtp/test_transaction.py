"""A message on its way in: what is kept can be read, and after trouble the rest passes by."""

import errno

import pytest

from gateway.model import Envelope
from gateway.smtp import replies
from gateway.smtp.replies import ProtocolError
from gateway.smtp.spool import Spool
from gateway.smtp.transaction import Transaction


class Failing:
    """A spool that fails for a reason of its own."""

    def __init__(self, number):
        self.error = OSError(number, "it failed")
        self.writes = 0
        self.closed = False

    def write(self, content):
        self.writes += 1
        raise self.error

    def close(self):
        self.closed = True


def test_what_is_kept_can_be_read_at_the_end(tmp_path):
    mail = Transaction(Envelope(), Spool(tmp_path, 3))
    mail.keep(b"ab")
    mail.keep(b"cd")
    with mail.finished() as file:
        assert file.read() == b"abcd"


@pytest.mark.parametrize(("number", "reply"), [(errno.ENOSPC, replies.FULL), (errno.EIO, replies.UNAVAILABLE)])
def test_after_trouble_the_rest_passes_by_and_the_end_names_it(number, reply):
    spool = Failing(number)
    mail = Transaction(Envelope(), spool)
    mail.keep(b"ab")
    mail.keep(b"cd")
    assert (spool.writes, spool.closed) == (1, True)
    with pytest.raises(ProtocolError) as raised:
        mail.finished()
    assert raised.value.reply is reply

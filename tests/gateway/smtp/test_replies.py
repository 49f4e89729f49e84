"""Every reply is one short line of our own words, with codes that agree."""

import pytest

from gateway.smtp import replies
from gateway.smtp.replies import Reply

EVERY = {name: value for name, value in vars(replies).items() if isinstance(value, Reply)}


@pytest.mark.parametrize("name", EVERY)
def test_a_reply_is_one_short_printable_line_whose_codes_agree(name):
    reply = EVERY[name]
    assert str(reply).isascii()
    assert str(reply).isprintable()
    assert len(str(reply)) + 2 <= 512
    assert 200 <= reply.code < 600
    assert not reply.enhanced if reply.code // 100 == 3 else reply.enhanced.startswith(f"{reply.code // 100}.")


def test_every_reply_stands_once():
    assert len(set(EVERY.values())) == len(EVERY)


def test_a_reply_names_the_mail_and_the_reason():
    assert str(replies.REJECTED.naming("0k3", "spf: fail")) == "550 5.7.1 Refused by our policy (spf: fail) id=0k3"
    assert replies.ACCEPTED.naming() == replies.ACCEPTED


@pytest.mark.parametrize(
    ("reply", "reference", "enhanced"),
    [
        (replies.REJECTED, "dmarc/fail_reject: bank.example asks for reject", "5.7.26"),
        (replies.REJECTED, "spf/fail", "5.7.23"),
        (replies.DEFERRED, "spf/temperror", "4.7.24"),
        (replies.REJECTED, "arc/fail", "5.7.29"),
        (replies.DEFERRED, "dmarc/temperror", "4.7.1"),
        (replies.REJECTED, "attachments/executable", "5.7.1"),
        (replies.NO_SUCH_USER, "spf/fail", "5.1.1"),
    ],
)
def test_a_refusal_by_authentication_has_its_own_enhanced_code(reply, reference, enhanced):
    assert reply.naming("0k3", reference).enhanced == enhanced


def test_nothing_but_our_own_alphabet_gets_into_a_reply():
    hostile = replies.REJECTED.naming("0\r\n250 OK", "x\r\n250 \x1b[1mé" + "y" * 1000)
    assert str(hostile).isascii()
    assert str(hostile).isprintable()
    assert "id=" not in str(hostile)
    assert len(str(hostile)) < 200

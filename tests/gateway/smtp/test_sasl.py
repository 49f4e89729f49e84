"""What comes back to a challenge: what is a login and a password, and what is refused."""

import pytest

from gateway.smtp import replies, sasl
from gateway.smtp.replies import ProtocolError


def test_an_answer_is_text_in_base64():
    assert sasl.decoded("YWxpY2U=") == "alice"
    assert sasl.decoded("w7w=") == "ü"
    assert sasl.decoded("=") == sasl.decoded("") == ""


@pytest.mark.parametrize("answer", ["!", "YWxpY2U", "YWxp Y2U=", "/w==", "ü"])
def test_what_is_no_base64_of_text_is_refused(answer):
    with pytest.raises(ProtocolError) as raised:
        sasl.decoded(answer)
    assert raised.value.reply is replies.AUTH_SYNTAX


def test_plain_holds_login_and_password():
    assert sasl.plain("\0alice\0secret") == ("alice", "secret")
    assert sasl.plain("alice\0alice\0secret") == ("alice", "secret")


@pytest.mark.parametrize(
    ("message", "reply"),
    [
        ("", replies.AUTH_SYNTAX),
        ("alice", replies.AUTH_SYNTAX),
        ("\0alice", replies.AUTH_SYNTAX),
        ("\0\0secret", replies.AUTH_SYNTAX),
        ("\0alice\0", replies.AUTH_SYNTAX),
        ("\0alice\0secret\0", replies.AUTH_SYNTAX),
        ("bob\0alice\0secret", replies.AUTH_FAILED),
    ],
)
def test_a_malformed_plain_message_is_refused(message, reply):
    with pytest.raises(ProtocolError) as raised:
        sasl.plain(message)
    assert raised.value.reply is reply

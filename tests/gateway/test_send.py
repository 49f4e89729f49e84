"""Sending through a gateway: what the server answers is told in full, and cleaned; nothing of it raises."""

import socketserver
import threading
from contextlib import contextmanager

import pytest

from gateway import send
from gateway.config import Listener
from gateway.model import ListenerKind, Temporary

MAIL_ID = "06h0bt6v4f0j647nne"


@contextmanager
def server(**replies):
    """An SMTP server that answers each verb as told, 250 otherwise; yields where it is, and what it was told."""
    heard = []

    class Dialog(socketserver.StreamRequestHandler):
        timeout = 5

        def handle(self):
            self.say(replies.get("greeting", "220 here"))
            while line := self.rfile.readline():
                heard.append(line)
                verb = line.split()[0].decode().lower() if line.split() else ""
                self.say(replies.get(verb, {"data": "354 go on", "quit": "221 bye"}.get(verb, "250 fine")))
                if verb == "data" and "data" not in replies:
                    self.message()

        def message(self):
            while (line := self.rfile.readline()) not in (b".\r\n", b""):
                heard.append(line)
            self.say(replies.get("end", f"250 2.0.0 Taken id={MAIL_ID}"))

        def say(self, reply):
            self.wfile.write(reply.encode("utf-8", "surrogateescape") + b"\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Dialog) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield send.Server("127.0.0.1", made.server_address[1]), heard
        finally:
            made.shutdown()
            thread.join(5)


def test_a_message_arrives_with_crlf_line_ends_and_its_id_is_told():
    with server() as (where, heard):
        answer = send.send(where, b"Subject: x\n\n.dot\r\nlast", "a@b.example", ["c@d.example"])
    assert answer.code == 250
    assert answer.id == MAIL_ID
    assert heard[-5:-1] == [b"Subject: x\r\n", b"\r\n", b"..dot\r\n", b"last\r\n"]


def test_size_and_eight_bit_are_declared_where_the_server_knows_them():
    with server(ehlo="250-here\r\n250-SIZE 1000\r\n250 8BITMIME") as (where, heard):
        send.send(where, "Subject: é\n\n".encode(), "a@b.example", ["c@d.example"])
    assert b"mail FROM:<a@b.example> SIZE=15 BODY=8BITMIME\r\n" in heard


def test_a_refused_recipient_is_told_and_the_others_get_the_mail():
    with server(rcpt="550 5.1.1 No such user") as (where, _):
        answer = send.send(where, b"x\n", "a@b.example", ["c@d.example"])
    assert answer.code == 550
    assert answer.refused == {"c@d.example": "550 5.1.1 No such user"}
    assert answer.id == ""


@pytest.mark.parametrize("verb", ["mail", "rcpt", "data", "end"])
@pytest.mark.parametrize("code", [451, 550])
def test_a_refusal_at_any_moment_is_an_answer_not_an_exception(verb, code):
    with server(**{verb: f"{code} no"}) as (where, _):
        answer = send.send(where, b"x\n", "a@b.example", ["c@d.example"])
    assert (answer.code, answer.reply) == (code, f"{code} no")


def test_a_server_that_turns_us_away_at_the_door_is_an_answer():
    with server(greeting="554 go away") as (where, _):
        assert send.send(where, b"x\n", "a@b.example", ["c@d.example"]).code == 554


@pytest.mark.parametrize("greeting", ["nonsense", ""])
def test_a_server_that_does_not_speak_smtp_is_told(greeting):
    with server(greeting=greeting) as (where, _), pytest.raises(Temporary, match="does not speak SMTP"):
        send.send(where, b"x\n", "a@b.example", ["c@d.example"])


def test_words_of_the_server_are_cleaned():
    with server(mail="550 \x1b[31mred \u202e") as (where, _):
        answer = send.send(where, b"x\n", "a@b.example", ["c@d.example"])
    assert "\x1b" not in answer.reply
    assert "\u202e" not in answer.reply


def test_nobody_there_is_temporary():
    with pytest.raises(Temporary, match="connection refused"):
        send.send(send.Server("127.0.0.1", 1), b"x\n", "a@b.example", ["c@d.example"])


def test_a_password_is_never_sent_without_tls():
    with server(ehlo="250-here\r\n250 AUTH PLAIN") as (where, heard), pytest.raises(Temporary):
        send.send(where, b"x\n", "a@b.example", ["c@d.example"], send.Login("a", "secret"))
    assert not any(line.lower().startswith(b"auth") for line in heard)


def test_a_password_does_not_show_in_a_representation():
    assert "secret" not in repr(send.Login("a", "secret"))


@pytest.mark.parametrize(
    ("address", "host"), [("0.0.0.0:25", "127.0.0.1"), ("[::]:25", "::1"), ("192.0.2.1:25", "192.0.2.1")]
)
def test_a_listener_on_all_addresses_is_reached_by_loopback(address, host):
    listener = Listener(name="mx", kind=ListenerKind.MX, address=address)
    assert send.server_of(listener, None).host == host

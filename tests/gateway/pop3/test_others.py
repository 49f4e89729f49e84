"""Nobody sees, changes or learns of another's mail, whatever he sends; not even where two have the same message."""

import random
from io import BytesIO
from ipaddress import ip_address

import pytest

from gateway.model import Envelope, Recipient, Session, State
from gateway.store import messages

SHARED = b"Subject: to both\r\n\r\nthe same for both\r\n"
SECRET = b"only for the eyes of bob"
ROUNDS = 25
"""Sessions with chosen nonsense."""


@pytest.fixture
def both(store):
    """One message for alice and bob, each with a field of their own on top; and one for bob alone."""

    def row(account):
        field = b"Delivered-To: %s@example.net\r\n" % account.encode()
        return messages.Row(Recipient(f"{account}@example.net"), State.MAILBOX, mailbox=account, header=field)

    for name, body, accounts in (("both", SHARED, ("alice", "bob")), ("secret", SECRET + b"\r\n", ("bob",))):
        sender = Session(ip_address("192.0.2.1"))
        draft = messages.Draft(name, 1_800_000_000.0, sender, Envelope("s@example.org"), body=BytesIO(body))
        with store.begin() as conn:
            messages.accept(conn, draft, [row(account) for account in accounts])


def log_in(client, user):
    client.line()
    client.ask(b"USER " + user)
    assert client.ask(b"PASS " + user + b"'s secret").startswith(b"+OK ")


def test_one_message_for_two_is_two_mails_and_each_deletes_his_own(serve, connect, both, left):
    server = serve()
    alice, bob = connect(server.port, greeted=False), connect(server.port, greeted=False)
    log_in(alice, b"alice")
    log_in(bob, b"bob")
    names = [client.ask(b"UIDL 1").split()[2] for client in (alice, bob)]
    assert names[0] != names[1]
    assert alice.ask(b"RETR 1").startswith(b"+OK")
    assert alice.lines() == b"Delivered-To: alice@example.net\r\n" + SHARED
    assert alice.ask(b"DELE 1").startswith(b"+OK")
    assert alice.ask(b"QUIT").startswith(b"+OK")
    assert left("alice") == []
    assert bob.ask(b"RETR 1").startswith(b"+OK")
    assert bob.lines() == b"Delivered-To: bob@example.net\r\n" + SHARED
    assert left("bob") == [names[1].decode(), left("bob")[1]]


WORDS = b"RETR TOP LIST UIDL DELE STAT RSET NOOP CAPA LANG USER PASS AUTH STLS UTF8 retr".split()
ARGUMENTS = (
    b"0", b"1", b"2", b"3", b"-1", b"1 0", b"1 99999999999999999999", b"2 1", b"9223372036854775808", b"secret.3", b"bob",
    b"bob's secret", b"../bob/1", b"1\x00", b"1 OR 1=1", b"PLAIN AGJvYgBib2IncyBzZWNyZXQ=", b"", b"'; --", b"%s%n", b"*",
)  # fmt: skip


def nonsense(chance):
    """A few command lines, some of which are right; the last one ends the session."""
    lines = [
        b" ".join((chance.choice(WORDS), chance.choice(ARGUMENTS))).rstrip() for _ in range(chance.randrange(1, 18))
    ]
    lines += [chance.randbytes(chance.randrange(40)).replace(b"\n", b"") for _ in range(chance.randrange(2))]
    chance.shuffle(lines)
    return b"".join(line + b"\r\n" for line in [*lines, b"QUIT"])


@pytest.mark.parametrize("seed", range(3))
def test_whatever_alice_sends_she_never_sees_what_is_bobs(serve, connect, both, left, seed):
    server, chance = serve(), random.Random(seed)
    bobs = left("bob")
    for _ in range(ROUNDS):
        client = connect(server.port, greeted=False)
        log_in(client, b"alice")
        sent = nonsense(chance)
        client.send(sent)
        got = client.rest()
        assert SECRET not in got, sent
        assert b"bob@example.net" not in got, sent
        assert not any(name.encode() in got for name in bobs), sent
        assert got.startswith((b"+OK", b"-ERR")), sent
        assert left("bob") == bobs, sent
        client.close()

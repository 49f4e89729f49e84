"""A wrong password is answered in the same words and the same time whether its user is there."""

import random
import time

from gateway import accounts
from gateway.stages import Logins
from tests import cheap_passwords
from tests.statistics import p_value

EACH = 150
FREE = Logins(delay=0.0, free_per_user=10**6, free_per_peer=10**6)


def test_pop3_does_not_tell_by_its_time_who_is_here(serve, connect, store, monkeypatch):
    cheap_passwords.use(monkeypatch)
    with store.begin() as conn:
        accounts.add(conn, "alice", accounts.hash_password("secret"), ["alice@example.net"])
    checker = accounts.Authenticator(store, threads=1)
    port = serve(passwords=checker, logins=FREE).port

    def seconds(user):
        client = connect(port)
        assert client.ask(b"USER " + user) == b"+OK now the password\r\n"
        began = time.perf_counter()
        assert client.ask(b"PASS wrong") == b"-ERR [AUTH] user name or password is wrong\r\n"
        taken = time.perf_counter() - began
        client.close()
        return taken

    def looks_alike():
        users = random.sample([b"alice", b"nobod"] * EACH, 2 * EACH)
        taken = [(user, seconds(user)) for user in users]
        known, unknown = ([one for user, one in taken if user == name] for name in (b"alice", b"nobod"))
        return p_value(known, unknown) > 0.01

    assert any(looks_alike() for _ in range(3))  # chance fails one of a hundred
    checker.close()

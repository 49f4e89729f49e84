"""The service as clients, other sessions and mishaps meet it."""

import poplib
import random
import socket
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from gateway import accounts, events
from gateway.backoff import Backoff
from gateway.model import Temporary
from gateway.pop3.limits import Gate
from gateway.stages import Logins
from gateway.state import LocalState
from gateway.store import mailbox, messages
from tests.peers.processes import wait_until

BIG = 700_000


def big_mail():
    """Longer than two chunks, with dots at the beginning of lines wherever a chunk may be cut."""
    dice = random.Random(1)
    lines = [b"Subject: big\r\n\r\n"]
    size = 0
    while size < BIG:
        line = b"." * dice.randrange(4) + b"x" * dice.randrange(70) + b"\r\n"
        lines.append(line)
        size += len(line)
    return b"".join(lines)


def whole(answer):
    _, lines, _ = answer
    return b"".join(line + b"\r\n" for line in lines)


def but(limits, **others):
    """*limits* with other values."""
    return limits.model_copy(update=others)


def log_in(client, login="alice"):
    client.user(login)
    client.pass_(f"{login}'s secret")
    return client


# ---- With a client that nobody here wrote -------------------------------------------------------------------------


def test_poplib_over_stls_gets_what_was_stored(serve, put, wire, client_tls, left):
    body = big_mail()
    put(body)
    client = poplib.POP3("127.0.0.1", serve(cleartext=False).port, timeout=10)
    assert "STLS" in client.capa()
    client.stls(client_tls)
    log_in(client)
    assert whole(client.retr(1)) == wire(body)
    assert client.list(1) == b"+OK 1 %d" % len(wire(body))
    client.dele(1)
    client.quit()
    assert left() == []


def test_poplib_over_implicit_tls(serve, filled, wire, mails, client_tls):
    client = log_in(poplib.POP3_SSL("127.0.0.1", serve("implicit").port, timeout=10, context=client_tls))
    assert "STLS" not in client.capa()
    for number, body in enumerate(mails, 1):
        assert whole(client.retr(number)) == wire(body)
    assert whole(client.top(3, 1)) == wire(mails[2]).partition(b"line 2")[0]
    client.quit()


def test_a_mail_without_a_last_line_end_is_ended_for_the_wire(serve, put, wire):
    put(b"Subject: x\r\n\r\nno end")
    client = log_in(poplib.POP3("127.0.0.1", serve().port, timeout=10))
    assert whole(client.retr(1)) == wire(b"Subject: x\r\n\r\nno end\r\n")
    client.quit()


def test_argon2_and_addresses_let_people_in(serve, store, put):
    with store.begin() as conn:
        accounts.add(conn, "alice", accounts.hash_password("alice's secret"), ["alice@example.net"])
    put(b"Subject: x\r\n\r\nbody\r\n")
    checker = accounts.Authenticator(store, threads=1)
    port = serve(passwords=checker).port
    client = log_in(poplib.POP3("127.0.0.1", port, timeout=10))
    assert client.stat()[0] == 1
    client.quit()
    client = poplib.POP3("127.0.0.1", port, timeout=10)
    client.user("Alice@Example.NET")
    client.pass_("alice's secret")
    assert client.stat()[0] == 1
    client.quit()
    checker.close()


def test_unique_ids_are_the_same_in_another_service(serve, filled):
    seen = []
    for _ in range(2):
        client = log_in(poplib.POP3("127.0.0.1", serve().port, timeout=10))
        seen.append(client.uidl()[1])
        client.quit()
    assert seen[0] == seen[1] == [b"1 first.1", b"2 second.2", b"3 third.3"]


# ---- The maildrop belongs to one session --------------------------------------------------------------------------


def test_a_second_session_waits_until_the_first_has_quit(serve, connect, filled):
    port = serve().port
    first, second = connect(port, login="alice"), connect(port)
    second.ask(b"USER alice")
    assert second.ask(b"PASS alice's secret").startswith(b"-ERR [IN-USE] ")
    assert first.ask(b"QUIT") == b"+OK bye\r\n"
    second.ask(b"USER alice")
    assert second.ask(b"PASS alice's secret").startswith(b"+OK")


def test_a_session_of_another_process_has_the_maildrop_too(serve, connect, filled, store):
    with store.begin() as conn:
        assert mailbox.lock(conn, "alice", "another process", time.time(), 60)
    client = connect(serve().port)
    client.ask(b"USER alice")
    assert client.ask(b"PASS alice's secret").startswith(b"-ERR [IN-USE] ")
    client.ask(b"USER bob")
    assert client.ask(b"PASS bob's secret").startswith(b"+OK")


def test_a_broken_connection_gives_the_maildrop_back_and_deletes_nothing(serve, connect, filled, left, store):
    first = connect(serve().port, login="alice")
    first.ask(b"DELE 1")
    first.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close with a reset
    first.close()
    wait_until(lambda: is_free(store, "alice"), 5, "the maildrop to be free")
    assert len(left()) == 3


def is_free(store, account):
    with store.begin() as conn:
        got = mailbox.lock(conn, account, "test", time.time(), 60)
        mailbox.unlock(conn, account, "test")
    return got


def test_a_lease_is_renewed_while_the_session_lives(serve, connect, filled, store, quick):
    client = connect(serve(limits=but(quick, lease=0.3)).port, login="alice")
    ends = time.monotonic() + 0.7
    while time.monotonic() < ends:
        assert not is_free(store, "alice")
        time.sleep(0.05)
    assert client.ask(b"NOOP") == b"+OK\r\n"


def test_a_session_that_has_lost_its_lease_ends_and_deletes_nothing(serve, connect, filled, store, left, quick):
    client = connect(serve(limits=but(quick, lease=0.3)).port, login="alice")
    client.ask(b"DELE 1")
    take_over(store)
    assert client.rest() == b""
    assert len(left()) == 3


def test_quit_after_the_lease_was_lost_says_that_nothing_was_deleted(serve, connect, filled, store, left):
    client = connect(serve().port, login="alice")
    client.ask(b"DELE 1")
    take_over(store)
    assert client.ask(b"QUIT").startswith(b"-ERR [SYS/TEMP] ")
    assert len(left()) == 3


def take_over(store):
    with store.begin() as conn:
        assert mailbox.lock(conn, "alice", "thief", time.time() + 100, 60)


def test_an_account_that_is_removed_ends_its_session(serve, connect, filled, store, quick):
    client = connect(serve(limits=but(quick, lease=0.3)).port, login="alice")
    with store.begin() as conn:
        mailbox.clear(conn, "alice", by="test")
    assert client.rest() == b""


SERVICE = """
import asyncio, sys
from pathlib import Path
from gateway.config import Pop3Listener
from gateway.backoff import Backoff
from gateway.pop3.limits import Gate
from gateway.stages import Logins, Pop3
from gateway.state import LocalState
from gateway.pop3.server import server_factory
from gateway.store.engine import Store

class Anybody:
    async def identify(self, login, password):
        return login

async def main():
    listener = Pop3Listener(name="pop3", address="127.0.0.1:0", tls="none", cleartext_login=True)
    gate = Gate(Pop3(lease=1.0), Backoff(LocalState(Path(sys.argv[2])), Logins))
    service = server_factory(listener, Store(sys.argv[1]), Anybody(), None, gate)
    server = await asyncio.get_running_loop().create_server(service, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


def test_a_killed_service_has_deleted_nothing_and_frees_the_maildrop_in_time(
    serve, connect, filled, store, left, tmp_path
):
    url = store.engine.url.render_as_string()
    with subprocess.Popen(
        [sys.executable, "-c", SERVICE, url, str(tmp_path / "state.db")], stdout=subprocess.PIPE
    ) as other:
        client = connect(int(other.stdout.readline()), login="alice")
        client.ask(b"DELE 1")
        assert not is_free(store, "alice")
        other.kill()
    assert client.rest() == b""
    assert len(left()) == 3
    wait_until(lambda: is_free(store, "alice"), 5, "the lease to run out")


# ---- Time and numbers have bounds ---------------------------------------------------------------------------------


def test_silence_ends_a_session_without_a_word_and_without_deleting(serve, connect, filled, left, quick):
    client = connect(serve(limits=but(quick, idle_timeout=0.1)).port, login="alice")
    client.ask(b"DELE 1")
    assert client.rest() == b""
    assert len(left()) == 3


def test_the_login_has_one_deadline_that_talk_does_not_prolong(serve, connect, quick):
    client = connect(serve(limits=but(quick, login_timeout=0.2)).port)
    assert_hung_up(lambda: client.ask(b"CAPA"))


def test_the_login_ends_in_time_for_a_client_that_never_pauses(serve, connect, quick):
    client = connect(serve(limits=but(quick, login_timeout=0.2)).port)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(client.rest)
        assert_hung_up(lambda: client.send(b"CAPA\r\n" * 1000) is None)


def test_a_client_that_leaves_is_not_waited_for(serve, connect, quick):
    server = serve(logins=Logins(delay=30.0))
    client = connect(server.port)
    client.ask(b"USER alice")
    client.send(b"PASS wrong\r\n")
    wait_until(lambda: server.passwords.asked, 5, "the password to be asked for")
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    wait_until(lambda: not server.service._sessions, 5, "the session to end")


def test_a_line_that_grows_octet_by_octet_does_not_prolong_anything(serve, connect, quick):
    client = connect(serve(limits=but(quick, login_timeout=0.2)).port)

    def one_more():
        client.send(b"x")
        time.sleep(0.01)
        return True

    assert_hung_up(one_more)


def assert_hung_up(act):
    """The service hangs up within three seconds although the client goes on and on."""
    ends = time.monotonic() + 3
    with suppress(BrokenPipeError, ConnectionResetError):
        while act():
            assert time.monotonic() < ends


def test_a_handshake_that_does_not_come_ends_the_session(serve, connect, quick):
    client = connect(serve(limits=but(quick, handshake_timeout=0.1)).port)
    assert client.ask(b"STLS").startswith(b"+OK")
    assert client.rest() == b""


def test_what_comes_in_the_clear_after_stls_is_no_command(serve, connect, filled):
    server = serve()
    client = connect(server.port)
    assert client.ask(b"STLS").startswith(b"+OK")
    client.send(b"USER alice\r\nPASS alice's secret\r\n")
    assert b"+OK" not in client.rest()
    assert server.passwords.asked == 0


def test_a_client_that_does_not_read_is_hung_up_on(serve, connect, put, quick):
    put(b"Subject: x\r\n\r\n" + (b"x" * 998 + b"\r\n") * 8000)
    server = serve(limits=but(quick, write_timeout=0.2))
    client = connect(server.port, login="alice")
    client.send(b"RETR 1\r\n")
    wait_until(lambda: not server.service._sessions, 5, "the session to end")
    assert not client.rest().endswith(b"\r\n.\r\n")


def test_a_client_that_only_sends_is_held_back(serve, connect, filled):
    server = serve()
    client = connect(server.port, login="alice")
    client.socket.settimeout(0.3)
    with pytest.raises(TimeoutError):
        client.send(b"LIST\r\n" * 4_000_000)
    (session,) = server.service._sessions.values()
    assert len(session._connection._lines) < 1_000_000
    assert len(session._connection._out) < 200_000


def test_one_address_has_so_many_sessions(serve, connect, quick):
    server = serve(limits=but(quick, connections_per_peer=2))
    first, _ = connect(server.port), connect(server.port)
    third = connect(server.port, greeted=False)
    assert third.rest() == b"-ERR [SYS/TEMP] too many sessions, try again later\r\n"
    first.ask(b"QUIT")
    wait_until(lambda: len(server.service._sessions) < 2, 5, "the session to end")
    connect(server.port)


def test_one_network_has_so_many_sessions(serve, connect, quick):
    server = serve(limits=but(quick, connections_per_network=1))
    connect(server.port)
    assert connect(server.port, greeted=False).rest().startswith(b"-ERR [SYS/TEMP] too many sessions")


def test_who_does_not_shake_hands_is_counted_and_let_go(serve, connect, quick):
    server = serve("implicit", limits=but(quick, connections=1, handshake_timeout=0.2))
    first = connect(server.port, greeted=False)
    wait_until(lambda: server.service.gate.lobby.crowd.size == 1, 5, "the first to be counted")
    assert connect(server.port, greeted=False).rest() == b""
    assert first.rest() == b""
    wait_until(lambda: not server.service.gate.lobby.crowd.size, 5, "the first to be let go")


@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01\x02\0\x01\0", b"GET / HTTP/1.0\r\n\r\n"])
def test_who_leaves_during_the_handshake_no_longer_counts(serve, connect, begun):
    server = serve()
    client = connect(server.port)
    assert client.ask(b"STLS").startswith(b"+OK")
    client.send(begun)
    client.close()
    wait_until(lambda: not server.service.gate.lobby.crowd.size, 5, "the client to be let go")


def test_behind_a_proxy_the_peer_is_who_the_proxy_says(serve, connect):
    server = serve(proxies=["127.0.0.0/8"], cleartext=True)
    client = connect(server.port, greeted=False)
    client.send(b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 110\r\nUSER alice\r\n")
    assert client.line().startswith(b"+OK Gatepost")
    assert client.line() == b"-ERR start TLS first\r\n"  # only loopback may log in without it
    (session,) = server.service._sessions.values()
    assert str(session.peer) == "192.0.2.1"


def test_who_is_no_proxy_is_turned_away(serve, connect):
    client = connect(serve(proxies=["192.0.2.0/24"]).port, greeted=False)
    assert client.rest() == b"-ERR [SYS/PERM] your network may not use this service\r\n"


def test_listeners_share_a_gate(serve, connect, quick, tmp_path):
    gate = Gate(but(quick, connections=1), Backoff(LocalState(tmp_path / "state.db"), Logins))
    one, other = serve(gate=gate), serve(gate=gate)
    connect(one.port)
    assert connect(other.port, greeted=False).rest().startswith(b"-ERR [SYS/TEMP] ")


def test_a_wrong_password_takes_the_same_time_whoever_it_is_for(serve, connect, quick):
    port = serve(logins=Logins(delay=0.2)).port
    times = []
    for user in (b"alice", b"nobody"):
        client = connect(port)
        client.ask(b"USER " + user)
        began = time.monotonic()
        assert client.ask(b"PASS wrong").startswith(b"-ERR [AUTH] ")
        times.append(time.monotonic() - began)
    assert all(0.2 <= taken < 0.6 for taken in times)


def test_after_some_guesses_no_password_is_looked_at(serve, connect, monkeypatch):
    told = []
    monkeypatch.setattr(events, "say", lambda event, **_: told.append(event))
    server = serve(logins=Logins(delay=0.0, free_per_user=1))
    client = connect(server.port)
    for password, code in ((b"a", b"[AUTH]"), (b"alice's secret", b"[SYS/TEMP]"), (b"alice's secret", b"[SYS/TEMP]")):
        client.ask(b"USER alice")
        assert client.ask(b"PASS " + password).startswith(b"-ERR " + code)
    assert server.passwords.asked == 1
    assert client.rest() == b""
    assert told == ["pop3-login-failed", "pop3-login-held-back", "pop3-login-held-back"]


def test_many_sessions_at_once_each_get_their_mail(serve, put, wire, quick):
    bodies = {f"user{n}": b"Subject: x\r\n\r\nfor %d\r\n" % n for n in range(12)}
    for name, body in bodies.items():
        put(body, name, name)

    class Anybody:
        async def identify(self, login, _password):
            return login

    port = serve(limits=but(quick, connections_per_peer=50), passwords=Anybody()).port

    def fetch(name):
        client = log_in(poplib.POP3("127.0.0.1", port, timeout=10), name)
        got = [whole(client.retr(1)) for _ in range(20)]
        client.quit()
        return got

    with ThreadPoolExecutor(6) as pool:
        for name, got in zip(bodies, pool.map(fetch, bodies), strict=True):
            assert got == [wire(bodies[name])] * 20


# ---- The store and its moods --------------------------------------------------------------------------------------


class Moody:
    """The store, until `mood` says what happens instead to reads or writes."""

    def __init__(self, store):
        self._store = store
        self.reads = self.writes = None

    async def read(self, work):
        if self.reads:
            raise self.reads
        return await self._store.read(work)

    async def write(self, work):
        if self.writes:
            raise self.writes
        return await self._store.write(work)


@pytest.fixture
def moody(store):
    return Moody(store)


def test_passwords_that_cannot_be_checked_now(serve, connect):
    server = serve()
    server.passwords.error = Temporary("a stranger must not see this")
    client = connect(server.port)
    client.ask(b"USER alice")
    assert client.ask(b"PASS x") == b"-ERR [SYS/TEMP] not possible now, try again later\r\n"


def test_a_listing_that_fails_gives_the_maildrop_back(serve, connect, filled, moody, store):
    server = serve(kept=moody)
    moody.reads = Temporary("x")
    client = connect(server.port)
    client.ask(b"USER alice")
    assert client.ask(b"PASS alice's secret").startswith(b"-ERR [SYS/TEMP] ")
    assert is_free(store, "alice")


def test_a_message_that_cannot_be_read_now_leaves_the_session_alive(serve, connect, filled, moody):
    client = connect(serve(kept=moody).port, login="alice")
    moody.reads = Temporary("x")
    assert client.ask(b"RETR 1").startswith(b"-ERR [SYS/TEMP] ")
    moody.reads = None
    assert client.ask(b"RETR 1").startswith(b"+OK")


def test_a_message_that_breaks_off_is_not_made_to_look_whole(serve, connect, put, store):
    put(big_mail())
    with store.begin() as conn:
        conn.exec_driver_sql("DELETE FROM chunk WHERE n = 2")
    client = connect(serve().port, login="alice")
    client.send(b"RETR 1\r\n")
    assert not client.rest().endswith(b"\r\n.\r\n")


def test_a_message_whose_octets_are_gone_is_refused(serve, connect, filled, store):
    client = connect(serve().port, login="alice")
    with store.begin() as conn:
        conn.exec_driver_sql("UPDATE message SET chunks = 0")
    assert client.ask(b"RETR 1").startswith(b"-ERR [SYS/TEMP] ")


def test_a_deletion_that_fails_is_admitted(serve, connect, filled, left, moody):
    client = connect(serve(kept=moody).port, login="alice")
    client.ask(b"DELE 1")
    moody.writes = Temporary("x")
    assert client.ask(b"QUIT").startswith(b"-ERR [SYS/TEMP] ")
    assert len(left()) == 3


def test_a_fault_of_ours_ends_one_session_and_shows_nothing(serve, connect, filled, moody):
    server = serve(kept=moody)
    client = connect(server.port, login="alice")
    moody.reads = RuntimeError("secret")
    client.send(b"RETR 1\r\n")
    assert client.rest() == b""
    moody.reads = None
    assert connect(server.port).ask(b"QUIT").startswith(b"+OK")


def test_deleted_mail_can_be_forgotten(serve, connect, filled, store):
    client = connect(serve().port, login="alice")
    client.send(b"DELE 1\r\nDELE 2\r\nDELE 3\r\nQUIT\r\n")
    assert client.rest().count(b"+OK") == 4
    with store.begin() as conn:
        messages.sweep(conn, time.time(), 1e12)
    with store.reading() as conn:
        assert messages.chunk_count(conn, "first") == 0
        assert messages.chunk_count(conn, "his") == 1


# ---- The end ------------------------------------------------------------------------------------------------------


def test_a_shutdown_ends_idle_sessions_and_deletes_nothing(serve, connect, filled, left, store):
    server = serve()
    client = connect(server.port, login="alice")
    client.ask(b"DELE 1")
    server.run(server.service.drain(2))
    assert client.rest() == b"-ERR [SYS/TEMP] the service is closing, try again later\r\n"
    assert len(left()) == 3
    assert is_free(store, "alice")


def test_a_shutdown_does_not_wait_for_a_client_that_does_not_read(serve, connect, put, quick):
    put(b"Subject: x\r\n\r\n" + (b"x" * 998 + b"\r\n") * 8000)
    server = serve(limits=but(quick, write_timeout=60.0))
    client = connect(server.port, login="alice")
    client.send(b"RETR 1\r\n")
    began = time.monotonic()
    time.sleep(0.1)
    server.run(server.service.drain(0.2))
    assert time.monotonic() - began < 3
    assert not server.service._sessions


def test_a_shutdown_does_not_wait_for_an_idle_client_over_tls(serve, connect, client_tls, filled, quick):
    server = serve(limits=but(quick, linger=60.0))
    client = connect(server.port)
    client.ask(b"STLS")
    client.start_tls(client_tls)
    began = time.monotonic()
    server.run(server.service.drain(20))
    assert time.monotonic() - began < 5
    assert client.line() == b"-ERR [SYS/TEMP] the service is closing, try again later\r\n"


def test_tls_that_fails_shows_nothing(serve, connect, certificate):
    stranger = ssl.create_default_context()
    client = connect(serve().port)
    client.ask(b"STLS")
    with pytest.raises(ssl.SSLCertVerificationError):
        client.start_tls(stranger)


def test_half_a_close_still_gets_its_answers(serve, connect, filled, left):
    client = connect(serve().port, login="alice")
    client.send(b"DELE 1\r\nQUIT\r\n")
    client.socket.shutdown(socket.SHUT_WR)
    assert client.rest() == b"+OK marked for deletion\r\n+OK bye\r\n"
    assert len(left()) == 2

"""Accounts: names in either case, addresses that belong to one, and passwords that tell nothing."""

import asyncio
import statistics
import threading
import time
from io import BytesIO
from ipaddress import ip_address

import pytest
from argon2 import PasswordHasher

from gateway import accounts
from gateway.accounts import Authenticator
from gateway.model import Envelope, Permanent, Recipient, Session, State, Temporary, new_id
from gateway.store import mailbox, messages, queue
from gateway.store.engine import Store

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture
def store(tmp_path):
    store = Store(f"sqlite:///{tmp_path / 'gatepost.db'}")
    store.migrate()
    with store.begin() as conn:
        accounts.add(conn, "Alice", accounts.hash_password("wonderland"), ["Alice@Demo.Example", "a@demo.example"])
    yield store
    store.close()


@pytest.fixture
def authenticator(store):
    authenticator = Authenticator(store)
    yield authenticator
    authenticator.close()


def ask(store, function, *words):
    with store.begin() as conn:
        return function(conn, *words)


@pytest.mark.parametrize(
    ("address", "owner"),
    [
        ("alice@demo.example", "alice"),
        ("ALICE@DEMO.EXAMPLE", "alice"),
        ("alice+lists@demo.example", "alice"),
        ("alice+lists+more@demo.example", "alice"),
        ("a@demo.example", "alice"),
        ("alice", ""),
        ("alice@other.example", ""),
        ("alicia@demo.example", ""),
        ("+lists@demo.example", ""),
        ("@demo.example", ""),
        ("alice@", ""),
        ("alice%@demo.example", ""),
        ("alice@demo.example" + "x" * 300, ""),
        ("al\x00ice@demo.example", ""),
        ("alice@\ud800.example", ""),
        ("", ""),
    ],
)
def test_whose_an_address_is(store, address, owner):
    assert ask(store, accounts.mailbox_of, address) == owner


def test_an_address_with_a_plus_of_its_own_is_found_first(store):
    ask(store, accounts.add, "sales", "hash", ["alice+sales@demo.example"])
    assert ask(store, accounts.mailbox_of, "alice+sales@demo.example") == "sales"
    assert ask(store, accounts.mailbox_of, "alice+other@demo.example") == "alice"


def test_addresses_are_compared_composed_and_domains_in_a_labels(store):
    ask(store, accounts.add, "jose", "hash", ["jose\u0301@b\u00fccher.example"])
    assert ask(store, accounts.addresses_of, "jose") == ["jos\u00e9@xn--bcher-kva.example"]
    for address in ("JOS\u00c9@B\u00dcCHER.example", "jos\u00e9@xn--bcher-kva.example"):
        assert ask(store, accounts.mailbox_of, address) == "jose"


def test_accounts_are_listed_with_their_addresses(store):
    ask(store, accounts.add, "bob", "hash", [])
    listed = ask(store, accounts.list)
    assert [(each.login, each.addresses) for each in listed] == [
        ("alice", ("a@demo.example", "alice@demo.example")),
        ("bob", ()),
    ]
    assert abs(listed[0].created_at - time.time()) < 60
    assert ask(store, accounts.addresses_of, "ALICE") == ["a@demo.example", "alice@demo.example"]


@pytest.mark.parametrize(
    ("login", "address", "words"),
    [
        ("ALICE", "new@demo.example", "there is an account alice"),
        ("bob", "ALICE@demo.example", "belongs to alice"),
        ("bob", "bob", "written like"),
        ("bob", "bo b@demo.example", "written like"),
        ("", "bob@demo.example", "1 to 254"),
        ("b\x00b", "bob@demo.example", "1 to 254"),
        ("b" * 255, "bob@demo.example", "1 to 254"),
        ("\u00fc" * 128, "bob@demo.example", "1 to 254"),
    ],
)
def test_what_cannot_be_an_account_leaves_nothing(store, login, address, words):
    with pytest.raises(Permanent, match=words):
        ask(store, accounts.add, login, "hash", [address])
    assert [each.login for each in ask(store, accounts.list)] == ["alice"]


def test_a_removed_account_leaves_no_mail_to_its_successor(store):

    draft = messages.Draft(new_id(), 1.0, Session(ip_address("::1")), Envelope("x@y.example"), b"", BytesIO(b"secret"))
    row = messages.Row(Recipient("alice@demo.example"), State.MAILBOX, mailbox="alice")
    ask(store, messages.accept, draft, [row])
    assert ask(store, accounts.remove, "ALICE")
    assert not ask(store, accounts.remove, "alice")
    assert ask(store, accounts.mailbox_of, "alice@demo.example") == ""
    assert ask(store, queue.counts)[State.DROPPED] == 1
    late = messages.Draft(new_id(), 1.0, Session(ip_address("::1")), Envelope("x@y.example"), b"", BytesIO(b"late"))
    ask(store, messages.accept, late, [row])
    ask(store, accounts.add, "alice", "hash", ["alice@demo.example"])
    assert ask(store, mailbox.listing, "alice") == []


def check(authenticator, login, password):
    return bool(asyncio.run(authenticator.identify(login, password)))


@pytest.mark.parametrize(
    ("login", "password", "right"),
    [
        ("alice", "wonderland", True),
        ("ALICE", "wonderland", True),
        ("a@demo.example", "wonderland", True),
        ("alice", "Wonderland", False),
        ("alice", "wonderland ", False),
        ("alice", "", False),
        ("alice", "wonder\x00land", False),
        ("alice", "\ud800", False),
        ("alice", "w" * 513, False),
        ("alice+x@demo.example", "wonderland", False),
        ("nobody", "wonderland", False),
        ("", "wonderland", False),
        ("al\nice", "wonderland", False),
    ],
)
def test_who_knows_the_password_gets_in(authenticator, login, password, right):
    assert check(authenticator, login, password) is right


def test_identify_names_the_account(authenticator):
    for login in ("Alice", "A@DEMO.example", "alice@demo.example"):
        assert asyncio.run(authenticator.identify(login, "wonderland")) == "alice"
    assert asyncio.run(authenticator.identify("alice", "wrong")) == ""


def test_a_new_password_is_the_only_one(store, authenticator):
    assert ask(store, accounts.set_password, "ALICE", accounts.hash_password("looking glass"))
    assert not ask(store, accounts.set_password, "nobody", "hash")
    assert not check(authenticator, "alice", "wonderland")
    assert check(authenticator, "alice", "looking\u00a0glass")  # RFC 8265 4.2.2: every space alike


@pytest.mark.parametrize("password", ["", "a\x00b", "a\nb", "x" * 513, "\u00fc" * 257, "\ud800", "\u0378"])
def test_what_cannot_be_a_password_is_not_hashed(password):
    with pytest.raises(ValueError, match="1 to 512"):
        accounts.hash_password(password)


def test_passwords_are_compared_composed():
    assert accounts.password_text("cafe\u0301") == accounts.password_text("caf\u00e9") == "caf\u00e9"
    assert accounts.password_text("x" * 512) == "x" * 512


def test_a_hash_with_old_parameters_is_renewed_at_login(store, authenticator):
    ask(store, accounts.add, "old", CHEAP.hash("secret"), [])
    before = ask(store, accounts._password_hash, "old")
    assert not check(authenticator, "old", "wrong")
    assert ask(store, accounts._password_hash, "old") == before
    assert check(authenticator, "old", "secret")
    assert ask(store, accounts._password_hash, "old").startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert check(authenticator, "old", "secret")


def test_renewing_never_overwrites_a_password_changed_meanwhile(store):
    ask(store, accounts._replace_hash, "alice", "what it was", "fresh")
    assert ask(store, accounts._password_hash, "alice").startswith("$argon2id$")


@pytest.mark.parametrize("stored", ["", "x", "$argon2id$broken", "$argon2id$v=19$m=65536,t=3,p=4$AAAA$AAAA"])
def test_a_broken_hash_lets_nobody_in(store, authenticator, stored):
    ask(store, accounts.set_password, "alice", stored)
    assert not check(authenticator, "alice", "wonderland")


def test_names_that_nobody_has_take_as_long(authenticator):
    """The same work: the same parameters are paid for, and the CPU times of all threads lie close together."""

    def seconds(login):
        began = time.process_time()
        check(authenticator, login, "wrong")
        return time.process_time() - began

    seconds("alice")
    known, unknown = zip(*((seconds("alice"), seconds("nobody")) for _ in range(5)), strict=True)
    assert 0.5 < statistics.median(known) / statistics.median(unknown) < 2
    assert not PasswordHasher().check_needs_rehash(authenticator._nobody)


def test_when_too_many_wait_it_is_temporary_and_passes(store, monkeypatch):
    held = threading.Event()
    monkeypatch.setattr(accounts, "_matches", lambda *_: held.wait(10))
    authenticator = Authenticator(store, threads=1, waiting=2)

    async def run():
        asked = [asyncio.ensure_future(authenticator.identify("alice", "x")) for _ in range(4)]
        (refused,), waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        with pytest.raises(Temporary, match="too many"):
            refused.result()
        held.set()
        assert await asyncio.gather(*waiting) == ["alice"] * 3
        assert await authenticator.identify("alice", "x")

    asyncio.run(run())
    authenticator.close()


def test_who_gives_up_waiting_makes_room(store, monkeypatch):
    begun, held = threading.Event(), threading.Event()
    monkeypatch.setattr(accounts, "_matches", lambda *_: begun.set() or held.wait(10))
    authenticator = Authenticator(store, threads=1, waiting=1)

    async def run():
        first = asyncio.ensure_future(authenticator.identify("alice", "x"))
        assert await asyncio.to_thread(begun.wait, 10)
        second = asyncio.ensure_future(authenticator.identify("alice", "x"))
        await asyncio.sleep(0.1)
        second.cancel()
        await asyncio.wait([second])
        third = asyncio.ensure_future(authenticator.identify("alice", "x"))
        await asyncio.sleep(0.05)
        held.set()
        assert await first
        assert await third

    asyncio.run(run())
    authenticator.close()


def test_after_the_end_no_password_is_checked(store):
    authenticator = Authenticator(store)
    authenticator.close()
    with pytest.raises(Temporary):
        check(authenticator, "alice", "wonderland")


def test_accounts_that_stand_may_get_mail_and_one_that_is_gone_may_not(store):
    ask(store, accounts.demand, ["alice", "alice"])
    ask(store, accounts.demand, [])
    with pytest.raises(Temporary):
        ask(store, accounts.demand, ["alice", "bob"])


def test_no_more_passwords_are_checked_at_once_than_there_are_threads(store, monkeypatch):
    lock, now, most = threading.Lock(), [], []

    def check(*_):
        with lock:
            now.append(1)
            most.append(len(now))
        time.sleep(0.005)
        with lock:
            now.pop()
        return False

    monkeypatch.setattr(accounts, "_matches", check)
    authenticator = Authenticator(store, threads=2)

    async def run():
        return await asyncio.gather(*(authenticator.identify(f"user{n}", "x") for n in range(40)))

    assert asyncio.run(run()) == [""] * 40
    assert max(most) == 2
    authenticator.close()

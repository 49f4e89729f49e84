"""The statements of `gateway.accounts` do on each database what they do on the other."""

import pytest

from gateway import accounts
from gateway.model import Permanent, State

HASH = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA"


@pytest.fixture
def alice(change):
    change(accounts.add, "Alice", HASH, ["Alice@Demo.Example", "a@demo.example"])
    return "alice"


def test_names_and_addresses_are_found_in_either_case(alice, look):
    assert look(accounts.mailbox_of, "ALICE@demo.EXAMPLE") == alice
    assert look(accounts.mailbox_of, "a+news@demo.example") == alice
    assert look(accounts.mailbox_of, "b@demo.example") == ""
    assert look(accounts.addresses_of, "aLiCe") == ["a@demo.example", "alice@demo.example"]
    assert [one.login for one in look(accounts.list)] == [alice]


def test_names_are_the_same_only_where_their_octets_are(change, look):
    """Not where a language says so."""
    names = {"ss", "ß", "u", "ü", "日本", "日本人"}
    for name in names:
        change(accounts.add, name, HASH, [])
    assert {one.login for one in look(accounts.list)} == names


def test_what_is_taken_is_told_and_nothing_is_half_done(alice, change, look):
    with pytest.raises(Permanent, match="belongs to alice"):
        change(accounts.add, "bob", HASH, ["bob@demo.example", "a@demo.example"])
    with pytest.raises(Permanent, match="already"):
        change(accounts.add, "ALICE", HASH, [])
    assert [one.login for one in look(accounts.list)] == [alice]
    assert look(accounts.mailbox_of, "bob@demo.example") == ""


def test_an_account_goes_with_its_addresses_and_mail(alice, change, look, put):
    put(State.MAILBOX, "a@demo.example", mailbox=alice)
    assert change(accounts.set_password, "Alice", "new")
    assert change(accounts.remove, "ALICE")
    assert not change(accounts.remove, "alice")
    assert look(accounts.list) == []
    assert look(accounts.mailbox_of, "a@demo.example") == ""
    change(accounts.add, "carl", HASH, ["a@demo.example"])
    assert look(accounts.mailbox_of, "a@demo.example") == "carl"

"""The first start makes what is missing, once; and says what to type, as it can be typed."""

import re
import shlex
import stat

import pytest

from gateway import accounts, config, roles, welcome
from gateway.store.engine import Store


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return config.load(None)


@pytest.fixture
def store(made):
    roles.make_folders(made)
    opened = Store(made.store_url)
    yield opened
    opened.close()


def test_the_first_start_makes_mailboxes_whose_passwords_are_right(made, store):
    passwords = welcome.prepare(made, store)
    assert set(passwords) == {"alice@demo.example", "bob@demo.example"}
    with store.reading() as conn:
        assert {one.login for one in accounts.list(conn)} == set(passwords)
        assert accounts.mailbox_of(conn, "alice@demo.example") == "alice@demo.example"


def test_a_later_start_makes_nothing_anew(made, store):
    welcome.prepare(made, store)
    with store.begin() as conn:
        accounts.remove(conn, "bob@demo.example")
    certificate = (made.server.data / "tls" / "certificate.pem").read_bytes()
    assert welcome.prepare(made, store) == {}
    assert (made.server.data / "tls" / "certificate.pem").read_bytes() == certificate


def test_without_a_demo_domain_no_mailbox_is_made(made, store):
    assert welcome.prepare(made.model_copy(update={"demo": config.Demo(mailboxes=("alice",))}), store) == {}


def test_what_is_made_is_for_nobody_else(made, store):
    welcome.prepare(made, store)
    for path in (made.server.data, made.run_dir, made.server.data / "tls"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for path in (made.server.data / "gatepost.db", made.server.data / "tls" / "key.pem"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_passwords_can_be_read_out_and_never_repeat():
    many = {welcome.new_password() for _ in range(200)}
    assert len(many) == 200
    assert all(re.fullmatch(r"([a-z2-9]{4}-){3}[a-z2-9]{4}", one) for one in many)
    assert not set("".join(many)) & set("il01o")


def test_the_greeting_names_every_port_and_commands_that_can_be_copied(made, capsys):
    welcome.greet(made, "no scanner here")
    out = capsys.readouterr().out
    for listener in (*made.listeners, *made.pop3):
        assert listener.address in out
    assert "no scanner here" in out
    typed = [line.strip().split("  # ")[0] for line in out.splitlines() if "  # " in line]
    assert {shlex.split(one)[0] for one in typed} == {"gatepost", "swaks", "curl"}
    assert {"send", "track", "explain", "status"} <= {shlex.split(one)[1] for one in typed}

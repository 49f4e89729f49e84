"""The whole gateway with its store on PostgreSQL: the same way of a mail, and what is said while the database is away."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import make_url

from tests.e2e import gateway as gateways
from tests.e2e import mails
from tests.e2e.gateway import Gateway, id_in, started, taken, transaction
from tests.peers import smtp_sink
from tests.peers.certificates import Certificate
from tests.peers.dns import Dns
from tests.peers.postgres import Postgres

pytestmark = pytest.mark.e2e

OUTSIDE, ALICE = "ann@out.example", "alice@in.example"
PATIENCE = 1.0


@pytest.fixture(scope="module")
def url(database: Postgres) -> Iterator[str]:
    """An empty database."""
    name = database.create()
    yield database.url(name)
    database.drop(name)


@pytest.fixture(scope="module")
def own(certificate: Certificate, names: Dns, elsewhere: int, url: str) -> Iterator[Gateway]:
    policies = {
        "routes": gateways.routes({"slow.example": elsewhere}),
        "queue": gateways.shipped("queue", poll='"1s"', first_retries='["1s"]', retry_every='"1s"'),
        "antivirus": gateways.lenient("antivirus"),
    }
    store = f'\n[store]\nurl = "{url}"\npatience = "{PATIENCE}s"\n'
    with gateways.run(certificate, dns=names.port, policies=policies, more=store, may_fail=True) as running:
        yield running


def test_nothing_of_the_store_lies_in_the_data_folder(own: Gateway) -> None:
    assert not list((own.home / "var").glob("*.db*"))
    assert own.cli("check").code == 0


def test_mail_reaches_the_mailbox_and_is_deleted_from_it(own: Gateway) -> None:
    sent = [make() for make in mails.EVERY]
    own.put(OUTSIDE, [ALICE], *sent)
    arrived = own.fetch("alice")
    assert all(mails.same(mails.find(arrived, raw), raw) for raw in sent)
    own.empty("alice")
    assert own.fetch("alice") == []


def test_mail_is_relayed_as_it_came(own: Gateway, elsewhere: int) -> None:
    raw = mails.large(sender=ALICE, recipient="x@slow.example")
    with smtp_sink.run(port=elsewhere) as sink:
        with own.session("relay") as client:
            mail_id = taken(transaction(client, ALICE, ["x@slow.example"], raw))
        assert mails.same(sink.wait_received(1, within=20)[0].raw, raw)
        own.wait_event("attempt", id=mail_id, state="sent")
    life = own.life(mail_id)
    assert [fate["delivery"]["state"] for fate in life["deliveries"]] == ["sent"]
    assert [one["kind"] for one in life["events"]] == ["queue", "sent"]


def test_what_is_held_is_released_by_the_command(own: Gateway) -> None:
    raw = mails.attachment("tools.zip", mails.zipped("setup.exe", mails.program()), "application/zip")
    with own.session() as client:
        mail_id = id_in(transaction(client, OUTSIDE, [ALICE], raw)[1])
    (held,) = [one for one in own.cli("quarantine", "list", "--json").json if one["message_id"] == mail_id]
    assert own.cli("quarantine", "release", str(held["delivery_id"])).code == 0
    assert mails.same(mails.find(own.fetch("alice"), raw), raw)
    assert own.cli("quarantine", "release", str(held["delivery_id"])).code == 1


def test_mail_that_nobody_takes_comes_back_once(own: Gateway, elsewhere: int) -> None:
    own.empty("alice")
    with smtp_sink.run(port=elsewhere, hard=["RCPT"]), own.session("relay") as client:
        mail_id = taken(transaction(client, ALICE, ["x@slow.example"], mails.mail(sender=ALICE)))
        own.wait_event("attempt", id=mail_id, state="failed")
        own.wait_mail("alice", b"Final-Recipient: rfc822; x@slow.example")
    assert len(own.fetch("alice")) == 1


def test_an_account_is_made_changed_and_removed(own: Gateway) -> None:
    assert gateways.add_account(own.home, "carl@in.example")
    assert "carl@in.example" in {one["login"] for one in own.cli("account", "list", "--json").json}
    own.put(OUTSIDE, ["carl@in.example"], mails.mail())
    assert own.cli("account", "remove", "carl@in.example", "--yes").code == 0
    with own.session() as client:
        assert transaction(client, OUTSIDE, ["carl@in.example"], mails.mail())[0] == 550


# ---- The database is away -----------------------------------------------------------------------------------------


@contextmanager
def away(database: Postgres, url: str) -> Iterator[None]:
    """Nobody gets to the database during the block."""
    name = make_url(url).database
    assert name
    database.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", name)
    try:
        yield
    finally:
        database.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


def pids(own: Gateway) -> list[int]:
    return [own.wait_pid(role) for role in gateways.ROLES]


def store_check(own: Gateway) -> tuple[int, bool, str]:
    done = own.cli("status", "--json")
    (store,) = [one for one in done.json["checks"] if one["name"] == "store"]
    return done.code, store["ok"], store["text"]


def test_while_the_database_is_away_mail_is_put_off_and_nothing_ends(
    own: Gateway, database: Postgres, url: str, elsewhere: int
) -> None:
    before, early, late = pids(own), mails.dots(), mails.latin()
    own.put(OUTSIDE, [ALICE], early)
    with away(database, url):
        with own.session() as client:
            assert transaction(client, OUTSIDE, [ALICE], mails.mail())[0] == 451
        with own.session("relay") as client:
            assert transaction(client, ALICE, ["x@slow.example"], mails.mail())[0] == 451
        code, well, text = store_check(own)
        assert (code, well) == (1, False)
        assert "out of reach" in text
        assert own.cli("queue", "list").code == 3
        checked = own.cli("check")
        assert checked.code == 1
        assert "Traceback" not in checked.stderr
    own.put(OUTSIDE, [ALICE], late)
    arrived = own.fetch("alice")
    assert mails.same(mails.find(arrived, early), early)
    assert mails.same(mails.find(arrived, late), late)
    assert store_check(own)[1]
    assert pids(own) == before


def test_a_database_that_hangs_is_not_waited_for(own: Gateway, database: Postgres) -> None:
    before = pids(own)
    database.pause()
    try:
        with own.session() as client:
            assert transaction(client, OUTSIDE, [ALICE], mails.mail())[0] == 451
    finally:
        database.resume()
    raw = mails.dots()
    own.put(OUTSIDE, [ALICE], raw)
    assert mails.same(mails.find(own.fetch("alice"), raw), raw)
    assert pids(own) == before


def test_mail_in_data_while_the_database_goes_and_comes_back_is_taken(
    own: Gateway, database: Postgres, url: str
) -> None:
    raw = mails.dots()
    with own.session() as client:
        assert client.mail(OUTSIDE)[0] == 250
        assert client.rcpt(ALICE)[0] == 250
        with away(database, url):
            pass
        code, text = client.data(raw)
        assert code == 250, text
    assert mails.same(mails.find(own.fetch("alice"), raw), raw)


def test_a_restart_finds_everything(own: Gateway, certificate: Certificate) -> None:
    raw = mails.dots()
    own.put(OUTSIDE, [ALICE], raw)
    name = own.unique_id("alice", raw)
    own.stop()
    with started(own.home, own.ports, certificate, own.passwords, may_fail=True) as again:
        assert mails.same(mails.find(again.fetch("alice"), raw), raw)
        assert again.unique_id("alice", raw) == name

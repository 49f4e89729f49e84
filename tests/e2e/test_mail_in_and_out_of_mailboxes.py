"""Mail comes in by programs of others, lies in a mailbox, and is fetched by programs of others: not an octet changes."""

import poplib
from collections.abc import Callable
from contextlib import closing

import pytest

from tests.e2e import mails
from tests.e2e.conftest import World
from tests.e2e.gateway import Gateway, retrieve
from tests.peers import clients, postfix, processes
from tests.peers.clients import Result, Server, Tls
from tests.peers.wire import lf

pytestmark = pytest.mark.e2e

OUTSIDE, ALICE, BOB = "ann@out.example", "alice@in.example", "bob@in.example"
Send = Callable[..., Result]


def succeeded(done: Result) -> None:
    assert done.code == 0, done.output[-2000:]


@pytest.mark.parametrize("tls", [Tls.NONE, Tls.UPGRADE])
@pytest.mark.parametrize("send", [clients.swaks, clients.curl_send, clients.msmtp])
def test_mail_from_the_world_reaches_the_mailbox_unchanged(gateway: Gateway, send: Send, tls: Tls) -> None:
    sent = [make() for make in (mails.EVERY if tls is Tls.UPGRADE else (mails.dots, mails.latin))]
    for raw in sent:
        done = send(gateway.mx(tls), OUTSIDE, [ALICE], raw)
        succeeded(done)
    arrived = gateway.fetch("alice")
    assert all(mails.same(mails.find(arrived, raw), raw) for raw in sent)


@pytest.mark.parametrize("tls", [Tls.UPGRADE, Tls.IMPLICIT])
@pytest.mark.parametrize("send", [clients.swaks, clients.curl_send, clients.msmtp])
def test_people_submit_mail_after_logging_in(gateway: Gateway, send: Send, tls: Tls) -> None:
    sent = [make(sender=ALICE, recipient=BOB) for make in (mails.dots, mails.latin, mails.large)]
    options = ["--auth", "LOGIN"] if send is clients.swaks and tls is Tls.IMPLICIT else []
    for raw in sent:
        if send is clients.msmtp and tls is Tls.IMPLICIT:
            options = ["--auth=login"]
        done = send(gateway.submission("alice", tls), ALICE, [BOB], raw, *options)
        succeeded(done)
    arrived = gateway.fetch("bob")
    assert all(mails.same(mails.find(arrived, raw), raw) for raw in sent)
    assert "with ESMTPSA" in mails.header(mails.find(arrived, sent[0]))


def test_a_mail_server_of_others_relays_to_us(world: World, gateway: Gateway) -> None:
    sent = [make() for make in mails.EVERY]
    for raw in sent:
        world.postfix.send(OUTSIDE, [ALICE], lf(raw))
    for raw in sent:
        arrived = gateway.wait_mail("alice", mails.token(raw), within=30)
        assert mails.digest(arrived) == mails.digest(raw)


def test_a_mail_server_of_others_submits_with_a_login(world: World, gateway: Gateway) -> None:
    host = (processes.HOST, gateway.ports["submission"])
    with postfix.run(relayhost=host, relay_login=gateway.login("alice")) as mta:
        sent = [make(sender=ALICE, recipient=BOB) for make in (mails.dots, mails.newsletter)]
        for raw in sent:
            mta.send(ALICE, [BOB], lf(raw))
        for raw in sent:
            assert mails.digest(gateway.wait_mail("bob", mails.token(raw))) == mails.digest(raw)


@pytest.mark.parametrize("tls", [Tls.UPGRADE, Tls.IMPLICIT])
@pytest.mark.parametrize("fetch", [clients.fetchmail, clients.mpop])
def test_programs_that_empty_mailboxes_get_every_octet(
    gateway: Gateway, fetch: Callable[..., Result], tls: Tls
) -> None:
    sent = [make() for make in mails.EVERY]
    gateway.put(OUTSIDE, [ALICE], *sent)
    done = fetch(gateway.mailbox("alice", tls))
    succeeded(done)
    assert all(mails.same(mails.find(done.messages, raw), raw) for raw in sent)
    assert gateway.fetch("alice") == []


@pytest.mark.parametrize("tls", [Tls.UPGRADE, Tls.IMPLICIT])
def test_curl_lists_and_fetches(gateway: Gateway, tls: Tls) -> None:
    sent = [make() for make in mails.EVERY]
    gateway.put(OUTSIDE, [ALICE], *sent)
    server = gateway.mailbox("alice", tls)
    assert len(clients.curl_fetch(server).messages[0].splitlines()) == len(sent)
    for number, raw in enumerate(sent, 1):
        done = clients.curl_fetch(server, str(number))
        succeeded(done)
        assert mails.same(done.messages[0], raw)


def test_poplib_fetches_after_stls(gateway: Gateway) -> None:
    sent = [make() for make in mails.EVERY]
    gateway.put(OUTSIDE, [ALICE], *sent)
    with closing(poplib.POP3("127.0.0.1", gateway.ports["pop3"], timeout=20)) as client:
        client.stls(gateway.certificate.client_context())
        name, password = gateway.login("alice")
        client.user(name)
        client.pass_(password)
        arrived = [retrieve(client, number) for number in range(1, len(sent) + 1)]
        sizes = [int(line.split()[1]) for line in client.list()[1]]
        client.quit()
    assert all(mails.same(mails.find(arrived, raw), raw) for raw in sent)
    assert sizes == [len(raw) for raw in arrived]


def test_one_mail_for_two_people_and_a_suffix_lands_in_both_mailboxes(gateway: Gateway) -> None:
    raw = mails.dots()
    gateway.put(OUTSIDE, [ALICE, "BOB+garden@IN.example"], raw)
    for user in ("alice", "bob"):
        assert mails.same(mails.find(gateway.fetch(user), raw), raw)


def test_a_wrong_password_opens_no_mailbox(gateway: Gateway) -> None:
    gateway.put(OUTSIDE, [BOB], mails.mail())
    server = Server(gateway.ports["pop3s"], Tls.IMPLICIT, (BOB, "wrong"), gateway.certificate)
    done = clients.curl_fetch(server, "1")
    assert done.code == 67, done.output
    assert not done.messages


def test_what_was_deleted_is_still_there_when_the_client_never_said_quit(gateway: Gateway) -> None:
    gateway.put(OUTSIDE, [ALICE], raw := mails.mail())
    name = gateway.unique_id("alice", raw)
    with gateway.opened("alice", leave=True) as client:
        client.dele(1)
    assert mails.same(mails.find(gateway.fetch("alice"), raw), raw)
    assert gateway.unique_id("alice", raw) == name


def test_a_mailbox_is_open_to_one_client_at_a_time(gateway: Gateway) -> None:
    with gateway.opened("alice"):
        done = clients.mpop(gateway.mailbox("alice"))
        assert done.code != 0
        assert "IN-USE" in done.output
    assert clients.mpop(gateway.mailbox("alice")).code == 0

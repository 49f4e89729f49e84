"""Rates and greylist of the whole gateway, whose processes count together on a redis-server; and when that falls silent."""

import smtplib
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e import gateway as gateways
from tests.e2e import mails
from tests.e2e.gateway import Gateway, id_in, taken, transaction
from tests.peers import redis
from tests.peers.certificates import Certificate
from tests.peers.dns import Dns
from tests.peers.redis import Redis

pytestmark = pytest.mark.e2e

OUTSIDE, FORGED, ALICE, BOB = "ann@out.example", "ann@forged.example", "alice@in.example", "bob@in.example"
PASSWORD, DELAY = "geheim", 1.5
STATE = '\n[state]\nurl = "redis://:{password}@127.0.0.1:{port}/0"\ntimeout = "0.5s"\n'


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    with redis.run(password=PASSWORD) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(certificate: Certificate, names: Dns, server: Redis) -> Iterator[Gateway]:
    """As if loopback were the world: every test is a peer of another address."""
    policies = {
        "antivirus": gateways.lenient("antivirus"),
        "spf": gateways.shipped("spf", own_relays="[]"),
        "rate": shipped("rate", address_messages="5", user_recipients="4"),
        "greylist": shipped("greylist", delay=f"{DELAY}"),
    }
    users = ("alice", "bob")
    with gateways.run(
        certificate,
        dns=names.port,
        policies=policies,
        users=users,
        smtp_processes=2,
        more=STATE.format(password=PASSWORD, port=server.port),
        may_fail=True,
    ) as running:
        yield running


def shipped(stem: str, **settings: str) -> str:
    """The shipped policy with other settings, and nobody exempt."""
    head, _, rest = gateways.shipped(stem, **settings).partition("own_relays = [")
    return f"{head}own_relays = []{rest.partition(']')[2]}"


@contextmanager
def peer(gateway: Gateway, address: str) -> Iterator[smtplib.SMTP]:
    """A session from *address* of loopback."""
    port = gateway.ports["mx"]
    with smtplib.SMTP("127.0.0.1", port, "client.example", timeout=30, source_address=(address, 0)) as client:
        client.ehlo()
        yield client


def asked(client: smtplib.SMTP, sender: str, *recipients: str) -> list[tuple[int, str]]:
    """The replies to each RCPT of a mail that is then given up."""
    assert client.mail(sender)[0] == 250
    replies = [client.rcpt(recipient) for recipient in recipients]
    client.rset()
    return [(code, text.decode()) for code, text in replies]


def test_all_processes_count_together_and_who_sends_too_much_is_deferred_with_the_numbers(gateway: Gateway) -> None:
    replies, raw = [], mails.mail()
    for _ in range(4):
        with peer(gateway, "127.0.0.5") as client:
            replies += asked(client, OUTSIDE, ALICE) + asked(client, OUTSIDE, ALICE)
    assert [code for code, _ in replies] == [250] * 5 + [451] * 3
    assert "4.7.1" in replies[-1][1]
    assert "rate/address" in replies[-1][1]
    (delivery,) = gateway.life(id_in(replies[-1][1]))["deliveries"]
    assert "127.0.0.5 has sent 5 messages in the last hour; 5 are allowed" in str(delivery)
    with peer(gateway, "127.0.0.6") as client:  # nobody else is held back
        taken(transaction(client, OUTSIDE, [ALICE], raw))


def test_what_a_user_may_send_holds_at_every_door_and_for_each_by_themselves(gateway: Gateway) -> None:
    others = [f"{name}@fixed.example" for name in "abcdef"]
    with gateway.session("submission", "alice") as client:
        assert [code for code, _ in asked(client, ALICE, *others[:3])] == [250] * 3
    with gateway.session("submission", "alice") as client:
        codes = asked(client, ALICE, *others[3:])
    assert [code for code, _ in codes] == [250, 451, 451]
    assert "rate/user" in codes[-1][1]
    with gateway.session("submission", "bob") as client:
        assert [code for code, _ in asked(client, BOB, others[0])] == [250]


def test_a_suspect_is_asked_to_come_again_and_gets_in_when_it_does(gateway: Gateway) -> None:
    raw = mails.mail(sender=FORGED)
    with peer(gateway, "127.0.0.7") as client:
        ((code, text),) = asked(client, FORGED, ALICE)
        assert code == 451
        assert "greylist/greylisted" in text
        assert asked(client, OUTSIDE, ALICE)[0][0] == 250  # of whom nothing is suspect
        time.sleep(DELAY + 0.1)
        mail_id = taken(transaction(client, FORGED, [ALICE], raw))
    assert mails.same(gateway.wait_mail("alice", mail_id.encode()), raw)


def test_a_state_that_falls_silent_defers_in_time_is_told_and_is_found_again(gateway: Gateway, server: Redis) -> None:
    with peer(gateway, "127.0.0.8") as client:
        assert asked(client, OUTSIDE, ALICE)[0][0] == 250
        server.freeze()
        try:
            began = time.monotonic()
            ((code, text),) = asked(client, OUTSIDE, ALICE)
            assert time.monotonic() - began < 5.0
            assert (code, "rate/error" in text) == (451, True), text
            status = gateway.cli("status", "--json")
        finally:
            server.thaw()
        (check,) = [one for one in status.json["checks"] if one["name"] == "state"]
        assert not check["ok"]
        assert "did not answer within 0.5 s" in check["text"]
        assert asked(client, OUTSIDE, ALICE)[0][0] == 250


def test_the_password_is_never_shown(gateway: Gateway) -> None:
    shown = [gateway.cli("status", "--json"), gateway.cli("check", "--json")]
    assert all(PASSWORD not in one.stdout + one.stderr for one in shown)
    assert PASSWORD not in gateway.log()

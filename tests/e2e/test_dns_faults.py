"""The whole gateway beside a name server that is silent, broken, or lies: nothing is taken that policy wants deferred."""

import smtplib
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from tests.e2e import gateway as gateways
from tests.e2e import mails
from tests.e2e.gateway import Done, Gateway, transaction
from tests.peers import hostile_dns, processes
from tests.peers.certificates import Certificate
from tests.peers.hostile_dns import FAULTS, HARMLESS, HostileDns

pytestmark = pytest.mark.e2e

ALICE, CLIENT = "alice@in.example", "client.test"
LISTED = "127.0.9.9"
PAUSE = 1.0

DNSBL = f"""
timeout = 4.0
[settings]
timeout = 1.0
failures = 2
pause = {PAUSE}
own_relays = []
[[settings.lists]]
zone = "bl.test"
weight = 5.0
[[settings.lists]]
zone = "other.test"
weight = 5.0
[actions]
strongly_listed = "reject"
listed = "accept"
weakly_listed = "accept"
allowed = "accept"
left_out = "accept"
error = "defer"
"""

HELO = """
[settings]
timeout = 1.5
own_relays = []
[actions]
own_name = "reject"
foreign_literal = 0.0
no_ptr = 0.0
bad_syntax = 0.0
no_dot = 0.0
unconfirmed_ptr = 0.0
unknown_name = 0.0
literal = 0.0
other_host = 0.0
error = "defer"
"""


@pytest.fixture(scope="module")
def names() -> Iterator[HostileDns]:
    records = {(f"{name}.test", "TXT"): ["v=spf1 ip4:127.0.0.0/8 -all"] for name in (*FAULTS, *HARMLESS, "honest")}
    records |= {(f"2.0.0.127.{zone}.test", "A"): ["127.0.0.2"] for zone in ("bl", "other")}
    records |= {("9.9.0.127.bl.test", "A"): ["127.0.0.2"], ("9.9.0.127.bl.test", "TXT"): ["go\r\n250 away"]}
    with hostile_dns.run(records, ttl=0) as running:
        yield running


@pytest.fixture(scope="module")
def world(certificate: Certificate, names: HostileDns) -> Iterator[Gateway]:
    policies = {
        "dnsbl": DNSBL,
        "helo": HELO,
        "spf": gateways.shipped("spf", own_relays="[]"),
        "dmarc": gateways.shipped("dmarc", own_relays="[]"),
        "antivirus": gateways.lenient("antivirus"),
    }
    with gateways.run(certificate, dns=names.port, policies=policies) as running:
        yield running


@pytest.fixture
def gateway(world: Gateway, names: HostileDns) -> Iterator[Gateway]:
    """The gateway, its name server honest, and its lists believed."""
    yield world
    names.faults.clear()
    processes.wait_until(lambda: send(world, "x@honest.test", "127.0.7.7")[0] == 250, 10, "the DNS to be well again")


@contextmanager
def session(gateway: Gateway, peer: str, port: str = "mx") -> Iterator[smtplib.SMTP]:
    with smtplib.SMTP("127.0.0.1", gateway.ports[port], CLIENT, timeout=30, source_address=(peer, 0)) as client:
        client.ehlo()
        yield client


def send(gateway: Gateway, sender: str, peer: str, port: str = "mx") -> tuple[int, str]:
    with session(gateway, peer, port) as client:
        return transaction(client, sender, [ALICE], mails.mail(sender=sender))


def send_all(gateway: Gateway, senders: Sequence[str], network: str) -> list[tuple[int, str]]:
    """What each of *senders* is told, all at once, each from an address of its own."""
    with ThreadPoolExecutor(len(senders)) as threads:
        peers = [f"{network}.{number}" for number in range(1, len(senders) + 1)]
        return list(threads.map(lambda one: send(gateway, *one), zip(senders, peers, strict=True)))


def test_while_the_dns_of_a_sender_misbehaves_its_mail_is_deferred_and_afterwards_taken(
    gateway: Gateway, names: HostileDns
) -> None:
    names.faults |= {f"{name}.test": fault for name, fault in {**FAULTS, **HARMLESS}.items()}
    senders = [f"x@{name}.test" for name in (*FAULTS, *HARMLESS)]
    began = time.monotonic()
    told = dict(zip((*FAULTS, *HARMLESS), send_all(gateway, senders, "127.0.1"), strict=True))
    assert {name: told[name][0] for name in HARMLESS} == dict.fromkeys(HARMLESS, 250)
    # What is too large to be read is an answer all the same, and a fault of the sender's
    assert {name: told[name][0] for name in FAULTS} == {**dict.fromkeys(FAULTS, 451), "huge": 250}
    assert all("(dmarc/temperror)" in told[name][1] for name in FAULTS if name != "huge"), told
    assert time.monotonic() - began < 15.0
    names.faults.clear()
    assert [code for code, _ in send_all(gateway, senders, "127.0.2")] == [250] * len(senders)


def test_a_listed_peer_is_refused_and_what_the_list_says_is_kept_as_evidence(gateway: Gateway) -> None:
    code, text = send(gateway, "x@honest.test", LISTED)
    assert (code, "(dnsbl/strongly_listed)" in text) == (550, True), text
    assert "away" not in text
    evidence = gateway.life(gateways.id_in(text))["evidence"]["found"]["dnsbl"]
    assert evidence[0]["facts"][1].startswith("TXT 9.9.0.127.bl.test: go??250 away")


def test_a_list_that_is_dead_is_left_out_after_a_while_and_asked_again_when_it_is_back(
    gateway: Gateway, names: HostileDns
) -> None:
    names.faults["bl.test"] = FAULTS["silent"]
    told = [send(gateway, "x@honest.test", LISTED) for _ in range(3)]
    assert [code for code, _ in told] == [451, 451, 250], "an error until it is left out"
    assert "(dnsbl/error)" in told[0][1]
    (left_out,) = gateway.life(gateways.id_in(told[2][1]))["evidence"]["found"]["dnsbl"]
    assert left_out["detail"].startswith("bl.test is left out for another ")
    names.faults.clear()
    processes.wait_until(lambda: send(gateway, "x@honest.test", LISTED)[0] == 550, 10, "the list to be asked again")


@pytest.mark.parametrize("fault", ["refused", "garbage"])
def test_an_answer_that_is_none_does_not_let_a_listed_peer_in(gateway: Gateway, names: HostileDns, fault: str) -> None:
    names.faults["bl.test"] = FAULTS[fault]
    assert send(gateway, "x@honest.test", LISTED)[0] == 451


def test_silence_of_all_dns_defers_everybody_in_time_and_holds_up_nobody_else(
    gateway: Gateway, names: HostileDns
) -> None:
    names.faults[""] = FAULTS["silent"]
    with ThreadPoolExecutor(1) as thread:
        crowd = thread.submit(send_all, gateway, [f"x@n{number}.test" for number in range(60)], "127.0.3")
        time.sleep(0.3)  # until they wait for the DNS
        began = time.monotonic()
        assert send(gateway, "x@honest.test", "127.0.0.1", "relay")[0] == 250, "own hosts are not asked about"
        assert time.monotonic() - began < 1.0
        assert {code for code, _ in crowd.result(20)} == {451}
    done, line = status(gateway)
    assert (done.code, line["ok"]) == (1, False)
    assert "no name server answered" in line["text"]
    names.faults.clear()
    _, line = status(gateway)
    assert line["ok"], line


def status(gateway: Gateway) -> tuple[Done, Mapping[str, Any]]:
    """What `gatepost status` says of the DNS."""
    done = gateway.cli("status", "--json")
    assert done.stdout, done
    (line,) = [one for one in done.json["checks"] if one["name"] == "dns"]
    return done, line


def test_whoever_hangs_up_while_the_dns_is_asked_harms_nobody(gateway: Gateway, names: HostileDns) -> None:
    names.faults[""] = FAULTS["silent"]
    for number in range(1, 21):
        with session(gateway, f"127.0.4.{number}") as client:
            client.putcmd("MAIL FROM:<x@honest.test>")
            client.close()
    names.faults.clear()
    began = time.monotonic()
    processes.wait_until(lambda: send(gateway, "x@honest.test", "127.0.5.5")[0] == 250, 10, "mail to be taken again")
    assert time.monotonic() - began < 5.0

"""Our own mail goes out signed, and programs of others find that the signatures hold; what we hand on is sealed."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import dkim
import pytest

from gateway.dkim import canonical, making
from gateway.dkim.making import Chosen
from gateway.dkim.ring import Ring
from tests.e2e import gateway as gateways
from tests.e2e import mails
from tests.e2e.conftest import World
from tests.e2e.gateway import Gateway, taken, transaction
from tests.peers import processes, smtp_sink, verifiers
from tests.peers.certificates import Certificate
from tests.peers.dns import Dns
from tests.peers.postfix import Postfix
from tests.peers.wire import crlf

pytestmark = pytest.mark.e2e

ALICE, BOB, CAROL = "alice@in.example", "bob@fixed.example", "carol@later.example"
HOST = "peer.example"  # above gw.peer.example, which writes the notices and seals


@dataclass(frozen=True)
class Signing:
    """A gateway with keys for in.example (both kinds) and peer.example (RSA), and who takes its mail."""

    gateway: Gateway
    postfix: Postfix
    dns: Dns
    later: int

    def kept(self, raw: bytes) -> bytes:
        """The copy of *raw* that Postfix kept, as it came by SMTP."""
        token = mails.token(raw)
        return self.arrived(lambda one: token in one)

    def arrived(self, wanted: Callable[[bytes], bool]) -> bytes:
        found = processes.wait_until(
            lambda: [one for one in self.postfix.received() if wanted(one)], 20, "the mail in Postfix"
        )
        return crlf(_without_first_fields(found[-1]))

    def records(self, name: bytes, **_: object) -> bytes | None:
        """The DNS as dkimpy asks it."""
        found = self.dns.records.get((name.decode().rstrip("."), "TXT"))
        return found[0].encode() if found else None


def _without_first_fields(raw: bytes) -> bytes:
    """*raw* without what Postfix put on top: Return-Path, X-Original-To, Delivered-To, and its own Received."""
    lines = raw.split(b"\n")
    start = next(number for number, line in enumerate(lines) if line.startswith(b"Received: ")) + 1
    while lines[start].startswith((b" ", b"\t")):
        start += 1
    return b"\n".join(lines[start:])


def _publish(gateway: Gateway, names: Dns, *words: str) -> None:
    done = gateway.cli("dkim", "generate", *words, "--json")
    assert done.code == 0, done
    names.update({(one["name"], "TXT"): [one["value"]] for one in done.json})


@pytest.fixture(scope="module")
def signing(world: World, certificate: Certificate, names: Dns) -> Iterator[Signing]:
    later = processes.free_port()
    via = {"fixed.example": world.postfix.port, "later.example": later}
    policies = {
        "routes": gateways.routes(via).replace('"fixed.example"]', '"fixed.example"]\naccept_from_world = true'),
        "relay": gateways.shipped("relay", allow_private='["127.0.0.0/8"]'),
        "queue": gateways.shipped("queue", poll='"1s"'),
        "signing": gateways.shipped("signing", look_every='"1s"'),
        "antivirus": gateways.shipped("antivirus", enabled="false"),
    }
    with gateways.run(certificate, dns=names.port, policies=policies) as gateway:
        _publish(gateway, names, "in.example", "--algorithm", "both")
        _publish(gateway, names, HOST)
        gateway.wait_event("key signs", domain="in.example")
        gateway.wait_event("key signs", domain=HOST)
        yield Signing(gateway, world.postfix, names, later)


def submit(signing: Signing, raw: bytes, to: str) -> str:
    with signing.gateway.session("submission", "alice") as client:
        return taken(transaction(client, ALICE, [to], raw))


def assert_holds(signing: Signing, message: bytes, domain: str, *algorithms: str) -> None:
    """All that check signatures find that each of *message* holds."""
    found = verifiers.opendkim(message, signing.dns.port)
    assert [(one.result, one.algorithm, one.domain) for one in found] == [("pass", one, domain) for one in algorithms]
    perl = verifiers.mail_dkim(message, signing.dns.port)
    assert [one.result for one in perl if one.algorithm == "rsa-sha256"] == ["pass"]  # it knows no ed25519
    assert dkim.verify(message, dnsfunc=signing.records)


def test_what_users_send_holds_for_every_checker(signing: Signing) -> None:
    for make in (mails.dots, mails.latin, mails.newsletter, mails.large):
        raw = make(sender=ALICE, recipient=BOB)
        submit(signing, raw, BOB)
        message = signing.kept(raw)
        assert mails.same(message, raw)
        assert_holds(signing, message, "in.example", "rsa-sha256", "ed25519-sha256")


def test_a_changed_mail_does_not_hold(signing: Signing) -> None:
    raw = mails.mail("to be changed\n", sender=ALICE, recipient=BOB)
    submit(signing, raw, BOB)
    message = signing.kept(raw)
    changed = message.replace(b"to be changed", b"that is changed")
    assert {one.result for one in verifiers.opendkim(changed, signing.dns.port)} == {"fail"}


def test_a_notice_of_ours_is_signed_by_the_domain_of_the_host(signing: Signing) -> None:
    raw = mails.mail(sender=BOB, recipient=ALICE)
    with signing.gateway.session() as client:
        client.mail(BOB)
        client.rcpt(ALICE, ["NOTIFY=SUCCESS"])
        assert client.data(raw)[0] == 250
    notice = signing.arrived(lambda one: b"multipart/report" in one and mails.token(raw) in one)
    assert_holds(signing, notice, HOST, "rsa-sha256")


def test_a_mail_that_was_deferred_is_signed_when_it_goes(signing: Signing) -> None:
    raw = mails.mail(sender=ALICE, recipient=CAROL)
    with smtp_sink.run(soft=["RCPT"], port=signing.later):
        mail_id = submit(signing, raw, CAROL)
        signing.gateway.wait_event("attempt", id=mail_id, state="queued")
    with smtp_sink.run(port=signing.later) as sink:
        assert signing.gateway.cli("queue", "retry", "--all").code == 0
        (dump,) = sink.wait_received(1)
    assert_holds(signing, crlf(dump.raw), "in.example", "rsa-sha256", "ed25519-sha256")


def test_mail_from_the_world_in_our_name_is_sealed_and_not_signed(signing: Signing) -> None:
    raw = mails.mail(sender=ALICE, recipient=BOB, subject="spoofed")
    signing.gateway.put("eve@elsewhere.example", [BOB], raw)
    message = signing.kept(raw)
    assert b"DKIM-Signature" not in message
    assert b"ARC-Authentication-Results: i=1; gw.peer.example;" in message
    assert dkim.arc_verify(message, dnsfunc=signing.records)[0] == dkim.CV_Pass
    assert verifiers.mail_dkim_arc(message, signing.dns.port) == "pass"


def test_a_chain_that_holds_goes_on_with_our_set(signing: Signing, tmp_path: Path) -> None:
    ring = Ring(tmp_path / "dkim")
    entry = ring.activate("list.example", ring.add("list.example", "rsa").selector)
    signing.dns.update({(entry.name, "TXT"): [entry.record]})
    raw = mails.mail(recipient=BOB, subject="by a list")
    head, _, text = raw.partition(b"\r\n\r\n")
    body = canonical.Body(relaxed=True)
    body.update(text)
    (signer,) = ring.signers("list.example")
    fields, chosen, results = (
        canonical.fields(head + b"\r\n"),
        Chosen(("from",), ("subject",)),
        b"list.example; spf=pass",
    )
    first = making.arc_set(fields, body.digest() or b"", results, "none", signer, chosen, int(time.time()))
    signing.gateway.put("list@list.example", [BOB], first + raw)
    message = signing.kept(raw)
    assert b"ARC-Authentication-Results: i=2; gw.peer.example;" in message
    assert dkim.arc_verify(message, dnsfunc=signing.records)[0] == dkim.CV_Pass
    assert verifiers.mail_dkim_arc(message, signing.dns.port) == "pass"


def test_another_program_takes_the_record_that_we_print(signing: Signing) -> None:
    shown = signing.gateway.cli("dkim", "show", "--json")
    assert (shown.code, {one["dns"] for one in shown.json}) == (0, {"published"})
    rsa = {
        one["domain"]: one["selector"] for one in shown.json if one["algorithm"] == "rsa-sha256"
    }  # it knows no other
    keys = {domain: signing.gateway.home / f"var/dkim/{domain}/{selector}.pem" for domain, selector in rsa.items()}
    assert set(keys) == {"in.example", HOST}
    for domain, key in keys.items():
        done = verifiers.testkey(domain, rsa[domain], key, signing.dns.port)
        assert done.code == 0, done.text
    assert verifiers.testkey("in.example", rsa["in.example"], keys[HOST], signing.dns.port).code != 0

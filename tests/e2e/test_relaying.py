"""Mail goes on to other hosts: by a fixed route or by the DNS, at once or when they are well again, or back."""

import email
import smtplib
import time
from typing import Any

import pytest

from tests.e2e import mails
from tests.e2e.conftest import World
from tests.e2e.gateway import Gateway, id_in, taken, transaction
from tests.peers import clients, processes, smtp_sink
from tests.peers.clients import Tls

pytestmark = pytest.mark.e2e

ALICE = "alice@in.example"


def submit(gateway: Gateway, raw: bytes, *recipients: str) -> str:
    """Send as alice; returns the id of the mail."""
    with gateway.session("submission", "alice") as client:
        return taken(transaction(client, ALICE, recipients, raw))


def outgoing(to: str) -> bytes:
    return mails.newsletter(sender=ALICE, recipient=to)


def delivery(gateway: Gateway, mail_id: str) -> Any:
    """The only delivery of a mail, as `gatepost track` tells it."""
    (fate,) = gateway.life(mail_id)["deliveries"]
    return fate["delivery"]


def kept(world: World, raw: bytes) -> bytes:
    """The copy in Postfix's maildir, as soon as it is there: a moment after Postfix took the mail."""
    processes.wait_until(lambda: any(mails.token(raw) in one for one in world.postfix.received()), 20, "the mail")
    return mails.find(world.postfix.received(), raw)


@pytest.mark.parametrize("to", ["carol@fixed.example", "carol@mx.example"])
@pytest.mark.parametrize("make", mails.EVERY)
def test_submitted_mail_reaches_another_mail_server_unchanged_over_tls(
    world: World, gateway: Gateway, to: str, make: Any
) -> None:
    raw = make(sender=ALICE, recipient=to)
    mail_id = submit(gateway, raw, to)
    gateway.wait_event("attempt", id=mail_id, recipient=to, state="sent")
    arrived = kept(world, raw)
    assert mails.same(arrived, raw)
    received = mails.header(arrived).partition("Received: from gw.peer.example")[2]
    assert "using TLSv1.3" in received.partition("Received:")[0]


def test_mail_of_people_goes_out_by_programs_they_use(world: World, gateway: Gateway) -> None:
    for send, tls in ((clients.swaks, Tls.UPGRADE), (clients.curl_send, Tls.IMPLICIT), (clients.msmtp, Tls.UPGRADE)):
        raw = outgoing("carol@mx.example")
        done = send(gateway.submission("alice", tls), ALICE, ["carol@mx.example"], raw)
        assert done.code == 0, done.output[-2000:]
        assert mails.same(kept(world, raw), raw)


def test_hosts_of_our_own_relay_without_a_login(world: World, gateway: Gateway) -> None:
    raw = outgoing("carol@fixed.example")
    with gateway.session("relay") as client:
        mail_id = taken(transaction(client, "printer@in.example", ["carol@fixed.example"], raw))
    gateway.wait_event("attempt", id=mail_id, state="sent")
    assert mails.same(kept(world, raw), raw)


def test_mail_to_a_host_that_defers_waits_and_goes_when_it_is_well(world: World, gateway: Gateway) -> None:
    raw, port = outgoing("x@deferring.example"), world.neighbours["deferring"]
    with smtp_sink.run(port=port, soft=["RCPT"], soft_reply="450 4.2.0 Come back later"):
        mail_id = submit(gateway, raw, "x@deferring.example")
        gateway.wait_event("attempt", id=mail_id, state="queued")
    waiting = delivery(gateway, mail_id)
    assert (waiting["state"], waiting["attempts"]) == ("queued", 1)
    assert "450" in waiting["last_reply"]
    assert "Come back later" in waiting["last_reply"]
    assert 200 < waiting["next_attempt"] - time.time() < 320
    assert retried(gateway, world.neighbours["deferring"], mail_id, waiting["id"], raw)


@pytest.mark.parametrize("command", ["CONNECT", "MAIL", "DATA", "."])
def test_mail_to_a_host_that_hangs_up_waits_and_goes_when_it_is_well(
    world: World, gateway: Gateway, command: str
) -> None:
    raw, port = outgoing("x@dropping.example"), world.neighbours["dropping"]
    with smtp_sink.run(port=port, hang_up=[command]):
        mail_id = submit(gateway, raw, "x@dropping.example")
        gateway.wait_event("attempt", id=mail_id, state="queued")
    (waiting,) = [one for one in gateway.cli("queue", "list", "--json").json if one["message_id"] == mail_id]
    assert waiting["attempts"] == 1
    assert waiting["last_reply"]
    assert retried(gateway, port, mail_id, waiting["id"], raw)


def retried(gateway: Gateway, port: int, mail_id: str, number: int, raw: bytes) -> bool:
    """With a healthy host at *port*, `queue retry` delivers the mail, and as it was."""
    with smtp_sink.run(port=port) as sink:
        assert gateway.cli("queue", "retry", str(number)).code == 0
        (dump,) = sink.wait_received(1)
        gateway.wait_event("attempt", id=mail_id, state="sent")
    return mails.same(dump.raw, raw)


def test_mail_that_is_refused_comes_back_as_a_report(world: World, gateway: Gateway) -> None:
    raw = outgoing("x@refusing.example")
    port = world.neighbours["refusing"]
    with smtp_sink.run(port=port, hard=["RCPT"], hard_reply="550 5.1.1 Nobody of that name"):
        mail_id = submit(gateway, raw, "x@refusing.example")
        gateway.wait_event("notice", id=mail_id, action="failed")
    bounce = gateway.wait_mail("alice", mails.token(raw))
    assert mails.header(bounce).startswith("Return-Path: <>\n")
    _, (about,) = mails.report(bounce)
    assert about["Final-Recipient"] == "rfc822; x@refusing.example"
    assert (about["Action"], about["Status"]) == ("failed", "5.1.1")
    assert "Nobody of that name" in about["Diagnostic-Code"]
    assert mails.digest(bounce) != mails.digest(raw)
    original = email.message_from_bytes(bounce).get_payload()[2]
    assert mails.token(raw).decode() in original.as_string()


def test_a_domain_that_takes_no_mail_is_told_at_once(gateway: Gateway) -> None:
    raw = outgoing("x@null.example")
    submit(gateway, raw, "x@null.example")
    _, (about,) = mails.report(gateway.wait_mail("alice", mails.token(raw)))
    assert about["Status"] == "5.1.10"


def test_one_mail_to_three_hosts_has_three_fates(world: World, gateway: Gateway) -> None:
    raw = outgoing("carol@fixed.example")
    recipients = ["carol@fixed.example", "x@refusing.example", "x@deferring.example", "bob@in.example"]
    with (
        smtp_sink.run(port=world.neighbours["refusing"], hard=["RCPT"]),
        smtp_sink.run(port=world.neighbours["deferring"], soft=["MAIL"]),
    ):
        mail_id = submit(gateway, raw, *recipients)
        for recipient, state in zip(recipients, ("sent", "failed", "queued"), strict=False):
            gateway.wait_event("attempt", id=mail_id, recipient=recipient, state=state)
    fates = [fate["delivery"] for fate in gateway.life(mail_id)["deliveries"]]
    states = {fate["recipient"]["address"]: fate["state"] for fate in fates}
    assert states == dict(zip(recipients, ("sent", "failed", "queued", "mailbox"), strict=True))
    assert mails.same(mails.find(gateway.fetch("bob"), raw), raw)
    (queued,) = [fate["id"] for fate in fates if fate["state"] == "queued"]
    assert gateway.cli("queue", "drop", str(queued), "--yes").code == 0


# Delivery status notifications (RFC 3461): no client offers all of its parameters, so the session is a bare one.


def dsn_session(gateway: Gateway, raw: bytes, recipients: dict[str, list[str]], *options: str) -> str:
    with gateway.session("submission", "alice") as client:
        assert client.mail(ALICE, [*options])[0] == 250
        for recipient, wishes in recipients.items():
            assert client.rcpt(recipient, wishes)[0] == 250
        return id_in(client.data(raw)[1].decode())


def test_who_asks_hears_that_the_mail_is_in_the_mailbox(gateway: Gateway) -> None:
    raw = mails.dots(sender=ALICE, recipient="bob@in.example")
    wishes = {"bob@in.example": ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;bob+2Bold@in.example"]}
    dsn_session(gateway, raw, wishes, "RET=HDRS", "ENVID=of+2Bmine")
    about_mail, (about,) = mails.report(gateway.wait_mail("alice", mails.token(raw)))
    assert about_mail["Original-Envelope-Id"] == "of+mine"
    assert about["Original-Recipient"] == "rfc822; bob+old@in.example"
    assert (about["Action"], about["Status"]) == ("delivered", "2.0.0")
    assert mails.same(mails.find(gateway.fetch("bob"), raw), raw)


def test_who_wants_to_hear_nothing_gets_no_bounce(world: World, gateway: Gateway) -> None:
    raw = outgoing("x@refusing.example")
    wishes = {"quiet@refusing.example": ["NOTIFY=NEVER"], "loud@refusing.example": ["NOTIFY=FAILURE"]}
    with smtp_sink.run(port=world.neighbours["refusing"], hard=["RCPT"]):
        mail_id = dsn_session(gateway, raw, wishes, "RET=FULL")
        for recipient in wishes:
            gateway.wait_event("attempt", id=mail_id, recipient=recipient, state="failed")
    bounce = gateway.wait_mail("alice", mails.token(raw))
    _, (about,) = mails.report(bounce)
    assert about["Final-Recipient"] == "rfc822; loud@refusing.example"
    assert [one["recipient"] for one in gateway.events("notice", id=mail_id)] == ["loud@refusing.example"]
    original = email.message_from_bytes(bounce).get_payload()[2]
    assert original.get_content_type() == "message/rfc822"
    assert b"epilogue without meaning" in bounce


def test_the_next_mail_server_gets_the_wishes_and_fulfils_them(gateway: Gateway) -> None:
    raw = outgoing("carol@fixed.example")
    wishes = {"carol@fixed.example": ["NOTIFY=SUCCESS", "ORCPT=rfc822;first@fixed.example"]}
    mail_id = dsn_session(gateway, raw, wishes, "RET=HDRS", "ENVID=passed-on")
    notice = gateway.wait_mail("alice", mails.token(raw))
    about_mail, (about,) = mails.report(notice)
    assert about_mail["Reporting-MTA"] == "dns; postfix.peer.example"
    assert about_mail["Original-Envelope-Id"] == "passed-on"
    assert about["Original-Recipient"] == "rfc822;first@fixed.example"
    assert about["Action"] == "delivered"
    assert not gateway.events("notice", id=mail_id)


def test_a_bounce_that_cannot_be_delivered_makes_no_bounce(world: World, gateway: Gateway) -> None:
    raw = mails.mail(sender="MAILER-DAEMON@in.example", recipient="x@refusing.example")
    with smtp_sink.run(port=world.neighbours["refusing"], hard=["RCPT"]), gateway.session("relay") as client:
        mail_id = taken(transaction(client, "", ["x@refusing.example"], raw))
        gateway.wait_event("attempt", id=mail_id, state="failed")
    assert not gateway.events("notice", id=mail_id)


def test_a_burst_from_many_connections_arrives_whole_and_once(world: World, gateway: Gateway) -> None:
    with smtp_sink.run(port=world.neighbours["other"]) as sink:
        port = gateway.ports["relay"]
        done = smtp_sink.load(port, messages=150, sessions=10, size=8000, recipient="x@other.example")
        assert done.code == 0, done.text
        bodies = [mails.digest(dump.raw) for dump in sink.wait_received(150, within=60)]
    processes.wait_until(
        lambda: len(gateway.events("attempt", recipient="x@other.example", state="sent")) == 150, 20, "all to be sent"
    )
    assert len(bodies) == 150
    assert len(set(bodies)) == 1  # smtp-source sends the same body again and again


def test_addresses_beyond_ascii_travel_with_smtputf8(world: World, gateway: Gateway) -> None:
    raw = mails.utf8_header(sender=ALICE, recipient="žofie@fixed.example")
    with gateway.session("submission", "alice") as client:
        client.command_encoding = "utf-8"
        assert client.mail(ALICE, ["SMTPUTF8", "BODY=8BITMIME"])[0] == 250
        assert client.rcpt("žofie@fixed.example")[0] == 250
        assert client.data(raw)[0] == 250
    arrived = kept(world, raw)
    assert "Delivered-To: žofie@fixed.example" in mails.header(arrived)
    assert mails.same(arrived, raw)


def test_a_client_of_the_library_may_quit_without_a_word(gateway: Gateway) -> None:
    client = smtplib.SMTP("127.0.0.1", gateway.ports["mx"], timeout=20)
    client.ehlo("client.example")
    client.mail("ann@out.example")
    client.close()
    gateway.put("ann@out.example", [ALICE], raw := mails.mail())
    assert mails.same(mails.find(gateway.fetch("alice"), raw), raw)

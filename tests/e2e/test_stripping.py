"""A stripped mail is a well-formed mail with a note in it; what is ours is signed as it then is, the original is held."""

import email
import email.policy
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage

import pytest

from tests.e2e import gateway as gateways
from tests.e2e import mails
from tests.e2e.gateway import Gateway, taken, transaction
from tests.peers import processes, smtp_sink, verifiers
from tests.peers.certificates import Certificate
from tests.peers.dns import Dns
from tests.peers.wire import crlf, lf

pytestmark = pytest.mark.e2e

OUTSIDE, ALICE, CAROL = "ann@out.example", "alice@in.example", "carol@later.example"
NAME = "Отчёт.exe"


@dataclass(frozen=True)
class Site:
    gateway: Gateway
    dns: Dns
    port: int


@pytest.fixture(scope="module")
def site(certificate: Certificate, names: Dns) -> Iterator[Site]:
    """A gateway that strips programs, in disguise too, and signs for in.example."""
    port = processes.free_port()
    policies = {
        "attachments": gateways.shipped("attachments", executable='"strip"', disguised='"strip"'),
        "antivirus": gateways.shipped("antivirus", enabled="false"),
        "content": gateways.lenient("content"),
        "routes": gateways.routes({"later.example": port}),
        "queue": gateways.shipped("queue", poll='"1s"'),
        "signing": gateways.shipped("signing", look_every='"1s"'),
    }
    with gateways.run(certificate, dns=names.port, policies=policies) as gateway:
        done = gateway.cli("dkim", "generate", "in.example", "--json")
        assert done.code == 0, done
        names.update({(one["name"], "TXT"): [one["value"]] for one in done.json})
        gateway.wait_event("key signs", domain="in.example")
        yield Site(gateway, names, port)


def program(inner: str = "", **about: str) -> bytes:
    """A mail with a program of that name beside a text and a picture, and *inner* as one more part."""
    coded = "".join(f"%{octet:02X}" for octet in NAME.encode())
    text = f"""--b
Content-Type: text/plain

Keep me.
--b
Content-Type: application/octet-stream
Content-Disposition: attachment; filename*=utf-8''{coded}

MZ and no more
{inner}--b
Content-Type: application/x-thing

also kept
--b--
"""
    return mails.mail(text, kind="multipart/mixed; boundary=b", **about)


def read(octets: bytes) -> EmailMessage:
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert not [part.defects for part in message.walk() if part.defects]
    return message


def test_a_part_is_replaced_by_a_note_that_says_what_why_and_how_to_have_it(site: Site) -> None:
    raw = program()
    (mail_id,) = site.gateway.put(OUTSIDE, [ALICE], raw)
    octets = mails.find(site.gateway.fetch("alice"), raw)
    text, note, kept = read(octets).iter_parts()
    assert (text.get_content().strip(), kept.get_content().strip()) == ("Keep me.", b"also kept")
    for said in (NAME, "attachments: executable", "postmaster@gw.peer.example", mail_id):
        assert said in note.get_content()
    assert b"MZ and no more" not in octets
    assert b"\r\nX-Gatepost-Verdict: strip;" in octets
    before, after = crlf(lf(raw)).split(b"Content-Type: application/octet-stream")
    assert before in octets
    assert octets.endswith(after.partition(b"MZ and no more")[2])


def test_the_mail_as_it_came_is_held_and_can_be_had_by_the_number_in_the_note(site: Site) -> None:
    raw = program()
    (mail_id,) = site.gateway.put(OUTSIDE, [ALICE], raw)
    (held,) = [one for one in site.gateway.cli("quarantine", "list", "--json").json if one["message_id"] == mail_id]
    assert site.gateway.cli("quarantine", "release", str(held["delivery_id"])).code == 0
    arrived = [one for one in site.gateway.fetch("alice") if mails.token(raw) in one]
    assert sorted(mails.same(one, raw) for one in arrived) == [False, True]


def test_a_program_in_an_attached_mail_goes_and_that_mail_stays(site: Site) -> None:
    attached = lf(program()).decode().replace("--b", "--i").replace("boundary=b", "boundary=i")
    raw = mails.mail(f"--b\nContent-Type: message/rfc822\n\n{attached}--b--\n", kind="multipart/mixed; boundary=b")
    site.gateway.put(OUTSIDE, [ALICE], raw)
    (outer,) = read(mails.find(site.gateway.fetch("alice"), raw)).iter_parts()
    (inner,) = outer.iter_parts()
    assert inner["Subject"] == "About the garden"
    assert ["Keep me." in str(inner), NAME in [*inner.iter_parts()][1].get_content()] == [True, True]


def test_what_our_people_send_is_signed_as_it_leaves_without_the_part(site: Site) -> None:
    raw = program(sender=ALICE, recipient=CAROL)
    with smtp_sink.run(port=site.port) as sink:
        with site.gateway.session("submission", "alice") as client:
            taken(transaction(client, ALICE, [CAROL], raw))
        (arrived,) = sink.wait_received(1)
    message = crlf(arrived.raw)
    _, note, _ = read(message).iter_parts()
    assert NAME in note.get_content()
    assert b"X-Gatepost-Verdict" not in message
    found = verifiers.opendkim(message, site.dns.port)
    assert [(one.result, one.domain) for one in found] == [("pass", "in.example")]


def test_a_mail_that_readers_see_differently_is_held_whole(site: Site) -> None:
    raw = program(more="Content-Type: text/plain\n")
    (mail_id,) = site.gateway.put(OUTSIDE, [ALICE], raw)
    assert not [one for one in site.gateway.fetch("alice") if mails.token(raw) in one]
    (event,) = site.gateway.events("accepted", id=mail_id)
    assert "cut out for every reader" in event["why"]

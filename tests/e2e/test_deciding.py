"""Policies decide: the shipped ones as they say, edited ones from the next mail on, faulty ones never."""

import email
from collections.abc import Iterator

import pytest

from filters.spam import GTUBE
from tests.e2e import gateway as gateways
from tests.e2e import mails
from tests.e2e.gateway import Gateway, id_in, taken, transaction
from tests.peers import clients, smtp_sink
from tests.peers.certificates import Certificate
from tests.peers.clamd import Clamd
from tests.peers.dns import Dns

pytestmark = pytest.mark.e2e

OUTSIDE, ALICE = "ann@out.example", "alice@in.example"
MALFORMED = '# Faulty.\n[actions]\nexecutable = "quarantine"\ndisguised = "destroy"\n'


@pytest.fixture(scope="module")
def own(certificate: Certificate, names: Dns, real_clamd: Clamd, elsewhere: int) -> Iterator[Gateway]:
    """A gateway whose policies may be edited."""
    policies = {
        "antivirus": gateways.shipped("antivirus", sockets=f'["unix:{real_clamd.unix_socket}"]'),
        "routes": gateways.routes({"slow.example": elsewhere}),
    }
    with gateways.run(certificate, dns=names.port, policies=policies, users=("alice", "bob")) as running:
        yield running


def reply_to(gateway: Gateway, raw: bytes, sender: str = OUTSIDE) -> tuple[int, str]:
    with gateway.session() as client:
        return transaction(client, sender, [ALICE], raw)


def test_gtube_is_refused(gateway: Gateway) -> None:
    done = clients.curl_send(gateway.mx(), OUTSIDE, [ALICE], mails.mail(f"Hello\n{GTUBE}\nbye\n"))
    assert done.code != 0
    assert "550 5.7.1" in done.output
    assert "(spam/gtube)" in done.output
    assert gateway.fetch("alice") == []


def test_a_program_in_disguise_is_refused(gateway: Gateway) -> None:
    code, text = reply_to(gateway, mails.attachment("invoice.pdf.exe", mails.program()))
    assert (code, "attachments/disguised" in text) == (550, True), text


def test_a_program_inside_zip_is_held_and_arrives_unchanged_when_released(gateway: Gateway) -> None:
    raw = mails.attachment("tools.zip", mails.zipped("setup.exe", mails.program()), "application/zip")
    code, text = reply_to(gateway, raw)
    assert code == 250
    mail_id = id_in(text)
    assert gateway.fetch("alice") == []
    (held,) = [one for one in gateway.cli("quarantine", "list", "--json").json if one["message_id"] == mail_id]
    assert (held["recipient"], held["action"], held["state"]) == (ALICE, "quarantine", "held")
    number = str(held["delivery_id"])
    shown = gateway.cli("quarantine", "show", number)
    assert shown.code == 0
    assert "attachments says executable (setup.exe" in shown.stdout
    assert "it would have been delivered" in shown.stdout
    assert gateway.cli("quarantine", "release", number).code == 0
    (arrived,) = gateway.fetch("alice")
    assert mails.same(arrived, raw)
    assert gateway.cli("quarantine", "release", number).code == 1
    assert gateway.cli("quarantine", "show", number).code == 1


def test_a_sender_whose_domain_disowns_the_host_scores_and_the_result_stands_in_the_header(gateway: Gateway) -> None:
    raw = mails.mail(sender="boss@forged.example")
    code, text = reply_to(gateway, raw, "boss@forged.example")
    assert code == 250, text  # shipped: fail counts 4.0, held from 6.0
    (arrived,) = gateway.fetch("alice")
    header = mails.header(arrived)
    _, _, said = header.partition("Authentication-Results: gw.peer.example;\n")
    assert said.startswith("\tspf=fail smtp.mailfrom=forged.example;\n\t")
    assert f"X-Gatepost-Verdict: accept; score=4.0; id={id_in(text)}\n" in header
    assert mails.same(arrived, raw)


def test_a_disowned_sender_is_held_when_something_else_speaks_against_the_mail(gateway: Gateway) -> None:
    raw = b"Message-ID: <sloppy@forged.example>\r\nFrom: boss@forged.example\r\nSubject: PAY THIS NOW\r\n\r\nnow\r\n"
    code, text = reply_to(gateway, raw, "boss@forged.example")
    assert code == 250
    (fate,) = gateway.life(id_in(text))["deliveries"]
    assert (fate["delivery"]["state"], fate["verdict"]["action"]) == ("held", "quarantine")
    assert "spf says fail +4.0" in fate["verdict"]["sentence"]
    assert gateway.fetch("alice") == []


def test_a_sender_whose_domain_owns_up_passes(gateway: Gateway) -> None:
    gateway.put("ann@honest.example", [ALICE], mails.mail())
    (arrived,) = gateway.fetch("alice")
    assert "spf=pass smtp.mailfrom=honest.example" in mails.header(arrived)


def test_header_fields_that_only_we_may_write_are_taken_out(gateway: Gateway) -> None:
    lies = "X-Gatepost-Verdict: accept; score=-99\nAuthentication-Results: gw.peer.example;\n\tspf=pass\n"
    lies += "x-GATEPOST-anything : of the\n\tsender\nAuthentication-Results: GW.Peer.Example 1; dkim=pass\n"
    honest = "Authentication-Results: other.example; dkim=pass\nX-Gate: stays\n"
    gateway.put(OUTSIDE, [ALICE], raw := mails.mail(more=lies + honest))
    (arrived,) = gateway.fetch("alice")
    header = mails.header(arrived)
    assert mails.digest(arrived) == mails.digest(raw)
    assert "-99" not in header
    assert "anything" not in header
    assert header.lower().count("authentication-results: gw.peer.example") == 1
    assert header.count("X-Gatepost-Verdict") == 1
    assert "Authentication-Results: other.example; dkim=pass\nX-Gate: stays\n" in header


def test_an_edited_policy_decides_about_the_next_mail(own: Gateway) -> None:
    raw = mails.attachment("setup.exe", mails.program())
    assert reply_to(own, raw)[0] == 250
    assert own.fetch("alice") == []
    mark = own.mark()
    own.write_policy("attachments", gateways.shipped("attachments", executable='"reject"'))
    own.wait_policies(mark)
    code, text = reply_to(own, raw)
    assert (code, "attachments/executable" in text) == (550, True), text


def test_what_one_may_have_and_another_not_is_held_for_the_other(own: Gateway) -> None:
    raw, mark = mails.attachment("setup.exe", mails.program()), own.mark()
    exception = '\n[[exceptions]]\nrecipients = ["bob@in.example"]\nactions.executable = "accept"\n'
    own.write_policy("attachments", gateways.shipped("attachments", executable='"reject"') + exception)
    own.wait_policies(mark)
    own.empty("bob")
    (mail_id,) = own.put(OUTSIDE, [ALICE, "bob@in.example"], raw)
    assert mails.same(own.fetch("bob")[0], raw)
    states = [(fate["delivery"]["state"], fate["verdict"]["action"]) for fate in own.life(mail_id)["deliveries"]]
    assert states == [("held", "reject"), ("mailbox", "accept")]


def test_a_stripped_part_is_replaced_by_a_note_and_the_original_can_be_released(own: Gateway) -> None:
    raw, mark = mails.attachment("setup.exe", mails.program()), own.mark()
    own.write_policy("attachments", gateways.shipped("attachments", executable='"strip"'))
    own.wait_policies(mark)
    own.empty("alice")
    (mail_id,) = own.put(OUTSIDE, [ALICE], raw)
    (arrived,) = own.fetch("alice")
    text, note = email.message_from_bytes(arrived).get_payload()
    assert text.get_payload() == "See the file.\r\n".removesuffix("\r\n")
    assert "setup.exe (attachments: executable)" in note.get_payload()
    assert mail_id in note.get_payload()
    (held,) = [one for one in own.cli("quarantine", "list", "--json").json if one["message_id"] == mail_id]
    assert own.cli("quarantine", "release", str(held["delivery_id"])).code == 0
    assert sum(mails.same(one, raw) for one in own.fetch("alice")) == 1


def test_the_sender_hears_that_a_mail_is_late_and_gets_it_back_when_its_time_is_over(
    own: Gateway, elsewhere: int
) -> None:
    times = {"first_retries": '["1s"]', "retry_every": '"1s"', "warn_after": '"1s"', "expire_after": '"4s"'}
    mark = own.mark()
    own.write_policy("queue", gateways.shipped("queue", **times, poll='"1s"'))
    own.wait_policies(mark)
    raw = mails.mail(sender=ALICE, recipient="x@slow.example")
    with smtp_sink.run(port=elsewhere, soft=["RCPT"], soft_reply="451 4.2.1 Full"), own.session("relay") as client:
        mail_id = taken(transaction(client, ALICE, ["x@slow.example"], raw))
        own.wait_event("notice", id=mail_id, action="failed", within=30)
    own.wait_event("attempt", id=mail_id, state="failed")
    late, back = [one for one in own.fetch("alice") if mails.token(raw) in one]
    for notice, action, status in ((late, "delayed", "4.2.1"), (back, "failed", "4.4.7")):
        _, (about,) = mails.report(notice)
        assert (about["Action"], about["Status"]) == (action, status)
        assert about["Diagnostic-Code"] == "smtp; 451 4.2.1 Full"
        assert bool(about["Will-Retry-Until"]) == (action == "delayed")
    assert [event["action"] for event in own.events("notice", id=mail_id)] == ["delayed", "failed"]


def test_a_faulty_edit_leaves_the_old_policies_in_force_and_is_told(own: Gateway) -> None:
    mark = own.mark()
    own.write_policy("spam", gateways.shipped("spam", gtube='"tag"'))
    own.wait_policies(mark)
    mark = own.mark()
    own.write_policy("attachments", MALFORMED)
    refused = own.wait_event("policies refused, the old ones stay in force", mark)
    assert "attachments.toml:4" in refused["faults"]
    assert reply_to(own, mails.mail(GTUBE))[0] == 250  # as the set before said
    assert "GTUBE" in own.wait_mail("alice", b"GTUBE").decode()
    done = own.cli("check")
    assert done.code == 1
    assert f"{own.home}/policies/attachments.toml:4" in done.stdout
    assert {fault["line"] for fault in own.cli("check", "--json").json["faults"]} >= {4}
    own.write_policy("attachments", gateways.shipped("attachments"))
    assert own.cli("check").code == 0

"""From the mail that brings a report to the store: what counts, what is proved, and that the mail itself is never lost."""

import json
from ipaddress import ip_address

import pytest

from gateway.model import Author, Content, Finding, Mail, Report, ReportRecord, Result, Session, State
from gateway.pipeline import reported
from gateway.pipeline.intake import Kind
from gateway.stages import Reports, Route, Routes, Stages
from gateway.store import mailbox, messages, reports
from gateway.store.reports import Proof
from tests.feedback import BEGINS, attachment, gzipped, mail, report, sample, zipped
from tests.gateway.pipeline.test_intake import Site

NOW = BEGINS + 2 * 86400.0
STAGES = Stages(
    routes=Routes(
        local=("ours.example",),
        routes=(
            Route.model_validate(
                {"domains": ["inside.example"], "accept_from_world": True, "via": {"host": "h.example"}}
            ),
            Route.model_validate({"domains": ["partner.example"], "via": {"host": "h.example"}}),
        ),
    ),
    reports=Reports(receive=("dmarc@ours.example",), domains=("parked.example",)),
)


def told(found=None, now=NOW, **words):
    values = {"org": "google.com", "id": "1", "domain": "ours.example", "begins": BEGINS, "ends": BEGINS + 86400}
    made = Report(**(values | words), records=(ReportRecord("192.0.2.1", 7),))
    content = Content(report=made, author=Author("x@sender.example", "sender.example"))
    return reported.told(Mail("m1", Session(ip_address("192.0.2.1")), content=content), found or {}, STAGES, now)


def dmarc(result, **properties):
    return {"dmarc": [Finding(result, result=Result("dmarc", result, tuple(properties.items())))]}


def test_a_mail_for_others_brings_nothing():
    assert reported.told(Mail("m1", Session(ip_address("192.0.2.1"))), {}, STAGES, NOW) is None


@pytest.mark.parametrize(
    ("domain", "kept"),
    [
        ("ours.example", True),
        ("news.ours.example", True),
        ("inside.example", True),
        ("parked.example", True),
        ("partner.example", False),
        ("notours.example", False),
        ("example", False),
        ("*", False),
    ],
)
def test_only_what_is_about_domains_of_ours_is_kept(domain, kept):
    one = told(domain=domain)
    assert (one.received is not None) is kept
    assert ("no domain of ours" in one.sentence) is not kept


def test_whether_the_sender_is_proved_is_what_dmarc_says_of_the_mail():
    proved = told(dmarc("pass", **{"header.from": "google.com"})).received
    assert (proved.sender, proved.proof) == ("google.com", Proof.DMARC)
    for found in (None, dmarc("fail", **{"header.from": "google.com"}), dmarc("none"), dmarc("pass")):
        doubtful = told(found).received
        assert (doubtful.sender, doubtful.proof) == ("sender.example", Proof.NONE)


def test_a_report_of_days_to_come_or_with_a_fault_is_told_and_not_kept():
    assert told(now=BEGINS - 2 * 86400.0).sentence == "not read: the report tells of days to come"
    assert told(fault="it is broken").sentence == "not read: it is broken"
    assert told(fault="it is broken").received is None


def test_the_record_says_in_a_line_what_a_report_is():
    assert told().sentence == "a report by google.com about ours.example, 2025-01-01: 7 mails"
    assert "2025-01-01 to 2025-01-02: 7" in told(ends=BEGINS + 86401).sentence


# ---- The whole way ------------------------------------------------------------------------------------------------

RECEIVING = 'receive = ["Alice@ours.example"]\n'


def taken(site, data, *recipients):
    """The id of a mail that was taken, and what its record says of a report."""
    *_, outcome = site.send(data, *recipients)
    assert outcome.kind is Kind.OK
    with site.store.reading() as conn:
        return outcome.id, messages.evidence(conn, outcome.id).get("report")


def kept(site):
    with site.store.reading() as conn:
        return reports.listed(conn, 0.0)


def mails_of(site, name):
    with site.store.reading() as conn:
        return len(mailbox.listing(conn, name))


def test_a_report_is_read_in_the_child_and_kept_with_its_mail(tmp_path):
    site = Site(tmp_path, reports=RECEIVING)
    mail_id, said = taken(site, mail(attachment(gzipped(sample("google")), "application/gzip", "r.xml.gz")))
    (one,) = kept(site)
    assert (one.org, one.mails, one.message_id, one.proof) == ("google.com", 15, mail_id, Proof.NONE)
    assert said == "a report by google.com about ours.example, 2025-01-01: 15 mails"
    assert mails_of(site, "alice") == 1


@pytest.mark.parametrize(("policy", "to"), [(RECEIVING, "bob@ours.example"), ("", "alice@ours.example")])
def test_mail_for_others_is_not_looked_at(tmp_path, policy, to):
    site = Site(tmp_path, reports=policy)
    _, said = taken(site, mail(attachment(sample("google"), "text/xml", "r.xml")), to)
    assert (said, kept(site)) == (None, [])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"<feedback>", "not read: the report is no well-formed XML"),
        (gzipped(b"<feedback>" + b"<a>" * 100_000), "not read: the report has too many elements, or too deep ones"),
        (report(domain="theirs.example"), "not read: the report is about theirs.example, which is no domain of ours"),
    ],
)
def test_a_mail_whose_report_cannot_be_used_is_delivered_all_the_same(tmp_path, data, said):
    site = Site(tmp_path, reports=RECEIVING)
    assert taken(site, mail(attachment(data, "application/gzip", "r.gz")))[1] == said
    assert kept(site) == []
    assert mails_of(site, "alice") == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x1f\x8b" + bytes(5 << 20), "the archive of the report is larger than 4 MB"),
        (zipped(b" " * (20 << 20)), "for certain: archives unpack to more than 200 times their size"),
    ],
    ids=["broken", "bomb"],
)
def test_a_report_that_is_a_broken_archive_or_a_bomb_is_held_as_any_other_mail_would_be(tmp_path, data, said):
    site = Site(tmp_path, reports=RECEIVING)
    _, told = taken(site, mail(attachment(data, "application/gzip", "r.gz")))
    assert told.startswith("not read: ")
    assert told.endswith(said)
    assert kept(site) == []
    assert [one.state for one in site.all()] == [State.HELD]


def test_a_mail_that_is_refused_brings_no_report(tmp_path):
    gtube = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
    site = Site(tmp_path, reports=RECEIVING)
    parts = attachment(sample("google"), "text/xml", "r.xml"), b"Content-Type: text/plain\r\n\r\n" + gtube
    *_, outcome = site.send(mail(*parts))
    assert outcome.kind is Kind.REJECTED
    assert kept(site) == []


def test_the_evidence_stays_json(tmp_path):
    site = Site(tmp_path, reports=RECEIVING)
    mail_id, _ = taken(site, mail(attachment(sample("utf16"), "text/xml", "r.xml")))
    with site.store.reading() as conn:
        assert "日本" in json.dumps(messages.evidence(conn, mail_id), ensure_ascii=False)

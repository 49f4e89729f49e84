"""What `gatepost dmarc` shows of the reports of others, and the ones that it reads from files."""

import json
import time
from io import BytesIO
from ipaddress import ip_address

import pytest

from gateway import cli
from gateway.model import Envelope, Recipient, Report, ReportRecord, Session, State, Temporary
from gateway.store import reports
from gateway.store.messages import Draft, Row, accept
from gateway.store.reports import Proof, Received
from tests.feedback import attachment, gzipped, mail, report, sample

EVIL = "\x1b[31mred\x1b[0m [bold]x[/bold] \u202egnp.exe"
GOOD = ReportRecord("192.0.2.17", 12, "none", "pass", "fail", "ours.example")
BAD = ReportRecord("198.51.100.4", 3, "reject", "fail", "fail", "ours.example", "elsewhere.example", ("local_policy",))


@pytest.fixture
def kept(store):
    """Put a report into the store."""

    def keep(*records, number="1", proof=Proof.DMARC, domain="ours.example", ago=86400, **words):
        ends = int(time.time()) - ago
        told = {"org": "google.com", "email": "x@google.com", "policy": (("p", "none"),)} | words
        made = Report(id=number, domain=domain, begins=ends - 86400, ends=ends, records=records or (GOOD, BAD), **told)
        with store.begin() as conn:
            assert reports.keep(conn, Received(made, time.time(), "m1", "google.com", proof))

    return keep


@pytest.fixture
def ours(home):
    """Mail for ours.example is taken here."""
    (home / "policies").mkdir()
    (home / "policies" / "routes.toml").write_text('local = ["ours.example"]\n')
    config = home / "gatepost.toml"
    config.write_text(f'[server]\npolicies = "{home}/policies"\n{config.read_text()}')
    return home


class Naming:
    """A DNS with one name."""

    async def ptr(self, address):
        if address == "198.51.100.4":
            raise Temporary("nobody answers")
        return ["mail.ours.example"]


def test_the_sources_of_each_domain_are_shown_with_what_passed(gatepost, kept):
    kept()
    kept(number="2", domain="other.example")
    code, out, _ = gatepost("dmarc", "report")
    assert code == cli.DONE
    lines = [line.split() for line in out.splitlines()]
    assert ["ours.example", "15", "12", "3", "80.0", "%"] in lines
    assert ["3", "fail", "fail", "fail", "198.51.100.4", "ours.example", "reject", "1"] in lines
    assert "other.example" not in gatepost("dmarc", "report", "OURS.example")[1]


def test_as_json_there_is_the_same(gatepost, kept):
    kept()
    (domain,) = json.loads(gatepost("dmarc", "report", "--json")[1])["domains"]
    assert (domain["mails"], domain["passed"], domain["failed"]) == (15, 12, 3)
    assert [(one["source"], one["mails"], one["passed"]) for one in domain["sources"]] == [
        ("192.0.2.17", 12, True),
        ("198.51.100.4", 3, False),
    ]


def test_names_are_asked_for_on_wish_alone(gatepost, kept):
    kept()
    assert "mail.ours.example" not in gatepost("dmarc", "report", dns=Naming)[1]
    assert "mail.ours.example" in gatepost("dmarc", "report", "--names", dns=Naming)[1]
    (domain,) = json.loads(gatepost("dmarc", "report", "--names", "--json", dns=Naming)[1])["domains"]
    assert [one["name"] for one in domain["sources"]] == ["mail.ours.example", ""]


def test_reports_of_nobody_knows_whom_are_told_but_not_counted(gatepost, kept):
    kept()
    kept(number="forged", proof=Proof.NONE)
    out = gatepost("dmarc", "report")[1]
    assert "80.0 %" in out
    assert "1 report is not counted" in out
    assert json.loads(gatepost("dmarc", "report", "--all", "--json")[1])["domains"][0]["mails"] == 30
    assert "not proved" in gatepost("dmarc", "reports")[1]
    assert json.loads(gatepost("dmarc", "report", "--by", "other.example", "--json")[1])["domains"] == []
    assert len(json.loads(gatepost("dmarc", "reports", "--by", "Google.com", "--json")[1])) == 2


def test_old_reports_are_out_of_sight(gatepost, kept):
    kept(ago=20 * 86400)
    assert json.loads(gatepost("dmarc", "report", "--days", "7", "--json")[1])["domains"] == []
    assert json.loads(gatepost("dmarc", "reports", "--days", "7", "--json")[1]) == []
    assert len(json.loads(gatepost("dmarc", "reports", "--json")[1])) == 1


def test_where_there_are_no_reports_it_says_how_to_get_some(gatepost, store):
    code, out, _ = gatepost("dmarc", "report")
    assert (code, "rua=mailto:" in out) == (cli.DONE, True)


def test_a_report_is_shown_in_full_by_its_number(gatepost, kept):
    kept(errors=("no rua",), faulty=1, left=2, left_mails=9)
    (listed,) = json.loads(gatepost("dmarc", "reports", "--json")[1])
    assert (listed["org"], listed["proof"], listed["mails"]) == ("google.com", "dmarc", 24)
    out = gatepost("dmarc", "report", "--id", listed["number"])[1]
    for words in ("proved by DMARC", "p=none", "no rua", "broken records: 1", "with 9 mails", "local_policy"):
        assert words in out
    assert (
        json.loads(gatepost("dmarc", "report", "--id", listed["number"], "--json")[1])["report"]["org"] == "google.com"
    )
    assert gatepost("dmarc", "report", "--id", "77")[0] == cli.REFUSED


def test_the_life_of_a_mail_says_what_became_of_its_report(gatepost, store):
    told = {"report": "not read: the report is larger than 10 MB"}
    draft = Draft(
        "m" * 18, time.time(), Session(ip_address("192.0.2.7")), Envelope(), body=BytesIO(b"x"), evidence=told
    )
    with store.begin() as conn:
        accept(conn, draft, [Row(Recipient("dmarc@ours.example"), State.QUEUED)])
    assert told["report"] in gatepost("track", "m" * 18)[1]


def test_text_of_strangers_does_nothing_to_the_terminal(gatepost, kept):
    kept(org=EVIL, email=EVIL, errors=(EVIL,), policy=(("p", EVIL),))
    for words in (["report"], ["reports"], ["report", "--id", "1"]):
        out = gatepost("dmarc", *words)[1]
        assert "\x1b[31m" not in out
        assert "\u202e" not in out
    assert "[bold]x[/bold]" in gatepost("dmarc", "reports")[1]
    assert gatepost("dmarc", "reports", "--json")[1].isascii()


def test_files_are_read_once_whether_packed_or_in_a_mail(gatepost, ours, store):
    (ours / "a.xml").write_bytes(sample("google"))
    (ours / "a.xml.gz").write_bytes(gzipped(sample("google")))
    (ours / "b.eml").write_bytes(mail(attachment(sample("microsoft"), "text/xml", "r.xml")).replace(b"\r\n", b"\n"))
    (ours / "c").write_bytes(sample("prefixed"))
    code, out, err = gatepost("dmarc", "import", "a.xml", "b.eml", "c")
    assert (code, len(out.splitlines()), err) == (cli.DONE, 3, "")
    code, _, err = gatepost("dmarc", "import", "a.xml.gz")
    assert (code, "already there" in err) == (cli.REFUSED, True)
    orgs = [one["org"] for one in json.loads(gatepost("dmarc", "reports", "--days", "36500", "--json")[1])]
    assert orgs == ["AOL", "Enterprise Outlook", "google.com"]


def test_what_is_no_report_or_not_ours_is_not_kept(gatepost, ours, store):
    (ours / "other.xml").write_bytes(report(domain="theirs.example"))
    (ours / "below.xml").write_bytes(report(domain="www.ours.example"))
    (ours / "laughs.xml").write_bytes(b'<!DOCTYPE a [<!ENTITY b "c">]><feedback>&b;</feedback>')
    code, out, _ = gatepost("dmarc", "import", "--json", "other.xml", "below.xml", "laughs.xml")
    outcomes = {one["file"]: (one["kept"], one["what"]) for one in json.loads(out)}
    assert code == cli.REFUSED
    assert outcomes["other.xml"] == (False, "not kept: the report is about theirs.example, which is no domain of ours")
    assert outcomes["laughs.xml"] == (False, "not kept: the report has a document type, which none needs")
    assert outcomes["below.xml"][0]


def test_a_file_that_is_not_there_is_called_wrongly(gatepost, ours, store):
    assert gatepost("dmarc", "import", "nosuch.xml")[0] == cli.USAGE

"""`gatepost dmarc sent` and `send`: what we report to others, and that a day is told once."""

import json
import time

import pytest

from gateway import cli
from gateway.store import observations, queue, tracking
from gateway.store.observations import DAY, Observation, Published, Row

TODAY = time.time() // DAY * DAY
YESTERDAY = time.strftime("%Y-%m-%d", time.gmtime(TODAY - DAY))


@pytest.fixture
def site(home):
    """A configuration under which reports go out, whatever the name of the host."""
    (home / "policies").mkdir()
    (home / "policies" / "reports.toml").write_text('send = "always"\n')
    config = home / "site.toml"
    config.write_text('[server]\nhostname = "gw.us.example"\npolicies = "policies"\n')
    return config


@pytest.fixture
def observe(store):
    def make(*domains, at=TODAY - 5):
        with store.begin() as conn:
            for domain in domains:
                published = Published(domain, p="none", rua=(f"mailto:rua@{domain}",))
                observations.add(conn, Observation(at, published, Row("192.0.2.1", "none", "fail", "fail", domain)))

    return make


def test_before_the_first_report_it_says_when_there_will_be_one(gatepost, store):
    code, out, _ = gatepost("dmarc", "sent")
    assert code == 0
    assert "the day after" in out
    assert json.loads(gatepost("dmarc", "sent", "--json")[1]) == []


def test_what_is_sent_by_hand_is_in_the_queue_and_listed(gatepost, site, store, observe):
    observe("a.example", "b.example", "b.example")
    code, out, _ = gatepost("--config", site, "dmarc", "send")
    assert code == 0
    assert f"{YESTERDAY} b.example: 2 mails, sent to rua@b.example" in out
    with store.reading() as conn:
        queued = tracking.find(conn)
        assert {one.recipient for one in queued} == {"rua@a.example", "rua@b.example"}
        assert {one.sender for one in queued} == {"dmarc-reports@gw.us.example"}
        (delivery,) = queue.of_message(conn, queued[0].message_id)
    assert delivery.recipient.notify == {"NEVER"}
    assert delivery.outbound
    told = json.loads(gatepost("dmarc", "sent", "--json")[1])
    assert {(one["domain"], one["mails"]) for one in told} == {("a.example", 1), ("b.example", 2)}
    assert "sent to rua@a.example" in gatepost("dmarc", "sent", "A.example")[1]
    again = gatepost("--config", site, "dmarc", "send", "--json")
    assert (again[0], json.loads(again[1])) == (0, {"dry_run": False, "reports": [], "waiting": []})


def test_a_dry_run_shows_the_report_and_sends_nothing(gatepost, site, store, observe):
    observe("a.example", "b.example")
    code, out, _ = gatepost("--config", site, "dmarc", "send", "a.example", "--dry-run")
    assert code == 0
    assert f"{YESTERDAY} a.example: 1 mail, to rua@a.example" in out
    assert "<source_ip>192.0.2.1</source_ip>" in out
    assert "b.example" not in out
    many = json.loads(gatepost("--config", site, "dmarc", "send", "--dry-run", "--json")[1])
    assert [(one["domain"], one["to"]) for one in many["reports"]] == [
        ("a.example", ["rua@a.example"]),
        ("b.example", ["rua@b.example"]),
    ]
    with store.reading() as conn:
        assert tracking.find(conn) == []
        assert observations.sent(conn, 10) == []


def test_no_later_day_goes_out_than_the_one_that_is_named(gatepost, site, observe):
    observe("a.example", at=TODAY - DAY - 5)
    observe("a.example")
    observe("a.example", at=TODAY + 5)
    before = time.strftime("%Y-%m-%d", time.gmtime(TODAY - 2 * DAY))
    _, out, _ = gatepost("--config", site, "dmarc", "send", "--day", before)
    assert before in out
    assert YESTERDAY not in out
    today = time.strftime("%Y-%m-%d", time.gmtime(TODAY))
    _, out, _ = gatepost("--config", site, "dmarc", "send", "--day", today)
    assert YESTERDAY in out
    assert today not in out


@pytest.mark.parametrize("day", ["yesterday", "2026-13-01", "23.11.2026"])
def test_a_day_is_written_as_a_day(gatepost, site, store, day):
    code, _, err = gatepost("--config", site, "dmarc", "send", "--day", day)
    assert code == cli.USAGE
    assert "a day is written like" in err


def test_where_reports_are_off_it_says_how_to_switch_them_on(gatepost, store, observe):
    observe("a.example")
    code, _, err = gatepost("dmarc", "send")
    assert code == cli.REFUSED
    assert "see send in reports.toml" in err

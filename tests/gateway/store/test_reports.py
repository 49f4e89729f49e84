"""Reports that others sent: kept once, counted where their sender is proved, forgotten in pieces; on both databases."""

import threading
import time
from dataclasses import replace

import pytest

from gateway.model import Report, ReportRecord, State
from gateway.store import reports
from gateway.store.reports import Proof, Received

DAY = 86400.0
RECORDS = (
    ReportRecord(
        "192.0.2.1",
        12,
        "none",
        "pass",
        "fail",
        "ours.example",
        "bounces.ours.example",
        ("forwarded",),
        (("dkim", "pass", "ours.example", "s1"), ("spf", "fail", "elsewhere.example", "mfrom")),
    ),
    ReportRecord("2001:db8::1", 3, "reject", "fail", "fail", "ours.example"),
)


def received(now, records=RECORDS, *, proof=Proof.DMARC, **words):
    told = {"org": "google.com", "email": "noreply@google.com", "id": "42", "domain": "ours.example"}
    report = Report(**(told | words), begins=int(now - DAY), ends=int(now), policy=(("p", "reject"),), records=records)
    return Received(report, now, "m1", "google.com", proof)


def test_a_report_comes_back_as_it_was_kept(change, look, now):
    told = received(now, errors=("two records",), faulty=2, left=1, left_mails=7)
    assert change(reports.keep, told)
    (listed,) = look(reports.listed, now - DAY)
    assert (listed.org, listed.mails, listed.proof) == ("google.com", 22, Proof.DMARC)
    assert look(reports.one, listed.number) == told
    assert look(reports.one, listed.number + 1) is None


def test_the_same_report_is_kept_once(change, look, now):
    assert change(reports.keep, received(now))
    assert not change(reports.keep, received(now + 5))
    assert change(reports.keep, received(now, id="43"))
    assert change(reports.keep, received(now, domain="www.ours.example"))
    assert len(look(reports.listed, 0.0)) == 3


def test_a_forged_report_gives_way_to_the_genuine_one_and_never_replaces_it(change, look, now):
    forged = received(now, RECORDS[1:], proof=Proof.NONE)
    assert change(reports.keep, forged)
    assert not change(reports.keep, forged)
    assert change(reports.keep, received(now))
    assert not change(reports.keep, forged)
    (listed,) = look(reports.listed, 0.0)
    assert look(reports.one, listed.number) == received(now)


def test_nobody_keeps_out_the_report_of_another_by_guessing_its_id(change, look, now):
    genuine, forged = received(now), replace(received(now, RECORDS[1:]), sender="else.example")
    assert [change(reports.keep, one) for one in (forged, forged, genuine, genuine)] == [True, False, True, False]
    assert look(reports.totals, 0.0, sender="google.com") == {"ours.example": (15, 12)}
    assert len(look(reports.listed, 0.0)) == 2


def test_what_was_imported_is_not_counted_again_and_does_not_count_again(change, look, now):
    by_hand = replace(received(now, proof=Proof.BY_HAND), sender="")
    assert [change(reports.keep, one) for one in (by_hand, received(now))] == [True, False]
    assert [
        change(reports.keep, replace(one, report=replace(one.report, id="43"))) for one in (received(now), by_hand)
    ] == [
        True,
        False,
    ]


def test_what_nobody_proved_counts_only_where_it_is_asked_for(change, look, now):
    change(reports.keep, received(now))
    change(reports.keep, received(now, proof=Proof.NONE, id="forged"))
    assert look(reports.totals, 0.0) == {"ours.example": (15, 12)}
    assert look(reports.totals, 0.0, unproved=True) == {"ours.example": (30, 24)}
    assert look(reports.unproved_count, 0.0) == 1


def test_mails_that_came_alike_are_counted_together(change, look, now):
    change(reports.keep, received(now))
    change(reports.keep, replace(received(now, RECORDS[:1], org="yahoo.com"), sender="yahoo.com"))
    first, second = look(reports.tallies, 0.0)
    assert (first.source, first.mails, first.reporters, first.passed) == ("192.0.2.1", 24, 2, True)
    assert (second.source, second.mails, second.passed) == ("2001:db8::1", 3, False)


@pytest.mark.parametrize(("asked", "found"), [("", 3), ("ours.example", 2), ("www.ours.example", 1), ("s.example", 0)])
def test_a_domain_stands_for_those_below_it(asked, found, change, look, now):
    for domain in ("ours.example", "www.ours.example", "theirs.example"):
        change(reports.keep, received(now, domain=domain))
    assert len(look(reports.listed, 0.0, asked)) == found
    assert len(look(reports.totals, 0.0, asked)) == found


def test_what_one_sender_told_can_be_seen_alone(change, look, now):
    change(reports.keep, received(now))
    change(reports.keep, replace(received(now, RECORDS[:1], id="43"), sender="forger.example"))
    assert look(reports.totals, 0.0, sender="google.com") == {"ours.example": (15, 12)}
    assert [one.mails for one in look(reports.tallies, 0.0, sender="forger.example")] == [12]
    assert [one.id for one in look(reports.listed, 0.0, sender="forger.example")] == ["43"]


def test_only_reports_of_the_time_that_is_asked_for_count(change, look, now):
    change(reports.keep, received(now))
    assert look(reports.listed, now) == []
    assert look(reports.totals, now) == {}


def test_old_reports_are_forgotten_with_their_records_a_piece_at_a_time(change, look, now, monkeypatch):
    monkeypatch.setattr(reports, "_FORGOTTEN", 2)
    change(reports.keep, received(now, RECORDS * 2))
    change(reports.keep, received(now + DAY, id="43"))
    pieces = 0
    while change(reports.forget, now + 1):
        pieces += 1
    assert pieces > 1
    assert [one.id for one in look(reports.listed, 0.0)] == ["43"]
    assert look(reports.totals, 0.0) == {"ours.example": (15, 12)}


def test_nobody_fills_the_tables_with_reports(change, look, now, monkeypatch):
    monkeypatch.setattr(reports, "_DAILY", {Proof.DMARC: 4, Proof.NONE: 2})

    def kept(number, proof=Proof.DMARC, sender="google.com", at=now):
        return change(reports.keep, replace(received(at, id=number, proof=proof), sender=sender))

    assert [kept("1"), kept("2"), kept("3")] == [True, True, False]
    assert [kept("3", sender="mail.google.com"), kept("3", sender="ogle.com"), kept("3", sender="yahoo.com")] == [
        False,
        True,
        True,
    ]
    assert [kept("4", Proof.NONE, "a.example"), kept("5", Proof.NONE, "b.example")] == [True, False]
    assert [kept("6", Proof.BY_HAND) for _ in range(2)] == [True, False]
    assert kept("7", at=now + DAY + 1)


def test_of_two_nodes_that_keep_a_report_at_once_one_does(store, look, now):
    begun, kept = threading.Event(), []

    def keep():
        begun.set()
        with store.begin() as conn:
            kept.append(reports.keep(conn, received(now)))

    other = threading.Thread(target=keep)
    with store.begin() as conn:
        assert reports.keep(conn, received(now))
        other.start()
        begun.wait(10)
        time.sleep(0.1)  # it has met the first by now, or will: both ways it must come to the same
    other.join(10)
    assert kept == [False]
    assert look(reports.totals, 0.0) == {"ours.example": (15, 12)}


def test_a_report_is_kept_with_its_mail_or_not_at_all(put, look, change, now):
    put(State.MAILBOX, mailbox="alice", mail={"report": received(now)})
    assert len(look(reports.listed, 0.0)) == 1
    with pytest.raises(ValueError, match="names the mailbox"):
        put(State.MAILBOX, mail={"report": replace(received(now), report=replace(received(now).report, id="43"))})
    assert len(look(reports.listed, 0.0)) == 1

"""Reports that others send come by mail, and the command shows them: those that are proved, and those that anybody wrote."""

from typing import Any

import pytest

from tests.e2e.gateway import Gateway, id_in
from tests.feedback import attachment, gzipped, mail, record, report, zipped
from tests.peers import clients

pytestmark = pytest.mark.e2e

TO, LONG_AGO = "alice+dmarc@in.example", "36500"


def sent(gateway: Gateway, sender: str, data: bytes) -> str:
    """The id of a mail that brings the attachment *data*, as soon as it is taken."""
    raw = mail(attachment(data, "application/gzip", "report.xml.gz"), sender=sender)
    done = clients.swaks(gateway.mx(), sender, [TO], raw)
    assert done.code == 0, done.output
    return id_in("".join(line for line in done.output.splitlines() if line.startswith("<-  250 2.0.0")))


def shown(gateway: Gateway, *words: str) -> Any:
    done = gateway.cli("dmarc", *words, "--days", LONG_AGO, "--json")
    assert done.code == 0, done
    return done.json


def test_reports_come_by_mail_and_only_proved_ones_count(gateway: Gateway) -> None:
    genuine = report(record("192.0.2.7", "5"), record("2001:db8::7", "2"), domain="in.example", org="honest.example")
    forged = report(record("192.0.2.8", "900"), domain="in.example", org="honest.example", number="2")
    mail_id = sent(gateway, "dmarc@honest.example", gzipped(genuine))
    sent(gateway, "dmarc@unknown.example", zipped(forged))
    told = shown(gateway, "report", "in.example")
    (domain,) = told["domains"]
    assert (domain["mails"], domain["passed"], told["unproved_reports"]) == (7, 7, 1)
    assert [one["source"] for one in domain["sources"]] == ["192.0.2.7", "2001:db8::7"]
    proved = {one["message_id"]: (one["sender"], one["proof"]) for one in shown(gateway, "reports")}
    assert proved[mail_id] == ("honest.example", "dmarc")
    assert sorted(proof for _, proof in proved.values()) == ["", "dmarc"]
    assert gateway.life(mail_id)["evidence"]["report"].startswith("a report by honest.example about in.example")
    assert len(gateway.fetch("alice")) == 2


def test_a_bomb_in_place_of_a_report_is_held_and_told(gateway: Gateway) -> None:
    mail_id = sent(gateway, "dmarc@honest.example", gzipped(b"<feedback>" + b"<a>" * (30 << 20)))
    life = gateway.life(mail_id)
    assert life["evidence"]["report"].startswith(
        "not read: the mail that should hold a report cannot be read for certain"
    )
    assert [one["delivery"]["state"] for one in life["deliveries"]] == ["held"]

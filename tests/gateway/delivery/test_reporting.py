"""Each day's reports go out once, to those who want them, whatever fails in between; nothing else is forgotten."""

from __future__ import annotations

import asyncio
import email
import gzip
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field, replace
from xml.etree import ElementTree as ET

import pytest
from sqlalchemy import func, select

from gateway import failpoints
from gateway.delivery import reporting
from gateway.delivery.reporting import Reporting
from gateway.model import Temporary
from gateway.stages import Reports
from gateway.store import observations, schema
from gateway.store.engine import Store
from gateway.store.observations import DAY, Observation, Published, Row
from tests.gateway.delivery.fakes import FakeDns

TODAY = 20_000 * DAY
ROW = Row("192.0.2.1", "reject", "fail", "fail", "owner.example", "else.example")


@dataclass
class Desk:
    """Reporting on a real store, with an intake that only settles, and a clock that stands still."""

    store: Store
    dns: FakeDns = field(default_factory=FakeDns)
    policy: Reports = field(default_factory=lambda: Reports(send="always"))
    now: float = TODAY + 12 * 3600
    sent: list = field(default_factory=list)
    trouble: Exception | None = None

    def reporting(self):
        return Reporting(self.store, self, self.dns, lambda: self.policy, "gw.us.example", now=lambda: self.now)

    async def report(self, mail, sender, recipients, settle):
        if self.trouble is not None:
            raise self.trouble
        await self.store.write(settle)
        self.sent.append((sender, [one.address for one in recipients], email.message_from_bytes(mail)))
        return "m1"

    def observe(self, *ats, domain="owner.example", row=ROW, rua=("mailto:rua@owner.example",), p="reject"):
        with self.store.begin() as conn:
            for at in ats:
                observations.add(conn, Observation(at, Published(domain, p=p, rua=rua), row))

    def look(self):
        asyncio.run(self.reporting().look())

    def left(self):
        with self.store.reading() as conn:
            return conn.scalar(select(func.count()).select_from(schema.dmarc_observation))

    def told(self):
        with self.store.reading() as conn:
            return observations.sent(conn, 100)


@pytest.fixture
def desk(tmp_path):
    store = Store(f"sqlite:///{tmp_path / 'data' / 'gatepost.db'}", patience=5.0)
    store.migrate()
    yield Desk(store)
    store.close()


def xml_of(mail):
    return ET.fromstring(gzip.decompress(mail.get_payload(1).get_payload(decode=True)))


def values(mail, name):
    return [one.text for one in xml_of(mail).iter(f"{{urn:ietf:params:xml:ns:dmarc-2.0}}{name}")]


def test_a_day_is_told_once_and_then_forgotten(desk):
    desk.observe(TODAY - 5, TODAY - 6, TODAY - DAY)
    desk.look()
    desk.look()
    ((sender, to, mail),) = desk.sent
    assert (sender, to) == ("dmarc-reports@gw.us.example", ["rua@owner.example"])
    assert values(mail, "count") == ["3"]
    assert values(mail, "begin") == [str(int(TODAY - DAY))]
    assert desk.left() == 0
    assert [(one.domain, one.begins, one.mails, one.outcome) for one in desk.told()] == [
        ("owner.example", TODAY - DAY, 3, "sent to rua@owner.example")
    ]


def test_who_reports_is_as_the_policy_says(desk):
    desk.policy = Reports(send="always", organisation="Us", contact="https://us.example", sender="r@us.example")
    desk.observe(TODAY - 5)
    desk.look()
    ((sender, _, mail),) = desk.sent
    assert (sender, mail["From"]) == ("r@us.example", "DMARC reports <r@us.example>")
    assert (values(mail, "org_name"), values(mail, "email")) == (["Us"], ["https://us.example"])


def test_the_begun_day_is_never_told(desk):
    desk.observe(TODAY, TODAY + 3600)
    desk.look()
    assert (desk.sent, desk.left()) == ([], 2)
    desk.now = TODAY + DAY + 12 * 3600
    desk.look()
    assert (len(desk.sent), desk.left()) == (1, 0)


def test_days_that_were_missed_have_a_report_each(desk):
    desk.observe(TODAY - 5, TODAY - DAY - 5, TODAY + 5)
    desk.look()
    desk.look()
    assert [values(mail, "begin") for _, _, mail in desk.sent] == [[str(int(TODAY - 2 * DAY))], [str(int(TODAY - DAY))]]
    assert desk.left() == 1


def test_a_mail_that_comes_to_a_day_that_was_told_is_not_told_again(desk):
    desk.observe(TODAY - 5)
    desk.look()
    desk.observe(TODAY - 4)
    desk.look()
    assert (len(desk.sent), desk.left()) == (1, 0)


def test_each_domain_has_a_moment_of_its_own_after_the_end_of_the_day(desk):
    for n in range(20):
        desk.observe(TODAY - 5, domain=f"d{n}.example")
    moments = {}
    for minutes in range(0, 5 * 60, 5):
        desk.now = TODAY + 60 * minutes
        desk.look()
        moments |= {one.domain: minutes for one in desk.told() if one.domain not in moments}
    assert len(moments) == 20
    assert min(moments.values()) >= 15
    assert max(moments.values()) <= 15 + 4 * 60 + 5
    assert len(set(moments.values())) > 5


@pytest.mark.parametrize("send", ["never", "auto"])
def test_where_reports_are_off_nothing_goes_out_and_what_is_old_is_forgotten(desk, send):
    desk.policy = Reports(send=send)  # the name of this host ends in .example
    desk.observe(TODAY - 5, TODAY - 8 * DAY)
    desk.look()
    assert (desk.sent, desk.left()) == ([], 1)


def test_a_domain_whose_reader_wants_nothing_is_settled_and_that_is_told(desk):
    desk.observe(TODAY - 5, TODAY - 6, rua=("mailto:a@victim.example",))
    desk.look()
    assert (desk.sent, desk.left()) == ([], 0)
    assert [(one.mails, one.outcome) for one in desk.told()] == [
        (2, "sent to nobody; not to a@victim.example: its domain does not say that it wants these reports")
    ]


def test_a_domain_that_is_none_never_gets_into_a_header(desk):
    desk.observe(TODAY - 5, domain='a"\r\nBcc: x.example', rua=("mailto:a@b.example",))
    desk.look()
    assert [one.outcome for one in desk.told()] == ["sent to nobody; not to it is no domain"]


def test_what_the_dns_cannot_tell_is_asked_again_for_a_day_and_then_given_up(desk):
    question = "TXT owner.example._report._dmarc.reader.example"
    desk.dns.table[question] = Temporary("nobody answers")
    desk.observe(TODAY - 5, rua=("mailto:a@reader.example",))

    async def run():
        made = desk.reporting()
        for minutes, asked in ((0, 1), (10, 1), (31, 2), (24 * 60, 3)):
            desk.now = TODAY + 12 * 3600 + 60 * minutes
            await made.look()
            assert desk.dns.asked.count(question) == asked

    asyncio.run(run())
    assert desk.sent == []
    assert [one.outcome for one in desk.told()] == ["sent to nobody; not to a@reader.example: nobody answers"]


def test_one_that_could_be_asked_again_goes_out_then(desk):
    desk.dns.table["TXT owner.example._report._dmarc.reader.example"] = Temporary("nobody answers")
    desk.observe(TODAY - 5, rua=("mailto:a@reader.example",))
    desk.look()
    desk.dns.table["TXT owner.example._report._dmarc.reader.example"] = [b"v=DMARC1"]
    desk.look()
    assert [to for _, to, _ in desk.sent] == [["a@reader.example"]]


@pytest.mark.parametrize("trouble", [Temporary("disk full"), RuntimeError("a fault of ours")])
def test_one_that_cannot_be_stored_is_kept_and_holds_up_no_other(desk, trouble):
    desk.observe(TODAY - 5, domain="a.example", rua=("mailto:rua@a.example",))
    desk.observe(TODAY - 5, domain="b.example", rua=("mailto:x@nobody.example",))
    desk.trouble = trouble
    desk.look()
    assert ([one.domain for one in desk.told()], desk.left()) == (["b.example"], 1)
    desk.trouble = None
    desk.look()
    assert (len(desk.sent), desk.left()) == (1, 0)
    assert {one.domain for one in desk.told()} == {"a.example", "b.example"}


class SilentDns(FakeDns):
    """Never answers a question about silent.example."""

    async def txt(self, name):
        if name.endswith("silent.example"):
            await asyncio.Event().wait()
        return await super().txt(name)


def test_domains_whose_name_servers_are_silent_keep_nobody_else_waiting(desk):
    desk.dns = SilentDns()
    for number in range(reporting.AT_ONCE - 1):
        desk.observe(TODAY - 60, domain=f"a{number}.example", rua=("mailto:rua@silent.example",))
    desk.observe(TODAY - 60)

    async def look():
        task = asyncio.create_task(desk.reporting().look())
        async with asyncio.timeout(10):
            while desk.left() == reporting.AT_ONCE:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(look())
    assert [one.domain for one in desk.told()] == ["owner.example"]
    assert desk.left() == reporting.AT_ONCE - 1


def test_two_nodes_at_once_send_one_report(desk):
    desk.observe(*(TODAY - n for n in range(1, 50)))

    async def both():
        await asyncio.gather(desk.reporting().look(), desk.reporting().look())

    asyncio.run(both())
    assert (len(desk.sent), desk.left()) == (1, 0)


def test_the_policy_that_was_found_last_and_the_sum_of_both_are_told(desk):
    desk.observe(TODAY - 9, p="none")
    desk.observe(TODAY - 5, TODAY - 6, p="quarantine")
    desk.look()
    ((_, _, mail),) = desk.sent
    assert values(mail, "p") == ["quarantine"]
    assert values(mail, "count") == ["2", "1"]


def test_a_report_has_no_more_rows_than_the_policy_says_and_tells_what_is_left_out(desk):
    desk.policy = Reports(send="always", rows=3)
    for n in range(10):
        desk.observe(*[TODAY - 5] * (10 - n), row=replace(ROW, source=f"192.0.2.{n}"))
    desk.look()
    ((_, _, mail),) = desk.sent
    assert values(mail, "count") == ["10", "9", "8"]
    assert values(mail, "error") == ["This report is not complete: 28 more mails did not fit into it."]
    assert [one.mails for one in desk.told()] == [55]


# ---- By hand ------------------------------------------------------------------------------------------------------


def work_off(desk, **which):
    async def run():
        return [one async for one in desk.reporting().work_off(**which)]

    return [(one.domain, one.begins) for one in asyncio.run(run())]


def test_by_hand_every_day_that_has_ended_goes_out_at_once(desk):
    desk.now = TODAY + 60
    desk.observe(TODAY - 5, TODAY - DAY - 5, TODAY + 5)
    desk.observe(TODAY - 5, domain="other.example", rua=("mailto:rua@other.example",))
    assert (
        work_off(desk)
        == [
            ("other.example", TODAY - DAY),
            ("owner.example", TODAY - 2 * DAY),
            ("owner.example", TODAY - DAY),
        ]
        or sorted(work_off(desk)) == []
    )
    assert desk.left() == 1


def test_by_hand_one_domain_and_the_days_until_one_may_be_chosen(desk):
    desk.observe(TODAY - 5, TODAY - DAY - 5)
    desk.observe(TODAY - 5, domain="other.example")
    assert work_off(desk, domain="owner.example", until=TODAY - DAY) == [("owner.example", TODAY - 2 * DAY)]
    assert work_off(desk, until=TODAY + 9 * DAY, domain="owner.example") == [("owner.example", TODAY - DAY)]
    assert desk.left() == 1


def test_a_draft_settles_nothing(desk):
    desk.observe(TODAY - 5)

    async def run():
        return [one async for one in desk.reporting().drafts()]

    (draft,) = asyncio.run(run())
    assert (draft.mails, draft.to.addresses) == (1, ("rua@owner.example",))
    assert b"<count>1</count>" in gzip.decompress(draft.file)
    assert (desk.sent, desk.told(), desk.left()) == ([], [], 1)


# ---- Killed in between --------------------------------------------------------------------------------------------


LOOK = """
import sys
from gateway import failpoints
from gateway.store.engine import Store
from tests.gateway.delivery.test_reporting import Desk
failpoints.arm("deliver")
Desk(Store(sys.argv[1])).look()
"""


@pytest.mark.parametrize(("place", "told"), [("report", 0), ("report-settle", 0), ("reported", 1)])
def test_a_process_that_is_killed_in_between_sends_it_once(desk, tmp_path, place, told):
    desk.observe(TODAY - 5, TODAY - 6)
    (tmp_path / f"deliver.{place}").write_text("kill")
    command = [sys.executable, "-c", LOOK, str(desk.store.engine.url)]
    killed = subprocess.run(command, env={**os.environ, failpoints.FOLDER: str(tmp_path)}, check=False, timeout=30)
    assert killed.returncode == -signal.SIGKILL
    assert len(desk.told()) == told
    desk.look()
    assert (len(desk.told()), len(desk.sent), desk.left()) == (1, 1 - told, 0)


def test_the_loop_goes_on_after_trouble_and_ends_when_it_is_told_to(desk, monkeypatch):
    monkeypatch.setattr(reporting, "EVERY", 0.001)
    looks = []

    async def look(self):
        looks.append(len(looks))
        raise (Temporary("not now"), RuntimeError("a fault"))[len(looks) % 2]

    monkeypatch.setattr(Reporting, "look", look)

    async def run():
        task = asyncio.create_task(desk.reporting().run())
        async with asyncio.timeout(5):
            while len(looks) < 4:
                await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())

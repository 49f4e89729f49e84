"""What we report to others we could read ourselves: nothing is lost between the composing and the reading of a report."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.delivery import aggregate
from gateway.delivery.aggregate import Records, Subject
from gateway.model import ReportRecord
from gateway.pipeline import feedback
from gateway.pipeline.content import parse
from gateway.stages import Content as ContentPolicy
from gateway.store.observations import DAY, Published, Row
from tests.fuzz.effort import examples

LIMITS = ContentPolicy.Settings()
BEGINS = 20_000 * DAY
ABOUT = Subject("ours.example", BEGINS, BEGINS + DAY, "gw.us.example", "Us & Söhne", "postmaster@gw.us.example")
PUBLISHED = Published("ours.example", "treewalk", "reject", "none", "reject", "r", "s", "n")
ROW = Row(
    "2001:db8::1", "quarantine", "fail", "pass", "news.ours.example", "else.example", "us.example",
    reasons=(("local_policy", "held for <some>"), ("mailing_list", "")),
    signatures=(("d.example", "s1", "fail"), ("e.example", "s2", "temperror")), checked=("else.example", "softfail"),
)  # fmt: skip


def read(*rows, room=1 << 20):
    """The mail that we would send, as the confined child reads it."""
    records = Records(room)
    for row, mails in rows:
        records.add(row, mails)
    file = aggregate.packed(aggregate.xml(ABOUT, PUBLISHED, records))
    sender, to = "dmarc-reports@gw.us.example", ["dmarc@ours.example"]
    message = aggregate.mail(ABOUT, file, mails=records.mails, sender=sender, to=to, now=BEGINS + 2 * DAY)
    return feedback.read(message, parse(message, LIMITS), LIMITS)


def test_a_report_of_ours_says_to_us_what_it_was_made_of():
    told = read((ROW, 17))
    assert (told.fault, told.org, told.email) == ("", "Us & Söhne", "postmaster@gw.us.example")
    assert (told.id, told.domain) == (ABOUT.id, "ours.example")
    assert (told.begins, told.ends) == (BEGINS, BEGINS + DAY - 1)
    published = {"p": "reject", "sp": "none", "np": "reject", "adkim": "r", "aspf": "s", "testing": "n"}
    assert dict(told.policy) == published | {"discovery_method": "treewalk"}
    assert told.records == (
        ReportRecord(
            source="2001:db8::1",
            count=17,
            disposition="quarantine",
            dkim="fail",
            spf="pass",
            header_from="news.ours.example",
            envelope_from="else.example",
            reasons=("local_policy", "mailing_list"),
            results=(
                ("dkim", "fail", "d.example", "s1"),
                ("dkim", "temperror", "e.example", "s2"),
                ("spf", "softfail", "else.example", "mfrom"),
            ),
        ),
    )


def test_a_report_that_was_cut_says_so():
    told = read((ROW, 17), (ROW, 4), room=1000)
    assert sum(one.count for one in told.records) == 17
    assert told.errors == ("This report is not complete: 4 more mails did not fit into it.",)


@settings(max_examples=examples(40), deadline=None)
@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40), st.integers(1, 10**9))
def test_whatever_strangers_wrote_into_what_is_told_the_report_can_be_read(domain, selector, comment, count):
    row = Row(
        "192.0.2.1", "none", "pass", "fail", domain, domain,
        reasons=(("other", comment),), signatures=((domain, selector, "pass"),),
    )  # fmt: skip
    told = read((row, count))
    assert (told.fault, told.faulty, told.left) == ("", 0, 0)
    assert [one.count for one in told.records] == [count]

"""Reports are what RFC 9990 says they are, whatever strangers wrote into what they tell of."""

import email
import email.policy
import gzip
import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery import aggregate
from gateway.delivery.aggregate import NAMESPACE, Records, Subject
from gateway.pipeline import content, feedback
from gateway.stages import Content, Reports
from gateway.store.observations import DAY, Published, Row

BEGINS = 20_000 * DAY
ABOUT = Subject("owner.example", BEGINS, BEGINS + DAY, "gw.us.example", "Us & Söhne", "postmaster@gw.us.example")
PUBLISHED = Published("owner.example", "treewalk", "reject", "none", "", "r", "s", "y", "1:d", ("mailto:a@x.example",))
ROW = Row(
    "192.0.2.1", "quarantine", "fail", "pass", "news.owner.example", "else.example", "us.example",
    reasons=(("local_policy", "held for <some>"), ("policy_test_mode", "")),
    signatures=(("d.example", "s1", "fail"), ("e.example", "s2", "temperror")), checked=("else.example", "softfail"),
)  # fmt: skip

POLICY = "none|quarantine|reject"
RESULT = "none|pass|fail|policy|neutral|temperror|permerror"
# Element: (name, how often, what is in it) - the schema of RFC 9990, Appendix A, with sequences in their order.
SCHEMA = [
    ("version", "1", r"1\.0"),
    ("report_metadata", "1", [
        ("org_name", "1", ".+"), ("email", "1", ".+"), ("report_id", "1", r"[\w.@-]+"),
        ("date_range", "1", [("begin", "1", r"\d+"), ("end", "1", r"\d+")]),
        ("error", "?", ".+"), ("generator", "?", ".+"),
    ]),
    ("policy_published", "1", [
        ("domain", "1", ".*"), ("p", "1", POLICY), ("sp", "?", POLICY), ("np", "?", POLICY), ("adkim", "?", "r|s"),
        ("aspf", "?", "r|s"), ("discovery_method", "?", "psl|treewalk"), ("testing", "?", "n|y"), ("fo", "?", ".+"),
    ]),
    ("record", "+", [
        ("row", "1", [
            ("source_ip", "1", r"[0-9a-f.:]+"), ("count", "1", r"[1-9]\d*"),
            ("policy_evaluated", "1", [
                ("disposition", "1", f"{POLICY}|pass"), ("dkim", "1", "pass|fail"), ("spf", "1", "pass|fail"),
                ("reason", "*", [
                    ("type", "1", "local_policy|mailing_list|other|policy_test_mode|trusted_forwarder"),
                    ("comment", "?", ".+"),
                ]),
            ]),
        ]),
        ("identifiers", "1", [("header_from", "1", ".*"), ("envelope_from", "?", ".*"), ("envelope_to", "?", ".+")]),
        ("auth_results", "1", [
            ("dkim", "*", [("domain", "1", ".*"), ("selector", "1", ".*"), ("result", "1", RESULT)]),
            ("spf", "?", [("domain", "1", ".*"), ("scope", "?", "mfrom"), ("result", "1", f"{RESULT}|softfail")]),
        ]),
    ]),
]  # fmt: skip


def demand(element, schema):
    """Fail where *element* does not hold what *schema* says, in its order."""
    if isinstance(schema, str):
        assert len(element) == 0
        assert re.fullmatch(schema, element.text or "", re.DOTALL), (element.tag, element.text)
        return
    children = list(element)
    for name, times, inside in schema:
        tag = f"{{{NAMESPACE}}}{name}"
        mine = []
        while children and children[0].tag == tag:
            mine.append(children.pop(0))
        assert {"1": len(mine) == 1, "?": len(mine) <= 1, "+": len(mine) >= 1, "*": True}[times], (name, len(mine))
        for one in mine:
            demand(one, inside)
    assert not children, children


def report(*rows, published=PUBLISHED, about=ABOUT, room=1 << 20):
    records = Records(room)
    for row, mails in rows:
        records.add(row, mails)
    root = ET.fromstring(b"".join(aggregate.xml(about, published, records)))
    assert root.tag == f"{{{NAMESPACE}}}feedback"
    demand(root, SCHEMA)
    return root


def values(root, name):
    return [one.text or "" for one in root.iter(f"{{{NAMESPACE}}}{name}")]


def test_a_report_says_who_tells_whom_of_what():
    root = report((ROW, 17))
    assert values(root, "org_name") == ["Us & Söhne"]
    assert values(root, "report_id") == [f"{BEGINS:.0f}.owner.example@gw.us.example"]
    assert (values(root, "begin"), values(root, "end")) == ([f"{BEGINS:.0f}"], [f"{BEGINS + DAY - 1:.0f}"])
    assert [values(root, name) for name in ("p", "sp", "np", "testing")] == [["reject"], ["none"], [], ["y"]]
    assert values(root, "error") == []


def test_a_row_is_told_with_its_count_and_all_results():
    root = report((ROW, 17))
    assert (values(root, "source_ip"), values(root, "count")) == (["192.0.2.1"], ["17"])
    assert (values(root, "disposition"), values(root, "header_from")) == (["quarantine"], ["news.owner.example"])
    assert values(root, "type") == ["local_policy", "policy_test_mode"]
    assert values(root, "comment") == ["held for <some>"]
    assert values(root, "selector") == ["s1", "s2"]
    assert values(root, "result") == ["fail", "temperror", "softfail"]


def test_without_a_sender_the_envelope_says_so_and_spf_may_be_missing():
    root = report((Row("2001:db8::1", "none", "fail", "fail", "owner.example"), 1))
    assert values(root, "envelope_from") == [""]
    assert values(root, "envelope_to") == values(root, "scope") == []


def test_words_that_the_schema_does_not_know_are_not_written():
    odd = Row("192.0.2.1", "burned", "maybe", "", "a.example", reasons=(("because", "x"),),
              signatures=(("d.example", "s", "softfail"),), checked=("a.example", "weird"))  # fmt: skip
    root = report((odd, 1), published=Published("owner.example", "magic", "shout", "?", "", "x", "", "", ""))
    assert (values(root, "p"), values(root, "sp"), values(root, "discovery_method")) == (["none"], [], [])
    assert (values(root, "disposition"), values(root, "type")) == (["none"], ["other"])


def test_what_does_not_fit_is_left_out_and_counted():
    one = len(aggregate._record(ROW, 5).encode())
    root = report((ROW, 5), (ROW, 4), (ROW, 3), room=one + 10)
    assert values(root, "count") == ["5"]
    (told,) = values(root, "error")
    assert "7 more mails" in told


hostile = st.text(st.characters(exclude_categories=()), max_size=60) | st.sampled_from(
    ["]]></record>", "<!DOCTYPE a>", "&amp;", "\0", "\ud800", "\x1b[1m", "\ufffe", "a\r\nb", "</feedback>", "😀"]
)


@given(hostile, hostile, hostile)
def test_no_text_of_a_stranger_breaks_the_xml_or_gets_out_of_its_element(name, other, third):
    row = Row(
        "192.0.2.1", "reject", "fail", "fail", name, other, third, ((other, name),), ((name, other, third),), (name, other)
    )  # fmt: skip
    root = report((row, 1), (ROW, 2), published=Published(other, third, name, fo=name))
    assert values(root, "count") == ["1", "2"]
    plain = aggregate._UNWRITABLE.sub("?", name)
    assert values(root, "header_from")[0] == plain.replace("\r\n", "\n").replace("\r", "\n")


# ---- The mail -----------------------------------------------------------------------------------------------------


def composed(file=b"x" * 5000, about=ABOUT, to=("a@x.example", "b@y.example")):
    raw = aggregate.mail(about, file, mails=1, sender="dmarc-reports@gw.us.example", to=to, now=BEGINS + DAY + 5)
    return raw, email.message_from_bytes(raw, policy=email.policy.default)


def test_the_mail_is_named_by_the_grammar_of_the_rfc():
    _, mail = composed()
    assert re.fullmatch(
        r"Report\s+Domain:\s+owner\.example\s+Submitter:\s+gw\.us\.example\s+Report-ID:\s+<[0-9]+\.owner\.example@gw\.us\.example>",
        mail["Subject"],
    )
    assert mail["From"].addresses[0].addr_spec == "dmarc-reports@gw.us.example"
    assert [one.addr_spec for one in mail["To"].addresses] == ["a@x.example", "b@y.example"]
    assert mail["Message-ID"] == f"<{ABOUT.id}>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert not mail.defects


def test_the_file_is_attached_under_its_name():
    pieces = [b"<a>", b"b" * 100_000, b"</a>"]
    raw, mail = composed(aggregate.packed(pieces))
    letter, attached = mail.iter_parts()
    assert letter.get_content_type() == "text/plain"
    assert "owner.example" in letter.get_content()
    assert attached.get_content_type() == "application/gzip"
    assert attached.get_filename() == f"gw.us.example!owner.example!{BEGINS:.0f}!{BEGINS + DAY - 1:.0f}.xml.gz"
    assert gzip.decompress(attached.get_content()) == b"".join(pieces)
    assert aggregate.packed(pieces) == aggregate.packed([b"".join(pieces)])
    assert raw.isascii()


@pytest.mark.parametrize("size", [0, 1, 56, 57, 58, 10_000])
def test_every_line_ends_in_crlf_and_is_short(size):
    long = Subject("x" * 63 + ".example", BEGINS, BEGINS + DAY, "y" * 63 + ".us.example", "o", "c")
    raw, _ = composed(b"z" * size, long, to=[f"{n}{'l' * 60}@{'d' * 63}.example" for n in range(20)])
    lines = raw.split(b"\r\n")
    assert lines[-1] == b""
    assert not any(b"\n" in line or b"\r" in line for line in lines)
    assert max(map(len, lines)) <= 998


# ---- The other end ------------------------------------------------------------------------------------------------

LIMITS = Content.Settings()


def received(rows, policy=None):
    """What a gateway like ours reads in the mail that we send."""
    policy = policy or Reports()
    records = Records(policy.size)
    for one, mails in rows:
        records.add(one, mails)
    raw, _ = composed(aggregate.packed(aggregate.xml(ABOUT, PUBLISHED, records)))
    return feedback.read(raw, content.parse(raw, LIMITS), LIMITS)


def test_what_we_send_we_can_read():
    told = received([(ROW, 17), (Row("2001:db8::1", "none", "pass", "fail", "owner.example"), 4)])
    assert (told.fault, told.faulty, told.left, told.errors) == ("", 0, 0, ())
    assert (told.org, told.email, told.id) == (ABOUT.organisation, ABOUT.contact, ABOUT.id)
    assert (told.domain, told.begins, told.ends) == ("owner.example", BEGINS, BEGINS + DAY - 1)
    assert dict(told.policy).items() >= {"p": "reject", "sp": "none", "adkim": "r", "aspf": "s"}.items()
    first, second = told.records
    assert (first.source, first.count, first.disposition, first.dkim, first.spf) == (
        "192.0.2.1", 17, "quarantine", "fail", "pass"
    )  # fmt: skip
    assert (first.header_from, first.envelope_from) == ("news.owner.example", "else.example")
    assert (second.source, second.count, second.dkim) == ("2001:db8::1", 4, "pass")


def test_the_largest_report_that_we_send_can_be_read():
    policy = Reports()
    signatures = (("d.example", "s1", "pass"), ("e.example", "s2", "fail"))
    rows = (
        (replace(ROW, source=f"10.0.{n >> 8}.{n & 255}", signatures=signatures), 1 + n % 7) for n in range(policy.rows)
    )
    told = received(rows, policy)
    assert (told.fault, told.faulty) == ("", 0)
    assert len(told.records) + told.left == policy.rows

"""Reports as reporters write them, and as attackers do: what is read, what is said of the rest, and what it costs."""

import io
import random
import re
import time
import zipfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Content, Report
from gateway.pipeline import feedback
from gateway.pipeline.content import parse
from gateway.pipeline.crossing import SCANNED, Scanned, fits
from gateway.stages import Content as ContentPolicy
from tests.feedback import BEGINS, attachment, bare, gzipped, head, mail, record, report, sample, zipped
from tests.fuzz.effort import examples

LIMITS = ContentPolicy.Settings()
PLAIN = report()


def read(message: bytes) -> Report:
    return feedback.read(message, parse(message, LIMITS), LIMITS)


def attached(data: bytes, kind: str = "application/gzip", name: str = "report.xml.gz") -> Report:
    return read(mail(attachment(data, kind, name)))


# ---- As reporters write them --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "org", "mails"),
    [
        ("google", "google.com", 15),
        ("microsoft", "Enterprise Outlook", 1),
        ("yahoo", "Yahoo", 4),
        ("rfc9990", "Reporter & Söhne", 123),
        ("prefixed", "AOL", 2),
        ("windows1252", "Bücher €", 4),
        ("utf16", "日本", 4),
        ("bom", "Yahoo", 4),
    ],
)
@pytest.mark.parametrize("packed", [zipped, gzipped, bytes])
def test_reports_are_read_as_reporters_write_them(name, org, mails, packed):
    told = attached(packed(sample(name)))
    assert (told.fault, told.org, told.faulty, told.left) == ("", org, 0, 0)
    assert sum(one.count for one in told.records) == mails
    assert (told.begins, told.ends - told.ends % 10) in {(BEGINS, BEGINS + 86390), (BEGINS, BEGINS + 86400)}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("application/gzip", "reporter.example!ours.example!1735689600!1735776000.xml.gz"),
        ("application/x-gzip", ""),
        ("application/octet-stream", "report.xml.gz"),
        ("application/zip", "wrong.zip"),
        ("text/xml", "wrong.xml"),
        ("application/octet-stream", ""),
    ],
)
def test_a_report_is_found_by_type_by_name_or_by_its_first_octets(kind, name):
    part = attachment(gzipped(PLAIN), kind, name)
    assert read(mail(part)).org == read(bare(part)).org == "reporter.example"


def test_an_attachment_that_is_no_report_hides_none():
    picture, other = attachment(b"x", "text/xml", "x.xml"), attachment(b"<html/>", "text/xml", "y.xml")
    assert read(mail(picture, other, attachment(PLAIN, "text/xml", "report.xml"))).org == "reporter.example"


def test_everything_that_a_record_says_is_kept_and_nothing_else():
    told = attached(sample("microsoft"))
    (one,) = told.records
    assert told.policy == (("p", "quarantine"), ("sp", "quarantine"), ("adkim", "r"), ("aspf", "s"), ("pct", "100"))
    assert (one.source, one.header_from, one.envelope_from) == ("2001:db8::17", "news.ours.example", "lists.example")
    assert (one.disposition, one.dkim, one.spf, one.reasons) == ("none", "pass", "fail", ("mailing_list",))
    assert one.results == (
        ("dkim", "pass", "ours.example", "s1"),
        ("dkim", "fail", "lists.example", "list._a"),
        ("spf", "pass", "lists.example", "mfrom"),
    )


def test_a_report_of_rfc_9990_says_how_the_policy_was_found_and_what_was_wrong_with_it():
    told = attached(sample("rfc9990"))
    assert told.domain == "xn--mnchen-3ya.ours.example"
    assert dict(told.policy)["discovery_method"] == "treewalk"
    assert told.errors == ("two records at _dmarc.ours.example",)
    assert told.records[0].disposition == "pass"


def test_addresses_domains_and_words_have_one_form():
    (one,) = attached(sample("prefixed")).records
    assert (one.source, one.header_from) == ("192.0.2.9", "ours.example")
    assert one.results == (("spf", "other", "ours.example", "helo"),)


# ---- Values that are none -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (record(source="not an address"), "no record"),
        (record(source="fe80::1%\x1b[31m"), "well-formed"),
        (record(source="fe80::1%eth0"), "no record"),
        (record(count="-1"), "no record"),
        (record(count="9" * 400), "no record"),
        (record(count="٣"), "no record"),
        ("", "no record"),
    ],
)
def test_a_record_without_an_address_and_a_number_is_none(written, said):
    assert said in attached(report(written or " ")).fault


def test_broken_records_are_counted_and_the_others_kept():
    told = attached(report(record(), record(count="many"), record(source="192.0.2.256"), record("192.0.2.2")))
    assert ([one.source for one in told.records], told.faulty) == (["192.0.2.1", "192.0.2.2"], 2)


@pytest.mark.parametrize(
    "text", ["a b", "x" * 300, "&lt;b&gt;", "a..b", "-", "ex\u202eample.org", "a\u0000b"[:1] + "/"]
)
def test_what_is_no_domain_is_none(text):
    assert attached(report(record(header_from=text))).records[0].header_from == ""


def test_text_of_strangers_is_cleaned_and_capped():
    told = attached(report(org="Evil \u202e\u200b&#x85;" + "x" * 999))
    assert told.org.isprintable()
    assert len(told.org) == 200


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (f"<begin>{BEGINS}", "<begin>0", "of which time"),
        (f"<begin>{BEGINS}", "<begin>" + "9" * 400, "of which time"),
        (f"<begin>{BEGINS}", "<begin>1500000000", "of which time"),
        (f"<end>{BEGINS + 86400}", "<end>1735689599", "of which time"),
        ("<report_id>1", "<report_id>", "does not say who"),
        ("<domain>ours.example</domain><p>", "<domain>..</domain><p>", "does not say who"),
        ("<feedback>", "<html>", "no report"),
    ],
)
def test_a_report_that_says_too_little_is_none(old, new, said):
    assert old in PLAIN.decode()
    assert said in attached(PLAIN.decode().replace(old, new).encode()).fault


def test_a_report_without_an_attachment_is_none():
    assert read(mail()).fault == "the mail holds no report"


@pytest.mark.parametrize("content", [Content(unscannable="two many parts"), Content(ambiguities=("two", "many parts"))])
def test_a_mail_that_cannot_be_read_for_certain_holds_no_report_and_it_is_said_why(content):
    fault = feedback.read(mail(attachment(PLAIN, "text/xml", "x.xml")), content, LIMITS).fault
    assert re.search("for certain: two;? many parts$", fault)


# ---- Hostile ones -------------------------------------------------------------------------------------------------

LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE feedback [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY a{n} "{f"&a{n - 1 or str()};" * 10}">' for n in range(1, 10))
    + "]><feedback>&a9;</feedback>"
)
MEGABYTE = 1 << 20


def bomb(size: int) -> bytes:
    """A gzip file of *size* megabytes of spaces behind the beginning of a report."""
    packer = zlib.compressobj(9, wbits=31)
    begun = packer.compress(PLAIN[:-11]) + packer.flush(zlib.Z_FULL_FLUSH)
    spaces = packer.compress(b" " * MEGABYTE) + packer.flush(zlib.Z_FULL_FLUSH)  # means the same wherever it stands
    return begun + spaces * size + packer.flush()


def several(count: int) -> list[str]:
    """Records of as many addresses, which are packed no better than honest ones."""
    addresses = random.Random(1).sample(range(1 << 24), count)
    return [record(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}") for number in addresses]


def encrypted() -> bytes:
    data = bytearray(zipped(PLAIN))
    data[6] |= 1
    data[data.rindex(b"PK\1\2") + 8] |= 1
    return bytes(data)


def nameless() -> bytes:
    data = bytearray(zipped(PLAIN, "x"))
    directory = data.rindex(b"PK\1\2")
    data[26], data[28] = 0, 1  # the octet of the name is an extra field
    data[directory + 28], data[directory + 32] = 0, 1  # ... and a comment
    return bytes(data)


def test_a_file_without_a_name_in_a_zip_is_read_as_any_other():
    assert attached(nameless(), "application/zip", "report.zip") == attached(PLAIN, "application/xml", "report.xml")


HOSTILE = {
    "billion laughs": lambda: (LAUGHS.encode(), "document type"),
    "external entity": lambda: (
        b'<!DOCTYPE feedback [<!ENTITY x SYSTEM "file:///etc/passwd">]><feedback>&x;</feedback>',
        "document type",
    ),
    "external dtd": lambda: (
        b'<!DOCTYPE feedback SYSTEM "http://192.0.2.1/x.dtd">' + PLAIN,
        "document type",
    ),
    "gzip bomb of 1 GB": lambda: (bomb(1024), "archives hold more than"),
    "zip bomb": lambda: (zipped(b" " * (64 * MEGABYTE)), "archives unpack to more than"),
    "gzip of gzip": lambda: (gzipped(gzipped(PLAIN)), "well-formed"),
    "gzip that breaks off": lambda: (gzipped(PLAIN)[:-20], "breaks off"),
    "broken gzip": lambda: (b"\x1f\x8b\x08\x00" + b"x" * 100, "broken"),
    "broken zip": lambda: (b"PK\3\4" + b"x" * 100, "the zip file of the report is broken"),
    "encrypted zip": lambda: (encrypted(), "encrypted"),
    "zip with memory of its own": lambda: (zipped(PLAIN, method=zipfile.ZIP_LZMA), "unusual"),
    "zip without a report": lambda: (zipped(b"", "folder/"), "no report"),
    "an archive of 8 MB": lambda: (b"\x1f\x8b" + bytes(8 * MEGABYTE), "larger than"),
    "40,000 records": lambda: (gzipped(report(*several(40_000))), "larger than 10 MB"),
    "the same record 40,000 times": lambda: (gzipped(report(*[record()] * 40_000)), "archives unpack to more than"),
    "an attribute of 10 MB": lambda: (gzipped(b"<feedback a='" + b"x" * (10 * MEGABYTE - 99) + b"'/>"), "not say"),
    "a name of 10 MB": lambda: (gzipped(b"<feedback><" + b"x" * (10 * MEGABYTE - 99) + b"/></feedback>"), "not say"),
    "a text of 10 MB": lambda: (gzipped(b"<feedback>" + b"x" * (10 * MEGABYTE - 99) + b"</feedback>"), "not say"),
    "elements 100,000 deep": lambda: (gzipped(b"<feedback>" + b"<a>" * 100_000), "elements"),
    "a million elements": lambda: (gzipped(b"<feedback>" + b"<a/>" * 1_000_100), "elements"),
    "100,000 attributes": lambda: (
        gzipped(b"<feedback " + b" ".join(b"a%d=''" % n for n in range(100_000)) + b"/>"),
        "not say",
    ),
    "NUL": lambda: (PLAIN.replace(b"reporter", b"re\0porter"), "well-formed"),
    "an encoding that there is not": lambda: (b"<?xml version='1.0' encoding='x-evil'?>" + PLAIN, "well-formed"),
    "an encoding that is none": lambda: (b"<?xml version='1.0' encoding='zlib'?>" + PLAIN, "well-formed"),
    "nothing": lambda: (b"", "not say"),
    "another document": lambda: (b"<html><feedback/></html>", "no report"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_report_is_none_and_costs_little(name):
    data, said = HOSTILE[name]()
    message = mail(attachment(data, "application/octet-stream", "report.xml.gz"))
    before = time.process_time()
    told = read(message)
    assert time.process_time() - before < 2.0
    assert said in told.fault
    assert told == Report(told.fault)


@pytest.mark.parametrize("packed", [lambda: bomb(1024), lambda: zipped(b" " * (64 * MEGABYTE))])
def test_a_bomb_that_the_parser_let_through_would_be_unpacked_up_to_the_limit_of_a_report(packed):
    with pytest.raises(feedback.Unreadable, match="larger than 10 MB"):
        feedback.unpacked(io.BytesIO(packed()))


def test_of_too_many_records_the_rest_is_counted_and_the_reply_stays_within_its_limit():
    told = feedback.parsed(report(*[record()] * 20_010))
    assert (len(told.records), told.left, told.left_mails) == (20_000, 10, 20)
    assert fits(SCANNED.dump_json(Scanned(Content(report=told))))


def test_records_as_large_as_can_be_stay_within_the_limit_of_the_reply_too():
    name = ".".join(["x" * 63] * 3 + ["y" * 60])
    result = f"<dkim><domain>{name}</domain><selector>{'s' * 63}</selector><result>permerror</result></dkim>"
    large = record(header_from=name).replace("<auth_results>", "<auth_results>" + result * 10)
    told = feedback.parsed(report(*[large] * (feedback.MAX_XML // len(large) - 1)))
    assert len(told.records[0].results) == feedback.MAX_SEVERAL
    assert told.left > 0
    assert fits(SCANNED.dump_json(Scanned(Content(report=told))))


def test_a_report_that_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(feedback, "CPU", 0.0)
    assert "too long" in attached(gzipped(report(*[record()] * 5000))).fault


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.sampled_from([*b"<>/&;\"'\0 a1", 0xFF, 0x1F]), max_size=8), st.integers(0, len(sample("rfc9990"))))
def test_whatever_stands_in_a_report_it_is_read_or_it_is_none(octets, place):
    data = sample("rfc9990")
    told = attached(data[:place] + bytes(octets) + data[place + len(octets) // 2 :], "text/xml", "r.xml")
    assert bool(told.fault) != bool(told.records)
    assert SCANNED.validate_json(SCANNED.dump_json(Scanned(Content(report=told))), strict=True).content.report == told


@settings(max_examples=examples(60), deadline=None)
@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=20))
def test_whatever_a_value_is_it_is_shown_safely(org, domain, count):
    def escaped(text):
        kept = "".join(one for one in text if one.isprintable())
        return kept.replace("&", "&amp;").replace("<", "&lt;")

    xml = f"<feedback>{head(org=escaped(org) or 'x', domain=escaped(domain))}{record(count=escaped(count))}</feedback>"
    told = attached(xml.encode(), "text/xml", "r.xml")
    values = (told.fault, told.org, told.domain, told.email, *(one.header_from for one in told.records))
    assert all(value.isprintable() for value in values)
    assert all(0 <= one.count < 10**10 for one in told.records)

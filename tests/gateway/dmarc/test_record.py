"""DMARC records: what is malformed counts as not said, and only the version makes a text one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dmarc.record import Record, is_record, parse, tags

DOMAIN = "a.example"


def read(text: str | bytes) -> Record | None:
    return parse(DOMAIN, [text.encode() if isinstance(text, str) else text])


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("v=DMARC1", True),
        ("v=DMARC1; p=none", True),
        ("V = DMARC1 ;p=none", True),
        ("v=DMARC1\t;", True),
        ("v=dmarc1; p=none", False),  # the version is the one value that is case-sensitive (4.7)
        ("v=DMARC10; p=none", False),
        ("v=DMARC1 p=none", False),
        (" v=DMARC1; p=none", False),
        ("p=none; v=DMARC1", False),
        ("v=DMARC2; p=none", False),
        ("v=spf1 -all", False),
        ("", False),
    ],
)
def test_only_the_version_at_the_beginning_makes_a_record(text: str, is_one: bool) -> None:
    assert is_record(text.encode()) is is_one
    assert (read(text) is not None) is is_one


def test_several_records_are_none_and_other_texts_are_passed_over() -> None:
    assert parse(DOMAIN, [b"v=DMARC1; p=none", b"v=DMARC1; p=none"]) is None
    found = parse(DOMAIN, [b"v=spf1 -all", b"v=DMARC1; p=reject", b"\xff\x00"])
    assert found is not None
    assert found.p == "reject"
    assert parse(DOMAIN, []) is None


def test_what_is_not_said_has_its_default() -> None:
    assert read("v=DMARC1; p=none") == Record(DOMAIN, p="none")


def test_everything_that_is_said_is_read() -> None:
    text = "v=DMARC1; P=Reject; sp=quarantine; np=none; adkim=S; aspf=s; psd=N; t=y; fo=1:d; rua=mailto:a@b.example"
    expected = Record(
        DOMAIN, "reject", "quarantine", "none", "s", "s", "n", "y", "1:d", ("mailto:a@b.example",), uris=True
    )
    assert read(text) == expected


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("adkim=x", "adkim", "r"),
        ("aspf=", "aspf", "r"),
        ("psd=maybe", "psd", "u"),
        ("t=1", "t", "n"),
        ("adkim=s; adkim=r", "adkim", "r"),  # said twice, so not said
        ("aspf=s; aspf=s", "aspf", "r"),
        ("unknown=1; aspf=s", "aspf", "s"),
        (";;aspf=s;", "aspf", "s"),
    ],
)
def test_what_is_malformed_or_said_twice_counts_as_not_said(text: str, name: str, value: str) -> None:
    found = read(f"v=DMARC1; p=none; {text}")
    assert getattr(found, name) == value
    assert not found.faulty


@pytest.mark.parametrize(
    "text", ["", "p=", "p=rejected", "p=none; p=none", "p=none; sp=x", "p=none; np=x", "p=r\xc3ject"]
)
@pytest.mark.parametrize(
    ("rua", "useless"), [("", True), ("; rua=mailto:a@b.example", False), ("; rua=nonsense", True)]
)
def test_a_record_without_a_valid_wish_is_of_use_only_where_it_wants_reports(
    text: str, rua: str, useless: bool
) -> None:
    found = read(f"v=DMARC1; {text}{rua}")
    assert found is not None
    assert found.faulty
    assert found.useless is useless


@pytest.mark.parametrize(
    ("rua", "addresses", "uris"),
    [
        ("mailto:a@b.example", ["mailto:a@b.example"], True),
        ("mailto:a@b.example!10m", ["mailto:a@b.example"], True),
        ("mailto:a@b.example, MAILTO:c@d.example", ["mailto:a@b.example", "MAILTO:c@d.example"], True),
        ("https://b.example/reports", [], True),
        ("mailto:a@b.example?subject=x", [], True),
        ("mailto:a@b.example\\r\\nBcc:x@y", [], True),
        ("mailto:a@b example", [], False),
        ("mailto:a@b@c.example", [], True),
        ("a@b.example", [], False),
        ("", [], False),
    ],
)
def test_addresses_for_reports_are_plain_ones(rua: str, addresses: list[str], uris: bool) -> None:
    found = read(f"v=DMARC1; p=none; rua={rua}")
    assert found is not None
    assert list(found.rua) == addresses
    assert found.uris is uris


@given(st.binary(max_size=300))
def test_whatever_a_text_says_its_tags_can_be_shown(rest: bytes) -> None:
    found = tags(b"v=DMARC1;" + rest)
    assert all(value.isascii() and value.isprintable() for value in found.values())
    record = read(b"v=DMARC1;" + rest)
    assert record is not None
    assert record.faulty or record.p in {"none", "quarantine", "reject"}

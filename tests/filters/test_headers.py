"""Header fields: what RFC 5322 asks of every mail."""

import ipaddress
from collections.abc import Sequence
from typing import Any

import pytest

from filters.headers import Filter, Settings
from gateway.model import Content, Finding, Mail, Session

FIELDS = (("Date", "Mon, 23 Nov 2026 00:00:00 +0000"), ("From", "Alice <a@a.test>"), ("To", "b@b.test"))


def check(
    headers: Sequence[tuple[str, str]] = FIELDS, settings: Settings | None = None, **content: Any
) -> list[Finding]:
    mail = Mail("id", Session(ipaddress.ip_address("192.0.2.1")), content=Content(tuple(headers), **content))
    found = list(Filter(settings or Settings()).check(mail, {}))
    assert {finding.code for finding in found} <= Filter.codes
    return found


def codes(headers: Sequence[tuple[str, str]]) -> list[str]:
    return [finding.code for finding in check(headers)]


def without(name: str, *instead: tuple[str, str]) -> list[tuple[str, str]]:
    return [*(item for item in FIELDS if item[0] != name), *instead]


def test_a_plain_mail_is_nothing() -> None:
    assert check() == []


def test_names_are_compared_without_case() -> None:
    assert check([(name.upper(), value) for name, value in FIELDS]) == []


def test_a_missing_date_is_told() -> None:
    assert codes(without("Date")) == ["missing_date"]


@pytest.mark.parametrize(
    "value",
    [
        *("", "yesterday", "0", ",,,,", ": : :", " " * 300, "Mon, 99 Nov 2026 00:00:00 +0000"),
        *("Mon, 23 Nov 2026 00:00:00 +" + "9" * 100, "Mon, 23 Nov 2026 00:00:00 +0000" + " " * 200),
        "1 Jan 99999999999999999999 00:00:00 +0000",
    ],
)
def test_a_date_that_is_none_is_told(value: str) -> None:
    assert codes(without("Date", ("Date", value))) == ["bad_date"]


@pytest.mark.parametrize(
    "value", ["23 Nov 2026 00:00 GMT", "Mon, 23 Nov 2026 00:00:00 -0000", "Mon, 23 Nov 2026 00:00:00 +0100 (CET)"]
)
def test_dates_as_they_are_written_are_dates(value: str) -> None:
    assert codes(without("Date", ("Date", value))) == []


def test_repeated_fields_are_malformed() -> None:
    (finding,) = check([*FIELDS, ("subject", "a"), ("Subject", "b"), ("TO", "c@c.test")])
    assert (finding.code, finding.detail) == ("malformed", "there are 2 To fields; there are 2 Subject fields")


def test_what_the_parser_found_malformed_is_told_up_to_the_limit() -> None:
    (finding,) = check(defects=tuple("abcdefgh"), settings=Settings(defects=3))
    assert (finding.code, finding.detail) == ("malformed", "a; b; c; and 5 more")


def test_a_header_that_could_not_be_read_is_the_parsers_to_tell() -> None:
    assert check([], unscannable="a header is larger than 10 octets") == []


def test_a_header_that_was_read_counts_though_the_body_was_not() -> None:
    assert [finding.code for finding in check(without("Date"), unscannable="too deep")] == ["missing_date"]


def test_an_empty_header_lacks_everything() -> None:
    assert codes([]) == ["missing_date"]


def test_details_hold_no_text_of_strangers() -> None:
    hostile = "\x1b[31m\r\nX: y"
    for finding in check(
        [("From", hostile), ("From", hostile), ("Date", hostile), ("Subject", hostile), ("Subject", "")]
    ):
        assert hostile not in finding.detail
        assert finding.detail.isprintable()


def test_faults_do_not_become_clean() -> None:
    with pytest.raises((TypeError, ValueError)):
        check([("Date",)])  # type: ignore[list-item]


def test_settings_that_say_nothing_are_told_when_the_policy_loads() -> None:
    with pytest.raises(ValueError):
        Filter(Settings(defects=0))


def test_every_code_can_be_reported() -> None:
    told = {*codes([]), *codes([*FIELDS, *FIELDS]), *codes(without("Date", ("Date", "")))}
    assert told == Filter.codes

"""The author that a mail names: the cases of tests/authors, and that nobody else is seen by readers who guess."""

import contextlib
import email
import email.policy
import re
import time
import tomllib
import warnings
from email.utils import parseaddr
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.idn import a_labels
from gateway.model import Author
from gateway.pipeline.author import MAX_FIELDS, MAX_VALUE
from gateway.pipeline.content import parse
from gateway.stages import Content

CASES = Path(__file__).parents[2] / "authors"
PIECES = [
    *("a@attack.example", "<a@attack.example>", "admin@legit.example", "<admin@legit.example>", "Alice", '"Alice"'),
    *("<", ">", "@", ",", ":", ";", '"', "\\", "(", ")", "(Alice)", "[", "]", ".", " ", "\t", "\r\n ", "\x00", "\x0b"),
    *("=?utf-8?Q?admin=40legit.example?=", "=?utf-8?B?PGFkbWluQGxlZ2l0LmV4YW1wbGU+?=", "=?utf-7?Q?+AEA-?=", "=?", "?="),
    *('"admin@legit.example"', "ü", "\ufeff", "\uff20", "legit.example", "@legit.example", "admin", "\\\"", "From:"),
]  # fmt: skip


def cases(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads((CASES / f"{name}.toml").read_text("utf-8"))["case"]
    return found


def author(block: str | bytes) -> Author:
    raw = block.encode() if isinstance(block, str) else block
    return parse(raw + b"\r\nbody", Content.Settings()).author


def field(value: str) -> Author:
    return author(f"From: {value}\r\n")


@pytest.mark.parametrize("case", cases("readable"), ids=lambda case: case["address"])
def test_what_every_reader_reads_alike_is_the_author(case: dict[str, Any]) -> None:
    seen = author(case["header"])
    domain = case["address"].rpartition("@")[2]
    assert seen == Author(case["address"], domain, case.get("display", ""))


@pytest.mark.parametrize("case", cases("doubtful"), ids=lambda case: case["about"])
def test_what_readers_may_read_in_two_ways_is_doubted(case: dict[str, Any]) -> None:
    seen = author(case["header"])
    assert any(case["doubt"] in doubt for doubt in seen.doubts), seen
    assert (seen.address, seen.domain) == ("", "")
    if "domains" in case:
        assert sorted(seen.domains) == sorted(case["domains"])


@pytest.mark.parametrize(
    "header", ["", "Subject: x\r\n", "From:\r\n", "From: Alice\r\n", "From: <>\r\n", 'From: "" ()\r\n', "From: Undisclosed:;\r\n"]
)  # fmt: skip
def test_who_shows_no_address_is_nobody_and_no_doubt(header: str) -> None:
    assert author(header) == Author()


def test_octets_that_are_no_utf_8_may_stand_in_a_name_and_not_in_an_address() -> None:
    assert author("From: Jürgen <j@example.org>\r\n".encode("latin-1")).address == "j@example.org"
    assert "not UTF-8" in author("From: jürgen@example.org\r\n".encode("latin-1")).doubts[0]
    assert "not UTF-8" in author("From: j@müller.example\r\n".encode("latin-1")).doubts[0]


def test_fields_that_name_who_sent_it_are_read_too() -> None:
    block = "From: a@x.example\r\nSender: Bob <b@Y.example>\r\nResent-From: c@z.example\r\nResent-Sender: d@x, e@x\r\n"
    assert author(block).senders == ("b@y.example", "c@z.example", "")


def test_senders_that_are_too_many_are_not_left_out_without_a_word() -> None:
    own, other = "Sender: a@x.example\r\n", "Sender: boss@x.example\r\n"
    assert author(f"From: a@x.example\r\n{own * MAX_FIELDS}").senders == ("a@x.example",) * MAX_FIELDS
    assert author(f"From: a@x.example\r\n{own * MAX_FIELDS}{other}").senders[-1] == ""


def test_a_name_is_made_safe_and_short() -> None:
    seen = field("=?utf-8?Q?a=1b=5B31m=E2=80=AEb?= " + "x" * 3000 + " <a@x.example>")
    assert seen.address == "a@x.example"
    assert seen.display.isprintable()
    assert len(seen.display) < 1000


def test_limits_are_doubts() -> None:
    assert "longer than" in field("x" * MAX_VALUE + " <a@x.example>").doubts[0]
    assert "longer than" in field("a" * 310 + "@attack.example").doubts[0]
    assert "no domain name" in field("a@" + ("b" * 50 + ".") * 5 + "example").doubts[0]
    assert "no domain name" in field("a@" + "b" * 64 + ".example").doubts[0]
    assert any("too many" in doubt for doubt in author("From: a@x.example\r\n" * (MAX_FIELDS + 1)).doubts)


@pytest.mark.parametrize(
    "block",
    [
        "From: " + "<" * 250_000,
        "From: " + '"\\' * 125_000,
        "From: " + "(" * 250_000,
        "From: " + "a@b," * 60_000,
        "From: " + "=?utf-8?Q?" * 25_000,
        "From: " + '""' * 4000 + "@x.example",
        "X: y" + "\r\n from:" * 30_000,
        "X: y" + "\r\n from:@" * 25_000,
        "X: y" + "\nfrom:@x" * 25_000,
        "X: y" + "f " * 125_000,
        "X: " + "\r" * 250_000 + "from",
        "X: " + "from" + " " * 250_000,
        "X: " + "from " * 50_000 + ":",
        "Sender: " + "<a@b>" * 50_000,
    ],
    ids=lambda block: block[3:15].encode().hex(),
)
def test_hostile_headers_cost_little(block: str) -> None:
    begun = time.process_time()
    author(block + "\r\n")
    assert time.process_time() - begun < 0.5  # seconds; it takes a tenth of that


@given(st.binary(max_size=300), st.binary(max_size=60))
def test_no_octets_are_a_fault(before: bytes, value: bytes) -> None:
    seen = author(before + b"\r\nFrom: " + value + b"\r\n")
    assert not (seen.address and (seen.doubts or seen.domains))
    assert seen.address.rpartition("@")[2] == seen.domain
    for text in (seen.address, seen.display, *seen.doubts, *seen.domains, *seen.senders):
        assert text.isprintable()


@settings(max_examples=400)
@given(st.lists(st.sampled_from(PIECES), max_size=7).map("".join))
def test_where_readers_that_guess_see_somebody_else_there_is_a_doubt_or_the_name_says_it(value: str) -> None:
    seen = field(value)
    if seen.address:
        for reader in (by_email, by_parseaddr, by_last_angles, by_first_address):
            other = alike(reader(value))
            assert not other or other == alike(seen.address) or other in seen.display.lower(), reader.__name__


@settings(max_examples=200)
@given(st.lists(st.sampled_from([*PIECES, "From", "\r\nFrom: ", "\r\nFrom", "\r\n", "\n"]), max_size=6).map("".join))
def test_no_second_line_that_looks_like_an_author_is_overlooked(block: str) -> None:
    seen = author(f"From: a@attack.example\r\nX: {block}\r\n")
    if seen.address:
        lines = re.split(r"[\r\n]+", f"{block}\r\n".partition("\r\n\r\n")[0])
        assert not [line for line in lines[1:] if re.match(r"[^!-~]*from[^!-~]*:.*@", line, re.IGNORECASE)]


def alike(address: str) -> str:
    """As `Author` writes it: octets as UTF-8, the domain in A-labels, without regard to case and quotes."""
    local, _, domain = address.encode("utf-8", "surrogateescape").decode("utf-8", "replace").rpartition("@")
    with contextlib.suppress(ValueError):
        domain = a_labels(domain)
    return f"{local.replace(chr(34), '')}@{domain}".lower() if local else ""


def by_email(value: str) -> str:
    """Who parses by RFC 5322, as far as the standard library does."""
    with warnings.catch_warnings(action="ignore"):
        try:
            message = email.message_from_bytes(f"From: {value}\r\n\r\n".encode(), policy=email.policy.default)
            addresses = message["From"].addresses
        except Exception:
            return ""  # it has faults of its own
    return addresses[0].addr_spec if addresses and addresses[0].domain else ""


def by_parseaddr(value: str) -> str:
    found = parseaddr(value.replace("\r\n", ""))[1]
    return found if "@" in found else ""


def by_last_angles(value: str) -> str:
    found = re.findall(r"<([^<>]*@[^<>]*)>", value)
    return found[-1].strip() if found else ""


def by_first_address(value: str) -> str:
    found = re.search(r"[^\s<>()@,;:\"\[\]\\]+@[\w-]+(?:\.[\w-]+)+", value)
    return found[0] if found else ""

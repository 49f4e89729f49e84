"""DKIM signatures as the confined child reads them: what is a fault, what is broken, and what a bomb costs."""

import asyncio
import mmap
import os
import time
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dkim import canonical
from gateway.dkim.checker import Checker
from gateway.model import ListenerKind, Mail, Session, Signature
from gateway.pipeline import confined, mapped
from gateway.pipeline.signed import MAX_SIGNATURES, Bodies, outermost, signatures
from gateway.stages import Content
from tests.peers.signer import ed25519_key, record, rsa_key, signed

LIMITS = Content.Settings()
MAIL = b"From: a@example.org\r\nSubject: hello\r\nTo: b@example.net\r\n\r\nGood  day. \r\n\r\n"


def read(message: bytes) -> tuple[Signature, ...]:
    fields, start = outermost(message, LIMITS)
    return signatures(fields, Bodies(message, start))


class Zone:
    """A DNS with one key for every name."""

    async def txt(self, name: str) -> tuple[bytes, ...]:
        return (record(rsa_key()),)


def result(message: bytes, now: float = 1e9) -> str:
    """What becomes of the one signature of *message*, its key being published."""
    (one,) = read(message)
    return asyncio.run(Checker(Zone()).check(one, now)).result


# --- those that count ----------------------------------------------------------------------------------------------


def test_a_good_signature_is_read_with_all_it_claims():
    (one,) = read(signed(MAIL, t="1000", x="2000", i="joe@below.EXAMPLE.org", d="Example.Org"))
    assert (one.domain, one.selector, one.algorithm) == ("example.org", "sel", "rsa-sha256")
    assert (one.identity, one.signed_at, one.expires) == ("@below.example.org", 1000, 2000)
    assert (one.partial, one.broken, one.fault) == (False, False, "")


@pytest.mark.parametrize("form", ["simple", "relaxed", "simple/simple", "simple/relaxed", "relaxed/simple", None])
def test_every_canonical_form_holds(form):
    assert result(signed(MAIL, c=form)) == "pass"


@pytest.mark.parametrize(
    "tags",
    [
        {"h": "From : Subject:to"},
        {"h": "from:from:subject:subject:x-none"},
        {"h": "from:dkim-signature"},
        {"h": "from:subject:"},
        {"d": "a_b.example.org"},
        {"s": "a.b_c"},
        {"d": "xn--mnchen-3ya.example"},
        {"q": "dns/txt"},
        {"q": "http : dns/txt"},
        {"z": "From:a@example.org|To:b"},
        {"unknown": "a=b"},
        {"t": "1", "x": "999999999999"},
        {"l": "11"},
        {"i": "@example.org"},
        {"i": '"a b"@example.org'},
    ],
    ids=str,
)
def test_what_the_grammar_allows_holds(tags):
    assert result(signed(MAIL, **tags)) == "pass"


def test_a_domain_in_unicode_is_asked_for_in_a_labels():
    (one,) = read(signed(MAIL, d="münchen.example"))
    assert (one.domain, one.fault) == ("xn--mnchen-3ya.example", "")


def test_a_changed_body_is_broken_and_a_changed_field_fails():
    (one,) = read(signed(MAIL).replace(b"Good", b"Bad"))
    assert (one.broken, one.fault) == (True, "")
    assert result(signed(MAIL).replace(b"hello", b"jello")) == "fail"
    assert result(signed(MAIL).replace(b"b@example.net", b"c@example.net")) == "pass"  # To was not signed


def test_two_signatures_are_told_in_their_order():
    twice = signed(signed(MAIL, d="a.example"), ed25519_key(), d="b.example")
    assert [(one.domain, one.algorithm, one.broken) for one in read(twice)] == [
        ("b.example", "ed25519-sha256", False),
        ("a.example", "rsa-sha256", False),
    ]


def test_a_mail_that_nobody_signed_has_none():
    assert read(MAIL) == ()
    assert read(b"") == ()
    assert read(b"\r\nDKIM-Signature: v=1") == ()


@pytest.mark.parametrize(("kind", "count"), [(ListenerKind.MX, 1), (ListenerKind.RELAY, 0)])
def test_the_confined_child_reads_signatures_of_mail_from_outside_only(kind, count):
    fd = os.memfd_create("mail")
    os.write(fd, signed(MAIL))
    mail = Mail("id", Session(ip_address("192.0.2.1"), kind=kind))
    scanned = confined.scan(mail, fd, confined.Task(LIMITS, ()))
    os.close(fd)
    assert [one.domain for one in scanned.content.signatures] == ["example.org"] * count
    assert confined.SCANNED.validate_json(confined.SCANNED.dump_json(scanned)) == scanned


# --- hostile ones ----------------------------------------------------------------------------------------------------

LONG = ".".join(["a" * 60] * 5)

HOSTILE = {
    "h= without From": ({"h": "subject:to"}, "a From field is not signed"),
    "no h=": ({"h": None}, "no list of fields"),
    "h= with white space in a name": ({"h": "from:sub ject"}, "no list of fields"),
    "h= with an empty name": ({"h": "from::to"}, "no list of fields"),
    "h= with no name": ({"h": ""}, "no list of fields"),
    "another version": ({"v": "2"}, "version"),
    "the version of a draft": ({"v": "0.5"}, "version"),
    "no version": ({"v": None}, "version"),
    "rsa-sha1": ({"a": "rsa-sha1"}, "SHA-1"),
    "an unknown algorithm": ({"a": "rsa-md5"}, "algorithm"),
    "an algorithm in capitals": ({"a": "RSA-SHA256"}, "algorithm"),
    "no algorithm": ({"a": None}, "algorithm"),
    "no domain": ({"d": None}, "domain"),
    "a top-level domain": ({"d": "org"}, "domain"),
    "an address for a domain": ({"d": "192.0.2.1"}, "domain"),
    "a dot at the end of the domain": ({"d": "example.org."}, "domain"),
    "two dots in the domain": ({"d": "example..org"}, "domain"),
    "a quote in the domain": ({"d": "example.org'a.attack.example"}, "domain"),
    "double quotes in the domain": ({"d": 'example.org".attack.example'}, "domain"),
    "a parenthesis in the domain": ({"d": "example.org(.attack.example"}, "domain"),
    "white space in the domain": ({"d": "example.org .attack.example"}, "domain"),
    "an escape in the domain": ({"d": "example.org\\000.attack.example"}, "domain"),
    "an underscore that begins the domain": ({"d": "_b.example.org"}, "domain"),
    "a hyphen at the end of a label": ({"d": "a-.example.org"}, "domain"),
    "a label of 64 octets": ({"d": f"{'a' * 64}.example.org"}, "domain"),
    "a domain of 304 octets": ({"d": LONG}, "domain"),
    "64 labels that are too long with the selector": ({"d": ".".join(["aaa"] * 63)}, "selector"),
    "127 labels": ({"d": ".".join("a" * 127)}, "selector"),
    "no A-label": ({"d": "xn--a.example"}, "domain"),
    "no selector": ({"s": None}, "selector"),
    "an escape in the selector": ({"s": "attack.example\\000.any"}, "selector"),
    "white space in the selector": ({"s": "a b"}, "selector"),
    "two dots in the selector": ({"s": "a..b"}, "selector"),
    "a dot at the end of the selector": ({"s": "a."}, "selector"),
    "a quote in the selector": ({"s": "a'b"}, "selector"),
    "a parenthesis in the selector": ({"s": "a(b"}, "selector"),
    "a label of 64 octets in the selector": ({"s": "a" * 64}, "selector"),
    "a selector of 304 octets": ({"s": LONG}, "selector"),
    "an identity elsewhere": ({"i": "@example.net"}, "identity"),
    "an identity that only ends alike": ({"i": "@badexample.org"}, "identity"),
    "an identity above": ({"i": "@org"}, "identity"),
    "an identity without an at": ({"i": "example.org"}, "identity"),
    "an identity in a comment": ({"i": "a@example.org(@attack.example"}, "identity"),
    "an unknown form": ({"c": "nowsp/simple"}, "form"),
    "a form that is cut off": ({"c": "relaxed/"}, "form"),
    "three forms": ({"c": "relaxed/relaxed/relaxed"}, "form"),
    "a key elsewhere": ({"q": "http"}, "not in the DNS"),
    "a hash of the body that is none": ({"bh": "?"}, "bh="),
    "a hash of the body that is short": ({"bh": "YQ=="}, "bh="),
    "no hash of the body": ({"bh": ""}, "bh="),
    "a value that is none": ({"b": "?"}, "b="),
    "a value that is cut off": ({"b": "Y"}, "b="),
    "a value of 1025 octets": ({"b": "AAAA" * 341 + "AAA="}, "b="),
    "it expires before it is made": ({"t": "2000", "x": "1999"}, "expires before"),
    "it has always been expired": ({"x": "0"}, "expires before"),
    "a time that is no number": ({"t": "now"}, "t="),
    "a time below zero": ({"t": "-1"}, "t="),
    "a time of 5000 digits": ({"x": "9" * 5000}, "x="),
    "a length that is no number": ({"l": "-1"}, "l="),
    "a length of 76 digits": ({"l": "1" * 76}, "l="),
    "a length beyond the body": ({"l": "13"}, "more than there is"),
    "other digits": ({"t": "\u0661"}, "t="),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_signature_has_a_fault_although_its_arithmetic_is_right(name):
    tags, fault = HOSTILE[name]
    (one,) = read(signed(MAIL, **tags))
    assert fault in one.fault
    assert result(signed(MAIL, **tags)) == "permerror"


@pytest.mark.parametrize(
    "field",
    [
        b"DKIM-Signature:", b"DKIM-Signature: v=1", b"DKIM-Signature: v", b"DKIM-Signature: ;;;", b"DKIM-Signature",
        b"DKIM-Signature: v=1; s=a\0b; d=example.org", b"DKIM-Signature: v=1; v=1", b"DKIM-Signature: \xff=\xfe",
        b"dkim-signature : v=1;a=rsa-sha256;b=;bh=;d=;h=;s=",
    ],
)  # fmt: skip
def test_what_is_hardly_a_signature_is_one_with_a_fault(field):
    (one,) = read(field + b"\r\n" + MAIL)
    assert one.fault
    assert (one.domain, one.selector, one.value, one.digest) == ("", "", "", "")


@pytest.mark.parametrize(
    ("more", "names", "counts"),
    [
        (b"", "from", True),
        (b"", "from:from", True),
        (b"From: x@attack.example\r\n", "from", False),
        (b"from: x@attack.example\r\n", "from", False),
        (b"FROM : x@attack.example\r\n", "from", False),
        (b"From\t: x@attack.example\r\n", "from", False),
        (b"From\r\n : x@attack.example\r\n", "from", False),
        (b"From: x@attack.example\r\n", "from:from", True),
    ],
)
def test_every_from_field_has_to_be_signed(more, names, counts):
    (one,) = read(signed(more + MAIL, h=names))
    assert (one.fault == "") is counts
    (one,) = read(more + signed(MAIL, h=names))
    assert (one.fault == "") is (counts or (names == "from:from" and not more))


def test_a_from_that_is_added_to_one_signed_twice_breaks_the_signature():
    assert result(signed(MAIL, h="from:from")) == "pass"
    assert result(b"From: x@attack.example\r\n" + signed(MAIL, h="from:from")) == "fail"


@pytest.mark.parametrize("form", ["simple", "relaxed"])
def test_a_signature_of_a_part_of_the_body_is_partial_once_there_is_more(form):
    whole = len(b"Good  day. \r\n" if form == "simple" else b"Good day.\r\n")
    for length, partial in ((0, True), (4, True), (whole, False)):
        (one,) = read(signed(MAIL, c=f"relaxed/{form}", l=str(length)))
        assert (one.partial, one.broken, one.fault) == (partial, False, "")
    (one,) = read(signed(MAIL, c=f"relaxed/{form}", l=str(whole)) + b"<b>and buy this</b>\r\n")
    assert (one.partial, one.broken) == (True, False)


def test_eight_signatures_are_read_and_that_there_are_more_is_told():
    message = MAIL
    for number in range(MAX_SIGNATURES + 2):
        message = signed(message, d=f"d{number}.example")
    found = read(message)
    assert [one.domain for one in found[:-1]] == [f"d{number}.example" for number in range(9, 1, -1)]
    assert {one.fault for one in found[:-1]} == {""}
    assert found[-1] == Signature(fault="more than 8 signatures")


# --- bombs -----------------------------------------------------------------------------------------------------------


def bomb(body: bytes) -> bytes:
    """A mail of *body* with signatures in both forms and of many lengths."""
    head = b"From: a@example.org\r\n\r\n"
    for number in range(MAX_SIGNATURES):
        form = "relaxed/simple" if number % 2 else "relaxed/relaxed"
        head = signed(head, c=form, l=str(number * 1000), bh="A" * 43 + "=", b="AAAA")
    return head + body


BODIES = {
    "spaces": b" ",
    "tabs": b"\t",
    "empty lines": b"\r\n",
    "lines of white space": b" \t\r\n",
    "pairs of spaces": b"  x",
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_of_25_mb_that_stalls_others_costs_less_than_2_s_and_little_memory(name):
    fd = os.memfd_create("bomb")
    os.write(fd, bomb(BODIES[name] * ((25 << 20) // len(BODIES[name])) + b"\r\n"))
    memory, began = resident(), time.process_time()
    with mapped.mapped(fd) as data:
        fields, start = outermost(data, LIMITS)
        found = signatures(fields, Bodies(data, start))
        assert time.process_time() - began < 2.0
        assert resident() - memory < 6 << 20
    os.close(fd)
    assert len(found) == MAX_SIGNATURES
    assert all(one.broken or "more than there is" in one.fault for one in found)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


@pytest.mark.parametrize(
    "header",
    [
        b"DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=s; h=from; bh=; b=\r\n" * 500,
        b"DKIM-Signature: " + b";".join(b"a%d=x" % number for number in range(20_000)) + b"\r\n",
        b"DKIM-Signature: v=1; h=" + b":".join([b"from"] * 40_000) + b"\r\n",
        b"DKIM-Signature: v=1; d=" + b"a." * 100_000 + b"\r\n",
        b"DKIM-Signature: v=1; d=" + b"a-" * 100_000 + b"\r\n",
        b"DKIM-Signature: v=1; b=" + b"A " * 100_000 + b"\r\n",
        b"DKIM-Signature: v=1;" + b"\r\n " * 60_000 + b"a=b\r\n",
        b"DKIM-Signature: v=1; i=" + b"@" * 200_000 + b"\r\n",
        b"DKIM-Signature: v=1; d=" + "ü".encode() * 100 + b".example; s=" + "ß.".encode() * 50_000 + b"\r\n",
    ],
    ids=range(9),
)
def test_a_header_made_to_keep_us_busy_does_not(header):
    began = time.process_time()
    assert all(one.fault for one in read(header + MAIL))
    assert time.process_time() - began < 0.5


def test_a_header_beyond_the_limits_is_not_read():
    assert read(b"X: " + b"x" * LIMITS.header_size + b"\r\n" + signed(MAIL)) == ()
    assert read(b"X: x\r\n" * LIMITS.fields + signed(MAIL)) == ()


# --- anything --------------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    [b"DKIM-Signature:", b"From:", b"v=1", b"a=rsa-sha256", b"c=relaxed", b"d=example.org", b"s=s", b"h=from", b"b=YQ==",
     b"bh=" + b"A" * 43 + b"=", b"l=1", b"x=9", b"i=@a", b";", b"; ", b"\r\n", b"\r\n ", b"\0", b"\xff", b"=", b" "]
)  # fmt: skip


@given(st.lists(st.one_of(WORDS, st.binary(max_size=8)), max_size=40).map(b"".join))
@settings(max_examples=300, deadline=None)
def test_any_octets_are_read(message):
    for one in read(message):
        assert one.fault or one.digest
        assert all(str(value).isprintable() for value in (one.domain, one.selector, one.algorithm, one.identity))


@given(st.binary(max_size=200), st.lists(st.tuples(st.booleans(), st.none() | st.integers(0, 50)), min_size=1))
def test_bodies_are_the_same_whether_they_are_announced_or_not(body, wanted):
    announced, alone = Bodies(b"head" + body, 4), Bodies(b"head" + body, 4)
    for relaxed, length in wanted:
        announced.want(relaxed, length)
    for relaxed, length in wanted:
        assert announced.digest(relaxed, length) == alone.digest(relaxed, length)
        assert announced.size(relaxed) == alone.size(relaxed)


def test_bodies_read_the_message_once(monkeypatch):
    taken = []
    monkeypatch.setattr(canonical.Body, "update", lambda self, octets: taken.append(len(octets)))
    read(signed(signed(MAIL, c="relaxed/relaxed"), c="relaxed/relaxed", l="3"))
    assert taken == [len(MAIL) - MAIL.index(b"\r\n\r\n") - 4]

"""Signatures that we make: others hold them to be good, and what is said in them is what was signed."""

import hashlib
import os
from pathlib import Path
from typing import Any

import dkim
import pytest
import yaml

from gateway.dkim import canonical, making, private, reading, tags
from gateway.dkim.making import Chosen, NotSigned
from gateway.dkim.ring import Signer
from gateway.stages import Signing

SUITE = (
    Path(os.environ.get("GATEPOST_SHARED", Path(__file__).parents[4] / "shared"))
    / "suites/arc/arc-draft-sign-tests.yml"
)
NOW = 1_700_000_000
BODY = b"Hello  there \t\r\n\r\nbye\r\n\r\n\r\n"
HEAD = b"""From: Ann <ann@in.example>\r
To: bob@out.example,\r
\tcarl@out.example\r
Subject:  a  subject \r
X-Other: not signed\r
Received: from a by b; then\r
Received: from b by c; now\r
Date: Mon, 02 Nov 2026 10:11:12 +0100\r
"""
KEYS = {kind: private.read(private.new(kind)) for kind in ("rsa", "ed25519")}
CHOSEN = Chosen(Signing().oversigned, Signing().signed)


def signer(kind="rsa"):
    return Signer("in.example", "s1", KEYS[kind])


def digest(body):
    made = canonical.Body(relaxed=True)
    made.update(body)
    return made.digest()


def signed(head=HEAD, body=BODY, kind="rsa", chosen=CHOSEN, expires=0):
    return making.signature(reading.by_name(canonical.fields(head)), digest(body), signer(kind), chosen, NOW, expires)


def value_of(field):
    return tags.parse(field.partition(b":")[2].removesuffix(b"\r\n"))


def records(name, **_):
    """The DNS as dkimpy asks it."""
    return KEYS["rsa"].record.encode() if name == b"s1._domainkey.in.example." else None


def holds(message):
    return bool(dkim.verify(message, dnsfunc=records))


def test_a_host_on_the_way_may_add_what_is_missing_and_what_is_there_only_once():
    bare = b"From: ann@in.example\r\nSubject: scan\r\n"
    added = b"Date: Mon, 02 Nov 2026 10:11:12 +0100\r\nMessage-ID: <1@smart.example>\r\n"
    assert holds(added + signed(bare) + bare + b"\r\n" + BODY)
    for one in added.splitlines(keepends=True):
        assert not holds(one + signed(added + bare) + added + bare + b"\r\n" + BODY)


def test_another_implementation_finds_that_it_holds():
    assert holds(signed() + HEAD + b"\r\n" + BODY)


@pytest.mark.parametrize(
    "changed",
    [
        HEAD.replace(b"ann@", b"eve@"),
        HEAD.replace(b"a  subject", b"another subject"),
        HEAD + b"From: eve@in.example\r\n",
        b"From: eve@in.example\r\n" + HEAD,
        HEAD + b"Cc: eve@in.example\r\n",
        HEAD + b"Content-Type: text/html\r\n",
    ],
)
def test_a_changed_or_added_field_breaks_it(changed):
    assert not holds(signed() + changed + b"\r\n" + BODY)


def test_a_changed_body_breaks_it():
    assert not holds(signed() + HEAD + b"\r\n" + BODY + b"more\r\n")


def test_what_changes_on_the_way_may_change():
    folded = HEAD.replace(b"Subject:  a  subject", b"SUBJECT: a\r\n subject").replace(
        b"X-Other: not", b"X-Other: never"
    )
    assert holds(signed() + b"Received: from c by d\r\n" + folded + b"\r\n" + BODY.rstrip() + b" \r\n")


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_it_says_what_was_signed_by_which_key(kind):
    found = value_of(signed(kind=kind, expires=NOW + 60))
    assert (found["v"], found["a"], found["c"]) == ("1", f"{kind}-sha256", "relaxed/relaxed")
    assert (found["d"], found["s"], found["t"], found["x"]) == ("in.example", "s1", str(NOW), str(NOW + 60))
    names = tags.without_spaces(found["h"]).split(":")
    assert {name: names.count(name) for name in ("from", "to", "subject", "cc", "date")} == {
        "from": 2, "to": 2, "subject": 2, "cc": 1, "date": 2,
    }  # fmt: skip
    assert not {"received", "x-other"} & set(names)
    assert "x" not in value_of(signed())


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_its_lines_are_short_and_fold_as_fields_do(kind):
    field = signed(kind=kind)
    assert field.endswith(b"\r\n")
    lines = field.removesuffix(b"\r\n").split(b"\r\n")
    assert all(len(line) <= 78 for line in lines)
    assert all(line.startswith(b"\t") for line in lines[1:])
    assert canonical.fields(field) == [field]


def test_a_long_domain_is_still_one_line_that_may_be_sent():
    long = Signer(".".join(["d" * 60] * 3) + ".example", "s" * 50, KEYS["ed25519"])
    field = making.signature(reading.by_name(canonical.fields(HEAD)), digest(BODY), long, CHOSEN, NOW, 0)
    assert value_of(field)["d"] == long.domain
    assert max(map(len, field.split(b"\r\n"))) < 998


def test_fields_that_stand_there_often_are_all_signed_up_to_a_limit():
    chosen = Chosen(("from",), ("list-help", "to"))
    field = signed(HEAD + b"List-Help: <x>\r\n" * 3, chosen=chosen)
    assert tags.without_spaces(value_of(field)["h"]) == "from:from:list-help:list-help:list-help:to"
    with pytest.raises(NotSigned, match="too many fields"):
        signed(HEAD + b"List-Help: <x>\r\n" * making.MOST_NAMES, chosen=chosen)


# ---- ARC ----------------------------------------------------------------------------------------------------------

RESULTS = b" in.example;\r\n\tspf=pass smtp.mfrom=out.example;\r\n\tarc=none\r\n"
OF_ARC = Chosen(("from",), ("to", "subject", "date", "dkim-signature"))


def sealed(head=HEAD, cv="none", kind="rsa", results=RESULTS):
    return making.arc_set(canonical.fields(head), digest(BODY), results, cv, signer(kind), OF_ARC, NOW)


def chain(head):
    return dkim.arc_verify(head + b"\r\n" + BODY, dnsfunc=records)[0]


def test_another_implementation_finds_that_the_chain_holds_however_long():
    head = HEAD
    for cv in ("none", "pass", "pass"):
        head = sealed(head, cv) + head
        assert chain(head) == dkim.CV_Pass
    assert value_of(canonical.fields(head)[0])["i"] == "3"


def test_a_set_stands_on_top_with_our_results():
    seal, message, results = canonical.fields(sealed())
    assert results == b"ARC-Authentication-Results: i=1;" + RESULTS
    assert {key: value for key, value in value_of(seal).items() if key != "b"} == {
        "i": "1", "a": "rsa-sha256", "d": "in.example", "s": "s1", "t": str(NOW), "cv": "none",
    }  # fmt: skip
    assert value_of(message)["h"] == "from:from:to:subject:date"
    assert "v" not in value_of(message)


def test_the_seal_of_a_broken_chain_is_over_our_own_set():
    head = sealed() + HEAD
    broken = head.replace(b"spf=pass", b"spf=fail")
    seal, *_ = canonical.fields(sealed(broken, "fail"))
    assert (value_of(seal)["cv"], value_of(seal)["i"]) == ("fail", "2")
    (_, message, results) = canonical.fields(sealed(broken, "fail"))
    bare = seal.partition(b"\tb=")[0] + b"\tb=\r\n"
    over = making.reading.digest([results, message], bare, relaxed=True)
    assert value_of(seal)["b"].replace(" ", "").replace("\t", "") == making._base64(KEYS["rsa"].sign(over))


def test_a_chain_that_was_sealed_as_broken_goes_no_further():
    head = sealed() + HEAD
    with pytest.raises(NotSigned, match="sealed as broken"):
        sealed(sealed(head, "fail") + head, "fail")


def test_a_chain_has_fifty_sets_at_most():
    sets = b"".join(b"ARC-Seal: i=%d; cv=pass; b=\r\n" % number for number in range(50, 0, -1))
    with pytest.raises(NotSigned, match="as long as it may be"):
        sealed(sets + HEAD, "fail")


@pytest.mark.parametrize(
    ("damage", "cv"),
    [
        (lambda head: head, "none"),
        (lambda head: HEAD, "pass"),
        (lambda head: head.replace(b"i=1", b"i=2"), "pass"),
        (lambda head: head.replace(b"ARC-Seal: i=1", b"ARC-Seal: i=x"), "pass"),
        (lambda head: head + head, "pass"),
        (lambda head: b"".join(canonical.fields(head)[1:]), "pass"),
        (lambda head: head + b"ARC-Seal: no tags\r\n", "pass"),
    ],
)
def test_a_chain_that_is_not_what_was_checked_is_not_sealed(damage, cv):
    with pytest.raises(NotSigned, match="not the one that was checked"):
        sealed(damage(sealed() + HEAD), cv)


# ---- The signing cases of the ARC test suite ----------------------------------------------------------------------

MERGED = {"ar_merged1", "ar_merged2"}
"""Results of one host in several fields: we write one."""


def _suite() -> list[Any]:
    """Each case with the part of the suite that it stands in, which has the key."""
    suites = list(yaml.safe_load_all(SUITE.read_text("utf-8"))) if SUITE.exists() else []
    cases = [(suite, name, case) for suite in suites for name, case in suite["tests"].items()]
    return [pytest.param(suite, case, id=name) for suite, name, case in cases if name not in MERGED]


def test_the_suite_is_there():
    if not SUITE.exists() and os.environ.get("CI") == "true":
        pytest.fail(f"{SUITE} is missing")
    assert len(_suite()) in (0, 17 - len(MERGED))


@pytest.mark.parametrize(("suite", "case"), _suite())
def test_the_signing_suite(suite, case):
    """Tag by tag; b= differs, for it is made of the order of the tags, so dkimpy checks it."""
    key = private.read(suite["privatekey"].encode())
    own = Signer(suite["domain"], suite["sel"], key)
    head, _, body = case["message"].replace("\n", "\r\n").partition("\r\n\r\n")
    first, *rest = canonical.fields(f"{head}\r\n".encode())
    results = first.partition(b":")[2]
    cv = next((word for word in ("none", "pass", "fail") if f" arc={word}".encode() in results), "none")
    chosen = Chosen((), case["sig-headers"].split(":"))
    if not case["AS"].strip():
        with pytest.raises(NotSigned):
            making.arc_set(rest, digest(body.encode()), results, cv, own, chosen, int(case["t"]))
        return
    made = making.arc_set(rest, digest(body.encode()), results, cv, own, chosen, int(case["t"]))
    seal, message, found = canonical.fields(made)
    for field, wanted in ((seal, case["AS"]), (message, case["AMS"])):
        assert _without_b(value_of(field)) == _without_b(tags.parse(wanted.strip().replace("\n", " ").encode()))
    assert _words(found.partition(b":")[2]) == _words(case["AAR"].encode())
    text = "".join(next(iter(suite["txt-records"].values())).split("\n")).encode()
    whole = made + first + b"".join(rest) + b"\r\n" + body.encode()
    verdict, *_ = dkim.arc_verify(whole, dnsfunc=lambda name, **_: text)
    assert verdict == (None if cv == "fail" else dkim.CV_Pass)  # None: the newest signature holds, the chain has ended


def _without_b(found):
    return {key: tags.without_spaces(value) for key, value in found.items() if key != "b"}


def _words(value):
    return value.replace(b";", b" ; ").split()


def test_the_digest_of_a_body_is_that_of_its_relaxed_form():
    assert digest(BODY) == hashlib.sha256(b"Hello there\r\n\r\nbye\r\n").digest()

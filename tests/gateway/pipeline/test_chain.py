"""ARC chains: the published suite through reader, checker and filter; hostile chains; what they may cost."""

import asyncio
import ipaddress
import os
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import dkim
import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from filters.arc import Filter, Settings
from gateway.dkim import canonical, reading
from gateway.dkim.checker import Checker
from gateway.model import Arc, Author, Content, Finding, ListenerKind, Mail, Session, Tools
from gateway.pipeline import chain as module
from gateway.pipeline import confined
from gateway.pipeline.chain import chain
from gateway.pipeline.signed import Bodies, Claims, outermost
from gateway.stages import Content as ContentPolicy
from tests.peers.forwarder import RECORD, Forwarder

SHARED = Path(os.environ.get("GATEPOST_SHARED", Path(__file__).parents[4] / "shared"))
SUITE = SHARED / "suites" / "arc" / "arc-draft-validation-tests.yml"

LIMITS = ContentPolicy.Settings()
PEER = Session(ipaddress.ip_address("192.0.2.1"))
TRUSTING = Settings(trusted_sealers=("one.test", "two.test", "three.test"))
MAIL = b"From: Jane <jane@author.test>\r\nTo: joe@here.test\r\nSubject: hello\r\n\r\nIt is me.\r\n"


class FakeDns:
    """TXT records by name; where there is no table, every name has the key of these tests."""

    def __init__(self, records: Mapping[str, str] | None = None) -> None:
        self.records, self.asked = records, list[str]()

    async def txt(self, name: str) -> Sequence[bytes]:
        self.asked.append(name)
        if self.records is None:
            return [RECORD]
        return [self.records[name].encode()] if name in self.records else []


def read(message: bytes) -> Arc:
    fields, start = outermost(message, LIMITS)
    return chain(fields, Bodies(message, start))


def scanned(message: bytes, session: Session) -> Arc:
    """The chain as the gateway gets it of a confined child: scanned, and back from JSON."""
    with tempfile.TemporaryFile() as file:
        file.write(message)
        file.flush()
        answer = confined.scan(Mail("id", session), file.fileno(), confined.Task(LIMITS, ()))
    return confined.SCANNED.validate_json(confined.SCANNED.dump_json(answer)).content.arc


def judged(arc: Arc, dns: FakeDns | None = None, wanted: Settings = TRUSTING) -> Finding | None:
    """What the filter says of the chain, with the checker of the product."""
    content = Content(author=Author("jane@author.test", "author.test"), arc=arc)
    mail = Mail("id", PEER, content=content)
    tools = Tools(None, None, "mx.demo.example", None, Checker(dns or FakeDns()), None, None)  # type: ignore[arg-type]
    found = asyncio.run(Filter(wanted, tools).check(mail, {}))
    return found[0] if found else None


def code(message: bytes) -> str:
    finding = judged(read(message))
    return finding.code if finding else "none"


# --- the suite -----------------------------------------------------------------------------------------------------

DIFFERENT = {
    "ams_fields_c_na": "RFC 8617 4.1.2 takes the default of c= from DKIM, which is simple; its drafts had relaxed",
    "ams_fields_h_empty": "the suite lets a signature pass that does not cover From; RFC 6376 5.4 does not",
    "ams_fields_h_mis_hdr": "h= holds an empty name, which the grammar of RFC 6376 3.5 does not allow",
}
"""Cases that are to pass and do not, and why."""


def _suite() -> list[Any]:
    if not SUITE.exists():
        return []
    return [
        pytest.param(name, scenario["txt-records"], case, id=name)
        for scenario in yaml.safe_load_all(SUITE.read_text("utf-8"))
        for name, case in scenario["tests"].items()
    ]


CASES = _suite()


def test_the_suite_is_there_and_whole() -> None:
    if not SUITE.exists() and os.environ.get("CI") != "true":
        pytest.skip(f"the ARC test suite is not at {SUITE}; GATEPOST_SHARED names its folder")
    assert len(CASES) == 171


@pytest.mark.parametrize(("name", "records", "case"), CASES)
def test_a_chain_is_judged_as_the_suite_says(name: str, records: Mapping[str, str], case: Mapping[str, Any]) -> None:
    arc = scanned(case["message"].encode().replace(b"\n", b"\r\n"), PEER)
    finding = judged(arc, FakeDns(records))
    result = finding.result.result if finding and finding.result else "none"
    expected = (case["cv"] or "fail").lower()  # it says nothing where the last seal says "fail" itself
    assert result == ("fail" if name in DIFFERENT else expected), finding


# --- chains of our own ---------------------------------------------------------------------------------------------


ONE, TWO, THREE = (Forwarder(f"{name}.test") for name in ("one", "two", "three"))
CHAIN = THREE.passes_on(TWO.passes_on(ONE.passes_on(MAIL)))


def test_a_chain_of_three_holds_and_is_read_oldest_first() -> None:
    arc = read(CHAIN)
    assert [(one.instance, one.cv, one.seal.domain, one.message.domain, one.author) for one in arc.sets] == [
        (1, "none", "one.test", "one.test", "author.test"),
        (2, "pass", "two.test", "two.test", "author.test"),
        (3, "pass", "three.test", "three.test", "author.test"),
    ]
    assert arc.sets[0].results == (("dmarc", "pass"),)
    finding = judged(arc)
    assert finding is not None
    assert finding.code == "trusted"
    assert finding.result is not None
    assert finding.result.get("header.oldest-pass") == "0"


def test_the_chain_of_a_mail_from_outside_comes_with_its_content_and_no_other_does() -> None:
    assert scanned(CHAIN, PEER) == read(CHAIN)
    assert scanned(CHAIN, replace(PEER, user="jane")) == Arc()
    assert scanned(CHAIN, replace(PEER, kind=ListenerKind.RELAY)) == Arc()


def test_a_mail_without_a_chain_has_none() -> None:
    assert read(MAIL) == Arc()
    assert read(b"") == Arc()
    assert read(b"\r\nbody") == Arc()


def test_a_list_that_changes_the_mail_and_seals_it_again_is_believed() -> None:
    changed = ONE.passes_on(MAIL).replace(b"Subject: hello", b"Subject: [list] hello").replace(b"me.", b"me. -- footer")
    assert code(changed) == "fail"
    sealed = TWO.passes_on(changed)
    finding = judged(read(sealed))
    assert finding is not None
    assert finding.code == "trusted"
    assert finding.result is not None
    assert finding.result.get("header.oldest-pass") == "2"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"It is me.", b"It is he."),
        (b"It is me.\r\n", b"It is me.\r\nBuy!\r\n"),
        (b"From: Jane", b"From: Joe "),
        (b"From: Jane", b"From: Boss <boss@bank.test>\r\nFrom: Jane"),
        (b"From: Jane", b"From : Boss <boss@bank.test>\r\nFrom: Jane"),
        (b"From: Jane", b"from\t: Boss <boss@bank.test>\r\nFrom: Jane"),
        (b"\r\nTo: joe", b"\r\n To: joe"),
        (b"Subject: hello", b"Subject: bye"),
        (b"\r\n\r\nIt", b"\r\nFrom: Boss <boss@bank.test>\r\n\r\nIt"),
        (b"header.from=author.test", b"header.from=bank.test"),
        (b"i=2; two.test; dmarc=pass", b"i=2; two.test; dmarc=fail"),
        (b"cv=none", b"cv=pass"),
        (b"d=one.test", b"d=six.test"),
        (b"ARC-Seal: i=1", b"ARC-Seal: i=4"),
        (b"ARC-Seal: i=1", b"ARC-Seal: i=2"),
        (b"ARC-Seal: i=1", b"ARC-Seal: i=01"),
        (b"ARC-Seal: i=1", b"ARC-Seal: i="),
        (b"ARC-Seal: i=1", b"ARC-Seal: i=1; i=1"),
        (b"ARC-Seal: i=1", b"X-ARC-Seal: i=1"),
        (b"ARC-Seal: i=1", b"ARC-Seal: i=1; ;"),
        (b"ARC-Message-Signature: i=2", b"ARC-Message-Signature: i=2; x=1"),
        (b"ARC-Message-Signature: i=3", b"ARC-Message-Signature: i=3; l=4"),
        (b"ARC-Authentication-Results: i=3", b"ARC-Authentication-Results: i = 3"),
        (b"ARC-Authentication-Results: i=3; ", b"ARC-Authentication-Results: "),
    ],
)
def test_nothing_that_is_changed_behind_the_back_of_the_sealers_passes(old: bytes, new: bytes) -> None:
    assert old in CHAIN
    assert code(CHAIN) == "trusted"
    assert code(CHAIN.replace(old, new, 1)) == "fail"


@pytest.mark.parametrize(
    ("seal_tags", "why"),
    [
        ({"h": "from"}, "covers no message"),
        ({"bh": "AAAA"}, "covers no message"),
        ({"l": "1"}, "covers no message"),
        ({"t": "x"}, "t= is no number"),
        ({"t": ""}, "t= is no number"),
        ({"t": "9" * 13}, "t= is no number"),
        ({"a": "rsa-sha1"}, "SHA-1"),
        ({"a": "none"}, "algorithm"),
        ({"d": "test"}, "domain"),
        ({"s": "a..b"}, "selector"),
        ({"cv": "fail"}, "found the chain broken"),
        ({"cv": "Pass"}, "cv="),
        ({"cv": "none"}, "cv="),
        ({"cv": "-"}, "cv="),
        ({"i": "3"}, "missing"),
        ({"i": "0"}, "instance"),
        ({"i": "51"}, "missing"),
        ({"i": "100"}, "instance"),
        ({"i": "-"}, "instance"),
    ],
    ids=str,
)
def test_a_seal_that_is_signed_and_may_not_be_so_breaks_the_chain(seal_tags: Mapping[str, str], why: str) -> None:
    finding = judged(read(Forwarder("two.test", seal_tags=seal_tags).passes_on(ONE.passes_on(MAIL))))
    assert finding is not None
    assert finding.code == "fail"
    assert why in finding.detail


@pytest.mark.parametrize(
    ("forwarder", "why"),
    [
        (Forwarder("two.test", names="to:subject"), "From field is not signed"),
        (Forwarder("two.test", names="from:arc-seal"), "covers a seal"),
        (Forwarder("two.test", names="from:ARC-Seal:to"), "covers a seal"),
        (Forwarder("two.test", message_tags={"l": "0"}), "part of the body"),
        (Forwarder("two.test", message_tags={"l": "11"}), "part of the body"),
        (Forwarder("two.test", message_tags={"bh": "-"}), "body"),
        (Forwarder("two.test", message_tags={"c": "odd"}), "canonical form"),
        (Forwarder("two.test", message_tags={"a": "rsa-sha1"}), "SHA-1"),
        (Forwarder("two.test", message_tags={"x": "1000"}), "expired"),
        (Forwarder("two.test", message_tags={"i": "02"}), "instance"),
    ],
    ids=str,
)
def test_a_signature_over_the_message_that_may_not_be_so_breaks_the_chain(forwarder: Forwarder, why: str) -> None:
    finding = judged(read(forwarder.passes_on(ONE.passes_on(MAIL))))
    assert finding is not None
    assert finding.code == "fail"
    assert why in finding.detail


@pytest.mark.parametrize("fault", [{"names": "to:subject"}, {"message_tags": {"bh": "-"}}], ids=str)
def test_a_fault_in_an_older_signature_over_the_message_breaks_no_chain(fault: dict[str, Any]) -> None:
    assert code(TWO.passes_on(Forwarder("one.test", **fault).passes_on(MAIL))) == "trusted"


def test_a_version_in_a_signature_over_the_message_is_passed_over() -> None:
    assert code(Forwarder("one.test", message_tags={"v": "2"}).passes_on(MAIL)) == "trusted"


def test_a_word_in_quotes_or_comments_makes_nobody_trusted() -> None:
    for results in ('spf=pass smtp.mailfrom="; dmarc=pass header.from=author.test"@x.test', "spf=pass (; dmarc=pass)"):
        assert code(Forwarder("one.test", results).passes_on(MAIL)) == "pass"


def test_a_message_with_two_from_fields_needs_both_signed() -> None:
    double = b"From: Boss <boss@bank.test>\r\n" + MAIL
    assert code(ONE.passes_on(double)) == "fail"


# --- whatever comes ------------------------------------------------------------------------------------------------

_NAMES = st.sampled_from([b"ARC-Seal", b"ARC-Message-Signature", b"ARC-Authentication-Results", b"arc-seal ", b"From"])
_VALUES = st.one_of(
    st.binary(max_size=60),
    st.lists(
        st.sampled_from(
            [
                "i=1",
                "i=2",
                "a=ed25519-sha256",
                "a=rsa-sha256",
                "d=one.test",
                "s=s",
                "cv=none",
                "cv=pass",
                "cv=fail",
                "h=from",
                "h=from:to",
                "bh=AAAA",
                "b=AAAA",
                "c=relaxed/relaxed",
                "t=1",
                "x=2",
                "l=0",
                "one.test",
                "dmarc=pass",
            ]
        ),
        max_size=12,
    ).map(lambda tags: "; ".join(tags).encode()),
)


@given(st.lists(st.tuples(_NAMES, _VALUES), max_size=9))
@settings(max_examples=150, deadline=None)
def test_arbitrary_fields_of_arc_never_crash_and_never_pass(fields: list[tuple[bytes, bytes]]) -> None:
    head = b"".join(b"%s: %s\r\n" % (name, value.replace(b"\r\n", b"")) for name, value in fields)
    assert code(head + MAIL) in {"fail", "none"}


_COVERED = CHAIN.index(b"ARC-Message-Signature"), CHAIN.index(b"Subject: hello") + 14


@given(st.integers(*_COVERED), st.binary(min_size=1, max_size=3), st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_a_change_anywhere_in_what_is_sealed_breaks_the_chain(at: int, new: bytes, gone: int) -> None:
    changed = CHAIN[:at] + new + CHAIN[at + gone :]
    if code(changed) in {"fail", "none"}:
        return
    before, after = (
        [canonical.field(one, relaxed=True) for one in outermost(message, LIMITS)[0]] for message in (CHAIN, changed)
    )
    assert [one for one in after if one in before] == before  # white space and case only, or a line that nobody seals


PASSING = [
    case.values[1:]
    for case in CASES
    if case.values[2]["cv"] == "Pass"
    and case.values[0] not in DIFFERENT
    and "c=simple" not in case.values[2]["message"]  # dkimpy takes white space off the end of a signature even there
]
_ODD = [b" ", b"\t", b"\r\n ", b"\r\n", b";", b"=", b":", b",", b'"', b"(", b"0", b"1", b"a", b"Z", b""]


@pytest.mark.skipif(not PASSING, reason="its messages are those of the suite, which is asked for above")
@given(st.data())
@settings(max_examples=120, deadline=None)
def test_a_chain_that_is_changed_anywhere_is_judged_as_dkimpy_does(data: st.DataObject) -> None:
    records, case = data.draw(st.sampled_from(PASSING))
    message = case["message"].encode().replace(b"\n", b"\r\n")
    at, gone = data.draw(st.integers(0, len(message))), data.draw(st.integers(0, 1))
    changed = message[:at] + data.draw(st.sampled_from(_ODD)) + message[at + gone :]
    lines = changed.replace(b"\r", b"").removesuffix(b"\n").split(b"\n")  # whole ones, as SMTP has them
    changed = b"".join(line + b"\r\n" for line in lines)
    # White space around the value of b= is none of the signed octets (RFC 6376 3.5); dkimpy takes off what is before it
    assume(not re.search(rb"[;\s]b\s*=[^;]*\s;", changed))
    finding = judged(read(changed), FakeDns(records))
    holds = finding is not None and finding.code == "pass"
    assert theirs(changed, records) in {holds, None}


def theirs(message: bytes, records: Mapping[str, str]) -> bool | None:
    """Whether dkimpy lets the chain pass; None where it stumbles over a line that is no field, or over white space."""
    try:
        result, _, _ = dkim.arc_verify(
            message, dnsfunc=lambda name, timeout: records.get(name.decode()[:-1], "").encode()
        )
    except (dkim.MessageFormatError, LookupError, ValueError):
        return None
    return bool(result == b"pass")


@given(
    st.lists(st.sampled_from([b"A: 1", b"a : 2", b"B:  3\r\n\t4", b"From: x", b"b:5 "]), max_size=8),
    st.lists(st.sampled_from(["a", "b", "from", "c"]), max_size=10).map(tuple),
    st.booleans(),
)
@settings(deadline=None)
def test_the_fields_signed_are_those_that_dkim_would_sign(
    lines: list[bytes], names: tuple[str, ...], relaxed: bool
) -> None:
    fields = [b"B: a=1; b=xyz; c=3\r\n", *(line + b"\r\n" for line in lines)]
    claims = Claims(names, relaxed, relaxed, b"", None, 0, 0)
    ours = module._Header(fields).digest(claims, fields[0])
    assert ours == reading.header_digest(fields, names, fields[0], relaxed)


# --- what it may cost ----------------------------------------------------------------------------------------------


def cost(message: bytes) -> tuple[float, Arc]:
    begun = time.process_time()
    arc = read(message)
    return time.process_time() - begun, arc


def long_chain(count: int) -> bytes:
    message = MAIL
    for number in range(count):
        message = Forwarder(f"d{number}.test").passes_on(message)
    return message


def test_fifty_sets_hold_and_cost_little() -> None:
    dns = FakeDns()
    seconds, arc = cost(long_chain(50))
    assert seconds < 0.5  # measured: 0.003 s
    finding = judged(arc, dns, Settings(queries=50))
    assert finding is not None
    assert finding.code == "pass"


def test_fifty_sets_with_fifty_keys_are_not_asked_about() -> None:
    dns = FakeDns()
    finding = judged(read(long_chain(50)), dns)
    assert finding is not None
    assert (finding.code, dns.asked) == ("fail", [])


@pytest.mark.parametrize("count", [51, 200, 300])
def test_more_than_fifty_sets_are_not_read(count: int) -> None:
    seconds, arc = cost(long_chain(count))
    assert arc == Arc(fault="there are more than 50 sets")
    assert seconds < 0.5


def test_signatures_that_each_cover_a_large_header_cost_little() -> None:
    wide = b"".join(b"X-%d: %s\r\n" % (number, b"a b" * 70) for number in range(600))
    names = ":".join(["from", *(f"x-{number}" for number in range(600))])
    message = wide + MAIL
    for number in range(20):
        message = Forwarder(f"d{number % 3}.test", names=names).passes_on(message)
    seconds, arc = cost(message)
    assert len(arc.sets) == 20
    assert seconds < 1.0  # measured: 0.02 s
    finding = judged(arc)
    assert finding is not None
    assert finding.code == "pass"

"""DMARC: the examples of RFC 9989, what strangers publish, and the messages that rspamd is tested with."""

import asyncio
import ipaddress
import json
import os
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters import dkim, spf
from filters.dmarc import MIN_QUERIES, Filter, Settings
from gateway.dkim.checker import Checker
from gateway.dmarc.record import parse
from gateway.dns import Resolver
from gateway.model import (
    Author,
    Content,
    Envelope,
    Finding,
    ListenerKind,
    Mail,
    Oversized,
    Result,
    Session,
    Temporary,
    Tools,
)
from gateway.pipeline.confined import Task, scan
from gateway.stages import Content as ContentStage
from tests.peers import dns as peer
from tests.peers import processes

CASES = tomllib.loads((Path(__file__).parent / "dmarc" / "cases.toml").read_text())["case"]
SHARED = Path(os.environ.get("GATEPOST_SHARED", Path(__file__).parents[3] / "shared"))
SUITE = SHARED / "suites" / "dmarc"
STRANGER = "192.0.2.1"
REJECT = {"_dmarc.a.test": [b"v=DMARC1; p=reject"]}


class FakeDns:
    """A DNS of TXT records by name, of names that have an address, and of names of which nobody can tell."""

    def __init__(
        self, texts: Mapping[str, Sequence[bytes]] | None = None, exists: Sequence[str] = (), silent: Sequence[str] = ()
    ) -> None:
        self.texts, self.exists, self.silent, self.asked = texts or {}, exists, silent, []
        self.too_large: Sequence[str] = ()

    async def _look(self, kind: str, name: str, found: Sequence[Any]) -> Sequence[Any]:
        self.asked.append((kind, name))
        if name in self.too_large:
            raise Oversized("the answer has more than 16 KB")
        if name in self.silent:
            raise Temporary("the name servers could not tell (SERVFAIL)")
        return found

    async def txt(self, name: str) -> Sequence[bytes]:
        return await self._look("TXT", name, self.texts.get(name, ()))

    async def a(self, name: str) -> Sequence[str]:
        return await self._look("A", name, ["192.0.2.9"] if name in self.exists else [])

    async def aaaa(self, name: str) -> Sequence[str]:
        return await self._look("AAAA", name, [])

    async def mx(self, name: str) -> Sequence[tuple[int, str]]:
        return await self._look("MX", name, [])

    async def ptr(self, address: str) -> Sequence[str]:
        return await self._look("PTR", address, [])


def tools(dns: Any, signatures: Any = None) -> Tools:
    return Tools(dns, None, "mx.demo.example", None, signatures, None, None)  # type: ignore[arg-type]


def mail(author: str | Author, sender: str = "x@bounce.test", **session: Any) -> Mail:
    content = Content(author=author if isinstance(author, Author) else Author(f"x@{author}", author))
    peer = ipaddress.ip_address(session.pop("peer", STRANGER))
    return Mail("id", Session(peer, helo="h.test", **session), Envelope(sender), content)


def signed(domain: str, result: str = "pass") -> Finding:
    return Finding(result, result=Result("dkim", result, (("header.d", domain), ("header.s", "s"))))


def sent(domain: str, result: str = "pass", name: str = "smtp.mailfrom") -> Finding:
    return Finding(result, result=Result("spf", result, ((name, domain),)))


def findings(
    dns: Any, mail_: Mail, found: Mapping[str, Sequence[Finding]] | None = None, **of: Any
) -> Sequence[Finding]:
    return asyncio.run(Filter(Settings(**of), tools(dns)).check(mail_, found or {}))


def only(dns: Any, mail_: Mail, found: Mapping[str, Sequence[Finding]] | None = None, **of: Any) -> Finding:
    (finding,) = findings(dns, mail_, found, **of)
    return finding


def facts_of(finding: Finding) -> dict[str, str]:
    return dict(fact.partition("=")[::2] for fact in finding.facts if fact.startswith(("policy.", "aligned.", "over")))


# --- RFC 9989, and what strangers publish ----------------------------------------------------------------------------


def dns_of(case: Mapping[str, Any]) -> FakeDns:
    written = dict(case.get("dns", {}))
    exists = written.pop("exists", [])
    silent = [f"_dmarc.{name}" for name, text in written.items() if text == "?"] + [
        n[1:] for n in exists if n[0] == "?"
    ]
    texts = {f"_dmarc.{name}": [text] if isinstance(text, str) else text for name, text in written.items()}
    return FakeDns({name: [t.encode() for t in several] for name, several in texts.items()}, exists, silent)


def found_of(case: Mapping[str, Any]) -> dict[str, Sequence[Finding]]:
    spf_found = [sent(case["spf"])] if "spf" in case else [sent("unrelated.test", "fail")]
    if "spf_unsure" in case:
        spf_found = [sent(case["spf_unsure"], "temperror")]
    unsure = [signed(domain, "temperror") for domain in case.get("dkim_unsure", ())]
    return {"spf": spf_found, "dkim": [*map(signed, case.get("dkim", ())), *unsure]}


@pytest.mark.parametrize("case", CASES, ids=[case["name"].replace(" ", "-") for case in CASES])
def test_what_is_said_of(case: Mapping[str, Any]) -> None:
    dns = dns_of(case)
    finding = only(dns, mail(case["author"]), found_of(case), **case.get("settings", {}))
    facts = facts_of(finding)
    assert finding.code == case["code"], finding
    assert finding.result is not None
    assert finding.result.result == case.get("result", case["code"].partition("_")[0])
    assert finding.result.get("header.from") == case["author"]
    aligned = [method for method in ("spf", "dkim") if facts.get(f"aligned.{method}") == "pass"]
    assert aligned == case.get("aligned", [])
    assert facts.get("policy.domain") == case.get("policy", facts.get("policy.domain"))
    assert facts.get("policy.method") == case.get("method", facts.get("policy.method"))
    if "asked" in case:
        assert dns.asked == [("TXT", f"_dmarc.{name}") for name in case["asked"]]
    assert len(dns.asked) == len(set(dns.asked)) <= Settings().max_queries


# --- rspamd's messages, through the reader, SPF and DKIM as they are ---------------------------------------------------

SYMBOLS = {
    "DMARC_POLICY_ALLOW": "pass",
    "DMARC_POLICY_SOFTFAIL": "fail_none",
    "DMARC_POLICY_QUARANTINE": "fail_quarantine",
    "DMARC_POLICY_REJECT": "fail_reject",
    "DMARC_DNSFAIL": "temperror",
    "With": "pass",  # not a symbol: the case wants no other verdict than the first one has for the same message
}
DIFFERENT = {  # and why: RFC 9989 A.6 has removed pct, which rspamd reads by RFC 7489
    "dmarc pct zero reject": "fail_reject",
    "dmarc pct zero sp quarantine": "fail_quarantine",
}
TO_THE_LETTER = {"dmarc subdomain pass dkim relaxed alignment", "dmarc subdomain pass spf relaxed alignment"}
"""Those in which a parent without a record vouches: they pass by RFC 7489, and fail by RFC 9989 4.10.2."""
OTHERS = {  # messages that no case of theirs names: what is said of them, from a host that SPF knows nothing of
    "bad_dkim1": "fail_none",  # signed by another domain, whose key cannot be read
    "bad_dkim2": "none",
    "bad_dkim3": "fail_none",  # the key of a stranger's domain cannot be asked for, and nothing hangs on it
    "bad_dkim4": "none",
    "bad_dkim_highsecure": "none",
    "bad_dkim_rspamd": "none",
    "dkim_unknown_tags": "none",
    "ed25519_from": "none",
    "fail_none1": "none",
    "good_dkim_highsecure": "none",
    "good_dkim_rspamd": "none",
    "no_dkim_valid_spf": "none",
}


def suite() -> tuple[list[dict[str, Any]], FakeDns]:
    if not SUITE.exists():
        return [], FakeDns()
    written = json.loads((SUITE / "cases.json").read_text())
    texts = {name: [text.encode() for text in records.get("TXT", ())] for name, records in written["dns"].items()}
    silent = [name for name, records in written["dns"].items() if records.get("rcode") == "timeout"]
    return written["cases"], FakeDns(texts, silent=silent)


RSPAMD, THEIR_DNS = suite()


def read(data: bytes, session: Session, envelope: Envelope) -> Mail:
    """The mail as the confined child reads it."""
    fd = os.memfd_create("message")
    try:
        os.write(fd, data)
        blank = Mail("id", session, envelope)
        scanned = scan(blank, fd, Task(ContentStage.Settings(), (), frozenset()))
    finally:
        os.close(fd)
    return Mail("id", session, envelope, scanned.content)


def judged(message: str, ip: str | None, sender: str | None, **of: Any) -> Finding:
    data = (SUITE / message).read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    session = Session(ipaddress.ip_address(ip or STRANGER), helo="h.test")
    one = read(data, session, Envelope(sender if sender and "@" in sender else "x@unrelated.test"))
    lent = tools(THEIR_DNS, Checker(THEIR_DNS))

    async def chain() -> Sequence[Finding]:
        found: dict[str, Sequence[Finding]] = {}
        found["spf"] = await spf.Filter(spf.Settings(), lent).check(one, found)
        found["dkim"] = await dkim.Filter(dkim.Settings(), lent).check(one, found)
        return await Filter(Settings(**of), lent).check(one, found)

    (finding,) = asyncio.run(chain())
    return finding


def test_the_messages_of_rspamd_are_there_and_whole() -> None:
    if not SUITE.exists() and os.environ.get("CI") != "true":
        pytest.skip(f"rspamd's messages are not at {SUITE}; GATEPOST_SHARED names the folder above its parent")
    assert len(RSPAMD) == 17
    named = {Path(case["message"]).stem for case in RSPAMD}
    assert named | OTHERS.keys() == {path.stem for path in (SUITE / "messages").glob("*.eml")}
    assert named.isdisjoint(OTHERS)


@pytest.mark.parametrize("case", RSPAMD, ids=[case["name"].replace(" ", "-") for case in RSPAMD])
def test_the_verdict_is_that_of_rspamd(case: Mapping[str, Any]) -> None:
    finding = judged(case["message"], case["ip"], case["mail_from"], parents_align=True)
    (symbol,) = case["expect"]
    assert finding.code == DIFFERENT.get(case["name"], SYMBOLS[symbol]), finding


@pytest.mark.parametrize("case", RSPAMD, ids=[case["name"].replace(" ", "-") for case in RSPAMD])
def test_no_parent_vouches_as_shipped_which_is_rfc_9989_to_the_letter(
    case: Mapping[str, Any],
) -> None:
    before = judged(case["message"], case["ip"], case["mail_from"], parents_align=True)
    shipped = judged(case["message"], case["ip"], case["mail_from"])
    assert shipped.code == ("fail_reject" if case["name"] in TO_THE_LETTER else before.code)


@pytest.mark.parametrize("name", OTHERS if RSPAMD else ())
def test_the_other_messages_of_rspamd(name: str) -> None:
    finding = judged(f"messages/{name}.eml", None, None)
    assert finding.code == OTHERS[name], finding


# --- authors that readers may see differently ------------------------------------------------------------------------

DOUBTFUL = tomllib.loads((Path(__file__).parents[1] / "authors" / "doubtful.toml").read_text("utf-8"))["case"]


@pytest.mark.parametrize("case", DOUBTFUL, ids=[case["about"].replace(" ", "-") for case in DOUBTFUL])
def test_a_doubtful_from_never_passes_whoever_has_signed(case: Mapping[str, Any]) -> None:
    data = case["header"].encode() + b"Subject: x\r\n\r\nhello\r\n"
    one = read(data, Session(ipaddress.ip_address(STRANGER)), Envelope("a@attack.example"))
    domains = ("attack.example", "legit.example")
    dns = FakeDns({f"_dmarc.{name}": [b"v=DMARC1; p=none"] for name in domains})
    found = {"dkim": [signed(name) for name in domains], "spf": [sent(name) for name in domains]}
    assert only(dns, one, found).code == "permerror"
    assert dns.asked == []


# --- whose mail is judged --------------------------------------------------------------------------------------------


def test_our_own_people_and_relays_are_not_judged() -> None:
    dns = FakeDns(REJECT)
    assert findings(dns, mail("a.test", kind=ListenerKind.SUBMISSION, user="alice")) == []
    assert findings(dns, mail("a.test", kind=ListenerKind.RELAY)) == []
    assert findings(dns, mail("a.test", peer="127.0.0.1")) == []
    assert findings(dns, mail("a.test", peer="192.0.2.1"), own_relays=("192.0.2.0/30",)) == []
    assert dns.asked == []
    assert only(dns, mail("a.test", peer="127.0.0.1"), own_relays=()).code == "fail_reject"


def test_a_bounce_that_shows_no_address_bears_nobodys_name() -> None:
    dns = FakeDns(REJECT)
    finding = only(dns, mail(Author(), sender=""))
    assert (finding.code, finding.result) == ("none", Result("dmarc", "none"))
    for author in (
        *(Author("x", ""), Author("x@a..test", "a..test"), Author(doubts=("there are two From fields",))),
        *(Author(senders=("admin@a.test",)), Author(senders=("",))),
    ):
        assert only(dns, mail(author, sender="")).code == "permerror"
    assert dns.asked == []


@pytest.mark.parametrize(
    ("author", "why"),
    [
        (Author(doubts=("there are two From fields",), domains=("a.test", "b.test")), "there are two From fields"),
        (Author(), "no author in From"),
        (Author("x", ""), "no domain in From"),
        (Author("x@[192.0.2.1]", "[192.0.2.1]"), "no domain in From"),
        (Author("x@a..test", "a..test"), "no domain in From"),
        (Author("x@a.test", "a.test", doubts=("it is folded oddly",)), "it is folded oddly"),
    ],
)
def test_who_is_no_single_author_is_a_permanent_error_and_costs_no_question(author: Author, why: str) -> None:
    dns = FakeDns(REJECT)
    finding = only(dns, mail(author), {"dkim": [signed("a.test")], "spf": [sent("a.test")]})
    assert finding == Finding(
        "permerror", f"it cannot be told who wrote the mail: {why}", result=Result("dmarc", "permerror")
    )
    assert dns.asked == []


def test_the_name_in_helo_counts_for_bounces_only() -> None:
    found = {"spf": [sent("a.test", name="smtp.helo")]}
    assert only(FakeDns(REJECT), mail("a.test", sender=""), found).code == "pass"
    assert only(FakeDns(REJECT), mail("a.test", sender="x@b.test"), found).code == "fail_reject"


@pytest.mark.parametrize("name", ["_acme-challenge.a.test", "x._domainkey.a.test", "_dmarc.a.test"])
def test_who_may_publish_at_the_name_of_a_service_is_not_the_domain(name: str) -> None:
    found = {"spf": [sent(name, name="smtp.helo")], "dkim": [signed(name)]}
    assert only(FakeDns(REJECT), mail("a.test", sender=""), found).code == "fail_reject"
    assert only(FakeDns(REJECT), mail("a.test"), {"dkim": [signed("mail_1.a.test")]}).code == "pass"


def test_results_that_are_no_pass_do_not_count() -> None:
    weak = Finding("weak", result=Result("dkim", "policy", (("header.d", "a.test"),)))
    bad = [signed("a.test", result) for result in ("fail", "neutral", "none", "permerror")]
    found = {"dkim": [weak, *bad], "spf": [sent("a.test", "softfail"), sent("a.test", "fail")]}
    assert only(FakeDns(REJECT), mail("a.test"), found).code == "fail_reject"


def test_results_of_a_strange_method_do_not_count() -> None:
    found = {"dkim": [Finding("pass", result=Result("x-dkim", "pass", (("header.d", "a.test"),)))]}
    assert only(FakeDns(REJECT), mail("a.test"), found).code == "fail_reject"


def test_capitals_and_a_final_dot_in_results_make_no_other_domain() -> None:
    assert only(FakeDns(REJECT), mail("a.test"), {"dkim": [signed("A.Test.")]}).code == "pass"


@pytest.mark.parametrize("name", ["spf", "dkim"])
@pytest.mark.parametrize("code", ["error", "temperror"])
def test_a_filter_that_could_not_tell_leaves_open_whether_it_would_have_passed(name: str, code: str) -> None:
    found = {name: [Finding(code, "no answer within 10 s")]}
    assert only(FakeDns(REJECT), mail("a.test"), found).code == "temperror"
    watching = FakeDns({"_dmarc.a.test": [b"v=DMARC1; p=none"]})
    assert only(watching, mail("a.test"), found).code == "fail_none"


# --- forwarders ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wish", ["none", "quarantine", "reject"])
def test_a_trusted_forwarder_sets_the_wish_of_the_owner_aside(wish: str) -> None:
    dns = FakeDns({"_dmarc.a.test": [b"v=DMARC1; p=%s" % wish.encode()]})
    finding = only(dns, mail("a.test"), {"arc": [Finding("trusted")]})
    assert finding.code == "forwarded"
    assert finding.result == Result("dmarc", "fail", (("header.from", "a.test"), ("policy.dmarc", wish)))
    assert facts_of(finding)["override"] == "trusted_forwarder"


@pytest.mark.parametrize("code", ["temperror", "error"])
def test_a_chain_that_could_not_be_checked_matters_where_a_trusted_sealer_vouches(code: str) -> None:
    assert only(FakeDns(REJECT), mail("a.test"), {"arc": [Finding(code)]}).code == "temperror"


def test_a_chain_that_is_not_trusted_changes_nothing() -> None:
    for code in ("pass", "fail", "unchecked"):
        assert only(FakeDns(REJECT), mail("a.test"), {"arc": [Finding(code)]}).code == "fail_reject"


def test_a_forwarder_makes_no_pass_better_and_no_author_clear() -> None:
    found = {"arc": [Finding("trusted")], "dkim": [signed("a.test")]}
    passed = only(FakeDns(REJECT), mail("a.test"), found)
    assert passed.code == "pass"
    assert "override" not in facts_of(passed)
    assert only(FakeDns(), mail("a.test"), found).code == "none"
    assert only(FakeDns(REJECT), mail(Author(doubts=("two",))), found).code == "permerror"


# --- what people and reports are told --------------------------------------------------------------------------------


def test_a_failure_is_told_in_one_sentence() -> None:
    finding = only(FakeDns(REJECT), mail("a.test"), {"spf": [sent("bounce.b.test")]})
    assert finding.detail == (
        "a.test wants unaligned mail rejected: SPF passed for bounce.b.test, no DKIM signature of a.test held"
    )
    assert finding.result == Result("dmarc", "fail", (("header.from", "a.test"), ("policy.dmarc", "reject")))


def test_it_is_told_for_which_mail_the_owner_wishes_it() -> None:
    records = {"_dmarc.a.test": [b"v=DMARC1; p=none; sp=quarantine; np=reject"]}
    there, nowhere = (only(FakeDns(records, ["b.a.test"]), mail(name)).detail for name in ("b.a.test", "c.a.test"))
    assert there.startswith("a.test wants unaligned mail of its subdomains held: ")
    assert nowhere.startswith("a.test wants unaligned mail of subdomains that do not exist rejected: ")


@pytest.mark.parametrize("method", ["spf", "dkim"])
def test_it_is_told_that_the_owner_wants_the_very_domain(method: str) -> None:
    records = {"_dmarc.a.test": [b"v=DMARC1; p=reject; adkim=s; aspf=s"]}
    near = {"spf": [sent("b.a.test")]} if method == "spf" else {"dkim": [signed("b.a.test")]}
    words = f"{method.upper()} for b.a.test does not count, for the owner wants the very domain in From (a{method}=s)"
    assert only(FakeDns(records), mail("a.test"), near).detail.endswith(f"; {words}")
    assert "very domain" not in only(FakeDns(records), mail("a.test"), {"spf": [sent("b.test")]}).detail


def test_several_records_are_told_as_the_reason_that_there_is_none() -> None:
    both = {"_dmarc.a.test": [b"v=DMARC1; p=reject", b"v=DMARC1; p=none", b"something else"]}
    finding = only(FakeDns(both), mail("x.a.test"))
    assert finding.detail == "x.a.test has no DMARC record that counts: there are 2 at _dmarc.a.test"
    assert only(FakeDns(), mail("a.test")).detail == "a.test has no DMARC record"


def test_a_pass_says_who_vouches() -> None:
    finding = only(FakeDns(REJECT), mail("a.test"), {"spf": [sent("b.a.test")], "dkim": [signed("a.test")]})
    assert finding.detail == "a.test is the sender: DKIM for a.test and SPF for b.a.test passed"


def test_the_facts_hold_what_a_report_needs() -> None:
    text = (
        b"v=DMARC1; p=reject; sp=quarantine; np=reject; adkim=s; t=y; fo=1:d; ruf=mailto:f@a.test;"
        b" rua=mailto:d@a.test!10m, https://a.test/r ,mailto:e%2C@b.test,mailto:nobody, MAILTO:g@c.test"
    )
    finding = only(FakeDns({"_dmarc.a.test": [text]}), mail("a.test"), {"spf": [sent("a.test")]})
    assert facts_of(finding) == {
        "policy.domain": "a.test",
        "policy.p": "reject",
        "policy.sp": "quarantine",
        "policy.np": "reject",
        "policy.adkim": "s",
        "policy.aspf": "r",
        "policy.t": "y",
        "policy.psd": "u",
        "policy.fo": "1:d",
        "policy.rua": "mailto:d@a.test,mailto:e%2C@b.test,MAILTO:g@c.test",
        "policy.method": "treewalk",
        "aligned.spf": "pass",
        "aligned.dkim": "fail",
    }
    assert finding.facts[-1] == f"TXT _dmarc.a.test: {text.decode()}"


def test_addresses_for_reports_are_whole_and_fit_into_a_fact() -> None:
    uris = [f"mailto:{'r' * 100}{number}@a.test" for number in range(20)]
    dns = FakeDns({"_dmarc.a.test": [f"v=DMARC1; p=none; rua={','.join(uris)}".encode()]})
    (fact,) = [one for one in only(dns, mail("a.test")).facts if one.startswith("policy.rua=")]
    assert len(fact) <= 500
    assert fact.removeprefix("policy.rua=").split(",") == uris[:4]


def test_no_answer_of_the_dns_shows_control_characters() -> None:
    dns = FakeDns({"_dmarc.a.test": [b"v=DMARC1; p=reject; fo=\x1b[31m\r\n\xff; rua=mailto:a@b\x00c"]})
    finding = only(dns, mail("a.test"))
    assert all(text.isprintable() and text.isascii() for text in (finding.detail, *finding.facts))
    assert finding.code == "fail_reject"


# --- limits ----------------------------------------------------------------------------------------------------------


def test_no_more_is_asked_than_the_settings_allow() -> None:
    deep = "a.b.c.d.e.f.g.h.example.com"
    dns = FakeDns({"_dmarc.example.com": [b"v=DMARC1; p=none; np=reject"]})
    signers = [signed(f"{'x.' * 6}s{number}.example.com") for number in range(8)]
    finding = only(dns, mail(deep), {"dkim": signers}, max_queries=MIN_QUERIES)
    assert len(dns.asked) == MIN_QUERIES
    assert finding.code == "fail_reject", "existence is told all the same"


def test_what_needs_no_question_and_what_is_near_comes_first() -> None:
    deep = "a.b.c.d.e.f.g.h.example.com"
    dns = {"_dmarc.example.com": [b"v=DMARC1; p=reject"]}
    far = [signed(f"{'x.' * 6}s{number}.example.com") for number in range(8)]
    assert only(FakeDns(dns), mail(deep), {"dkim": [*far, signed(deep)]}, max_queries=MIN_QUERIES).code == "pass"
    assert (
        only(FakeDns(dns), mail(deep), {"dkim": [*far, signed("example.com")]}, max_queries=MIN_QUERIES).code == "pass"
    )


def test_too_small_a_limit_is_told_at_once() -> None:
    with pytest.raises(ValueError, match="12 at least"):
        Filter(Settings(max_queries=11), tools(FakeDns()))


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_time_in_which_nothing_can_be_asked_is_told_at_once(seconds: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Filter(Settings(timeout=seconds), tools(FakeDns()))


def test_a_wrong_network_in_the_settings_is_told_at_once() -> None:
    with pytest.raises(ValueError):
        Filter(Settings(own_relays=("here",)), tools(FakeDns()))


def test_slow_dns_is_a_temporary_error_at_the_deadline() -> None:
    class Slow(FakeDns):
        async def txt(self, name: str) -> Sequence[bytes]:
            await asyncio.sleep(30)
            return ()

    began = time.monotonic()
    finding = only(Slow(), mail("a.test"), {"dkim": [signed("a.test")]}, timeout=0.02)
    assert finding.code == "temperror"
    assert finding.result == Result("dmarc", "temperror", (("header.from", "a.test"),))
    assert time.monotonic() - began < 5


def test_what_was_told_before_the_deadline_counts() -> None:
    class Slow(FakeDns):
        async def txt(self, name: str) -> Sequence[bytes]:
            if name != "_dmarc.a.test":
                await asyncio.sleep(30)
            return await super().txt(name)

    found = {"dkim": [signed("a.test")], "spf": [sent("bounce.a.test")]}
    finding = only(Slow(REJECT), mail("a.test"), found, timeout=0.02)
    assert finding.code == "pass"
    assert facts_of(finding)["aligned.spf"] == "fail"
    assert only(Slow(REJECT), mail("a.test"), {"spf": found["spf"]}, timeout=0.02).code == "temperror"
    assert only(Slow(REJECT), mail("a.test"), {"spf": [sent("b.example")]}, timeout=0.02).code == "fail_reject"


def test_a_fault_of_the_resolver_does_not_become_a_result() -> None:
    class Broken(FakeDns):
        async def txt(self, name: str) -> Sequence[bytes]:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError):
        findings(Broken(), mail("a.test"))


def test_real_dns_gives_the_same_results() -> None:
    records = {
        ("_dmarc.a.test", "TXT"): [
            "v=DMARC1; p=none; sp=quarantine; np=reject; rua=" + "mailto:r@a.test," * 30 + "mailto:x@a.test"
        ],
        ("www.a.test", "A"): ["192.0.2.7"],
        ("_dmarc.b.test", "TXT"): ["v=DMARC1; p=reject; psd=n"],
    }

    async def codes(server: str) -> list[str]:
        filter_ = Filter(Settings(), tools(Resolver([server], 3.0)))
        found = {"dkim": [signed("mail.b.test")]}
        authors = ("a.test", "www.a.test", "nothere.a.test", "b.test", "www.b.test", "c.test")
        return [(await filter_.check(mail(author), found))[0].code for author in authors]

    with peer.run(records) as unbound:
        told = asyncio.run(codes(f"127.0.0.1:{unbound.port}"))
    assert told == ["fail_none", "fail_quarantine", "fail_reject", "pass", "pass", "none"]


def test_dns_that_nobody_serves_is_a_temporary_error() -> None:
    filter_ = Filter(Settings(), tools(Resolver([f"127.0.0.1:{processes.free_port()}"], 0.05)))
    (finding,) = asyncio.run(filter_.check(mail("a.test"), {"dkim": [signed("a.test")]}))
    assert finding.code == "temperror"
    assert finding.facts == ("TXT _dmarc.a.test: nobody could tell",)


TAGS = st.sampled_from(
    ["p=reject", "p=none", "sp=none", "np=x", "psd=y", "psd=n", "t=y", "adkim=s", "rua=mailto:a@b", "", "=", "v=DMARC1"]
)
TEXTS = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=100).map(lambda rest: b"v=DMARC1;" + rest),
    st.lists(TAGS, max_size=6).map(lambda tags: ("v=DMARC1; " + "; ".join(tags)).encode()),
)
NAMES = ["shop.a.co.uk", "a.co.uk", "co.uk", "uk"]


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.sampled_from(NAMES), st.lists(TEXTS, max_size=3)),
    st.sampled_from(["test", "b.co.uk", "uk.com", "k"]),
)
def test_no_record_makes_a_stranger_pass_or_a_finding_fail(zone: Mapping[str, Sequence[bytes]], stranger: str) -> None:
    said = {name: parse(name, texts) for name, texts in zone.items()}
    if any(record and record.psd == "n" and name in {"co.uk", "uk"} for name, record in said.items()):
        return  # then its owner says that all below are one
    dns = FakeDns({f"_dmarc.{name}": texts for name, texts in zone.items()})
    found = {"dkim": [signed(stranger), signed("a.co.uk", "fail")], "spf": [sent(f"x.{stranger}")]}
    finding = only(dns, mail("shop.a.co.uk"), found)
    assert finding.code in Filter.codes - {"pass", "permerror", "temperror"}
    assert len(dns.asked) <= Settings().max_queries
    assert all(text.isprintable() and text.isascii() for text in finding.facts)


def test_a_mail_costs_little_where_the_answers_are_at_hand() -> None:
    dns = FakeDns({"_dmarc.example.com": [b"v=DMARC1; p=reject; rua=mailto:d@example.com; adkim=r; aspf=r"]})
    filter_, one = Filter(Settings(), tools(dns)), mail("example.com")
    found = {"spf": [sent("bounce.example.com")], "dkim": [signed("example.com"), signed("esp.example")]}

    async def many() -> float:
        await filter_.check(one, found)  # which reads the public suffix list
        began = time.process_time()
        for _ in range(200):
            await filter_.check(one, found)
        return (time.process_time() - began) / 200

    assert asyncio.run(many()) < 0.002, "seconds; it takes a twentieth of that on a quiet machine"


def test_an_answer_that_is_too_large_holds_no_record_and_shows_that_the_name_exists() -> None:
    dns = FakeDns({"_dmarc.a.test": [b"v=DMARC1; p=none; np=reject"]})
    dns.too_large = ["_dmarc.sub.a.test", "sub.a.test"]
    assert only(dns, mail("sub.a.test")).code == "fail_none"

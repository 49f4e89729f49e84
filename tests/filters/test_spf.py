"""SPF: the published test suite of RFC 7208, and what a hostile record may cost."""

import asyncio
import ipaddress
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from filters.spf import HELO_KEPT, RESULTS, Filter, Settings
from gateway.dns import Resolver
from gateway.model import Envelope, Finding, ListenerKind, Mail, Oversized, Session, Temporary, Tools
from tests.peers import dns as peer

SHARED = Path(os.environ.get("GATEPOST_SHARED", Path(__file__).parents[3] / "shared"))
SUITE = SHARED / "suites" / "spf" / "rfc7208-tests.yml"

Zone = Mapping[tuple[str, str], Sequence[Any]]


class FakeDns:
    """A DNS of the records in *zone*, that counts what it is asked; a `Temporary` in place of records is raised."""

    def __init__(self, zone: Zone | None = None, delay: float = 0.0) -> None:
        self.zone, self.delay, self.asked = zone or {}, delay, []

    async def _look(self, name: str, kind: str) -> Sequence[Any]:
        self.asked.append((name, kind))
        await asyncio.sleep(self.delay)
        found = self.zone.get((name.lower(), kind), ())
        if isinstance(found, Temporary):
            raise found
        return found

    async def a(self, name: str) -> Sequence[str]:
        return await self._look(name, "A")

    async def aaaa(self, name: str) -> Sequence[str]:
        return await self._look(name, "AAAA")

    async def mx(self, name: str) -> Sequence[tuple[int, str]]:
        return await self._look(name, "MX")

    async def txt(self, name: str) -> Sequence[bytes]:
        return await self._look(name, "TXT")

    async def ptr(self, address: str) -> Sequence[str]:
        return await self._look(ipaddress.ip_address(address).reverse_pointer, "PTR")


def tools(dns: Any) -> Tools:
    return Tools(dns, None, "mx.demo.example", None, None, None, None)  # type: ignore[arg-type]


def mail(sender: str = "a@a.test", helo: str = "h.test", peer_: str = "192.0.2.1", **session: Any) -> Mail:
    return Mail("id", Session(ipaddress.ip_address(peer_), helo=helo, **session), Envelope(sender))


def findings(dns: Any, mail_: Mail, settings: Settings | None = None) -> Sequence[Finding]:
    return asyncio.run(Filter(settings or Settings(), tools(dns)).check(mail_, {}))


def only(dns: Any, mail_: Mail, settings: Settings | None = None) -> Finding:
    """The finding of the first identity: MAIL FROM, or HELO where there is no sender."""
    finding, *of_helo = findings(dns, mail_, settings)
    assert all(one.code.startswith("helo_") for one in of_helo)
    return finding


def of_helo(dns: Any, mail_: Mail, settings: Settings | None = None) -> Finding:
    """The finding of HELO, beside that of MAIL FROM."""
    _, finding = findings(dns, mail_, settings)
    return finding


def about(finding: Finding) -> tuple[str, tuple[tuple[str, str], ...]]:
    """What Authentication-Results is to say: the result, and of what."""
    assert finding.result
    assert finding.result.method == "spf"
    return finding.result.result, finding.result.properties


# --- the suite of RFC 7208 -----------------------------------------------------------------------------------------


def _suite() -> list[Any]:
    if not SUITE.exists():
        return []
    scenarios = list(yaml.safe_load_all(SUITE.read_text("utf-8")))
    return [
        pytest.param(_zone(scenario["zonedata"]), case, id=f"{scenario['description']}: {name}".replace(" ", "-"))
        for scenario in scenarios
        for name, case in scenario["tests"].items()
    ]


def _zone(written: Mapping[str, Sequence[Any]]) -> dict[tuple[str, str], Any]:
    """The records of one scenario, its aliases resolved; SPF stands for TXT too where the suite gives no TXT."""
    zone: dict[tuple[str, str], Any] = {}
    for name, entries in written.items():
        records = [next(iter(entry.items())) for entry in entries if isinstance(entry, dict)]
        kinds = {kind for kind, _ in records}
        for kind, value in records:
            for as_kind in {kind, "TXT"} if kind == "SPF" and "TXT" not in kinds else {kind}:
                zone.setdefault((name.lower(), as_kind), []).append(_rdata(as_kind, value))
        if zone.get((name.lower(), "TXT")) == [b"NONE"]:
            del zone[name.lower(), "TXT"]
        if "TIMEOUT" in entries:
            late = {kind: Temporary("late") for kind in ("A", "AAAA", "MX", "TXT", "PTR")}
            zone = {(name.lower(), kind): error for kind, error in late.items()} | zone
    for name, kind in [key for key in zone if key[1] == "CNAME"]:
        target = zone[name, kind][0].lower()
        zone |= {(name, other): zone[target, other] for other in ("A", "AAAA", "MX", "TXT") if (target, other) in zone}
    return zone


def _rdata(kind: str, value: Any) -> Any:
    if kind in ("TXT", "SPF"):
        return "".join(value if isinstance(value, list) else [value]).encode("utf-8")
    return (value[0], value[1].lower()) if kind == "MX" else str(value)


CASES = _suite()


def test_the_suite_of_the_rfc_is_there_and_whole() -> None:
    if not SUITE.exists() and os.environ.get("CI") != "true":
        pytest.skip(f"the SPF test suite of RFC 7208 is not at {SUITE}; GATEPOST_SHARED names its folder")
    assert len(CASES) == 203


@pytest.mark.parametrize(("zone", "case"), CASES)
def test_the_result_is_one_that_rfc_7208_allows(zone: Zone, case: Mapping[str, Any]) -> None:
    allowed = case["result"] if isinstance(case["result"], list) else [case["result"]]
    dns = FakeDns(zone)
    finding = only(dns, mail(case["mailfrom"], case["helo"], case["host"]))
    assert about(finding)[0] in allowed, (finding, dns.asked)
    assert finding.code == about(finding)[0] or (finding.code, about(finding)[0]) == ("everyone", "pass")
    assert len(dns.asked) <= 30
    assert all(
        ord(" ") <= ord(character) <= ord("~") for text in (finding.detail, *finding.facts) for character in text
    )


# --- who is asked about --------------------------------------------------------------------------------------------

ALLOWS = {("a.test", "TXT"): [b"v=spf1 ip4:192.0.2.1 -all"]}


def test_the_domain_of_mail_from_is_asked_about() -> None:
    assert only(FakeDns(ALLOWS), mail()).code == "pass"
    assert only(FakeDns(ALLOWS), mail(peer_="192.0.2.2")).code == "fail"


def test_a_bounce_is_asked_about_by_its_helo_name() -> None:
    assert only(FakeDns(ALLOWS), mail("", "a.test", "192.0.2.2")).code == "fail"


def test_a_mapped_address_is_the_ipv4_address_in_it() -> None:
    assert only(FakeDns(ALLOWS), mail(peer_="::ffff:192.0.2.1")).code == "pass"


def test_a_quoted_local_part_does_not_choose_the_domain() -> None:
    zone = ALLOWS | {("evil.test", "TXT"): [b"v=spf1 -all"]}
    finding = only(FakeDns(zone), mail('"x@a.test"@evil.test'))
    assert finding.code == "fail"
    assert finding.detail.startswith("evil.test says")


@pytest.mark.parametrize(
    "helo",
    ["[192.0.2.1]", "[IPv6:2001:db8::1]", "192.0.2.1", "localhost", "", "a..test", "x" * 64 + ".test", "h.test" * 60],
)
def test_what_is_no_domain_has_no_result_and_costs_no_question(helo: str) -> None:
    dns = FakeDns()
    assert only(dns, mail("", helo)).code == "none"
    assert dns.asked == []


def test_international_domains_are_asked_about_in_a_labels() -> None:
    dns = FakeDns({("xn--bcher-kva.test", "TXT"): [b"v=spf1 -all"]})
    assert only(dns, mail("jürgen@bücher.test")).code == "fail"


def test_an_international_local_part_matches_no_macro() -> None:
    zone = {("a.test", "TXT"): [b"v=spf1 exists:%{l}.ok.test -all"], ("j.ok.test", "A"): ["127.0.0.2"]}
    assert only(FakeDns(zone), mail("j@a.test")).code == "pass"
    assert only(FakeDns(zone), mail("jürgen@a.test")).code == "fail"


def test_our_own_people_are_not_asked_about() -> None:
    dns = FakeDns()
    assert findings(dns, mail(kind=ListenerKind.SUBMISSION, user="alice")) == []
    assert findings(dns, mail(kind=ListenerKind.RELAY)) == []
    assert dns.asked == []


def test_our_own_relays_are_not_asked_about() -> None:
    settings = Settings(own_relays=("192.0.2.0/30",))
    assert findings(FakeDns(ALLOWS), mail(), settings) == []
    assert only(FakeDns(ALLOWS), mail(peer_="192.0.2.4"), settings).code == "fail"


def test_a_wrong_network_in_the_settings_is_told_at_once() -> None:
    with pytest.raises(ValueError):
        Filter(Settings(own_relays=("here",)), tools(FakeDns()))


@pytest.mark.parametrize("sender", ['"a\r\nb"@a.test', '"a\0b"@a.test', "a@a.test\x7f"])
def test_control_characters_are_refused_without_a_question(sender: str) -> None:
    dns = FakeDns(ALLOWS)
    assert only(dns, mail(sender)).code == "permerror"
    assert dns.asked == []


# --- HELO, the second identity --------------------------------------------------------------------------------------

HOST = ("h.test", "TXT")


def test_authentication_results_name_the_identity_and_its_domain_in_a_labels() -> None:
    dns = FakeDns({("xn--bcher-kva.test", "TXT"): [b"v=spf1 -all"], HOST: [b"v=spf1 -all"]})
    assert about(only(dns, mail("x@Bücher.Test"))) == ("fail", (("smtp.mailfrom", "xn--bcher-kva.test"),))
    assert about(only(dns, mail("", "H.test"))) == ("fail", (("smtp.helo", "h.test"),))
    assert about(only(dns, mail("x@[192.0.2.1]"))) == ("none", (("smtp.mailfrom", "[192.0.2.1]"),))


@pytest.mark.parametrize(
    ("record", "code", "result"),
    [
        (b"v=spf1 ip4:192.0.2.1 -all", "helo_pass", "pass"),
        (b"v=spf1 -all", "helo_fail", "fail"),
        (b"v=spf1 ~all", "helo_unclear", "softfail"),
        (b"v=spf1 ?all", "helo_unclear", "neutral"),
        (b"v=spf1 moo", "helo_unclear", "permerror"),
        (b"v=spf1 +all", "helo_pass", "pass"),
    ],
)
def test_the_name_in_helo_is_asked_about_too(record: bytes, code: str, result: str) -> None:
    dns = FakeDns({**ALLOWS, HOST: [record]})
    finding = of_helo(dns, mail())
    assert finding.code == code
    assert about(finding) == (result, (("smtp.helo", "h.test"),))
    assert finding.facts == (f"TXT h.test: {record.decode()}",)
    assert dns.asked == [("a.test", "TXT"), ("h.test", "TXT")]


def _asked_each_time(zone: Zone, seconds: Sequence[float], mails: Sequence[Mail]) -> list[int]:
    """How many questions there have been about h.test after each of *mails*, which come at these times."""
    dns, now = FakeDns(zone), [0.0]
    filter_ = Filter(Settings(), tools(dns), lambda: now[0])

    async def counts() -> list[int]:
        made = []
        for now[0], one in zip(seconds, mails, strict=True):
            codes = [finding.code for finding in await filter_.check(one, {})]
            assert codes in (["pass", "helo_fail"], ["pass", "helo_temperror"])
            made.append(dns.asked.count(("h.test", "TXT")))
        return made

    return asyncio.run(counts())


def test_a_host_is_asked_about_once_for_many_mails() -> None:
    zone = {**ALLOWS, HOST: [b"v=spf1 -all"]}
    assert _asked_each_time(zone, [1, HELO_KEPT, HELO_KEPT + 2], [mail()] * 3) == [1, 1, 2]
    assert _asked_each_time(ALLOWS | {HOST: Temporary("late")}, [1, 2], [mail()] * 2) == [1, 2]


def test_what_was_known_of_a_host_does_not_outlive_its_time() -> None:
    zone, now = {**ALLOWS, HOST: [b"v=spf1 -all"]}, [1.0]
    filter_ = Filter(Settings(), tools(FakeDns(zone)), lambda: now[0])

    async def codes() -> list[str]:
        return [finding.code for finding in await filter_.check(mail(), {})]

    assert asyncio.run(codes()) == ["pass", "helo_fail"]
    del zone[HOST]
    now[0] += HELO_KEPT + 1
    assert asyncio.run(codes()) == ["pass"]


def test_what_is_known_of_one_host_is_not_said_of_another() -> None:
    zone = {("a.test", "TXT"): [b"v=spf1 +ip4:192.0.2.0/24 -all"], HOST: [b"v=spf1 -all"]}
    assert _asked_each_time(zone, [1, 1], [mail(), mail(peer_="192.0.2.2")]) == [1, 2]


def test_no_more_hosts_are_kept_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("filters.spf.MAX_HOSTS", 2)
    mails = [mail(peer_=f"192.0.2.{number}") for number in (1, 2, 3, 3, 1)]
    zone = {("a.test", "TXT"): [b"v=spf1 +ip4:192.0.2.0/24 -all"], HOST: [b"v=spf1 -all"]}
    assert _asked_each_time(zone, [1, 2, 3, 4, 5], mails) == [1, 2, 3, 3, 4]


def test_a_name_in_helo_that_cannot_be_asked_about_has_a_code_of_its_own() -> None:
    first, second = findings(FakeDns({**ALLOWS, HOST: Temporary("late")}), mail())
    assert (first.code, second.code) == ("pass", "helo_temperror")
    assert about(second) == ("temperror", (("smtp.helo", "h.test"),))


@pytest.mark.parametrize("helo", ["h.test", "localhost", "[192.0.2.1]", "h..test", "ü..test", "x" * 300])
def test_a_name_in_helo_that_says_nothing_is_no_finding(helo: str) -> None:
    assert [one.code for one in findings(FakeDns(ALLOWS), mail(helo=helo))] == ["pass"]


@pytest.mark.parametrize("helo", ["a.test", "A.Test"])
def test_one_domain_in_both_places_is_asked_about_once(helo: str) -> None:
    dns = FakeDns(ALLOWS)
    assert [one.code for one in findings(dns, mail(helo=helo))] == ["pass"]
    assert dns.asked == [("a.test", "TXT")]


def test_a_bounce_has_the_one_identity_of_helo() -> None:
    assert [one.code for one in findings(FakeDns(ALLOWS), mail("", "a.test"))] == ["pass"]


def test_the_domain_in_helo_learns_no_local_part() -> None:
    dns = FakeDns({**ALLOWS, HOST: [b"v=spf1 exists:%{l}.%{s}.leak.test -all"]})
    of_helo(dns, mail("secret@a.test"))
    assert dns.asked[-1] == ("postmaster.postmaster@h.test.leak.test", "A")
    assert not [name for name, _ in dns.asked if "secret" in name]


def test_both_identities_share_the_questions_and_mail_from_has_them_first() -> None:
    hosts = {(f"h{number}.test", "A"): ["203.0.113.1"] for number in range(20)}
    costly = b"v=spf1 " + b" ".join(b"a:h%d.test" % number for number in range(9)) + b" -all"
    dns = FakeDns({("a.test", "TXT"): [costly], HOST: [costly.replace(b"a:h", b"a:h1")], **hosts})
    settings = Settings(max_queries=12)
    first, second = findings(dns, mail(), settings)
    assert (first.code, second.code) == ("fail", "helo_temperror")
    assert len(dns.asked) == 12


def test_both_identities_share_the_time() -> None:
    began = time.monotonic()
    codes = [one.code for one in findings(FakeDns(ALLOWS, delay=30.0), mail(), Settings(timeout=0.05))]
    assert codes == ["temperror", "helo_temperror"]
    assert time.monotonic() - began < 2.0


# --- a pass that says nothing ---------------------------------------------------------------------------------------

EVERYBODY = [
    b"+all", b"all", b"ALL", b"ip4:192.0.2.1 +all", b"ip4:0.0.0.0/0", b"ip4:128.0.0.0/1 ?all", b"a:any.test/0",
    b"a/0//0", b"mx/7", b"ip4:192.0.2.1 a//0", b"ip4:192.0.2.1 ip6:::/0 -all", b"ip4:192.0.2.1 ip6:2000::/3",
]  # fmt: skip
SOME = [b"ip4:192.0.0.0/8", b"ip4:192.0.2.1 -all", b"a:any.test/16", b"ip4:192.0.2.1 ip6:2001:db8::/19 ~all",
        b"ip4:192.0.2.1 -a//0", b"ip4:192.0.2.1 x=+all", b"ip4:192.0.2.1 a:all.test", b"a//128"]  # fmt: skip


def _pass(term: bytes) -> Finding:
    hosts = {("any.test", "A"): ["192.0.2.1"], ("b.test", "A"): ["192.0.2.1"], ("b.test", "MX"): [(1, "any.test")]}
    zone = {("a.test", "TXT"): [b"v=spf1 include:b.test"], ("b.test", "TXT"): [b"v=spf1 " + term], **hosts}
    finding = only(FakeDns(zone), mail())
    assert about(finding) == ("pass", (("smtp.mailfrom", "a.test"),))
    return finding


@pytest.mark.parametrize("term", EVERYBODY)
def test_a_pass_that_everybody_gets_is_told_apart(term: bytes) -> None:
    assert _pass(term).code == "everyone"


@pytest.mark.parametrize("term", SOME)
def test_a_pass_that_only_some_get_is_a_pass(term: bytes) -> None:
    assert _pass(term).code == "pass"


def test_whoever_lets_everybody_pass_and_fails_has_failed() -> None:
    assert only(FakeDns({("a.test", "TXT"): [b"v=spf1 -all +all"]}), mail()).code == "fail"


# --- what a hostile or broken DNS can do ---------------------------------------------------------------------------


def test_an_explanation_is_never_fetched() -> None:
    dns = FakeDns({("a.test", "TXT"): [b"v=spf1 exp=e.test -all"], ("e.test", "TXT"): [b"no\r\n250 ok"]})
    assert only(dns, mail()).code == "fail"
    assert ("e.test", "TXT") not in dns.asked


def test_dns_that_cannot_tell_is_temperror_and_says_for_which_name() -> None:
    finding = only(FakeDns({("a.test", "TXT"): Temporary("late")}), mail())
    assert finding.code == "temperror"
    assert finding.facts == ("TXT a.test: nobody could tell",)


def test_dns_that_fails_only_for_an_included_name_is_temperror() -> None:
    zone = {("a.test", "TXT"): [b"v=spf1 include:b.test ip4:192.0.2.1 -all"], ("b.test", "TXT"): Temporary("late")}
    assert only(FakeDns(zone), mail()).code == "temperror"


def test_slow_dns_is_temperror_at_the_deadline() -> None:
    began = time.monotonic()
    assert only(FakeDns(ALLOWS, delay=30.0), mail(), Settings(timeout=0.05)).code == "temperror"
    assert time.monotonic() - began < 2.0


def test_a_fault_of_the_resolver_does_not_become_a_result() -> None:
    class Broken(FakeDns):
        async def txt(self, name: str) -> Sequence[bytes]:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError):
        findings(Broken(), mail())


def test_no_more_questions_are_asked_than_the_settings_allow() -> None:
    hosts = [(10, f"h{number}.m{{}}.test") for number in range(10)]
    zone: dict[tuple[str, str], Any] = {
        ("a.test", "TXT"): [b"v=spf1 " + b" ".join(b"mx:m%d.test" % number for number in range(10)) + b" -all"]
    }
    for number in range(10):
        zone[f"m{number}.test", "MX"] = [(preference, host.format(number)) for preference, host in hosts]
        zone |= {(host.format(number), "A"): ["203.0.113.1"] for _, host in hosts}
    dns = FakeDns(zone)
    finding = only(dns, mail())
    assert finding.code == "permerror"
    assert len(dns.asked) == 30


PTR = ("1.2.0.192.in-addr.arpa", "PTR")


def test_names_in_the_reverse_dns_of_the_peer_cannot_spoil_a_fail() -> None:
    """They are the peer's own; the record is that of whom it poses as."""
    zone = {("a.test", "TXT"): [b"v=spf1 ptr:a.test -all"], PTR: [f"n{number}.evil.test" for number in range(300)]}
    dns = FakeDns(zone)
    assert only(dns, mail()).code == "fail"
    assert len(dns.asked) <= 13
    assert only(FakeDns({**zone, PTR: Temporary("late")}), mail()).code == "fail"


def test_names_in_the_reverse_dns_that_cannot_be_asked_are_left_out() -> None:
    zone = {
        ("a.test", "TXT"): [b"v=spf1 ptr -all"],
        PTR: ["late.a.test", "here.a.test"],
        ("late.a.test", "A"): Temporary("late"),
        ("here.a.test", "A"): ["192.0.2.1"],
    }
    assert only(FakeDns(zone), mail()).code == "pass"


def test_names_of_idna_2008_are_asked_about_and_others_are_no_domains() -> None:
    dns = FakeDns({("xn--strae-oqa.test", "TXT"): [b"v=spf1 -all"]})
    assert only(dns, mail("x@straße.test", "")).code == "fail"
    assert about(only(dns, mail("x@☃.test", "")))[0] == "none"
    assert dns.asked == [("xn--strae-oqa.test", "TXT")]


def test_loops_of_includes_and_redirects_end() -> None:
    for term in (b"include:a.test", b"include:b.test", b"redirect=b.test"):
        dns = FakeDns({("a.test", "TXT"): [b"v=spf1 " + term], ("b.test", "TXT"): [b"v=spf1 redirect=a.test"]})
        assert only(dns, mail()).code == "permerror"
        assert len(dns.asked) <= 30


def test_two_records_are_a_permanent_error() -> None:
    assert only(FakeDns({("a.test", "TXT"): [b"v=spf1 +all", b"v=spf1 -all"]}), mail()).code == "permerror"


def test_other_texts_of_the_domain_do_not_matter() -> None:
    zone = {("a.test", "TXT"): [b"\xff" * 300] * 100 + [b"v=spf1 +all"] + [b"v=spf10 -all"]}
    assert only(FakeDns(zone), mail()).result.result == "pass"


HOSTILE = [
    b"v=spf1 a:%{d}" + b"." * 3900 + b" -all",
    b"v=spf1 a:" + b"%{s}" * 900 + b".test -all",
    b"v=spf1 " + b" ".join([b"exists:%{l}" + b".x" * 240] * 8) + b" -all",
    b"v=spf1 " + b"ip4:1.2.3.4 " * 330 + b"-all",
    b"v=spf1 " + b"x" * 4000 + b"=" + b"%{i}" * 10,
    b"v=spf1 " + b"%" * 4000,
    b"v=spf1 a:" + b"a-" * 120 + b" -all",
]


@pytest.mark.parametrize("record", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_record_costs_little(record: bytes) -> None:
    includes = b"v=spf1 " + b" ".join(b"include:i%d.test" % number for number in range(9)) + b" -all"
    zone = {(f"i{number}.test", "TXT"): [record] for number in range(9)} | {("a.test", "TXT"): [includes]}
    began = time.process_time()
    finding = only(FakeDns(zone), mail("l" * 64 + "@a.test"))
    assert finding.code in RESULTS
    assert time.process_time() - began < 2.0


def test_the_loop_goes_on_while_large_records_are_evaluated() -> None:
    record = b"v=spf1 " + b"ip4:1.2.3.4 " * 330 + b"-all"
    includes = b"v=spf1 " + b" ".join(b"include:i%d.test" % number for number in range(9)) + b" -all"
    zone = {(f"i{number}.test", "TXT"): [record] for number in range(9)} | {("a.test", "TXT"): [includes]}

    async def longest_pause() -> float:
        task = asyncio.create_task(Filter(Settings(), tools(FakeDns(zone))).check(mail(), {}))
        longest, before = 0.0, time.thread_time()
        while not task.done():
            await asyncio.sleep(0)
            longest, before = max(longest, time.thread_time() - before), time.thread_time()
        return longest

    assert asyncio.run(longest_pause()) < 0.5


def test_texts_of_strangers_are_printable_and_short_in_the_finding() -> None:
    zone = {("a.test", "TXT"): [b"v=spf1 \x1b[31mevil\r\n250\xff" + b"x" * 2000]}
    finding = only(FakeDns(zone), mail())
    assert finding.code == "permerror"
    for text in (finding.detail, *finding.facts):
        assert text.isprintable()
        assert text.isascii()
        assert len(text) < 600


def test_the_answers_that_were_used_are_in_the_facts() -> None:
    zone = {("a.test", "TXT"): [b"v=spf1 mx -all"], ("a.test", "MX"): [(10, "m.test")], ("m.test", "A"): ["192.0.2.1"]}
    finding = only(FakeDns(zone), mail())
    assert finding.detail == "a.test says pass for 192.0.2.1 (matched mx)"
    assert finding.facts == ("TXT a.test: v=spf1 mx -all", "MX a.test: 10 m.test", "A m.test: 192.0.2.1")


def test_what_is_no_word_of_the_domain_is_not_put_into_its_mouth() -> None:
    broken = FakeDns({("a.test", "TXT"): [b"v=spf1 nonsense"]})
    assert only(FakeDns({}), mail()).detail == "a.test says nothing of 192.0.2.1"
    silent = FakeDns({("a.test", "TXT"): Temporary("late")})
    assert only(silent, mail()).detail.startswith("what a.test says of 192.0.2.1 could not be asked (")
    assert only(broken, mail()).detail.startswith("what a.test says of 192.0.2.1 is faulty, and counts for nothing (")


def test_what_was_declared_is_what_rfc_7208_names_and_what_we_make_of_it() -> None:
    assert {"none", "neutral", "pass", "fail", "softfail", "temperror", "permerror"} == RESULTS
    assert Filter.codes - RESULTS == {"everyone", "helo_pass", "helo_fail", "helo_temperror", "helo_unclear"}


def test_real_dns_gives_the_same_results() -> None:
    records = {
        ("a.test", "TXT"): ["v=spf1 include:b.test a:h.test mx ptr:p.test -all"],
        ("b.test", "TXT"): ["v=spf1 ip4:192.0.2.7 ?all"],
        ("h.test", "A"): ["192.0.2.8"],
        ("a.test", "MX"): ["10 m.test."],
        ("m.test", "A"): ["192.0.2.9"],
        ("10.2.0.192.in-addr.arpa", "PTR"): ["x.p.test."],
        ("x.p.test", "A"): ["192.0.2.10"],
    }

    async def results(server: str) -> list[str]:
        filter_ = Filter(Settings(), tools(Resolver([server], 3.0)))
        peers = [f"192.0.2.{number}" for number in (7, 8, 9, 10, 11)]
        return [(await filter_.check(mail(peer_=address), {}))[0].code for address in peers]

    with peer.run(records) as unbound:
        assert asyncio.run(results(f"127.0.0.1:{unbound.port}")) == ["pass", "pass", "pass", "pass", "fail"]


def test_an_answer_that_nobody_can_read_is_the_fault_of_the_records() -> None:
    zone: Any = {("a.test", "TXT"): Oversized("the answer has more than 16 KB")}
    assert only(FakeDns(zone), mail()).code == "permerror"


@pytest.mark.parametrize("macro", ["%{d0}", "%{i00r}", "%{D0r.}"])
def test_a_macro_that_wants_no_part_of_a_name_is_a_syntax_error(macro: str) -> None:
    zone = {("a.test", "TXT"): [f"v=spf1 exists:{macro}.x.test +all".encode()]}
    assert only(FakeDns(zone), mail()).code == "permerror"

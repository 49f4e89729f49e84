"""Our SPF filter beside Debian's python3-spf, on the same DNS: where they agree, and where not and why."""

import asyncio
import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from filters.spf import Filter, Settings
from gateway.dns import Resolver
from gateway.model import Envelope, Mail, Session, Tools
from tests.peers import dns, python3_spf
from tests.peers.dns import Dns
from tests.peers.python3_spf import Triple

RECORDS: Mapping[tuple[str, str], Sequence[str]] = {
    ("simple.test", "TXT"): ["v=spf1 ip4:192.0.2.0/28 ip6:2001:db8::/64 -all", "some other text"],
    ("upper.test", "TXT"): ["V=SPF1 IP4:192.0.2.1 -ALL"],
    ("hosts.test", "TXT"): ["v=spf1 a mx:mail.test ~all"],
    ("hosts.test", "A"): ["192.0.2.3"],
    ("mail.test", "MX"): ["10 m1.test.", "20 m2.test."],
    ("m1.test", "A"): ["192.0.2.4"],
    ("m2.test", "A"): ["192.0.2.5"],
    ("m2.test", "AAAA"): ["2001:db8::5"],
    ("deep.test", "TXT"): ["v=spf1 include:hosts.test include:simple.test ?all"],
    ("away.test", "TXT"): ["v=spf1 redirect=simple.test"],
    ("nowhere.test", "TXT"): ["v=spf1 redirect=nothing.test"],
    ("astray.test", "TXT"): ["v=spf1 include:nothing.test -all"],
    ("loop.test", "TXT"): ["v=spf1 include:pool.test -all"],
    ("pool.test", "TXT"): ["v=spf1 include:loop.test -all"],
    ("two.test", "TXT"): ["v=spf1 -all", "v=spf1 +all"],
    ("typo.test", "TXT"): ["v=spf1 ip:192.0.2.1 -all"],
    ("all.test", "TXT"): ["v=spf1 +all"],
    ("macros.test", "TXT"): ["v=spf1 exists:%{ir}.%{l1r-}.%{d2} exists:%{h}._h.test -all"],
    ("1.2.0.192.tag.macros.test", "A"): ["127.0.0.2"],
    ("known.test._h.test", "A"): ["127.0.0.2"],
    ("explained.test", "TXT"): ["v=spf1 exp=text.test -all"],
    ("text.test", "TXT"): ["%{i} may not"],
    ("reverse.test", "TXT"): ["v=spf1 ptr -all"],
    ("6.2.0.192.in-addr.arpa", "PTR"): ["host.reverse.test."],
    ("host.reverse.test", "A"): ["192.0.2.6"],
    ("7.2.0.192.in-addr.arpa", "PTR"): ["liar.reverse.test."],
    ("liar.reverse.test", "A"): ["192.0.2.99"],
    ("voids.test", "TXT"): ["v=spf1 a:n1.test a:n2.test a:n3.test ip4:192.0.2.1 -all"],
    ("eleven.test", "TXT"): ["v=spf1 " + " ".join(f"a:m1.test/{number}" for number in range(22, 33)) + " -all"],
    ("alias.test", "CNAME"): ["simple.test."],
    ("silly.test", "TXT"): ["v=spf1 a:" + "x" * 70 + ".test -all"],
    ("broken.test", "TXT"): ["v=spf1 include:late.test -all"],
    ("strict.test", "TXT"): ["v=spf1 a/24 a//64 -all"],
    ("strict.test", "A"): ["192.0.2.1"],
    ("strict.test", "AAAA"): ["2001:db8::1"],
    # Where we differ
    ("8.2.0.192.in-addr.arpa", "PTR"): [f"n{number}.evil.test." for number in range(5)],
    ("9.2.0.192.in-addr.arpa", "PTR"): ["x.late.test."],
    ("costly.test", "TXT"): ["v=spf1 " + " ".join(f"mx:c{number}.test" for number in range(5)) + " -all"],
    **{(f"c{number}.test", "MX"): [f"{one} h{number}{one}.test." for one in range(8)] for number in range(5)},
    **{(f"h{number}{one}.test", "A"): ["203.0.113.1"] for number in range(5) for one in range(8)},
    ("long.test", "TXT"): ["v=spf1 " + "ip4:203.0.113.1 " * 260 + "-all"],
    ("strange.test", "TXT"): ["v=spf1 x=" + "%{d}" * 130 + " -all"],
    ("xn--bcher-kva.test", "TXT"): ["v=spf1 -all"],
}

HOST, OTHER, SIX = "192.0.2.1", "198.51.100.1", "2001:db8::1"
AGREED = {
    Triple(HOST, "h.test", "a@simple.test"): "pass",
    Triple(OTHER, "h.test", "a@simple.test"): "fail",
    Triple(SIX, "h.test", "a@simple.test"): "pass",
    Triple("2001:db8:1::1", "h.test", "a@simple.test"): "fail",
    Triple("::ffff:192.0.2.1", "h.test", "a@simple.test"): "pass",
    Triple(HOST, "simple.test", ""): "pass",
    Triple(OTHER, "simple.test", ""): "fail",
    Triple(OTHER, "SIMPLE.test", "a@nothing.test"): "none",
    Triple(HOST, "h.test", "a@SIMPLE.Test"): "pass",
    Triple(HOST, "h.test", "a@upper.test"): "pass",
    Triple("192.0.2.3", "h.test", "a@hosts.test"): "pass",
    Triple("192.0.2.4", "h.test", "a@hosts.test"): "pass",
    Triple("192.0.2.5", "h.test", "a@hosts.test"): "pass",
    Triple("2001:db8::5", "h.test", "a@hosts.test"): "pass",
    Triple(OTHER, "h.test", "a@hosts.test"): "softfail",
    Triple("192.0.2.4", "h.test", "a@deep.test"): "pass",
    Triple(HOST, "h.test", "a@deep.test"): "pass",
    Triple(OTHER, "h.test", "a@deep.test"): "neutral",
    Triple(HOST, "h.test", "a@away.test"): "pass",
    Triple(OTHER, "h.test", "a@away.test"): "fail",
    Triple(HOST, "h.test", "a@nowhere.test"): "permerror",
    Triple(HOST, "h.test", "a@astray.test"): "permerror",
    Triple(HOST, "h.test", "a@loop.test"): "permerror",
    Triple(HOST, "h.test", "a@two.test"): "permerror",
    Triple(HOST, "h.test", "a@typo.test"): "permerror",
    Triple(OTHER, "h.test", "a@all.test"): "pass",
    Triple(HOST, "h.test", "tag-more@macros.test"): "pass",
    Triple(HOST, "h.test", "more-tag@macros.test"): "fail",
    Triple(OTHER, "known.test", "more@macros.test"): "pass",
    Triple(HOST, "h.test", "a@explained.test"): "fail",
    Triple("192.0.2.6", "h.test", "a@reverse.test"): "pass",
    Triple("192.0.2.7", "h.test", "a@reverse.test"): "fail",
    Triple(OTHER, "h.test", "a@reverse.test"): "fail",
    Triple(HOST, "h.test", "a@voids.test"): "permerror",
    Triple(OTHER, "h.test", "a@eleven.test"): "permerror",
    Triple(HOST, "h.test", "a@alias.test"): "pass",
    Triple(HOST, "h.test", "a@silly.test"): "fail",
    Triple(HOST, "h.test", "a@bücher.test"): "fail",
    Triple("192.0.2.9", "h.test", "a@reverse.test"): "fail",
    Triple("192.0.2.77", "h.test", "a@strict.test"): "pass",
    Triple("2001:db8::77", "h.test", "a@strict.test"): "pass",
    Triple(OTHER, "h.test", "a@strict.test"): "fail",
    Triple(HOST, "[192.0.2.1]", ""): "none",
}

DIFFERING = {
    # RFC 7208 2.6.6: whoever cannot ask has no result. python3-spf (by python3-dns) takes SERVFAIL for "no such record".
    Triple(HOST, "h.test", "a@late.test"): ("temperror", "none"),
    Triple(HOST, "h.test", "a@broken.test"): ("temperror", "permerror"),
    # Ours: names in the reverse DNS are the peer's, so void ones do not count against the record (4.6.4 leaves it open).
    Triple("192.0.2.8", "h.test", "a@reverse.test"): ("fail", "permerror"),
    # Ours: at most 30 questions for one mail. 5 x mx with 8 hosts each would be 46.
    Triple(HOST, "h.test", "a@costly.test"): ("permerror", "fail"),
    # Ours: a TXT record has at most 4 KB. A longer one is as if it were not there.
    Triple(HOST, "h.test", "a@long.test"): ("none", "fail"),
    # Ours: a macro string has at most 512 characters.
    Triple(HOST, "h.test", "a@strange.test"): ("permerror", "fail"),
    # RFC 5321 4.1.2: the last "@" begins the domain. python3-spf takes the first one.
    Triple(HOST, "h.test", '"a@simple.test"@all.test'): ("pass", "none"),
}


@pytest.fixture(scope="module")
def names() -> Iterator[Dns]:
    with dns.run(RECORDS) as running:
        running.fail("late.test")
        yield running


def ours(port: int, triples: Sequence[Triple]) -> list[str]:
    async def results() -> list[str]:
        tools = Tools(Resolver([f"127.0.0.1:{port}"], 5.0), None, "gw.test", None, None, None, None)  # type: ignore[arg-type]
        return [await _result(Filter(Settings(), tools), one) for one in triples]

    return asyncio.run(results())


async def _result(checked_by: Filter, triple: Triple) -> str:
    peer = Session(ipaddress.ip_address(triple.ip), helo=triple.helo)
    first, *_ = await checked_by.check(Mail("id", peer, Envelope(triple.sender)), {})
    assert first.result
    return first.result.result


def theirs(port: int, triples: Sequence[Triple], home: Path) -> list[str]:
    return python3_spf.results(port, triples, home)


def test_we_agree_with_python3_spf(names: Dns, tmp_path: Path) -> None:
    triples = list(AGREED)
    assert dict(zip(triples, ours(names.port, triples), strict=True)) == AGREED
    assert dict(zip(triples, theirs(names.port, triples, tmp_path), strict=True)) == AGREED


def test_where_we_differ_from_python3_spf_there_is_a_reason(names: Dns, tmp_path: Path) -> None:
    triples = list(DIFFERING)
    both = zip(ours(names.port, triples), theirs(names.port, triples, tmp_path), strict=True)
    assert dict(zip(triples, both, strict=True)) == DIFFERING

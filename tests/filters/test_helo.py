"""HELO and reverse DNS: what a peer says of itself, and whether the DNS agrees in both directions."""

import asyncio
import ipaddress
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from filters.helo import Filter, Settings
from gateway.dns import Resolver
from gateway.model import Finding, ListenerKind, Mail, Session, Temporary, Tools
from tests.peers import dns as peer

SIX = "2001:db8::1"
GOOD: Mapping[tuple[str, str], Any] = {
    ("192.0.2.1", "PTR"): ["mail.out.test"],
    ("mail.out.test", "A"): ["192.0.2.1"],
    ("other.out.test", "A"): ["192.0.2.9"],
    ("six.out.test", "AAAA"): [SIX],
    (SIX, "PTR"): ["six.out.test"],
}


class FakeDns:
    """A DNS of the records in *zone*, that counts what it is asked; a `Temporary` in place of records is raised."""

    def __init__(self, zone: Mapping[tuple[str, str], Any] = GOOD, delay: float = 0.0) -> None:
        self.zone, self.delay, self.asked = zone, delay, list[tuple[str, str]]()

    async def _look(self, name: str, kind: str) -> Sequence[Any]:
        self.asked.append((name, kind))
        await asyncio.sleep(self.delay)
        found = self.zone.get((name, kind), ())
        if isinstance(found, Temporary):
            raise found
        return found

    async def a(self, name: str) -> Sequence[str]:
        return await self._look(name, "A")

    async def aaaa(self, name: str) -> Sequence[str]:
        return await self._look(name, "AAAA")

    async def ptr(self, address: str) -> Sequence[str]:
        return await self._look(address, "PTR")


def tools(dns: Any) -> Tools:
    return Tools(dns, None, "MX.demo.example", None, None, None, None)  # type: ignore[arg-type]


def mail(helo: str = "mail.out.test", address: str = "192.0.2.1", **session: Any) -> Mail:
    return Mail("id", Session(ipaddress.ip_address(address), helo=helo, **session))


def findings(dns: Any, mail_: Mail, settings: Settings | None = None) -> Sequence[Finding]:
    return asyncio.run(Filter(settings or Settings(), tools(dns)).check(mail_, {}))


def codes(zone: Mapping[tuple[str, str], Any], mail_: Mail, settings: Settings | None = None) -> list[str]:
    return [one.code for one in findings(FakeDns(zone), mail_, settings)]


def test_a_host_whose_names_agree_is_no_finding_and_costs_two_questions() -> None:
    dns = FakeDns()
    assert findings(dns, mail()) == []
    assert set(dns.asked) == {("192.0.2.1", "PTR"), ("mail.out.test", "A")}


@pytest.mark.parametrize("helo", ["MAIL.Out.Test", "mail.out.test."])
def test_names_are_compared_as_the_dns_does(helo: str) -> None:
    assert codes(GOOD, mail(helo)) == []


def test_ipv6_is_proved_by_ipv6() -> None:
    assert codes(GOOD, mail("six.out.test", SIX)) == []


def test_a_mapped_address_is_asked_about_as_ipv4() -> None:
    assert codes(GOOD, mail(address="::ffff:192.0.2.1")) == []


@pytest.mark.parametrize(
    ("helo", "code"),
    [
        ("", "bad_syntax"),
        ("a b.test", "bad_syntax"),
        ("under_score.test", "bad_syntax"),
        ("-a.test", "bad_syntax"),
        ("a..test", "bad_syntax"),
        ("192.0.2.1", "bad_syntax"),
        ("x" * 64 + ".test", "bad_syntax"),
        ("a." * 127 + "test", "bad_syntax"),
        ("\x1b[31mred", "bad_syntax"),
        ("[192.0.2.999]", "bad_syntax"),
        ("[]", "bad_syntax"),
        ("localhost", "no_dot"),
        ("mx.demo.example", "own_name"),
        ("[192.0.2.1]", "literal"),
        ("[192.0.2.2]", "foreign_literal"),
        ("[IPv6:2001:db8::1]", "foreign_literal"),
        ("nowhere.test", "unknown_name"),
        ("other.out.test", "other_host"),
        ("six.out.test", "other_host"),
    ],
)
def test_each_mark_of_helo_is_a_finding(helo: str, code: str) -> None:
    assert codes(GOOD, mail(helo)) == [code]


def test_an_ipv6_literal_is_the_address_it_writes() -> None:
    assert codes(GOOD, mail("[IPv6:2001:DB8:0::1]", SIX)) == ["literal"]


@pytest.mark.parametrize(
    ("helo", "ours"),
    [("ours.test", True), ("Pc.OURS.test", True), ("notours.test", False), ("ours.test.evil.test", False)],
)
def test_no_stranger_lives_under_our_domains(helo: str, ours: bool) -> None:
    expected = ["own_name"] if ours else ["unknown_name"]
    assert codes(GOOD, mail(helo), Settings(own_domains=("Ours.test",))) == expected


def test_an_address_without_a_name_is_found() -> None:
    assert codes({("mail.out.test", "A"): ["192.0.2.1"]}, mail()) == ["no_ptr"]


def test_a_name_that_does_not_lead_back_is_a_claim() -> None:
    zone = {**GOOD, ("192.0.2.1", "PTR"): ["bank.test"], ("bank.test", "A"): ["203.0.113.1"]}
    (finding,) = findings(FakeDns(zone), mail())
    assert (finding.code, finding.detail) == (
        "unconfirmed_ptr",
        "192.0.2.1 is named bank.test (which does not lead back)",
    )
    assert finding.facts == ("PTR 192.0.2.1: bank.test", "A bank.test: 203.0.113.1")


def test_one_name_of_several_that_leads_back_is_enough() -> None:
    zone = {**GOOD, ("192.0.2.1", "PTR"): ["bank.test", "mail.out.test"], ("bank.test", "A"): Temporary("late")}
    assert codes(zone, mail()) == []


def test_no_more_names_are_followed_than_a_host_has() -> None:
    dns = FakeDns({("192.0.2.1", "PTR"): [f"n{number}.test" for number in range(200)]})
    findings(dns, mail("[192.0.2.1]"))
    assert len(dns.asked) == 6


# --- what nobody can tell ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    [
        {("192.0.2.1", "PTR"): Temporary("SERVFAIL")},
        {("mail.out.test", "A"): Temporary("SERVFAIL")},
    ],
)
def test_what_the_dns_cannot_tell_is_an_error(broken: Mapping[tuple[str, str], Any]) -> None:
    (first, *_) = findings(FakeDns({**GOOD, **broken}), mail())
    assert first.code == "error"
    assert "SERVFAIL" in first.detail


def test_a_helo_name_that_nobody_can_tell_of_is_an_error() -> None:
    zone = {**GOOD, ("shy.test", "A"): Temporary("late")}
    assert codes(zone, mail("shy.test")) == ["error"]
    zone = {**GOOD, ("shy.test", "AAAA"): Temporary("late")}
    assert codes(zone, mail("shy.test")) == ["error"]


def test_silence_ends_at_the_deadline_and_what_was_seen_before_stays() -> None:
    began = time.monotonic()
    found = findings(FakeDns(delay=30.0), mail("localhost"), Settings(timeout=0.05))
    assert [one.code for one in found] == ["no_dot", "error"]
    assert time.monotonic() - began < 1.0


def test_texts_of_strangers_are_printable_and_short_in_the_findings() -> None:
    (finding,) = findings(FakeDns(), mail("\x1b[31m\u202e" + "x" * 5000))
    assert finding.detail.isprintable()
    assert finding.detail.isascii()
    assert len(finding.detail) < 200


def test_both_directions_are_asked_at_once() -> None:
    barrier = asyncio.Barrier(2)

    class Meeting(FakeDns):
        async def _look(self, name: str, kind: str) -> Sequence[Any]:
            if (name, kind) in {("192.0.2.1", "PTR"), ("other.out.test", "A")}:
                await barrier.wait()  # for the other question
            return await super()._look(name, kind)

    assert [one.code for one in findings(Meeting(), mail("other.out.test"))] == ["other_host"]


# --- whose mail is asked about -------------------------------------------------------------------------------------


def test_users_own_hosts_and_private_addresses_are_never_asked_about() -> None:
    dns = FakeDns()
    assert findings(dns, mail("x", kind=ListenerKind.SUBMISSION, user="alice")) == []
    assert findings(dns, mail("x", kind=ListenerKind.RELAY)) == []
    assert findings(dns, mail("x"), Settings(own_relays=("192.0.2.0/24",))) == []
    for address in ("127.0.0.1", "10.1.1.1", "192.168.1.1", "::1", "fe80::1"):
        assert findings(dns, mail("x", address)) == []
    assert dns.asked == []


@pytest.mark.parametrize(
    "settings",
    [Settings(own_relays=("here",)), Settings(timeout=0.0), Settings(own_domains=("*.example.org",))],
)
def test_wrong_settings_are_told_at_once(settings: Settings) -> None:
    with pytest.raises(ValueError):
        Filter(settings, tools(FakeDns()))


def test_real_dns_gives_the_same_findings() -> None:
    records = {
        ("1.2.0.192.in-addr.arpa", "PTR"): ["Mail.Out.test."],
        ("2.2.0.192.in-addr.arpa", "PTR"): ["bank.test."],
        ("mail.out.test", "A"): ["192.0.2.1"],
        ("bank.test", "A"): ["203.0.113.1"],
    }

    async def results(server: str) -> list[list[str]]:
        filter_ = Filter(Settings(), tools(Resolver([server], 3.0)))
        mails = [mail(), mail(address="192.0.2.2"), mail("nowhere.test", "192.0.2.3")]
        return [[one.code for one in await filter_.check(one, {})] for one in mails]

    with peer.run(records) as unbound:
        found = asyncio.run(results(f"127.0.0.1:{unbound.port}"))
    assert found == [[], ["other_host", "unconfirmed_ptr"], ["unknown_name", "no_ptr"]]

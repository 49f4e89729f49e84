"""What the DNS says of us, as `gatepost doctor dns` sees it: what is well, what is not, and what nobody could tell."""

import asyncio
from dataclasses import replace

import pytest

from gateway.dkim.ring import Ring
from gateway.model import Temporary
from gateway.pipeline import policy
from gateway.presence import Presence, State, worst
from tests.gateway.delivery.fakes import FakeDns

HOST, DOMAIN, ADDRESS = "mx1.in.example", "in.example", "192.0.2.10"
ZONE = {
    f"A {HOST}": [ADDRESS],
    f"PTR {ADDRESS}": [HOST],
    f"TXT {HOST}": [b"v=spf1 a -all"],
    f"MX {DOMAIN}": [(10, HOST)],
    f"TXT {DOMAIN}": [b"v=spf1 ip4:192.0.2.10 -all"],
    f"TXT _dmarc.{DOMAIN}": [b"v=DMARC1; p=reject; rua=mailto:dmarc@in.example"],
}


@pytest.fixture
def seen(tmp_path):
    """What is seen in a zone that is in order but for *zone*: by name and kind, and the worst of it."""

    def look(*addresses, domains=(DOMAIN,), zone=None):
        ring = Ring(tmp_path / "dkim")
        if not ring.domains():
            ring.add(DOMAIN, "ed25519", selector="s1")
        (key,) = ring.entries(DOMAIN)
        dns = FakeDns({**ZONE, f"TXT {key.name}": [key.record.encode()], **(zone or {})})
        policies = policy.load(None, replace(policy.NO_TOOLS, dns=dns, hostname=HOST))
        found = asyncio.run(Presence(dns, HOST, domains, ring, policies, addresses).sights())
        return {(one.name, one.kind): one for one in found}, worst(found)

    return look


def test_a_zone_in_order_is_well(seen):
    found, state = seen()
    assert {one.state for one in found.values()} == {State.WELL}
    assert state is State.WELL
    assert {kind for _, kind in found} == {"A, AAAA", "PTR", "SPF", "MX", "DKIM", "DMARC"}


@pytest.mark.parametrize(
    ("zone", "where", "state", "words"),
    [
        ({f"A {HOST}": []}, (HOST, "A, AAAA"), State.WRONG, "no such host"),
        ({f"PTR {ADDRESS}": []}, (ADDRESS, "PTR"), State.WRONG, "there is none"),
        ({f"PTR {ADDRESS}": ["x.provider.example"]}, (ADDRESS, "PTR"), State.WRONG, "it says x.provider.example"),
        ({f"TXT {HOST}": []}, (HOST, "SPF"), State.WRONG, "says nothing"),
        ({f"MX {DOMAIN}": []}, (DOMAIN, "MX"), State.WRONG, f"publish: {DOMAIN}. IN MX 10 {HOST}."),
        ({f"MX {DOMAIN}": [(5, "mx.old.example")]}, (DOMAIN, "MX"), State.CHECK, "goes to mx.old.example"),
        ({f"TXT {DOMAIN}": [b"v=spf1 ip4:192.0.2.99 -all"]}, (DOMAIN, "SPF"), State.WRONG, "fail"),
        ({f"TXT {DOMAIN}": [b"v=spf1 +all"]}, (DOMAIN, "SPF"), State.CHECK, ""),
        ({f"TXT {DOMAIN}": [b"v=spf1 a"] * 2}, (DOMAIN, "SPF"), State.WRONG, "faulty"),
        ({f"TXT s1._domainkey.{DOMAIN}": []}, (f"s1._domainkey.{DOMAIN}", "DKIM"), State.WRONG, "gatepost dkim show"),
        ({f"TXT _dmarc.{DOMAIN}": []}, (DOMAIN, "DMARC"), State.WRONG, 'IN TXT "v=DMARC1; p=none'),
        ({f"TXT _dmarc.{DOMAIN}": [b"v=DMARC1; p=rejct"]}, (DOMAIN, "DMARC"), State.WRONG, "no valid p"),
        ({f"TXT _dmarc.{DOMAIN}": [b"v=DMARC1; p=none"]}, (DOMAIN, "DMARC"), State.CHECK, "nobody gets reports"),
        ({f"TXT _dmarc.{DOMAIN}": [b"v=DMARC1; p=none"] * 2}, (DOMAIN, "DMARC"), State.WRONG, "publish"),
    ],
)
def test_what_is_missing_or_wrong_is_named_with_what_to_do(seen, zone, where, state, words):
    found, overall = seen(zone=zone)
    one = found[where]
    assert (one.state, words in one.words) == (state, True), one
    assert overall is state


@pytest.mark.parametrize("name", [f"MX {DOMAIN}", f"TXT {DOMAIN}", f"TXT _dmarc.{DOMAIN}", f"PTR {ADDRESS}"])
def test_what_the_dns_cannot_tell_is_never_well(seen, name):
    assert seen(zone={name: Temporary("nobody answers")})[1] is State.UNKNOWN


def test_an_address_that_is_not_the_hosts_is_looked_at_instead(seen):
    found, _ = seen("192.0.2.77")
    assert found[HOST, "A, AAAA"].state is State.CHECK
    assert found["192.0.2.77", "PTR"].state is State.WRONG
    assert found[DOMAIN, "SPF"].state is State.WRONG


def test_a_domain_below_another_has_its_record_and_its_key(seen):
    found, _ = seen(domains=[f"sub.{DOMAIN}"])
    assert found[f"sub.{DOMAIN}", "DMARC"].words.startswith(f"reject, by _dmarc.{DOMAIN}")
    assert found[f"s1._domainkey.{DOMAIN}", "DKIM"].state is State.WELL


def test_a_domain_without_a_record_has_that_of_its_organisation_whatever_stands_between(seen):
    found, _ = seen(domains=[f"a.b.{DOMAIN}"], zone={f"TXT _dmarc.b.{DOMAIN}": [b"v=DMARC1; p=none"]})
    assert found[f"a.b.{DOMAIN}", "DMARC"].words.startswith(f"reject, by _dmarc.{DOMAIN}")


def test_a_domain_without_a_key_is_told_how_to_get_one(seen):
    found, _ = seen(domains=["other.example"])
    assert found["other.example", "DKIM"].words == "it has no key: gatepost dkim generate other.example"

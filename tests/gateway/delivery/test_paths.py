"""Which hosts are tried, in which order, and to which addresses nobody can lead us."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest

from gateway.delivery.paths import Hop, Paths, is_own, is_private
from gateway.delivery.reply import Failed
from gateway.model import Temporary
from gateway.stages import NextHop, Relay
from tests.gateway.delivery.fakes import FakeDns

LOST = Temporary("no name server answers")


def find(
    table: dict, domain: str = "there.example", next_hop: NextHop | None = None, own: str = "", **relay
) -> list[Hop]:
    paths = Paths(FakeDns(table), "GW.us.example", lambda address: str(address) in own.split())
    return asyncio.run(paths.find(domain, next_hop, Relay(**relay)))


def status(table: dict, domain: str = "there.example", **more) -> str:
    with pytest.raises(Failed) as failed:
        find(table, domain, **more)
    return failed.value.reply.status


def shown(hops: list[Hop]) -> list[str]:
    return [str(hop) for hop in hops]


def test_better_hosts_come_first() -> None:
    table = {
        "MX there.example": [(20, "mx2.there.example."), (10, "mx1.there.example.")],
        "A mx1.there.example": ["8.8.8.1"],
        "A mx2.there.example": ["8.8.8.2"],
    }
    assert shown(find(table)) == ["mx1.there.example [8.8.8.1]", "mx2.there.example [8.8.8.2]"]


def test_equal_hosts_come_in_any_order() -> None:
    table = {"MX there.example": [(10, "a.there.example"), (10, "b.there.example")]}
    table |= {"A a.there.example": ["8.8.8.1"], "A b.there.example": ["8.8.8.2"]}
    assert {shown(find(table))[0] for _ in range(60)} == {"a.there.example [8.8.8.1]", "b.there.example [8.8.8.2]"}


def test_both_kinds_of_address_are_used() -> None:
    table = {"MX there.example": [(10, "mx.there.example")]}
    table |= {"A mx.there.example": ["8.8.8.1"], "AAAA mx.there.example": ["2606:4700::1"]}
    assert {str(hop.address) for hop in find(table)} == {"8.8.8.1", "2606:4700::1"}


def test_one_kind_of_address_is_enough_when_the_other_cannot_be_told() -> None:
    table = {"MX there.example": [(10, "mx.there.example")]}
    table |= {"A mx.there.example": ["8.8.8.1"], "AAAA mx.there.example": LOST}
    assert shown(find(table)) == ["mx.there.example [8.8.8.1]"]


def test_without_mx_the_domain_is_its_own_host() -> None:
    assert shown(find({"A there.example": ["8.8.8.1"]})) == ["there.example [8.8.8.1]"]


def test_an_international_domain_is_asked_for_as_a_labels() -> None:
    assert shown(find({"A xn--bcher-kva.example": ["8.8.8.1"]}, "Bücher.example")) == [
        "xn--bcher-kva.example [8.8.8.1]"
    ]


def test_a_domain_that_does_not_exist_is_final() -> None:
    assert status({}) == "5.1.2"


def test_a_null_mx_is_final() -> None:
    assert status({"MX there.example": [(0, ".")], "A there.example": ["8.8.8.1"]}) == "5.1.10"


def test_a_dot_beside_real_hosts_is_ignored() -> None:
    table = {"MX there.example": [(0, "."), (10, "mx.there.example")], "A mx.there.example": ["8.8.8.1"]}
    assert shown(find(table)) == ["mx.there.example [8.8.8.1]"]


@pytest.mark.parametrize(
    "table",
    [
        {"MX there.example": LOST},
        {"A there.example": LOST},
        {"MX there.example": [(10, "mx.there.example")], "A mx.there.example": LOST},
        {"MX there.example": [(10, "a.x"), (20, "b.x")], "A a.x": ["127.0.0.1"], "A b.x": LOST},
    ],
)
def test_what_the_dns_cannot_tell_now_it_may_tell_later(table: dict) -> None:
    assert status(table) == "4.4.3"


def test_hosts_without_address_are_final() -> None:
    assert status({"MX there.example": [(10, "mx.there.example")]}) == "5.4.4"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "fe80::1",
        "fc00::1",
        "ff02::1",
        "2002:7f00:1::",
        "64:ff9b::a00:1",
        "2001:db8::1",
    ],
)
def test_a_strangers_dns_does_not_lead_into_our_house(address: str) -> None:
    kind = "AAAA" if ":" in address else "A"
    assert is_private(ip_address(address))
    assert status({"MX there.example": [(10, "mx.there.example")], f"{kind} mx.there.example": [address]}) == "5.4.4"
    assert status({f"{kind} there.example": [address]}) == "5.4.4"
    literal = f"[IPv6:{address}]" if ":" in address else f"[{address}]"
    assert status({}, literal) == "5.4.4"


def test_a_network_of_ours_can_be_allowed() -> None:
    table = {"MX there.example": [(10, "mx.there.example")], "A mx.there.example": ["127.0.0.1", "10.0.0.1"]}
    hops = find(table, allow_private=["127.0.0.0/8"], own="127.0.0.1")
    assert shown(hops) == ["mx.there.example [127.0.0.1]"]


def test_address_literals_are_hosts() -> None:
    assert shown(find({}, "[8.8.8.1]")) == ["8.8.8.1 [8.8.8.1]"]
    assert shown(find({}, "[IPv6:2606:4700::1]")) == ["2606:4700::1 [2606:4700::1]"]
    assert status({}, "[x400:c=de]") == "5.1.2"


@pytest.mark.parametrize("domain", ["", "a b.example", "-", "a..b", "x" * 64 + ".example", "a" * 300, "a\n.example"])
def test_what_is_no_domain_name_is_not_asked_for(domain: str) -> None:
    assert status({}, domain) == "5.1.2"


def test_hosts_with_impossible_names_are_passed_over() -> None:
    table = {"MX there.example": [(5, "a b"), (10, "mx.there.example")], "A mx.there.example": ["8.8.8.1"]}
    assert shown(find(table)) == ["mx.there.example [8.8.8.1]"]


MX = {
    "MX there.example": [(10, "mx1.x"), (20, "mx2.x"), (30, "mx3.x")],
    "A mx1.x": ["8.8.8.1"],
    "A mx2.x": ["8.8.8.2"],
    "A mx3.x": ["8.8.8.3"],
}


def test_as_a_backup_host_we_pass_mail_to_better_hosts_only() -> None:
    named = MX | {"MX there.example": [(10, "mx1.x"), (20, "gw.us.example"), (20, "mx2.x"), (30, "mx3.x")]}
    assert shown(find(named)) == ["mx1.x [8.8.8.1]"]
    assert shown(find(MX, own="8.8.8.2")) == ["mx1.x [8.8.8.1]"]
    assert shown(find(MX, own_addresses=(ip_address("8.8.8.2"),))) == ["mx1.x [8.8.8.1]"]


def test_to_be_the_best_host_and_not_to_know_it_is_a_loop() -> None:
    assert status(MX, own="8.8.8.1") == "5.4.6"
    assert status(MX | {"MX there.example": [(10, "gw.us.example."), (20, "mx2.x")]}) == "5.4.6"
    assert status({"A there.example": ["8.8.8.1"]}, own="8.8.8.1") == "5.4.4"


def test_no_more_hosts_are_tried_than_the_policy_says() -> None:
    table = {"MX there.example": [(n, f"mx{n}.x") for n in range(50)]} | {
        f"A mx{n}.x": [f"8.8.8.{n}"] for n in range(50)
    }
    assert [str(hop.address) for hop in find(table, hosts_tried=3)] == ["8.8.8.0", "8.8.8.1", "8.8.8.2"]


def test_no_more_names_are_looked_up_than_are_needed() -> None:
    table = {"MX there.example": [(n, f"mx{n}.x") for n in range(50)]} | {
        f"A mx{n}.x": [f"8.8.8.{n}"] for n in range(50)
    }
    dns = FakeDns(table)
    asyncio.run(Paths(dns, "gw.us.example", lambda _: False).find("there.example", None, Relay(hosts_tried=2)))
    assert len(dns.asked) == 5


def test_a_fixed_next_hop_may_be_anywhere() -> None:
    hop = NextHop(host="inside.example", port=2525, tls="must", user="us", password_file="/etc/p", ca_file="/etc/ca")
    found = find({"A inside.example": ["10.0.0.1"]}, next_hop=hop, source_addresses=(ip_address("10.0.0.9"),))
    assert found == [Hop("inside.example", ip_address("10.0.0.1"), 2525, "must", "10.0.0.9", "us", "/etc/p", "/etc/ca")]
    assert shown(find({}, next_hop=NextHop(host="127.0.0.1"))) == ["127.0.0.1 [127.0.0.1]"]


def test_a_fixed_next_hop_that_cannot_be_found_costs_time_not_mail() -> None:
    assert status({}, next_hop=NextHop(host="inside.example")) == "4.4.3"
    assert status({"A inside.example": LOST}, next_hop=NextHop(host="inside.example")) == "4.4.3"


def test_each_kind_of_address_has_its_source() -> None:
    table = {"A there.example": ["8.8.8.1"], "AAAA there.example": ["2606:4700::1"]}
    sources = (ip_address("198.51.100.1"), ip_address("2001:db8::9"))
    assert {hop.source for hop in find(table, source_addresses=sources)} == {"198.51.100.1", "2001:db8::9"}


def test_the_kernel_knows_our_own_addresses() -> None:
    assert is_own(ip_address("127.0.0.1"))
    assert not is_own(ip_address("8.8.8.8"))

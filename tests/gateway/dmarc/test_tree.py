"""Whose a domain is: where a tree walk asks, where it stops, and the organisation that follows."""

import asyncio
import string

import pytest

from gateway.dmarc.record import Record
from gateway.dmarc.tree import count, is_of_organisation, is_within, organisation, public_suffix, tree, walk
from gateway.model import Temporary


def test_a_walk_asks_for_eight_names_at_most() -> None:
    deep = ".".join(string.ascii_lowercase) + ".example"
    assert tree("example") == ["example"]
    assert tree("a.b.example") == ["a.b.example", "b.example", "example"]
    assert len(tree(deep)) == 8
    assert tree(deep)[:2] == [deep, "u.v.w.x.y.z.example"]


class Zone:
    """Records by domain; `asked` are the names in their order, `silent` those of which nobody can tell."""

    def __init__(self, silent: tuple[str, ...] = (), **psd: str) -> None:
        self.records = {
            name.replace("_", "."): Record(name.replace("_", "."), "none", psd=say) for name, say in psd.items()
        }
        self.silent, self.asked = silent, []

    async def ask(self, domain: str) -> Record | None:
        self.asked.append(domain)
        if domain in self.silent:
            raise Temporary("nobody could tell")
        return self.records.get(domain)

    def walked(self, domain: str) -> list[str]:
        return [record.domain for record in asyncio.run(walk(domain, self.ask))]

    def organisation(self, domain: str) -> tuple[str, bool]:
        return organisation(domain, asyncio.run(walk(domain, self.ask)))

    def is_of(self, domain: str, other: str) -> bool:
        return asyncio.run(is_of_organisation(domain, other, self.ask))


def test_a_walk_goes_on_to_the_top_where_nobody_says_where_to_stop() -> None:
    zone = Zone(b_example="u", example="u")
    assert zone.walked("a.b.example") == ["b.example", "example"]
    assert zone.asked == ["a.b.example", "b.example", "example"]


@pytest.mark.parametrize("psd", ["y", "n"])
def test_a_walk_ends_at_a_record_that_says_what_its_domain_is(psd: str) -> None:
    zone = Zone(b_example=psd, example="u")
    assert zone.walked("a.b.example") == ["b.example"]
    assert zone.asked == ["a.b.example", "b.example"]


def test_a_walk_that_nobody_can_tell_is_not_taken_for_one_without_records() -> None:
    with pytest.raises(Temporary):
        Zone(("b.example",), example="u").walked("a.b.example")


@pytest.mark.parametrize(
    ("domain", "records", "expected"),
    [
        ("a.b.demo.example", {}, ("a.b.demo.example", False)),  # without a record there is nothing to unite (4.10.2)
        ("a.b.demo.example", {"demo_example": "u"}, ("demo.example", False)),
        ("a.b.demo.example", {"b_demo_example": "u", "demo_example": "u"}, ("demo.example", False)),
        ("a.b.demo.example", {"b_demo_example": "n", "demo_example": "u"}, ("b.demo.example", False)),
        ("a.b.demo.example", {"demo_example": "y"}, ("b.demo.example", False)),
        ("demo.example", {"demo_example": "y"}, ("demo.example", False)),
        ("a.shop.co.uk", {"co_uk": "y"}, ("shop.co.uk", False)),
        ("a.shop.co.uk", {"co_uk": "u"}, ("shop.co.uk", True)),  # a registry that forgot its psd
        ("a.shop.co.uk", {"uk": "y"}, ("shop.co.uk", True)),
        ("a.shop.co.uk", {"a_shop_co_uk": "u", "shop_co_uk": "u", "co_uk": "u"}, ("shop.co.uk", True)),
        ("a.shop.co.uk", {"a_shop_co_uk": "u", "co_uk": "u"}, ("a.shop.co.uk", True)),
        ("shop.co.uk", {"co_uk": "n"}, ("co.uk", False)),  # its owner says that all below are one
    ],
)
def test_the_organisation_follows_from_the_records(
    domain: str, records: dict[str, str], expected: tuple[str, bool]
) -> None:
    assert Zone(**records).organisation(domain) == expected


@pytest.mark.parametrize(
    ("domain", "other", "same"),
    [
        ("demo.example", "demo.example", True),
        ("a.demo.example", "demo.example", True),
        ("a.demo.example", "b.demo.example", True),
        ("xdemo.example", "demo.example", False),
        ("example", "demo.example", False),
        ("demo.test", "demo.example", False),
    ],
)
def test_domains_are_of_one_organisation_where_both_walks_say_so(domain: str, other: str, same: bool) -> None:
    assert Zone(demo_example="u").is_of(domain, other) is same


def test_a_subdomain_that_is_an_organisation_of_its_own_is_not_of_that_above() -> None:
    zone = Zone(demo_example="u", own_demo_example="n")
    assert not zone.is_of("own.demo.example", "demo.example")
    assert not zone.is_of("a.own.demo.example", "demo.example")


def test_who_is_under_another_top_level_costs_no_question() -> None:
    zone = Zone()
    assert not zone.is_of("demo.test", "demo.example")
    assert zone.asked == []


@pytest.mark.parametrize(
    ("domain", "suffix"), [("a.shop.co.uk", "co.uk"), ("shop.com", "com"), ("a.b.unlisted", "unlisted"), ("uk", "uk")]
)
def test_the_public_suffix_is_the_listed_one_or_the_last_label(domain: str, suffix: str) -> None:
    assert public_suffix(domain) == suffix


def test_to_lie_within_goes_by_whole_labels() -> None:
    assert is_within("a.example", "a.example")
    assert is_within("b.a.example", "a.example")
    assert not is_within("ba.example", "a.example")
    assert not is_within("example", "a.example")
    assert (count("example"), count("a.b.example")) == (1, 3)

"""Whose a domain is and which way its mail goes, in every spelling of the domain."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from gateway import routes, stages
from gateway.stages import NextHop, Route, Routes

INSIDE = NextHop(host="mail.inside.example")
SMARTHOST = NextHop(host="smarthost.example")
ROUTES = Routes(
    local=["Ours.example", "bücher.example"],
    routes=[
        {"domains": ["*"], "via": {"host": "smarthost.example"}},
        {"domains": ["passed.example"], "via": {"host": "mail.inside.example"}, "accept_from_world": True},
        {"domains": ["branch.example"], "via": {"host": "mail.inside.example"}},
    ],
)


@pytest.mark.parametrize("domain", ["ours.example", "OURS.example.", "bücher.example", "xn--bcher-kva.example"])
def test_local_domains_are_known_in_every_spelling(domain: str) -> None:
    assert routes.is_local(ROUTES, domain)
    assert routes.accepts_from_world(ROUTES, domain)


@pytest.mark.parametrize(
    "domain", ["sub.ours.example", "notours.example", "ours.example.evil.example", "", "*", ".", "[::1]"]
)
def test_nothing_else_is_ours(domain: str) -> None:
    assert not routes.is_local(ROUTES, domain)
    assert not routes.accepts_from_world(ROUTES, domain)


def test_the_domains_that_strangers_write_to_are_ours() -> None:
    assert routes.ours(ROUTES) == {"ours.example", "xn--bcher-kva.example", "passed.example"}
    assert routes.ours(Routes()) == frozenset()


def test_a_domain_named_comes_before_the_route_for_all() -> None:
    assert routes.route(ROUTES, "PASSED.example") == INSIDE
    assert routes.route(ROUTES, "else.example") == SMARTHOST
    assert routes.route(Routes(), "else.example") is None


def test_only_what_is_said_to_be_open_is_open() -> None:
    assert routes.accepts_from_world(ROUTES, "passed.example")
    assert not routes.accepts_from_world(ROUTES, "branch.example")
    assert not routes.accepts_from_world(ROUTES, "else.example")


def test_what_is_no_domain_name_is_nobodys() -> None:
    assert routes.normal("a" * 70 + "ü.example").startswith("aaa")
    assert not routes.accepts_from_world(ROUTES, "ü" * 100)


def test_a_route_for_all_from_the_world_would_be_an_open_relay() -> None:
    with pytest.raises(ValidationError, match="would relay for anybody"):
        Route(domains=["*"], via=SMARTHOST, accept_from_world=True)


def test_a_domain_goes_one_way() -> None:
    with pytest.raises(ValidationError, match=r"ours\.example is named twice"):
        Routes(local=["ours.example"], routes=[{"domains": ["ours.example"], "via": {"host": "x.example"}}])


def test_a_password_needs_verified_tls() -> None:
    with pytest.raises(ValidationError, match="verified TLS"):
        NextHop(host="x.example", user="us", password_file="/etc/p")
    with pytest.raises(ValidationError, match="go together"):
        NextHop(host="x.example", tls="must", user="us")


@pytest.mark.parametrize("host", ["", "a b", "x\r\ny", "-x", "a" * 254])
def test_a_next_hop_is_a_host(host: str) -> None:
    with pytest.raises(ValidationError):
        NextHop(host=host)


def test_the_shipped_policies_say_what_the_classes_say() -> None:
    shipped = stages.load(None)
    assert shipped.queue == stages.Queue()
    assert shipped.relay == stages.Relay()
    assert shipped.routes == Routes(local=["demo.example"], postmaster="alice@demo.example")

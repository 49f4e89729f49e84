"""Whose a domain is, and which way its mail goes: pure functions of routes.toml. Domains compare as A-labels."""

from __future__ import annotations

from gateway.idn import a_labels
from gateway.stages import NextHop, Route, Routes


def normal(domain: str) -> str:
    """*domain* as the DNS compares it: A-labels, lower case, no final dot; what is no domain only in lower case."""
    name = domain.rstrip(".").lower()
    try:
        return a_labels(name)
    except ValueError:
        return name


def route(routes: Routes, domain: str) -> NextHop | None:
    """The fixed host for *domain*; None where the DNS names the mail hosts. A named domain comes before "*"."""
    named = _named(routes, normal(domain)) or _named(routes, "*")
    return named.via if named else None


def is_local(routes: Routes, domain: str) -> bool:
    """Do mailboxes of ours take the mail of *domain*?"""
    return normal(domain) in routes.local


def accepts_from_world(routes: Routes, domain: str) -> bool:
    """May strangers send us mail for *domain*? Nothing but a domain named in routes.toml makes it so."""
    name = normal(domain)
    named = _named(routes, name)
    return name in routes.local or (name != "*" and named is not None and named.accept_from_world)


def ours(routes: Routes) -> frozenset[str]:
    """All domains, in A-labels, for which strangers may send us mail."""
    relayed = (name for route in routes.routes if route.accept_from_world for name in route.domains)
    return frozenset([*routes.local, *relayed])


def _named(routes: Routes, name: str) -> Route | None:
    return next((route for route in routes.routes if name in route.domains), None)

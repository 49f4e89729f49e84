"""Domain names as the DNS compares them."""

import pytest

from gateway import routes, stages
from gateway.idn import a_labels, u_labels


@pytest.mark.parametrize(
    ("domain", "name"),
    [
        ("Example.ORG", "example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("faß.example", "xn--fa-hia.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
    ],
)
def test_a_domain_has_one_form(domain, name):
    assert a_labels(domain) == name


@pytest.mark.parametrize("domain", ["xn--a.example", "a\u2024b.example", "\ud800.example", "a b\u00fc.example"])
def test_what_is_no_domain_is_refused(domain):
    with pytest.raises(ValueError, match="domain"):
        a_labels(domain)


@pytest.mark.parametrize(
    ("domain", "written"),
    [("xn--bcher-kva.example", "bücher.example"), ("a.example", "a.example"), ("a..b", "a..b"), ("", "")],
)
def test_people_read_it_in_letters(domain, written):
    assert u_labels(domain) == written


def test_policies_and_routes_agree_on_names():
    table = stages.Routes.model_validate({"local": ["faß.example"]})
    assert routes.is_local(table, "faß.example")
    assert routes.is_local(table, "xn--fa-hia.example")
    assert not routes.is_local(table, "fass.example")

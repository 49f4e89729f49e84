"""To whom reports go: to those whom the owner names, and who say that they want them."""

import asyncio

import pytest

from gateway.delivery import destinations
from gateway.delivery.destinations import Destinations
from gateway.model import Temporary
from gateway.store.observations import Published
from tests.gateway.delivery.fakes import FakeDns


def find(*rua, domain="owner.example", limit=5, last_try=False, **table):
    dns = FakeDns({f"TXT {name}": [*map(str.encode, texts)] if isinstance(texts, list) else texts
                   for name, texts in table.get("txt", {}).items()})  # fmt: skip
    found = asyncio.run(destinations.find(dns, Published(domain, rua=rua), limit, last_try=last_try))
    return found, dns.asked


def addresses(*rua, **more):
    return list(find(*rua, **more)[0].addresses)


def test_an_address_of_the_domain_itself_is_believed_without_a_question():
    found, asked = find("mailto:dmarc@owner.example", "mailto:Other@OWNER.example!10m")
    assert found == Destinations(("dmarc@owner.example", "Other@owner.example"), ())
    assert asked == []


@pytest.mark.parametrize(
    "uri",
    [
        "https://owner.example/dmarc", "mailto:", "mailto:a", "mailto:@owner.example", "mailto:a@", "a@owner.example",
        "mailto:a b@owner.example", "mailto:a@owner..example", "mailto:a%0d%0abcc:b@owner.example", "mailto:<a@owner.example>",
        "mailto:.a@owner.example", "mailto:a.@owner.example", "mailto:a..b@owner.example", "mailto:%22a%22@owner.example",
        "mailto:a@[192.0.2.1]", "mailto:a@öwner.example", "mailto:" + "a" * 65 + "@owner.example", "",
    ],
)  # fmt: skip
def test_what_is_no_plain_address_is_ignored(uri):
    assert addresses(uri, "mailto:b@owner.example") == ["b@owner.example"]


def test_an_address_may_be_encoded_and_have_words_for_the_mail_behind_it():
    assert addresses("mailto:a%2Bb@owner.example?subject=x") == ["a+b@owner.example"]


def test_no_more_addresses_are_used_than_we_want_and_none_twice():
    uris = ["mailto:a@owner.example", "mailto:a@owner.example", *(f"mailto:{n}@owner.example" for n in range(9))]
    assert addresses(*uris, limit=3) == ["a@owner.example", "0@owner.example", "1@owner.example"]


def test_one_of_another_organisation_has_to_want_the_reports():
    asked_for = {"owner.example._report._dmarc.reader.example": ["v=DMARC1"]}
    assert addresses("mailto:a@reader.example", txt=asked_for) == ["a@reader.example"]
    found, _ = find("mailto:a@victim.example", txt=asked_for)
    assert found.addresses == ()
    assert found.ignored == ("a@victim.example: its domain does not say that it wants these reports",)


@pytest.mark.parametrize(
    "texts",
    [["v=DMARC2"], ["p=none; v=DMARC1"], ["hello"], ["v=spf1 -all"], ["\x00\x01"], [], [""]],
)
def test_a_record_that_says_something_else_wants_nothing(texts):
    assert addresses("mailto:a@reader.example", txt={"owner.example._report._dmarc.reader.example": texts}) == []


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        (["v=DMARC1;"], ["a@reader.example"]),
        (["noise", "v=DMARC1; rua=mailto:b@reader.example"], ["b@reader.example"]),
        (["v=DMARC1; rua=mailto:b@reader.example, mailto:c@reader.example"], ["b@reader.example", "c@reader.example"]),
        (["v=DMARC1; rua=mailto:b@victim.example"], []),
        (["v=DMARC1; rua=mailto:b@reader.example,mailto:b@victim.example"], []),
        (["v=DMARC1; rua=https://reader.example/"], []),
    ],
)
def test_a_reader_may_name_another_address_of_its_own_host_and_of_no_other(texts, wanted):
    record = {"owner.example._report._dmarc.reader.example": texts}
    assert addresses("mailto:a@reader.example", txt=record) == wanted


@pytest.mark.parametrize(
    ("domain", "host", "records", "believed"),
    [
        ("owner.example.com", "reports.owner.example.com", {"owner.example.com": "v=DMARC1"}, True),
        ("owner.com", "x.owner.com", {"owner.com": "v=DMARC1", "x.owner.com": "v=DMARC1; psd=n"}, False),
        ("mail.owner.com", "reports.owner.com", {"owner.com": "v=DMARC1; p=none"}, True),
        ("mail.owner.com", "owner.com", {"owner.com": "v=DMARC1; p=none"}, True),
        ("mail.owner.com", "reports.owner.com", {}, False),
        ("mail.owner.com", "reports.owner.com", {"mail.owner.com": "v=DMARC1; psd=n", "owner.com": "v=DMARC1"}, False),
        ("a.bank.example", "b.bank.example", {"bank.example": "v=DMARC1; psd=y"}, False),
        ("x.a.bank.example", "y.a.bank.example", {"bank.example": "v=DMARC1; psd=y"}, True),
        ("evil.co.uk", "victim.co.uk", {"co.uk": "v=DMARC1; p=none"}, False),
        ("co.uk", "victim.co.uk", {"co.uk": "v=DMARC1; p=none"}, False),
        ("mail.owner.com", "reports.owner.com", {"owner.com": "v=spf1"}, False),
        ("owner.com", "notowner.com", {"owner.com": "v=DMARC1"}, False),
    ],
)
def test_the_organisation_is_what_the_records_above_the_domain_say(domain, host, records, believed):
    table = {f"_dmarc.{name}": [text] for name, text in records.items()}
    assert bool(addresses(f"mailto:a@{host}", domain=domain, txt=table)) is believed


def test_a_long_name_costs_nine_questions():
    name = ".".join("abcdefghijklmnopqrst") + ".owner.com"
    _, asked = find("mailto:a@reports.owner.com", domain=name)
    assert len(asked) == 9
    assert asked[-1] == f"TXT {name}._report._dmarc.reports.owner.com"


def test_what_the_dns_cannot_tell_is_asked_again_until_the_last_try():
    silent = {"owner.example._report._dmarc.reader.example": Temporary("nobody answers")}
    uris = ("mailto:a@reader.example", "mailto:b@owner.example")
    with pytest.raises(Temporary):
        find(*uris, txt=silent)
    found, _ = find(*uris, txt=silent, last_try=True)
    assert found == Destinations(("b@owner.example",), ("a@reader.example: nobody answers",))


@pytest.mark.parametrize(("name", "is_one"), [
    ("a.example", True), ("xn--bcher-kva.example", True), ("_x.example", True), ("a", True), ("", False), ("a.", False),
    ("A.example", False), ("a b.example", False), ("a!b.example", False), ("a\r\nb.example", False), ("-a.example", False),
    (".".join(["a" * 60] * 5), False),
])  # fmt: skip
def test_domains_are_known_by_their_grammar(name, is_one):
    assert destinations.is_domain(name) is is_one

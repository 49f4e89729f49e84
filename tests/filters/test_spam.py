"""The rules one by one: what each is for, what it must leave alone, and what hostile text may cost."""

import ipaddress
import time
import tomllib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from filters import spam
from filters.spam import GTUBE, Filter, Settings
from gateway.model import Content, Finding, Mail, Part, Session

POLICY = Path(__file__).parents[2] / "policies" / "spam.toml"
AUTHOR, REPLY, TO = ("From", "Alice <alice@shop.example>"), ("Reply-To", "alice@gmail.com"), ("To", "bob@demo.example")


def check(
    text: str = "hello",
    html: str = "",
    subject: str = "Our meeting",
    headers: Sequence[tuple[str, str]] = (AUTHOR, TO),
    settings: Settings | None = None,
) -> list[Finding]:
    parts = [Part("1", "text/plain", text=text)] * bool(text) + [Part("2", "text/html", text=html)] * bool(html)
    content = Content(tuple(headers), subject, tuple(parts))
    mail = Mail("id", Session(ipaddress.ip_address("192.0.2.1")), content=content)
    found = list(Filter(settings or Settings()).check(mail, {}))
    assert {finding.code for finding in found} <= Filter.codes
    assert len(found) == len({finding.code for finding in found})
    return found


def codes(text: str = "hello", html: str = "", **rest: object) -> list[str]:
    return [finding.code for finding in check(text, html, **rest)]  # type: ignore[arg-type]


def test_a_plain_letter_is_nothing() -> None:
    assert codes() == []


@pytest.mark.parametrize("where", [{"text": f"hello\r\n{GTUBE}\r\n"}, {"html": f"<p>{GTUBE}</p>"}, {"subject": GTUBE}])
def test_gtube_is_found_wherever_it_stands(where: dict[str, str]) -> None:
    assert codes(**where) == ["gtube"]


def test_gtube_is_found_behind_the_text_that_is_read() -> None:
    assert codes("x" * 200_000 + GTUBE) == ["gtube"]


def test_half_of_gtube_is_nothing() -> None:
    assert codes(GTUBE[:-1]) == []


@pytest.mark.parametrize("subject", ["", " ", "\t"])
def test_a_missing_subject_is_told(subject: str) -> None:
    assert codes(subject=subject) == ["no_subject"]


@pytest.mark.parametrize("subject", ["YOU HAVE WON A PRIZE", "ЗДРАВСТВУЙТЕ ДОРОГОЙ ДРУГ", "URGENT: 100% FREE!!!"])
def test_a_subject_in_capitals_is_told(subject: str) -> None:
    assert codes(subject=subject) == ["shouting"]


@pytest.mark.parametrize(
    "subject", ["RE: FAQ", "MEETING", "[PATCH] FIX README for you", "会議のお知らせについてのご連絡です"]
)
def test_short_or_mixed_subjects_are_nothing(subject: str) -> None:
    assert codes(subject=subject) == []


@pytest.mark.parametrize("to", [(), (("To", "undisclosed-recipients:;"),), (("To", ""), ("Cc", ""))])
def test_a_mail_to_nobody_is_told(to: tuple[tuple[str, str], ...]) -> None:
    assert codes(headers=(AUTHOR, *to)) == ["no_recipients"]


def test_a_mail_with_copies_only_is_to_somebody() -> None:
    assert codes(headers=(AUTHOR, ("Cc", "bob@demo.example"))) == []


def test_html_without_plain_text_is_told() -> None:
    assert codes("", "<p>hello</p>") == ["html_only"]
    assert codes("hello", "<p>hello</p>") == []


@pytest.mark.parametrize(
    "link",
    ["http://198.51.99.7/login", "HTTPS://198.51.99.7:8080/", "http://bank.example@198.51.99.7/", "http://3325256455/"],
)
def test_a_link_to_a_bare_address_is_told(link: str) -> None:
    assert codes(f"see {link} now") == ["link_to_address"]
    assert codes("hello", f'<a href="{link}">here</a>') == ["link_to_address"]


@pytest.mark.parametrize(
    "link", ["http://192.168.1.1/", "http://127.0.0.1:8080/", "http://10.0.0.1", "http://1.2.3.4.example/"]
)
def test_links_to_inner_addresses_and_names_are_nothing(link: str) -> None:
    assert codes(f"see {link} now") == []


def test_encoded_links_are_read_as_a_mail_program_reads_them() -> None:
    assert codes("hello", '<a href="&#104;ttp://198.51.99.7/">x</a>') == ["link_to_address"]


@pytest.mark.parametrize("link", ["https://bit.ly/3abc", "http://www.tinyurl.com/x", "https://BIT.LY./x"])
def test_short_links_are_told(link: str) -> None:
    assert codes(f"see {link}") == ["link_shortener"]


@pytest.mark.parametrize("link", ["https://orbit.ly/x", "https://example.com/bit.ly", "bit.ly"])
def test_links_that_only_look_short_are_nothing(link: str) -> None:
    assert codes(f"see {link}") == []


@pytest.mark.parametrize(
    "anchor",
    [
        '<a href="http://evil.example.net/x">https://www.bank.example/login</a>',
        "<A HREF=http://evil.example.net >www.bank.co.uk</A>",
        '<a class="x" href="http://bank.example@evil.example.net/">http://bank.example/</a>',
        '<a href="https://other.co.uk/">https://bank.co.uk/</a>',
    ],
)
def test_a_link_that_shows_another_host_is_told(anchor: str) -> None:
    assert codes("hello", anchor) == ["link_disguised"]


@pytest.mark.parametrize(
    "anchor",
    [
        '<a href="https://click.bank.example/x">https://www.bank.example/login</a>',
        '<a href="https://www.gmx.de/">www.gmx.de</a>',
        '<a href="http://evil.example.net/">click here</a>',
        '<a href="http://evil.example.net/">Shop.example</a>',
        '<a href="mailto:a@b.example">www.bank.example</a>',
        '<a name="x">www.bank.example</a>',
    ],
)
def test_links_that_show_where_they_lead_or_nothing_are_nothing(anchor: str) -> None:
    assert codes("hello", anchor) == []


def test_a_form_that_asks_for_a_password_is_told() -> None:
    for field in ('<input type="password" name=p>', "<INPUT name=p TYPE = 'PASSWORD'>", "<input\ntype=password>"):
        assert codes("hello", f"<form>{field}</form>") == ["password_form"]
    assert codes("hello", '<input type="text"> your password') == []


@pytest.mark.parametrize(
    "author",
    [
        '"service@bank.example" <x@evil.example.net>',
        "service@bank.example < x@evil.example.net>",
        "=?utf-8?B?c2VydmljZUBiYW5rLmV4YW1wbGU=?= <x@evil.example.net>",
        "ser\u200bvice@ba\u00adnk.example <x@evil.example.net>",
        "service\u2060@\ufffdbank.exa\ufffdmple <x@evil.example.net>",
        "\uff53ervice\uff20bank\uff0eexample <x@evil.example.net>",
        "service@bank\u3002example <x@evil.example.net>",
        "=?utf-8?Q?service=EF=BC=A0bank=E2=80=8B.example?= <x@evil.example.net>",
    ],
)
def test_an_author_named_like_another_address_is_told(author: str) -> None:
    (finding,) = check(headers=(("From", author), TO))
    assert (finding.code, finding.detail) == (
        "address_in_name",
        "service@bank.example is in truth x@evil.example.net",
    )


@pytest.mark.parametrize(
    "author",
    [
        '"alice@shop.example" <alice@shop.example>',
        "alice@shop.example <a@mail.shop.example>",
        "a@b.example",
        "",
        "<<<>>>@",
    ],
)
def test_an_author_named_by_their_own_address_is_nothing(author: str) -> None:
    assert codes(headers=(("From", author), TO)) == []


def test_replies_to_a_free_mailbox_are_told() -> None:
    (finding,) = check(headers=(AUTHOR, REPLY, TO))
    assert (finding.code, finding.detail) == ("reply_elsewhere", "alice@shop.example wants replies at alice@gmail.com")


@pytest.mark.parametrize(
    "headers",
    [
        (AUTHOR, ("Reply-To", "alice@other.example"), TO),
        (("From", "alice@gmx.de"), REPLY, TO),
        (("From", "Alice via Club <club@lists.example>"), REPLY, ("To", "Club <Club@lists.example>")),
    ],
)
def test_other_replies_are_nothing(headers: tuple[tuple[str, str], ...]) -> None:
    assert codes(headers=headers) == []


def test_phrases_about_money_are_told_from_the_third_on() -> None:
    assert codes("I am the Barrister of a DECEASED man.") == []
    (finding,) = check("I am the Barrister of a DECEASED man, and you are next\r\n  of kin.")
    assert (finding.code, finding.detail) == ("money_phrases", "next of kin, deceased, barrister")


def test_phrases_are_read_as_html_shows_them() -> None:
    html = "<p>barrister<br>de<!-- x -->ceased, next&nbsp;of <b>kin</b>, inheritance, lottery</p>"
    assert codes("hello", html) == ["money_phrases"]


def test_words_cut_by_invisible_characters_are_told() -> None:
    assert codes("pay\u200bpal ac\u200bcount ver\u00adify log\u2060in pass\ufeffword") == ["split_words"]
    assert codes("hello", "pay&#8203;pal ac&#8203;count ver&shy;ify log&#8203;in pass&#8203;word") == ["split_words"]


def test_a_few_invisible_characters_are_nothing() -> None:
    assert codes("Donau\u00addampf\u00adschiff \u200b\u200b\u200b\u200b\u200b\u200b\u200b 1\u200b2") == []


HOSTILE = [
    "<" * 200_000,
    "<a " * 70_000,
    "<a href=" + "http://a" * 30_000,
    "<a " + "href" * 50_000 + ">x</a>",
    "<a x>" + "y" * 199 + "<a x>" * 40_000,
    "<input " + "type " * 50_000,
    "<input type" * 20_000,
    "http://" * 30_000,
    "http://" + "a" * 200_000 + "@",
    ("http://" + "a" * 99) * 2000,
    "&" * 200_000,
    "&#" * 100_000,
    "a@" * 100_000,
    "a." * 100_000,
    " " * 200_000,
    "\u200b" * 200_000,
    "a\u200b" * 100_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_costs_little(text: str) -> None:
    headers = (("From", text[:16384]), ("Reply-To", text[:16384]), ("To", text[:16384]))
    began = time.process_time()
    check(text, text, text[:998], headers)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    "author",
    ["=?utf-8?B?!!!?= <a@b.example>", "=?nonsense?Q?a?= <a@b.example>", "=?utf-8?X?a?=", "=?" * 400, "=?utf-8?Q?=ff?="],
)
def test_broken_encoded_words_are_read_as_they_stand(author: str) -> None:
    assert codes(headers=(("From", author), TO)) == []


def test_details_are_printable_and_short() -> None:
    hostile = "A\x1b[31m\r\n\u202e" + "B " * 400
    for finding in check(subject=hostile.upper(), headers=(("From", f"{hostile}x@y.example <a@b.example>"), TO)):
        assert finding.detail.isprintable()
        assert len(finding.detail) < 250


def test_faults_do_not_become_clean() -> None:
    broken = Content(parts=(Part("1", "text/plain", text=None),))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Filter(Settings()).check(Mail("id", Session(ipaddress.ip_address("192.0.2.1")), content=broken), {})


@pytest.mark.parametrize("settings", [Settings(min_phrases=0), Settings(text_size=0)])
def test_settings_that_cannot_be_are_told_when_the_policy_loads(settings: Settings) -> None:
    with pytest.raises(ValueError):
        Filter(settings)


def test_every_code_has_a_rule_and_no_other() -> None:
    assert {"gtube", *spam._RULES} == Filter.codes


def test_the_shipped_policy_says_the_same_as_the_defaults() -> None:
    written = tomllib.loads(POLICY.read_text("utf-8"))["settings"]
    defaults = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(Settings()).items()}
    assert written == defaults

"""From: who is shown as the author, what a name pretends, and whether a user may write in that name."""

import asyncio
import ipaddress
import time
from typing import Any

import pytest

from filters.from_header import MAX_ASKED, Filter, Settings
from gateway.model import (
    Author,
    Content,
    Envelope,
    Finding,
    ListenerKind,
    Mail,
    Recipient,
    Result,
    Session,
    Temporary,
    Tools,
)

PEER = ipaddress.ip_address("192.0.2.1")
OUTSIDE = Session(PEER)
ALICE = Session(PEER, kind=ListenerKind.SUBMISSION, user="alice")
HOST = Session(PEER, kind=ListenerKind.RELAY)
OURS = {"alice@in.example": "alice", "a.doe@in.example": "alice", "bob@in.example": "bob"}
TO_BOB = Envelope("x@out.example", (Recipient("bob@in.example"),))


async def account_of(address: str) -> str:
    return OURS.get(address, "")


async def nobody_can_tell(address: str) -> str:
    raise Temporary("the store is out of reach")


def check(
    author: Author, session: Session = OUTSIDE, *names: str, account: Any = account_of, **content: Any
) -> list[Finding]:
    tools = Tools(None, None, "gw.example", None, None, account, None)  # type: ignore[arg-type]
    mail = Mail("id", session, TO_BOB, Content((("To", "b@b"),), author=author, **content))
    found = list(asyncio.run(Filter(Settings(names), tools).check(mail, {})))
    assert {finding.code for finding in found} <= Filter.codes
    return found


def codes(*args: Any, **more: Any) -> list[str]:
    return [finding.code for finding in check(*args, **more)]


def by(address: str, display: str = "", *senders: str) -> Author:
    return Author(address, address.rpartition("@")[2], display, senders=senders)


def test_a_plain_author_is_nothing() -> None:
    assert codes(by("ann@out.example", "Ann Other")) == []


def test_an_author_in_doubt_is_ambiguous_and_all_that_may_be_seen_are_named() -> None:
    (finding,) = check(Author(doubts=("there are 2 From fields",), domains=("a.example", "b.example")))
    assert finding.code == "ambiguous"
    assert finding.detail == "there are 2 From fields (seen by one or another: a.example, b.example)"
    assert finding.facts == ("a.example", "b.example")


def test_who_shows_no_address_is_missing_whoever_sends() -> None:
    assert codes(Author()) == codes(Author(), ALICE) == codes(Author(), HOST) == ["missing"]


def test_a_header_that_could_not_be_read_is_the_parsers_to_tell() -> None:
    tools = Tools(None, None, "gw.example", None, None, account_of, None)  # type: ignore[arg-type]
    mail = Mail("id", OUTSIDE, content=Content(unscannable="a header is larger than 10 octets"))
    assert asyncio.run(Filter(Settings(), tools).check(mail, {})) == []


@pytest.mark.parametrize(
    ("address", "display"),
    [
        ("x@evil.example", "boss@bank.example"),
        ("x@evil.example", "The Boss <BOSS@bank.example>"),
        ("x@evil.example", "boss\uff20bank.example"),
        ("x@evil.example", "boss@bank\uff0eexample"),
        ("x@evil.example", "boss@ba\xadnk.exam\ufffdple"),
        ("x@evil.example", "boss@bank\u3002example"),
        ("x@evil.example", "boss@bank\uff61example"),
        ("x@evil.example", "boss @ bank.example"),
        ("x@evil.example", "\ufffdelpmaxe.knab@ssob"),
        ("x@evilbank.example", "boss@bank.example"),
        ("x@bank.example.evil.test", "boss@bank.example"),
        ("list@lists.example", "jane@home.example via list"),
    ],
)
def test_a_name_that_shows_another_address_is_misleading(address: str, display: str) -> None:
    assert codes(by(address, display)) == ["misleading_name"]


@pytest.mark.parametrize(
    ("address", "display"),
    [
        ("alice@x.example", "alice@x.example"),
        ("alice@x.example", "ALICE@X.example"),
        ("alice@mail.x.example", "info@x.example"),
        ("info@x.example", "alice@mail.x.example"),
        ("list@lists.example", "Jane Doe via list"),
        ("ship@amazon.example", "Amazon.example"),
        ("j@xn--mller-kva.example", "j@müller.example"),
        ("x@y.example", "me @ home"),
        ("j.doe@y.example", "j.doe@y.example \ufffd"),
        ("x@y.example", "elpmaxe.knab@ssob"),
    ],
)
def test_a_name_that_shows_the_same_or_none_is_not(address: str, display: str) -> None:
    assert codes(by(address, display)) == []


@pytest.mark.parametrize(
    "display", ["in.example Support", "IT (In.Example)", "bob@in.example", "a.doe@IN.example", "i\xadn.example"]
)
def test_a_stranger_that_shows_us_poses_as_ours(display: str) -> None:
    assert codes(by("x@evil.example", display)) == ["poses_as_ours"]


@pytest.mark.parametrize(
    ("address", "display"),
    [
        ("x@in.example", "in.example Support"),
        ("x@mail.in.example", "bob@in.example"),
        ("x@out.example", "begin.example"),
        ("x@out.example", "in.examples"),
        ("x@out.example", "Bob"),
    ],
)
def test_people_of_ours_and_words_that_only_look_like_it_do_not(address: str, display: str) -> None:
    assert codes(by(address, display)) == []


@pytest.mark.parametrize(
    ("domain", "is_mixed"),
    [
        ("b\u0430nk.example", True),  # a Cyrillic a
        ("mail.\u03bfut.example", True),
        ("\u0431\u0430\u043d\u043a.example", False),
        ("b\xfccher.example", False),
        ("xn--\u0430.example", False),
    ],
)
def test_a_domain_of_several_alphabets_is_misleading(domain: str, is_mixed: bool) -> None:
    address = f"x@{domain.encode('idna').decode() if not domain.startswith('xn--') else domain}"
    assert codes(by(address, "Bank")) == ["misleading_name"] * is_mixed


def test_names_that_the_administrator_gave_are_ours() -> None:
    jane = by("ceo4711@mail.example", "Jane DIRECTOR (private)")
    assert codes(jane) == []
    assert codes(jane, OUTSIDE, "jane director") == ["poses_as_ours"]
    assert codes(by("ceo4711@mail.example", "Jane Dir\ufffdector"), OUTSIDE, "jane director") == ["poses_as_ours"]
    assert codes(by("jane@in.example", "Jane Director"), OUTSIDE, "jane director") == []


def test_a_sender_elsewhere_is_told() -> None:
    assert codes(by("a@x.example", "", "b@y.example")) == ["sender_differs"]
    assert codes(by("a@x.example", "", "")) == ["sender_differs"]
    assert codes(by("a@x.example", "", "b@x.example", "c@lists.x.example")) == []


def test_a_user_writes_as_the_addresses_of_the_account() -> None:
    assert codes(by("alice@in.example"), ALICE) == []
    assert codes(by("a.doe@in.example", "", "alice@in.example"), ALICE) == []


@pytest.mark.parametrize(
    "author",
    [
        by("bob@in.example"),
        by("admin@legit.example"),
        by("alice@in.example", "", "bob@in.example"),
        by("alice@in.example", "", ""),
        Author(doubts=("there are 2 From fields",), senders=("bob@in.example",)),
        Author(senders=("bob@in.example",)),
        by("alice@in.example", "", *(f"{n}@in.example" for n in range(MAX_ASKED))),
    ],
)
def test_a_user_may_not_write_as_others(author: Author) -> None:
    assert "not_yours" in codes(author, ALICE)


def test_our_own_hosts_write_as_they_like_and_nobody_of_ours_is_asked_about_names() -> None:
    assert codes(by("any@where.example", "bob@in.example", "c@else.example"), HOST) == []
    assert codes(by("alice@in.example", "boss@bank.example"), ALICE) == []


def test_what_nobody_can_tell_is_never_clean() -> None:
    with pytest.raises(Temporary):
        check(by("alice@in.example"), ALICE, account=nobody_can_tell)
    with pytest.raises(Temporary):
        check(by("x@evil.example", "boss@bank.example"), account=nobody_can_tell)


def test_few_addresses_are_looked_up() -> None:
    asked: list[str] = []

    async def counting(address: str) -> str:
        asked.append(address)
        return ""

    check(by("x@evil.example", " ".join(f"u{n}@in.test" for n in range(50))), account=counting)
    assert len(asked) == MAX_ASKED


def test_hostile_names_cost_little() -> None:
    begun = time.process_time()
    for piece in ("a", "a.", "a@", "@a.", "a@a.", "\ufdfa"):
        codes(by("x@evil.example", (piece * 998)[:998]))
    assert time.process_time() - begun < 0.5


def test_a_name_that_would_fit_everybody_is_no_setting() -> None:
    with pytest.raises(ValueError, match="three letters"):
        check(by("a@x.example"), OUTSIDE, " a ")


def unproven(*results: Result, author: str = "boss@in.example", code: str = "pass") -> bool:
    """Whether a stranger's mail in the name of *author* is told, after *results*."""
    found: dict[str, list[Finding]] = {}
    for result in results:
        found.setdefault(result.method, []).append(Finding(code, result=result))
    tools = Tools(None, None, "gw.example", None, None, account_of, None)  # type: ignore[arg-type]
    mail = Mail("id", OUTSIDE, TO_BOB, Content((("To", "b@b"),), author=by(author)))
    told = asyncio.run(Filter(Settings(), tools).check(mail, found))
    return [one.code for one in told] == ["unproven_ours"]


def result(method: str, said: str, **properties: str) -> Result:
    return Result(method, said, tuple((name.replace("_", "."), value) for name, value in properties.items()))


STRANGE = result("spf", "pass", smtp_mailfrom="evil.example")


def test_a_stranger_in_the_name_of_the_recipients_domain_is_told_where_nothing_proves_it() -> None:
    assert unproven(
        STRANGE, result("dkim", "pass", header_d="evil.example"), result("dmarc", "none", header_from="in.example")
    )
    assert unproven(result("spf", "none", smtp_mailfrom="in.example"))
    assert unproven(STRANGE, author="boss@it.in.example")
    assert not unproven(STRANGE, author="ann@out.example")
    assert not unproven(STRANGE, author="ann@begin.example")


@pytest.mark.parametrize(
    "proof",
    [
        result("spf", "pass", smtp_mailfrom="in.example"),
        result("dkim", "pass", header_d="mail.in.example"),
        result("dmarc", "pass", header_from="in.example"),
    ],
)
def test_what_proves_the_domain_is_enough(proof: Result) -> None:
    assert not unproven(STRANGE, proof)
    assert not unproven(STRANGE, proof, author="boss@it.in.example")


@pytest.mark.parametrize(
    "strange",
    [{"header_s": "in.example"}, {"header_i": "@in.example"}, {"smtp_helo": "in.example"}, {"header_d": "xin.example"}],
)
def test_what_a_stranger_may_write_freely_proves_nothing(strange: dict[str, str]) -> None:
    assert unproven(STRANGE, result("dkim", "pass", **{"header_d": "evil.example", **strange}))


def test_a_forwarder_whom_we_trust_proves_it_and_a_host_that_nobody_asked_about_is_left_alone() -> None:
    assert not unproven(result("dmarc", "fail", header_from="in.example"), code="forwarded")
    assert not unproven()
    assert not unproven(result("dkim", "fail", header_d="in.example"))

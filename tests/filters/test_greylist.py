"""Greylisting: who has to wait, for how long, and who has proved that they come again."""

import asyncio
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from filters.greylist import Filter, Settings
from gateway.model import Envelope, Finding, Found, ListenerKind, Mail, Recipient, Session, Temporary, Tools
from gateway.state import LocalState

EVERYBODY = Settings(everybody=True, delay=300.0, retry_within=7200.0, allow_for=86400.0 * 30, successes=2)
SUSPECT = {"helo": [Finding("no_ptr")]}


class Desk:
    """A filter on a real state, with a clock of the test; a mail waits or it does not."""

    def __init__(self, folder: Path) -> None:
        self.now = 1_000_000.0
        self.state = LocalState(folder / "state.db", clock=lambda: self.now)

    def waits(self, mail_: Mail, settings: Settings = EVERYBODY, found: Found | None = None) -> bool:
        return bool(self.findings(mail_, settings, found))

    def findings(self, mail_: Mail, settings: Settings = EVERYBODY, found: Found | None = None) -> Any:
        tools = Tools(None, self.state, "mx.demo.example", None, None, None, None)  # type: ignore[arg-type]
        return asyncio.run(Filter(settings, tools, lambda: self.now).check(mail_, found or {}))

    def comes_again(self, mail_: Mail) -> bool:
        """Whether a mail that waited gets in after its delay."""
        assert self.waits(mail_)
        self.now += 301
        return not self.waits(mail_)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.state.close()


def mail(peer: str = "192.0.2.1", sender: str = "a@s.example", to: str = "x@ours.example", **session: Any) -> Mail:
    recipients = (Recipient("first@ours.example"), Recipient(to))
    return Mail("id", Session(ip_address(peer), **session), Envelope(sender, recipients))


# ---- How long -----------------------------------------------------------------------------------------------------


def test_a_new_triple_waits_and_gets_in_after_the_delay(desk: Desk) -> None:
    (finding,) = desk.findings(mail())
    assert finding.code == "greylisted"
    assert finding.detail == (
        "the first mail of 192.0.2.0/24 from <a@s.example> to x@ours.example; it may come again in 300 s"
    )
    desk.now += 200
    assert "again in 100 s" in desk.findings(mail())[0].detail
    desk.now += 101
    assert not desk.waits(mail())


def test_nobody_waits_longer_for_having_come_late_in_a_second(desk: Desk) -> None:
    desk.now = int(desk.now) + 0.9
    assert desk.waits(mail())
    desk.now += 300
    assert not desk.waits(mail())


def test_who_comes_too_early_waits_no_longer_for_it(desk: Desk) -> None:
    assert desk.waits(mail())
    for _ in range(5):
        desk.now += 59
        assert desk.waits(mail())
    desk.now += 6
    assert not desk.waits(mail())


def test_who_comes_too_late_is_new(desk: Desk) -> None:
    assert desk.waits(mail())
    desk.now += 7200
    assert desk.waits(mail())
    desk.now += 301
    assert not desk.waits(mail())


def test_a_triple_that_got_in_stays_in_while_it_sends(desk: Desk) -> None:
    assert desk.comes_again(mail())
    for _ in range(5):
        desk.now += 86400 * 29
        assert not desk.waits(mail(), Settings(everybody=True, successes=0, allow_for=86400.0 * 30))
    desk.now += 86400 * 31
    assert desk.waits(mail())


def test_each_recipient_and_each_sender_waits_for_itself(desk: Desk) -> None:
    assert desk.comes_again(mail())
    assert desk.waits(mail(to="y@ours.example"))
    assert desk.waits(mail(sender="b@s.example"))
    assert not desk.waits(mail(to="X@ours.example", sender="A@S.example"))


def test_a_clock_that_was_put_back_lets_nobody_wait_for_a_day(desk: Desk) -> None:
    desk.now += 86400
    assert desk.waits(mail())
    desk.now -= 86400
    assert desk.waits(mail())
    desk.now += 301
    assert not desk.waits(mail())


def test_what_is_no_time_in_the_state_counts_as_new(desk: Desk) -> None:
    key = "greylist:triple:192.0.2.0/24:a@s.example:x@ours.example"
    asyncio.run(desk.state.put(key, "nan", 60.0))
    assert desk.comes_again(mail())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("list-1234-bob=ours.example@s.example", "list-1235-bob=ours.example@s.example"),
        ("SRS0=a3f9=xy=o.example=ann@s.example", "SRS0=b77c=xy=o.example=ann@s.example"),
        ("prvs=1234abcdef=ann@s.example", "prvs=9876fedcba=ann@s.example"),
        ("ann+one@s.example", "ann+two@s.example"),
    ],
)
def test_a_sender_that_is_numbered_anew_for_each_mail_is_the_same(desk: Desk, one: str, other: str) -> None:
    assert desk.waits(mail(sender=one))
    desk.now += 301
    assert not desk.waits(mail(sender=other))


def test_another_address_of_the_network_may_come_again(desk: Desk) -> None:
    assert desk.waits(mail("192.0.2.1"))
    assert desk.waits(mail("2001:db8::1"))
    desk.now += 301
    assert not desk.waits(mail("192.0.2.77"))
    assert not desk.waits(mail("2001:db8::2"))
    assert desk.waits(mail("192.0.3.1"))
    assert desk.waits(mail("2001:db8:0:1::1"))


# ---- Who is known -------------------------------------------------------------------------------------------------


def test_a_network_that_has_come_again_often_enough_waits_no_more(desk: Desk) -> None:
    assert desk.comes_again(mail(sender="one@s.example"))
    desk.now += 3600
    assert desk.comes_again(mail(sender="two@s.example"))
    assert not desk.waits(mail(sender="three@s.example"))
    assert not desk.waits(mail(peer="192.0.2.9", sender="four@t.example"))
    assert desk.waits(mail(peer="198.51.100.9", sender="four@t.example"))


def test_many_mails_of_one_hour_prove_no_more_than_one(desk: Desk) -> None:
    several = [mail(sender=f"{name}@s.example") for name in ("ann", "bob", "cid", "dan")]
    assert all(desk.waits(one) for one in several)
    desk.now += 301
    for one in several:
        assert not desk.waits(one)
        desk.now += 600
    assert desk.waits(mail(sender="eve@s.example"))


def test_a_known_network_is_forgotten_unless_it_sends(desk: Desk) -> None:
    test_a_network_that_has_come_again_often_enough_waits_no_more(desk)
    for _ in range(3):
        desk.now += 86400 * 29
        assert not desk.waits(mail(sender="new@s.example"))
    desk.now += 86400 * 31
    assert desk.waits(mail(sender="new@s.example"))


def test_without_successes_no_network_is_ever_known(desk: Desk) -> None:
    never = Settings(everybody=True, successes=0)
    for number, name in enumerate(("ann", "bob", "cid", "dan")):
        assert desk.waits(mail(sender=f"{name}@s.example"), never), number
        desk.now += 3601
        assert not desk.waits(mail(sender=f"{name}@s.example"), never), number
    assert desk.waits(mail(sender="eve@s.example"), never)


# ---- Who has to wait ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "waits"),
    [
        ({}, False),
        ({"spf": [Finding("pass")], "helo": [Finding("other_host")]}, False),
        ({"helo": [Finding("error")], "dnsbl": [Finding("error")], "spf": [Finding("helo_temperror")]}, False),
        ({"spf": [Finding("temperror")]}, True),
        ({"dnsbl": [Finding("weakly_listed")]}, True),
        ({"dnsbl": [Finding("strongly_listed")]}, True),
        ({"spf": [Finding("softfail")]}, True),
        ({"spf": [Finding("pass")], "helo": [Finding("other_host"), Finding("no_ptr")]}, True),
        ({"dnsbl": [Finding("allowed")], "spf": [Finding("softfail")]}, False),
    ],
)
def test_as_shipped_only_mail_waits_that_something_speaks_against(desk: Desk, found: Found, waits: bool) -> None:
    assert desk.waits(mail(), Settings(), found) is waits


def test_what_made_it_wait_is_told(desk: Desk) -> None:
    found = {"helo": [Finding("no_ptr")], "spf": [Finding("softfail"), Finding("none")]}
    (finding,) = desk.findings(mail(), Settings(), found)
    assert finding.facts == ("helo/no_ptr", "spf/softfail")


def test_who_is_trusted_can_be_set(desk: Desk) -> None:
    settings = Settings(everybody=True, trusted=("spf/pass",))
    assert not desk.waits(mail(), settings, {"spf": [Finding("pass")]})
    assert desk.waits(mail(), settings, {"spf": [Finding("none")]})


@pytest.mark.parametrize(
    "ours",
    [
        mail(kind=ListenerKind.SUBMISSION, user="ann"),
        mail(user="ann"),
        mail(kind=ListenerKind.RELAY),
        mail("127.0.0.1"),
        mail("::1"),
        mail("10.0.0.5"),
    ],
)
def test_our_own_never_wait(desk: Desk, ours: Mail) -> None:
    assert not desk.waits(ours, EVERYBODY, SUSPECT)


def test_bounces_wait_only_where_that_is_set(desk: Desk) -> None:
    assert not desk.waits(mail(sender=""), Settings(), SUSPECT)
    assert desk.waits(mail(sender=""), Settings(null_sender=True), SUSPECT)


def test_a_state_out_of_reach_is_told() -> None:
    class Gone:
        async def get(self, key: str) -> str | None:
            raise Temporary("the shared state is out of reach")

    filter_ = Filter(EVERYBODY, Tools(None, Gone(), "", None, None, None, None))  # type: ignore[arg-type]
    with pytest.raises(Temporary):
        asyncio.run(filter_.check(mail(), {}))


@pytest.mark.parametrize(
    "wrong",
    [
        {"delay": 0.0},
        {"delay": 300.0, "retry_within": 300.0},
        {"allow_for": 0.0},
        {"successes": -1},
        {"ipv4_network": 0},
        {"ipv6_network": 129},
        {"suspects": ("dnsbl",)},
        {"trusted": ("spf/pass/x",)},
        {"own_relays": ("127.0.0.1/8",)},
    ],
)
def test_settings_that_make_no_sense_are_faults(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Filter(Settings(**wrong), Tools(None, None, "", None, None, None, None))  # type: ignore[arg-type]

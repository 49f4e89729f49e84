"""Rates: who is counted for what, a window that slides, and what is refused does not count."""

import asyncio
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from filters.rate import Filter, Settings
from gateway.model import Envelope, ListenerKind, Mail, Recipient, Session, Temporary, Tools
from gateway.state import LocalState

USER = {"kind": ListenerKind.SUBMISSION, "user": "ann"}


class Clock:
    now = 3600.0 * 1000

    def __call__(self) -> float:
        return self.now


class Desk:
    """A filter on a real state, with a clock of the test."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.state: Any = LocalState(folder / "state.db", clock=self.clock)
        self.trips = 0

    def ask(self, settings: Settings, *mails: Mail) -> list[list[str]]:
        """The codes found for each of *mails*."""
        return [[finding.code for finding in one] for one in self.findings(settings, *mails)]

    def findings(self, settings: Settings, *mails: Mail) -> list[Any]:
        filter_ = Filter(settings, Tools(None, self, "mx.demo.example", None, None, None, None), self.clock)  # type: ignore[arg-type]

        async def work() -> list[Any]:
            return [await filter_.check(mail, {}) for mail in mails]

        return asyncio.run(work())

    async def add_all(self, *words: Any) -> Any:
        self.trips += 1
        return await self.state.add_all(*words)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.state.close()


def mail(peer: str = "192.0.2.1", sender: str = "a@s.example", to: int = 1, **session: Any) -> Mail:
    """A mail at its RCPT number *to*."""
    recipients = tuple(Recipient(f"{number}@ours.example") for number in range(1, to + 1))
    return Mail("id", Session(ip_address(peer), **session), Envelope(sender, recipients))


def nothing(**limits: Any) -> Settings:
    """No limit but these."""
    off = dict.fromkeys([name for name in Settings.__slots__ if name.endswith(("messages", "recipients"))], 0)
    return Settings(**{**off, **limits})


@pytest.mark.parametrize(
    ("limit", "code", "asked"),
    [
        ("user_messages", "user", mail(**USER)),
        ("user_recipients", "user", mail(**USER)),
        ("host_messages", "host", mail(kind=ListenerKind.RELAY)),
        ("host_recipients", "host", mail(kind=ListenerKind.RELAY)),
        ("address_messages", "address", mail()),
        ("address_recipients", "address", mail()),
        ("network_messages", "network", mail()),
        ("network_recipients", "network", mail()),
        ("sender_messages", "sender", mail()),
        ("sender_recipients", "sender", mail()),
        ("recipient_messages", "recipient", mail()),
    ],
)
def test_each_limit_lets_so_many_through_and_no_more(desk: Desk, limit: str, code: str, asked: Mail) -> None:
    assert desk.ask(nothing(**{limit: 2}), asked, asked, asked) == [[], [], [code]]


def test_without_limits_nobody_is_asked(desk: Desk) -> None:
    assert desk.ask(nothing(), mail(), mail(**USER), mail(kind=ListenerKind.RELAY)) == [[], [], []]
    assert desk.trips == 0


def test_all_limits_together_are_one_question(desk: Desk) -> None:
    every = nothing(
        address_messages=9, address_recipients=9, network_messages=9, sender_messages=9, recipient_messages=9
    )
    desk.ask(every, mail())
    assert desk.trips == 1


def test_a_message_counts_with_its_first_recipient_and_every_recipient_counts(desk: Desk) -> None:
    settings = nothing(user_messages=2, user_recipients=5)
    asked = [mail(to=number, **USER) for number in (1, 2, 3, 1, 2, 3)]
    assert desk.ask(settings, *asked) == [[], [], [], [], [], ["user"]]
    (finding,) = desk.findings(settings, mail(to=3, **USER))[0]
    assert finding.detail == "ann has sent to 5 recipients in the last hour; 5 are allowed"
    assert desk.ask(settings, mail(to=1, **USER)) == [["user", "user"]]


def test_the_sentence_has_the_numbers(desk: Desk) -> None:
    asked = [mail()] * 4
    (finding,) = desk.findings(nothing(address_messages=3), *asked)[-1]
    assert finding.detail == "192.0.2.1 has sent 3 messages in the last hour; 3 are allowed"
    (finding,) = desk.findings(nothing(recipient_messages=3, period=90.0), *asked)[-1]
    assert finding.detail == "1@ours.example was sent 3 messages in the last 90 seconds; 3 are allowed"


def test_what_is_refused_does_not_count(desk: Desk) -> None:
    settings = nothing(address_messages=2, network_messages=5)
    assert desk.ask(settings, *[mail()] * 50) == [[]] * 2 + [["address"]] * 48
    others = [mail(f"192.0.2.{number}") for number in range(2, 6)]
    assert desk.ask(settings, *others) == [[]] * 3 + [["network"]]


def test_the_window_slides(desk: Desk) -> None:
    settings = nothing(address_messages=10)
    assert desk.ask(settings, *[mail()] * 11)[-1] == ["address"]
    desk.clock.now += 3600 + 1800  # half of the ten still lies within the last hour
    assert desk.ask(settings, *[mail()] * 6) == [[]] * 5 + [["address"]]
    desk.clock.now += 3600
    assert desk.ask(settings, *[mail()] * 10)[6:8] == [[], ["address"]]  # 2.5 of those five
    desk.clock.now += 7200
    assert desk.ask(settings, *[mail()] * 10) == [[]] * 10


def test_in_no_hour_much_more_than_allowed_gets_in(desk: Desk) -> None:
    """Whoever sends without pause gets what is allowed, wherever the hour is taken to begin."""
    settings = nothing(address_messages=60)
    let_in = []
    for _ in range(4 * 120):
        desk.clock.now += 30
        if desk.ask(settings, mail()) == [[]]:
            let_in.append(desk.clock.now)
    for begin in let_in:
        assert sum(begin <= moment < begin + 3600 for moment in let_in) <= 66
    assert sum(moment >= let_in[0] + 3600 for moment in let_in) >= 3 * 54


def test_counters_last_no_longer_than_they_count(desk: Desk) -> None:
    desk.ask(nothing(address_messages=5), mail())
    window = int(desk.clock.now // 3600)
    key = f"rate:address:messages:192.0.2.1:{window}"
    assert asyncio.run(desk.state.get(key)) == "1"
    desk.clock.now += 7200
    assert asyncio.run(desk.state.get(key)) is None


@pytest.mark.parametrize(
    ("one", "other", "code", "same"),
    [
        ("192.0.2.1", "192.0.2.2", "address", False),
        ("192.0.2.1", "192.0.2.200", "network", True),
        ("192.0.2.1", "192.0.3.1", "network", False),
        ("2001:db8::1", "2001:db8::ffff:1", "address", True),
        ("2001:db8::1", "2001:db8:0:1::1", "address", False),
        ("2001:db8::1", "2001:db8:0:ffff::1", "network", True),
        ("2001:db8::1", "2001:db8:1::1", "network", False),
    ],
)
def test_neighbours_count_together(desk: Desk, one: str, other: str, code: str, same: bool) -> None:
    found = desk.ask(nothing(**{f"{code}_messages": 1}), mail(one), mail(other))
    assert found == [[], [code] if same else []]


def test_users_count_wherever_they_are_and_for_none_of_the_limits_of_the_world(desk: Desk) -> None:
    settings = nothing(user_messages=1, address_messages=1, host_messages=1)
    asked = [mail("127.0.0.1", **USER), mail("192.0.2.1", **USER), mail("192.0.2.1")]
    assert desk.ask(settings, *asked) == [[], ["user"], []]


def test_own_relays_and_private_networks_are_no_strangers(desk: Desk) -> None:
    settings = nothing(address_messages=1)
    for peer in ("127.0.0.1", "::1", "10.1.2.3", "192.168.0.1"):
        assert desk.ask(settings, mail(peer), mail(peer)) == [[], []]
    settings = nothing(address_messages=1, own_relays=("192.0.2.0/24",))
    assert desk.ask(settings, mail(), mail(), mail("10.1.2.3"), mail("10.1.2.3")) == [[], [], [], ["address"]]


def test_senders_count_whatever_their_case_and_bounces_for_no_sender(desk: Desk) -> None:
    settings = nothing(sender_messages=1)
    asked = [mail(sender="A@s.example"), mail(sender="a@S.example"), mail(sender=""), mail(sender="")]
    assert desk.ask(settings, *asked) == [[], ["sender"], [], []]


class Gone:
    """A state that is out of reach from question number *since* on."""

    def __init__(self, state: Any, since: int) -> None:
        self.state, self.left = state, since

    async def add_all(self, *words: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise Temporary("the shared state is out of reach")
        return await self.state.add_all(*words)


def test_a_state_out_of_reach_is_told_and_a_refusal_stands_without_it(desk: Desk) -> None:
    def ask(state: Any) -> Any:
        tools = Tools(None, state, "mx.demo.example", None, None, None, None)  # type: ignore[arg-type]
        return asyncio.run(Filter(nothing(address_messages=1), tools, desk.clock).check(mail(), {}))

    with pytest.raises(Temporary):
        ask(Gone(desk.state, 0))
    assert ask(desk.state) == []
    (finding,) = ask(Gone(desk.state, 1))  # counted too much, and could not take it back
    assert finding.code == "address"


@pytest.mark.parametrize(
    "wrong",
    [{"user_messages": -1}, {"period": 0.0}, {"ipv4_network": 33}, {"ipv6_network": 0}, {"own_relays": ("x",)}],
)
def test_settings_that_make_no_sense_are_faults(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Filter(Settings(**wrong), Tools(None, None, "", None, None, None, None))  # type: ignore[arg-type]

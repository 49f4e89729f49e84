"""Who has to wait for our greeting: strangers, once; and everybody is one while nothing can be remembered."""

import asyncio
from dataclasses import replace
from ipaddress import ip_address

import pytest

from gateway.model import ListenerKind, Session
from gateway.smtp import greeting
from gateway.stages import Edge
from gateway.state import LocalState
from tests.gateway.smtp.conversation import Intake, State, listener, serving
from tests.gateway.smtp.talk import EHLO, ask, client, run


def test_who_has_waited_for_the_greeting_once_need_not_wait_again(tmp_path):
    async def play():
        intake = Intake(Edge(greeting_delay=0.1, greeting_exempt=()))
        loop = asyncio.get_running_loop()
        async with serving(intake, listener(), tmp_path) as port:
            waited = []
            for _ in range(2):
                began = loop.time()
                async with client(port) as (reader, writer):
                    await ask(reader, writer, b"", "220")
                waited.append(loop.time() - began)
        assert waited[0] >= 0.1 > waited[1]

    run(play())


def test_who_has_waited_once_still_must_not_speak_before_the_greeting(tmp_path):
    async def play():
        intake = Intake(Edge(greeting_delay=0.05, greeting_exempt=()))
        async with serving(intake, listener(), tmp_path) as port:
            async with client(port) as (reader, writer):
                await ask(reader, writer, b"", "220")
            intake.pause = 0.1
            async with client(port) as (reader, writer):
                await ask(reader, writer, EHLO, "554 5.5.0")

    run(play())


def test_a_talker_is_no_better_known_afterwards(tmp_path):
    async def play():
        intake = Intake(Edge(greeting_delay=5.0, greeting_exempt=()))
        async with serving(intake, listener(), tmp_path) as port:
            for _ in range(2):
                async with client(port) as (reader, writer):
                    await ask(reader, writer, EHLO, "554 5.5.0")
        assert not intake.state.kept

    run(play())


def test_where_nobody_can_be_remembered_everybody_waits(tmp_path):
    async def play():
        intake = Intake(Edge(greeting_delay=0.05, greeting_exempt=()))
        intake.state.gone = True
        loop = asyncio.get_running_loop()
        async with serving(intake, listener(), tmp_path) as port:
            for _ in range(2):
                began = loop.time()
                async with client(port) as (reader, writer):
                    await ask(reader, writer, b"", "220")
                assert loop.time() - began >= 0.05

    run(play())


EDGE = Edge(greeting_delay=1.0, greeting_exempt=("192.0.2.128/25", "2001:db8:aa::/48"))
STRANGER = Session(ip_address("192.0.2.1"))


def waits(peer, edge=EDGE, state=None):
    return asyncio.run(greeting.has_to_wait(peer, edge, state or State()))


def of(address, kind=ListenerKind.MX):
    return replace(STRANGER, peer=ip_address(address), kind=kind)


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        (STRANGER, True),
        (of("192.0.2.127"), True),
        (of("192.0.2.128"), False),
        (of("2001:db8:ab::1"), True),
        (of("2001:db8:aa::1"), False),
        (of("192.0.2.1", ListenerKind.SUBMISSION), False),
        (of("192.0.2.1", ListenerKind.RELAY), False),
    ],
)
def test_strangers_wait_and_our_own_people_and_hosts_do_not(peer, expected):
    assert waits(peer) is expected


def test_without_a_delay_nobody_waits_and_nothing_is_looked_up():
    state = State()
    state.gone = True
    assert not waits(STRANGER, EDGE.model_copy(update={"greeting_delay": 0.0}), state)
    assert waits(STRANGER, EDGE, state)


@pytest.mark.parametrize(
    ("first", "second", "is_known"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),  # a host may have a new address every day
        ("2001:db8::1", "2001:db8:1::1", False),
    ],
)
def test_who_has_waited_is_known_by_address_or_by_network_of_ipv6(first, second, is_known):
    state = State()
    asyncio.run(greeting.has_waited(of(first), EDGE, state))
    assert waits(of(second), state=state) is not is_known


def test_it_is_remembered_for_as_long_as_the_policy_says(tmp_path):
    async def play():
        state = LocalState(tmp_path / "run" / "state.db")
        try:
            await greeting.has_waited(STRANGER, EDGE.model_copy(update={"greeting_pass": 0.1}), state)
            before = await greeting.has_to_wait(STRANGER, EDGE, state)
            await asyncio.sleep(0.11)
            return before, await greeting.has_to_wait(STRANGER, EDGE, state)
        finally:
            await state.aclose()

    assert asyncio.run(play()) == (False, True)


def test_that_it_cannot_be_remembered_ends_nothing():
    state = State()
    state.gone = True
    asyncio.run(greeting.has_waited(STRANGER, EDGE, state))
    state.gone = False
    assert waits(STRANGER, state=state)

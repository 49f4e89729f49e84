"""When questions are asked: in the background from connect on, awaited at RCPT, and given up when the session ends."""

import asyncio
from ipaddress import ip_address
from types import SimpleNamespace

import pytest

from gateway.model import Action, Envelope, Finding, Recipient, Session, Stage
from gateway.pipeline.outcome import Kind
from gateway.pipeline.policy import Policies, Policy, Rule
from gateway.pipeline.visit import Visit
from gateway.stages import Routes, Stages
from tests.gateway.smtp.conversation import Intake, listener, serving

WORLD = Session(ip_address("192.0.2.1"), helo="peer.example")
ROUTES = Routes.model_validate(
    {"routes": [{"domains": ["in.example"], "via": {"host": "10.0.0.1"}, "accept_from_world": True}]}
)
ENVELOPE, ONE = Envelope("a@s.example"), Recipient("x@in.example")


class Slow:
    """A filter that answers when it is told to, and remembers what became of its questions."""

    codes, after = frozenset({"seen"}), frozenset()

    def __init__(self, stage):
        self.stage, self.may_answer, self.asked, self.given_up = stage, asyncio.Event(), 0, 0

    async def check(self, mail, found):
        self.asked += 1
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        return [Finding("seen", ", ".join(found))]


class Store:
    def __init__(self):
        self.refused = 0

    async def write(self, work):
        self.refused += 1


def visit_of(*filters, effect=Action.REJECT):
    rules = (Rule(actions={"seen": effect, "error": Action.DEFER}),)
    by_name = {one.stage.value: Policy(one.stage.value, "x.toml", one, 5.0, rules) for one in filters}
    policies = Policies(Stages(routes=ROUTES), by_name, "v")
    intake = SimpleNamespace(policies=policies, stages=policies.stages, hostname="gw.example", store=Store())
    return Visit(intake)


async def ticks():
    for _ in range(10):
        await asyncio.sleep(0)


def tasks():
    return len(asyncio.all_tasks()) - 1


def run(work):
    async def bounded():
        async with asyncio.timeout(5):
            return await work

    return asyncio.run(bounded())


@pytest.mark.parametrize("effect", [Action.REJECT, Action.ACCEPT])
def test_connect_and_mail_do_not_wait_for_answers_and_rcpt_does(effect):
    async def dialog():
        door, sender = Slow(Stage.CONNECT), Slow(Stage.SENDER)
        visit = visit_of(door, sender, effect=effect)
        assert (await visit.connect(WORLD)).kind is Kind.OK
        await ticks()
        assert door.asked == 1
        assert (await visit.sender(WORLD, ENVELOPE)).kind is Kind.OK
        answer = asyncio.ensure_future(visit.recipient(WORLD, ENVELOPE, ONE))
        await ticks()
        assert not answer.done()
        assert sender.asked == 0, "it may read what was found at connect"
        door.may_answer.set()
        sender.may_answer.set()
        outcome = await answer
        assert tasks() == 0
        return outcome

    outcome = run(dialog())
    assert outcome.kind is (Kind.REJECTED if effect is Action.REJECT else Kind.OK)
    assert outcome.reference == ("connect/seen" if effect is Action.REJECT else "")


def test_what_is_found_at_connect_holds_for_every_mail_and_is_asked_once():
    async def dialog():
        door, sender = Slow(Stage.CONNECT), Slow(Stage.SENDER)
        visit = visit_of(door, sender)
        door.may_answer.set()
        sender.may_answer.set()
        await visit.connect(WORLD)
        kinds = []
        for _ in range(2):
            await visit.sender(WORLD, ENVELOPE)
            kinds.append((await visit.recipient(WORLD, ENVELOPE, ONE)).kind)
        return kinds, door.asked, sender.asked

    assert run(dialog()) == ([Kind.REJECTED] * 2, 1, 2)


def test_a_new_transaction_gives_up_the_questions_of_the_last_and_keeps_those_of_the_session():
    async def dialog():
        door, sender = Slow(Stage.CONNECT), Slow(Stage.SENDER)
        visit = visit_of(door, sender)
        await visit.connect(WORLD)
        await visit.sender(WORLD, ENVELOPE)
        await ticks()
        await visit.sender(WORLD, ENVELOPE)  # after RSET, with the first answer still to come
        await ticks()
        door.may_answer.set()
        await ticks()
        await visit.sender(WORLD, ENVELOPE)
        await ticks()
        sender.may_answer.set()
        await visit.recipient(WORLD, ENVELOPE, ONE)
        return door.asked, door.given_up, sender.asked, sender.given_up

    assert run(dialog()) == (1, 0, 2, 1)


@pytest.mark.parametrize("after_mail", [False, True])
def test_nothing_is_left_running_when_the_session_ends(after_mail):
    async def dialog():
        door = Slow(Stage.CONNECT)
        visit = visit_of(door, Slow(Stage.SENDER))
        await visit.connect(WORLD)
        if after_mail:
            await visit.sender(WORLD, ENVELOPE)
        await ticks()
        visit.close()
        visit.close()
        await ticks()
        return door.given_up, tasks()

    assert run(dialog()) == (1, 0)


def test_a_session_that_ends_before_it_began_leaves_nothing():
    async def dialog():
        visit_of().close()
        return tasks()

    assert run(dialog()) == 0


class Listening:
    """A filter at RCPT that remembers whom it was asked about, and finds something against some."""

    codes, after, stage = frozenset({"seen"}), frozenset(), Stage.RECIPIENT

    def __init__(self):
        self.heard = []

    async def check(self, mail, found):
        self.heard.append([one.address for one in mail.envelope.recipients])
        return [Finding("seen")] if self.heard[-1][-1].startswith("bad") else []


def test_at_rcpt_the_filters_see_the_recipients_so_far_and_only_the_last_is_refused_and_recorded(monkeypatch):
    async def dialog():
        filter_ = Listening()
        visit = visit_of(filter_)
        await visit.connect(WORLD)
        await visit.sender(WORLD, ENVELOPE)
        taken = ()
        for name in ("a", "b", "bad", "c"):
            one = Recipient(f"{name}@in.example")
            envelope = Envelope("a@s.example", recipients=taken)
            if (await visit.recipient(WORLD, envelope, one)).kind is Kind.OK:
                taken = (*taken, one)
        return [[address[0:3] for address in heard] for heard in filter_.heard], [one.address for one in taken]

    recorded = []
    monkeypatch.setattr("gateway.pipeline.visit.messages.refuse", lambda conn, draft, rows: recorded.extend(rows))
    monkeypatch.setattr(Store, "write", lambda self, work: asyncio.to_thread(work, None))
    heard, taken = run(dialog())
    assert heard == [["a@i"], ["a@i", "b@i"], ["a@i", "b@i", "bad"], ["a@i", "b@i", "c@i"]]
    assert taken == ["a@in.example", "b@in.example", "c@in.example"]
    assert [row.recipient.address for row in recorded] == ["bad@in.example"]


class Counting(Intake):
    closed = 0

    def close(self):
        self.closed += 1


@pytest.mark.parametrize("says", [b"", b"QUIT\r\n", b"EHLO x.example\r\nMAIL FROM:<a@b.example>\r\n"])
def test_the_edge_closes_the_visit_however_the_session_ends(tmp_path, says):
    async def dialog():
        intake = Counting()
        async with serving(intake, listener(), tmp_path) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await reader.readline()
            writer.write(says)
            await writer.drain()
            writer.transport.abort()
            while not intake.closed:
                await asyncio.sleep(0.01)

    run(dialog())

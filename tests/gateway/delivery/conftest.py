"""A real store in a folder of its own, a clock that stands still, hosts that answer as told, and an intake that listens."""

from __future__ import annotations

import asyncio
import email
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from io import BytesIO
from ipaddress import ip_address
from pathlib import Path

import pytest
from sqlalchemy import Connection

from gateway.delivery.attempt import Sign
from gateway.delivery.paths import Hop, Paths
from gateway.delivery.reply import Reply
from gateway.delivery.runner import Runner
from gateway.delivery.transaction import Outgoing, Result
from gateway.model import Delivery, Envelope, Recipient, Session, State, new_id
from gateway.stages import Queue, Relay, Routes, Stages
from gateway.store import messages, queue
from gateway.store.engine import Store
from tests.gateway.delivery.fakes import BODY, NOW, TAKEN, FakeDns

WORLD = Session(ip_address("192.0.2.1"))


@dataclass
class Hosts:
    """Stands in for the pool: each address gives the next of its answers, and takes all mail when it has none left.

    The *hanging* ones never answer. An answer is a `Reply` for all recipients, a mapping of addresses to replies, or an exception.
    """

    answers: dict[str, list[Reply | Exception | Mapping[str, Reply]]] = field(default_factory=dict)
    got: list[tuple[str, Outgoing, bytes]] = field(default_factory=list)
    gate: asyncio.Event | None = None
    hanging: set[str] = field(default_factory=set)
    elsewhere: bool = False
    dsn: bool = False
    now: int = 0
    most: int = 0

    async def send(self, hop: Hop, mail: Outgoing, _relay: Relay) -> list[Result]:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await self._send(hop, mail)
        finally:
            self.now -= 1

    async def _send(self, hop: Hop, mail: Outgoing) -> list[Result]:
        octets = b"".join([chunk async for chunk in mail.chunks()])
        self.got.append((str(hop.address), mail, octets))
        if self.gate is not None:
            await self.gate.wait()
        if str(hop.address) in self.hanging:
            await asyncio.sleep(3600)
        await asyncio.sleep(0.002)  # a moment, or no two would ever be under way at once
        waiting = self.answers.get(str(hop.address))
        answer = waiting.pop(0) if waiting else TAKEN
        if isinstance(answer, Exception):
            raise answer
        replies = [answer if isinstance(answer, Reply) else answer.get(one.address, TAKEN) for one in mail.recipients]
        return [Result(reply, self.elsewhere and not reply.ok, self.dsn) for reply in replies]

    async def close(self) -> None:
        return None


@dataclass
class Listener:
    """Stands in for the intake: keeps the notices, and settles them in the store as the real one does."""

    store: Store
    notices: list[tuple[Recipient, Message]] = field(default_factory=list)
    trouble: Exception | None = None
    tries: int = 0

    async def notify(self, dsn: bytes, recipient: Recipient, settle: Callable[[Connection], None]) -> str:
        self.tries += 1
        if self.trouble is not None:
            raise self.trouble
        await self.store.write(settle)
        self.notices.append((recipient, email.message_from_bytes(dsn)))
        return "notice"

    @property
    def told(self) -> list[list[str]]:
        """What each notice says of each recipient: "failed bob@there.example"."""
        return [
            [
                f"{group['Action']} {group['Final-Recipient'].partition('; ')[2]}"
                for group in dsn.get_payload(1).get_payload()[1:]
            ]
            for _, dsn in self.notices
        ]


@dataclass
class House:
    """All that a runner needs, and short words for what tests do with it."""

    store: Store
    listener: Listener
    hosts: Hosts = field(default_factory=Hosts)
    dns: FakeDns = field(default_factory=FakeDns)
    queue: Queue = field(default_factory=Queue)
    relay: Relay = field(default_factory=Relay)
    routes: Routes = field(default_factory=Routes)
    now: float = NOW
    sign: Sign | None = None

    def runner(self) -> Runner:
        paths = Paths(self.dns, "gw.us.example", lambda _: False)
        stages = lambda: Stages(queue=self.queue, relay=self.relay, routes=self.routes)  # noqa: E731
        return Runner(
            self.store, self.listener, self.dns, stages, "gw.us.example",
            now=lambda: self.now, paths=paths, pool=self.hosts, sign=self.sign,
        )  # fmt: skip

    def work_off(self) -> None:
        asyncio.run(self.runner().work_off())

    def put(self, *to: str | Recipient, sender: str = "alice@us.example", body: bytes = BODY, **more) -> str:
        """Store one mail for all of *to*; `rows`, `session` and `draft` give further words for it."""
        recipients = tuple(Recipient(one) if isinstance(one, str) else one for one in to)
        draft = messages.Draft(
            id=new_id(), received_at=self.now, session=more.get("session", WORLD),
            envelope=Envelope(sender, recipients), header=b"Received: by us\r\n", body=BytesIO(body),
            **more.get("draft", {}),
        )  # fmt: skip
        rows = [messages.Row(one, State.QUEUED) for one in recipients] if "rows" not in more else more["rows"]
        with self.store.begin() as conn:
            messages.accept(conn, draft, rows)
        return draft.id

    def look(self, mail: str) -> list[Delivery]:
        with self.store.reading() as conn:
            return queue.of_message(conn, mail)

    def states(self, mail: str) -> list[str]:
        return [one.state.value for one in self.look(mail)]

    def reach(self, *domains: str, address: str = "8.8.8.1") -> None:
        self.dns.table |= {f"A {domain}": [address] for domain in domains}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    store = Store(f"sqlite:///{tmp_path / 'data' / 'gatepost.db'}", bell=tmp_path / "bell", patience=5.0)
    store.migrate()
    made = House(store, Listener(store))
    made.reach("there.example", "else.example")
    yield made
    store.close()

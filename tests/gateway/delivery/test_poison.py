"""A mail that kills whoever works on it, and real processes that die of it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from gateway.model import State
from gateway.store import queue, tracking

WORKER = """
import asyncio, json, os, signal, sys
from gateway.delivery.paths import Paths
from gateway.delivery.reply import Reply
from gateway.delivery.runner import Runner
from gateway.delivery.transaction import Result
from gateway.stages import Queue, Routes, Stages
from gateway.store import queue
from gateway.model import State
from gateway.store.engine import Store
from tests.gateway.delivery.fakes import FakeDns

url, arrived = sys.argv[1:]
route = {"domains": ["*"], "via": {"host": "10.0.0.1"}}
stages = Stages(queue=Queue(lease=3600.0, poll=0.5), routes=Routes(routes=[route]))

class Hosts:
    async def send(self, hop, mail, relay):
        if mail.sender.startswith("poison"):
            os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(0.001)
        with open(arrived, "a") as file:
            print(mail.sender, file=file)
        return [Result(Reply(250, "2.0.0", "taken")) for _ in mail.recipients]

    async def close(self):
        pass

class Intake:
    pass

async def main():
    store = Store(url)
    runner = Runner(store, Intake(), FakeDns(), lambda: stages, "gw.us.example", pool=Hosts())
    stop = asyncio.Event()
    running = asyncio.create_task(runner.run(stop))
    while (await store.read(queue.counts))[State.QUEUED]:
        await asyncio.sleep(0.01)
    stop.set()
    await running
    await store.aclose()

asyncio.run(main())
"""


def test_a_mail_that_kills_three_processes_is_held_and_all_others_go(house, tmp_path: Path) -> None:
    house.now = time.time() - 60
    before = [house.put("bob@there.example", sender=f"before{n}@us.example") for n in range(30)]
    poison = house.put("bob@there.example", sender="poison@us.example")
    after = [house.put("carol@else.example", sender=f"after{n}@us.example") for n in range(300)]
    arrived = tmp_path / "arrived"
    argv = [sys.executable, "-W", "error", "-c", WORKER, str(house.store.engine.url), str(arrived)]
    codes = []
    while 0 not in codes and len(codes) < 9:
        codes.append(subprocess.run(argv, stdout=subprocess.DEVNULL, timeout=60, check=False).returncode)
    assert codes == [-signal.SIGKILL] * queue.POISON + [0]
    assert {house.states(mail)[0] for mail in [*before, *after]} == {"sent"}
    assert len(set(arrived.read_text().split())) == len(before) + len(after)
    (held,) = house.look(poison)
    assert held.state is State.HELD
    assert "three processes that worked on this mail died of it" in held.last_reply
    with house.store.reading() as conn:
        life = tracking.life(conn, poison)
    assert life is not None
    assert [each.kind for each in life.events] == ["queue", "hold"]
    assert "died of it" in life.events[-1].text


def test_deaths_that_have_nothing_to_do_with_the_mail_hold_nothing_up(house, tmp_path: Path) -> None:
    """Three poisonous mails, one after the other, and what was in hand beside each of them."""
    house.now = time.time() - 60
    poison = [house.put("bob@there.example", sender=f"poison{n}@us.example") for n in range(3)]
    others = [house.put("bob@there.example", sender=f"other{n}@us.example") for n in range(40)]
    argv = [sys.executable, "-W", "error", "-c", WORKER, str(house.store.engine.url), str(tmp_path / "arrived")]
    deaths = 0
    while subprocess.run(argv, stdout=subprocess.DEVNULL, timeout=60, check=False).returncode:
        deaths += 1
        assert deaths < 20
    assert {house.states(mail)[0] for mail in poison} == {"held"}
    assert {house.states(mail)[0] for mail in others} == {"sent"}

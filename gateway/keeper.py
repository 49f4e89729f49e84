"""The process that stays while a gateway runs: begun anew, it has loaded nothing but what keeps the others running.

Who has read configuration, policies and store at the start holds 50 MB for it. So when all is prepared, that process
becomes this program: its id, its listening sockets and its lock stay, and signals wait until they can be heard.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NoReturn

from gateway import events, roles
from gateway.outlet import Outlet
from gateway.supervisor import HEARD, Child, Supervisor

PROGRAM = "gateway.keeper"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be kept running, where it announces itself, and what to say when all of it does, and at the end."""

    children: Sequence[Child]
    run_dir: str
    log: Literal["text", "json"]
    greeting: str
    farewell: str


def become(plan: Plan, kept: Iterable[int]) -> NoReturn:
    """Be the keeper of *plan* from here on; of our descriptors only those in *kept* stay open."""
    file = os.memfd_create("plan", 0)
    os.write(file, json.dumps(asdict(plan)).encode())
    for one in kept:
        os.set_inheritable(one, True)
    sys.stdout.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
    argv = [sys.executable, "-P", "-m", PROGRAM, str(file)]  # -P: see `supervisor.children`
    os.execv(sys.executable, argv)  # noqa: S606 - nothing of it is a stranger's


def main() -> None:
    """Keep the plan in the file descriptor argv[1]."""
    plan = _read(int(sys.argv[1]))
    events.configure(plan.log, "gatepost")
    run_dir = Path(plan.run_dir)
    wanted = {_announced(child.name) for child in plan.children if not child.helper}
    outlet = Outlet(sys.stdout.fileno())
    gateway = Supervisor(plan.children, ended=partial(roles.note_end, run_dir))
    asyncio.run(gateway.run(lambda: wanted <= roles.running(run_dir), lambda: _say(outlet, plan.greeting)))
    _say(outlet, plan.farewell)


def _read(file: int) -> Plan:
    with open(file, "rb") as plan:
        plan.seek(0)
        told = json.load(plan)
    return Plan(**{**told, "children": [Child(**one) for one in told["children"]]})


def _announced(name: str) -> tuple[str, int]:
    """Role and number of the child *name* ("smtp-1"), as it announces itself."""
    role, _, number = name.rpartition("-")
    return role, int(number)


def _say(outlet: Outlet, words: str) -> None:
    """Print *words*, if standard output takes them at once: a service neither hangs nor ends for its words."""
    outlet.put(words.encode(sys.stdout.encoding, "replace"))


if __name__ == "__main__":
    main()

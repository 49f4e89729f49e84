"""Try to break out of the sandbox: every attempt of `escapes`, each from a worker of its own, as workers are for mail.

The rule: denied is what the kernel refused, or ended the worker for; silence and all other answers count as success.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from gateway.model import Temporary
from gateway.pipeline import confinement
from gateway.pipeline.crossing import FRAME
from gateway.pipeline.escapes import ATTEMPTS, POSSIBLE, Targets
from gateway.pipeline.policy import Policies
from gateway.pipeline.sandbox import Nursery, Worker, exactly, hand_over, specification

PROGRAM = "gateway.pipeline.escapes"
CPU, TIMEOUT = 0.5, 2.0
"""Seconds of the limits that the trial runs with: those of mail would only take longer."""
PATIENCE = 10.0
_WORDS = {
    "SIGSYS": "ended at once: SIGSYS",
    "SIGPROF": "ended: limit of processor time",
    "SIGALRM": "ended: limit of time",
    "MemoryError": "refused: limit of memory",
    "RuntimeError": "refused: no thread",
}


@dataclass(frozen=True, slots=True)
class Trial:
    """What was tried, whether it was denied, and how."""

    attempt: str
    denied: bool
    how: str


async def run(policies: Policies, store: Path | None, key: Path | None) -> list[Trial]:
    """Every attempt, under the confinement of *policies*, at a *store* and a *key* where there are any.

    Raises `Temporary` where no worker can be had.
    """
    content = policies.stages.content
    limits = content.settings.model_copy(update={"cpu": CPU, "timeout": TIMEOUT})
    if lack := confinement.lack(limits):
        raise Temporary(lack)
    told = policies.stages.model_copy(update={"content": content.model_copy(update={"settings": limits})})
    nursery = await Nursery.start(specification(replace(policies, stages=told)), PROGRAM)
    try:
        with _targets(store, key) as targets:
            return [await _try(nursery, name, targets) for name in ATTEMPTS]
    finally:
        await nursery.close()


async def _try(nursery: Nursery, name: str, targets: Targets) -> Trial:
    worker = await nursery.fork()
    words = (ATTEMPTS[name].__doc__ or name).strip()
    try:
        async with asyncio.timeout(PATIENCE):
            how = await _told(worker, name, targets)
        return Trial(words, how != POSSIBLE, _WORDS.get(how, f"refused: {how}") if how != POSSIBLE else how)
    except (OSError, EOFError):
        how = _ended(await nursery.fate(worker))
        return Trial(words, bool(how), _WORDS.get(how, f"ended: {how}") if how else POSSIBLE)
    except TimeoutError:
        return Trial(words, denied=False, how="no answer")
    finally:
        nursery.discard(worker)


async def _told(worker: Worker, name: str, targets: Targets) -> str:
    wishes = {key: value for key, value in asdict(targets).items() if key != "message"}
    order = json.dumps({"attempt": name, "targets": wishes}).encode()
    with tempfile.TemporaryFile() as message:
        message.write(b"Subject: trial\r\n\r\n")
        message.flush()
        await hand_over(worker, order, message)
        size = FRAME.unpack(await exactly(worker.socket, FRAME.size))[0]
        return (await exactly(worker.socket, min(size, 100))).decode("ascii", "replace")


def _ended(status: int) -> str:
    """The signal that the kernel ended a worker by, "" where it ended by itself."""
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else ""


@contextmanager
def _targets(store: Path | None, key: Path | None) -> Iterator[Targets]:
    """Things that could be reached, were there no confinement."""
    name = f"gatepost-{secrets.token_hex(8)}"
    with (
        tempfile.TemporaryDirectory(prefix="gatepost-") as folder,
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        secret = Path(folder, "secret")
        secret.write_bytes(b"secret")
        abstract.bind(f"\0{name}")
        abstract.listen()
        port = listening.getsockname()[1]
        yield Targets(_there(store, secret), _there(key, secret), folder, port, name, os.getpid())


def _there(path: Path | None, otherwise: Path) -> str:
    return str(path.absolute() if path is not None and path.is_file() else otherwise)

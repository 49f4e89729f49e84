"""How the gateway is: one `Check` for each thing that can be well or not, asked now, each with a deadline."""

from __future__ import annotations

import asyncio
import datetime
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection

from gateway import clamd, roles, stages, terminal, tls
from gateway.config import SHIPPED_POLICIES, Config
from gateway.model import Dns, State, Temporary
from gateway.pipeline import policy
from gateway.pipeline.policy import Policies
from gateway.store import queue
from gateway.store.engine import Store
from gateway.toml import FaultyFiles

SIGNATURES_OLD = 3.0
"""Days after which signatures count as stale: ClamAV publishes every day."""

CERTIFICATE_SOON = 21.0
"""Days before its end at which a certificate needs attention."""

QUEUE_LATE = 4 * 3600.0
"""Seconds after which a queued delivery is remarkable."""

ROOM = 20
"""Messages of full size that the disk should have room for."""

PROBE = "status.gatepost.invalid"
"""A name that never exists (RFC 6761 6.4): a working DNS says so."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is well or not, in words."""

    name: str
    ok: bool
    text: str


def look(config: Config, store: Store, dns: Dns) -> list[Check]:
    """Everything there is to know. Raises `Temporary` where the store is out of reach."""
    found = [*_processes(config)]
    with store.reading() as conn:
        found += _queue(conn)
    try:
        policies = policy.load(config.server.policies, None)
        found += [*_scanner(config, policies), _policies(config, policies), _disk(config, policies)]
    except FaultyFiles as error:
        words = f"{len(error.faults)} faults, so an older set is in force; see gatepost check"
        found.append(Check("policies", ok=False, text=words))
    return [*found, asyncio.run(_dns(dns)), _certificate(config)]


def runs(config: Config) -> bool:
    """Whether any process of the gateway is running."""
    return bool(roles.running(config.run_dir))


def _processes(config: Config) -> Iterator[Check]:
    known = {(one.role, one.number): one for one in roles.known(config.run_dir) if one.alive}
    for role, number in roles.processes(config):
        process = known.get((role.value, number))
        if process is None:
            yield Check(f"{role}-{number}", ok=False, text="not running")
        else:
            since = terminal.span(time.time() - process.started)
            where = ", ".join(process.listeners.values())
            yield Check(f"{role}-{number}", ok=True, text=f"pid {process.pid}, for {since}{where and f', {where}'}")


def _queue(conn: Connection) -> list[Check]:
    counts = queue.counts(conn)
    kept = (State.QUEUED, State.HELD, State.MAILBOX, State.SENT, State.FAILED)
    words = ", ".join(f"{counts[state]} {state}" for state in kept)
    oldest = queue.oldest(conn)
    waits = time.time() - oldest if oldest else 0.0
    age = Check(
        "oldest queued", ok=waits < QUEUE_LATE, text=f"accepted {terminal.span(waits)} ago" if oldest else "none"
    )
    return [Check("deliveries", ok=True, text=words), age]


def _scanner(config: Config, policies: Policies) -> list[Check]:
    where = clamd.places(policies)
    if not where:
        return []
    found = clamd.answering(where)
    if found is None:
        return [Check("clamd", ok=False, text=clamd.missing(config, policies))]
    age = found.age_days
    days = "of unknown age" if age is None else f"{age:.1f} days old"
    return [
        Check("clamd", ok=True, text=f"{found.version} at {found.place}"),
        Check("signatures", ok=age is not None and age <= SIGNATURES_OLD, text=days),
    ]


def _policies(config: Config, policies: Policies) -> Check:
    files = stages.files(config.server.policies)
    own = [stem for stem, path in files.items() if path.parent != SHIPPED_POLICIES]
    whose = f"{', '.join(own)} from {config.server.policies}, the others as shipped" if own else "all as shipped"
    return Check("policies", ok=True, text=f"{len(files)} (set {policies.version}): {whose}")


def _disk(config: Config, policies: Policies) -> Check:
    """A full disk refuses mail (452), the large ones first; so it is told before it is full."""
    usage = shutil.disk_usage(config.server.data)
    room = usage.free // policies.stages.edge.message_size
    text = f"{usage.free >> 20} MB free of {usage.total >> 20}, room for {room} messages of full size"
    return Check("disk", room >= ROOM, text)


async def _dns(dns: Dns) -> Check:
    began = time.monotonic()
    try:
        await dns.a(PROBE)
    except Temporary as error:
        return Check("dns", ok=False, text=str(error))
    return Check("dns", ok=True, text=f"answers in {(time.monotonic() - began) * 1000:.0f} ms")


def _certificate(config: Config) -> Check:
    try:
        end = tls.expires_at(tls.certificate_files(config)[0])
    except (OSError, ValueError) as error:
        return Check("certificate", ok=False, text=f"cannot be read: {type(error).__name__}")
    days = (end - datetime.datetime.now(datetime.UTC)).total_seconds() / 86400
    whose = "" if config.tls.certificate else ", self-signed"
    return Check("certificate", ok=days > CERTIFICATE_SOON, text=f"ends in {days:.0f} days ({end:%Y-%m-%d}){whose}")

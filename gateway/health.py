"""How the gateway is: one `Check` for each thing that can be well or not, asked now, each with a deadline."""

from __future__ import annotations

import asyncio
import datetime
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from gateway import clamd, roles, stages, supervisor, terminal, tls
from gateway import state as shared
from gateway.config import SHIPPED_POLICIES, Config
from gateway.dkim.ring import KeyState, Ring
from gateway.model import ERROR, Mail, Permanent, Session, Stage, State, Temporary
from gateway.pipeline import inspect, policy
from gateway.pipeline.policy import Policies
from gateway.state import LocalState
from gateway.store import observations, queue
from gateway.store.engine import Store
from gateway.toml import Fault, FaultyFiles

if TYPE_CHECKING:
    from gateway.dns import Resolver

CERTIFICATE_SOON = 21.0
"""Days before its end at which a certificate needs attention."""

QUEUE_LATE = 4 * 3600.0
"""Seconds after which a queued delivery is remarkable."""

ROOM = 20
"""Messages of full size that a disk on which mail lies should have room for."""

SMALL_ROOM = 1 << 20
"""Octets that a disk should have free on which no mail lies."""

FILES = 100
"""Files that there should be room for."""

PATIENCE = 2.0
"""Seconds to wait for a turn at the store."""

REPORTS_LATE = 12 * 3600.0
"""Seconds beyond the time that reports.toml allows after which a report is late."""

MOST_DOMAINS = 1000
"""Domains with reports to come that are looked at."""

PROBE = "status.gatepost.invalid"
"""A name that never exists (RFC 6761 6.4): a working DNS says so."""

NOBODY = Mail("status", Session(ip_address("192.0.2.1")))
"""From an address that no peer has (RFC 5737): on no list that works."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is well or not, in words."""

    name: str
    ok: bool
    text: str


Opened = Callable[[Config], AbstractContextManager[Store]]


def look(config: Config, opened: Opened, dns: Resolver) -> list[Check]:
    """Everything there is to know; *opened* opens the store. Raises `Temporary` where there is none yet."""
    found = [*_processes(config), *_store(config, opened)]
    names = asyncio.run(_dns(dns))
    edge = stages.Edge()
    try:
        policies = policy.load(config.server.policies, None)
        edge = policies.stages.edge
        found += [
            *_scanner(config, policies),
            *_services(policies),
            *_confinement(policies),
            _policies(config, policies),
            *_reports(config, policies.stages.reports, opened),
        ]
        found += asyncio.run(_lists(config, dns)) if names.ok else []
    except FaultyFiles as error:
        found.append(Check("policies", ok=False, text=_faulty(error.faults)))
    found += [*_disks(config, edge.message_size), *_keys(config)]
    return [*found, names, asyncio.run(_shared(config)), _certificate(config)]


def _faulty(faults: Sequence[Fault]) -> str:
    more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
    return f"refused, the set before stays in force: {faults[0]}{more}; gatepost check names all"


def runs(config: Config) -> bool:
    """Whether any process of the gateway is running."""
    return bool(roles.running(config.run_dir))


def _processes(config: Config) -> Iterator[Check]:
    known = {(one.role, one.number): one for one in roles.known(config.run_dir) if one.alive}
    for role, number in roles.processes(config):
        process, name = known.get((role.value, number)), f"{role}-{number}"
        ended = roles.end_of(config.run_dir, name)
        often = ended is not None and ended.times > supervisor.BURST and time.time() - ended.at < supervisor.MEMORY
        yield Check(name, ok=process is not None and not often, text=f"{_running(process)}{_last_end(ended)}")


def _running(process: roles.Process | None) -> str:
    if process is None:
        return "not running"
    since = terminal.span(time.time() - process.started)
    where = ", ".join(process.listeners.values())
    return f"pid {process.pid}, for {since}{where and f', {where}'}"


def _last_end(ended: roles.Ended | None) -> str:
    if ended is None:
        return ""
    times = f", {ended.times} times within a minute" if ended.times > 1 else ""
    return f"; ended by {ended.how} {terminal.span(time.time() - ended.at)} ago{times}"


def _store(config: Config, opened: Opened) -> list[Check]:
    """Whether it can be read, and written to: opening it takes the turn of a writer."""
    began = time.monotonic()
    try:
        with opened(_hurried(config)) as store, store.reading() as conn:
            text = f"its turn came in {(time.monotonic() - began) * 1000:.0f} ms"
            remarks = [Check(*remark) for remark in store.remarks(conn)]
            return [Check("store", ok=True, text=text), *remarks, *_queue(conn)]
    except (Temporary, OSError) as error:
        if isinstance(error, Temporary) and not (config.store.url or config.run_dir.exists()):
            raise
        return [Check("store", ok=False, text=f"{error}; no mail is accepted or delivered meanwhile")]


def _hurried(config: Config) -> Config:
    return config.model_copy(update={"store": config.store.model_copy(update={"patience": PATIENCE})})


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
    asked = [clamd.asked(place) for place in where]
    found = [one for one in asked if isinstance(one, clamd.Answering)]
    if not found:
        return [Check("clamd", ok=False, text=clamd.missing(config, policies))]
    checks = [Check("clamd", ok=False, text=one) for one in asked if isinstance(one, str) and one]
    checks += [Check("clamd", ok=True, text=f"{one.version} at {one.place}") for one in found]
    return [*checks, *(_signatures(one, clamd.signatures_age(policies)) for one in found)]


def _signatures(found: clamd.Answering, most: float) -> Check:
    """How old they are; *most* is how many days they may be."""
    age = found.age_days
    days = "of unknown age" if age is None else f"{age:.1f} days old"
    return Check("signatures", ok=age is not None and age <= most, text=f"{days} at {found.place}")


def _services(policies: Policies) -> Iterator[Check]:
    for address, ok, text in clamd.services(policies):
        yield Check("icap", ok=ok, text=f"{text} at {address}")


def _policies(config: Config, policies: Policies) -> Check:
    files = stages.files(config.server.policies)
    own = [stem for stem, path in files.items() if path.parent != SHIPPED_POLICIES]
    whose = f"{', '.join(own)} from {config.server.policies}, the others as shipped" if own else "all as shipped"
    return Check("policies", ok=True, text=f"{len(files)} (set {policies.version}): {whose}")


def _reports(config: Config, settings: stages.Reports, opened: Opened) -> Iterator[Check]:
    """Whether owners of domains are told in time: nobody else would ever miss these reports."""
    if not settings.sends(config.server.hostname):
        yield Check("reports", ok=True, text="none are sent to others: see send in reports.toml")
        return
    try:
        with opened(_hurried(config)) as store, store.reading() as conn:
            waiting = observations.waiting(conn, "", MOST_DOMAINS, time.time())
            last = observations.sent(conn, 1)
    except (Temporary, OSError):
        return  # the store says so itself
    allowed = settings.delay + settings.spread + settings.patience + REPORTS_LATE
    late = [one.domain for one in waiting if _told_by(one) + allowed < time.time()]
    sent = f"the last {terminal.span(time.time() - last[0].at)} ago" if last else "none yet"
    words = f"; late for {', '.join(late[:3])}{' …' if len(late) > 3 else ''}: see gatepost dmarc send" if late else ""
    many = f"{len(waiting)} domain{'' if len(waiting) == 1 else 's'}"
    yield Check("reports", ok=not late, text=f"{sent}, {many} to report to{words}")


def _told_by(waits: observations.Waiting) -> float:
    """When the first day that is not told yet has ended."""
    return (max(waits.oldest, waits.settled) // observations.DAY + 1) * observations.DAY


def _confinement(policies: Policies) -> Iterator[Check]:
    """What the processes that read mail are confined by; with "best" they work without what is missing."""
    from gateway.pipeline import confinement  # noqa: PLC0415 - every process imports this module, few need that one

    if policy.CONTENT in policies.by_name:
        kernel = confinement.kernel()
        lack = f"; this kernel has no {' and no '.join(kernel.missing)}" if kernel.missing else ""
        yield Check("confinement", ok=not kernel.missing, text=f"by {kernel.words}{lack}")


def _keys(config: Config) -> Iterator[Check]:
    """Mail waits for a key that cannot be used; a key that waits for the DNS signs nothing yet."""
    ring = Ring(config.keys_dir)
    for domain in ring.domains():
        try:
            signing = ", ".join(one.selector for one in ring.signers(domain))
            pending = [one.selector for one in ring.entries(domain) if one.state is KeyState.PENDING]
        except Permanent as error:
            yield Check("keys", ok=False, text=str(error))
            continue
        waits = f"; {', '.join(pending)} waits for its record: gatepost dkim show {domain}" if pending else ""
        yield Check("keys", ok=bool(signing), text=f"{domain} signs with {signing or 'none'}{waits}")


def _disks(config: Config, message_size: int) -> Iterator[Check]:
    """A full disk refuses mail (452), the large ones first; so it is told before it is full. Each disk once."""
    data, known = config.server.data, set[int]()
    for name, folder, need in (
        ("disk", data, ROOM * message_size),
        ("disk of spool", data / "spool", ROOM * message_size),
        ("disk of run", config.run_dir, SMALL_ROOM),
    ):
        if folder.exists() and (device := folder.stat().st_dev) not in known:
            known.add(device)
            yield _disk(name, folder, need, message_size)


def _disk(name: str, folder: Path, need: int, message_size: int) -> Check:
    found = os.statvfs(folder)
    free, whole = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    text = f"{free >> 20} MB free of {whole >> 20}, room for {free // message_size} messages of full size"
    if found.f_flag & os.ST_RDONLY:
        return Check(name, ok=False, text=f"{folder} can only be read; {text}")
    if found.f_files and found.f_favail < FILES:
        return Check(name, ok=False, text=f"{folder} has room for {found.f_favail} files only; {text}")
    return Check(name, ok=free >= need, text=text)


async def _dns(dns: Resolver) -> Check:
    """One question as mail asks it, and each server for itself: behind one that answers, another may be dead."""
    began = time.monotonic()
    try:
        await dns.a(PROBE)
    except Temporary as error:
        return Check("dns", ok=False, text=str(error))
    took = f"answers in {(time.monotonic() - began) * 1000:.0f} ms"
    silent = await dns.silent()
    return Check("dns", ok=not silent, text=f"{took}, but {', '.join(silent)} is silent" if silent else took)


async def _lists(config: Config, dns: Resolver) -> list[Check]:
    """Which block lists do not serve us, as dnsbl.toml has them: the filter itself is asked about nobody."""
    state = shared.opened(config)
    try:
        tools = replace(policy.NO_TOOLS, dns=dns, state=state, hostname=config.server.hostname)
        whole = policy.load(config.server.policies, tools)
        lists = {name: one for name, one in whole.by_name.items() if name == "dnsbl"}
        found = await inspect.ask(NOBODY, Stage.CONNECT, replace(whole, by_name=lists), {})
    finally:
        await state.aclose()
    faults = {name: [one.detail for one in found.get(name, ()) if one.code == ERROR] for name in lists}
    return [Check(name, ok=not told, text="; ".join(told) or "the lists answer") for name, told in faults.items()]


async def _shared(config: Config) -> Check:
    """Whether counters count. A file is asked only where there is one: one of ours might be closed to the gateway."""
    state = shared.opened(config)
    if isinstance(state, LocalState) and not state.place.exists():
        return Check("state", ok=True, text="nothing is counted yet")
    began = time.monotonic()
    try:
        await state.claim("status", 1.0)
    except Temporary as error:
        return Check("state", ok=False, text=f"{error} ({state.place}); what needs it is an error")
    finally:
        await state.aclose()
    return Check("state", ok=True, text=f"{state.place}, answers in {(time.monotonic() - began) * 1000:.0f} ms")


def _certificate(config: Config) -> Check:
    try:
        end = tls.expires_at(tls.certificate_files(config)[0])
    except (OSError, ValueError) as error:
        return Check("certificate", ok=False, text=f"cannot be read: {type(error).__name__}")
    days = (end - datetime.datetime.now(datetime.UTC)).total_seconds() / 86400
    whose = "" if config.tls.certificate else ", self-signed"
    return Check("certificate", ok=days > CERTIFICATE_SOON, text=f"ends in {days:.0f} days ({end:%Y-%m-%d}){whose}")

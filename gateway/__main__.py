"""The composition root: the only place that constructs stores, tools and servers. `gatepost` starts here.

What only one role needs is imported where that role begins: the other processes are smaller, and every verb is quicker.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from gateway import config as configuration
from gateway import events, failpoints, roles, stages, tls
from gateway import state as shared
from gateway.accounts import Authenticator
from gateway.backoff import Backoff
from gateway.config import Config
from gateway.model import Envelope, Permanent, Session, Temporary
from gateway.pipeline import policy
from gateway.pipeline.outcome import Explained
from gateway.pipeline.policy import Policies
from gateway.roles import AnyListener, Role
from gateway.state import LocalState, RemoteState
from gateway.store.engine import Store

if TYPE_CHECKING:
    from gateway import supervisor
    from gateway.delivery.reporting import Draft, Reporting
    from gateway.dns import Resolver
    from gateway.pipeline.intake import Intake
    from gateway.store.observations import Sent

FILES = 65536
"""Open files that one process may need."""

FEW_FILES = 4096
"""Open files with which a busy process refuses mail for want of more."""

DRAIN = 20.0
"""Seconds that open sessions have to finish when a role ends; below the supervisor's `GRACE`."""


def main() -> None:
    """Run the `gatepost` command, or be what the supervisor asks for: that needs nothing of the command."""
    _hold_standard_streams()
    if roles.SUPERVISED in os.environ and sys.argv[-2:-1] == ["run"]:
        _be(sys.argv[1:])
        return
    from gateway import cli  # noqa: PLC0415 - see the top

    cli.main(cli.Wiring(opened, supervise, serve, explain, resolver, try_store, report))


def _be(words: Sequence[str]) -> None:
    """Be one role: *words* are `[--config PATH] run ROLE`, as `supervisor.children` writes them."""
    try:
        path = Path(words[1]) if words[0] == "--config" else None
        serve(configuration.load(configuration.find(path)), Role(words[-1]))
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - it is told as for every verb
        from gateway import cli  # noqa: PLC0415 - see the top

        sys.exit(cli.ended(error))


def _hold_standard_streams() -> None:
    """Where a standard stream was closed, the next file to be opened (the store!) would stand in its place."""
    while (null := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(null, True)  # our children need it there, too
    os.close(null)
    for name, fd in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:  # it lives as long as the process does, so nothing closes it
            setattr(sys, name, open(fd, "w" if fd else "r", encoding="utf-8", closefd=False))  # noqa: SIM115


# ---- Tools --------------------------------------------------------------------------------------------------------


@contextmanager
def opened(config: Config, *, create: bool = False) -> Iterator[Store]:
    """The store of *config*, its tables up to date, for the verbs of the command. `Temporary` where there is none."""
    if create:
        roles.make_folders(config)
    elif not (config.store.url or config.run_dir.exists()):
        raise Temporary(f"there is no data in {config.server.data.absolute()} yet: start the gateway, or name --config")
    store = _store(config)
    try:
        store.migrate()
        yield store
    finally:
        store.close()


def try_store(config: Config) -> None:
    """Raise `Temporary` where the store of *config* cannot be used as it is; one that answers stays as it is."""
    store = _store(config)
    try:
        store.try_out()
    finally:
        store.close()


def resolver(config: Config) -> Resolver:
    """Who answers our questions to the DNS."""
    from gateway import dns  # noqa: PLC0415 - see the top

    return dns.Resolver(config.dns.servers, config.dns.timeout)


def _store(config: Config) -> Store:
    return Store(
        config.store_url,
        bell=config.run_dir / "deliver.bell",
        patience=config.store.patience,
        password_file=Path(config.store.password_file) if config.store.password_file else None,
    )


@asynccontextmanager
async def _intake(config: Config, state: LocalState | RemoteState, scanners: int) -> AsyncIterator[Intake]:
    """The judgement with all its tools; *scanners* confined children, none where nothing is to be scanned."""
    from gateway.pipeline.intake import Intake  # noqa: PLC0415 - see the top

    store = _store(config)
    authenticator = _authenticator(config, store)
    try:
        intake = Intake(
            store,
            authenticator,
            resolver(config),
            state,
            hostname=config.server.hostname,
            configured=config.server.policies,
        )
        if scanners:
            await intake.start(scanners)
        try:
            yield intake
        finally:
            await intake.close()
    finally:
        authenticator.close()
        await store.aclose()
        await state.aclose()


def _authenticator(config: Config, store: Store) -> Authenticator:
    return Authenticator(store, stages.load(config.server.policies).logins.threads)


def explain(config: Config, session: Session, envelope: Envelope, message: BinaryIO) -> Explained:
    """The verdict on *message*, an open file with CRLF line ends. Nothing is stored, no counter counts."""
    return asyncio.run(_explain(config, session, envelope, message))


async def _explain(config: Config, session: Session, envelope: Envelope, message: BinaryIO) -> Explained:
    with tempfile.TemporaryDirectory(prefix="gatepost-") as folder:
        async with _intake(config, LocalState(Path(folder) / "state.db"), scanners=1) as intake:
            return await intake.visit().explain(session, envelope, message)


def report(
    config: Config, tell: Callable[[Sent | Draft], None], *, domain: str, until: float | None, dry: bool
) -> Sequence[str]:
    """`gateway.cli.base.SendReports`."""
    return asyncio.run(_report(config, tell, domain, until, dry=dry))


async def _report(
    config: Config, tell: Callable[[Sent | Draft], None], domain: str, until: float | None, *, dry: bool
) -> Sequence[str]:
    with tempfile.TemporaryDirectory(prefix="gatepost-") as folder:
        async with _intake(config, LocalState(Path(folder) / "state.db"), scanners=0) as intake:
            reporting = _reporting(config, intake, resolver(config))
            found = reporting.drafts(domain, until) if dry else reporting.work_off(domain, until)
            async for one in found:
                tell(one)
            return reporting.postponed


def _reporting(config: Config, intake: Intake, dns: Resolver) -> Reporting:
    from gateway.delivery import reporting  # noqa: PLC0415 - see the top

    return reporting.Reporting(intake.store, intake, dns, lambda: intake.stages.reports, config.server.hostname)


# ---- One process --------------------------------------------------------------------------------------------------


def _allow_many_files() -> None:
    """Take all the open files that we may have: the usual 1024 are too few for 1000 connections and their mail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    if max(soft, most) < FEW_FILES:
        events.say("few files may be open", allowed=max(soft, most), wanted=FEW_FILES)


def serve(config: Config, role: Role) -> None:
    """Be *role* until SIGTERM, SIGINT, or the death of the supervisor; then finish what is under way."""
    events.configure(config.log.format, f"{role.value}-{_number()}")
    if folder := failpoints.arm(role.value):
        events.say("this process breaks where a test wants it to", variable=failpoints.FOLDER, folder=folder)
    _allow_many_files()
    roles.make_folders(config)
    bound = roles.take_sockets(roles.listeners(config, role), os.environ)
    if roles.SUPERVISED not in os.environ:
        with opened(config):  # nobody else has brought the tables up to date
            pass
    import uvloop  # noqa: PLC0415 - see the top

    work = {Role.SMTP: _smtp, Role.DELIVER: _deliver, Role.POP3: _pop3}[role]
    uvloop.run(work(config, bound))


async def _smtp(config: Config, bound: Mapping[str, socket]) -> None:
    from gateway.smtp import server  # noqa: PLC0415 - see the top

    async with _intake(config, shared.opened(config), config.server.scan_processes) as intake:
        context = tls.server_context(config)
        spool = config.server.data / "spool"
        backoff = Backoff(intake.state, lambda: intake.stages.logins)
        services = {
            x.name: server.server_factory(x, intake, context, backoff, spool_dir=spool) for x in config.listeners
        }
        async with (
            _stopped_by_signals(intake, partial(tls.renew, context, config)) as stop,
            _listening(config.listeners, services, bound, lambda: server.drain(DRAIN)),
            roles.announced(config.run_dir, Role.SMTP, _number(), bound),
        ):
            await stop.wait()


async def _deliver(config: Config, bound: Mapping[str, socket]) -> None:
    from gateway.delivery.runner import Runner  # noqa: PLC0415 - see the top
    from gateway.delivery.sign import Hand  # noqa: PLC0415
    from gateway.dkim.ring import Ring  # noqa: PLC0415

    hostname, dns = config.server.hostname, resolver(config)
    async with _intake(config, shared.opened(config), 0) as intake:
        hand = Hand(Ring(config.keys_dir), hostname, lambda: intake.stages.signing)
        runner = Runner(intake.store, intake, dns, lambda: intake.stages, hostname, sign=hand.sign)
        async with (
            _stopped_by_signals(intake) as stop,
            _meanwhile(hand.keep_looking(dns)),
            _meanwhile(_reporting(config, intake, dns).run()),
            roles.announced(config.run_dir, Role.DELIVER, _number(), bound),
        ):
            await runner.run(stop)


@asynccontextmanager
async def _meanwhile(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Do *work* during the block, and end it after that."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _pop3(config: Config, bound: Mapping[str, socket]) -> None:
    from gateway.pop3 import limits, server  # noqa: PLC0415 - see the top

    store, state = _store(config), shared.opened(config)
    authenticator, context = _authenticator(config, store), tls.server_context(config)
    policies = stages.load(config.server.policies)
    gate = limits.Gate(policies.pop3, Backoff(state, lambda: policies.logins))
    services = {x.name: server.server_factory(x, store, authenticator, context, gate) for x in config.pop3}

    async def drain() -> None:
        await asyncio.gather(*(service.drain(DRAIN) for service in services.values()))

    try:
        async with (
            _stopped_by_signals(None, partial(tls.renew, context, config)) as stop,
            _listening(config.pop3, services, bound, drain),
            roles.announced(config.run_dir, Role.POP3, _number(), bound),
        ):
            await stop.wait()
    finally:
        authenticator.close()
        await store.aclose()
        await state.aclose()


def _number() -> int:
    return int(os.environ.get(roles.NUMBER, "1"))


@asynccontextmanager
async def _listening(
    listeners: Sequence[AnyListener],
    services: Mapping[str, Callable[[], asyncio.BaseProtocol]],
    bound: Mapping[str, socket],
    drain: Callable[[], Awaitable[None]],
) -> AsyncIterator[None]:
    """Serve every listener during the block; at its end take no more connections, and *drain* the open ones."""
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(services[x.name], sock=bound[x.name], backlog=roles.BACKLOG) for x in listeners]
    try:
        yield
    finally:
        for server in servers:
            server.close()
        await drain()


@asynccontextmanager
async def _stopped_by_signals(
    intake: Intake | None, renew: Callable[[], object] = lambda: None
) -> AsyncIterator[asyncio.Event]:
    """An event that is set when this process is to end.

    SIGHUP reloads the policies of *intake*, as every change of their files does, and calls *renew*.
    """
    stop, hangup = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, hangup.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # the supervisor has blocked it until here
    if roles.SUPERVISED in os.environ:
        loop.add_reader(sys.stdin.fileno(), _end_with_supervisor, stop)
    watchers = [] if intake is None else [_watch(intake, stop)]
    tasks = [asyncio.create_task(one) for one in [*watchers, _reload_on(hangup, intake, renew)]]
    try:
        yield stop
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _reload_on(hangup: asyncio.Event, intake: Intake | None, renew: Callable[[], object]) -> None:
    while await hangup.wait():
        hangup.clear()
        renew()
        if intake is not None:
            await intake.reload()


async def _watch(intake: Intake, stop: asyncio.Event) -> None:
    try:
        await intake.watch(stop)
    except Exception as error:  # noqa: BLE001 - without it the mail still flows, and SIGHUP reloads
        events.failure("watching the policies", error)


def _end_with_supervisor(stop: asyncio.Event) -> None:
    """The pipe from the supervisor is readable: nothing is ever written to it, so it was closed."""
    if not os.read(sys.stdin.fileno(), 1):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        stop.set()


# ---- All processes ------------------------------------------------------------------------------------------------


def supervise(config: Config, path: Path | None) -> NoReturn:
    """Prepare the whole gateway on this machine, then be what keeps its processes running until it is told to stop."""
    from gateway import keeper, supervisor, terminal, welcome  # noqa: PLC0415 - see the top

    events.configure(config.log.format, "gatepost")
    policies = policy.load(config.server.policies, None)
    _demand_confinement(policies)
    roles.make_folders(config)
    with supervisor.only_one(config.run_dir) as lock:
        bound = roles.bind_all([*config.listeners, *config.pop3])
        store = _store(config)
        try:
            welcome.show_passwords(welcome.prepare(config, store))
        finally:
            store.close()
        helpers, scanner = _scanner(config, policies)
        sockets = {name: one.fileno() for name, one in bound.items()}
        roles.forget_ends(config.run_dir)
        plan = keeper.Plan(
            [*helpers, *supervisor.children(config, path, sockets)],
            str(config.run_dir),
            config.log.format,
            terminal.rendered(lambda: welcome.greet(config, scanner)),
            terminal.rendered(lambda: terminal.say("Gatepost has stopped.")),
        )
        keeper.become(plan, [lock.fileno(), *sockets.values()])


def _demand_confinement(policies: Policies) -> None:
    """Better no gateway than one whose every mail is deferred."""
    from gateway.pipeline import confinement  # noqa: PLC0415 - see the top

    if policy.CONTENT in policies.by_name and (lack := confinement.lack(policies.stages.content.settings)):
        raise Permanent(lack)


def _scanner(config: Config, policies: Policies) -> tuple[list[supervisor.Child], str]:
    """A clamd to run beside the gateway where one is wanted and none answers, and what there is to say about it."""
    from gateway import clamd  # noqa: PLC0415 - see the top

    where = clamd.places(policies)
    if not where or clamd.answering(where) is not None:
        return [], ""
    child = clamd.child(config, where, policies.stages.edge.message_size)
    if child is None:
        return [], clamd.missing(config, policies)
    return [child], clamd.starting(config, policies)


if __name__ == "__main__":
    main()

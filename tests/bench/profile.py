"""Where the time of one role goes: the roles run side by side without a supervisor, one of them under cProfile."""

import cProfile
import pstats
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from gateway.model import Envelope, ListenerKind, Mail, Recipient, Session, new_id
from gateway.pipeline import confined, policy
from tests.bench import measure, stacks
from tests.peers import clamd, processes

TOP = 25


def show(role: str, load: measure.Load, size: stacks.Size) -> None:
    """Send *load* through all filters and print the functions of *role* that took most time of their own."""
    with processes.workspace("profile") as home:
        out = home / "profile.out"
        with _roles(home, role, out, size) as stack:
            measure.generate(stack, replace(load, count=measure.WARM_UP))
            figures = measure.run(stack, load)
        print(f"{role} under cProfile, {load.count} messages and {measure.WARM_UP} to warm up; its start is included.")
        print(
            f"CPU of the role and its workers: {figures.cpu:.2f} ms a message, the profiler's own cost (about half) included."
        )
        _print(pstats.Stats(str(out)))


def show_confined(messages: Sequence[bytes]) -> None:
    """Parse *messages* and run the pure filters on them in this process, as a confined worker does."""
    policies = policy.load(None, None)
    filters = policy.waves(confined._policy(one.name, one.settings) for one in policies.pure)
    task = confined.Task(policies.stages.content.settings, filters)
    session = Session(ip_address("127.0.0.1"), "mx", ListenerKind.MX)
    mail = Mail(new_id(), session, Envelope("writer@load.example", (Recipient("reader@sink.example"),)))

    def scan_all() -> float:
        began = time.process_time()
        for message in messages:
            with tempfile.TemporaryFile() as file:
                file.write(message)
                file.flush()
                confined.scan(mail, file.fileno(), task)
        return (time.process_time() - began) / len(messages) * 1000

    scan_all()
    print(f"CPU of parser and pure filters: {scan_all():.2f} ms a message, without the way to and from the worker.")
    profile = cProfile.Profile(time.thread_time)
    profile.runcall(scan_all)
    _print(pstats.Stats(profile))


def _print(statistics: pstats.Stats) -> None:
    statistics.sort_stats("tottime").print_stats(TOP)
    print("What our own functions cost, with all that they call:")
    statistics.sort_stats("cumulative").print_stats(rf"^{stacks.ROOT}/(gateway|filters)/", 2 * TOP)


@contextmanager
def _roles(home: Path, profiled: str, out: Path, size: stacks.Size) -> Iterator[stacks.Stack]:
    """The roles of Gatepost with all filters and clamd; the stack's process is that of the role *profiled*."""
    with stacks.sink() as drain, clamd.run() as scanner, stacks.resolver() as names:
        port = stacks.write_config(home, size, drain.port, names, stacks.looking(scanner.unix_socket))
        _make_tables(home)
        running: dict[str, processes.Process] = {}
        with (
            _role(home, "deliver", profiled, out) as running["deliver"],
            _role(home, "smtp", profiled, out) as running["smtp"],
        ):
            yield stacks.Stack(port, running[profiled], stacks.RELAYED, scanner.process, drain.count)


def _make_tables(home: Path) -> None:
    """A role alone finds its tables made: the first account makes them."""
    argv = stacks.command(home, "account", "add", "--password-stdin", "somebody@box.example")
    done = processes.complete(argv, home, stdin=b"not-used-anywhere\n", env=stacks.ENVIRONMENT)
    if done.code:
        raise RuntimeError(done.text)


def _role(home: Path, role: str, profiled: str, out: Path) -> AbstractContextManager[processes.Process]:
    argv = stacks.command(home, "run", role)
    if role == profiled:
        argv[2:4] = ["-m", "tests.bench.profiled", str(out)]
    ready = home / f"data/run/{role}-1.pid"
    return processes.running(argv, home, ready.exists, within=40, env=stacks.ENVIRONMENT)

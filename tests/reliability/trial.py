"""A whole gateway under the ledger: with a sink, mailboxes, and destinations that refuse or defer; ready to be broken."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from gateway import failpoints, roles
from gateway.store.engine import Store
from tests.e2e import gateway as gateways
from tests.e2e.gateway import Gateway
from tests.peers import processes
from tests.peers.certificates import Certificate
from tests.reliability import account, family, ledger, sink
from tests.reliability.ledger import Book, Incident, Report
from tests.reliability.sender import Sender
from tests.reliability.sink import Sink

RELAYED, REFUSING, DEFERRING = "relayed.example", "refusing.example", "deferring.example"
"""Domains whose mail the sink takes, refuses at RCPT, and defers for the first two times."""
PEOPLE = ("alice", "bob")
QUEUE = {"lease": '"2s"', "poll": '"1s"', "first_retries": '["1s", "1s", "2s"]', "retry_every": '"2s"'}
"""Leases of the dead are taken over after two seconds in place of a minute, so that a test can wait for it."""


@dataclass
class Trial:
    """What is on trial, and what is known of it. `gateway` is replaced when it is started again."""

    gateway: Gateway
    sink: Sink
    book: Book
    store: Store
    orders: Path
    starts: ExitStack
    incidents: list[Incident] = field(default_factory=list)
    fetched: set[tuple[str, str]] = field(default_factory=set)

    def sender(self, *, connections: int = 8, pause: float = 0.0, make: ledger.Make | None = None) -> Sender:
        """Who sends mail of every kind to it."""
        return Sender(self.book, [self.gateway.ports["mx"]], make or every_kind, connections=connections, pause=pause)

    @contextmanager
    def load(self, *, connections: int = 8, pause: float = 0.1) -> Iterator[None]:
        """Mail of every kind without end during the block."""
        sender = self.sender(connections=connections, pause=pause)
        sender.start()
        try:
            yield
        finally:
            sender.stop()

    # ---- To break it ----------------------------------------------------------------------------------------------

    def order(self, failpoint: str, what: str = "kill") -> None:
        """Make the next process of a role that comes by break there: "smtp.commit"."""
        beside = self.orders / "new"
        beside.write_text(what)
        beside.rename(self.orders / failpoint)

    def wait_broken(self, failpoint: str, within: float = 20.0) -> None:
        """Until somebody has come by."""
        gone = lambda: not (self.orders / failpoint).exists()  # noqa: E731
        processes.wait_until(gone, within, f"a process to come to {failpoint}")

    def note(self, what: str) -> None:
        """An incident after which copies may come."""
        self.incidents.append(Incident(what))

    def stop(self, within: float = 60.0) -> float:
        """SIGTERM to the supervisor; the seconds until it has ended."""
        began = time.monotonic()
        self.gateway.process.popen.terminate()
        self.gateway.process.popen.wait(within)
        return time.monotonic() - began

    def restart(self) -> None:
        """What systemd does when the supervisor has died: wait for the end of its children, and start it again."""
        old = self.gateway
        old.process.popen.wait(30)
        # One that had just been started has not announced itself, but has the listening sockets already
        alive = lambda: any(map(family.runs, _announced(old))) or any(map(processes.listening, old.ports.values()))  # noqa: E731
        processes.wait_until(lambda: not alive(), 40, "the processes to end")
        self.gateway = self.starts.enter_context(_started(old, self.orders))

    # ---- To account for it ----------------------------------------------------------------------------------------

    def judge(self) -> Report:
        """What there is to say now, while mail may still be under way."""
        entries, kept = self.book.entries(), account.kept(self.store)
        return ledger.judge(entries, self.sink.arrivals(), kept, self.incidents, self.fetched)

    def settled(self, within: float = 60.0) -> Report:
        """The report once nothing waits any more; fails where the law is broken."""
        account.wait_settled(self.store, within)
        return self.judge().check()

    def mailbox(self, user: str) -> list[str]:
        """The ids of the mails in the mailbox of *user*."""
        mine = [one for one in account.kept(self.store) if one.state == "mailbox"]
        return [one.id for one in mine if one.recipient == gateways.address(user)]

    def fetch(self, user: str, most: int = 10_000) -> None:
        """Fetch up to *most* mails of *user*; then delete those that came whole. Whether it does may stay unknown."""
        with self.gateway.opened(user, leave=True) as client:
            for line in client.uidl()[1][:most]:
                number, name = line.decode().split()
                raw = gateways.retrieve(client, int(number))
                if not ledger.number_of(_return_path(raw)) or ledger.intact([raw]):
                    self.fetched.add((name.partition(".")[0], gateways.address(user)))
                    client.dele(int(number))
            client.quit()

    def wait_works(self, within: float = 40.0) -> float:
        """Seconds until a mail that was accepted from now on has arrived at the sink; the load has to go on."""
        began = time.monotonic()

        def arrived() -> bool:
            new = {one.id for one in self.book.entries()[-500:] if one.how == "accepted" and one.at > began}
            return any(one.id in new for one in self.sink.arrivals()[-500:])

        processes.wait_until(arrived, within, "mail to go through again")
        return time.monotonic() - began


def _return_path(raw: bytes) -> str:
    found = re.match(rb"Return-Path: <([^>]*)>", raw)
    return found[1].decode() if found else ""


def _announced(gateway: Gateway) -> list[int]:
    """Also of those that were killed, and could not take their files away."""
    return [process.pid for process in roles.known(gateway.home / "var/run")]


def every_kind(number: int) -> ledger.Mail:
    """Mail to every kind of destination."""
    mail = _to_ours_and_others(number)
    if number % 10 == 7:
        return ledger.mail(number, [*mail.recipients, f"r{number}@{REFUSING}"])
    if number % 10 == 3:
        return ledger.mail(number, [*mail.recipients, f"r{number}@{DEFERRING}"])
    return mail


_to_ours_and_others = ledger.mixed(RELAYED, [gateways.address(user) for user in PEOPLE])


def moody() -> sink.Script:
    """Defers each recipient of `DEFERRING` twice, refuses those of `REFUSING`."""
    tries: dict[str, int] = {}

    def script(verb: str, argument: str) -> str | None:
        if verb != "RCPT":
            return None
        tries[argument] = tries.get(argument, 0) + 1
        if argument.endswith(DEFERRING) and tries[argument] <= 2:
            return "450 4.2.1 Later"
        return "550 5.1.1 Nobody of that name" if argument.endswith(REFUSING) else None

    return script


def routes(port: int) -> str:
    """routes.toml: all domains but ours go to *port*, and strangers may write to them."""
    return (
        gateways.routes()
        + f"""
[[routes]]
domains = ["{RELAYED}", "{REFUSING}", "{DEFERRING}", "{ledger.SENDERS}"]
via = {{ host = "127.0.0.1", port = {port} }}
accept_from_world = true
"""
    )


@contextmanager
def trial(
    certificate: Certificate,
    dns: int,
    *,
    policies: Mapping[str, str] | None = None,
    smtp_processes: int = 2,
    more: str = "",
    around: Callable[[Path], AbstractContextManager[object]] = nullcontext,
    env: Mapping[str, str] | None = None,
) -> Iterator[Trial]:
    """A gateway that filters as it does by default, clamd aside. It may be killed, and heeds failpoints."""
    with sink.running(moody()) as taker, processes.workspace("orders") as orders:
        defaults = {
            "routes": routes(taker.port),
            "queue": gateways.shipped("queue", **QUEUE),
            "antivirus": gateways.lenient("antivirus"),
        }
        with gateways.run(
            certificate,
            dns=dns,
            policies={**defaults, **(policies or {})},
            users=PEOPLE,
            smtp_processes=smtp_processes,
            more=more,
            may_fail=True,
            around=around,
            env={failpoints.FOLDER: str(orders), **(env or {})},
        ) as product:
            store = Store(f"sqlite:///{product.home}/var/gatepost.db")
            with ExitStack() as starts:
                starts.callback(store.close)
                yield Trial(product, taker, Book(product.home / "book"), store, orders, starts)


@contextmanager
def _started(old: Gateway, orders: Path) -> Iterator[Gateway]:
    env = {failpoints.FOLDER: str(orders)}
    with gateways.started(old.home, old.ports, old.certificate, old.passwords, may_fail=True, env=env) as again:
        yield again

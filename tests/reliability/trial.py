"""A whole gateway under the ledger: with a sink, mailboxes, and destinations that refuse or defer; ready to be broken."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from gateway.store.engine import Store
from tests.e2e import gateway as gateways
from tests.e2e.gateway import Gateway
from tests.peers.certificates import Certificate
from tests.reliability import account, ledger, sink
from tests.reliability.ledger import Book, Incident, Report
from tests.reliability.sender import Sender
from tests.reliability.sink import Sink

RELAYED, REFUSING, DEFERRING = "relayed.example", "refusing.example", "deferring.example"
"""Domains whose mail the sink takes, refuses at RCPT, and defers for the first two times."""
PEOPLE = ("alice", "bob")
QUEUE = {"lease": '"2s"', "poll": '"1s"', "first_retries": '["1s", "1s", "2s"]', "retry_every": '"2s"'}


@dataclass
class Trial:
    """What is on trial, and what is known of it."""

    gateway: Gateway
    sink: Sink
    book: Book
    store: Store
    incidents: list[Incident] = field(default_factory=list)

    def sender(self, *, connections: int = 8, reply_within: float = 20.0) -> Sender:
        return Sender(self.book, [self.gateway.ports["mx"]], make, connections=connections, reply_within=reply_within)

    def judge(self) -> Report:
        return ledger.judge(self.book.entries(), self.sink.arrivals(), account.kept(self.store), self.incidents)

    def settled(self, within: float = 60.0) -> Report:
        """The report once nothing waits any more; fails where the law is broken."""
        account.wait_settled(self.store, within)
        return self.judge().check()


def make(number: int) -> ledger.Mail:
    """Mail to every kind of destination."""
    mail = _to_ours_and_others(number)
    if number % 10 == 7:
        return ledger.mail(number, [*mail.recipients, f"r{number}@{REFUSING}"])
    if number % 10 == 3:
        return ledger.mail(number, [*mail.recipients, f"r{number}@{DEFERRING}"])
    return mail


_to_ours_and_others = ledger.mixed(RELAYED, [gateways.address(user) for user in PEOPLE])


def _moody() -> sink.Script:
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
        + f'''
[[routes]]
domains = ["{RELAYED}", "{REFUSING}", "{DEFERRING}", "{ledger.SENDERS}"]
via = {{ host = "127.0.0.1", port = {port} }}
accept_from_world = true
'''
    )


@contextmanager
def trial(
    certificate: Certificate,
    dns: int,
    *,
    policies: Mapping[str, str] | None = None,
    smtp_processes: int = 2,
    more: str = "",
) -> Iterator[Trial]:
    """A gateway that filters as it does by default, clamd aside; it may be killed."""
    with sink.running(_moody()) as taker:
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
        ) as product:
            store = Store(f"sqlite:///{product.home}/var/gatepost.db")
            try:
                yield Trial(product, taker, Book(product.home / "book"), store)
            finally:
                store.close()

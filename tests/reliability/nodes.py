"""Several whole gateways that share one database, under the ledger; the database may be taken from them."""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from gateway.store.engine import Store
from tests.e2e import gateway as gateways
from tests.e2e.gateway import Gateway
from tests.peers import processes
from tests.peers.certificates import Certificate
from tests.reliability import account, ledger, sink, trial
from tests.reliability.ledger import Book, Incident, Report
from tests.reliability.sender import Sender
from tests.reliability.sink import Sink


@dataclass
class Nodes:
    """The gateways, and what is known of their mail."""

    gateways: list[Gateway]
    sink: Sink
    book: Book
    store: Store
    incidents: list[Incident] = field(default_factory=list)

    def sender(self, *, connections: int = 8, reply_within: float = 60.0) -> Sender:
        """Who sends mail of every kind, to whichever node takes it."""
        doors = [one.ports["mx"] for one in self.gateways]
        return Sender(self.book, doors, trial.every_kind, connections=connections, reply_within=reply_within)

    def note(self, what: str) -> None:
        """An incident after which copies may come."""
        self.incidents.append(Incident(what))

    def judge(self) -> Report:
        """What there is to say now, while mail may still be under way."""
        entries, kept = self.book.entries(), account.kept(self.store)
        return ledger.judge(entries, self.sink.arrivals(), kept, self.incidents)

    def settled(self, within: float = 60.0) -> Report:
        """The report once nothing waits any more; fails where the law is broken."""
        account.wait_settled(self.store, within)
        return self.judge().check()

    def wait_accepted(self, more: int, within: float = 40.0) -> None:
        """Until the nodes have accepted so many more mails; the load has to go on."""
        wanted = self.book.count("accepted") + more
        processes.wait_until(lambda: self.book.count("accepted") >= wanted, within, f"{more} more mails to be accepted")


@contextmanager
def nodes(
    certificate: Certificate,
    dns: int,
    url: str,
    *,
    count: int = 2,
    policies: Mapping[str, str] | None = None,
    store: str = "",
) -> Iterator[Nodes]:
    """*count* gateways on the database *url*, with the same accounts. *store* is more of their table [store]."""
    more = f'\n[store]\nurl = "{url}"\n{store}'
    with sink.running(trial.moody()) as taker, processes.workspace("nodes") as home, ExitStack() as running:
        decided = {
            "routes": trial.routes(taker.port),
            "queue": gateways.shipped("queue", **trial.QUEUE),
            "antivirus": gateways.lenient("antivirus"),
            **(policies or {}),
        }
        started: list[Gateway] = []
        for _ in range(count):
            users = () if started else trial.PEOPLE
            one = gateways.run(certificate, dns=dns, policies=decided, users=users, more=more, may_fail=True)
            started.append(running.enter_context(one))
        known = [dataclasses.replace(one, passwords=started[0].passwords) for one in started]
        looking = Store(url)
        running.callback(looking.close)
        yield Nodes(known, taker, Book(home / "book"), looking)

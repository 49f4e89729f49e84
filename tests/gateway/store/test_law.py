"""The law of the queue: no delivery vanishes, and none changes its state but by the table of states."""

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from ipaddress import ip_address
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test
from sqlalchemy import make_url

from gateway.model import Envelope, Notice, Recipient, Session, State, new_id
from gateway.store import mailbox, messages, quarantine, queue, schema
from gateway.store.engine import Store

LEASE, KEEP = 60.0, 30 * 86400.0
OWNERS = st.sampled_from(["one", "two"])
NOTICES = st.sampled_from([None, *Notice])
STEPS = {(before, after) for (before, _), after in queue.TRANSITIONS.items() if before}


@dataclass
class Work:
    """One delivery as a worker remembers having claimed it."""

    id: int
    owner: str


class Deliveries(RuleBasedStateMachine):
    """Workers, administrators, people and the clock do what they like, in any order."""

    ids, claims, tellings = Bundle("ids"), Bundle("claims"), Bundle("tellings")
    make_place: Callable[[], AbstractContextManager[str]]

    def __init__(self):
        super().__init__()
        self.place = ExitStack()
        self.store = Store(self.place.enter_context(self.make_place()))
        self.store.migrate()
        self.now = 1_800_000_000.0
        self.states = {}
        self.bodies = {}

    def teardown(self):
        self.store.close()
        self.place.close()

    def do(self, function, *words, **options):
        with self.store.begin() as conn:
            return function(conn, *words, **options)

    @rule(target=ids, state=st.sampled_from(list(queue.FIRST)), box=st.sampled_from(["", "bob"]))
    def accept(self, state, box):
        box = "bob" if state is State.MAILBOX else box
        id_, body = new_id(), new_id().encode()
        session = Session(ip_address("192.0.2.1"))
        draft = messages.Draft(id_, self.now, session, Envelope("a@b.example"), b"H: x\r\n", BytesIO(body))
        row = messages.Row(Recipient("bob@example.net"), state, mailbox=box)
        self.do(messages.refuse if state is State.REFUSED else messages.accept, draft, [row])
        with self.store.reading() as conn:
            (delivery,) = queue.of_message(conn, id_)
        assert delivery.id not in self.states
        self.states[delivery.id] = state
        self.bodies[delivery.id] = b"H: x\r\n" + body
        return delivery.id

    @rule(seconds=st.sampled_from([1.0, LEASE, 86400.0, -3600.0]))
    def time_passes(self, seconds):
        self.now += seconds

    @rule(target=claims, owner=OWNERS)
    def claim(self, owner):
        got = self.do(queue.claim, owner, 1, self.now, LEASE)
        return Work(got[0].id, owner) if got else Work(0, owner)

    @rule(work=consumes(claims), how=st.sampled_from(["sent", "failed", "retry", "release"]), notice=NOTICES)
    def settle(self, work, how, notice):
        words = (work.id, work.owner, "250 so be it", self.now)
        if how == "sent":
            self.do(queue.sent, *words, notice)
        elif how == "failed":
            self.do(queue.failed, *words, notice)
        elif how == "retry":
            self.do(queue.retry, *words, self.now + 300, notice)
        else:
            self.do(queue.release_claims, work.owner, [work.id])

    @rule(target=tellings, owner=OWNERS)
    def claim_notice(self, owner):
        got = self.do(queue.owed_notices, owner, 1, self.now, LEASE)
        return Work(got[0].id, owner) if got else Work(0, owner)

    @rule(work=consumes(tellings))
    def tell(self, work):
        self.do(queue.notice_sent, [work.id], work.owner, self.now)

    @rule(id_=ids, what=st.sampled_from([queue.drop, quarantine.drop, quarantine.release, queue.hold]))
    def administrate(self, id_, what):
        self.do(what, id_, "admin", now=self.now)

    @rule(id_=ids)
    def fetch_and_delete(self, id_):
        if self.do(mailbox.lock, "bob", "session", self.now, LEASE):
            self.do(mailbox.delete, "bob", "session", [id_], self.now)
            self.do(mailbox.unlock, "bob", "session")

    @rule()
    def clean_up(self):
        self.do(quarantine.expire, self.now, KEEP)
        self.do(messages.sweep, self.now, 100 * KEEP)

    @invariant()
    def no_delivery_vanishes_and_none_leaves_the_table(self):
        with self.store.reading() as conn:
            found = {each.id: each for each in queue.list_deliveries(conn, list(State), 10_000)}
            assert found.keys() == self.states.keys()
            for id_, each in found.items():
                before, self.states[id_] = self.states[id_], each.state
                assert before == each.state or (before, each.state) in STEPS
                if each.state in queue.LIVE or (each.notice and each.state is not State.REFUSED):
                    assert b"".join(messages.read_chunks(conn, each.message_id)) == self.bodies[id_]


SETTINGS = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


@contextmanager
def in_a_file():
    with tempfile.TemporaryDirectory() as folder:
        yield f"sqlite:///{Path(folder) / 'gatepost.db'}"


def test_the_law_on_sqlite():
    class OnSqlite(Deliveries):
        make_place = staticmethod(in_a_file)

    run_state_machine_as_test(OnSqlite, settings=SETTINGS)


def test_the_law_on_postgres(database, postgres_url):
    @contextmanager
    def emptied():
        tables = ", ".join(table.name for table in reversed(schema.metadata.sorted_tables))
        database.execute(f"TRUNCATE {tables}", database=make_url(postgres_url).database)
        yield postgres_url

    class OnPostgres(Deliveries):
        make_place = staticmethod(emptied)

    run_state_machine_as_test(OnPostgres, settings=SETTINGS)

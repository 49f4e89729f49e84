"""A store of its own on each of the databases, and mail to put into it."""

from io import BytesIO
from ipaddress import ip_address

import pytest

from gateway.model import Envelope, Recipient, Session, State, new_id
from gateway.store import messages, queue
from gateway.store.engine import Store

NOW = 1_800_000_000.0


@pytest.fixture
def sqlite_url(tmp_path):
    return f"sqlite:///{tmp_path / 'data' / 'gatepost.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request):
    """Where a store is kept, on each database in turn."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def empty_postgres_url(database):
    name = database.create()
    yield database.url(name)
    database.drop(name)


@pytest.fixture(params=["sqlite", "empty_postgres"])
def empty_url(request):
    """The same, without any tables."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def store(url):
    store = Store(url, patience=5.0)
    store.migrate()
    yield store
    store.close()


@pytest.fixture
def draft():
    """A mail that came at NOW; words given replace its own."""

    def make(body=b"Subject: x\r\n\r\nbody\r\n", **words):
        mail = {
            "id": new_id(),
            "received_at": NOW,
            "session": Session(ip_address("192.0.2.1"), helo="mail.example"),
            "envelope": Envelope("sender@example.org"),
            "header": b"Received: by us\r\n",
            "body": BytesIO(body),
        }
        return messages.Draft(**(mail | words))

    return make


@pytest.fixture
def put(store, draft):
    """Store one mail for one recipient, and return the delivery."""

    def make(state=State.QUEUED, address="bob@example.net", body=b"body\r\n", recipient=None, mail=None, **words):
        mail = {**(mail or {})}
        made = draft(body, **mail)
        row = messages.Row(recipient or Recipient(address), state, **words)
        with store.begin() as conn:
            messages.accept(conn, made, [row])
            (delivery,) = queue.of_message(conn, made.id)
        return delivery

    return make


@pytest.fixture
def look(store):
    """Run one function on a snapshot of the store."""

    def run(function, *words, **options):
        with store.reading() as conn:
            return function(conn, *words, **options)

    return run


@pytest.fixture
def change(store):
    """Run one function in a transaction of its own."""

    def run(function, *words, **options):
        with store.begin() as conn:
            return function(conn, *words, **options)

    return run


@pytest.fixture
def now():
    return NOW

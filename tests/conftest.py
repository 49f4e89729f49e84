"""Fixtures of the outside programs: what serves many tests unchanged lives for the session, all else for one test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.store.engine import Store
from tests.peers import certificates, clamd, dns, postgres, smtp_sink
from tests.peers.certificates import Certificate
from tests.peers.clamd import Clamd
from tests.peers.dns import Dns
from tests.peers.postgres import Postgres
from tests.peers.smtp_sink import SmtpSink


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Self-signed, for localhost and 127.0.0.1."""
    return certificates.self_signed(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def other_certificate(tmp_path: Path) -> Certificate:
    """For the same names, but not the one that a server here shows."""
    directory = tmp_path / "other-certificate"
    directory.mkdir()
    return certificates.self_signed(directory)


@pytest.fixture(scope="session")
def real_clamd() -> Iterator[Clamd]:
    """Shared: a test that needs signatures or limits of its own runs a clamd of its own."""
    with clamd.run() as running:
        yield running


@pytest.fixture(scope="session")
def _resolver() -> Iterator[Dns]:
    with dns.run() as running:
        yield running


@pytest.fixture
def resolver(_resolver: Dns) -> Dns:
    """One unbound for the session, without records or faults at the start of each test."""
    _resolver.clear()
    return _resolver


@pytest.fixture
def sink() -> Iterator[SmtpSink]:
    """An smtp-sink that accepts everything."""
    with smtp_sink.run() as running:
        yield running


@pytest.fixture(scope="session")
def database() -> Iterator[Postgres]:
    """A PostgreSQL server for the session."""
    with postgres.run() as running:
        yield running


@pytest.fixture(scope="session")
def _migrated(database: Postgres) -> str:
    """The name of a database that has our tables; every test gets a copy of it."""
    name = database.create()
    store = Store(database.url(name))
    store.migrate()
    store.close()
    return name


@pytest.fixture
def postgres_url(database: Postgres, _migrated: str) -> Iterator[str]:
    """The URL of an empty store on PostgreSQL, for this test alone."""
    name = database.create(template=_migrated)
    yield database.url(name)
    database.drop(name)

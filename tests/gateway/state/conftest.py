"""One redis-server for all tests of the state that do not break it."""

from collections.abc import Iterator

import pytest

from tests.peers import redis
from tests.peers.certificates import Certificate
from tests.peers.redis import Redis


@pytest.fixture(scope="session")
def _server(certificate: Certificate) -> Iterator[Redis]:
    with redis.run(certificate=certificate) as running:
        yield running


@pytest.fixture
def server(_server: Redis) -> Redis:
    """Empty at the start of each test."""
    _server.clear()
    return _server

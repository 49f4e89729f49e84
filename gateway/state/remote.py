"""The shared state on a Valkey or Redis: for several nodes, which then count together.

Everything we write there has an end of its life, and a question that finds no answer in time is `Temporary`, never a
wait. The library is loaded at the first question: a process that asks none is smaller.
"""

from __future__ import annotations

import asyncio
import math
import re
import ssl
from collections.abc import Awaitable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

from gateway.model import Temporary
from gateway.state.limits import MAX_COUNT, bounded, checked, counted

if TYPE_CHECKING:
    import redis.asyncio as valkey

PREFIX = "gatepost:"
"""Before all our keys: the database may be shared with other programs."""

CONNECTIONS = 16
"""Connections of one process; more questions at once wait for one to be free."""

MAX_PASSWORD = 1024
"""Octets of a password file that are read."""

TLS = {"rediss", "valkeys"}
"""The schemes of URLs that mean TLS."""

_ADD = """
local ttl, most, counts = tonumber(ARGV[1]), tonumber(ARGV[2]), {}
for number, key in ipairs(KEYS) do
    local count, left = tonumber(redis.call('GET', key) or 0) or 0, redis.call('PTTL', key)
    if left <= 0 then count, left = 0, ttl end
    local amount = tonumber(ARGV[2 + number])
    if amount ~= 0 then
        count = math.max(-most, math.min(most, count + amount))
        redis.call('SET', key, string.format('%.0f', count), 'PX', left)
    end
    counts[number] = count
end
return counts
"""
# A script, because it is one step for everybody else: no counter can be left without an end.

T = TypeVar("T")


class RemoteState:
    """`gateway.model.Shared` on the server at `url`, for one event loop.

    The URL is redis://HOST:PORT/NUMBER (or rediss, valkey, valkeys) or unix:///PATH?db=NUMBER, and may hold user and
    password; `password_file` is read at each new connection, so it can change meanwhile. rediss and valkeys verify
    the server's certificate, against `ca_file` if there is one. No question takes longer than `timeout` seconds.
    """

    def __init__(
        self, url: str, *, password_file: Path | None = None, ca_file: str | None = None, timeout: float = 1.0
    ) -> None:
        self._url, self._password_file, self._ca_file, self._timeout = urlsplit(url), password_file, ca_file, timeout
        self._place = re.sub(r"//[^/]*@", "//", url)

    @property
    def place(self) -> str:
        """Where it is, for people: without the password."""
        return self._place

    async def get(self, key: str) -> str | None:
        """The value of *key*, or None where there is none or its time is over."""
        value = await self._answer(self._client.get(_named(key)))
        return None if value is None else str(value)

    async def put(self, key: str, value: str, ttl: float) -> None:
        """Keep *value* under *key* for *ttl* seconds. ValueError above `MAX_VALUE`."""
        await self._answer(self._client.set(_named(key), checked(value), px=_milliseconds(ttl)))

    async def add(self, key: str, amount: int, ttl: float) -> int:
        """Add *amount* to the counter *key* and return it. The first amount starts the *ttl* seconds it lives."""
        return (await self.add_all({key: amount}, ttl))[0]

    async def add_all(self, amounts: Mapping[str, int], ttl: float) -> Sequence[int]:
        """`add` for each of *amounts*, all or none."""
        words = [_milliseconds(ttl), MAX_COUNT, *map(counted, amounts.values())]
        counts = await self._answer(self._script(keys=[*map(_named, amounts)], args=words))
        return [int(count) for count in counts]

    async def claim(self, key: str, ttl: float) -> bool:
        """Whether the caller is the first to claim *key* within *ttl* seconds."""
        return bool(await self._answer(self._client.set(_named(key), "1", px=_milliseconds(ttl), nx=True)))

    async def aclose(self) -> None:
        """Close all connections."""
        if "_client" in self.__dict__:
            await self._client.aclose()

    async def _answer(self, question: Awaitable[T]) -> T:
        from redis import exceptions as failures  # noqa: PLC0415 - see the top

        try:
            async with asyncio.timeout(self._timeout):
                return await question
        except (TimeoutError, failures.TimeoutError):
            raise Temporary(f"the shared state did not answer within {self._timeout:g} s") from None
        except (failures.AuthenticationError, failures.NoPermissionError):
            raise Temporary("the shared state does not let us in: look at user and password of [state]") from None
        except failures.ResponseError:
            await self._client.connection_pool.disconnect(inuse_connections=False)  # it may be a replica by now
            raise Temporary("the shared state refuses what we ask") from None
        except (failures.RedisError, OSError, UnicodeError):
            raise Temporary("the shared state is out of reach") from None

    @cached_property
    def _client(self) -> valkey.Redis:
        import redis.asyncio as valkey  # noqa: PLC0415 - see the top
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415

        pool = valkey.BlockingConnectionPool(
            max_connections=CONNECTIONS,
            timeout=self._timeout,
            socket_timeout=self._timeout,
            socket_connect_timeout=self._timeout,
            retry=Retry(NoBackoff(), 0),  # what was asked twice might count twice
            decode_responses=True,
            protocol=2,
            credential_provider=_Credentials(self._url, self._password_file),
            **self._way(),
        )
        return valkey.Redis.from_pool(pool)

    @cached_property
    def _script(self) -> Any:
        return self._client.register_script(_ADD)

    def _way(self) -> dict[str, Any]:
        """How to get there, in the words of the library."""
        from redis.asyncio import connection  # noqa: PLC0415 - see the top

        url = self._url
        if url.scheme == "unix":
            number = url.query.removeprefix("db=") or 0
            return {"connection_class": connection.UnixDomainSocketConnection, "path": unquote(url.path), "db": number}
        way = {"host": url.hostname, "port": url.port or 6379, "db": url.path.strip("/") or 0, "socket_keepalive": True}
        if url.scheme not in TLS:
            return {**way, "connection_class": connection.Connection}
        return {
            **way,
            "connection_class": connection.SSLConnection,
            "ssl_ca_certs": self._ca_file,
            "ssl_min_version": ssl.TLSVersion.TLSv1_2,
        }


class _Credentials:
    """User and password for a new connection, in the way the library asks for them."""

    def __init__(self, url: SplitResult, file: Path | None) -> None:
        self._url, self._file = url, file

    def get_credentials(self) -> tuple[str, ...]:
        """(password,), (user, password), or nothing."""
        password = unquote(self._url.password or "") if self._file is None else read_password(self._file)
        return tuple(filter(None, (unquote(self._url.username or ""), password))) if password else ()

    async def get_credentials_async(self) -> tuple[str, ...]:
        """The same: the file is small."""
        return self.get_credentials()


def read_password(file: Path) -> str:
    """The first line of *file*. `OSError` or `UnicodeError` where there is none."""
    with file.open("rb") as opened:
        return opened.readline(MAX_PASSWORD).decode().rstrip("\r\n")


def _named(key: str) -> str:
    return PREFIX + bounded(key)


def _milliseconds(ttl: float) -> int:
    return max(1, math.ceil(ttl * 1000))

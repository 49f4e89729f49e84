"""A wrong password is answered in the same words and the same time whether its user is there."""

import asyncio
import base64
import random
import time

import pytest
import uvloop

from gateway import accounts
from gateway.smtp import replies
from gateway.stages import Edge, Logins
from gateway.store.engine import Store
from tests import cheap_passwords
from tests.gateway.smtp.conversation import DEADLINE, Intake, listener, server_context, serving, trusting_context
from tests.statistics import p_value

EACH = 200
PATIENT = Edge(auth_failures=10**6, errors=10**6, commands=10**6)
FREE = Logins(delay=0.0, free_per_user=10**6, free_per_peer=10**6)


@pytest.fixture
def checker(tmp_path, monkeypatch):
    cheap_passwords.use(monkeypatch)
    store = Store(f"sqlite:///{tmp_path / 'gatepost.db'}", patience=5.0)
    store.migrate()
    with store.begin() as conn:
        accounts.add(conn, "alice", accounts.hash_password("secret"), ["alice@example.net"])
    made = accounts.Authenticator(store, threads=1)
    yield made
    made.close()
    store.close()


class Checking(Intake):
    """An intake that has real passwords checked."""

    checker: accounts.Authenticator

    async def authenticate(self, peer, login, password):
        return await self.checker.identify(login, password)


class Leak(Checking):
    """One that looks for a while only where somebody is there."""

    async def authenticate(self, peer, login, password):
        if login != "alice":
            return ""
        return await super().authenticate(peer, login, password)


async def line(reader):
    return await asyncio.wait_for(reader.readline(), DEADLINE)


async def begun(port):
    """A session that may log in."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting_context())
    await line(reader)
    writer.write(b"EHLO a\r\n")
    while (await line(reader))[3:4] == b"-":
        pass
    return reader, writer


async def looks_alike(reader, writer):
    taken = {"alice": [], "nobod": []}
    for user in random.sample([*taken] * EACH, 2 * EACH):
        said = b"AUTH PLAIN " + base64.b64encode(f"\0{user}\0wrong".encode()) + b"\r\n"
        began = time.perf_counter()
        writer.write(said)
        assert await line(reader) == f"{replies.AUTH_FAILED}\r\n".encode()
        taken[user].append(time.perf_counter() - began)
    return p_value(*taken.values()) > 0.01


async def is_even(intake, folder):
    """Whether one of three looks shows no difference: chance shows one in a hundred."""
    at = listener("submission", secured="implicit")
    async with serving(intake, at, folder, server_context(folder)) as port:
        reader, writer = await begun(port)
        alike = False
        for _ in range(3):
            alike = alike or await looks_alike(reader, writer)
        writer.close()
        await writer.wait_closed()
    return alike


@pytest.mark.parametrize(("kind", "even"), [(Checking, True), (Leak, False)])
def test_smtp_does_not_tell_by_its_time_who_is_here(tmp_path, checker, kind, even):
    intake = kind(PATIENT, logins=FREE)
    intake.checker = checker
    assert uvloop.run(is_even(intake, tmp_path)) is even

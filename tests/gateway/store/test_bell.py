"""The doorbell: who waits is woken by whoever has stored work, and by nothing that goes wrong with it."""

import asyncio
import os
import resource
import stat
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.store.bell import Bell
from gateway.store.engine import Store


@pytest.fixture
def url(sqlite_url):
    return sqlite_url


def test_the_bell_wakes_who_waits(url, tmp_path):
    listener, ringer = Store(url, bell=tmp_path / "bell"), Store(url, bell=tmp_path / "bell")

    async def run():
        loop = asyncio.get_running_loop()
        ringer.ring()  # nobody listens yet, and that is no error
        await listener.wait(0.01)
        began = loop.time()
        waiting = asyncio.ensure_future(listener.wait(10))
        await asyncio.sleep(0.02)
        for _ in range(1000):
            ringer.ring()
        await waiting
        assert loop.time() - began < 5
        began = loop.time()
        await listener.wait(0.05)  # many rings are one
        assert loop.time() - began >= 0.045

    asyncio.run(run())
    assert stat.S_IMODE((tmp_path / "bell").stat().st_mode) == 0o600
    listener.close()
    ringer.close()


def test_a_bell_left_by_a_killed_process_is_taken_over(url, tmp_path):
    first, second = Store(url, bell=tmp_path / "bell"), Store(url, bell=tmp_path / "bell")
    asyncio.run(first.wait(0))
    second.ring()
    asyncio.run(second.wait(0))
    first.close()
    second.close()


@pytest.mark.parametrize("bell", [None, Path("/nowhere/" + "x" * 200)])
def test_without_a_bell_waiting_is_only_waiting(url, bell):
    store = Store(url, bell=bell)
    store.ring()
    asyncio.run(store.wait(0.01))
    store.close()


@contextmanager
def no_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = os.dup(0)
    os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe, hard))  # all below are taken
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_ringing_without_a_free_descriptor_is_no_error(tmp_path):
    bell = Bell(tmp_path / "bell")
    with no_descriptors():
        bell.ring()


def test_waiting_without_a_free_descriptor_is_only_waiting(tmp_path):
    async def run():
        with no_descriptors():
            began = time.monotonic()
            await bell.wait(0.05)
            assert time.monotonic() - began >= 0.045
        ringer.ring()
        await bell.wait(0)

    bell, ringer = Bell(tmp_path / "bell"), Bell(tmp_path / "bell")
    asyncio.run(run())
    bell.close()

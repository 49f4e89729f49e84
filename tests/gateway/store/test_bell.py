"""A bell that cannot be rung keeps nobody from going on."""

import asyncio
import os
import resource
import time
from contextlib import contextmanager

from gateway.store.bell import Bell


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

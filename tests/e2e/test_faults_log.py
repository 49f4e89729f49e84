"""Standard output and error fail: nobody reads them, their disk is full, they are closed. Mail flows all the same."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import gateway as gateways
from tests.e2e import mails
from tests.e2e.gateway import Gateway
from tests.peers.certificates import Certificate
from tests.peers.dns import Dns
from tests.reliability import lab

pytestmark = pytest.mark.e2e

OUTSIDE, ALICE = "ann@out.example", "alice@in.example"


@contextmanager
def logging_to(place: str, certificate: Certificate, dns: int) -> Iterator[Gateway]:
    """A gateway whose output goes to *place*, as the shell writes it."""
    wrapper = ["/bin/sh", "-c", f'exec "$@" {place}', "sh"]
    policies = {"antivirus": gateways.lenient("antivirus")}
    with gateways.run(certificate, dns=dns, policies=policies, wrapper=wrapper) as running:
        yield running


def talk(gateway: Gateway, count: int) -> None:
    """Make it write a few lines for each of *count* mails."""
    for _ in range(0, count, 50):
        gateway.put(OUTSIDE, [ALICE], *(mails.mail() for _ in range(min(count, 50))))


def flows(gateway: Gateway) -> None:
    began, raw = time.monotonic(), mails.mail()
    gateway.put(OUTSIDE, [ALICE], raw)
    assert mails.same(mails.find(gateway.fetch("alice"), raw), raw)
    assert time.monotonic() - began < 10


def events(text: bytes) -> list[dict[str, Any]]:
    """The whole lines of a log: where the room ends, so does a line, and that of another process may stand behind it."""
    found = []
    for line in text.splitlines():
        with suppress(ValueError):
            found.append(json.loads(line))
    return found


def lost(told: list[dict[str, Any]]) -> int:
    return sum(one["count"] for one in told if one["event"] == "log lines lost")


def test_a_pipe_that_nobody_reads_blocks_nothing_and_tells_later_what_it_lost(
    certificate: Certificate, names: Dns, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    got = bytearray()

    def drain() -> None:
        while more := _read(reader):
            got.extend(more)

    try:
        with logging_to(f">{pipe} 2>&1", certificate, names.port) as gateway:
            talk(gateway, 150)  # the pipe holds 64 KB
            flows(gateway)
            drain()
            talk(gateway, 1)
            drain()
            told = events(bytes(got))
            assert lost(told) > 10
            assert told[-1]["event"] != "log lines lost"
            talk(gateway, 150)  # and nobody reads how it ends
    finally:
        os.close(reader)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 1 << 20)
    except BlockingIOError:
        return b""


def test_a_full_disk_under_the_log_costs_lines_and_they_are_counted(
    certificate: Certificate, names: Dns, tmp_path: Path
) -> None:
    with lab.small_disk(tmp_path / "log", "256k") as disk:
        log = disk.folder / "log"
        with logging_to(f">>{log} 2>&1", certificate, names.port) as gateway:
            with disk.full():
                talk(gateway, 30)
                flows(gateway)
            talk(gateway, 1)
            assert lost(events(log.read_bytes())) > 10
            disk.fill()  # and it ends without room


def test_without_standard_streams_mail_flows_and_the_store_stays_whole(certificate: Certificate, names: Dns) -> None:
    with logging_to(">&- 2>&- <&-", certificate, names.port) as gateway:
        talk(gateway, 3)
        flows(gateway)
        assert not gateway.log()

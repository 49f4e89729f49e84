"""clamd errs, stalls, stops and dies: nothing is ever delivered unscanned, the line that decides is named, and all flows
again as soon as a clamd is good."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e import gateway as gateways
from tests.e2e import mails
from tests.e2e.gateway import Gateway, id_in, transaction
from tests.peers import clamd, processes
from tests.peers.certificates import Certificate
from tests.peers.dns import Dns
from tests.peers.fake_clamd import Mode
from tests.reliability import faults
from tests.reliability.faults import Site

pytestmark = pytest.mark.e2e

OUTSIDE, ALICE = "ann@out.example", "alice@in.example"
SIZE = 120_000
"""Octets of a mail that is larger than the fake clamd's limit."""
ERRORS = {
    Mode.ERR: "Heuristics.Limits.Exceeded.MaxScanTime ERROR",
    Mode.CLOSE_NOW: "",  # the mail is on its way or not: the words differ
    Mode.HANG: "took too long",
    Mode.DIE_AFTER: "closed without a whole answer",
    Mode.DIE_MID: "",
    Mode.LIMIT: "StreamMaxLength",
}
"""What the record says where clamd could not tell."""


@pytest.fixture(scope="module")
def own(certificate: Certificate, names: Dns) -> Iterator[Site]:
    with faults.site(certificate, names.port) as running:
        yield running


def large() -> bytes:
    return mails.mail("0123456789" * 6 + "\n" + ("x" * 70 + "\n") * (SIZE // 71))


def send(gateway: Gateway, raw: bytes) -> tuple[int, str]:
    with gateway.session() as client:
        return transaction(client, OUTSIDE, [ALICE], raw)


def sentence(gateway: Gateway, reply: str) -> str:
    """What the record says of the mail that got *reply*."""
    (fate,) = gateway.life(id_in(reply))["deliveries"]
    assert fate["delivery"]["state"] == "refused"
    found: str = fate["verdict"]["sentence"]
    return found


@pytest.mark.parametrize("mode", Mode)
def test_whatever_clamd_does_nothing_passes_unscanned_and_then_mail_flows_again(own: Site, mode: Mode) -> None:
    gateway, raw, scanned = own.trial.gateway, large(), len(own.scanner.streams)
    with faults.scanner(mode)(own):
        code, text = send(gateway, raw)
    if mode in ERRORS:
        assert (code, text[:5], "(antivirus/error)" in text) == (451, "4.7.1", True), text
        told = sentence(gateway, text)
        assert "deferred because antivirus could not tell" in told
        assert ERRORS[mode] in told
        assert "antivirus.toml `error`" in told
    elif mode in (Mode.FOUND, Mode.FRAG):
        assert (code, "(antivirus/infected)" in text) == (550, True), text
        assert "antivirus says infected (Eicar-Test-Signature)" in sentence(gateway, text)
    else:
        assert code == 250
    good = mails.mail()
    assert send(gateway, good)[0] == 250
    arrived = gateway.fetch("alice")
    assert mails.same(mails.find(arrived, good), good)
    assert any(mails.token(raw) in one for one in arrived) == (code == 250)
    whole = [one for one in own.scanner.streams[scanned:] if one.ended]
    assert mails.token(good) in whole[-1].data
    gateway.empty("alice")


def test_under_load_every_error_defers_and_the_ledger_balances(own: Site) -> None:
    outcome = faults.under(own, faults.scanner(Mode.DIE_AFTER), 0.5)
    assert {reply[:9] for reply in outcome.replies} == {"451 4.7.1"}


@pytest.fixture(scope="module")
def beside(
    certificate: Certificate, names: Dns, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Gateway, Path]]:
    """A gateway that looks for clamd at a path, where there is none as yet."""
    socket = Path(tmp_path_factory.mktemp("clamd") / "socket")
    policy = gateways.shipped("antivirus", sockets=f'["unix:{socket}"]').replace("60.0", "1.0")
    with gateways.run(certificate, dns=names.port, policies={"antivirus": policy}) as running:
        yield running, socket


def clamd_check(gateway: Gateway) -> tuple[bool, str]:
    checks = {one["name"]: one for one in gateway.cli("status", "--json").json["checks"]}
    return checks["clamd"]["ok"], checks["clamd"]["text"]


def test_a_real_clamd_that_is_stopped_continued_and_killed_in_the_middle_of_a_scan(
    beside: tuple[Gateway, Path],
) -> None:
    gateway, socket = beside
    with clamd.run() as scanner:
        socket.symlink_to(scanner.unix_socket)
        assert send(gateway, mails.mail())[0] == 250
        os.kill(scanner.process.pid, signal.SIGSTOP)
        code, text = send(gateway, large())
        assert (code, "(antivirus/error)" in text) == (451, True), text
        assert "took too long" in sentence(gateway, text)
        ok, words = clamd_check(gateway)
        assert not ok
        assert "no clamd answers" in words
        os.kill(scanner.process.pid, signal.SIGCONT)
        assert send(gateway, mails.mail())[0] == 250
        os.kill(scanner.process.pid, signal.SIGSTOP)
        began = time.monotonic()
        killer = threading.Timer(0.3, os.kill, (scanner.process.pid, signal.SIGKILL))
        killer.start()
        code, text = send(gateway, large())
        killer.join()
        assert (code, "(antivirus/error)" in text) == (451, True), text
        assert time.monotonic() - began < 5
    socket.unlink()
    with clamd.run() as scanner:
        socket.symlink_to(scanner.unix_socket)
        assert send(gateway, mails.mail())[0] == 250
        assert clamd_check(gateway)[0]
    socket.unlink()


def test_without_any_clamd_status_names_the_line_that_decides_and_it_does(beside: tuple[Gateway, Path]) -> None:
    gateway, socket = beside
    with suppress(FileNotFoundError):
        socket.unlink()
    ok, words = clamd_check(gateway)
    place = next(word for word in words.split() if "antivirus.toml:" in word)
    path, _, number = place.partition(":")
    line = (gateway.home / path).read_text().splitlines()[int(number) - 1]
    assert not ok
    assert line.startswith('error = "defer"')
    assert words.endswith('error = "defer"')
    assert send(gateway, mails.mail())[0] == 451
    assert processes.listening(gateway.ports["mx"])

"""Certificates and policies change under load: no session ends, no mail is lost, and what is faulty is never in force."""

import os
import shutil
import signal
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e import gateway as gateways
from tests.e2e import mails
from tests.e2e.gateway import Gateway, taken, transaction
from tests.peers import certificates, processes
from tests.peers.certificates import Certificate
from tests.peers.dns import Dns

pytestmark = pytest.mark.e2e

FAULTY = "[actions]\nfail = 1\n"


@pytest.fixture
def own(tmp_path: Path, names: Dns) -> Iterator[Gateway]:
    policies = {
        "antivirus": gateways.lenient("antivirus"),
        "edge": gateways.shipped("edge", messages="100000"),
        "rate": gateways.shipped("rate", enabled="false"),
    }
    certificate = certificates.self_signed(tmp_path)
    with gateways.run(certificate, dns=names.port, policies=policies, may_fail=True) as running:
        yield running


def send_until(gateway: Gateway, begun: threading.Barrier, over: threading.Event, *, secured: bool) -> int:
    """Send mail after mail in one session; how many were taken. Raises where one was not, or the session ended."""
    count = 0
    with gateway.session() as client:
        if secured:
            client.starttls(context=gateway.certificate.client_context())
            client.ehlo("client.example")
        begun.wait(30)
        while not over.wait(0.02):
            taken(transaction(client, "ann@out.example", ["alice@in.example"], mails.mail()))
            count += 1
    return count


def shown(gateway: Gateway) -> str:
    return ssl.get_server_certificate(("127.0.0.1", gateway.ports["submissions"]), timeout=10)


def put(certificate: Certificate, gateway: Gateway) -> None:
    """*certificate* in place of the one in use, and the gateway hears of it."""
    shutil.copy(certificate.certificate, gateway.certificate.certificate)
    shutil.copy(certificate.key, gateway.certificate.key)
    os.kill(gateway.process.pid, signal.SIGHUP)


def test_nobody_notices_that_certificates_and_policies_change(own: Gateway, certificate: Certificate) -> None:
    begun, over, before = threading.Barrier(3), threading.Event(), shown(own)
    with ThreadPoolExecutor(2) as pool:
        senders = [pool.submit(send_until, own, begun, over, secured=secured) for secured in (False, True)]
        try:
            begun.wait(30)
            change_everything(own, certificate)
        finally:
            over.set()
        counts = [sender.result(30) for sender in senders]
    assert min(counts) > 5
    assert len(own.fetch("alice")) == sum(counts)
    assert shown(own) != before


def change_everything(gateway: Gateway, certificate: Certificate) -> None:
    put(certificate, gateway)
    new = certificate.certificate.read_text()
    processes.wait_until(lambda: shown(gateway) == new, 20, "the new certificate")
    mark = gateway.mark()
    gateway.certificate.key.write_text("no key")
    os.kill(gateway.process.pid, signal.SIGHUP)
    gateway.wait_event("failure", mark, where="certificate")
    assert shown(gateway) == new
    for gtube in ("tag", "quarantine"):
        mark = gateway.mark()
        gateway.write_policy("spam", gateways.shipped("spam", gtube=f'"{gtube}"'))
        gateway.wait_policies(mark)
    mark = gateway.mark()
    gateway.write_policy("spf", FAULTY)
    gateway.wait_event("policies refused, the old ones stay in force", mark)

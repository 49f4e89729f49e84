"""clamd scans every mail: what it names is refused while the sender is there, and without it nothing passes."""

from pathlib import Path

import pytest

from tests.e2e import gateway as gateways
from tests.e2e import mails
from tests.e2e.gateway import Gateway, id_in, transaction
from tests.peers import clamd, clients
from tests.peers.certificates import Certificate
from tests.peers.clamd import EICAR, TESTFILES, Clamd
from tests.peers.dns import Dns

pytestmark = pytest.mark.e2e

OUTSIDE, ALICE = "ann@out.example", "alice@in.example"


def test_eicar_is_refused_at_the_end_of_the_data_with_id_and_reason(gateway: Gateway) -> None:
    done = clients.swaks(gateway.mx(), OUTSIDE, [ALICE], mails.attachment("test.txt", EICAR))
    (reply,) = [line for line in done.output.splitlines() if line.startswith("<** 550")]
    assert done.code == 26  # refused after DATA, by swaks(1)
    assert "550 5.7.1" in reply
    assert "(antivirus/infected)" in reply
    life = gateway.life(id_in(reply))
    assert [fate["delivery"]["state"] for fate in life["deliveries"]] == ["refused"]
    assert "antivirus says infected" in life["deliveries"][0]["verdict"]["sentence"]
    assert not life["message"]["has_bytes"]
    assert gateway.fetch("alice") == []


def test_every_wrapping_that_the_scanner_can_open_is_refused(gateway: Gateway, real_clamd: Clamd) -> None:
    if not TESTFILES.is_dir():
        pytest.skip("needs clamav-testfiles: see tests/packages.debian")
    known = 0
    for path in sorted(TESTFILES.iterdir()):
        raw = mails.attachment(path.name, path.read_bytes())
        if real_clamd.scan(raw).endswith(b"FOUND"):
            known += 1
            with gateway.session() as client:
                code, text = transaction(client, OUTSIDE, [ALICE], raw)
            assert (code, "antivirus/infected" in text) == (550, True), (path.name, text)
    assert known > 15
    assert gateway.fetch("alice") == []


def test_without_the_scanner_mail_is_deferred_and_with_it_flows_again(
    certificate: Certificate, names: Dns, tmp_path: Path
) -> None:
    socket, raw = tmp_path / "clamd", mails.mail()
    policies = {"antivirus": gateways.shipped("antivirus", sockets=f'["unix:{socket}"]')}
    with gateways.run(certificate, dns=names.port, policies=policies) as gateway:
        for round_ in range(2):
            with clamd.run() as scanner:
                socket.unlink(missing_ok=True)
                socket.symlink_to(scanner.unix_socket)
                gateway.put(OUTSIDE, [ALICE], raw)
                assert len(gateway.fetch("alice")) == round_ + 1
            with gateway.session() as client:
                code, text = transaction(client, OUTSIDE, [ALICE], raw)
            assert (code, "4.7.1" in text, "antivirus/error" in text) == (451, True, True), text
            assert gateway.cli("track", "--state", "mailbox", "--json").json[0]["action"] == "accept"
            assert len(gateway.fetch("alice")) == round_ + 1

"""What the gateway does not do for strangers."""

import base64

import pytest

from tests.e2e import mails
from tests.e2e.gateway import Gateway, transaction
from tests.peers import clients
from tests.peers.clients import Server, Tls

pytestmark = pytest.mark.e2e

OUTSIDE, ALICE, ELSEWHERE = "ann@out.example", "alice@in.example", "carol@fixed.example"


@pytest.mark.parametrize("to", [ELSEWHERE, "carol@unknown.example", "carol%fixed.example@in.example"])
@pytest.mark.parametrize("sender", [OUTSIDE, ALICE, ""])
def test_strangers_cannot_relay(gateway: Gateway, sender: str, to: str) -> None:
    done = clients.swaks(gateway.mx(), sender or "<>", [to], mails.mail())
    assert done.code == 24, done.output[-2000:]  # every recipient was refused, by swaks(1)
    assert "550 5.7.1" in done.output or "550 5.1.1" in done.output


@pytest.mark.parametrize(
    "to", ["<@in.example:carol@fixed.example>", '<"carol@fixed.example"@in.example>', "<carol@[127.0.0.1]>"]
)
def test_no_spelling_of_an_address_makes_a_relay(gateway: Gateway, to: str) -> None:
    with gateway.session() as client:
        client.mail(OUTSIDE)
        client.putcmd(f"RCPT TO:{to}")
        assert client.getreply()[0] in (550, 553)


def test_nobody_is_unknown_at_rcpt(gateway: Gateway) -> None:
    done = clients.swaks(gateway.mx(), OUTSIDE, ["nobody@in.example"], mails.mail())
    assert "550 5.1.1" in done.output
    assert done.code == 24


def test_postmaster_is_always_there(gateway: Gateway) -> None:
    for to in ("postmaster", "Postmaster@in.example"):
        gateway.put(OUTSIDE, [to], raw := mails.mail())
        assert mails.same(mails.find(gateway.fetch("alice"), raw), raw)


def test_submission_takes_nothing_without_a_login(gateway: Gateway) -> None:
    for tls in (Tls.UPGRADE, Tls.IMPLICIT):
        server = Server(gateway.submission("alice", tls).port, tls, trust=gateway.certificate)
        for to in (ALICE, ELSEWHERE):
            done = clients.swaks(server, ALICE, [to], mails.mail())
            assert "530 5.7.0" in done.output
            assert done.code == 23  # MAIL was refused, by swaks(1)


def test_a_wrong_password_opens_nothing(gateway: Gateway) -> None:
    server = Server(gateway.ports["submission"], Tls.UPGRADE, (ALICE, "wrong"), gateway.certificate)
    done = clients.curl_send(server, ALICE, [ELSEWHERE], mails.mail())
    assert done.code == 67, done.output[-2000:]
    assert "535 5.7.8" in done.output


def test_no_password_is_heard_without_tls(gateway: Gateway) -> None:
    with gateway.session("submission") as client:
        assert not client.has_extn("auth")
        secret = base64.b64encode(b"\0" + b"\0".join(word.encode() for word in gateway.login("alice"))).decode()
        assert client.docmd("AUTH", f"PLAIN {secret}")[0] == 538
        assert client.mail(ALICE)[0] == 530


def test_who_has_logged_in_cannot_pass_for_another(gateway: Gateway) -> None:
    done = clients.msmtp(gateway.submission("alice"), "bob@in.example", [ELSEWHERE], mails.mail())
    assert done.code != 0
    assert "553 5.7.1" in done.output


def test_a_mail_that_is_too_large_is_refused_at_mail_by_its_declared_size(gateway: Gateway) -> None:
    with gateway.session() as client:
        limit = int(client.esmtp_features["size"])
        assert limit == 50 << 20
        assert client.mail(OUTSIDE, [f"SIZE={limit}"])[0] == 250
        client.rset()
        code, text = client.mail(OUTSIDE, [f"SIZE={limit + 1}"])
    assert (code, text[:5]) == (552, b"5.3.4")


def test_a_mail_that_is_too_large_is_refused_though_it_did_not_say_so(gateway: Gateway) -> None:
    with gateway.session() as client:
        code, text = transaction(
            client, OUTSIDE, [ALICE], mails.mail("x" * 70 + "\n") + (b"y" * 998 + b"\r\n") * 53_000
        )
        assert (code, text[:5]) == (552, "5.3.4")
        assert client.noop()[0] == 250
    assert gateway.fetch("alice") == []


@pytest.mark.parametrize("end", [b"\n.\r\n", b"\r.\r\n", b"\n.\n", b"\r\n.\n", b"\r\n.\r", b"\n\n.\r\n"])
def test_no_other_end_of_data_smuggles_a_second_mail(gateway: Gateway, end: bytes) -> None:
    second = b"MAIL FROM:<evil@out.example>\r\nRCPT TO:<bob@in.example>\r\nDATA\r\nSubject: smuggled\r\n\r\nhi\r\n.\r\n"
    with gateway.session() as client:
        client.mail(OUTSIDE)
        client.rcpt(ALICE)
        assert client.docmd("DATA")[0] == 354
        client.send(b"Subject: first\r\n\r\nhello" + end + second)
        code, _ = client.getreply()
        assert code == 550
        assert client.noop()[0] == 250
    assert gateway.fetch("alice") == gateway.fetch("bob") == []

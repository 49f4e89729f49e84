"""Whose name a mail bears, over the whole product: users as themselves, doubtful authors held, results only from us."""

from pathlib import Path

import pytest

from tests.e2e import mails
from tests.e2e.gateway import Gateway, id_in, taken, transaction

pytestmark = pytest.mark.e2e

OUTSIDE, ALICE, BOB = "ann@out.example", "alice@in.example", "bob@in.example"
FORGED = Path(__file__).parents[1] / "results/forged.txt"
ROWS = [line for line in FORGED.read_text("utf-8").splitlines() if not line.startswith("#")]


def bearing(*fields: str) -> bytes:
    """A mail to bob with these fields in place of its From."""
    head, _, rest = mails.mail(recipient=BOB).partition(b"\r\n")
    assert head.startswith(b"From:")
    return "".join(f"{field}\r\n" for field in fields).encode() + rest


def test_all_fields_in_our_name_are_taken_out_and_ours_is_the_only_one(gateway: Gateway) -> None:
    head, gap, body = mails.mail().partition(b"\r\n\r\n")
    lies = b"".join(row.encode().decode("unicode_escape").encode("latin-1") for row in ROWS)
    raw = head + b"\r\n" + lies + b"X-Honest: stays" + gap + body
    gateway.put(OUTSIDE, [ALICE], raw)
    (arrived,) = gateway.fetch("alice")
    assert mails.digest(arrived) == mails.digest(raw)
    top, ours, below = mails.header(arrived).partition("\nX-Gatepost-Id: ")
    assert ours
    assert "gatepost" not in below.lower()
    assert "authentication-results" not in below.lower()
    assert "gw.peer.example" not in below.lower()
    assert "dmarc=pass" not in top + below
    assert top.count("Authentication-Results: gw.peer.example;\n\tspf=") == 1
    assert below.endswith("X-Honest: stays\n")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        (("From: bob@in.example",), "not_yours"),
        (("From: admin@elsewhere.example",), "not_yours"),
        (("From: alice@in.example", "Sender: bob@in.example"), "not_yours"),
        (("From: alice@in.example", "From: bob@in.example"), "ambiguous"),
        (("From: alice@in.example, bob@in.example",), "ambiguous"),
    ],
)
def test_who_has_logged_in_writes_in_no_other_name(gateway: Gateway, fields: tuple[str, ...], code: str) -> None:
    with gateway.session("submission", "alice") as client:
        reply = transaction(client, ALICE, [BOB], bearing(*fields))
    assert (reply[0], f"from_header/{code}" in reply[1]) == (550, True), reply


def test_who_has_logged_in_writes_under_every_address_of_the_account(gateway: Gateway) -> None:
    with gateway.session("submission", "alice") as client:
        taken(transaction(client, ALICE, [BOB], bearing("From: Alice <Alice+garden@IN.example>")))


def test_a_mail_that_shows_two_authors_is_held_and_it_is_said_why(gateway: Gateway) -> None:
    with gateway.session() as client:
        reply = transaction(client, OUTSIDE, [BOB], bearing("From: ann@out.example", "From : boss@in.example"))
    (fate,) = gateway.life(id_in(taken_text(reply)))["deliveries"]
    assert fate["delivery"]["state"] == "held"
    assert "from_header says ambiguous (there are 2 From fields" in fate["verdict"]["sentence"]
    assert "seen by one or another: out.example, in.example" in fate["verdict"]["sentence"]


def taken_text(reply: tuple[int, str]) -> str:
    assert reply[0] == 250, reply
    return reply[1]

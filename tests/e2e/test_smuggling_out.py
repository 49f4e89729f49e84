"""What leaves the house is one message to every reader: as submitted, when it is released, and within a report.

Who has logged in may not use us to smuggle a second mail into the next host either.
"""

import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import mails
from tests.e2e.conftest import World
from tests.e2e.gateway import Gateway, id_in
from tests.peers import strict_sink
from tests.peers.strict_sink import StrictSink

pytestmark = pytest.mark.e2e

ALICE, THERE = "alice@in.example", "x@other.example"
TABLE = Path(__file__).parents[1] / "dialogs/end_of_data.txt"
ROWS = [line.split(maxsplit=1) for line in TABLE.read_text("utf-8").splitlines() if not line.startswith("#")]
SECOND = b"MAIL FROM:<e@vil.example>\r\nRCPT TO:<bob@in.example>\r\nDATA\r\nSubject: second\r\n\r\nhi\r\n"
BARE = [*[row for verdict, row in ROWS if verdict == "bare"][::4], r"\r\n\0.\r\n"]
TRICKS = [row for verdict, row in ROWS if verdict == "content"]


@pytest.fixture
def sink(world: World) -> Iterator[StrictSink]:
    with strict_sink.run(world.neighbours["other"]) as running:
        yield running


def unescaped(text: str) -> bytes:
    return text.encode().decode("unicode_escape").encode("latin-1")


def tricky(*, dots: bool) -> bytes:
    """Lines that look like the end of a message to somebody; with *dots* those that only BDAT can carry as they are."""
    return b"".join(b"x" + unescaped(row) + SECOND for row in TRICKS) + (b"\r\n.\r\n" + SECOND) * dots


def mail(text: bytes, **more: str) -> bytes:
    kind = "text/plain; charset=iso-8859-1"
    head, _, _ = mails.mail(kind=kind, encoding="8bit", sender=ALICE, recipient=THERE, **more).partition(b"\r\n\r\n")
    return head + b"\r\n\r\n" + text


def send(client: smtplib.SMTP, verb: str, sender: str, recipient: str, raw: bytes, *options: str) -> tuple[int, str]:
    """One mail by DATA or BDAT, its octets as they are; the reply to its end."""
    assert client.mail(sender, ["BODY=8BITMIME", *options])[0] == 250
    assert client.rcpt(recipient)[0] == 250
    if verb == "DATA":
        assert client.docmd("DATA")[0] == 354
        client.send(raw + b".\r\n")
    else:
        client.send(b"BDAT %d LAST\r\n" % len(raw) + raw)
    code, text = client.getreply()
    return code, text.decode()


def stuffed(raw: bytes) -> bytes:
    return (b"\r\n" + raw).replace(b"\r\n.", b"\r\n..")[2:]


@pytest.mark.parametrize("verb", ["DATA", "BDAT"])
def test_who_has_logged_in_cannot_smuggle_either(gateway: Gateway, sink: StrictSink, verb: str) -> None:
    with gateway.session("submission", "alice") as client:
        for row in BARE:
            code, text = send(client, verb, ALICE, THERE, mail(b"x" + unescaped(row) + SECOND))
            assert (code, text[:5]) in ((550, "5.6.1"), (550, "5.6.0")), row
            assert client.noop()[0] == 250
    assert sink.taken == []
    assert gateway.fetch("bob") == []


@pytest.mark.parametrize("verb", ["DATA", "BDAT"])
def test_what_only_looks_like_an_end_leaves_as_one_message(gateway: Gateway, sink: StrictSink, verb: str) -> None:
    raw = mail(tricky(dots=verb == "BDAT"))
    with gateway.session("submission", "alice") as client:
        code, text = send(client, verb, ALICE, THERE, stuffed(raw) if verb == "DATA" else raw)
    assert code == 250, text
    gateway.wait_event("attempt", id=id_in(text), state="sent")
    (one,) = sink.taken
    assert one.raw.endswith(raw)
    assert one.is_one_to_everybody()
    assert one.recipients == (b"TO:<x@other.example>",)


def test_a_held_mail_leaves_as_one_message_when_it_is_released(gateway: Gateway, sink: StrictSink) -> None:
    raw = mails.attachment(
        "tools.zip", mails.zipped("setup.exe", mails.program()), "application/zip", sender=ALICE, recipient=THERE
    )
    raw = raw.replace(b"See the file.\r\n", b"See the file.\r\n.\r\n" + SECOND + b"..\r\n. \r\n")
    with gateway.session("submission", "alice") as client:
        code, text = send(client, "BDAT", ALICE, THERE, raw)
    assert code == 250, text
    (held,) = [one for one in gateway.cli("quarantine", "list", "--json").json if one["message_id"] == id_in(text)]
    assert sink.taken == []
    assert gateway.cli("quarantine", "release", str(held["delivery_id"])).code == 0
    (one,) = sink.wait_taken(1)
    assert one.raw.endswith(raw)
    assert one.is_one_to_everybody()


def test_the_report_of_a_refused_mail_is_one_message(world: World, gateway: Gateway, sink: StrictSink) -> None:
    raw = mail(tricky(dots=True))
    refusal = b"550-5.7.1 no\x85.\r\n550 5.7.1 Subject: a\xe2\x80\xa8.\x0b.\t.\r\n"
    with strict_sink.run(world.neighbours["refusing"], refusal), gateway.session("relay") as client:
        code, text = send(
            client, "BDAT", "printer@other.example", "x@refusing.example", raw, "RET=FULL", "ENVID=a+2E+2Eb"
        )
        assert code == 250, text
        (report,) = sink.wait_taken(1)
    assert report.sender.startswith(b"FROM:<>")
    assert report.is_one_to_everybody()
    _, (about,) = mails.report(report.raw)
    assert about["Status"] == "5.7.1"
    assert mails.token(raw) in report.raw
    assert SECOND in report.raw


def test_addresses_are_data_on_their_way_out(gateway: Gateway, sink: StrictSink) -> None:
    """What is a command, a path, an option or a pattern to somebody is a local part here, and leaves as it was normalised."""
    odd = ["|id", "`id`", "-froot", "--help", "/etc/passwd", "${IFS}id", "*", "{0}", "%s", '"a b"', '"../../x"', "a%b"]
    expected = [f"TO:<{local}@other.example>".encode() for local in odd]
    raw = mail(b"x\r\n")
    before = {path.name for path in gateway.home.iterdir()}
    with gateway.session("relay") as client:
        assert client.mail(ALICE, ["BODY=8BITMIME"])[0] == 250
        for local in [*odd, '"-froot"', '"|\\id"']:  # the last two are the same as others, once they are normalised
            assert client.rcpt(f"<{local}@OTHER.Example>")[0] == 250, local
        code, text = client.data(raw)
    assert code == 250
    mail_id = id_in(text.decode())
    (one,) = sink.wait_taken(1)
    assert sorted(one.recipients) == sorted(expected)
    for recipient in expected:
        gateway.wait_event("attempt", id=mail_id, recipient=recipient[4:-1].decode(), state="sent")
    assert {path.name for path in gateway.home.iterdir()} == before

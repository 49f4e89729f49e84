"""The `gatepost` command beside a running gateway: what it says, and its exit codes."""

import poplib
from pathlib import Path

import pytest

from filters.spam import GTUBE
from tests.e2e import mails
from tests.e2e.conftest import World
from tests.e2e.gateway import Gateway, taken, transaction
from tests.peers import processes

pytestmark = pytest.mark.e2e

OUTSIDE, ALICE = "ann@out.example", "alice@in.example"
DONE, REFUSED, USAGE, UNREACHABLE = range(4)


@pytest.fixture
def message(tmp_path: Path) -> Path:
    path = tmp_path / "message.eml"
    path.write_bytes(mails.dots())
    return path


def test_send_puts_a_mail_through_the_gateway_and_track_knows_its_life(gateway: Gateway, message: Path) -> None:
    done = gateway.cli("send", message, "--from", OUTSIDE, "--to", ALICE, "--json")
    assert done.code == DONE, done
    assert done.json["code"] == 250
    assert mails.same(mails.find(gateway.fetch("alice"), message.read_bytes()), message.read_bytes())
    life = gateway.life(done.json["id"])
    assert life["message"]["envelope"]["sender"] == OUTSIDE
    assert life["message"]["subject"] == "dots"
    assert life["deliveries"][0]["delivery"]["state"] == "mailbox"
    assert life["evidence"]["found"]["antivirus"][0]["code"] == "clean"
    assert [event["kind"] for event in life["events"]]
    found = gateway.cli("track", "--from", OUTSIDE, "--to", ALICE, "--subject", "dots", "--since", "1h", "--json")
    assert done.json["id"] in {row["message_id"] for row in found.json}
    by_message_id = gateway.cli("track", mails.token(message.read_bytes()).decode())
    assert by_message_id.code == DONE
    assert done.json["id"] in by_message_id.stdout


def test_send_submits_as_a_user(world: World, gateway: Gateway, tmp_path: Path) -> None:
    name, password = gateway.login("alice")
    (tmp_path / "out.eml").write_bytes(raw := mails.latin(sender=ALICE))
    words = ("send", tmp_path / "out.eml", "--from", ALICE, "--to", "carol@fixed.example", "--user", name)
    done = gateway.cli(*words, env={"GATEPOST_PASSWORD": password})
    assert done.code == DONE, done
    processes.wait_until(lambda: any(mails.token(raw) in one for one in world.postfix.received()), 20, "the mail")
    assert mails.same(mails.find(world.postfix.received(), raw), raw)
    assert gateway.cli(*words, env={"GATEPOST_PASSWORD": "wrong"}).code == REFUSED


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("send", "{file}", "--from", OUTSIDE, "--to", "nobody@in.example"), REFUSED),
        (("send", "{file}", "--from", OUTSIDE, "--to", ALICE, "--server", "127.0.0.1:{dead}"), UNREACHABLE),
        (("send", "{file}.none", "--from", OUTSIDE, "--to", ALICE), USAGE),
        (("track", "00000000000000000a"), REFUSED),
        (("queue", "show", "999999"), REFUSED),
        (("account", "add", ALICE, "--password-stdin"), REFUSED),
        (("check",), DONE),
    ],
)
def test_the_exit_code_says_what_happened(
    world: World, gateway: Gateway, message: Path, words: tuple[str, ...], code: int
) -> None:
    values = {"file": message, "dead": world.neighbours["dead"]}
    done = gateway.cli(*(word.format(**values) for word in words), stdin=b"a new password\n")
    assert done.code == code, done
    assert "Traceback" not in done.stderr


def test_explain_tells_the_verdict_and_keeps_nothing(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "spam.eml").write_bytes(mails.mail(f"{GTUBE}\n"))
    (tmp_path / "ham.eml").write_bytes(mails.mail())
    spam = gateway.cli("explain", tmp_path / "spam.eml", "--to", ALICE, "--from", "ann@honest.example", "--json")
    assert spam.code == REFUSED, spam
    assert spam.json["verdicts"][ALICE]["action"] == "reject"
    assert "spam says gtube" in spam.json["verdicts"][ALICE]["sentence"]
    assert spam.json["found"]["spf"][0]["code"] == "pass"
    ham = gateway.cli("explain", tmp_path / "ham.eml", "--to", ALICE)
    assert ham.code == DONE, ham
    assert "delivered" in ham.stdout
    assert gateway.fetch("alice") == []


def test_what_waits_can_be_listed_shown_held_released_and_dropped(world: World, gateway: Gateway) -> None:
    with gateway.session("relay") as client:
        mail_id = taken(transaction(client, ALICE, ["x@dead.example"], mails.mail()))
    gateway.wait_event("attempt", id=mail_id, state="queued")
    (waiting,) = [one for one in gateway.cli("queue", "list", "--json").json if one["message_id"] == mail_id]
    number = str(waiting["id"])
    assert gateway.cli("queue", "show", number, "--json").json[0]["message"]["id"] == mail_id
    assert gateway.cli("queue", "hold", number).code == DONE
    assert gateway.cli("queue", "hold", number).code == REFUSED
    assert mail_id not in gateway.cli("queue", "list").stdout
    assert gateway.cli("quarantine", "release", number).code == DONE
    processes.wait_until(lambda: len(gateway.events("attempt", id=mail_id)) > 1, 20, "another attempt")
    processes.wait_until(lambda: gateway.cli("queue", "drop", number, "--yes").code == DONE, 20, "the drop")
    life = gateway.life(mail_id)
    assert life["deliveries"][0]["delivery"]["state"] == "dropped"
    assert len(life["events"]) >= 5


def test_status_tells_how_the_gateway_is(gateway: Gateway) -> None:
    done = gateway.cli("status", "--json")
    checks = {check["name"]: check["ok"] for check in done.json["checks"]}
    assert done.json["running"]
    assert checks.pop("signatures") is False  # made by the test, so of no known age
    assert all(checks.values()), done.stdout
    assert {"smtp-1", "deliver-1", "pop3-1", "clamd", "dns", "certificate", "policies"} <= checks.keys()
    assert done.code == REFUSED


def test_accounts_come_change_their_password_and_go(gateway: Gateway) -> None:
    carol = "carol@in.example"
    words = ("account", "add", carol, carol, "Sales@IN.example", "--json")
    gateway.passwords[carol] = gateway.cli(*words).json["password"]
    gateway.put(OUTSIDE, ["sales@in.example"], raw := mails.mail())
    assert mails.same(gateway.fetch(carol)[0], raw)
    assert {"login": carol, "addresses": [carol, "sales@in.example"]}.items() <= account(gateway, carol).items()
    assert gateway.cli("account", "passwd", carol, "--password-stdin", stdin=b"a new one\n").code == DONE
    with pytest.raises(poplib.error_proto):
        gateway.fetch(carol)
    gateway.passwords[carol] = "a new one"
    assert len(gateway.fetch(carol)) == 1
    assert gateway.cli("account", "remove", carol, "--yes").code == DONE
    with gateway.session() as client:
        assert transaction(client, OUTSIDE, [carol], raw)[0] == 550
    with pytest.raises(poplib.error_proto):
        gateway.fetch(carol)


def account(gateway: Gateway, login: str) -> dict[str, object]:
    (found,) = [one for one in gateway.cli("account", "list", "--json").json if one["login"] == login]
    return found

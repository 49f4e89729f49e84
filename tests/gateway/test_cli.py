"""The `gatepost` command: every verb on a store of its own, and its promises about exit codes, JSON and strangers' text."""

import json
import time
from dataclasses import replace
from io import BytesIO
from ipaddress import ip_address
from pathlib import Path

import pytest

from gateway import accounts, cli
from gateway.model import Action, Envelope, Finding, Reason, Recipient, Session, State, Temporary, Verdict, new_id
from gateway.pipeline.outcome import Explained, Kind
from gateway.store import messages, queue
from gateway.toml import Fault

BAD = Path(__file__).parents[1] / "bad_configs"
EVIL = "\x1b[31mred\x1b[0m [bold]x[/bold] \u202egnp.exe\r\nEvil: yes"


class Silent:
    async def a(self, name):
        raise Temporary("no name server answers")


def keep(
    store, *, state=State.QUEUED, subject="hello", sender="a@x.example", to="b@y.example", mailbox="", verdict=None
):
    """One mail for one recipient in the store; returns its id and the number of its delivery."""
    mail_id = new_id()
    session = Session(ip_address("192.0.2.7"), helo="client.example")
    draft = messages.Draft(
        mail_id,
        time.time(),
        session,
        Envelope(sender, (Recipient(to),)),
        body=BytesIO(b"Subject: x\r\n\r\nbody\r\n"),
        subject=subject,
        header_from=sender,
        header_message_id=f"<{mail_id}@x.example>",
    )
    row = messages.Row(
        Recipient(to), state, mailbox, verdict=verdict or Verdict(sentence="nothing was found against it")
    )
    with store.begin() as conn:
        messages.accept(conn, draft, [row])
        number = queue.of_message(conn, mail_id)[0].id
    return mail_id, number


def state_of(store, number):
    with store.reading() as conn:
        return queue.get(conn, number).state


# ---- check --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", sorted(path.name for path in BAD.iterdir()))
def test_check_names_place_key_and_cure_of_every_fault(case, gatepost, home, monkeypatch):
    folder = BAD / case
    monkeypatch.chdir(BAD.parents[1])
    config = folder / "gatepost.toml"
    if not config.exists():
        config = home / "with_policies.toml"
        config.write_text(f'[server]\npolicies = "{folder}"\n')
    code, out, _ = gatepost("--config", config, "check", "--json")
    told = [Fault(**fault) for fault in json.loads(out)["faults"]]
    lines = "".join(f"{fault}\n" for fault in told)
    for prefix in (f"{folder}/", f"{folder.relative_to(BAD.parents[1])}/"):
        lines = lines.replace(prefix, "")
    assert lines == (folder / "expected-error").read_text()
    assert code == cli.REFUSED


def test_check_says_that_all_is_good(gatepost):
    code, out, _ = gatepost("check")
    assert code == 0
    assert "all good" in out


def test_check_tries_out_the_database_that_is_named(gatepost, home, postgres_url):
    (home / "gatepost.toml").write_text(f'[store]\nurl = "{postgres_url}"\n')
    assert gatepost("check")[0] == 0
    (home / "gatepost.toml").write_text(f'[server]\n\n[store]\nurl = "{postgres_url.replace("test_", "no_test_")}"\n')
    code, out, _ = gatepost("check", "--json")
    (fault,) = json.loads(out)["faults"]
    assert code == cli.REFUSED
    assert (fault["line"], fault["key"]) == (4, "store.url")
    assert fault["problem"].endswith("no such database")


def test_check_prints_faults_as_a_table_for_people(gatepost, home):
    (home / "gatepost.toml").write_text("[server]\nhostnme = 1\n")
    code, out, _ = gatepost("check")
    assert code == cli.REFUSED
    assert "gatepost.toml:2" in out
    assert "did you mean hostname?" in out


def test_a_faulty_configuration_stops_every_verb_with_the_same_words(gatepost, home):
    (home / "gatepost.toml").write_text("[server]\nhostnme = 1\n")
    for verb in (["run"], ["track"], ["account", "list"], ["status"]):
        code, out, _ = gatepost(*verb)
        assert code == cli.REFUSED
        assert "did you mean hostname?" in out


# ---- queue and quarantine -----------------------------------------------------------------------------------------


def test_the_queue_is_listed_for_people_and_for_scripts(gatepost, store):
    mail_id, number = keep(store)
    code, out, _ = gatepost("queue", "list")
    assert code == 0
    assert mail_id in out
    assert "b@y.example" in out
    [one] = json.loads(gatepost("queue", "list", "--json")[1])
    assert (one["id"], one["message_id"], one["state"]) == (number, mail_id, "queued")


def test_a_delivery_is_held_released_retried_and_dropped_by_hand(gatepost, store):
    _, number = keep(store)
    steps = [
        (["queue", "hold", number], State.HELD),
        (["quarantine", "release", number], State.QUEUED),
        (["queue", "retry", number], State.QUEUED),
        (["queue", "drop", number, "--yes"], State.DROPPED),
    ]
    for words, state in steps:
        assert gatepost(*words)[0] == 0
        assert state_of(store, number) is state


def test_what_is_not_there_is_refused_by_number_and_the_others_are_done(gatepost, store):
    _, number = keep(store)
    code, out, err = gatepost("queue", "hold", 999, number)
    assert code == cli.REFUSED
    assert "999 is not queued" in err
    assert f"{number} is held" in out
    assert state_of(store, number) is State.HELD


def test_all_that_waits_is_tried_now(gatepost, store):
    _, number = keep(store)
    later = time.time() + 3600
    with store.begin() as conn:
        [claimed] = queue.claim(conn, "me", 1, time.time(), 60)
        queue.retry(conn, claimed.id, "me", "450 later", time.time(), later)
    assert gatepost("queue", "retry", "--all")[0] == 0
    with store.reading() as conn:
        assert queue.get(conn, number).next_attempt <= time.time()


def test_retry_wants_numbers_or_all_but_not_both(gatepost, store):
    assert gatepost("queue", "retry")[0] == cli.USAGE
    assert gatepost("queue", "retry", "1", "--all")[0] == cli.USAGE


def test_nothing_is_dropped_without_a_yes(gatepost, store, monkeypatch):
    _, number = keep(store, state=State.HELD)
    monkeypatch.setattr("sys.stdin", BytesIO())
    assert gatepost("quarantine", "drop", number)[0] == cli.REFUSED
    assert state_of(store, number) is State.HELD
    assert gatepost("quarantine", "drop", number, "--yes")[0] == 0
    assert state_of(store, number) is State.DROPPED


def test_queue_drop_does_not_reach_into_mailboxes_or_the_quarantine(gatepost, store):
    for state, mailbox in ((State.HELD, ""), (State.MAILBOX, "b@y.example")):
        _, number = keep(store, state=state, mailbox=mailbox)
        assert gatepost("queue", "drop", number, "--yes")[0] == cli.REFUSED
        assert state_of(store, number) is state


def test_the_quarantine_shows_why(gatepost, store):
    reason = Reason("attachments", Finding("executable", "invoice.exe", "2"), Action.QUARANTINE)
    verdict = Verdict(Action.QUARANTINE, 0.0, (reason,), "held because attachments says executable (invoice.exe)")
    _, number = keep(store, state=State.HELD, verdict=verdict)
    listed = gatepost("quarantine", "list")[1]
    assert str(number) in listed
    assert "attachments/executable" in listed
    code, out, _ = gatepost("quarantine", "show", number)
    assert code == 0
    assert "invoice.exe, part 2" in out
    assert f"quarantine release {number}" in out
    assert "attachments.toml" in out
    assert "held because attachments says executable (invoice.exe)" in out
    assert "what happened" in out.lower()
    [life] = json.loads(gatepost("quarantine", "show", number, "--json")[1])
    assert life["deliveries"][0]["verdict"]["action"] == "quarantine"


def test_what_is_held_of_a_mail_is_named_by_its_id_as_notes_in_stripped_mail_give_it(gatepost, store):
    (mail_id, number), (other_id, other) = keep(store, state=State.HELD), keep(store, state=State.HELD)
    sent_id, _ = keep(store)
    assert mail_id in gatepost("quarantine", "show", mail_id)[1]
    code, out, err = gatepost("quarantine", "release", mail_id, sent_id)
    assert (code, state_of(store, number), state_of(store, other)) == (cli.REFUSED, State.QUEUED, State.HELD)
    assert f"{number} is released" in out
    assert f"{sent_id} is not held" in err
    assert gatepost("quarantine", "drop", other_id, "--yes")[0] == cli.DONE
    assert state_of(store, other) is State.DROPPED
    assert gatepost("quarantine", "show", "nonsense")[0] == cli.USAGE


def test_of_stripped_mail_it_is_said_that_the_whole_is_held(gatepost, store):
    _, stripped = keep(store, state=State.HELD, verdict=Verdict(Action.STRIP))
    _, held = keep(store, state=State.HELD, verdict=Verdict(Action.QUARANTINE))
    assert "the mail as it came" in gatepost("quarantine", "show", stripped)[1]
    assert "the mail as it came" not in gatepost("quarantine", "show", held)[1]


def test_of_mail_that_somebody_held_no_policy_is_named(gatepost, store):
    _, by_hand = keep(store, state=State.HELD, verdict=Verdict())
    _, by_score = keep(store, state=State.HELD, verdict=Verdict(Action.QUARANTINE))
    assert "score.toml" in gatepost("quarantine", "show", by_score)[1]
    assert "score.toml" not in gatepost("quarantine", "show", by_hand)[1]


def test_held_mail_is_saved_for_its_reader_alone_and_overwrites_nothing(gatepost, store, home):
    _, number = keep(store, state=State.HELD)
    _, other = keep(store)
    assert gatepost("quarantine", "save", number, "mail.eml")[0] == cli.DONE
    assert (home / "mail.eml").read_bytes() == b"Subject: x\r\n\r\nbody\r\n"
    assert (home / "mail.eml").stat().st_mode & 0o777 == 0o600
    for words in ((number, "mail.eml"), (number, "nowhere/mail.eml"), (other, "other.eml")):
        code, _, err = gatepost("quarantine", "save", *words)
        assert code == cli.REFUSED
        assert "Traceback" not in err
    assert state_of(store, number) is State.HELD


def test_of_held_mail_that_cannot_be_saved_whole_nothing_is_left(gatepost, store, home, monkeypatch):
    def chunks(_conn, _id):
        yield b"Subject: x\r\n"
        raise Temporary("the store is out of reach")

    _, number = keep(store, state=State.HELD)
    monkeypatch.setattr(messages, "read_chunks", chunks)
    code, _, err = gatepost("quarantine", "save", number, "mail.eml")
    assert (code, "out of reach" in err, (home / "mail.eml").exists()) == (cli.UNREACHABLE, True, False)


def test_what_is_not_held_cannot_be_shown_in_the_quarantine(gatepost, store):
    _, number = keep(store)
    code, _, err = gatepost("quarantine", "show", number)
    assert code == cli.REFUSED
    assert f"{number} is not held" in err


# ---- track --------------------------------------------------------------------------------------------------------


def test_messages_are_found_by_what_is_known_of_them(gatepost, store):
    first, _ = keep(store, sender="boss@x.example", subject="Invoice 7")
    second, _ = keep(store, to="carol@z.example", state=State.HELD)

    def found(*words):
        return {row["message_id"] for row in json.loads(gatepost("track", *words, "--json")[1])}

    assert found() == {first, second}
    assert found("--from", "BOSS@") == {first}
    assert found("--to", "carol") == {second}
    assert found("--subject", "invoice") == {first}
    assert found("--state", "held") == {second}
    assert found("--action", "reject") == set()
    assert found("--since", "1h") == {first, second}
    assert found("--until", "1h") == set()
    assert found("--since", "2020-01-31 14:00") == {first, second}


def test_messages_are_found_by_what_was_found_and_by_whom_they_show(gatepost, store):
    reason = Reason("macros", Finding("dde", "a.doc"), Action.QUARANTINE)
    bad, _ = keep(store, state=State.HELD, verdict=Verdict(Action.QUARANTINE, 0.0, (reason,), "held"))
    shown, _ = keep(store, sender="ann@mail.shop.example")

    def found(*words):
        return {row["message_id"] for row in json.loads(gatepost("track", *words, "--json")[1])}

    for written in ("macros.dde", "macros/dde", "macros"):
        assert found("--code", written) == {bad}
    assert found("--code", "macros.xlm") == set()
    for written in ("shop.example", "Mail.Shop.Example", "@shop.example"):
        assert found("--from-domain", written) == {shown}


@pytest.mark.parametrize(
    ("written", "cure"), [("macro.dde", "macros"), ("macros.ddee", "dde"), ("dkim.x", "known:"), ("route", "no filter")]
)
def test_a_finding_that_no_filter_makes_is_a_wrong_call_with_a_cure(gatepost, store, written, cure):
    code, _, err = gatepost("track", "--code", written)
    assert code == cli.USAGE
    assert cure in err


def test_the_whole_life_of_one_mail_is_shown_by_its_id_or_message_id(gatepost, store):
    mail_id, number = keep(store)
    for key in (mail_id, f"<{mail_id}@x.example>"):
        code, out, _ = gatepost("track", key)
        assert code == 0
        for word in (
            mail_id,
            "192.0.2.7",
            "client.example",
            "b@y.example",
            "nothing was found against it",
            str(number),
        ):
            assert word in out


def test_an_unknown_id_and_an_unreadable_time_are_told(gatepost, store):
    assert gatepost("track", "nosuchid")[0] == cli.REFUSED
    assert gatepost("track", "--since", "yesterday")[0] == cli.USAGE


def test_text_of_strangers_does_nothing_to_the_terminal(gatepost, store):
    _, number = keep(store, subject=EVIL, state=State.HELD)
    for words in (["track"], ["quarantine", "list"], ["quarantine", "show", number]):
        out = gatepost(*words)[1]
        assert "\x1b[31m" not in out
        assert "\u202e" not in out
        assert "\nEvil" not in out
        assert "[bold]x[/bold]" in out
    assert gatepost("track", "--json")[1].isascii()


# ---- account ------------------------------------------------------------------------------------------------------


def test_an_account_is_made_with_a_password_from_standard_input(gatepost, store, monkeypatch):
    monkeypatch.setattr("sys.stdin", Lines("correct horse\n"))
    code, out, _ = gatepost("account", "add", "carol@z.example", "--password-stdin")
    assert code == 0
    assert "correct horse" not in out
    with store.reading() as conn:
        [account] = accounts.list(conn)
    assert account.addresses == ("carol@z.example",)


def test_without_a_terminal_a_password_is_made_up_and_shown_once(gatepost, store, monkeypatch):
    monkeypatch.setattr("sys.stdin", Lines(""))
    made = json.loads(gatepost("account", "add", "carol", "carol@z.example", "sales@z.example", "--json")[1])
    assert len(made["password"]) == 19
    [listed] = json.loads(gatepost("account", "list", "--json")[1])
    assert listed["addresses"] == ["carol@z.example", "sales@z.example"]
    changed = json.loads(gatepost("account", "passwd", "carol", "--json")[1])
    assert changed["password"] != made["password"]


def test_accounts_that_are_or_are_not_there_are_told(gatepost, store, monkeypatch):
    monkeypatch.setattr("sys.stdin", Lines(""))
    assert gatepost("account", "add", "carol@z.example")[0] == 0
    assert gatepost("account", "add", "carol@z.example")[0] == cli.REFUSED
    assert gatepost("account", "passwd", "nobody")[0] == cli.REFUSED
    assert gatepost("account", "remove", "nobody", "--yes")[0] == cli.REFUSED
    assert gatepost("account", "remove", "carol@z.example", "--yes")[0] == 0
    assert json.loads(gatepost("account", "list", "--json")[1]) == []


def test_an_empty_password_is_refused(gatepost, store, monkeypatch):
    monkeypatch.setattr("sys.stdin", Lines("\n"))
    code, _, err = gatepost("account", "add", "carol@z.example", "--password-stdin")
    assert code == cli.REFUSED
    assert "a password has" in err


class Lines:
    def __init__(self, text):
        self._text = text

    def readline(self, _limit):
        return self._text

    def isatty(self):
        return False


# ---- explain, send, status ----------------------------------------------------------------------------------------


def explained(action):
    def explain(_config, session, envelope, message):
        assert message.read().endswith(b"\r\n")
        verdict = Verdict(action, 3.0, (), f"{action} because {EVIL}")
        found = {"headers": [Finding("defect", EVIL, "1")]}
        return Explained("id", None, found, {one.address: verdict for one in envelope.recipients})

    return explain


@pytest.mark.parametrize(
    ("action", "code"),
    [("accept", 0), ("tag", 0), ("strip", 0), ("quarantine", 1), ("reject", 1), ("defer", cli.UNREACHABLE)],
)
def test_explain_exits_by_what_would_become_of_the_mail(gatepost, home, action, code):
    (home / "mail.eml").write_bytes(b"Subject: x\n\nbody\n")
    words = ["explain", "mail.eml", "--to", "alice@demo.example", "--peer", "192.0.2.9"]
    got, out, _ = gatepost(*words, explain=explained(Action(action)))
    assert got == code
    assert f"{action} because" in out
    assert "\x1b[31m" not in out
    verdicts = json.loads(gatepost(*words, "--json", explain=explained(Action(action)))[1])["verdicts"]
    assert verdicts["alice@demo.example"]["action"] == action


def test_explain_says_that_little_is_asked_about_a_host_of_our_own(gatepost, home):
    (home / "mail.eml").write_bytes(b"Subject: x\n\nbody\n")
    words = ["explain", "mail.eml", "--to", "alice@demo.example"]
    assert "--peer 192.0.2.7" in gatepost(*words, explain=explained(Action.ACCEPT))[2]
    for more in (["--peer", "192.0.2.9"], ["--user", "alice@demo.example"]):
        assert gatepost(*words, *more, explain=explained(Action.ACCEPT))[2] == ""


def test_explain_wants_a_file_that_can_be_read_and_an_address(gatepost, home):
    assert gatepost("explain", "missing.eml", "--to", "a@b.example")[0] == cli.USAGE
    (home / "mail.eml").touch()
    assert gatepost("explain", "mail.eml", "--to", "a@b.example", "--peer", "nowhere")[0] == cli.USAGE
    for nobody in ("alice", "", "a@", "a b@c.example", "a@b.example> SIZE=1", "a@[192.0.2.1]"):
        assert gatepost("explain", "mail.eml", "--to", nobody)[0] == cli.USAGE


def test_explain_says_who_would_be_refused_before_the_mail_is_read(gatepost, home):
    (home / "mail.eml").write_bytes(b"Subject: x\n\nbody\n")
    refused = {"alice@demo.example": Kind.NO_SUCH_USER, "x@there.example": Kind.NOT_OURS}

    def explain(*words):
        return replace(explained(Action.ACCEPT)(*words), refused=refused)

    words = ["explain", "mail.eml", "--to", "alice@demo.example", "--to", "x@there.example", "--peer", "192.0.2.9"]
    code, out, _ = gatepost(*words, explain=explain)
    assert code == cli.REFUSED
    assert "alice@demo.example would be refused at RCPT TO: the domain is ours, and there is no such user" in out
    assert "x@there.example would be refused at RCPT TO: mail for this domain is not taken from this peer" in out
    assert json.loads(gatepost(*words, "--json", explain=explain)[1])["refused"]["x@there.example"] == "not ours"


def test_sending_to_nobody_who_listens_says_so(gatepost):
    code, _, err = gatepost("send", "--from", "a@b.example", "--to", "c@d.example")
    assert code == cli.UNREACHABLE
    assert "127.0.0.1:1 cannot be talked to: connection refused" in err


def test_what_only_proxies_may_use_is_left_out_unless_it_is_named(gatepost, home):
    first = 'address = "127.0.0.1:1"\n'
    behind = (home / "gatepost.toml").read_text().replace(first, first + 'proxy_from = ["10.0.0.5/32"]\n')
    plain = '[[listeners]]\nname = "plain"\nkind = "mx"\naddress = "127.0.0.1:3"\n'
    (home / "gatepost.toml").write_text(behind + plain)
    words = ("send", "--from", "a@b.example", "--to", "c@d.example")
    assert "127.0.0.1:3 cannot be talked to" in gatepost(*words)[2]
    assert "127.0.0.1:1 cannot be talked to" in gatepost(*words, "--listener", "mx")[2]


def test_an_unknown_listener_is_told_with_the_known_ones(gatepost):
    code, _, err = gatepost("send", "--from", "a@b.example", "--to", "c@d.example", "--listener", "nosuch")
    assert code == cli.USAGE
    assert "mx, submission" in err


def test_status_says_that_nothing_runs_and_what_else_is_wrong(gatepost, store):
    code, out, _ = gatepost("status", "--json", dns=Silent)
    told = json.loads(out)
    checks = {one["name"]: one for one in told["checks"]}
    assert code == cli.UNREACHABLE
    assert told["running"] is False
    assert checks["smtp-1"]["text"] == "not running"
    assert checks["dns"] == {"name": "dns", "ok": False, "text": "no name server answers"}
    assert checks["policies"]["ok"]
    assert "0 queued" in checks["deliveries"]["text"]
    assert "self-signed" in checks["certificate"]["text"]


def test_status_counts_what_waits_and_for_how_long(gatepost, store):
    keep(store)
    keep(store, state=State.HELD)
    out = gatepost("status")[1]
    assert "1 queued, 1 held" in out
    assert "accepted 0 s ago" in out


# ---- How it behaves at large --------------------------------------------------------------------------------------


def test_a_store_that_was_never_made_is_told_and_not_made(gatepost, home):
    code, _, err = gatepost("track")
    assert code == cli.UNREACHABLE
    assert "no data" in err
    assert not (home / "var").exists()


def verbs(app, *before):
    for command in app.registered_commands:
        yield (*before, command.name or command.callback.__name__), command
    for group in app.registered_groups:
        yield from verbs(group.typer_instance, *before, *filter(None, [group.name]))


@pytest.mark.parametrize("words", [" ".join(words) for words, _ in verbs(cli.app)])
def test_every_verb_teaches_itself_with_an_example_and_its_exit_codes(gatepost, words):
    code, out, _ = gatepost(*words.split(), "--help")
    assert code == 0
    assert "Example" in out
    assert "Exit codes" in out
    assert "--json" in out or words == "run"


@pytest.mark.parametrize(
    "words",
    [
        ["nosuch"],
        ["queue", "nosuch"],
        ["track", "--nosuch"],
        ["queue", "show", "x"],
        ["queue", "show", "9" * 20],
        ["quarantine", "release", "9" * 20],
    ],
)
def test_wrong_calls_exit_with_2_and_no_traceback(gatepost, words):
    code, out, err = gatepost(*words)
    assert code == cli.USAGE
    assert "Traceback" not in out + err


def test_a_fault_of_ours_is_one_line_and_no_traceback(gatepost, home):
    def explain(*_):
        raise ZeroDivisionError("oops\x1b[31m")

    (home / "mail.eml").touch()
    code, out, err = gatepost("explain", "mail.eml", "--to", "a@b.example", explain=explain)
    assert code == cli.UNREACHABLE
    assert "ZeroDivisionError" in err
    assert "Traceback" not in out + err
    assert "\x1b[31m" not in err

"""What is printed: strangers' text does nothing, values of ours become JSON, numbers are for people."""

import json
import time
from ipaddress import ip_address

import pytest

from gateway import terminal
from gateway.model import Action, Envelope, Recipient, Session, Verdict
from gateway.toml import Fault

EVIL = "\x1b]0;title\x07\x1b[2J[red]x[/red] \u202etxt.exe\u2066\r\nmore\x00"


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.parametrize(
    "show",
    [
        lambda: terminal.say(EVIL),
        lambda: terminal.table(EVIL, (EVIL,), [(EVIL,)]),
        lambda: terminal.facts([(EVIL, EVIL)]),
        lambda: terminal.faults([Fault(EVIL, 1, EVIL, EVIL, EVIL)]),
    ],
)
def test_no_text_controls_the_terminal(capsys, show):
    show()
    out = capsys.readouterr().out
    assert "[red]x[/red]" in out
    assert not set(out) & set("\x00\x07\x1b\r\u202e\u2066")


def test_complaints_go_to_standard_error_cleaned(capsys):
    terminal.complain("bad:", EVIL)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("bad: ")
    assert "\x1b" not in err
    assert err.count("\n") == 1


def test_values_become_json(capsys):
    session = Session(ip_address("192.0.2.1"))
    envelope = Envelope("a@b.example", (Recipient("c@d.example", frozenset({"NEVER"})),))
    terminal.as_json({"s": session, "e": envelope, "v": Verdict(Action.TAG, 1.5), "b": b"\xff", "t": EVIL})
    out = capsys.readouterr().out
    assert out.isascii()
    made = json.loads(out)
    assert made["s"]["peer"] == "192.0.2.1"
    assert made["e"]["recipients"][0]["notify"] == ["NEVER"]
    assert made["v"]["action"] == "tag"
    assert made["b"] == "\ufffd"
    assert made["t"] == EVIL


@pytest.mark.parametrize(("count", "words"), [(1, "1 fault"), (2, "2 faults")])
def test_faults_are_counted(capsys, count, words):
    terminal.faults([Fault("f.toml", 0, "", "is wrong")] * count)
    assert capsys.readouterr().out.splitlines()[0].strip() == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(-3, "0 s"), (45, "45 s"), (720, "12 min"), (12_600, "3.5 h"), (181_440, "2.1 d")]
)
def test_lengths_of_time_for_people(seconds, words):
    assert terminal.span(seconds) == words


@pytest.mark.parametrize(("count", "words"), [(0, "0 B"), (9999, "9999 B"), (20_480, "20 KB"), (52_428_800, "50 MB")])
def test_sizes_for_people(count, words):
    assert terminal.octets(count) == words


def test_no_moment_is_no_text():
    assert terminal.moment(0) == ""
    assert terminal.moment(1_700_000_000).startswith("2023-11-1")


def test_what_would_be_printed_is_rendered_as_it_would_look(capsys):
    def speak():
        terminal.say("hello", EVIL)
        terminal.facts([("name", "value")])

    speak()
    shown = capsys.readouterr().out
    assert terminal.rendered(speak) == shown
    assert "hello" in shown
    assert not capsys.readouterr().out


def test_a_list_tells_times_in_as_little_room_as_tells_them():
    now = time.mktime((2026, 11, 23, 10, 15, 0, 0, 0, -1))
    for then, told in {
        (2026, 11, 23, 0, 0, 1): "00:00:01",
        (2026, 11, 22, 23, 59, 59): "11-22 23:59",
        (2025, 11, 23, 10, 15, 0): "2025-11-23",
    }.items():
        assert terminal.lately(time.mktime((*then, 0, 0, -1)), now) == told


def test_what_people_copy_is_whole_in_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setattr(terminal, "PIPE_WIDTH", 60)
    terminal.table("", ("id", "from", "subject"), [("06h0fsrbc6vcj2aqpv", "a" * 50, "b" * 50)], whole=("id",))
    assert "06h0fsrbc6vcj2aqpv" in capsys.readouterr().out

"""The log: one line for each event, whatever strangers put into it."""

import gc
import json
import logging
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import events


@pytest.fixture(autouse=True)
def _as_before():
    root, ours = logging.getLogger(), logging.getLogger("gatepost")
    before = root.handlers[:], ours.level, ours.propagate
    hooks = threading.excepthook, sys.unraisablehook
    yield
    root.handlers[:], ours.level, ours.propagate = before
    threading.excepthook, sys.unraisablehook = hooks
    ours.handlers.clear()
    logging.raiseExceptions = True


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Configure the log in a form, with a file as standard error, and return what was written since."""
    with (tmp_path / "log").open("w") as file:

        def configured(form):
            monkeypatch.setattr("sys.stderr", file)
            events.configure(form, "test-1")
            return lambda: (tmp_path / "log").read_text().splitlines()

        yield configured


HOSTILE = 'a\r\nb\x00\x1b[2J\u202e\u2028{"x": "%s"}\ud800'


def test_a_json_line_is_one_line_of_json(written):
    lines = written("json")
    events.say("x", text=HOSTILE, number=3, nothing=None, many=[HOSTILE, 1], table={"a": HOSTILE})
    (line,) = lines()
    record = json.loads(line)
    assert (record["event"], record["number"], record["nothing"]) == ("x", 3, None)
    assert record["time"].endswith("Z")
    assert record["process"] == "test-1"
    assert record["text"].isprintable()


def test_a_text_line_is_one_line_without_empty_values(written):
    lines = written("text")
    events.say("x", text=HOSTILE, empty="")
    (line,) = lines()
    assert "text=a" in line
    assert "empty" not in line
    assert line.isprintable()


def test_a_failure_names_the_place_and_keeps_to_its_line(written):
    lines = written("json")
    try:
        raise ValueError("x" * 5000 + "\r\n")
    except ValueError as error:
        events.failure("here", error, id="m1")
    record = json.loads(lines()[0])
    assert (record["where"], record["error"], record["id"]) == ("here", "ValueError", "m1")
    assert "test_events.py" in record["place"]
    assert len(record["text"]) == events.MAX_VALUE


def test_what_was_lost_is_counted_with_the_next_line_that_goes_out(written, monkeypatch):
    lines = written("json")
    (sender,) = logging.getLogger("gatepost").handlers
    whole, sender._outlet = sender._outlet, _Closed()
    for number in range(3):
        events.say("x", number=number)
    sender._outlet = whole
    events.say("x", number=3)
    events.say("x", number=4)
    told = [json.loads(line) for line in lines()]
    assert [one["event"] for one in told] == ["log lines lost", "x", "x"]
    assert told[0]["count"] == 3


class _Closed:
    def put(self, line):
        return False


def test_without_standard_error_there_is_no_log_and_no_trouble(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    events.configure("json", "test-1")
    events.say("x")


def test_what_a_library_repeats_in_one_breath_is_told_once(written):
    lines = written("json")
    for _ in range(500):
        logging.getLogger("asyncio").error("out of resources\nsocket: <socket>")
    logging.getLogger("asyncio").error("something else")
    told = [(one["name"], one["text"]) for one in map(json.loads, lines())]
    assert told == [("asyncio", "out of resources"), ("asyncio", "something else")]


def test_an_exception_that_a_library_logs_is_a_failure_in_one_line(written):
    lines = written("json")
    try:
        raise ValueError("bad\nnews")
    except ValueError:
        logging.getLogger("asyncio").exception("Task exception was never retrieved")
    (line,) = lines()
    record = json.loads(line)
    assert (record["event"], record["where"], record["error"]) == ("failure", "asyncio", "ValueError")


class Stubborn:
    def __del__(self):
        raise ValueError("at the end")


def test_what_no_caller_can_hear_of_is_a_failure_in_one_line(written):
    def dies():
        raise ValueError("in a thread")

    lines = written("json")
    thread = threading.Thread(target=dies)
    thread.start()
    thread.join()
    Stubborn()
    gc.collect()
    told = [(one["event"], one["error"], one["text"]) for one in map(json.loads, lines())]
    assert told == [("failure", "ValueError", "in a thread"), ("failure", "ValueError", "at the end")]


@given(st.text(max_size=2000))
def test_cleaned_text_is_printable_bounded_and_encodable(text):
    cleaned = events.clean(text, 100)
    assert len(cleaned) <= 100
    assert cleaned.encode("utf-8").decode("utf-8") == cleaned
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or c in "\u202e\u200b\u2066" for c in cleaned)


def test_harmless_text_stays_as_it_is():
    assert events.clean("Grüße an 東京 — 50 %") == "Grüße an 東京 — 50 %"

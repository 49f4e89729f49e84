"""The log: one line for each event, whatever strangers put into it."""

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import events


@pytest.fixture
def written(monkeypatch):
    """Configure the log in a form, and return what was written since."""
    stream = io.StringIO()

    def configured(form):
        monkeypatch.setattr("sys.stderr", stream)
        events.configure(form, "test-1")
        return lambda: stream.getvalue().splitlines()

    yield configured
    logging.getLogger("gatepost").handlers.clear()
    logging.raiseExceptions = True


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


def test_a_log_that_cannot_be_written_stops_nothing(monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("sys.stderr", Full())
    events.configure("json", "test-1")
    events.say("x")
    logging.getLogger("gatepost").handlers.clear()
    logging.raiseExceptions = True


@given(st.text(max_size=2000))
def test_cleaned_text_is_printable_bounded_and_encodable(text):
    cleaned = events.clean(text, 100)
    assert len(cleaned) <= 100
    assert cleaned.encode("utf-8").decode("utf-8") == cleaned
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or c in "\u202e\u200b\u2066" for c in cleaned)


def test_harmless_text_stays_as_it_is():
    assert events.clean("Grüße an 東京 — 50 %") == "Grüße an 東京 — 50 %"

"""Policy files with anything in them: the set loads whole and decides all that can be found, or every fault has its words."""

import math
import tempfile
from ipaddress import ip_address
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import SHIPPED_POLICIES
from gateway.model import Action, Envelope, Finding, Mail, Recipient, Session, Tools
from gateway.pipeline import policy
from gateway.toml import FaultyFiles
from tests.fuzz.effort import examples

SHIPPED = {path.stem: path.read_text("utf-8") for path in sorted(SHIPPED_POLICIES.glob("*.toml"))}
LINES = [line for text in SHIPPED.values() for line in text.splitlines() if line.split("#")[0].strip()]
VALUES = ["-1", "0", "1e400", "nan", "true", "[]", "[[]]", '""', r'"\u0000"', '"accept"', '"reject"', r'"\u202e"', "{}"]
VALUES += [
    "9" * 400,
    '"5m"',
    '"-5m"',
    "1979-05-27",
    '["::/0"]',
    '["1.2.3.4/8"]',
    "'''",
    '"',
    "0x10",
    "[1, 'x']",
    "{a = 1}",
]
VALUES += ['"' + "x" * 5000 + '"', "[" * 500, "0.5", '["a"]', '[""]', "1e-300"]
MAIL = Mail("m1", Session(ip_address("192.0.2.1")), Envelope("a@out.example", (Recipient("b@in.example"),)))
TOOLS = Tools(None, None, "mx.test", None, None, None, None)


def with_another_value(line, value):
    key, equals, _ = line.partition("=")
    return f"{key}= {value}" if equals else line


@st.composite
def edited(draw):
    """Stem and text of a shipped policy with some lines changed, left out, doubled, or taken from another."""
    stem = draw(st.sampled_from(sorted(SHIPPED)))
    lines = SHIPPED[stem].splitlines()
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(lines) - 1))
        line, other = lines[place], draw(st.sampled_from(LINES) | st.text(max_size=20))
        changed = with_another_value(line, draw(st.sampled_from(VALUES)))
        lines[place : place + 1] = draw(
            st.sampled_from([[changed], [changed], ["#"], [line, line], [other], [line, other]])
        )
    return stem, "\n".join(lines) + "\n"


def load_or_faults(stem, text):
    """The policies with this text in force and no faults, or None and its faults."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f"{stem}.toml").write_text(text, "utf-8")
        try:
            return policy.load(Path(folder), TOOLS), ()
        except FaultyFiles as error:
            return None, error.faults


@settings(max_examples=examples(30), deadline=None)
@given(edited())
def test_an_edited_policy_decides_all_or_is_refused_in_words(edit):
    policies, faults = load_or_faults(*edit)
    if policies is None:
        assert faults
        assert all(str(fault).isprintable() and fault.problem for fault in faults), faults
        return
    for one in policies.by_name.values():
        codes = one.filter.codes if one.filter else {"unscannable"}
        for code in codes | {"error"}:
            verdict = policies.decide({one.name: [Finding(code)]}, MAIL, "b@in.example")
            assert isinstance(verdict.action, Action)
            assert math.isfinite(verdict.score)

"""Policies decide: what loads, what is refused and in which words, and what a set says of findings."""

import dataclasses
import importlib
import json
import re
import tomllib
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from gateway.config import SHIPPED_POLICIES
from gateway.model import Action, Envelope, Finding, ListenerKind, Mail, Recipient, Session
from gateway.pipeline import policy
from gateway.stages import STAGE_FILES, files
from gateway.toml import FaultyFiles

INBOUND = Mail("m1", Session(ip_address("192.0.2.1")), Envelope("a@sender.example", (Recipient("b@ours.example"),)))
OUTBOUND = replace(INBOUND, session=replace(INBOUND.session, kind=ListenerKind.SUBMISSION, user="bob"))


@pytest.fixture
def site(tmp_path):
    """Write policy files of a site's own, and load the set."""

    def load(**texts: str) -> policy.Policies:
        for stem, text in texts.items():
            (tmp_path / f"{stem}.toml").write_text(text)
        return policy.load(tmp_path, None)

    return load


def faults(site, **texts: str) -> list[str]:
    with pytest.raises(FaultyFiles) as caught:
        site(**texts)
    return [str(replace(fault, file=Path(fault.file).name)) for fault in caught.value.faults]


def test_the_shipped_policies_load_and_decide_every_code():
    policies = policy.load(None, None)
    for one in policies.by_name.values():
        codes = one.filter.codes if one.filter else {"unscannable", "ambiguous"}
        for code in codes | {"error"}:
            assert policies.decide({one.name: [Finding(code)]}, INBOUND, "b@ours.example")


@pytest.mark.parametrize("name", [name for name in files(None) if name not in {*STAGE_FILES, policy.CONTENT}])
def test_a_shipped_policy_shows_every_setting_of_its_filter_as_it_is_by_default(name):
    table = tomllib.loads(files(None)[name].read_text()).get("settings", {})
    kind = importlib.import_module(f"filters.{name}").Settings
    assert set(table) == {field.name for field in dataclasses.fields(kind)}
    assert policy.build_settings(kind, json.dumps(table)) == kind()


@pytest.mark.parametrize("name", [name for name in files(None) if name not in STAGE_FILES])
def test_a_shipped_policy_says_that_it_is_enabled_and_can_be_switched_off(name):
    assert tomllib.loads(files(None)[name].read_text())["enabled"] is True


def test_an_error_of_a_shipped_filter_never_passes_unseen():
    policies = policy.load(None, None)
    for name in policies.by_name:
        verdict = policies.decide({name: [Finding("error")]}, INBOUND, "b@ours.example")
        assert verdict.action is not Action.ACCEPT or verdict.score > 0, name


def test_the_strictest_word_wins_and_numbers_add_up(site):
    policies = site(
        attachments='[actions]\nexecutable = "tag"\ndisguised = "quarantine"\nerror = "defer"\n',
        headers='[actions]\nmalformed = 2.5\nmissing_date = 0.0\nbad_date = 0.0\nerror = "defer"\n',
        score="quarantine = 5.0\nreject = 7.0\n",
    )
    one = policies.decide({"attachments": [Finding("executable"), Finding("disguised")]}, INBOUND, "b@ours.example")
    assert one.action is Action.QUARANTINE
    two = policies.decide({"headers": [Finding("malformed"), Finding("malformed")]}, INBOUND, "b@ours.example")
    assert (two.action, two.score) == (Action.QUARANTINE, 5.0)
    three = policies.decide({"headers": [Finding("malformed")] * 3}, INBOUND, "b@ours.example")
    assert three.action is Action.REJECT


BASE = '[actions]\nexecutable = "reject"\ndisguised = "reject"\nerror = "defer"\n'


@pytest.mark.parametrize(
    ("exception", "mail", "recipient", "action"),
    [
        ('recipients = ["*@lab.example"]', INBOUND, "b@LAB.example", "tag"),
        ('recipients = ["*@lab.example"]', INBOUND, "b@ours.example", "reject"),
        ('senders = ["*@sender.example"]', INBOUND, "b@ours.example", "tag"),
        ('senders = ["*@other.example"]', INBOUND, "b@ours.example", "reject"),
        ('peers = ["192.0.2.0/24"]', INBOUND, "b@ours.example", "tag"),
        ('peers = ["198.51.100.0/24"]', INBOUND, "b@ours.example", "reject"),
        ('users = ["bob"]', OUTBOUND, "b@ours.example", "tag"),
        ('users = ["bob"]', INBOUND, "b@ours.example", "reject"),
        ('direction = "outbound"', OUTBOUND, "b@ours.example", "tag"),
        ('direction = "outbound"', INBOUND, "b@ours.example", "reject"),
        ('senders = ["*@sender.example"]\nrecipients = ["*@lab.example"]', INBOUND, "b@ours.example", "reject"),
    ],
)
def test_exceptions_cover_what_all_their_patterns_match(site, exception, mail, recipient, action):
    policies = site(attachments=f'{BASE}[[exceptions]]\n{exception}\nactions.executable = "tag"\n')
    assert policies.decide({"attachments": [Finding("executable")]}, mail, recipient).action.value == action


def test_the_first_exception_that_names_the_code_wins(site):
    rules = '[[exceptions]]\nactions.disguised = "tag"\n[[exceptions]]\nactions.executable = "quarantine"\n'
    policies = site(attachments=BASE + rules + '[[exceptions]]\nactions.executable = "accept"\n')
    assert policies.decide({"attachments": [Finding("executable")]}, INBOUND, "x@y").action is Action.QUARANTINE


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (BASE.replace("error = ", "# error = "), "attachments.toml:1: actions.error: is undecided (add e.g. error"),
        (BASE + 'executible = "tag"\n', "attachments.toml:5: actions.executible: no such finding (did you mean exec"),
        (BASE.replace('"defer"', '"refuse"'), "attachments.toml:4: actions.error: an effect is a finite number"),
        (BASE.replace('"defer"', "true"), "attachments.toml:4: actions.error: an effect"),
        (BASE.replace('"defer"', "nan"), "attachments.toml:4: actions.error: an effect"),
        (BASE.replace('"defer"', "-inf"), "attachments.toml:4: actions.error: an effect"),
        (BASE.replace('"defer"', '"12"'), "attachments.toml:4: actions.error: an effect"),
        (BASE.replace('"defer"', "[1]"), "attachments.toml:4: actions.error: an effect"),
        ("[settings]\nsufixes = []\n" + BASE, "attachments.toml:2: settings.sufixes: is not a known setting (did you"),
        ("[settings]\nsuffixes = 3\n" + BASE, "attachments.toml:2: settings.suffixes: "),
        ("timeout = 'soon'\n" + BASE, "attachments.toml:1: timeout: a time is written like"),
        (BASE + "[[exceptions]]\npeers = ['10.0.0.1/8']\nactions.error='tag'\n", "attachments.toml:6: exceptions.0.peers"),
        (BASE + "[[exceptions]]\nwho = 'me'\nactions.error='tag'\n", "attachments.toml:6: exceptions.0.who: is not"),
        ("[actions\n", "attachments.toml:1: is not TOML"),
    ],
)  # fmt: skip
def test_a_faulty_policy_is_refused_with_place_and_cure(site, text, fault):
    assert any(line.startswith(fault) for line in faults(site, attachments=text)), faults(site, attachments=text)


def test_a_policy_that_is_not_enabled_is_checked_all_the_same_and_decides_nothing(site):
    assert "attachments" not in site(attachments="enabled = false\n" + BASE).by_name
    assert "attachments" in site(attachments="enabled = true\n" + BASE).by_name
    (told,) = faults(site, attachments="enabled = false\n[actions]\nbogus = 1\n" + BASE.partition("\n")[2])
    assert told.startswith("attachments.toml:3: actions.bogus: no such finding")
    assert faults(site, attachments="enabled = 0\n" + BASE)[0].startswith("attachments.toml:1: enabled: ")


def test_without_the_parser_no_filter_of_messages_may_be_enabled(site):
    content = files(None)["content"].read_text().replace("enabled = true", "enabled = false")
    told = faults(site, content=content)
    of_messages = {"antivirus", "attachments", "from_header", "headers", "spam"}
    assert {line.partition(".")[0] for line in told} >= of_messages
    assert all("sees no message while content.toml is not enabled" in line for line in told)
    assert "spf.toml" not in {line.partition(":")[0] for line in told}
    off = {line.partition(".")[0]: "enabled = false\n" for line in told}
    assert not of_messages & site(**{name: off[name] + text_of(name) for name in off}).by_name.keys()


def text_of(name):
    return files(None)[name].read_text().replace("enabled = true", "")


def test_a_policy_without_a_filter_is_refused(site):
    assert faults(site, atachments=BASE)[0].startswith("atachments.toml: there is no filter and no stage named")


def test_every_fault_of_every_file_is_told_at_once(site):
    found = faults(site, attachments="[actions]\n", score="quarantine = 'x'\n", edge="bogus = 1\n")
    assert {line.partition(":")[0] for line in found} == {"attachments.toml", "score.toml", "edge.toml"}


def test_thresholds_that_contradict_each_other_are_refused(site):
    assert "quarantine must not be higher" in faults(site, score="quarantine = 9.0\nreject = 5.0\n")[0]


def test_a_set_is_named_by_its_texts(site):
    first = site(score="quarantine = 5.0\nreject = 7.0\n")
    assert site(score="quarantine = 5.0\nreject = 7.0\n").version == first.version
    assert site(score="quarantine = 5.0\nreject = 7.5\n").version != first.version


def test_a_filter_with_a_time_of_its_own_has_longer_than_that_where_its_file_does_not_say(tmp_path):
    text = (SHIPPED_POLICIES / "spf.toml").read_text("utf-8")
    (tmp_path / "spf.toml").write_text(re.sub(r"(?m)^timeout = 25.*$", "", text, count=1))
    assert policy.load(tmp_path, None).by_name["spf"].timeout == 20.0 + policy.MARGIN

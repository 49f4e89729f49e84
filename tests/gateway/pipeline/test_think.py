"""Asking the pure filters: that whatever goes wrong is a finding, and what the nursery of workers does not load."""

import json
import subprocess
import sys
from dataclasses import replace
from ipaddress import ip_address
from types import SimpleNamespace

from gateway.model import Finding, Mail, Part, Session, Stage
from gateway.pipeline import think
from gateway.pipeline.policy import Policy

MAIL = Mail("m1", Session(ip_address("192.0.2.1")))


def pure(name, answer):
    filter_ = SimpleNamespace(stage=Stage.MESSAGE, codes=frozenset({"seen"}), after=frozenset(), check=answer)
    return Policy(name, f"{name}.toml", filter_, 1.0, (), pure=True)


def asked(*policies):
    return think.think(MAIL, (policies,), lambda content: content)[1]


def test_a_pure_filter_that_raises_is_its_finding_error_and_the_others_are_asked():
    def bad(mail, found):
        raise KeyError("x")

    def good(mail, found):
        return [Finding("seen")]

    found = asked(pure("bad", bad), pure("good", good))
    assert found["bad"] == [Finding("error", "KeyError in filters/bad.py")]
    assert found["good"] == [Finding("seen")]


def test_no_answer_at_all_is_not_taken_for_nothing_found():
    found = asked(pure("silent", lambda _mail, _found: None))
    assert found["silent"] == [Finding("error", "TypeError in filters/silent.py")]


def by_part(name):
    policy = pure(name, lambda mail, _found: [Finding("seen", part.path) for part in mail.content.parts])
    policy.filter.by_part = True
    return policy


def grows(limit):
    """Adds a part each time that it is asked, *limit* times."""

    def grown(content):
        size = len(content.parts)
        return replace(content, parts=(*content.parts, Part(f"{size + 1}"))) if size < limit else content

    return grown


def test_who_judges_by_part_is_asked_once_of_each_file_that_was_found():
    whole = pure("whole", lambda mail, _found: [Finding("seen", str(len(mail.content.parts)))])
    content, found = think.think(MAIL, ((by_part("each"), whole),), grows(3))
    assert [finding.detail for finding in found["each"]] == ["1", "2", "3"]
    assert [finding.detail for finding in found["whole"]] == ["0"]
    assert len(content.parts) == 3
    assert not content.unscannable


def test_files_in_files_that_filters_find_have_an_end():
    content, _ = think.think(MAIL, ((by_part("each"),),), grows(100))
    assert "nested" in content.unscannable


def test_confined_workers_load_no_store_no_ciphers_and_none_who_ask_the_world():
    script = "import sys, json, gateway.pipeline.confined; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=30)
    unwanted = {"asyncio", "cryptography", "sqlalchemy", "watchfiles", "gateway.dns", "gateway.pipeline.inspect"}
    assert not unwanted & set(json.loads(done.stdout))


def test_the_gateway_loads_no_parser_of_mails_to_have_them_scanned():
    script = "import sys, json, gateway.pipeline.intake; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=30)
    assert not {"html.entities", "gateway.pipeline.content", "gateway.pipeline.confined"} & set(json.loads(done.stdout))

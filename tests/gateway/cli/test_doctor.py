"""What `gatepost doctor sandbox` prints, and when it exits with a fault."""

import json

import pytest

from gateway.pipeline import trial
from gateway.pipeline.trial import Trial
from tests.gateway.delivery.fakes import FakeDns


@pytest.fixture
def found(monkeypatch):
    """What the trial finds, to be filled; it takes seconds, and has tests of its own."""
    trials, asked = [Trial("read the store", True, "refused: EACCES")], []

    async def run(*targets):
        asked.append(targets[1:])
        return trials

    monkeypatch.setattr(trial, "run", run)
    return trials, asked


def test_everything_denied_is_well(gatepost, found):
    code, out, _ = gatepost("doctor", "sandbox")
    assert code == 0
    assert "denied" in out
    assert "refused: EACCES" in out
    assert "this kernel gives seccomp" in out


def test_one_thing_that_is_possible_is_a_fault(gatepost, found):
    found[0].append(Trial("run /bin/true", False, "possible"))
    code, out, _ = gatepost("doctor", "sandbox")
    assert code == 1
    assert "POSSIBLE!" in out


def test_scripts_see_each_attempt(gatepost, found):
    code, out, _ = gatepost("doctor", "sandbox", "--json")
    told = json.loads(out)
    assert (code, told["held"], told["kernel"]["seccomp"]) == (0, True, True)
    assert told["attempts"] == [{"attempt": "read the store", "denied": True, "how": "refused: EACCES"}]


def test_it_is_tried_at_the_store_and_the_key_of_this_gateway(gatepost, found, home):
    gatepost("doctor", "sandbox")
    assert [[path.name for path in targets] for targets in found[1]] == [["gatepost.db", "key.pem"]]


def test_the_dns_of_ourselves_is_looked_at_and_what_is_wrong_is_a_fault(gatepost):
    code, out, _ = gatepost("doctor", "dns", "in.example", "--address", "192.0.2.10", "--json", dns=FakeDns)
    told = {(one["name"], one["kind"]): one["state"] for one in json.loads(out)}
    assert code == 1
    assert told["192.0.2.10", "PTR"] == told["in.example", "MX"] == told["in.example", "DMARC"] == "wrong"
    code, out, _ = gatepost("doctor", "dns", "in.example", dns=FakeDns)
    assert "gatepost dkim generate in.example" in out


def test_what_is_no_address_is_refused(gatepost):
    code, _, err = gatepost("doctor", "dns", "--address", "mx.example")
    assert (code, "like 192.0.2.10" in err) == (2, True)

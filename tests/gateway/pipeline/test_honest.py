"""What honest people send is delivered: each mail of tests/honest.py through the reader, the pure filters and the shipped policies."""

import os
from ipaddress import ip_address

import pytest

from gateway.model import Action, Envelope, ListenerKind, Mail, Recipient, Session
from gateway.pipeline import confined, policy
from gateway.pipeline.crossing import Scanned
from tests.honest import honest

MAILS = dict(honest())
POLICIES = policy.load(None, None)
SESSION = Session(ip_address("192.0.2.1"), "mx", ListenerKind.MX)
MAIL = Mail("id", SESSION, Envelope("ann@out.example", (Recipient("bob@in.example"),)))


@pytest.fixture(scope="module")
def task() -> confined.Task:
    filters = policy.waves(confined._policy(one.name, one.settings) for one in POLICIES.pure)
    return confined.Task(POLICIES.stages.content.settings, filters)


def scan(title: str, task: confined.Task) -> Scanned:
    with os.fdopen(os.memfd_create("message"), "r+b") as file:
        file.write(MAILS[title])
        file.flush()
        return confined.scan(MAIL, file.fileno(), task)


@pytest.mark.parametrize("title", MAILS)
def test_what_honest_people_send_is_delivered(title: str, task: confined.Task) -> None:
    scanned = scan(title, task)
    assert (scanned.content.unscannable, scanned.content.ambiguities) == ("", ())
    verdict = POLICIES.decide(scanned.found, MAIL, "bob@in.example")
    assert verdict.action is Action.ACCEPT, verdict


@pytest.mark.parametrize("title", [title for title in MAILS if "encrypted by" in title])
def test_what_is_encrypted_for_its_reader_is_told(title: str, task: confined.Task) -> None:
    assert [finding.code for finding in scan(title, task).found["archives"]] == ["sealed"]

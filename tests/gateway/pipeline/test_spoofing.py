"""Who passes for somebody else: each case of tests/spoofing through the confined reader, the filters and the shipped policies.

The DNS is made up; keys, signatures, records and evaluation are real. Nothing is proved of a domain but the attacker's.
"""

import asyncio
import contextlib
import ipaddress
import os
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.dkim.checker import Checker
from gateway.model import Envelope, Finding, Found, ListenerKind, Mail, Recipient, Session, Stage, Tools, Verdict
from gateway.pipeline import confined, inspect, policy, results
from gateway.pipeline.confined import Task, scan
from gateway.pipeline.policy import Policies
from gateway.smtp import address
from gateway.smtp.replies import ProtocolError
from gateway.stages import files
from tests.peers import signer

CASES = tomllib.loads((Path(__file__).parents[2] / "spoofing/cases.toml").read_text("utf-8"))["case"]
HOST = "gw.ours.example"
ATTACKER = ipaddress.ip_address("192.0.2.66")
ASIDE = ("antivirus", "dnsbl", "greylist", "helo", "rate")  # they need neighbours, and find nothing of authors
TO = (Recipient("bob@ours.example"),)
REST = (
    b"To: <bob@ours.example>\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\nSubject: Hi\r\nMessage-ID: <1@x.example>\r\n"
)


class Dns:
    """attack.example and all below it vouch for the attacker; legit.example for nobody; the rest says nothing."""

    async def txt(self, name: str) -> Sequence[bytes]:
        if name in {"_dmarc.attack.example", "_dmarc.legit.example"}:
            return [b"v=DMARC1; p=" + (b"reject" if "legit" in name else b"none")]
        if not name.endswith("attack.example") or name.startswith("_dmarc."):
            return [b"v=spf1 -all"] if name == "legit.example" else []
        return [signer.record(signer.rsa_key())] if "_domainkey" in name else [b"v=spf1 ip4:192.0.2.66 -all"]

    async def a(self, name: str) -> Sequence[str]:
        return ["192.0.2.1"] if name in {"legit.example", "mail.legit.example"} else []

    async def aaaa(self, name: str) -> Sequence[str]:
        return []

    async def mx(self, name: str) -> Sequence[tuple[int, str]]:
        return []

    async def ptr(self, name: str) -> Sequence[str]:
        return []


async def account_of(name: str) -> str:
    return {"attacker@ours.example": "attacker", "attacker+list@ours.example": "attacker"}.get(name, "")


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Policies:
    folder = tmp_path_factory.mktemp("policies")
    for name in ASIDE:
        text = files(None)[name].read_text("utf-8").replace("enabled = true", "enabled = false")
        (folder / f"{name}.toml").write_text(text, "utf-8")
    dns = Dns()
    return policy.load(folder, Tools(dns, None, HOST, None, Checker(dns), account_of, None))  # type: ignore[arg-type]


def envelope(case: dict[str, Any]) -> Envelope:
    """What the dialog makes of MAIL FROM; an empty sender where it refuses."""
    with contextlib.suppress(ProtocolError):
        return replace(said(case), recipients=TO)
    return Envelope("", TO)


def said(case: dict[str, Any]) -> Envelope:
    return address.mail(f"FROM:<{case.get('mail_from', 'any@attack.example')}>")[0]


def message(case: dict[str, Any]) -> bytes:
    raw = case["header"].encode() + REST + b"\r\nHi, best wishes.\r\n"
    return signer.signed(raw, **{"d": "attack.example", "s": "sel", **case.get("dkim", {})})


def judged(case: dict[str, Any], policies: Policies) -> tuple[Mail, Found, Verdict]:
    user = case.get("user", "")
    kind = ListenerKind.SUBMISSION if user else ListenerKind.MX
    session = Session(ATTACKER, kind=kind, helo="mail.attack.example", user=user)
    mail = Mail("id", session, envelope(case))
    fd = os.memfd_create("message")
    try:
        os.write(fd, message(case))
        filters = policy.waves(confined._policy(one.name, one.settings) for one in policies.pure)
        scanned = scan(mail, fd, Task(policies.stages.content.settings, filters, frozenset()))
    finally:
        os.close(fd)
    mail = Mail("id", session, mail.envelope, scanned.content)

    async def asked() -> Found:
        known = await inspect.ask(mail, Stage.SENDER, policies, scanned.found)
        return await inspect.ask(mail, Stage.MESSAGE, policies, known)

    found = asyncio.run(asked())
    return mail, found, policies.decide(found, mail, "bob@ours.example")


def codes(found: Found) -> set[str]:
    return {f"{name}/{finding.code}" for name, findings in found.items() for finding in findings}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_nobody_is_proved_to_be_whom_they_pass_for(case: dict[str, Any], policies: Policies) -> None:
    mail, found, verdict = judged(case, policies)
    assert set(case["findings"]) <= codes(found), codes(found)
    assert not any(code.endswith("/error") for code in codes(found))
    assert verdict.action.value == case["action"], verdict
    assert mail.content.author.domain == case.get("author", mail.content.author.domain)
    proved = {about for finding in _passes(found) if (about := finding.result and finding.result.get("header.from"))}
    assert proved <= {"attack.example"} & {mail.content.author.domain}


def _passes(found: Found) -> list[Finding]:
    return [one for one in found.get("dmarc", ()) if one.result is not None and one.result.result == "pass"]


@pytest.mark.parametrize("case", [one for one in CASES if "user" not in one], ids=lambda case: case["name"])
def test_no_result_that_is_written_names_whom_they_pass_for_as_proved(case: dict[str, Any], policies: Policies) -> None:
    _, found, _ = judged(case, policies)
    for line in results.field(HOST, found).decode().split(";\r\n\t"):
        assert not ("=pass" in line and "legit" in line), line


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_dialog_refuses_what_the_grammar_refuses(case: dict[str, Any]) -> None:
    if case.get("refused_at"):
        with pytest.raises(ProtocolError):
            said(case)
    else:
        assert said(case)

"""What the parser and the shipped pure filters see in each mail of tests/messages. What has to be seen stands beside it.

    NAME.eml    the mail, octet by octet
    NAME.toml   about, subject, parts; where there are any: defects, ambiguous, unscannable, findings (filter -> codes)

Of texts (defects, ambiguous, unscannable, the text of a part) a piece is enough; what is not named has to be absent.
"""

import importlib
import ipaddress
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.model import Content, Mail, Part, Session
from gateway.pipeline.content import gathering, grown, parsed
from gateway.pipeline.policy import Policies, Policy, build_settings, load, made_pure, waves
from gateway.pipeline.think import think
from gateway.pipeline.tray import Tray
from tests.e2e import mails
from tests.holders import HOLDERS
from tests.peers.clamd import EICAR

MESSAGES = Path(__file__).parents[2] / "messages"
NAMES = sorted(path.stem for path in MESSAGES.glob("*.eml"))
KEYS = {"about", "subject", "parts", "defects", "ambiguous", "unscannable", "findings"}
PART_KEYS = {"path", "media_type", "filename", "sniffed", "encrypted", "text", "view"}


@pytest.fixture(scope="module")
def shipped() -> Policies:
    return load(None, None)


@pytest.mark.parametrize("name", NAMES)
def test_a_mail_is_seen_as_it_has_to_be(name: str, shipped: Policies) -> None:
    content, codes = judged((MESSAGES / f"{name}.eml").read_bytes(), shipped)
    expected = tomllib.loads((MESSAGES / f"{name}.toml").read_text("utf-8"))
    wrong = differences(expected, content, codes)
    assert not wrong, "\n".join([f"{name}.eml: {expected['about']}", *wrong])


@pytest.mark.parametrize("title", HOLDERS)
def test_a_program_in_a_document_is_a_part_and_seen_by_who_judges_those(title: str, shipped: Policies) -> None:
    name, holding = HOLDERS[title]
    program = b"MZ".ljust(64, b"\0") + b"PE\0\0" + b"harmless" * 20
    content, codes = judged(mails.attachment(name, holding(program)), shipped)
    assert "application/x-dosexec" in [part.sniffed for part in content.parts]
    assert set(codes["attachments"]) & {"executable", "disguised"}


def judged(raw: bytes, shipped: Policies) -> tuple[Content, dict[str, list[str]]]:
    """A mail as it is in the end, and the codes of all that the pure filters find."""
    tray, limits = Tray(), shipped.stages.content.settings
    gathered = gathering(limits, tray)
    mail = Mail("id", Session(ipaddress.ip_address("192.0.2.1")), content=parsed(raw, gathered))
    asked = waves(looking_into(tray, policy) for policy in shipped.pure)
    content, found = think(mail, asked, lambda content: grown(content, gathered))
    return content, {filter_: sorted(f.code for f in findings) for filter_, findings in found.items()}


def looking_into(tray: Tray, policy: Policy) -> Policy:
    """*policy* with its filter made as the confined child makes it."""
    module: Any = importlib.import_module(f"filters.{policy.name}")
    return replace(policy, filter=made_pure(module, build_settings(module.Settings, policy.settings), tray))


def differences(expected: dict[str, Any], content: Content, codes: dict[str, list[str]]) -> list[str]:
    """One line for each thing that is seen otherwise than *expected*."""
    findings = {filter_: sorted(wanted) for filter_, wanted in expected.get("findings", {}).items()}
    pairs = [
        ("subject", expected["subject"], content.subject),
        ("findings", findings, codes),
        ("number of parts", len(expected["parts"]), len(content.parts)),
        ("number of ambiguities", len(expected.get("ambiguous", [])), len(content.ambiguities)),
        ("number of defects", len(expected.get("defects", [])), len(content.defects)),
    ]
    wrong = [f"  {what}: expected {wanted!r}, seen {seen!r}" for what, wanted, seen in pairs if wanted != seen]
    wrong += [
        line for wanted, part in zip(expected["parts"], content.parts, strict=False) for line in odd(wanted, part)
    ]
    texts = [(defect, "\n".join(content.defects)) for defect in expected.get("defects", [])]
    texts += [(words, "\n".join(content.ambiguities)) for words in expected.get("ambiguous", [])]
    texts += [(expected.get("unscannable", ""), content.unscannable)]
    return wrong + [f"  expected {piece!r}, seen {text!r}" for piece, text in texts if not within(piece, text)]


def odd(wanted: dict[str, Any], part: Part) -> list[str]:
    """What of *part* is not as *wanted*. Its text may be longer."""
    bare = {"media_type": "", "filename": "", "sniffed": "", "encrypted": False, "view": ""}
    seen = {key: getattr(part, key) for key in ("path", *bare)}
    named = {key: value for key, value in wanted.items() if key != "text"}
    wrong = [] if {**bare, **named} == seen else [f"  part: expected {wanted}, seen {seen}"]
    if wanted.get("text", "") not in part.text:
        wrong.append(f"  text of part {part.path}: expected {wanted['text']!r} in it, seen {part.text[:200]!r}")
    return wrong


def within(piece: str, text: str) -> bool:
    """Whether *piece* is a piece of *text*; none is only one of none."""
    return piece in text if piece else not text


def test_there_are_mails_of_every_kind_and_each_says_what_has_to_be_seen() -> None:
    assert len(NAMES) >= 60
    assert sorted(path.stem for path in MESSAGES.glob("*.toml")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_what_has_to_be_seen_is_said_in_words_that_are_compared(name: str) -> None:
    expected = tomllib.loads((MESSAGES / f"{name}.toml").read_text("utf-8"))
    assert {"about", "subject", "parts"} <= expected.keys() <= KEYS
    assert all({"path"} <= part.keys() <= PART_KEYS for part in expected["parts"])


@pytest.mark.parametrize("name", NAMES)
def test_a_mail_is_kept_as_it_travels_and_harms_nobody(name: str) -> None:
    lines = (MESSAGES / f"{name}.eml").read_bytes().split(b"\r\n")
    assert lines[-1] == b"", "the last line does not end"
    assert not any(b"\r" in line or b"\n" in line or b"\0" in line for line in lines), "CR or LF alone, or NUL"
    assert EICAR not in b"".join(lines)

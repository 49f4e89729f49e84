"""Rules of the administrator: what they find, and what is said of those that cannot be used."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from filters.yara import Filter, Settings
from gateway.config import SHIPPED_POLICIES
from gateway.model import Mail, Part
from gateway.pipeline import policy
from gateway.pipeline.intake import Intake
from gateway.pipeline.sandbox import Answer, Sandbox
from gateway.toml import FaultyFiles
from tests.laid import Laid, asked, mail_of

RULES = """
private rule hidden { condition: true }
rule Marker { strings: $a = "harmless marker" condition: $a and hidden }
rule Doubt : suspicious { strings: $a = /dou[bt]{2}/ condition: $a }
"""
"""Rules that find what the tests write."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own.yar").write_text(RULES)
    return tmp_path


def mail(**parts: bytes) -> Mail:
    return mail_of(*(Part(path) for path in (*parts, "empty")))


def found(folder: Path, part_size: int = 1000, **parts: bytes) -> list[tuple[str, str]]:
    filter_ = Filter(Settings(str(folder), part_size), Laid(parts))
    return [(finding.code, finding.part) for finding in asked(filter_, mail(**parts))]


def test_a_rule_that_matches_names_the_part_and_a_tag_makes_it_a_doubt(folder: Path) -> None:
    assert found(folder, a=b"a harmless marker", b=b"nothing", c=b"in doubt, a harmless marker") == [
        ("found", "a"),
        ("found", "c"),
        ("suspicious", "c"),
    ]


def test_the_finding_names_the_rule_and_its_file(folder: Path) -> None:
    (finding,) = Filter(Settings(str(folder)), Laid({"a": b"harmless marker"})).check(mail(a=b""), {})
    assert finding.detail == "the rule Marker of own.yar matches"


def test_of_a_part_that_is_too_large_the_beginning_is_seen_and_that_is_said(folder: Path) -> None:
    assert found(folder, 100, a=b"harmless marker".ljust(200), b=b"x" * 100) == [("found", "a"), ("unscanned", "a")]
    assert found(folder, 100, a=b"harmless marker".rjust(200)) == [("unscanned", "a")]


def test_files_may_name_rules_alike_and_others_are_no_rules(folder: Path) -> None:
    (folder / "more.yara").write_text(RULES)
    (folder / "readme.txt").write_text("no rule")
    assert found(folder, a=b"harmless marker") == [("found", "a")] * 2


def test_a_thousand_rules_that_match_are_not_all_named(folder: Path) -> None:
    (folder / "many.yar").write_text("\n".join(f"rule r{number} {{ condition: true }}" for number in range(1000)))
    assert len(found(folder, a=b"x")) == 20


def test_without_rules_nothing_is_found_and_nothing_loaded() -> None:
    program = "import sys, filters.yara as y; y.Filter(y.Settings(), object()).check(None, {}); print('yara_x' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("rule a { condition: nothing_such }", "unknown identifier `nothing_such`.*bad.yar:1:21"),
        ("rule a {", "bad.yar:1"),
        ('include "/etc/passwd"', "include"),
    ],
)
def test_a_rule_that_cannot_be_used_is_told_with_its_place(folder: Path, text: str, why: str) -> None:
    (folder / "bad.yar").write_text(text)
    with pytest.raises(ValueError, match=why):
        Filter(Settings(str(folder)), None)


@pytest.mark.parametrize("rules", ["relative/folder", "/nonexistent/folder"])
def test_a_folder_without_rules_is_told(rules: str) -> None:
    with pytest.raises(ValueError, match="rules"):
        Filter(Settings(rules), None)


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are no rules in"):
        Filter(Settings(str(tmp_path)), None)


def load(folder: Path) -> policy.Policies:
    """The shipped policies, with the rules of *folder*."""
    own = folder / "policies"
    own.mkdir(exist_ok=True)
    text = (SHIPPED_POLICIES / "yara.toml").read_text()
    assert 'rules = "" ' in text
    (own / "yara.toml").write_text(text.replace('rules = "" ', f'rules = "{folder}" '))
    return policy.load(own, None)


def test_the_version_of_a_set_of_policies_names_the_texts_of_its_rules(folder: Path) -> None:
    first = load(folder)
    assert first.folders == {folder}
    assert load(folder).version == first.version
    (folder / "own.yar").write_text(RULES + "\n")
    assert load(folder).version != first.version


def test_a_fault_in_a_rule_is_a_fault_of_the_policy_file(folder: Path) -> None:
    (folder / "own.yar").write_text("rule a { condition: nothing_such }")
    with pytest.raises(FaultyFiles, match=r"yara.toml:\d+.*nothing_such"):
        load(folder)


def test_rules_that_change_are_loaded_again_and_faulty_ones_are_not(folder: Path) -> None:
    first = load(folder).version

    async def changed(intake: Intake, text: str) -> bool:
        """Whether another set is in force soon after a file of rules was written, again and again."""
        before = intake.policies.version
        for turn in range(50):
            if turn % 10 == 0:
                (folder / "own.yar").write_text(text)
            await asyncio.sleep(0.02)
            if intake.policies.version != before:
                return True
        return False

    async def story() -> None:
        intake = Intake(None, None, None, None, hostname="gw.example", configured=folder / "policies")  # type: ignore[arg-type]
        assert intake.policies.version == first
        stop = asyncio.Event()
        watching = asyncio.create_task(intake.watch(stop))
        assert await changed(intake, RULES + "// more")
        assert not await changed(intake, "rule a { condition: nothing_such }")
        assert await changed(intake, RULES + "// still more")
        stop.set()
        await watching

    asyncio.run(story())


def test_confined_the_rules_find_the_same(folder: Path) -> None:
    (folder / "message").write_bytes(
        b"From: a@a.test\r\nSubject: x\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream; name=x.bin\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\naGFybWxlc3MgbWFya2Vy\r\n"
    )

    async def scan() -> Answer:
        sandbox = await Sandbox(load(folder), 1).start()
        try:
            with (folder / "message").open("rb") as message:
                return await sandbox.scan(mail(), message)
        finally:
            await sandbox.close()

    answer = asyncio.run(scan())
    assert answer.content.unscannable == ""
    assert [(one.code, one.part) for one in answer.found["yara"]] == [("found", "1")]

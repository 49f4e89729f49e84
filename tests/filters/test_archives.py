"""What is locked, unlocked, unreadable, or would land outside: told once for each archive."""

import tomllib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from filters.archives import Filter, Settings
from gateway.model import Finding, Part
from tests.laid import asked, mail_of

SEALED = Part("1", "application/pkcs7-mime", "smime.p7m", sealed=True)
POLICY = Path(__file__).parents[2] / "policies" / "archives.toml"


def check(*parts: Part, settings: Settings | None = None) -> Sequence[Finding]:
    return asked(Filter(settings or Settings()), mail_of(*parts))


def codes(*parts: Part) -> list[str]:
    return [finding.code for finding in check(*parts)]


def member(name: str, link: str = "") -> Part:
    return Part(f"2/{name}", "", name, link=link)


def test_an_archive_with_many_locked_files_is_encrypted_once() -> None:
    inside = [Part(f"2/{n}.txt", "", f"{n}.txt", encrypted=True) for n in range(4)]
    first, other = check(*inside, Part("3/a.txt", "", "a.txt", encrypted=True))
    assert (first.code, first.detail, first.part) == (
        "encrypted",
        "0.txt: needs a password (and 3 more like it)",
        "2/0.txt",
    )
    assert (other.code, other.part) == ("encrypted", "3/a.txt")


def test_an_archive_that_does_not_even_tell_names_is_encrypted() -> None:
    (finding,) = check(Part("2", "application/octet-stream", "a.7z", "application/x-7z-compressed", encrypted=True))
    assert (finding.code, finding.part) == ("encrypted", "2")


def test_what_only_its_reader_can_open_is_sealed() -> None:
    (finding,) = check(SEALED)
    assert (finding.code, finding.detail, finding.part) == ("sealed", "smime.p7m: is encrypted for its reader", "1")


def test_what_is_locked_and_sealed_is_both() -> None:
    assert codes(Part("2", "", "a.gpg", encrypted=True, sealed=True)) == ["encrypted", "sealed"]


def test_what_was_unlocked_is_told_and_is_not_encrypted() -> None:
    assert codes(Part("2/a.txt", "", "a.txt", unlocked=True)) == ["password_in_mail"]


def test_what_nobody_can_read_says_why() -> None:
    (finding,) = check(Part("2", "", "a.ace", unreadable="it is of the kind ACE"))
    assert (finding.code, finding.detail) == ("unreadable", "a.ace: it is of the kind ACE")


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "..\\x",
        "a/../../x",
        "a/b/../../../c/d",
        "/etc/cron.d/x",
        "\\\\server\\share\\x",
        "C:\\x",
        "c:x",
        "./../x",
        ".. /x",
        "a//../../x",
    ],
)
def test_a_name_that_leaves_the_folder_is_traversal(name: str) -> None:
    assert codes(member(name)) == ["traversal"]


@pytest.mark.parametrize(
    "name", ["a", "a/b", "a/../b", "./a", "...", "..a/b", "a../b", "`id`", "-rf", "ab:c", "B::C", "/", "//", ""]
)
def test_a_name_that_stays_inside_is_nothing(name: str) -> None:
    assert codes(member(name)) == []


@pytest.mark.parametrize("link", ["/etc/passwd", "../x", "b/../../../x", "..\\..\\x"])
def test_a_link_that_leads_out_is_traversal(link: str) -> None:
    assert codes(member("link", link)) == ["traversal"]


@pytest.mark.parametrize(("name", "link"), [("a", "b"), ("a/b/c", "../d"), ("a/b", "../c/d"), ("a", "./b")])
def test_a_link_that_stays_inside_is_nothing(name: str, link: str) -> None:
    assert codes(member(name, link)) == []


def test_attachments_themselves_have_no_folder_to_leave() -> None:
    assert codes(Part("2", "text/plain", "../x")) == []


def test_absolute_names_may_be_allowed_but_not_those_that_climb() -> None:
    allowed = Settings(absolute=True)
    assert check(member("/etc/x"), settings=allowed) == []
    assert [finding.code for finding in check(member("/../x"), settings=allowed)] == ["traversal"]


def test_details_are_printable_and_short() -> None:
    for name in ("../a\r\n\x1b[31m\u202e", "../" + "<script>" * 500):
        (finding,) = check(member(name))
        assert finding.detail.isprintable()
        assert len(finding.detail) < 200


def test_every_code_can_be_reported() -> None:
    parts = (
        Part("2/a", encrypted=True),
        Part("2/b", unlocked=True),
        Part("2/c", unreadable="x"),
        member("../x"),
        SEALED,
    )
    assert {*codes(*parts)} == Filter.codes


def test_honest_parts_and_no_parts_are_nothing() -> None:
    assert codes() == []
    assert codes(Part("1", "text/plain"), Part("2", "application/zip", "a.zip"), member("a/b.txt")) == []


def test_the_shipped_policy_says_the_same_as_the_defaults() -> None:
    assert tomllib.loads(POLICY.read_text("utf-8"))["settings"] == asdict(Settings())

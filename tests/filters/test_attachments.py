"""Names as a desktop reads them, first bytes whatever the name says, and what honest people send."""

import tomllib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from filters.attachments import Filter, Settings
from gateway.model import Finding, Part
from tests.laid import asked, mail_of

POLICY = Path(__file__).parents[2] / "policies" / "attachments.toml"
MZ = "application/x-dosexec"


def check(*parts: Part, settings: Settings | None = None) -> Sequence[Finding]:
    return asked(Filter(settings or Settings()), mail_of(*parts))


def codes(*parts: Part) -> list[str]:
    return [finding.code for finding in check(*parts)]


def named(name: str, sniffed: str = "", media_type: str = "application/octet-stream", text: str = "") -> Part:
    return Part("2", media_type, name, sniffed, text=text)


@pytest.mark.parametrize(
    "name",
    [
        "setup.exe",
        "SETUP.EXE",
        "setup.exe.",
        "setup.exe. . .",
        "setup.exe   ",
        "setup.exe\u200b",
        "setup.exe\ufffd",
        "setup.e\u00adxe",
        '"setup.exe"',
        ".exe",
        "C:\\temp\\setup.exe",
        "../../setup.exe",
        "archive.tar.js",
        "v1.2.msi",
        "kontakt.lnk",
        "disk.iso",
        "invoice.desktop",
        "colours.themepack",
        "setup.appinstaller",
        "setup.exe/",
        "tool.py",
        "site.webloc",
        "orders.accdb",
        "form.xdp",
        "setup\uff0eexe",
        "setup.\uff45\uff58\uff45",
        "setup.exe\u00a0",
        "setup.exe\u3000.",
        "setup.exe\u3164",
        "setup.e\ufe0fxe",
        "setup.exe\U000e0061",
        "setup.exe::$DATA",
        "setup. exe",
    ],
)
def test_a_name_that_runs_is_executable(name: str) -> None:
    assert codes(named(name)) == ["executable"]


@pytest.mark.parametrize(
    "name",
    [
        "invoice.pdf.exe",
        "invoice.PDF.Exe ",
        "invoice.pdf                                        .exe",
        "invoice.pdf .scr",
        "photo            .com",
        "photo\u202egpj.exe",
        "photo\u202eexe.jpg",
        "\u2067photo.exe",
        "x" * 300 + ".exe",
        "x" * 300 + ".pdf",
        "x" * 999 + "…",
        "setup.exe\ufffd.txt",
        "invoice.pdf\uff0eexe",
    ],
)
def test_a_name_that_hides_what_it_is_is_disguised(name: str) -> None:
    assert codes(named(name)) == ["disguised"]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "letter.pdf",
        "exe",
        "an.exe.pdf",
        "notes.txt",
        "report.v2.docx",
        "my.js.notes.txt",
        "ソフト.doc",
        "Notes on 12:30.txt",
        "price in $DATA",
        ".",
        "...",
        "é.jpg",
    ],
)
def test_honest_names_are_nothing(name: str) -> None:
    assert codes(named(name)) == []


@pytest.mark.parametrize("kind", Settings().types)
def test_a_program_behind_the_name_of_a_document_is_disguised(kind: str) -> None:
    assert codes(named("invoice.pdf", kind)) == ["disguised"]


@pytest.mark.parametrize("media_type", ["image/png", "audio/mpeg", "video/mp4", "application/pdf"])
def test_a_program_declared_as_a_picture_is_disguised(media_type: str) -> None:
    assert codes(named("", MZ, media_type)) == ["disguised"]


@pytest.mark.parametrize("name", ["", "data.bin", "setup", "setup.ex_"])
def test_a_program_without_a_telling_name_is_executable(name: str) -> None:
    assert codes(named(name, MZ)) == ["executable"]


@pytest.mark.parametrize("media_type", Settings().declared)
def test_what_has_a_type_and_no_name_is_saved_under_a_name_that_the_type_makes(media_type: str) -> None:
    assert codes(named("", "", media_type)) == ["executable"]
    assert codes(named("report.txt", "", media_type)) == []


def test_a_program_that_says_so_is_only_executable() -> None:
    assert codes(named("setup.exe", MZ)) == ["executable"]


def test_a_text_that_begins_like_a_program_is_a_text() -> None:
    assert codes(named("", MZ, "text/plain", "MZ, Aug 4\r\nDear all")) == []
    assert codes(named("notes.txt", MZ, "text/plain", "MZ, Aug 4\r\nDear all")) == []


def test_a_program_declared_as_text_is_still_a_program() -> None:
    assert codes(named("notes.txt", MZ, "text/plain", "MZ\x90\0\3\0\0\0")) == ["disguised"]
    assert codes(named("", MZ, "text/plain")) == ["executable"]


def test_members_of_archives_are_looked_at_like_parts() -> None:
    inner = Part("2/docs/setup.exe", "", "docs/setup.exe", MZ)
    nested = Part("2/a.zip/invoice.pdf.scr", "", "invoice.pdf.scr")
    found = check(Part("2", "application/zip", "a.zip", "application/zip"), inner, nested)
    assert [(finding.code, finding.part) for finding in found] == [
        ("executable", inner.path),
        ("disguised", nested.path),
    ]


@pytest.mark.parametrize(
    "name", ["\u200f\u200f\u05dc\u05db\u05d9\u05d3\u05d4.png", "\u2067photo.jpg", "\u202abill.pdf\u202c"]
)
def test_honest_names_with_marks_of_their_direction_are_nothing(name: str) -> None:
    assert codes(named(name)) == []


def test_a_mail_without_parts_is_nothing() -> None:
    assert check() == []


def test_details_are_printable_and_short() -> None:
    for name in ("a\r\n\x1b[31m\u202e.exe", "<script>" * 500 + ".exe", ""):
        (finding,) = check(named(name, MZ))
        assert finding.detail
        assert finding.detail.isprintable()
        assert len(finding.detail) < 200


def test_settings_replace_what_counts() -> None:
    settings = Settings(suffixes=(".TXT",), types=(), documents=())
    assert [finding.code for finding in check(named("a.txt"), named("a.exe", MZ), settings=settings)] == ["executable"]


def test_a_suffix_without_a_dot_is_told_when_the_policy_loads() -> None:
    with pytest.raises(ValueError, match="begins with a dot"):
        Filter(Settings(suffixes=("exe",)))


def test_what_is_no_part_is_no_result() -> None:
    with pytest.raises(AttributeError):
        check(None)  # type: ignore[arg-type]


def test_every_code_can_be_reported() -> None:
    assert {*codes(named("a.exe"), named("a.pdf.exe"))} == Filter.codes


def test_the_shipped_policy_says_the_same_as_the_defaults() -> None:
    written = tomllib.loads(POLICY.read_text("utf-8"))["settings"]
    assert {key: sorted(value) for key, value in written.items()} == {
        k: sorted(v) for k, v in asdict(Settings()).items()
    }

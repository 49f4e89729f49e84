"""Every shortcut and appointment of the collection; what is broken or hostile costs little and is never clean."""

import base64
import struct
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters._shortcuts import link
from filters.shortcuts import Filter, Settings
from gateway.model import Finding, Part
from tests.laid import Laid, asked_for_print, attached, damaged, mail_of

POLICY = Path(__file__).parents[2] / "policies" / "shortcuts.toml"
CASES = tomllib.loads((Path(__file__).parent / "shortcuts" / "cases.toml").read_text("utf-8"))["case"]
CPU = 0.3
"""Seconds that a file of 256 KB may cost, whatever it holds. Twice that here: the machine is shared."""

PROGRAM = base64.b64encode(b"MZ" + bytes(62) + b"harmless " * 30).decode()
FILLED = {
    "@exe64@": PROGRAM,
    "@exefolded@": "\r\n ".join(PROGRAM[at : at + 60] for at in range(0, len(PROGRAM), 60)),
}


def check(*files: tuple[Part, bytes], settings: Settings | None = None) -> Sequence[Finding]:
    payloads = Laid({part.path: octets for part, octets in files})
    return asked_for_print(Filter(settings or Settings(), payloads), mail_of(*(part for part, _ in files)))


def codes(*files: tuple[Part, bytes], settings: Settings | None = None) -> list[str]:
    return sorted(finding.code for finding in check(*files, settings=settings))


def shortcut(target: str = "", arguments: str = "", *, variable: str = "", wide: bool = True, behind: int = 0) -> bytes:
    """A shortcut as [MS-SHLLINK] draws it: header, item list, relative path and arguments, extra data."""
    flags = 0x1 | 0x8 | (0x20 if arguments else 0) | (0x80 if wide else 0)
    header = struct.pack("<I16sI", 0x4C, bytes.fromhex("0114020000000000c000000000000046"), flags).ljust(76, b"\0")
    item = struct.pack("<H", len(target) + 3) + target.encode() + b"\0"
    items = item + b"\0\0"
    strings = [_counted(text, wide=wide) for text in ((target, arguments) if arguments else (target,))]
    block = struct.pack("<II", 0x314, 0xA0000001) + variable.encode().ljust(260, b"\0")
    extra = (block + variable.encode("utf-16-le").ljust(520, b"\0") if variable else b"") + bytes(4)
    return header + struct.pack("<H", len(items)) + items + b"".join(strings) + extra + bytes(behind)


def _counted(text: str, *, wide: bool) -> bytes:
    return struct.pack("<H", len(text)) + text.encode("utf-16-le" if wide else "latin-1")


def _file(case: dict[str, Any]) -> tuple[Part, bytes]:
    if "text" not in case:
        given = {key: case[key] for key in ("target", "arguments", "variable", "wide", "behind") if key in case}
        return attached(case["file"], shortcut(**given))
    text = case["text"]
    for name, filling in FILLED.items():
        text = text.replace(name, filling)
    octets = text.encode(case.get("charset", "utf-8"))
    return attached(case["file"], octets, media_type=case.get("type", "application/octet-stream"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_what_a_file_starts_is_found(case: dict[str, Any]) -> None:
    found = check(_file(case))
    assert sorted(finding.code for finding in found) == case["codes"]
    links = {fact.removeprefix("link=") for finding in found for fact in finding.facts}
    assert links >= set(case.get("links", ()))


def test_every_code_is_in_the_collection_but_one() -> None:
    assert {code for case in CASES for code in case["codes"]} == Filter.codes - {"unreadable"}


def test_a_shortcut_says_what_it_starts_and_with_what() -> None:
    read = link.read(shortcut("C:\\a.exe", "-x y"))
    assert (read.target, read.arguments, read.behind) == ("C:\\a.exe C:\\a.exe", "-x y", 0)
    (finding,) = check(attached("a\u202e.lnk", shortcut("C:\\Windows\\System32\\CMD.EXE")))
    assert finding.detail == "a?.lnk starts cmd"
    assert finding.part == "2"


@pytest.mark.parametrize("cut", [20, 76, 77, 80, 100, 110])
def test_a_shortcut_that_breaks_off_is_never_clean(cut: int) -> None:
    whole = shortcut("C:\\Users\\a.txt", "-x y")
    assert len(whole) > cut
    assert codes(attached("a.lnk", whole[:cut])) == ["unreadable"]


def test_what_cannot_be_read_is_never_clean() -> None:
    assert codes((Part("2", "", "a.lnk", "application/x-ms-shortcut", 500), b"")) == ["unreadable"]
    assert codes(attached("a.ics", b"BEGIN:VEVENT\n" * 100_000)) == ["unreadable"]
    many = [attached("a.url", b"URL=x", f"2/{number}") for number in range(51)]
    assert codes(*many) == ["unreadable"]


def test_names_that_only_contain_a_command_are_none() -> None:
    assert codes(attached("a.lnk", shortcut("C:\\cmdlets\\my-python.cmd.txt"))) == []


def test_an_archive_that_is_named_as_a_shortcut_is_for_others_to_tell() -> None:
    assert codes(attached("a.url", b"PK\3\4" + b"\nURL=file://198.51.100.7/a\n")) == []


HOSTILE: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "lines": ("a.url", lambda size: b"URL=x\n" * (size // 6)),
    "spaces": ("a.url", lambda size: b"URL" + b" " * size),
    "one long line": ("a.url", lambda size: b"URL=" + b"/" * size),
    "commands": ("a.url", lambda size: b"\nURL=" + b"cmd-" * (size // 4)),
    "elements": ("a.webloc", lambda size: b"<string>" * (size // 8)),
    "properties": ("a.ics", lambda size: b"URL:x\n" * (size // 6)),
    "folds": ("a.ics", lambda size: b"A\r\n " * (size // 4)),
    "parameters": ("a.ics", lambda size: b"ATTACH" + b";ENCODING=" * (size // 10) + b":x"),
    "quotes": ("a.ics", lambda size: b'ATTACH;"' * (size // 8) + b":x"),
    "base64": ("a.ics", lambda size: b"ATTACH;ENCODING=B:" + b"QUJD" * (size // 4)),
    "letters": ("a.lnk", lambda size: shortcut("C:\\a.txt") + b"A\0" * (size // 2)),
    "blocks": ("a.lnk", lambda size: shortcut("C:\\a.txt")[:-4] + b"\x08\0\0\0\1\0\0\xa0" * (size // 8)),
    "an item list": ("a.lnk", lambda size: shortcut("cmd " * min(size // 4, 10_000))),
}


@pytest.mark.parametrize(("name", "make"), HOSTILE.values(), ids=HOSTILE)
def test_no_file_keeps_a_reader_busy(name: str, make: Callable[[int], bytes]) -> None:
    file = attached(name, make(1 << 18))
    begin = time.process_time()
    check(file)
    assert time.process_time() - begin < 2 * CPU


@given(
    st.sampled_from(CASES),
    st.lists(st.tuples(st.integers(0, 4096), st.binary(min_size=1, max_size=8)), max_size=20),
)
def test_no_damage_raises(case: dict[str, Any], changes: list[tuple[int, bytes]]) -> None:
    part, whole = _file(case)
    check((part, damaged(whole, changes)))


@given(
    st.binary(max_size=2000),
    st.sampled_from(["a.lnk", "a.url", "a.ics", "a.webloc"]),
    st.sampled_from([b"", shortcut("C:\\a.txt")[:80], b"ATTACH;ENCODING=B", b"URL="]),
)
def test_no_octets_raise(octets: bytes, name: str, begin: bytes) -> None:
    check(attached(name, begin + octets))


def test_settings_replace_what_counts() -> None:
    file = attached("a.lnk", shortcut("C:\\Windows\\System32\\cmd.exe"))
    assert codes(file, settings=Settings(commands=())) == []
    assert codes(file, settings=Settings(commands=("CMD",))) == ["command"]


def test_a_command_that_is_a_path_is_told_when_the_policy_loads() -> None:
    with pytest.raises(ValueError, match="without folder"):
        Filter(Settings(commands=("C:\\cmd",)), Laid({}))


def test_the_shipped_policy_says_the_same_as_the_defaults() -> None:
    written = tomllib.loads(POLICY.read_text("utf-8"))["settings"]
    assert {key: tuple(value) for key, value in written.items()} == asdict(Settings())

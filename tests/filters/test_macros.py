"""Every document of the collection, as a part and inside archives; what is hostile costs little and is never clean."""

import io
import struct
import time
import tomllib
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters._office import documents, vba
from filters._office.seen import Inner, Meter, Unreadable
from filters.macros import Filter, Settings
from gateway.model import Finding, Part
from tests import locked, office
from tests.documents import HOSTILE, SAMPLES, Sample
from tests.laid import Laid, asked, asked_for_print, attached, mail_of

POLICY = Path(__file__).parents[2] / "policies" / "macros.toml"
CPU = 2.0
"""Seconds that a mail may cost in all (content.toml). On a machine that does nothing else, none of these costs 0.6."""


def check(
    *files: tuple[Part, bytes], settings: Settings | None = None, words: Sequence[bytes] = ()
) -> Sequence[Finding]:
    payloads = Laid({part.path: octets for part, octets in files}, words)
    found = list(asked_for_print(Filter(settings or Settings(), payloads), mail_of(*(part for part, _ in files))))
    assert all(finding.part for finding in found)
    for _, name, octets in payloads.added:  # which the filter is asked of in turn
        found += check(*_as_parsed(name, octets))
    return found


def unpacked(name: str, octets: bytes) -> list[tuple[Part, bytes]]:
    """A zip as the parser gives it: itself, and what it holds."""
    with zipfile.ZipFile(io.BytesIO(octets)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    return [attached(name, octets), *(attached(inner, data, f"2/{inner}") for inner, data in members)]


def _as_parsed(name: str, octets: bytes) -> list[tuple[Part, bytes]]:
    with suppress(Exception):  # whatever zipfile has against it
        return unpacked(name, octets)
    return [attached(name, octets)]


def codes(*files: tuple[Part, bytes]) -> list[str]:
    return [finding.code for finding in check(*files)]


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_what_a_document_does_is_found(sample: Sample) -> None:
    assert codes(attached(sample.name, sample.octets)) == list(sample.codes)


@pytest.mark.parametrize(
    "sample", [s for s in SAMPLES.values() if s.octets.startswith(b"PK") and "unreadable" not in s.codes]
)
def test_what_the_parser_has_unpacked_is_looked_at_file_by_file(sample: Sample) -> None:
    files = unpacked(sample.name, sample.octets)
    assert codes(*files) == list(sample.codes)
    assert all("/" in finding.part for finding in check(*files))


@pytest.mark.parametrize(
    "sample", [s for s in SAMPLES.values() if s.octets.startswith((b"\xd0\xcf", b"{\\rt", b"\xe4\x52"))]
)
def test_first_octets_count_whatever_the_name_says(sample: Sample) -> None:
    assert codes(attached("holiday.jpg", sample.octets)) == list(sample.codes)
    assert codes(attached("", sample.octets)) == list(sample.codes)


def test_every_code_is_in_the_collection() -> None:
    assert {code for sample in SAMPLES.values() for code in sample.codes} == Filter.codes - {"password_in_mail"}


@pytest.mark.parametrize("title", ["a docx with a password", "an xls with a password"])
def test_a_password_that_stands_in_the_mail_opens_the_document(title: str) -> None:
    sample = SAMPLES[title]
    found = [finding.code for finding in check(attached(sample.name, sample.octets), words=[b"Dear", b"Sesame-4711"])]
    assert found in (["password_in_mail", "macro_auto"], ["password_in_mail", "xlm"])


def test_passwords_are_tried_as_long_as_there_is_time() -> None:
    dear = locked.agile(b"", "Sesame-4711", spins=99_999)
    began = time.process_time()
    words = [b"wrong"] * 49 + [b"Sesame-4711"]
    assert [finding.code for finding in check(attached("a.docx", dear), words=words)] == ["encrypted"]
    assert time.process_time() - began < CPU


@given(st.sampled_from([t for t in SAMPLES if "encrypted" in t or "masked" in t]), st.data())
@settings(max_examples=60, deadline=None)
def test_a_lock_that_is_broken_is_a_finding_or_nothing(title: str, data: st.DataObject) -> None:
    octets = bytearray(SAMPLES[title].octets)
    for _ in range(data.draw(st.integers(1, 6))):
        octets[data.draw(st.integers(512, len(octets) - 1))] = data.draw(st.integers(0, 255))
    check(attached("a.xls", bytes(octets)))


def test_a_document_under_a_password_that_says_it_is_shorter_is_unreadable() -> None:
    plain = office.compound({"WordDocument": bytes(9000)})
    octets = locked.agile(plain, "VelvetSweatshop")
    assert "lies" not in str(check(attached("a.docx", octets)))
    lying = octets.replace(struct.pack("<Q", len(plain)), struct.pack("<Q", 4000))
    (found,) = check(attached("a.docx", lying))
    assert (found.code, "lies" in found.detail) == ("unreadable", True)


def test_a_key_that_is_said_to_be_huge_is_not_made() -> None:
    large = locked.agile(b"", "Sesame-4711").replace(b'keyBits="256"', b'keyBits="999999992"')
    assert [one.code for one in check(attached("a.xlsx", large))] == ["unreadable"]


def test_a_large_workbook_under_a_mask_costs_little() -> None:
    stream = office.record(0x809, bytes(16)) + office.record(0x2F, bytes.fromhex("000059b30a9a"))
    stream += office.record(0xFC, bytes(60_000)) * 110
    began = time.process_time()
    check(attached("a.xls", office.compound({"Workbook": stream})))
    assert time.process_time() - began < CPU / 10


def test_words_that_cost_nothing_to_hash_are_tried_as_long_as_there_is_room() -> None:
    cheap = locked.agile(b"", "Sesame-4711", spins=0)
    meter = Meter(1 << 20, 10, 1 << 20, 1000, lambda: [b"wrong"] * 50)
    assert list(documents.look(Inner(cheap), documents.Words(vba.Calls.of(()), ()), meter))
    assert not meter.rounds(500)


def test_the_sentence_names_the_file_what_runs_and_what_that_calls() -> None:
    (finding,) = check(attached("report.doc", SAMPLES["AutoOpen in a doc"].octets))
    assert finding.detail == "the Word file report.doc runs AutoOpen by itself, and calls Shell"
    found = check(*unpacked("report.docm", SAMPLES["AutoOpen in a docm"].octets))
    assert [(one.detail, one.part) for one in found] == [
        ("the Word file report.docm runs AutoOpen by itself, and calls Shell", "2/word/vbaProject.bin")
    ]


def test_a_document_in_an_archive_is_named_itself() -> None:
    inside = unpacked("report.docm", SAMPLES["AutoOpen in a docm"].octets)
    nested = [(Part(f"2/{part.path}", "", part.filename, part.sniffed, part.size), octets) for part, octets in inside]
    (finding,) = check((Part("2", "application/zip", "all.zip", "application/zip", 1), b""), *nested)
    assert finding.detail.startswith("the Word file report.docm runs")


def test_names_of_strangers_are_cleaned() -> None:
    (finding,) = check(attached("a\x1b[31m\u202e\r\n" + "x" * 500 + ".doc", SAMPLES["AutoOpen in a doc"].octets))
    assert "?[31m??" in finding.detail


def test_a_body_is_not_opened_by_an_office_program() -> None:
    body = b"a,b\r\n=cmd|'/C calc'!A0\r\n"
    assert codes((Part("1", "text/plain", "", "", len(body), text=body.decode()), body)) == []


def test_the_declared_type_says_how_a_name_without_suffix_is_opened() -> None:
    octets = SAMPLES["DDE in a CSV"].octets
    assert codes(attached("", octets, media_type="application/vnd.ms-excel")) == ["dde"]
    assert codes(attached("list", octets, media_type="text/csv")) == ["dde"]
    assert codes(attached("", b"{\\rt" + SAMPLES["DDE in rich text"].octets[5:], media_type="text/rtf")) == ["dde"]


def test_a_mail_without_documents_asks_for_nothing() -> None:
    class Never(Laid):
        def of(self, part: Part, most: int) -> bytes:
            raise AssertionError

    parts = (
        Part("1", "text/plain", text="Dear all"),
        Part("2", "image/png", "a.png", "image/png", 10),
        Part("3", "text/html"),
    )
    assert asked(Filter(Settings(), Never({})), mail_of(*parts)) == []


def test_what_cannot_be_read_is_never_clean() -> None:
    assert codes((Part("2", "", "a.doc", "application/x-ole-storage", 5000), b"")) == ["unreadable"]
    assert codes((Part("2", "", "a.docx", "application/zip", 5000), b"")) == ["unreadable"]


def test_locked_files_are_told_by_those_who_know_archives() -> None:
    locked = Part("2/a.doc", "", "a.doc", encrypted=True, size=10)
    assert codes((Part("2", "", "a.zip", "application/zip", 100), b"PK\3\4"), (locked, b"")) == []


def test_a_stream_that_is_broken_keeps_no_macro_from_being_found() -> None:
    broken = office.compound({"Workbook": bytes(5000), **office.project({"M": "Sub AutoOpen()\r\nEnd Sub"})})
    start = broken.index("Workbook".encode("utf-16-le")) + 116
    torn = broken[:start] + b"\xf0\xff\xff\0" + broken[start + 4 :]
    assert set(codes(attached("a.xls", torn))) == {"unreadable", "macro_auto"}


@pytest.mark.parametrize(("told", "name", "make"), HOSTILE.values(), ids=HOSTILE)
def test_no_document_keeps_a_reader_busy(told: bool, name: str, make: Callable[[], bytes]) -> None:
    file = attached(name, make())
    begin = time.process_time()
    found = codes(file)
    assert time.process_time() - begin < CPU
    assert ("unreadable" in found) == told
    assert "macro_auto" not in found


@settings(deadline=None)
@given(
    st.sampled_from(sorted(SAMPLES)),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=8)), max_size=20),
)
def test_no_damage_raises(name: str, changes: list[tuple[int, bytes]]) -> None:
    octets = bytearray(SAMPLES[name].octets)
    for at, piece in changes:
        octets[at % len(octets) : at % len(octets) + len(piece)] = piece
    check(attached(SAMPLES[name].name, bytes(octets)))


@settings(deadline=None)
@given(
    st.binary(max_size=3000),
    st.sampled_from(["", "a.doc", "a.csv", "a.xml", "a.iqy"]),
    st.sampled_from([b"", b"{\\rtf", b"ID;", b"<?xml ", b"ActiveMime"]),
)
def test_no_octets_raise(octets: bytes, name: str, begin: bytes) -> None:
    check(attached(name, begin + octets))


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=9000))
def test_what_was_packed_is_unpacked_again(plain: bytes) -> None:
    assert vba.decompress(office.packed(plain), 0, 1 << 20)[: len(plain)] == plain


@pytest.mark.parametrize("octets", [b"", b"\x01", b"\x02abc", b"\x01\x03\xb0\x01\xff\xff", b"\x01\0\0\0"])
def test_what_is_no_container_is_not_unpacked(octets: bytes) -> None:
    with pytest.raises(Unreadable):
        vba.decompress(octets, 0, 100)


def test_the_example_of_the_specification_is_unpacked() -> None:
    """[MS-OVBA] 3.2.2, the normal compression example."""
    octets = bytes.fromhex(
        "01 2f b0 00 23 61 61 61 62 63 64 65 82 66 00 70 61 67 68 69 6a 01 38 08 61 6b 6c 00 30 6d 6e 6f 70 06 71 02 70 04 10 72 73 74 75 76 10 77 78 79 7a 00 3c"
    )
    assert vba.decompress(octets, 0, 100) == b"#aaabcdefaaaaghijaaaaaklaaamnopqaaaaaaaaaaaarstuvwxyzaaa"


def test_settings_replace_what_counts() -> None:
    octets = SAMPLES["a macro that starts programs"].octets
    (finding,) = check(attached("a.doc", octets), settings=Settings(calls=()))
    assert finding.code == "macro"
    assert (
        check(attached("a.doc", SAMPLES["a script in a package"].octets), settings=Settings(programs=(".EXE",))) == []
    )


def test_a_suffix_without_a_dot_is_told_when_the_policy_loads() -> None:
    with pytest.raises(ValueError, match="begins with a dot"):
        Filter(Settings(programs=("exe",)), Laid({}))


def test_the_shipped_policy_says_the_same_as_the_defaults() -> None:
    written = tomllib.loads(POLICY.read_text("utf-8"))["settings"]
    assert {key: tuple(value) for key, value in written.items()} == asdict(Settings())

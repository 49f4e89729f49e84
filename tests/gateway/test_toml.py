"""TOML files of people: units, bounds, and faults that name their line and cure."""

import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import toml
from gateway.toml import Duration, Fault, FaultyFiles, List, Size, Table


class Inner(Table):
    names: List[str] = ()


class Outer(Table):
    wait: Duration = 1.0
    size: Size = 1
    inner: Inner = Inner()
    many: List[Inner] = ()


def read(tmp_path, content):
    path = tmp_path / "x.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    table, text = toml.read(path)
    return toml.validated(Outer, table, path, text)


def faults(tmp_path, content):
    with pytest.raises(FaultyFiles) as told:
        read(tmp_path, content)
    return told.value.faults


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("30", 30.0), ("0.5", 0.5), ('"30s"', 30.0), ('"5 m"', 300.0), ('"4h"', 14400.0), ('"5d"', 432000.0)],
)
def test_times_are_written_as_seconds_or_with_a_unit(tmp_path, written, seconds):
    assert read(tmp_path, f"wait = {written}").wait == seconds


@pytest.mark.parametrize(
    ("written", "octets"), [("7", 7), ('"7"', 7), ('"256 KB"', 262144), ('"50MB"', 52428800), ('"1 gb"', 1 << 30)]
)
def test_sizes_are_written_as_octets_or_with_a_unit(tmp_path, written, octets):
    assert read(tmp_path, f"size = {written}").size == octets


@pytest.mark.parametrize("written", ["nan", "inf", "-1", '"5 parsecs"', "true", '""', '"-5m"', "[5]"])
def test_what_is_no_time_is_a_fault_on_its_line(tmp_path, written):
    [fault] = faults(tmp_path, f"size = 1\nwait = {written}")
    assert (fault.line, fault.key) == (2, "wait")


@pytest.mark.parametrize("written", ["1.5", "-1", "true", '"5 potatoes"', "[5]"])
def test_what_is_no_size_is_a_fault_on_its_line(tmp_path, written):
    [fault] = faults(tmp_path, f"size = {written}")
    assert (fault.line, fault.key) == (1, "size")


def test_an_unknown_key_is_a_fault_and_the_likely_one_is_named(tmp_path):
    [fault] = faults(tmp_path, "\n[inner]\nnmaes = []\n")
    assert str(fault).endswith("x.toml:3: inner.nmaes: is not a known key (did you mean names?)")
    [fault] = faults(tmp_path, "Size = 1")
    assert str(fault).endswith("x.toml:1: Size: is not a known key (did you mean size?)")


def test_a_fault_in_an_array_of_tables_has_the_line_of_its_own_table(tmp_path):
    [fault] = faults(tmp_path, '[[many]]\nnames = ["a"]\n\n[[many]]\nnames = [1]\n')
    assert fault.line == 5
    assert fault.key == "many.1.names.0"


def test_every_fault_is_told(tmp_path):
    assert len(faults(tmp_path, 'wait = "x"\nsize = "y"\nother = 1\n')) == 3


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b"a = \n", 1, "is not TOML"),
        (b"a = 1\na = 2\n", 2, "is not TOML"),
        (b"# one\n# two \xff\n", 2, "is not UTF-8"),
        (b"a = " + b"[" * 5000, 0, "nested too deeply"),
        (b"#" * (toml.MAX_FILE + 1), 0, "larger than 1 MB"),
    ],
)
def test_what_is_no_toml_file_is_told_with_its_line(tmp_path, content, line, words):
    [fault] = faults(tmp_path, content)
    assert words in fault.problem
    assert fault.line == line


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(FaultyFiles, match="cannot be read: No such file"):
        toml.read(tmp_path / "missing.toml")


def test_a_fault_reads_as_place_key_problem_cure():
    assert str(Fault("f.toml", 3, "a.b", "is wrong", "mend it")) == "f.toml:3: a.b: is wrong (mend it)"
    assert str(Fault("f.toml", 0, "", "is wrong")) == "f.toml: is wrong"


def test_a_long_value_is_shortened_in_a_fault(tmp_path):
    [fault] = faults(tmp_path, f"[inner]\nnames = {'9' * 300}\n")
    assert len(str(fault)) < 300 + len(str(tmp_path))


@given(st.binary(max_size=300))
def test_no_content_whatever_raises_anything_but_faulty_files(content):
    with tempfile.NamedTemporaryFile(suffix=".toml") as file, suppress(FaultyFiles):
        file.write(content)
        file.flush()
        table, text = toml.read(Path(file.name))
        toml.validated(Outer, table, Path(file.name), text)


@pytest.mark.parametrize("digits", [20, 400])
def test_a_number_that_no_program_counts_to_is_a_fault_on_its_line(tmp_path, digits):
    for number in ("9" * digits, "-" + "9" * digits):
        [fault] = faults(tmp_path, f"size = 1\n[[many]]\nnames = []\nwait = [[{number}]]")
        assert (fault.line, fault.key) == (4, "many.0.wait.0.0")
    [fault] = faults(tmp_path, "size = " + "9" * 5000)
    assert fault.problem == "holds a number that is too large"

"""docs/reliability.md tells of tests that exist, and has a place for the figures."""

import re
from pathlib import Path

from tests.reliability import __main__ as roof

TESTS = Path(__file__).resolve().parents[1]


def test_the_page_names_tests_that_exist() -> None:
    named = set(re.findall(r"`(test_\w+)`", roof.PAGE.read_text("utf-8")))
    defined = {
        name
        for path in TESTS.rglob("test_*.py")
        for name in re.findall(r"(?m)^def (test_\w+)", path.read_text("utf-8"))
    }
    assert len(named) > 10
    assert named <= defined


def test_figures_are_put_between_the_markers_and_others_stay(tmp_path: Path, monkeypatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        f"before\n{roof.BEGIN}\n| slow | 1 | 0.1 | yes | old |\n| kill | 1 | 0.1 | yes | old |\n{roof.END}\nafter\n"
    )
    monkeypatch.setattr(roof, "PAGE", page)
    roof._write([roof.Row("kill", 200, 60.0, True, "a | b\nc")])
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "| kill | 200 | 1.0 | yes | a \\| b<br>c |\n| slow | 1 | 0.1 | yes | old |" in text


def test_a_broken_promise_is_told_and_counts(capsys) -> None:
    def breaks(_place: roof.Place, _rounds: int) -> str:
        raise AssertionError("1 breaches of the law")

    row = roof._row("kill", breaks, 1, 1)
    assert not row.ok
    assert "1 breaches of the law" in capsys.readouterr().out

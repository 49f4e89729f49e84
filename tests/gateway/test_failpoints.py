"""Failpoints are inert without the variable, and break a process once, at the place and in the role that was named."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import failpoints


@pytest.fixture(autouse=True)
def _disarmed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(failpoints.FOLDER, raising=False)
    yield
    monkeypatch.delenv(failpoints.FOLDER, raising=False)
    failpoints.arm("smtp")


def ordered(folder: Path, name: str, what: str) -> Path:
    order = folder / name
    order.write_text(what)
    return order


def test_without_the_variable_nothing_breaks(tmp_path: Path) -> None:
    order = ordered(tmp_path, "smtp.judged", "raise")
    assert failpoints.arm("smtp") == ""
    failpoints.hit("judged")
    assert order.exists()


def test_a_process_that_was_not_armed_breaks_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = ordered(tmp_path, ".judged", "raise")
    monkeypatch.setenv(failpoints.FOLDER, str(tmp_path))
    failpoints.hit("judged")
    assert order.exists()


def test_a_failpoint_is_hit_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(failpoints.FOLDER, str(tmp_path))
    assert failpoints.arm("smtp") == str(tmp_path)
    order = ordered(tmp_path, "smtp.judged", "raise")
    failpoints.hit("spooled")
    with pytest.raises(failpoints.Failpoint, match=r"smtp\.judged"):
        failpoints.hit("judged")
    failpoints.hit("judged")
    assert not order.exists()


def test_another_role_passes_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(failpoints.FOLDER, str(tmp_path))
    order = ordered(tmp_path, "smtp.commit", "raise")
    failpoints.arm("deliver")
    failpoints.hit("commit")
    assert order.exists()


def test_a_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(failpoints.FOLDER, str(tmp_path))
    ordered(tmp_path, "smtp.spooled", "eio")
    failpoints.arm("smtp")
    with pytest.raises(OSError) as raised:
        failpoints.hit("spooled")
    assert raised.value.errno == errno.EIO


@pytest.mark.parametrize(("what", "code"), [("kill", -signal.SIGKILL), ("exit", 70)])
def test_the_process_dies(tmp_path: Path, what: str, code: int) -> None:
    ordered(tmp_path, "smtp.judged", what)
    program = "from gateway import failpoints; failpoints.arm('smtp'); failpoints.hit('judged'); print('alive')"
    env = {**os.environ, failpoints.FOLDER: str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (code, b"")

"""Files that the configuration names and the gateway could not use are faults, with their place, before it starts."""

import subprocess
from pathlib import Path

import pytest

from gateway.cli import files
from gateway.config import Config, Server, TlsFiles
from gateway.pipeline import policy
from tests.peers import certificates

ROUTES = """
local = []
[[routes]]
domains = ["a.example"]
via = {{ host = "mx.example", tls = "must", user = "us", password_file = "{0}/password", ca_file = "{0}/ca.pem" }}
"""


def told(made: Config) -> list[tuple[str, str]]:
    return [(fault.key, fault.problem) for fault in files.of_config(made, None)]


@pytest.fixture
def pair(tmp_path: Path) -> TlsFiles:
    made = certificates.self_signed(tmp_path, "mx.example")
    return TlsFiles(certificate=made.certificate, key=made.key)


def configured(tmp_path: Path, pair: TlsFiles, **changed: Path) -> Config:
    return Config(server=Server(data=tmp_path / "var"), tls=pair.model_copy(update=changed))


def test_what_can_be_used_is_no_fault(tmp_path: Path, pair: TlsFiles) -> None:
    assert told(configured(tmp_path, pair)) == []
    assert told(Config(server=Server(data=tmp_path / "not/there/yet"))) == []


def test_a_key_that_is_not_there_is_named_and_not_the_certificate(tmp_path: Path, pair: TlsFiles) -> None:
    assert told(configured(tmp_path, pair, key=tmp_path / "x")) == [("tls.key", "cannot be read: no such file")]


def test_a_key_of_another_certificate_is_told_in_words(tmp_path: Path, pair: TlsFiles) -> None:
    (tmp_path / "other").mkdir()
    other = certificates.self_signed(tmp_path / "other", "mx.example")
    assert told(configured(tmp_path, pair, key=other.key)) == [
        ("tls.certificate", "is not the one that key belongs to")
    ]


@pytest.mark.parametrize("text", ["", "no PEM"])
def test_what_is_no_key_cannot_be_used(tmp_path: Path, pair: TlsFiles, text: str) -> None:
    (tmp_path / "bad.pem").write_text(text)
    ((key, problem),) = told(configured(tmp_path, pair, key=tmp_path / "bad.pem"))
    assert key == "tls.certificate"
    assert problem.startswith("cannot be used: ")
    assert "_ssl.c" not in problem


def test_nobody_is_asked_for_the_password_of_a_locked_key(tmp_path: Path, pair: TlsFiles) -> None:
    locked = tmp_path / "locked.pem"
    command = ["openssl", "pkey", "-in", pair.key, "-aes256", "-passout", "pass:secret", "-out", locked]
    subprocess.run(command, check=True, timeout=20)
    ((key, problem),) = told(configured(tmp_path, pair, key=locked))
    assert (key, problem.partition(":")[0]) == ("tls.certificate", "cannot be used")


def test_a_data_folder_that_cannot_be_written_is_told_with_what_is_there(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(files.os, "access", lambda path, _: Path(path) != tmp_path)
    ((key, problem),) = told(Config(server=Server(data=tmp_path / "not/there")))
    assert (key, problem) == ("server.data", f"cannot be written: {tmp_path}")


def test_files_of_next_hops_have_to_be_there(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    (tmp_path / "routes.toml").write_text(ROUTES.format(tmp_path))
    (fault,) = files.of_policies(policy.load(tmp_path, None), tmp_path)
    assert (fault.file, fault.line, fault.key) == (str(tmp_path / "routes.toml"), 5, "routes.0.via.password_file")
    (tmp_path / "password").touch()
    assert list(files.of_policies(policy.load(tmp_path, None), tmp_path)) == []

"""The scanner beside the gateway: found where the policy looks, started with limits that fit, or told to be missing."""

import datetime
import socket
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway import clamd
from gateway.config import Clamd, Config, Server
from gateway.pipeline import policy

VERSION = "ClamAV 1.4.3/27500/Tue Jan  6 10:26:45 2026"
POLICY = """
[settings]
sockets = ["unix:{socket}"]

[actions]
clean = 0.0
infected = "reject"
encrypted = "quarantine"
unscanned = "quarantine"
error = "quarantine"
"""


@contextmanager
def answering(path, **answers):
    """A clamd that answers PING and VERSION as told."""
    answers = {"PING": b"PONG\0", "VERSION": VERSION.encode() + b"\0"} | answers

    def serve(listening):
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                command = connection.recv(100).strip(b"z\0").decode()
                connection.sendall(answers[command])

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        try:
            yield f"unix:{path}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(5)


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "policies"
    own.mkdir()
    (own / "antivirus.toml").write_text(POLICY.format(socket="var/run/clamd.sock"))
    (tmp_path / "var" / "run").mkdir(parents=True)
    signatures = tmp_path / "signatures"
    signatures.mkdir()
    (signatures / "daily.cvd").touch()
    program = tmp_path / "clamd"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return Config(
        server=Server(data=Path("var"), policies=own),
        clamd=Clamd(start=True, program=str(program), database=signatures),
    )


def but(config, **changes):
    return config.model_copy(update={"clamd": config.clamd.model_copy(update=changes)})


def test_the_places_are_those_of_the_policy(config):
    assert clamd.places(policy.load(config.server.policies, None)) == ("unix:var/run/clamd.sock",)


def test_the_shipped_policy_looks_into_our_run_folder_too(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert clamd.own_socket(Config(), clamd.places(policy.load(None, None))) == tmp_path / "var" / "run" / "clamd.sock"


def test_a_clamd_that_answers_is_found_with_its_version_and_the_age_of_its_signatures(tmp_path):
    with answering(tmp_path / "c") as place:
        found = clamd.answering([f"unix:{tmp_path}/none", "127.0.0.1:1", "nonsense", place])
    assert found is not None
    assert found.version == VERSION
    assert found.signatures == datetime.datetime(2026, 1, 6, 10, 26, 45).astimezone()
    assert found.age_days is not None


@pytest.mark.parametrize("answer", [b"", b"PONG", b"NO\0", b"\xff" * 5000])
def test_what_does_not_answer_pong_is_no_clamd(tmp_path, answer):
    with answering(tmp_path / "c", PING=answer) as place:
        found = clamd.answering([place])
    assert (found is not None) == (answer == b"PONG")


@pytest.mark.parametrize("version", [b"", b"ClamAV 1.4.3\0", b"ClamAV 1.4.3/1/\x1b[2Jnever\0"])
def test_a_clamd_that_does_not_tell_its_signatures_is_of_unknown_age(tmp_path, version):
    with answering(tmp_path / "c", VERSION=version) as place:
        found = clamd.answering([place])
    assert found is not None
    assert found.age_days is None
    assert "\x1b" not in found.version


def test_a_clamd_of_ours_listens_where_the_policy_looks_and_takes_our_largest_mail(config):
    where = clamd.places(policy.load(config.server.policies, None))
    child = clamd.child(config, where, 50 << 20)
    assert child is not None
    assert child.helper
    assert child.argv[-3:-1] == [config.clamd.program, "--config-file"]
    lines = dict(line.split(" ", 1) for line in Path(child.argv[-1]).read_text().splitlines())
    assert lines["LocalSocket"] == str(Path("var/run/clamd.sock").absolute())
    assert int(lines["StreamMaxLength"]) > 50 << 20
    assert lines["AlertExceedsMax"] == "yes"
    assert lines["DatabaseDirectory"] == str(config.clamd.database)


def test_none_is_started_where_that_is_not_wanted_or_cannot_work(config, tmp_path):
    where = ["unix:var/run/clamd.sock"]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert clamd.child(but(config, start=False), where, 1) is None
    assert clamd.child(but(config, program="/nonexistent/clamd"), where, 1) is None
    assert clamd.child(but(config, database=empty), where, 1) is None
    assert clamd.child(but(config, database=tmp_path / "missing"), where, 1) is None
    assert clamd.child(config, ["unix:/elsewhere/clamd.sock", "127.0.0.1:3310"], 1) is None


def test_a_socket_whose_path_is_too_long_is_not_used(config, tmp_path):
    assert clamd.own_socket(config, [f"unix:var/run/{'x' * 120}"]) is None


def test_what_is_missing_is_told_with_the_cure_and_the_line_that_decides_meanwhile(config, tmp_path):
    policies = policy.load(config.server.policies, None)
    words = clamd.missing(but(config, program="/nonexistent/clamd"), policies)
    assert "apt-get install clamav-daemon" in words
    assert words.endswith('policies/antivirus.toml:10 decides about every mail: error = "quarantine"')
    assert "freshclam" in clamd.missing(but(config, database=tmp_path / "missing"), policies)
    assert "start = true" in clamd.missing(but(config, start=False), policies)

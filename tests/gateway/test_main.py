"""The whole gateway as a person starts it: first start, restarts, reload, a scanner of its own, and how it ends."""

import json
import os
import poplib
import re
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from filters import spf
from gateway import __main__ as root
from gateway import roles
from gateway.model import ERROR, Permanent
from gateway.pipeline import confinement, policy
from tests.peers import clamd, processes
from tests.peers.processes import wait_until

pytestmark = pytest.mark.e2e

GATEPOST = (sys.executable, "-P", "-m", "gateway")

CONFIG = """
[server]
hostname = "gate.demo.example"
policies = "policies"
scan_processes = 1

[[listeners]]
name = "mx"
kind = "mx"
address = "127.0.0.1:{mx}"

[[listeners]]
name = "submission"
kind = "submission"
address = "127.0.0.1:{submission}"

[[pop3]]
name = "pop3s"
address = "127.0.0.1:{pop3s}"
tls = "implicit"

[dns]
servers = ["127.0.0.1:{dns}"]
timeout = 1.0

[clamd]
start = {start}
database = "signatures"

[log]
format = "json"

[demo]
domain = "demo.example"
mailboxes = ["alice", "bob"]
"""

UNSCANNED = """
[actions]
clean = 0.0
infected = "reject"
encrypted = "quarantine"
unscanned = "quarantine"
error = 0.0
"""
NO_DNS = "[actions]\n" + "".join(f"{code} = 0.0\n" for code in sorted(spf.Filter.codes | {ERROR}))


@dataclass
class Gate:
    """A gateway in a folder of its own, on ports of its own."""

    home: Path
    ports: dict
    process: processes.Process | None = None

    def __call__(self, *words, stdin=b""):
        return processes.complete([*GATEPOST, *words], self.home, stdin=stdin)

    @property
    def run_dir(self):
        return self.home / "var" / "run"

    def running(self):
        return roles.running(self.run_dir)

    def pid(self, role):
        return next(one.pid for one in roles.known(self.run_dir) if one.role == role)

    def passwords(self):
        return dict(
            re.findall(r"^ +(\w+@demo\.example) +(\w{4}-\w{4}-\w{4}-\w{4})", self.process.output(), re.MULTILINE)
        )


EVERYTHING = {("smtp", 1), ("deliver", 1), ("pop3", 1)}


@contextmanager
def gate(home=None, *, start="false", antivirus=UNSCANNED):
    with processes.workspace("main") as made:
        home = home or made
        ports = {name: processes.free_port() for name in ("mx", "submission", "pop3s", "dns")}
        (home / "gatepost.toml").write_text(CONFIG.format(start=start, **ports))
        (home / "policies").mkdir(exist_ok=True)
        (home / "policies" / "spf.toml").write_text(NO_DNS)
        if antivirus:
            (home / "policies" / "antivirus.toml").write_text(antivirus)
        yield Gate(home, ports)


@contextmanager
def started(gateway):
    """Run it until the block ends; its processes are ready, and it has said what to type next."""
    ready = lambda: gateway.running() >= EVERYTHING and "how everything is" in said(gateway)  # noqa: E731
    with processes.running([*GATEPOST, "run"], gateway.home, ready, within=30) as process:
        gateway.process = process
        yield gateway


def said(gateway):
    return "".join(path.read_text("utf-8", "replace") for path in gateway.home.glob("*.output"))


@pytest.fixture(scope="module")
def running():
    with gate() as gateway, started(gateway):
        yield gateway


def fetched(gateway, password):
    context = ssl.create_default_context(cafile=gateway.home / "var" / "tls" / "certificate.pem")
    client = poplib.POP3_SSL("127.0.0.1", gateway.ports["pop3s"], context=context, timeout=10)
    try:
        client.user("alice@demo.example")
        client.pass_(password)
        return [b"\r\n".join(client.retr(number + 1)[1]) for number in range(client.stat()[0])]
    finally:
        client.quit()


def sent(gateway, *words):
    return gateway("send", "--from", "you@somewhere.example", "--to", "alice@demo.example", *words)


def test_a_mail_goes_in_is_tracked_and_is_fetched(running):
    done = sent(running, "--json")
    assert done.code == 0, done.text
    answer = json.loads(done.stdout)
    assert answer["reply"].startswith("250 2.")
    [life] = json.loads(running("track", answer["id"], "--json").stdout)
    assert life["deliveries"][0]["delivery"]["state"] == "mailbox"
    assert life["deliveries"][0]["verdict"]["sentence"].startswith("delivered")
    messages = fetched(running, running.passwords()["alice@demo.example"])
    assert any(b"Subject: A test of Gatepost" in one for one in messages)


def test_a_user_sends_with_the_password_that_was_shown(running):
    words = ["send", "--user", "bob@demo.example", "--from", "bob@demo.example", "--to", "alice@demo.example"]
    command = [*GATEPOST, *words]
    password = {"GATEPOST_PASSWORD": running.passwords()["bob@demo.example"]}
    assert processes.complete(command, running.home, env=password).code == 0
    wrong = processes.complete(command, running.home, env={"GATEPOST_PASSWORD": "wrong"})
    assert wrong.code == 1
    assert "535" in wrong.text


def test_a_stranger_cannot_relay_through_the_first_start(running):
    done = running("send", "--from", "you@somewhere.example", "--to", "someone@elsewhere.example")
    assert done.code == 1
    assert "550 5.7.1" in done.text


def test_explain_judges_a_file_and_stores_nothing(running):
    (running.home / "mail.eml").write_text("From: a@b.example\nSubject: only explained\n\nhello\n")
    before = json.loads(running("track", "--json").stdout)
    done = running("explain", "mail.eml", "--from", "a@b.example", "--to", "alice@demo.example")
    assert re.search(r"(?m)^why +(delivered|held)", done.text), done.text
    assert done.code in (0, 1), done.text
    assert json.loads(running("track", "--json").stdout) == before


def test_status_says_what_runs(running):
    told = json.loads(running("status", "--json").stdout)
    checks = {one["name"]: one for one in told["checks"]}
    assert told["running"]
    for name in ("smtp-1", "deliver-1", "pop3-1", "certificate", "policies", "deliveries"):
        assert checks[name]["ok"], checks[name]
    assert not checks["dns"]["ok"]
    assert not checks["clamd"]["ok"]
    assert "policies/antivirus.toml:7 decides" in checks["clamd"]["text"]
    assert "antivirus, spf from policies" in checks["policies"]["text"]


def test_a_killed_role_is_started_again_and_serves(running):
    old = running.pid("smtp")
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: running.running() >= EVERYTHING and running.pid("smtp") != old, 15, "smtp to be back")
    assert sent(running).code == 0
    assert '"signal 9"' in running.process.output()


def test_an_edited_policy_is_in_force_within_moments_and_a_faulty_one_is_not(running):
    policy = running.home / "policies" / "headers.toml"
    shipped = (Path(__file__).parents[2] / "policies" / "headers.toml").read_text()
    try:
        policy.write_text("[actions]\nnonsense = 1\n")
        wait_until(lambda: "policies refused" in running.process.output(), 10, "the fault to be told")
        assert sent(running).code == 0
        policy.write_text(re.sub(r"(?m)^(error *= *).*$", r'\1"quarantine"', shipped))
        count = running.process.output().count("policies in force")
        wait_until(lambda: running.process.output().count("policies in force") > count, 10, "the reload")
    finally:
        policy.unlink()


def test_a_second_gateway_does_not_touch_the_same_data(running):
    done = running("run")
    assert done.code == 1
    assert "a gateway already runs with this data folder" in done.text


def test_a_taken_port_is_told_with_listener_and_address(running):
    with gate() as other:
        file = other.home / "gatepost.toml"
        file.write_text(file.read_text().replace(str(other.ports["mx"]), str(running.ports["mx"])))
        done = other("run")
    assert done.code == 1
    assert f"cannot listen on 127.0.0.1:{running.ports['mx']} (listener mx)" in done.text
    assert "password" not in done.text, "nobody could use a password of a gateway that does not run"


def test_faulty_policies_stop_the_start_with_their_place(running):
    with gate(antivirus="[actions]\nclean = 0.0\n") as other:
        done = other("run")
        assert done.code == 1
        assert "antivirus.toml:1" in done.text
        assert not (other.home / "var").exists()


def test_ctrl_c_ends_it_cleanly_and_a_second_start_finds_its_data():
    with gate() as gateway:
        with started(gateway):
            passwords = gateway.passwords()
            assert len(passwords) == 2
            assert sent(gateway).code == 0
            gateway.process.signal(signal.SIGINT)
            wait_until(lambda: not gateway.process.alive(), 15, "the end")
        first = said(gateway)
        assert gateway.process.popen.returncode == 0
        assert "Gatepost has stopped." in first
        assert "Traceback" not in first
        assert roles.known(gateway.run_dir) == []
        (gateway.home / f"{Path(GATEPOST[0]).name}.output").unlink()
        with started(gateway):
            assert gateway.passwords() == {}
            assert len(fetched(gateway, passwords["alice@demo.example"])) == 1


def test_sigterm_lets_a_message_under_way_finish():
    with gate() as gateway, started(gateway):
        client = smtplib.SMTP("127.0.0.1", gateway.ports["mx"], timeout=20)
        client.ehlo()
        client.mail("you@somewhere.example")
        client.rcpt("alice@demo.example")
        assert client.docmd("DATA")[0] == 354
        client.send(b"From: you@somewhere.example\r\nDate: Mon, 5 Jan 2026 10:00:00 +0000\r\nSubject: half")
        gateway.process.signal(signal.SIGTERM)
        time.sleep(0.3)
        client.send(b" way\r\n\r\nhello\r\n.\r\n")
        assert client.getreply()[0] == 250
        client.close()
        wait_until(lambda: not gateway.process.alive(), 25, "the end")


def test_when_the_supervisor_is_killed_its_processes_end_by_themselves():
    with gate() as gateway, started(gateway):
        pids = [one.pid for one in roles.known(gateway.run_dir)]
        assert len(pids) == 3
        os.kill(gateway.process.pid, signal.SIGKILL)
        wait_until(lambda: not any(one.alive for one in roles.known(gateway.run_dir)), 15, "the roles to end")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", gateway.ports["mx"]), 5)


def test_a_role_alone_binds_its_own_sockets_and_makes_the_tables():
    with gate() as gateway:
        argv = [*GATEPOST, "run", "smtp"]
        with processes.running(argv, gateway.home, lambda: ("smtp", 1) in gateway.running(), within=30) as process:
            done = sent(gateway)
            assert "550 5.1.1" in done.text, "no mailbox was made, for only the whole gateway makes the demo"
            process.signal(signal.SIGTERM)
            wait_until(lambda: not process.alive(), 15, "the end")
        assert process.popen.returncode == 0
        assert gateway.running() == set()


def test_a_clamd_with_signatures_is_started_and_finds_a_virus():
    processes.require("clamd")
    with gate(start="true", antivirus="") as gateway:
        (gateway.home / "signatures").mkdir()
        clamd._write_signatures(gateway.home / "signatures", {})
        with started(gateway):
            assert "a clamd is starting" in said(gateway)
            wait_until((gateway.run_dir / "clamd.sock").exists, 30, "clamd")
            (gateway.home / "virus.eml").write_bytes(
                b"From: a@b.example\nDate: Mon, 5 Jan 2026 10:00:00 +0000\nSubject: x\n\n" + clamd.EICAR + b"\n"
            )
            assert wait_until(lambda: sent(gateway).code == 0, 30, "clean mail to pass")
            done = gateway("send", "virus.eml", "--from", "a@b.example", "--to", "alice@demo.example")
            assert done.code == 1
            assert "550" in done.text
            checks = {one["name"]: one for one in json.loads(gateway("status", "--json").stdout)["checks"]}
            assert checks["clamd"]["ok"], checks["clamd"]


def test_no_file_of_ours_takes_the_place_of_a_standard_stream(tmp_path):
    told = tmp_path / "told"
    script = f"""
import json, os, gateway.__main__ as main
main._hold_standard_streams()
places = [os.readlink(f"/proc/self/fd/{{n}}") for n in range(3)]
heirs = [os.get_inheritable(n) for n in range(3)]
open({str(told)!r}, "w").write(json.dumps([places, heirs, os.dup(0)]))
"""
    closed = 'exec "$0" -c "$1" <&- >&- 2>&-'
    subprocess.run(["/bin/sh", "-c", closed, sys.executable, script], check=True, timeout=30, cwd=Path.cwd())
    places, heirs, next_free = json.loads(told.read_text())
    assert (places, heirs, next_free > 2) == (["/dev/null"] * 3, [True] * 3, True)


def test_that_few_files_may_be_open_is_said_at_the_start():
    script = "from gateway import __main__ as main, events; events.configure('json', 'x'); main._allow_many_files()"
    few = 'ulimit -n 64; exec "$0" -c "$1"'
    argv = ["/bin/sh", "-c", few, sys.executable, script]
    done = subprocess.run(argv, capture_output=True, check=True, timeout=30, cwd=Path.cwd())
    told = json.loads(done.stderr)
    assert (told["event"], told["allowed"]) == ("few files may be open", 64)


def test_a_kernel_that_cannot_confine_the_parser_starts_no_gateway(monkeypatch):
    monkeypatch.setattr(confinement, "kernel", lambda: confinement.Kernel(seccomp=True, landlock=0))
    policies = policy.load(None, None)
    with pytest.raises(Permanent, match=r'no Landlock.* confinement = "best"'):
        root._demand_confinement(policies)
    blind = {name: one for name, one in policies.by_name.items() if name != policy.CONTENT}
    root._demand_confinement(replace(policies, by_name=blind))


def test_a_role_loads_nothing_of_the_command_line():
    script = "import sys, json, gateway.__main__, gateway.pipeline.intake; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=30)
    assert not {"typer", "rich", "gateway.cli", "gateway.welcome", "cryptography"} & set(json.loads(done.stdout))


def test_a_role_that_cannot_start_says_why_in_a_line(tmp_path):
    (tmp_path / "gatepost.toml").write_text("[server]\nhost_name = 1\n")
    argv = [sys.executable, "-m", "gateway", "--config", str(tmp_path / "gatepost.toml"), "run", "smtp"]
    done = subprocess.run(argv, capture_output=True, check=False, timeout=30, env={**os.environ, roles.SUPERVISED: "1"})
    assert done.returncode == 1
    assert b"server.host_name" in done.stdout + done.stderr
    assert b"Traceback" not in done.stderr

"""What `status` sees, thing by thing."""

import asyncio
import datetime
import json
import os
import time
from contextlib import contextmanager

import pytest

from filters import dnsbl
from gateway import clamd, health, roles, stages, state
from gateway.config import SHIPPED_POLICIES, Config, Server
from gateway.config import State as StatePlace
from gateway.dkim.ring import Ring
from gateway.dns import Resolver
from gateway.model import Temporary
from gateway.pipeline import confinement, policy
from gateway.store import observations, owners
from gateway.store.engine import Store
from tests.peers import fake_clamd, hostile_dns, loop, processes, redis

MESSAGE = 50 << 20


class Disk:
    """What `statvfs` says of a disk of 20 GB."""

    f_frsize, f_blocks, f_files, f_favail, f_flag = 1 << 20, 20 << 10, 0, 0, 0

    def __init__(self, free, **more):
        self.f_bavail = free >> 20
        vars(self).update(more)


@pytest.fixture
def disk(tmp_path, monkeypatch):
    def check(free, **more):
        monkeypatch.setattr(os, "statvfs", lambda path: Disk(free, **more))
        (found,) = health._disks(Config(server=Server(data=tmp_path)), MESSAGE)
        return found

    return check


@pytest.mark.parametrize(("free", "ok"), [(10 << 30, True), (20 * MESSAGE, True), (900 << 20, False), (0, False)])
def test_a_disk_that_will_soon_refuse_mail_is_told(disk, free, ok):
    check = disk(free)
    assert check.ok is ok
    assert f"{free >> 20} MB free of 20480" in check.text


def test_a_disk_without_room_for_files_is_told(disk):
    assert "room for 3 files only" in disk(10 << 30, f_files=1000, f_favail=3).text
    assert disk(10 << 30, f_files=1000, f_favail=500).ok


def test_a_disk_that_can_only_be_read_is_told(disk):
    check = disk(10 << 30, f_flag=os.ST_RDONLY)
    assert not check.ok
    assert "can only be read" in check.text


def test_folders_on_one_disk_are_told_once(tmp_path, monkeypatch):
    for name in ("spool", "run"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(os, "statvfs", lambda path: Disk(10 << 30))
    assert [check.name for check in health._disks(Config(server=Server(data=tmp_path)), MESSAGE)] == ["disk"]


# ---- Confinement ----------------------------------------------------------------------------------------------


def test_what_confines_the_parser_is_told():
    (check,) = health._confinement(policy.load(None, None))
    assert check.ok
    assert check.text.startswith("by seccomp, Landlock")


def test_what_the_kernel_lacks_of_it_wants_attention(monkeypatch):
    monkeypatch.setattr(confinement, "kernel", lambda: confinement.Kernel(seccomp=True, landlock=0))
    (check,) = health._confinement(policy.load(None, None))
    assert (check.ok, check.text) == (False, "by seccomp, limits; this kernel has no Landlock")


# ---- Processes ----------------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path):
    made = Config(server=Server(data=tmp_path))
    made.run_dir.mkdir()
    return made


def test_a_process_that_ended_tells_how_and_one_that_keeps_doing_it_is_not_well(config):
    ticks = owners.ticks(os.getpid())
    roles._is_written(
        config.run_dir / "deliver-1.pid", roles.Process("deliver", 1, os.getpid(), time.time(), ticks, {})
    )
    (well,) = health._processes(config)
    assert (well.ok, "ended" in well.text) == (True, False)
    roles.note_end(config.run_dir, "deliver-1", "signal 9", 1)
    (once,) = health._processes(config)
    assert (once.ok, "ended by signal 9 0 s ago" in once.text) == (True, True)
    roles.note_end(config.run_dir, "deliver-1", "exit code 3", 7)
    (often,) = health._processes(config)
    assert (often.ok, "7 times within a minute" in often.text) == (False, True)


def test_a_process_that_ended_and_is_not_there_again_tells_how(config):
    roles.note_end(config.run_dir, "deliver-1", "signal 9", 2)
    (check,) = health._processes(config)
    assert not check.ok
    assert check.text.startswith("not running; ended by signal 9")


# ---- The store ----------------------------------------------------------------------------------------------------


@contextmanager
def opened(config):
    store = Store(config.store_url, patience=config.store.patience)
    try:
        store.migrate()
        yield store
    finally:
        store.close()


def test_a_store_that_answers_is_well(config):
    store, *queue = health._store(config, opened)
    assert (store.name, store.ok) == ("store", True)
    assert [check.name for check in queue] == ["deliveries", "oldest queued"]


@pytest.mark.parametrize("error", [Temporary("the store is locked"), PermissionError(13, "Permission denied", "x.db")])
def test_a_store_that_does_not_answer_is_told_and_not_waited_for(config, error):
    patience = []

    @contextmanager
    def broken(hurried):
        patience.append(hurried.store.patience)
        raise error
        yield

    (check,) = health._store(config, broken)
    assert not check.ok
    assert str(error) in check.text
    assert patience == [health.PATIENCE]


def test_where_there_is_no_data_yet_there_is_nothing_to_tell(tmp_path):
    @contextmanager
    def missing(_config):
        raise Temporary("there is no data yet")
        yield

    with pytest.raises(Temporary, match="no data yet"):
        health._store(Config(server=Server(data=tmp_path / "none")), missing)


def test_a_name_server_that_is_silent_is_told_even_where_another_one_answers():
    async def check(*ports):
        return await health._dns(Resolver([f"127.0.0.1:{port}" for port in ports], 0.5))

    dead = processes.free_port()
    with hostile_dns.run() as server:
        one, both, none = (asyncio.run(check(*ports)) for ports in ((server.port,), (dead, server.port), (dead,)))
        server.faults[""] = hostile_dns.FAULTS["servfail"]
        broken = asyncio.run(check(server.port))
    assert (one.ok, both.ok, none.ok, broken.ok) == (True, False, False, False)
    assert both.text.endswith(f"but 127.0.0.1:{dead} is silent")
    assert "SERVFAIL" in broken.text


def test_a_state_that_cannot_count_is_told_without_its_password(tmp_path):
    def check(url):
        config = Config(server=Server(data=tmp_path), state=StatePlace(url=url, timeout=0.3))
        return asyncio.run(health._shared(config))

    dead = check(f"redis://:geheim@127.0.0.1:{processes.free_port()}/0")
    assert not dead.ok
    assert dead.text.startswith("the shared state is out of reach (redis://127.0.0.1:")
    assert "geheim" not in dead.text
    with redis.run() as server:
        assert check(server.url).ok
        server.freeze()
        assert check(server.url).text.startswith("the shared state did not answer within 0.3 s")
        server.thaw()
        assert check(server.unix_url).ok


def test_a_state_file_is_asked_where_there_is_one_and_not_made(tmp_path):
    config = Config(server=Server(data=tmp_path))
    assert asyncio.run(health._shared(config)).text == "nothing is counted yet"
    assert not (tmp_path / "run").exists()
    asyncio.run(state.opened(config).put("a", "1", 60.0))
    assert asyncio.run(health._shared(config)).ok
    (tmp_path / "run" / "state.db").unlink()
    (tmp_path / "run" / "state.db").mkdir()
    assert not asyncio.run(health._shared(config)).ok


def test_block_lists_that_do_not_serve_us_are_told_with_their_reasons(tmp_path):
    lists = "".join(f'[[settings.lists]]\nzone = "{name}.test"\nweight = 1.0\n' for name in ("good", "shy", "dead"))
    codes = ("strongly_listed", "listed", "weakly_listed", "allowed", "left_out", "error")
    text = lists + "[actions]\n" + "".join(f"{code} = 0.0\n" for code in codes)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/dnsbl.toml").write_text(text)
    config = Config(server=Server(data=tmp_path, policies=tmp_path / "policies"))
    records = {(f"2.0.0.127.{name}.test", "A"): ["127.0.0.2"] for name in ("good", "shy")}
    with hostile_dns.run({**records, ("1.2.0.192.shy.test", "A"): ["127.255.255.254"]}) as server:
        (check,) = asyncio.run(health._lists(config, Resolver([f"127.0.0.1:{server.port}"], 1.0)))
    assert (check.name, check.ok) == ("dnsbl", False)
    assert "shy.test does not answer public resolvers" in check.text
    assert "dead.test does not even list its test address" in check.text
    assert "good.test" not in check.text


def test_block_lists_that_answer_are_well(tmp_path):
    zones = [one.zone for one in dnsbl.Settings().lists]
    with hostile_dns.run({(f"2.0.0.127.{zone}", "A"): ["127.0.0.2"] for zone in zones}) as server:
        config = Config(server=Server(data=tmp_path))
        (check,) = asyncio.run(health._lists(config, Resolver([f"127.0.0.1:{server.port}"], 1.0)))
    assert check == health.Check("dnsbl", ok=True, text="the lists answer")


def test_keys_that_sign_that_wait_and_that_cannot_be_used_are_told_apart(config):
    assert list(health._keys(config)) == []
    ring = Ring(config.keys_dir)
    ring.add("in.example", "ed25519", selector="one")
    (check,) = health._keys(config)
    assert not check.ok
    assert check.text == "in.example signs with none; one waits for its record: gatepost dkim show in.example"
    ring.activate("in.example", "one")
    (check,) = health._keys(config)
    assert check == health.Check("keys", ok=True, text="in.example signs with one")
    (config.keys_dir / "in.example/one.pem").chmod(0o644)
    (config.keys_dir / "lost.example").mkdir()
    (config.keys_dir / "lost.example/one.pem").touch()
    check, lost = health._keys(config)
    assert not lost.ok
    assert "lost.example/keys.json is missing" in lost.text
    assert not check.ok
    assert "chmod 600" in check.text


# ---- Scanners -----------------------------------------------------------------------------------------------------


def scanners(tmp_path, sockets, icap=()):
    """What is told of the scanners that antivirus.toml names."""
    text = (SHIPPED_POLICIES / "antivirus.toml").read_text()
    shipped = '["unix:var/run/clamd.sock", "unix:/run/clamav/clamd.ctl", "127.0.0.1:3310"]'
    assert shipped in text
    services = ", ".join(f'{{ urls = ["{url}"] }}' for url in icap)
    text = text.replace(shipped, json.dumps(sockets)).replace("icap = []", f"icap = [{services}]", 1)
    (tmp_path / "antivirus.toml").write_text(text)
    config = Config(server=Server(policies=tmp_path))
    policies = policy.load(tmp_path, None)
    return [*health._scanner(config, policies), *health._services(policies)]


def test_each_scanner_is_told_and_one_that_hangs_is_not_well(tmp_path, monkeypatch):
    monkeypatch.setattr(clamd, "TIMEOUT", 0.2)

    async def hang(reader, writer):
        await reader.read()

    with fake_clamd.run() as one, fake_clamd.run() as two, loop.serving(hang) as stuck:
        sockets = [f"127.0.0.1:{port}" for port in (one.port, processes.free_port(), stuck, two.port)]
        told = [(check.name, check.ok) for check in scanners(tmp_path, sockets)]
    assert told == [("clamd", False), ("clamd", True), ("clamd", True), ("signatures", False), ("signatures", False)]


@pytest.mark.parametrize(("days", "ok"), [(1, True), (5, False)])
def test_signatures_older_than_antivirus_toml_allows_are_told(tmp_path, days, ok):
    made = datetime.datetime.now() - datetime.timedelta(days=days)  # noqa: DTZ005  clamd writes the local time

    async def converse(reader, writer):
        asked = await reader.readuntil(b"\0")
        version = f"ClamAV 1.4.6/27500/{made:%a %b %d %H:%M:%S %Y}"
        writer.write((b"PONG" if asked == b"zPING\0" else version.encode()) + b"\0")

    with loop.serving(converse) as port:
        _, signatures = scanners(tmp_path, [f"127.0.0.1:{port}"])
    assert (signatures.ok, signatures.text) == (ok, f"{days:.1f} days old at 127.0.0.1:{port}")


def test_each_icap_service_is_told(tmp_path):
    async def converse(reader, writer):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"OPTIONS icap://")
        writer.write(b'ICAP/1.0 200 OK\r\nMethods: RESPMOD\r\nService: Tester 1\r\nISTag: "A7"\r\n\r\n')

    with loop.serving(converse) as port:
        alive, dead = f"icap://127.0.0.1:{port}/x", f"icap://127.0.0.1:{processes.free_port()}/x"
        told = [(one.ok, one.text) for one in scanners(tmp_path, [], [alive, dead])]
    assert told == [(True, f"Tester 1 A7 at {alive}"), (False, f"Connection refused at {dead}")]


# ---- Reports and policies ---------------------------------------------------------------------------------------


def observed(config, domain, at):
    row = observations.Row("192.0.2.1", "none", "fail", "fail", domain)
    with opened(config) as store, store.begin() as conn:
        observations.add(conn, observations.Observation(at, observations.Published(domain), row))


def reports(config):
    return list(health._reports(config, stages.Reports(send="always"), opened))


def test_reports_that_are_not_sent_are_told_and_those_that_wait_their_time_are_well(config):
    (never,) = health._reports(config, stages.Reports(send="never"), opened)
    assert (never.ok, "none are sent" in never.text) == (True, True)
    observed(config, "a.example", time.time())
    (check,) = reports(config)
    assert (check.ok, check.text) == (True, "none yet, 1 domain to report to")


def test_a_report_that_is_late_wants_attention(config):
    observed(config, "a.example", time.time() - 5 * observations.DAY)
    observed(config, "b.example", time.time())
    (check,) = reports(config)
    assert not check.ok
    assert "2 domains to report to; late for a.example: see gatepost dmarc send" in check.text


def test_a_day_that_is_settled_is_not_late_though_its_mails_are_not_forgotten_yet(config):
    begins = (time.time() // observations.DAY - 5) * observations.DAY
    observed(config, "a.example", begins + 60)
    ended = time.time() // observations.DAY * observations.DAY
    with opened(config) as store, store.begin() as conn:
        observations.settle(conn, observations.Sent("a.example", begins, ended, ended + 3600, 1, "sent to x"))
    (check,) = reports(config)
    assert check.ok
    assert check.text.startswith("the last ")


def test_a_faulty_policy_is_named_and_all_else_is_told_too(config, tmp_path):
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/score.toml").write_text("quarantine = 'x'\nrejected = 3\n")
    named = config.model_copy(update={"server": Server(data=tmp_path, policies=tmp_path / "policies")})
    told = {check.name: check for check in health.look(named, opened, Resolver(["127.0.0.1:9"], 0.1))}
    assert not told["policies"].ok
    assert "score.toml:1" in told["policies"].text
    assert "and 1 more" in told["policies"].text
    assert {"disk", "state", "certificate"} <= told.keys()

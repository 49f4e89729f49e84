"""The processes: children restarted, everything ended in order, nobody else's process touched."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from gateway import roles, supervisor
from gateway.config import Config, Listener, Pop3Listener
from gateway.model import ListenerKind
from gateway.supervisor import Child, Supervisor


def mx(address="127.0.0.1:0", name="mx"):
    return Listener(name=name, kind=ListenerKind.MX, address=address)


def child(name, code, *arguments, **more):
    return Child(name, [sys.executable, "-c", code, *map(str, arguments)], **more)


def supervise(children, *, until, **options):
    """Run the children until *until* is true, and then stop; returns whether they ended within ten seconds."""

    async def go():
        gateway = Supervisor(children, pause=0.01, **options)
        running = asyncio.create_task(gateway.run(until, gateway.stop))
        await asyncio.wait_for(running, 10)

    asyncio.run(go())


SERVE = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path(sys.argv[1]).open("a").write("ended\\n"), sys.exit(0)))
pathlib.Path(sys.argv[1]).open("a").write("began\\n")
time.sleep(30)
"""


def test_each_child_gets_the_sockets_of_its_role_only():
    config = Config(listeners=(mx(),), pop3=(Pop3Listener(name="pop3", address="127.0.0.1:0"),))
    made = {one.name: one for one in supervisor.children(config, Path("/x.toml"), {"mx": 7, "pop3": 8})}
    assert made["smtp-1"].fds == (7,)
    assert made["smtp-1"].environment[roles.SOCKETS] == "mx=7"
    assert made["deliver-1"].fds == ()
    assert made["pop3-1"].fds == (8,)
    assert made["pop3-1"].argv[-4:] == ["--config", "/x.toml", "run", "pop3"]


def test_a_child_that_dies_is_started_again(tmp_path, caplog):
    count = tmp_path / "starts"
    dies = child("dies", "import sys; open(sys.argv[1], 'a').write('x'); sys.exit(3)", count)
    noted = []
    with caplog.at_level("INFO", "gatepost"):
        supervise(
            [dies],
            until=lambda: count.exists() and len(count.read_text()) >= 8,
            ended=lambda *words: noted.append(words),
        )
    assert noted[:2] == [("dies", "exit code 3", 1), ("dies", "exit code 3", 2)]
    ended = [record.fields for record in caplog.records if record.msg == "process ended"]
    assert ended[0] == {"process": "dies", "how": "exit code 3", "restart_in": 0.01}
    pauses = [one["restart_in"] for one in ended]
    assert pauses[:7] == [0.01] * supervisor.BURST + [0.02, 0.04]


def test_ends_of_long_ago_do_not_count():
    assert supervisor.recent([1.0, 50.0], 100.0) == [50.0, 100.0]
    assert len(supervisor.recent([float(n) for n in range(50)], 50.0)) == 20


def test_a_program_that_cannot_be_started_is_told_and_tried_again(caplog):
    missing = Child("missing", ["/nonexistent/program"])
    with caplog.at_level("INFO", "gatepost"):
        supervise([missing], until=lambda: len(caplog.records) >= 2)
    assert "cannot be started" in caplog.records[0].fields["how"]


def test_stopping_ends_every_child_by_sigterm_and_helpers_last(tmp_path):
    role, helper = tmp_path / "role", tmp_path / "helper"
    begun = lambda: all(mark.exists() and mark.read_text() for mark in (role, helper))  # noqa: E731
    supervise([child("role-1", SERVE, role), child("helper", SERVE, helper, helper=True)], until=begun)
    assert role.read_text() == helper.read_text() == "began\nended\n"
    assert role.stat().st_mtime_ns <= helper.stat().st_mtime_ns  # the file system's clock ticks every few milliseconds


def test_a_child_that_ignores_sigterm_is_killed_when_its_time_is_over(tmp_path, caplog):
    mark = tmp_path / "mark"
    deaf = child(
        "deaf",
        "import signal,sys,time,pathlib; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "pathlib.Path(sys.argv[1]).touch(); time.sleep(30)",
        mark,
    )
    began = time.monotonic()
    with caplog.at_level("INFO", "gatepost"):
        supervise([deaf], until=mark.exists, grace=0.2)
    assert time.monotonic() - began < 5
    assert [record.msg for record in caplog.records] == ["ended by force"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_supervisor_ends_it_cleanly(tmp_path, number):
    mark = tmp_path / "mark"

    async def go():
        gateway = Supervisor([child("role-1", SERVE, mark)])
        began = lambda: mark.exists() and mark.read_text() == "began\n"  # noqa: E731
        await asyncio.wait_for(gateway.run(began, lambda: os.kill(os.getpid(), number)), 10)

    asyncio.run(go())
    assert mark.read_text() == "began\nended\n"


HEARS_LATE = """
import pathlib, signal, sys, time
mark = pathlib.Path(sys.argv[1])
mark.write_text("begins")
time.sleep(0.2)
signal.signal(signal.SIGHUP, lambda *_: mark.write_text("heard"))
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
time.sleep(30)
"""


def test_a_reload_while_a_role_begins_does_not_end_it_and_is_heard_by_it_later(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    mark, ends = tmp_path / "mark", []

    async def go():
        gateway = Supervisor([child("role-1", HEARS_LATE, mark)], ended=lambda *how: ends.append(how))
        begins = lambda: mark.exists() and mark.read_text() == "begins"  # noqa: E731
        running = asyncio.create_task(gateway.run(begins, lambda: os.kill(os.getpid(), signal.SIGHUP)))
        async with asyncio.timeout(10):
            while not ends and not (mark.exists() and mark.read_text() == "heard"):
                await asyncio.sleep(0.01)
            gateway.stop()
            await running

    asyncio.run(go())
    assert (ends, mark.read_text()) == ([], "heard")


def test_a_role_s_standard_input_closes_when_the_supervisor_dies(tmp_path):
    mark = tmp_path / "mark"
    waits = "import sys; open(sys.argv[1] + '.on', 'w'); sys.stdin.read(); open(sys.argv[1], 'w')"
    parent = f"""
import asyncio, sys, os, pathlib
from gateway.supervisor import Child, Supervisor
child = Child("c", [sys.executable, "-c", {waits!r}, sys.argv[1]])
asyncio.run(Supervisor([child]).run(pathlib.Path(sys.argv[1] + ".on").exists, lambda: os._exit(9)))
"""
    done = asyncio.run(_run(parent, mark))
    assert done == 9
    deadline = time.monotonic() + 5
    while not mark.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def _run(code, mark):
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, mark, cwd=Path(__file__).parents[2])
    return await asyncio.wait_for(process.wait(), 10)


def test_two_gateways_never_share_a_data_folder(tmp_path):
    with supervisor.only_one(tmp_path), pytest.raises(supervisor.AlreadyRunning), supervisor.only_one(tmp_path):
        pass
    with supervisor.only_one(tmp_path):
        pass

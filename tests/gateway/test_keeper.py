"""What stays of the start: a small process that keeps the others running, and misses no signal."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

HEAVY = {"pydantic", "sqlalchemy", "cryptography", "rich", "typer", "dns", "gateway.config", "gateway.cli"}
BECOME = """
import os, sys
from gateway import keeper

def execv(*call, begin=os.execv):
    os.kill(os.getpid(), int(sys.argv[1]))  # now: nobody listens any more, and nobody does yet
    begin(*call)

os.execv = execv
keeper.become(keeper.Plan([], sys.argv[2], "text", "all runs\\n", f"{os.getpid()}\\n"), [])
"""
SAYS = "from gateway import keeper; from gateway.outlet import Outlet; keeper._say(Outlet(1), 'x' * 1000); exit(7)"


def test_it_loads_nothing_that_only_the_start_needs():
    script = "import sys, json, gateway.keeper; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=30)
    assert not HEAVY & set(json.loads(done.stdout))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_while_it_begins_is_heard_by_the_same_process(tmp_path, number):
    argv = [sys.executable, "-c", BECOME, str(int(number)), str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        out, told = process.communicate(timeout=30)
    assert (process.returncode, out.splitlines()[-1], told) == (0, str(process.pid), "")


def test_words_that_nobody_takes_neither_hang_nor_end_a_program():
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    with suppress(BlockingIOError):
        while os.write(theirs, bytes(4096)):
            pass
    os.set_blocking(theirs, True)
    with open("/dev/full", "wb") as full:
        for out in (theirs, full):
            assert subprocess.run([sys.executable, "-c", SAYS], stdout=out, timeout=30, check=False).returncode == 7
    os.close(ours)
    os.close(theirs)

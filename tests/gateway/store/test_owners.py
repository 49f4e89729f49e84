"""Who has ended and who has not, by the name that a lease bears."""

import os
import subprocess
import sys

from gateway.store import owners

NAME = "from gateway.store import owners; print(owners.myself('gw.example'))"


def test_a_process_that_runs_is_not_dead():
    assert not owners.is_dead(owners.myself("gw.example"))
    assert not owners.is_dead(owners.myself("gw.example") + "/7")


def test_a_process_that_has_ended_is_dead():
    done = subprocess.run([sys.executable, "-c", NAME], capture_output=True, text=True, check=True)
    assert owners.is_dead(done.stdout.strip())


def test_another_process_with_the_same_number_is_another():
    name, ticks = owners.myself("gw.example").rsplit("/", 1)
    assert owners.is_dead(f"{name}/{int(ticks) - 1}")


def test_a_process_lives_and_keeps_its_name_where_no_descriptor_is_free():
    code = """
import errno, itertools, os, resource
from gateway.store import owners
before = owners.myself("gw.example")
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
try:
    for _ in itertools.count():
        os.open("/dev/null", os.O_RDONLY)
except OSError as error:
    assert error.errno == errno.EMFILE
assert not owners.is_dead(before)
assert not owners.is_dead(before.replace(f"/{os.getpid()}/", "/1/"))
assert owners.myself("gw.example") == before
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_nothing_is_told_about_other_machines_and_other_names():
    label, _, pid, ticks = owners.myself("gw.example").split("/")
    for name in (f"{label}/another/{pid}/1", "", "me", "a/b/c/d", f"{label}/{pid}/{ticks}"):
        assert not owners.is_dead(name)


def test_a_corpse_that_nobody_has_fetched_is_dead():
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.DEVNULL) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert owners.ticks(child.pid) == 0

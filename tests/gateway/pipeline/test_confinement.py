"""How much confinement is asked for, and what happens where a kernel has less."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.model import Temporary
from gateway.pipeline import confinement, policy
from gateway.pipeline.confinement import Kernel
from gateway.pipeline.sandbox import Sandbox
from gateway.stages import Content

ROOT = Path(__file__).resolve().parents[3]
FULL, BEST = Content.Settings(), Content.Settings(confinement="best")


def kernel(monkeypatch, *, seccomp: bool = True, landlock: int = 7) -> None:
    monkeypatch.setattr(confinement, "kernel", lambda: Kernel(seccomp, landlock))


def test_this_machine_has_everything():
    assert confinement.kernel().missing == ()
    assert confinement.lack(FULL) == ""


@pytest.mark.parametrize(
    ("lacking", "words"),
    [
        ({"landlock": 0}, "this kernel has no Landlock, so no mail is parsed"),
        ({"seccomp": False}, "this kernel has no seccomp, so"),
        ({"seccomp": False, "landlock": 0}, "no seccomp and no Landlock"),
    ],
)
def test_full_confinement_needs_seccomp_and_landlock_and_says_the_cure(monkeypatch, lacking, words):
    kernel(monkeypatch, **lacking)
    assert words in confinement.lack(FULL)
    assert 'confinement = "best" in content.toml' in confinement.lack(FULL)
    assert confinement.lack(BEST) == ""


def test_no_parser_is_started_without_what_is_asked_for(monkeypatch):
    kernel(monkeypatch, landlock=0)
    with pytest.raises(Temporary, match="no Landlock"):
        asyncio.run(Sandbox(policy.load(None, None), 1).start())


def test_with_less_the_best_that_there_is_holds():
    def refused():
        raise OSError("refused")

    held = []
    confinement._hold(refused, full=False)
    confinement._hold(lambda: held.append("seccomp"), full=False)
    assert held == ["seccomp"]
    with pytest.raises(OSError, match="refused"):
        confinement._hold(refused, full=True)


KEEPING = """
import os, sys
from gateway.pipeline import confinement
confinement.keep_descriptors(int(sys.argv[1]), os.open(os.devnull, os.O_RDWR))
print("nobody hears this", flush=True)
kept = sorted(os.listdir("/proc/self/fd"), key=int)[:-1]  # the last is that of the listing itself
os.write(confinement.GATEWAY, " ".join(os.readlink(f"/proc/self/fd/{fd}") for fd in kept).encode())
"""


def test_a_worker_keeps_four_descriptors_and_three_of_them_lead_nowhere(tmp_path):
    told = tmp_path / "told"
    with told.open("w") as file:
        command = [sys.executable, "-c", KEEPING, str(file.fileno())]
        done = subprocess.run(command, pass_fds=[file.fileno()], stdout=subprocess.PIPE, cwd=ROOT, check=True)
    assert done.stdout == b""
    assert told.read_text().split() == ["/dev/null"] * 3 + [str(told)]


def test_the_words_for_people_say_which_version():
    assert Kernel(seccomp=True, landlock=2).words == "seccomp, Landlock 2, limits"
    assert Kernel(seccomp=False, landlock=0).words == "limits"

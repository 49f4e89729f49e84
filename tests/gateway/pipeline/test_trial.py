"""The way out of the sandbox: everything is denied in it, and most of it possible without it."""

import asyncio
import os

import pytest

from gateway.model import Temporary
from gateway.pipeline import confinement, policy, trial
from gateway.pipeline.escapes import ATTEMPTS, POSSIBLE
from gateway.pipeline.trial import Trial
from tests.peers import unconfined

LIMITS = {"raise_a_limit", "fill_memory", "use_the_processor_without_end", "wait_without_end"}
"""What only the limits of a worker hold; without them these would take memory and time."""
OF_THE_MACHINE = {"start_a_ring", "enter_a_new_namespace", "trace_its_parent"}
"""What some machines deny to everybody."""
OF_ROOT = {
    "become_another_user",
    "mount_something",
    "open_the_memory_of_its_parent",
    "read_the_memory_of_its_parent",
}


@pytest.fixture(scope="module")
def trials() -> dict[str, Trial]:
    found = asyncio.run(trial.run(policy.load(None, None), None, None))
    assert len(found) == len(ATTEMPTS)
    return dict(zip(ATTEMPTS, found, strict=True))


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_it_is_denied(trials, attempt):
    assert trials[attempt].denied, trials[attempt]


def test_who_makes_sockets_processes_or_signals_is_ended_at_once(trials):
    ended = {name for name, one in trials.items() if one.how == "ended at once: SIGSYS"}
    assert {"connect_to_loopback", "run_a_program", "fork_many", "trace_its_parent", "signal_the_gateway"} <= ended


def test_limits_hold_memory_and_time(trials):
    assert trials["fill_memory"].how == "refused: limit of memory"
    ends = {"ended: limit of processor time", "ended: limit of time"}  # on a busy machine the second may come first
    assert trials["use_the_processor_without_end"].how in ends
    assert trials["wait_without_end"].how == "ended: limit of time"


def test_outside_it_would_be_possible_so_the_trial_can_fail():
    asked = set(ATTEMPTS) - LIMITS - OF_THE_MACHINE - (set() if os.geteuid() == 0 else OF_ROOT)
    told = unconfined.outcomes(asked)
    assert {name for name in asked if told.get(name) != POSSIBLE} == set(), told


def test_seccomp_alone_denies_what_needs_no_limit():
    asked = set(ATTEMPTS) - LIMITS - {"change_the_message"}  # which the worker gets as a file that can only be read
    told = unconfined.outcomes(asked, layer="seccomp")
    assert {name for name in asked if told.get(name, POSSIBLE) == POSSIBLE} == set(), told


def test_where_the_kernel_lacks_something_that_is_asked_for_the_trial_says_so(monkeypatch):
    monkeypatch.setattr(confinement, "kernel", lambda: confinement.Kernel(seccomp=True, landlock=0))
    with pytest.raises(Temporary, match="no Landlock"):
        asyncio.run(trial.run(policy.load(None, None), None, None))

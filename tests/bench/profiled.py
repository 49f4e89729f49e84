"""Run one role of Gatepost under cProfile: `python -m tests.bench.profiled OUT GATEPOST-ARGUMENTS`.

Each thread has a profiler of its own (on Python 3.12 and later the main thread's sees them all), with a clock of CPU
time; the statistics are added up and written to OUT when the role ends.
"""

import cProfile
import pstats
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress


def main() -> None:
    """Profile `gatepost` with the rest of our arguments."""
    out = sys.argv.pop(1)
    profiles: list[cProfile.Profile] = []
    _profile_threads(profiles)
    from gateway.__main__ import main as gatepost  # noqa: PLC0415 - imports would otherwise be missing in the profile

    sys.argv[0] = "gatepost"
    try:
        with _profiled(profiles):
            gatepost()
    finally:
        _write(profiles, out)


def _write(profiles: Sequence[cProfile.Profile], out: str) -> None:
    """A thread of a pool that waits still has its profiler on; ended from here, its wait would count by our clock."""
    for one in profiles:
        one.create_stats = one.snapshot_stats  # type: ignore[method-assign]
    pstats.Stats(*(one for one in profiles if one.getstats())).dump_stats(out)


@contextmanager
def _profiled(profiles: list[cProfile.Profile]) -> Iterator[None]:
    profile = cProfile.Profile(time.thread_time)  # CPU, not waiting
    profiles.append(profile)
    with suppress(ValueError):  # Python 3.12: another profiler is at work, and it sees this thread too
        profile.enable()
    try:
        yield
    finally:
        profile.disable()


def _profile_threads(profiles: list[cProfile.Profile]) -> None:
    plain = threading.Thread.run

    def run(self: threading.Thread) -> None:
        with _profiled(profiles):
            plain(self)

    threading.Thread.run = run  # type: ignore[method-assign]


if __name__ == "__main__":
    main()

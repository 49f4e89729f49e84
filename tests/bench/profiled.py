"""Run one role of Gatepost under cProfile: `python -m tests.bench.profiled OUT GATEPOST-ARGUMENTS`.

Each thread has a profiler of its own (on Python 3.12 and later the main thread's sees them all); the statistics are
added up and written to OUT when the role ends.
"""

import cProfile
import pstats
import sys
import threading
from collections.abc import Iterator
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
        # Threads of a pool that never ended have not stopped their profilers: their figures lack only open calls.
        pstats.Stats(*(one for one in profiles if one.getstats())).dump_stats(out)


@contextmanager
def _profiled(profiles: list[cProfile.Profile]) -> Iterator[None]:
    profile = cProfile.Profile()
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

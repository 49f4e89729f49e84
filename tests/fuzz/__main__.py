"""The long run, by hand: `python -m tests.fuzz --minutes 30 [NAME ...]`, so long for each module of tests/fuzz.

Says for each test how many examples it has tried, and how fast. What it finds hypothesis shows, shrunk; put it as an
`@example` above the test, or as a line into its data.
"""

import argparse
import functools
import importlib
import inspect
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NAMES = sorted(path.stem.removeprefix("test_") for path in HERE.glob("test_*.py"))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="for each module")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(NAMES)}")
    args = parser.parse_args(argv)
    if unknown := set(args.names) - set(NAMES):
        parser.error(f"no such module: {', '.join(sorted(unknown))}")
    os.environ.pop("CI", None)  # with it hypothesis tries the same examples every time
    failed = sum(fuzz(name, 60 * args.minutes) for name in args.names or NAMES)
    return 1 if failed else 0


def fuzz(name: str, seconds: float) -> int:
    """Try the tests of one module for *seconds* in all; how many have failed."""
    module = importlib.import_module(f"tests.fuzz.test_{name}")
    tests = [test for word, test in inspect.getmembers(module, callable) if word.startswith("test_")]
    properties = [test for test in tests if hasattr(test, "hypothesis")]
    return sum(not explore(test, seconds / len(properties)) for test in properties)


def explore(test: Any, seconds: float) -> bool:
    """Call *test* again and again, each time with other examples, until *seconds* are over; whether it holds."""
    tried, began, well = Counter[str](), time.monotonic(), True
    test.hypothesis.inner_test = counting(test.hypothesis.inner_test, tried)
    while well and time.monotonic() < began + seconds:
        well = holds(test)
    took = time.monotonic() - began
    word = "holds" if well else "FAILS"
    number = tried["examples"]
    print(f"{test.__name__}: {word}; {number} examples, {number / took:.0f} a second", flush=True)
    return well


def counting(function: Callable[..., None], tried: Counter[str]) -> Callable[..., None]:
    """*function*, which counts how often it is called; hypothesis wants a plain function."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> None:
        tried["examples"] += 1
        function(*args, **kwargs)

    return call


def holds(test: Callable[[], None]) -> bool:
    try:
        test()
    except Exception:
        traceback.print_exc()
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())

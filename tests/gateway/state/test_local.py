"""The state in a file: bounds, other processes, and files that broke. The rest stands in test_contract.py."""

import asyncio
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from gateway.model import Temporary
from gateway.state import LocalState, local


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(tmp_path: Path, clock: Clock) -> Iterator[Callable[..., LocalState]]:
    opened: list[LocalState] = []

    def make(max_size: int = 1 << 20) -> LocalState:
        opened.append(LocalState(tmp_path / "run" / "state.db", max_size, clock))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def rows(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        return [key for (key,) in connection.execute("SELECT key FROM entry ORDER BY expires")]
    finally:
        connection.close()


def many(shared: LocalState, keys: Iterable[str], ttl: Callable[[int], float]) -> None:
    async def put() -> None:
        for number, key in enumerate(keys):
            await shared.put(key, "x" * 100, ttl(number))

    asyncio.run(put())


def test_the_size_is_bounded_and_the_soonest_to_expire_go_first(
    make: Callable[..., LocalState], tmp_path: Path
) -> None:
    keys = [f"{random.getrandbits(64):x}" for _ in range(8000)]
    many(make(max_size=400 << 10), keys, lambda number: 10.0 + number)
    path = tmp_path / "run" / "state.db"
    kept = rows(path)
    assert path.stat().st_size < 600 << 10
    assert 1000 < len(kept) < 4000
    assert kept == keys[-len(kept) :]


def test_what_is_over_is_swept_away(make: Callable[..., LocalState], clock: Clock, tmp_path: Path) -> None:
    shared = make()
    many(shared, map(str, range(900)), lambda number: 10.0)
    clock.now += 11
    many(shared, ["new"] * 501, lambda number: 10.0)
    assert rows(tmp_path / "run" / "state.db") == ["new"]


def test_a_clock_that_is_put_back_makes_no_counter_and_no_claim_last(
    make: Callable[..., LocalState], clock: Clock
) -> None:
    shared = make()
    asyncio.run(shared.add("a", 5, 10.0))
    assert asyncio.run(shared.claim("b", 10.0))
    clock.now -= 86400
    assert asyncio.run(shared.add("a", 1, 10.0)) == 6
    assert asyncio.run(shared.claim("b", 10.0))
    assert not asyncio.run(shared.claim("b", 10.0))
    clock.now += 11
    assert asyncio.run(shared.add("a", 1, 10.0)) == 1


def test_who_has_read_the_clock_first_and_comes_second_has_no_claim(
    make: Callable[..., LocalState], clock: Clock
) -> None:
    first, second = make(), make()
    assert asyncio.run(first.claim("a", 10.0))
    clock.now -= 0.01
    assert not asyncio.run(second.claim("a", 10.0))


def overwrite(path: Path) -> None:
    path.write_bytes(b"this is no database" * 1000)


def scramble(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[24:] = b"\xa5" * (len(data) - 24)  # from the counter on that tells other processes of a change
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("break_it", [overwrite, scramble, truncate, remove])
@pytest.mark.parametrize("opened_before", [True, False])
def test_a_broken_file_is_thrown_away_and_made_anew(
    make: Callable[..., LocalState], tmp_path: Path, break_it: Callable[[Path], None], opened_before: bool
) -> None:
    shared = make()
    asyncio.run(shared.put("a", "1", 10.0))
    break_it(tmp_path / "run" / "state.db")
    shared = shared if opened_before else make()
    assert asyncio.run(shared.get("a")) is None
    assert asyncio.run(shared.add("a", 1, 10.0)) == 1
    assert asyncio.run(shared.get("a")) == "1"


def test_all_who_hold_a_broken_file_meet_again_on_the_new_one(make: Callable[..., LocalState], tmp_path: Path) -> None:
    one, other = make(), make()
    asyncio.run(one.put("a", "1", 10.0))
    asyncio.run(other.put("b", "1", 10.0))
    scramble(tmp_path / "run" / "state.db")
    asyncio.run(one.put("c", "1", 10.0))
    assert asyncio.run(other.add("c", 1, 10.0)) == 2
    assert asyncio.run(one.get("c")) == "2"


def test_a_place_that_cannot_be_written_is_temporary(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    shared = LocalState(tmp_path / "file" / "state.db")
    with pytest.raises(Temporary):
        asyncio.run(shared.get("a"))
    shared.close()


def test_a_folder_in_place_of_the_file_is_temporary(tmp_path: Path) -> None:
    shared = LocalState(tmp_path)
    with pytest.raises(Temporary):
        asyncio.run(shared.add("a", 1, 10.0))
    shared.close()


def test_a_file_that_another_holds_locked_is_temporary(
    make: Callable[..., LocalState], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "LOCK_TIMEOUT", 0.05)
    shared = make()
    asyncio.run(shared.put("a", "1", 10.0))
    other = sqlite3.connect(tmp_path / "run" / "state.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(Temporary):
        asyncio.run(shared.add("a", 1, 10.0))
    other.close()
    assert asyncio.run(shared.add("a", 1, 10.0)) == 2


COUNT = """
import asyncio, sys
from pathlib import Path
from gateway.state import LocalState

async def count(shared):
    claimed = [await shared.claim(str(number), 60.0) for number in range(100)]
    for _ in range(100):
        await shared.add("counter", 1, 60.0)
        await shared.add_all({"counter": 1, "other": 1}, 60.0)
    print(sum(claimed))

asyncio.run(count(LocalState(Path(sys.argv[1]))))
"""


def test_several_processes_share_counters_and_claims(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    processes = [
        subprocess.Popen([sys.executable, "-c", COUNT, path], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    claimed = [int(process.communicate(timeout=30)[0]) for process in processes]
    shared = LocalState(path)
    assert sum(claimed) == 100
    assert asyncio.run(shared.get("counter")) == "600"
    shared.close()


WRITE = """
import asyncio, random, sys
from pathlib import Path
from gateway.state import LocalState

async def write(shared):
    print("begins", flush=True)
    while True:
        key = str(random.randrange(5000))
        await shared.put(key, "x" * random.randrange(200), 60.0)
        await shared.add_all({"counter": 1, "counter of " + key: 1}, 60.0)

asyncio.run(write(LocalState(Path(sys.argv[1]))))
"""


def test_a_process_that_is_killed_while_it_writes_breaks_nothing_for_the_others(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    shared, counts = LocalState(path), []
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", WRITE, path], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"begins\n"
            time.sleep(random.uniform(0.1, 0.2))
            writer.kill()
        counts.append(asyncio.run(shared.add("counter", 1, 60.0)))
    shared.close()
    assert counts == sorted(set(counts))
    assert counts[-1] > 100
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_only_we_may_read_the_file(make: Callable[..., LocalState], tmp_path: Path) -> None:
    asyncio.run(make().put("a", "1", 10.0))
    assert (tmp_path / "run").stat().st_mode & 0o077 == 0
    assert (tmp_path / "run" / "state.db").stat().st_mode & 0o077 == 0

"""The shared counters: expiry, bounds, other processes, and files that broke."""

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway import state
from gateway.model import Shared, Temporary
from gateway.state import LocalState


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

    def make(max_keys: int = 1000) -> LocalState:
        opened.append(LocalState(tmp_path / "run" / "state.db", max_keys, clock))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def test_values_are_kept_for_their_time(make: Callable[..., LocalState], clock: Clock) -> None:
    shared = make()
    shared.put_now("a", "1", 10.0)
    clock.now += 9.9
    assert shared.get_now("a") == "1"
    clock.now += 0.1
    assert shared.get_now("a") is None


def test_putting_again_replaces_value_and_time(make: Callable[..., LocalState], clock: Clock) -> None:
    shared = make()
    shared.put_now("a", "1", 10.0)
    clock.now += 5
    shared.put_now("a", "2", 10.0)
    clock.now += 9
    assert shared.get_now("a") == "2"


def test_a_counter_lives_from_its_first_amount(make: Callable[..., LocalState], clock: Clock) -> None:
    shared = make()
    assert [shared.add_now("a", 2, 10.0), shared.add_now("a", 3, 10.0), shared.add_now("a", -1, 10.0)] == [2, 5, 4]
    clock.now += 9
    assert shared.add_now("a", 1, 10.0) == 5
    clock.now += 1
    assert shared.add_now("a", 1, 10.0) == 1


def test_counters_stay_within_bounds(make: Callable[..., LocalState]) -> None:
    shared = make()
    assert shared.add_now("a", 1 << 80, 10.0) == state.MAX_COUNT
    assert shared.add_now("a", 1 << 80, 10.0) == state.MAX_COUNT
    assert shared.add_now("b", -(1 << 80), 10.0) == -state.MAX_COUNT


def test_only_the_first_claim_within_its_time_holds(make: Callable[..., LocalState], clock: Clock) -> None:
    shared = make()
    assert [shared.claim_now("a", 10.0), shared.claim_now("a", 10.0), shared.claim_now("b", 10.0)] == [
        True,
        False,
        True,
    ]
    clock.now += 10
    assert [shared.claim_now("a", 10.0), shared.claim_now("a", 10.0)] == [True, False]


def test_the_async_methods_do_the_same(make: Callable[..., LocalState]) -> None:
    async def use(shared: Shared) -> list[object]:
        await shared.put("a", "x", 10.0)
        results = [await shared.get("a"), await shared.get("b")]
        return [*results, await shared.add("c", 2, 10.0), await shared.claim("d", 10.0), await shared.claim("d", 10.0)]

    assert asyncio.run(use(make())) == ["x", None, 2, True, False]


def test_simultaneous_additions_of_one_process_all_count(make: Callable[..., LocalState]) -> None:
    async def count(shared: Shared) -> int:
        await asyncio.gather(*(shared.add("a", 1, 10.0) for _ in range(100)))
        return await shared.add("a", 0, 10.0)

    assert asyncio.run(count(make())) == 100


def test_long_keys_and_hostile_keys_are_kept_apart(make: Callable[..., LocalState]) -> None:
    shared = make()
    keys = ["k" * 5000 + "1", "k" * 5000 + "2", "a\0b", "a'; DROP TABLE entry; --", "\udcff" * 300]
    for number, key in enumerate(keys):
        shared.put_now(key, str(number), 10.0)
    assert [shared.get_now(key) for key in keys] == ["0", "1", "2", "3", "4"]


def test_a_long_value_is_refused(make: Callable[..., LocalState]) -> None:
    with pytest.raises(ValueError):
        make().put_now("a", "x" * (state.MAX_VALUE + 1), 10.0)


def rows(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        return [key for (key,) in connection.execute("SELECT key FROM entry ORDER BY expires")]
    finally:
        connection.close()


def test_the_number_of_keys_is_bounded_and_the_soonest_to_expire_go_first(
    make: Callable[..., LocalState], tmp_path: Path
) -> None:
    shared = make(max_keys=100)
    for number in range(300):
        shared.put_now(str(number), "", 10.0 + number)
    kept = rows(tmp_path / "run" / "state.db")
    assert len(kept) <= 101
    assert kept[-1] == "299"
    assert "0" not in kept


def test_what_is_over_is_swept_away(make: Callable[..., LocalState], clock: Clock, tmp_path: Path) -> None:
    shared = make(max_keys=100)
    for number in range(50):
        shared.put_now(str(number), "", 10.0)
    clock.now += 11
    shared.put_now("new", "", 10.0)
    assert rows(tmp_path / "run" / "state.db") == ["new"]


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
    shared.put_now("a", "1", 10.0)
    break_it(tmp_path / "run" / "state.db")
    shared = shared if opened_before else make()
    assert shared.get_now("a") is None
    assert shared.add_now("a", 1, 10.0) == 1
    assert shared.get_now("a") == "1"


def test_all_who_hold_a_broken_file_meet_again_on_the_new_one(make: Callable[..., LocalState], tmp_path: Path) -> None:
    one, other = make(), make()
    one.put_now("a", "1", 10.0)
    other.put_now("b", "1", 10.0)
    scramble(tmp_path / "run" / "state.db")
    one.put_now("c", "1", 10.0)
    assert other.add_now("c", 1, 10.0) == 2
    assert one.get_now("c") == "2"


def test_a_place_that_cannot_be_written_is_temporary(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    shared = LocalState(tmp_path / "file" / "state.db")
    with pytest.raises(Temporary):
        shared.get_now("a")
    shared.close()


def test_a_folder_in_place_of_the_file_is_temporary(tmp_path: Path) -> None:
    shared = LocalState(tmp_path)
    with pytest.raises(Temporary):
        shared.add_now("a", 1, 10.0)
    shared.close()


def test_a_file_that_another_holds_locked_is_temporary(
    make: Callable[..., LocalState], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "LOCK_TIMEOUT", 0.05)
    shared = make()
    shared.put_now("a", "1", 10.0)
    other = sqlite3.connect(tmp_path / "run" / "state.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(Temporary):
        shared.add_now("a", 1, 10.0)
    other.close()
    assert shared.add_now("a", 1, 10.0) == 2


COUNT = """
import sys
from pathlib import Path
from gateway.state import LocalState
shared = LocalState(Path(sys.argv[1]))
print(sum(shared.claim_now(str(number), 60.0) for number in range(100)))
for _ in range(200):
    shared.add_now("counter", 1, 60.0)
shared.close()
"""


def test_several_processes_share_counters_and_claims(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    processes = [
        subprocess.Popen([sys.executable, "-c", COUNT, path], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    claimed = [int(process.communicate(timeout=30)[0]) for process in processes]
    shared = LocalState(path)
    assert sum(claimed) == 100
    assert shared.get_now("counter") == "600"
    shared.close()


def test_only_we_may_read_the_file(make: Callable[..., LocalState], tmp_path: Path) -> None:
    make().put_now("a", "1", 10.0)
    assert (tmp_path / "run").stat().st_mode & 0o077 == 0
    assert (tmp_path / "run" / "state.db").stat().st_mode & 0o077 == 0

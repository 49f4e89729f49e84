"""CPU time and memory of processes and all their descendants, as /proc tells it."""

import os
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

TICK = 1 / os.sysconf("SC_CLK_TCK")
MB = 1 << 20


def tree(root: int) -> list[int]:
    """*root* and its descendants that live now."""
    children = defaultdict(list)
    for pid, fields in _all_stats():
        children[int(fields[1])].append(pid)
    found = [root]
    for pid in found:
        found += children[pid]
    return found


def cpu(*roots: int) -> float:
    """Seconds of CPU, user and system, that the trees have used, with children that have ended and were reaped."""
    return sum(_cpu(pid) for root in roots for pid in tree(root))


def _cpu(pid: int) -> float:
    with suppress(OSError):
        return sum(map(int, _stat(pid)[11:15])) * TICK
    return 0.0


def precise(pid: int) -> float:
    """Seconds of CPU of the living threads of one process, to the nanosecond: for what is shorter than a tick."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(one.read_text().split()[0]) for one in threads) / 1e9


def cpu_by_part(root: int) -> dict[str, float]:
    """The same for one tree, by what each process is: a role of Gatepost ("smtp"), or the name of the program."""
    found: dict[str, float] = defaultdict(float)
    for pid in tree(root):
        found[part(pid)] += _cpu(pid)
    return dict(found)


def part(pid: int) -> str:
    """What a process is: a role of Gatepost, "confined", or the name of its program; "ended" for one that has."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        if b"gateway.pipeline.confined" in words:
            return "confined"
        if b"gateway.keeper" in words:
            return "supervisor"
        if b"gateway" in words:
            return words[-1].decode("ascii", "replace")
        return Path(words[0].decode("utf-8", "replace")).name
    return "ended"


def memory(*roots: int) -> float:
    """MB: the sum of proportional set sizes, in which a page of four processes counts a quarter for each."""
    return sum(_pss(pid) for root in roots for pid in tree(root)) / MB


def _pss(pid: int) -> int:
    return _sizes(pid).get("Pss:", 0)


def _sizes(pid: int) -> dict[str, int]:
    """Octets by the first word of each line of proc(5) smaps_rollup; nothing for a process that has ended."""
    with suppress(OSError):
        _, *lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return {name: int(value) * 1024 for name, value, *_ in map(str.split, lines)}
    return {}


def memory_by_process(root: int) -> dict[tuple[int, str], tuple[float, float]]:
    """MB of each process of the tree, by its id and what it is: the proportional set size, and that without files."""
    found = {}
    for pid in tree(root):
        if sizes := _sizes(pid):
            found[pid, part(pid)] = sizes["Pss:"] / MB, sizes["Pss_Anon:"] / MB
    return found


def busy() -> float:
    """Seconds of CPU that the whole machine has used since it started, steal by a hypervisor included."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    user, nice, system, _, _, irq, softirq, steal = map(int, words[1:9])
    return (user + nice + system + irq + softirq + steal) * TICK


def settle(*roots: int, quiet: float = 0.3, within: float = 5.0) -> None:
    """Return when the trees have used next to nothing for *quiet* seconds, or after *within*."""
    deadline, before = time.monotonic() + within, cpu(*roots)
    while time.monotonic() < deadline:
        time.sleep(quiet)
        now = cpu(*roots)
        if now - before <= 2 * TICK:
            return
        before = now


def _all_stats() -> list[tuple[int, list[bytes]]]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                found.append((int(name), _stat(int(name))))
    return found


def _stat(pid: int) -> list[bytes]:
    """The fields of proc(5) stat from the state on; the name before may hold anything."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()

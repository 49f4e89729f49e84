"""The processes of a running gateway, found by their parents: the roles, and the confined ones below smtp."""

from collections.abc import Iterator
from pathlib import Path


def of(supervisor: int, kind: str) -> Iterator[int]:
    """The processes of *kind*: a role, "nursery" (the parent of the workers) or "worker"."""
    for role in _children(supervisor):
        if _command(role)[-2:] == ["run", kind]:
            yield role
        for nursery in _children(role):
            if kind == "nursery":
                yield nursery
            if kind == "worker":
                yield from _children(nursery)


def runs(pid: int) -> bool:
    """Whether process *pid* is alive, and no mere corpse."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def _command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
    except OSError:
        return []


def _children(pid: int) -> list[int]:
    entries = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit() and _parent(entry) == pid]
    return [int(entry.name) for entry in entries if runs(int(entry.name))]


def _parent(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0

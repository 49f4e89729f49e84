"""Small values and counters that all processes share, and that may be lost.

What must not be lost belongs to the store. `local` keeps them in a file of this machine, `remote` on a Valkey or Redis.
"""

from __future__ import annotations

from pathlib import Path

from gateway.config import Config
from gateway.state.local import LocalState
from gateway.state.remote import RemoteState

__all__ = ["LocalState", "RemoteState", "opened"]


def opened(config: Config) -> LocalState | RemoteState:
    """The state that *config* names. Nothing is opened before the first question."""
    named = config.state
    if not named.url:
        return LocalState(config.run_dir / "state.db")
    password_file = Path(named.password_file) if named.password_file else None
    return RemoteState(named.url, password_file=password_file, ca_file=named.ca_file or None, timeout=named.timeout)

"""What the POP3 listeners of one process share: their limits, and what is counted for all of them together."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.backoff import Backoff
from gateway.door import Lobby
from gateway.stages import Pop3


@dataclass(frozen=True, slots=True)
class Gate:
    """`limits` is pop3.toml; `backoff` counts wrong passwords, `lobby` connections."""

    limits: Pop3
    backoff: Backoff
    lobby: Lobby = field(default_factory=Lobby)

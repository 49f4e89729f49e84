"""Who has to wait for our greeting: strangers, once. Programs that only spread spam often do not wait.

Who has waited is remembered in the shared state; where that is out of reach, everybody is a stranger.
"""

from __future__ import annotations

from contextlib import suppress

from gateway.model import ListenerKind, Session, Shared, Temporary
from gateway.peers import Address, network
from gateway.stages import Edge


async def has_to_wait(peer: Session, edge: Edge, state: Shared) -> bool:
    """Whether *peer* is to be kept waiting: not our own people and hosts, nor who has waited before."""
    is_exempt = any(peer.peer in known for known in edge.greeting_exempt)
    if peer.kind is not ListenerKind.MX or not edge.greeting_delay or is_exempt:
        return False
    try:
        return await state.get(_key(peer.peer)) is None
    except Temporary:
        return True


async def has_waited(peer: Session, edge: Edge, state: Shared) -> None:
    """Remember that *peer* can wait."""
    with suppress(Temporary):
        await state.put(_key(peer.peer), "1", edge.greeting_pass)


def _key(address: Address) -> str:
    return f"greeted:{network(address)}"

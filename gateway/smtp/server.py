"""The SMTP service of one process: what `loop.create_server` calls for each listener, and its orderly end."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from gateway import config
from gateway.backoff import Backoff
from gateway.door import Door, Entrance, Lobby
from gateway.peers import Full
from gateway.pipeline.intake import Intake
from gateway.smtp import connection, replies
from gateway.smtp.session import Service, Session, judgements

_lobby = Lobby()
_REFUSALS: Mapping[Full, str] = {
    Full.PROCESS: str(replies.TOO_MANY_CONNECTIONS),
    Full.ADDRESS: str(replies.TOO_MANY_FROM_PEER),
    Full.NETWORK: str(replies.TOO_MANY_FROM_NETWORK),
}


def server_factory(
    listener: config.Listener,
    intake: Intake,
    tls: ssl.SSLContext | None,
    backoff: Backoff,
    *,
    spool_dir: Path | None = None,
) -> Callable[[], asyncio.BaseProtocol]:
    """What `loop.create_server` calls for each connection of *listener*; implicit TLS, too, is started here.

    Listeners of one process share a *backoff*, so that guesses count for all of them together. Messages
    that outgrow memory wait in *spool_dir*, which is made if it is missing.
    """
    folder = spool_dir or Path(tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    service = Service(
        listener,
        intake,
        starttls=tls if listener.tls == "starttls" else None,
        spool_dir=folder,
        backoff=backoff,
        crowd=_lobby.crowd,
    )
    entrance = Entrance(
        name=listener.name,
        lobby=_lobby,
        limits=lambda: intake.edge,
        dialog=partial(Session, service),
        refusals=_REFUSALS,
        stranger=str(replies.NOT_YOUR_NETWORK),
        proxies=listener.proxy_from,
        context=tls if listener.tls == "implicit" else None,
    )
    return partial(Door, entrance)


async def drain(seconds: float) -> None:
    """The listeners are closed: part from idle sessions, let messages in progress finish, end all after *seconds*."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    _lobby.clear()
    while (connection.connections() or judgements()) and loop.time() < end:
        for one in connection.connections():
            one.retire()
        await asyncio.sleep(0.02)
    for one in connection.connections():
        one.cut()
    _lobby.clear()
    await asyncio.sleep(0)

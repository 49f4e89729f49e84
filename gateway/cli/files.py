"""The files that gatepost.toml and routes.toml name: a fault for each that the gateway could not use.

They are looked at as the user who asks: ask as the one that the gateway runs as.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from pathlib import Path

from gateway import stages, tls, toml
from gateway.config import Config
from gateway.pipeline.policy import Policies
from gateway.toml import Fault

_READABLE = "name a file that the gateway's user can read"
_PAIR = "name a PEM chain and the key that belongs to it"
_MISMATCH = "KEY_VALUES_MISMATCH"


def of_config(made: Config, path: Path | None) -> Iterator[Fault]:
    """Those of gatepost.toml: data folder, certificate and key, what the shared state needs."""
    text = path.read_text("utf-8") if path else ""

    def fault(key: str, problem: str, cure: str) -> Fault:
        where = str(path or "the embedded configuration")
        return Fault(where, toml.line_of(text, tuple(key.split("."))), key, problem, cure)

    if folder := _unwritable(made.server.data):
        yield fault(
            "server.data", f"cannot be written: {folder}", "give the folder to the user that the gateway runs as"
        )
    for key in ("password_file", "ca_file"):
        if why := _unreadable(getattr(made.state, key)):
            yield fault(f"state.{key}", why, _READABLE)
    yield from (fault(key, problem, _PAIR) for key, problem in _pair(made))


def of_policies(policies: Policies, folder: Path | None) -> Iterator[Fault]:
    """Those of routes.toml: passwords of next hops, and the certificates that these are verified against."""
    for number, route in enumerate(policies.stages.routes.routes):
        for key in ("password_file", "ca_file"):
            if why := _unreadable(getattr(route.via, key)):
                path = stages.files(folder)["routes"]
                line = toml.line_of(path.read_text("utf-8"), ("routes", number, "via"))
                yield Fault(str(path), line, f"routes.{number}.via.{key}", why, _READABLE)


def _pair(made: Config) -> Iterator[tuple[str, str]]:
    """Certificate and key: each has to be readable, and then they have to fit."""
    if made.tls.certificate is None:
        return
    named = {"tls.certificate": made.tls.certificate, "tls.key": made.tls.key}
    if unreadable := [(key, why) for key, file in named.items() if (why := _unreadable(file))]:
        yield from unreadable
        return
    try:
        tls.server_context(made)
    except OSError as error:  # ssl.SSLError is one
        reason = getattr(error, "reason", "") or type(error).__name__ if isinstance(error, ssl.SSLError) else str(error)
        fits = "is not the one that key belongs to" if reason == _MISMATCH else f"cannot be used: {reason.lower()}"
        yield "tls.certificate", fits


def _unreadable(file: Path | str | None) -> str:
    """Why *file* cannot be read; empty where it can, or where none is named."""
    if not file or os.access(file, os.R_OK):
        return ""
    return "cannot be read: no such file" if not Path(file).exists() else "cannot be read: permission denied"


def _unwritable(folder: Path) -> Path | None:
    """What of *folder* is there already and keeps us from writing to it."""
    nearest = next((one for one in (folder.absolute(), *folder.absolute().parents) if one.exists()), folder)
    return None if os.access(nearest, os.W_OK | os.X_OK) else nearest

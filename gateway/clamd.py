"""The scanner beside the gateway: is there a clamd where antivirus.toml looks for one, and can we start one ourselves?

A clamd of ours is a child of the supervisor, with a configuration of its own in the run folder. Where there is none,
the policy decides about every mail meanwhile, and the line of the policy that does so is named.
"""

from __future__ import annotations

import asyncio
import datetime
import re
import shutil
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway import events, toml
from gateway.config import SHIPPED_POLICIES, Config, split_address
from gateway.model import ERROR
from gateway.pipeline import policy
from gateway.pipeline.policy import Policies, Policy
from gateway.supervisor import Child

TIMEOUT = 1.0
MAX_ANSWER = 512
MAX_PATH = 107
"""Octets that the path of a unix socket may have."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
_SIGNATURES = {".cvd", ".cld", ".cud", ".ndb", ".ldb", ".hdb", ".hsb", ".cbc"}


@dataclass(frozen=True, slots=True)
class Answering:
    """A clamd that answers: where, which version, and from when its signatures are (None where it does not tell)."""

    place: str
    version: str
    signatures: datetime.datetime | None

    @property
    def age_days(self) -> float | None:
        """How old the signatures are."""
        now = datetime.datetime.now(datetime.UTC)
        return None if self.signatures is None else (now - self.signatures).total_seconds() / 86400


def places(policies: Policies) -> Sequence[str]:
    """Where antivirus.toml looks for clamd: "unix:PATH" or "ADDRESS:PORT"; nothing where it is not in force."""
    settings = _settings(policies)
    return () if settings is None else tuple(settings.sockets)


def signatures_age(policies: Policies) -> float:
    """Days after which signatures count as old, as antivirus.toml, which is in force, has it."""
    return float(_settings(policies).signatures_age)


def services(policies: Policies) -> Sequence[tuple[str, bool, str]]:
    """How the other engines of antivirus.toml are: the address of each, whether it is well, and what it says."""
    settings = _settings(policies)
    if settings is None or not settings.icap:
        return ()
    filter_ = sys.modules[type(settings).__module__].Filter(settings, policy.NO_TOOLS)
    return tuple(asyncio.run(filter_.services()))


def _settings(policies: Policies) -> Any:
    """The settings of the filter, which is never imported by statement; None where it is not in force."""
    antivirus = policies.by_name.get("antivirus")
    if antivirus is None or antivirus.filter is None:
        return None
    kind = antivirus.filter if isinstance(antivirus.filter, type) else type(antivirus.filter)
    return policy.build_settings(sys.modules[kind.__module__].Settings, antivirus.settings)


def answering(where: Sequence[str]) -> Answering | None:
    """The first clamd that answers PING at one of the places, or None."""
    return next((found for place in where if isinstance(found := asked(place), Answering)), None)


def asked(place: str) -> Answering | str:
    """The clamd at *place*, or what is wrong with it; empty where nobody listens there."""
    try:
        if (answer := _ask(place, "PING")) != "PONG":
            return f"{place} answers {answer!r} to PING" if answer else f"{place} does not answer"
        version = _ask(place, "VERSION")
    except (FileNotFoundError, ConnectionRefusedError):
        return ""
    except (OSError, ValueError) as error:
        return f"{place} does not answer ({type(error).__name__})"
    return Answering(place, version, _date(version))


def child(config: Config, where: Sequence[str], message_size: int) -> Child | None:
    """A clamd to start, or None where it is not wanted, not installed, or without signatures."""
    program = shutil.which(config.clamd.program, path=_PATH)
    own = own_socket(config, where)
    if not (config.clamd.start and program and own and _has_signatures(config.clamd.database)):
        return None
    file = config.run_dir.absolute() / "clamd.conf"
    file.write_text(_configuration(config, own, message_size), "utf-8")
    tied = _tied_to_us()
    return Child("clamd", [*tied, program, "--config-file", str(file)], helper=True, quiet=True)


def own_socket(config: Config, where: Sequence[str]) -> Path | None:
    """The place in our run folder at which antivirus.toml would find a clamd of ours."""
    paths = [Path(place.removeprefix("unix:")).absolute() for place in where if place.startswith("unix:")]
    mine = config.run_dir.absolute()
    return next((path for path in paths if path.parent == mine and len(str(path).encode()) <= MAX_PATH), None)


def missing(config: Config, policies: Policies) -> str:
    """One line for people: there is no clamd; how to get one, and what decides meanwhile."""
    antivirus = policies.by_name["antivirus"]
    if not shutil.which(config.clamd.program, path=_PATH):
        cure = "'apt-get install clamav-daemon clamav-freshclam' gets one"
    elif not _has_signatures(config.clamd.database):
        cure = f"{config.clamd.database} has no signatures yet: 'freshclam' gets them"
    elif not config.clamd.start:
        cure = "start one, or set [clamd] start = true"
    else:
        cure = f"antivirus.toml names no socket in {config.run_dir}, so none is started"
    return f"no clamd answers ({cure}); {_meanwhile(config, antivirus)}"


def starting(config: Config, policies: Policies) -> str:
    """One line for people: a clamd of ours is reading its signatures, and what decides meanwhile."""
    antivirus = policies.by_name["antivirus"]
    return f"a clamd is starting, which takes half a minute; {_meanwhile(config, antivirus)}"


def _meanwhile(config: Config, antivirus: Policy) -> str:
    place, effect = deciding_line(config, antivirus)
    return f"meanwhile {place} decides about every mail: error = {effect}"


def deciding_line(config: Config, antivirus: Policy) -> tuple[str, str]:
    """Where ("policies/antivirus.toml:21") it stands what `error` of antivirus leads to, and what it leads to."""
    folder = config.server.policies
    own = folder / antivirus.file if folder is not None else None
    path = own if own is not None and own.exists() else SHIPPED_POLICIES / antivirus.file
    line = toml.line_of(path.read_text("utf-8"), ("actions", ERROR))
    effect = antivirus.rules[-1].actions[ERROR]
    return f"{_near(path)}:{line}", f'"{effect}"' if isinstance(effect, str) else f"{effect:g}"


def _near(path: Path) -> Path:
    """*path* as it is written from here, where that is shorter."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _ask(place: str, command: str) -> str:
    with _connected(place) as clamd:
        clamd.settimeout(TIMEOUT)
        clamd.sendall(f"z{command}\0".encode("ascii"))
        answer = b""
        while not answer.endswith(b"\0") and len(answer) < MAX_ANSWER and (more := clamd.recv(MAX_ANSWER)):
            answer += more
    return events.clean(answer.rstrip(b"\0").decode("utf-8", "replace"))


def _connected(place: str) -> socket.socket:
    if not place.startswith("unix:"):
        return socket.create_connection(split_address(place), TIMEOUT)
    made = socket.socket(socket.AF_UNIX)
    try:
        made.settimeout(TIMEOUT)
        made.connect(place.removeprefix("unix:"))
    except OSError:
        made.close()
        raise
    return made


def _date(version: str) -> datetime.datetime | None:
    """The last third of "ClamAV 1.4.3/27500/Tue Jan  6 10:26:45 2026"."""
    with suppress(IndexError, ValueError):
        text = " ".join(version.split("/")[2].split())
        # clamd writes the local time of its machine, which is ours.
        return datetime.datetime.strptime(text, "%a %b %d %H:%M:%S %Y").astimezone()
    return None


def _has_signatures(folder: Path) -> bool:
    try:
        return any(one.suffix in _SIGNATURES for one in folder.iterdir())
    except OSError:
        return False


def _tied_to_us() -> list[str]:
    """clamd knows nothing of its supervisor: the kernel ends it when we die."""
    setpriv = shutil.which("setpriv", path=_PATH + ":/bin")
    return [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []


def _configuration(config: Config, own: Path, message_size: int) -> str:
    """Limits above the largest mail that we take: what clamd did not look at, it has to say."""
    whole = message_size + (1 << 20)
    lines = {
        "Foreground": "yes",
        "LocalSocket": own,
        "LocalSocketMode": "600",
        "FixStaleSocket": "yes",
        "DatabaseDirectory": config.clamd.database.absolute(),
        "TemporaryDirectory": config.run_dir.absolute(),
        "StreamMaxLength": whole,
        "MaxFileSize": whole,
        "MaxScanSize": 4 * whole,
        "AlertExceedsMax": "yes",
        "AlertEncrypted": "yes",
        "MaxThreads": 4,
        "ExitOnOOM": "yes",
    }
    return "".join(f"{name} {_one_line(value)}\n" for name, value in lines.items())


def _one_line(value: object) -> str:
    return re.sub(r"[\r\n]", "", str(value))

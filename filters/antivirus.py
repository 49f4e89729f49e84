"""Does a scanner know a virus in this mail?

clamd is asked, and so is every other engine of the settings. What one of them finds counts; what no engine could tell
is `error`, never `clean`. What a scanner would not see in the message as it is, is shown to it by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal

from filters._scanners.cache import Cache
from filters._scanners.clamd import Clamd
from filters._scanners.group import Group
from filters._scanners.icap import Icap, Method
from filters._scanners.said import CODES, Failed, Octets
from gateway.model import ERROR, Finding, Found, Mail, Stage, Temporary, Tools

MAX_PREVIEW = 32 << 10
"""Octets of a preview."""


@dataclass(frozen=True, slots=True)
class IcapServices:
    """A second engine: ICAP services that are as good as each other, "icap://HOST:PORT/SERVICE"."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    urls: tuple[str, ...]
    method: Method = "RESPMOD"
    preview: int = 0
    """Octets that are shown first; a service that wants no more has not seen the whole mail. 0: all at once."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the scanners are, and how long we wait for them."""

    sockets: tuple[str, ...] = ("unix:var/run/clamd.sock", "unix:/run/clamav/clamd.ctl", "127.0.0.1:3310")
    """Where clamd listens: "unix:PATH" or "ADDRESS:PORT". The least busy is asked, the next where it cannot tell."""

    timeout: float = 60.0
    """Seconds for one mail, the wait for its turn and all that is asked included."""

    threads: int = 4
    """Scans at the same time at each place. More than clamd's MaxThreads is of no use."""

    pause: float = 30.0
    """Seconds for which a scanner that failed is left alone, while there are others."""

    signatures_age: float = 3.0
    """Days after which `gatepost status` says that the signatures of clamd are old."""

    cache: float = 600.0
    """Seconds for which a verdict on the same octets by the same signatures holds; 0: none does."""

    enough: Literal["all", "any"] = "all"
    """Whose answers are needed to call a mail clean, where there are several engines."""

    icap: tuple[IcapServices, ...] = ()


class Filter:
    """Asks all engines at the same time."""

    stage: ClassVar[Stage] = Stage.MESSAGE
    codes: ClassVar[frozenset[str]] = CODES
    after: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, settings: Settings, tools: Tools, clock: Callable[[], float] = time.monotonic) -> None:
        _check(settings)
        self._settings, self._tools = settings, tools
        self._cache = Cache(tools.state, settings.cache)
        self._services = [[Icap(url, one.method, one.preview) for url in one.urls] for one in settings.icap]
        group = partial(Group, cache=self._cache, at_once=settings.threads, pause=settings.pause, clock=clock)
        clamds = [Clamd(written) for written in settings.sockets]
        self._groups = [group("clamd", clamds)] * bool(clamds)
        self._groups += [group("ICAP service", services) for services in self._services]

    async def check(self, mail: Mail, found: Found) -> Sequence[Finding]:  # noqa: ARG002  it reads no other filter
        """One finding that the mail is clean, or what was found in it, and `error` where an engine could not tell."""
        deadline = asyncio.get_running_loop().time() + self._settings.timeout
        findings = await self._judged(Octets(lambda: self._tools.open_message(mail)), deadline)
        if any(finding.code == "infected" for finding in findings):
            return findings  # all of it is, whatever else is in it
        for parts, octets in self._hidden(mail):
            findings += [replace(one, part=part) for one in await self._judged(octets, deadline) for part in parts]
        return [one for one in findings if one.code != "clean"] or findings[:1]

    def _hidden(self, mail: Mail) -> Iterator[tuple[Sequence[str], Octets]]:
        """What a scanner would not see in the message as it is, each once, and the paths of the parts that hold it."""
        places: dict[tuple[int, int], list[str]] = {}
        for part in mail.content.parts:
            if part.stored and part.stored[0] < part.stored[1]:
                places.setdefault(part.stored, []).append(part.path)
        for (start, end), parts in places.items():
            yield parts, Octets(lambda: self._tools.open_stored(mail), start, end)

    async def _judged(self, octets: Octets, deadline: float) -> list[Finding]:
        """What the engines make of *octets*: that they are clean, that they are infected, or all else."""
        questions = [_asked(group, octets, deadline) for group in self._groups]
        answers = await asyncio.gather(*questions) if len(questions) > 1 else [await questions[0]]
        by_code = {code: [one for one in answers if one.code == code] for code in (*CODES, ERROR)}
        clean, failed = by_code["clean"], by_code[ERROR]
        if self._settings.enough == "any" and len(failed) < len(answers):
            failed = []
        others = [*by_code["encrypted"], *by_code["unscanned"], *failed]
        return by_code["infected"] or others or [_together(clean)]

    async def services(self) -> Sequence[tuple[str, bool, str]]:
        """How the other engines are: the address of each, whether it is well, and its version or what is wrong."""
        deadline = asyncio.get_running_loop().time() + self._settings.timeout
        return await asyncio.gather(*(_state(one, deadline) for services in self._services for one in services))


async def _asked(group: Group, octets: Octets, deadline: float) -> Finding:
    """What one engine says; `error` where it could not tell."""
    try:
        said, version = await group.scan(octets, deadline)
    except Temporary as error:
        return Finding(ERROR, str(error))
    return Finding(said.code, said.name or version, facts=(said.answer, version))


async def _state(service: Icap, deadline: float) -> tuple[str, bool, str]:
    try:
        await service.options(deadline)
    except Failed as error:
        return service.written, False, str(error)
    return service.written, True, (await service.version(deadline)).words


def _together(clean: Sequence[Finding]) -> Finding:
    """One finding for all engines that know nothing bad."""
    facts = tuple(fact for one in clean for fact in one.facts)
    return Finding("clean", "; ".join(one.detail for one in clean), facts=facts)


def _check(settings: Settings) -> None:
    if settings.threads < 1 or settings.timeout <= 0 or not (settings.sockets or settings.icap):
        raise ValueError("antivirus needs at least one thread, some time, and one socket or service")
    if min(settings.pause, settings.cache, settings.signatures_age) < 0:
        raise ValueError("pause, cache and signatures_age are not below 0")
    if not all(one.urls and 0 <= one.preview <= MAX_PREVIEW for one in settings.icap):
        raise ValueError(f"an ICAP engine has at least one url, and a preview of 0 to {MAX_PREVIEW} octets")

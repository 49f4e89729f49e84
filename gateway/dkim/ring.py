"""The keys that we sign with, as files: <data>/dkim/DOMAIN/SELECTOR.pem, and beside them what is known of each.

Rule: a key that others could read is not used, and nothing is ever half written. Nobody asks the DNS here.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from gateway.dkim import private
from gateway.dkim.private import KeyType, PrivateKey
from gateway.idn import a_labels
from gateway.model import Permanent

STATES = "keys.json"
STAYS = 7 * 86400.0
"""Seconds for which the record of a retired key stays: mail with its signatures may wait in queues for days."""
MAX_STATES = 1 << 20
MOST_PLACES = 1024
"""Paths that are kept."""

_IMPORT = "import its keys again (gatepost dkim import {domain} SELECTOR FILE.pem)"

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})+")
_SELECTOR = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}")
_Stamp = tuple[int, int, int]


class KeyState(StrEnum):
    """What a key is for: made and not yet seen in the DNS; signing; signing no more, but still to be found there."""

    PENDING = "pending"
    ACTIVE = "active"
    RETIRING = "retiring"


@dataclass(frozen=True, slots=True)
class Entry:
    """A key of ours. `record` is the text to publish; `since` and `until` are seconds since the epoch.

    `until` says how long the record of a retiring key has to stay.
    """

    domain: str
    selector: str
    kind: KeyType
    record: str
    state: KeyState
    since: float
    until: float = 0.0

    @property
    def name(self) -> str:
        """Where its record stands in the DNS (RFC 6376 3.6.2.1)."""
        return f"{self.selector}._domainkey.{self.domain}"


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that signs for a domain, and by which name others find it."""

    domain: str
    selector: str
    key: PrivateKey


def domain_name(text: str) -> str:
    """*text* as a domain that can sign, in A-labels; `Permanent` where it is none."""
    try:
        name = a_labels(text.rstrip("."))
    except ValueError:
        name = ""
    if len(name) > 190 or not _DOMAIN.fullmatch(name):
        raise Permanent("a domain that signs is written like example.org")
    return name


def selector_name(text: str) -> str:
    """*text* as a selector (RFC 6376 3.1), which stands before ._domainkey; `Permanent` where it is none."""
    if len(text) > 50 or not _SELECTOR.fullmatch(text.lower()):
        raise Permanent("a selector is made of letters, digits and hyphens, 50 at most, with dots between them")
    return text.lower()


class Ring:
    """The keys in *folder*. What was read is kept until its file changes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places: dict[tuple[str, str], Path] = {}
        self._entries: dict[str, tuple[_Stamp, tuple[Entry, ...]]] = {}
        self._keys: dict[str, tuple[_Stamp, PrivateKey]] = {}

    def is_empty(self) -> bool:
        """Whether there never was a key. It costs next to nothing."""
        return not self._entries and not self._folder.is_dir()

    def domains(self) -> list[str]:
        """The domains that have keys, in order; those too of whose keys nothing is known any more."""
        return sorted({path.parent.name for end in (STATES, "*.pem") for path in self._folder.glob(f"*/{end}")})

    def entries(self, domain: str) -> tuple[Entry, ...]:
        """The keys of *domain*, oldest first; `Permanent` where what is known of them cannot be read."""
        path = self._place(domain, STATES)
        try:
            stamp = _stamp(path.stat())
            kept, found = self._entries.get(domain, (None, ()))
            if kept != stamp:
                found = _entries(domain, _read(path, MAX_STATES))
                self._entries[domain] = stamp, found
        except FileNotFoundError:
            if _holds_keys(path.parent):
                raise Permanent(f"{path} is missing: restore it, or {_IMPORT.format(domain=domain)}") from None
            return ()
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            cure = f"restore it, or take it away and {_IMPORT.format(domain=domain)}"
            raise Permanent(f"{path} cannot be read ({type(error).__name__}): {cure}") from None
        return found

    def signers(self, domain: str, *, parents: bool = False) -> tuple[Signer, ...]:
        """The active keys of *domain*, or with *parents* of the nearest domain above it that has some.

        Empty where none has; `Permanent` where one cannot be used.
        """
        if not _DOMAIN.fullmatch(domain):  # it becomes the name of a folder
            return ()
        labels = domain.split(".")
        for first in range(len(labels) - 1 if parents else 1):
            name = ".".join(labels[first:])
            if active := [one for one in self.entries(name) if one.state is KeyState.ACTIVE]:
                return tuple(Signer(name, one.selector, self.key(one)) for one in active)
        return ()

    def key(self, entry: Entry) -> PrivateKey:
        """The private key of *entry*; `Permanent` where it cannot be used."""
        path = self._path(entry.domain, entry.selector)
        try:
            found = path.stat()
            _guard(path, found)
            kept, key = self._keys.get(entry.name, (None, None))
            if key is None or kept != _stamp(found):
                key = _key(path, entry)
                self._keys[entry.name] = _stamp(found), key
        except OSError as error:
            raise Permanent(f"the key {path} cannot be read ({error.strerror})") from None
        return key

    # ---- Changes --------------------------------------------------------------------------------------------------

    def add(self, domain: str, kind: KeyType, *, bits: int = private.BITS[0], selector: str = "") -> Entry:
        """Make a key, which signs nothing yet; `Permanent` where the selector is taken."""
        wanted = selector and selector_name(selector)
        pem = private.new(kind, bits)
        self._make_folder(domain)
        with self._changing(domain) as entries:
            name = wanted or self._free(domain, f"{kind}-{time.strftime('%Y%m%d')}")
            if name not in entries and self._path(domain, name).exists():  # its maker was killed, or put it there
                path = self._path(domain, name)
                raise Permanent(f"{path} is there, and of no key that is known: take it away, or import it")
            return self._enter(entries, domain, name, pem)

    def take(self, domain: str, selector: str, file: Path) -> Entry:
        """Keep the key in *file*, which was made elsewhere, or lies here unknown. It signs nothing yet.

        `Permanent` where it cannot sign, or the selector is taken.
        """
        name, pem = selector_name(selector), _converted(file)
        self._make_folder(domain)
        with self._changing(domain, anew=True) as entries:
            if self._path(domain, name).exists() and name not in entries:
                self._demand_same(self._path(domain, name), pem)
            return self._enter(entries, domain, name, pem)

    def _enter(self, entries: dict[str, Entry], domain: str, name: str, pem: bytes) -> Entry:
        if name in entries:
            raise Permanent(f"{domain} has a key with the selector {name} already")
        key = private.read(pem)
        self._write(self._path(domain, name), pem)
        entries[name] = Entry(domain, name, key.kind, key.record, KeyState.PENDING, time.time())
        return entries[name]

    @staticmethod
    def _demand_same(path: Path, pem: bytes) -> None:
        """No key that lies here is lost because another one comes in its place."""
        if _converted(path) != pem:
            raise Permanent(f"{path} is there, with another key: take it away")

    def activate(self, domain: str, selector: str) -> Entry:
        """Let a pending key sign from now on. The one of its kind that signed is retiring."""
        now = time.time()
        with self._changing(domain) as entries:
            one = entries.get(selector)
            if one is None or one.state is not KeyState.PENDING:
                raise Permanent(f"{domain} has no pending key with the selector {selector}")
            self.key(one)  # one that cannot be used must not replace one that can
            for old in [old for old in entries.values() if old.state is KeyState.ACTIVE and old.kind == one.kind]:
                entries[old.selector] = replace(old, state=KeyState.RETIRING, since=now, until=now + STAYS)
            entries[selector] = replace(one, state=KeyState.ACTIVE, since=now)
            return entries[selector]

    def remove(self, domain: str, selector: str) -> None:
        """Forget a key; `Permanent` where there is none."""
        with self._changing(domain) as entries:
            if entries.pop(selector, None) is None:
                raise Permanent(f"{domain} has no key with the selector {selector}")
        self._path(domain, selector).unlink(missing_ok=True)

    def _path(self, domain: str, selector: str) -> Path:
        return self._place(domain, f"{selector}.pem")

    def _place(self, domain: str, name: str) -> Path:
        """The file *name* of *domain*; making a path costs more than looking at the file."""
        if len(self._places) > MOST_PLACES:
            self._places.clear()
        if (place := self._places.get((domain, name))) is None:
            place = self._places[domain, name] = self._folder / domain / name
        return place

    def _is_taken(self, domain: str, selector: str) -> bool:
        return any(one.selector == selector for one in self.entries(domain)) or self._path(domain, selector).exists()

    def _free(self, domain: str, wanted: str) -> str:
        name, number = wanted, 1
        while self._is_taken(domain, name):
            number += 1
            name = f"{wanted}-{number}"
        return name

    @contextmanager
    def _changing(self, domain: str, *, anew: bool = False) -> Iterator[dict[str, Entry]]:
        """The keys of *domain* by selector, to be changed: written when the block ends well. One at a time does it.

        With *anew* nothing need be known of keys that lie there: those that are wanted are imported one by one.
        """
        try:
            folder = os.open(self._folder / domain, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            raise Permanent(f"there is no key for {domain}") from None
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            _sweep(self._folder / domain)
            states = self._folder / domain / STATES
            if not states.exists() and (anew or not _holds_keys(states.parent)):
                self._write(states, _document(()))  # before the first key: a key alone is one that was lost
            entries = {one.selector: one for one in self.entries(domain)}
            yield entries
            self._write(states, _document(entries.values()))
        finally:
            os.close(folder)

    def _make_folder(self, domain: str) -> None:
        for folder in (self._folder, self._folder / domain):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._give(folder)  # one that was there too: who made it may have been killed before
            _sync(folder.parent)

    def _write(self, path: Path, content: bytes) -> None:
        """Write *path* with mode 0600, all at once and for good: a crash leaves no half of a key behind."""
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            self._give(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync(path.parent)

    def _give(self, path: Path) -> None:
        """What root makes by hand belongs to whom the data folder belongs to: the gateway has to read it."""
        if os.geteuid() == 0:
            owner = self._folder.parent.stat()
            os.chown(path, owner.st_uid, owner.st_gid)


def _sweep(folder: Path) -> None:
    """Take away what somebody left here who was killed while writing: nobody else writes now, and it may hold a key."""
    for left in folder.glob(".*"):
        if _TEMPORARY.fullmatch(left.name):
            left.unlink(missing_ok=True)


def _holds_keys(folder: Path) -> bool:
    return any(folder.glob("*.pem"))


def _stamp(found: os.stat_result) -> _Stamp:
    """It differs when a file was replaced or written to, or when its rights changed."""
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def _guard(path: Path, found: os.stat_result) -> None:
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise Permanent(f"the key {path} is not used, for others may read it: chmod 600 it, or make a new one")


def _converted(path: Path) -> bytes:
    """The key in *path*, as we keep it."""
    try:
        return private.converted(_read(path, private.MAX_FILE))
    except OSError as error:
        raise Permanent(f"{path} cannot be read ({error.strerror})") from None
    except Permanent as error:
        raise Permanent(f"{path} {error}") from None


def _key(path: Path, entry: Entry) -> PrivateKey:
    try:
        key = private.read(_read(path, private.MAX_FILE))
    except Permanent as error:
        raise Permanent(f"{path} {error}") from None
    if key.record != entry.record:
        raise Permanent(f"{path} holds another key than the one whose record is known: make a new one")
    return key


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        return file.read(limit)


def _entries(domain: str, document: bytes) -> tuple[Entry, ...]:
    found: Mapping[str, Mapping[str, Any]] = json.loads(document)
    made = (Entry(**{**facts, "domain": domain, "selector": selector_name(name)}) for name, facts in found.items())
    return tuple(replace(one, state=KeyState(one.state)) for one in made)


def _document(entries: Iterable[Entry]) -> bytes:
    facts = {one.selector: asdict(one) for one in entries}
    return json.dumps(facts, indent=1).encode() + b"\n"


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)

"""People who have a mailbox or send through us: their login names, addresses and passwords.

A login name and an address are the same in either case. An address belongs to one account. Whether an account exists
shows neither in an answer nor in the time that the answer takes.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY
from sqlalchemy import Connection, bindparam, delete, insert, select, update

from gateway.idn import a_labels
from gateway.model import Permanent, Temporary
from gateway.store import mailbox, schema
from gateway.store.engine import Store
from gateway.store.statements import Statement

T = TypeVar("T")

LOGIN = 254
"""Octets of a login name or an address (RFC 5321 4.5.3.1.3)."""
PASSWORD = 512
"""Octets of a password."""
WAITING = 64
"""Most passwords that wait to be checked; beyond, the answer is `Temporary`."""

_hasher = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
_account = schema.account
_address = schema.address
_STANDS = Statement(
    select(_account.c.login).where(_account.c.login == bindparam("name")).with_for_update(read=True, key_share=True)
)


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody's login name and the addresses that are theirs."""

    login: str
    addresses: tuple[str, ...]
    created_at: float


# ---- Names --------------------------------------------------------------------------------------------------------


def login_name(text: str) -> str:
    """*text* as logins are stored (RFC 8265 3.3: composed, lower case), or "" where it cannot be one."""
    name = unicodedata.normalize("NFC", text.lower()) if len(text) <= LOGIN else ""
    fits = name.isprintable() and " " not in name and len(name.encode(errors="replace")) <= LOGIN
    return name if fits else ""


def address_name(text: str) -> str:
    """*text* as addresses are stored: lower case, the domain in A-labels; "" where it cannot be one."""
    local, at, domain = login_name(text).rpartition("@")
    if not (local and at and domain):
        return ""
    try:
        return f"{local}@{a_labels(domain)}"
    except UnicodeError:
        return ""


def password_text(text: str) -> str:
    """*text* as passwords are compared (RFC 8265 4.2: composed, every space alike), or "" where it cannot be one."""
    if len(text) > PASSWORD:
        return ""
    spaced = "".join(" " if unicodedata.category(character) == "Zs" else character for character in text)
    password = unicodedata.normalize("NFC", spaced)
    allowed = not any(unicodedata.category(character) in ("Cc", "Cs", "Cn") for character in password)
    return password if allowed and len(password.encode()) <= PASSWORD else ""


def hash_password(password: str) -> str:
    """The hash to store. It takes a while on purpose. `ValueError` where *password* cannot be one."""
    if not (text := password_text(password)):
        raise ValueError(f"a password has 1 to {PASSWORD} octets and no control characters")
    return _hasher.hash(text)


# ---- Accounts -----------------------------------------------------------------------------------------------------


def add(conn: Connection, login: str, password_hash: str, addresses: Iterable[str]) -> None:
    """Make an account with an empty mailbox. `Permanent` where a name is taken, or is none."""
    name = login_name(login)
    if not name:
        raise Permanent("a login name has 1 to 254 octets, no spaces and no control characters")
    if _password_hash(conn, name) is not None:
        raise Permanent(f"there is an account {name} already")
    mailbox.clear(conn, name, by="new account")
    conn.execute(insert(_account).values(login=name, password_hash=password_hash, created_at=time.time()))
    for address in addresses:
        add_address(conn, name, address)


def add_address(conn: Connection, login: str, address: str) -> None:
    """Give *address* to an account. `Permanent` where it is no address, or somebody has it."""
    name = address_name(address)
    if not name:
        raise Permanent("an address is written like alice@example.org")
    if owner := _owner(conn, name):
        raise Permanent(f"{name} belongs to {owner}")
    conn.execute(insert(_address).values(address=name, login=login_name(login)))


def demand(conn: Connection, logins: Iterable[str]) -> None:
    """Keep the accounts from being removed until the transaction ends. `Temporary` where one is gone already."""
    for login in set(logins):
        if not _STANDS.rows(conn, {"name": login}):
            raise Temporary("an account was removed meanwhile")


def set_password(conn: Connection, login: str, password_hash: str) -> bool:
    """Change the password. False where there is no such account."""
    changed = update(_account).where(_account.c.login == login_name(login)).values(password_hash=password_hash)
    return bool(conn.execute(changed).rowcount)


def remove(conn: Connection, login: str) -> bool:
    """Take an account away with its addresses and its mail. False where there is no such account."""
    name = login_name(login)
    removed = conn.execute(delete(_account).where(_account.c.login == name)).rowcount
    mailbox.clear(conn, name, by="removal of the account")  # now, for the other waits for whoever is in `demand`
    return bool(removed)


def list(conn: Connection) -> Sequence[Account]:  # noqa: A001 - it reads as accounts.list
    """All accounts, by name."""
    rows = conn.execute(select(_account.c.login, _account.c.created_at).order_by(_account.c.login)).all()
    addresses: dict[str, tuple[str, ...]] = {}
    for address, login in conn.execute(select(_address.c.address, _address.c.login).order_by(_address.c.address)):
        addresses[login] = (*addresses.get(login, ()), address)
    return [Account(login, addresses.get(login, ()), created_at) for login, created_at in rows]


def addresses_of(conn: Connection, login: str) -> Sequence[str]:
    """The addresses of an account, in order; none where there is no such account."""
    query = select(_address.c.address).where(_address.c.login == login_name(login))
    return conn.scalars(query.order_by(_address.c.address)).all()


def mailbox_of(conn: Connection, address: str) -> str:
    """The login name of whom *address* belongs to, or "". What follows "+" in the local part is theirs to choose."""
    name = address_name(address)
    if not name:
        return ""
    local, _, domain = name.rpartition("@")
    return _owner(conn, name) or _owner(conn, f"{local.partition('+')[0]}@{domain}")


def _owner(conn: Connection, address: str) -> str:
    return conn.scalar(select(_address.c.login).where(_address.c.address == address)) or ""


def _password_hash(conn: Connection, login: str) -> str | None:
    return conn.scalar(select(_account.c.password_hash).where(_account.c.login == login))


# ---- Passwords ----------------------------------------------------------------------------------------------------


class Authenticator:
    """Checks passwords in *threads* threads, each of which needs 64 MiB while it works (RFC 9106 4)."""

    def __init__(self, store: Store, threads: int = 2, waiting: int = WAITING) -> None:
        self._store = store
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="passwords")
        self._room = threading.BoundedSemaphore(threads + waiting)
        self._nobody = _hash_of_nothing()

    async def identify(self, login: str, password: str) -> str:
        """The login name as stored, where *login* is it or an address of it and *password* is right; else "".

        `Temporary` where it cannot be told now.
        """
        name, text = login_name(login), password_text(password)
        if not (name and text):
            return ""
        found = await self._store.read(lambda conn: _find(conn, name))
        known, stored = found or ("", self._nobody)
        right = await self._verify(stored, text)
        if not (known and right):
            return ""
        if _hasher.check_needs_rehash(stored):
            await self._rehash(known, stored, text)
        return known

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(cancel_futures=True)

    async def _verify(self, stored: str, password: str) -> bool:
        return await asyncio.wrap_future(self._submit(lambda: _matches(stored, password)))

    async def _rehash(self, login: str, stored: str, password: str) -> None:
        """Bring the hash to today's parameters, unless it has changed meanwhile; if not now, then at the next login."""
        with contextlib.suppress(Temporary):
            fresh = await asyncio.wrap_future(self._submit(lambda: _hasher.hash(password)))
            await self._store.write(lambda conn: _replace_hash(conn, login, stored, fresh))

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        if not self._room.acquire(blocking=False):
            raise Temporary("too many passwords wait to be checked")
        try:
            future = self._threads.submit(work)
        except RuntimeError:
            self._room.release()
            raise Temporary("no passwords are checked any more") from None
        future.add_done_callback(lambda _: self._room.release())
        return future


def _find(conn: Connection, name: str) -> tuple[str, str] | None:
    """Login and hash of the account whose login name or address *name* is, by the same steps whether there is one."""
    logins = (name, _owner(conn, address_name(name)))
    hashes = [_password_hash(conn, login) for login in logins]
    return next(((login, stored) for login, stored in zip(logins, hashes, strict=True) if stored is not None), None)


def _matches(stored: str, password: str) -> bool:
    try:
        return _hasher.verify(stored, password)
    except (VerificationError, InvalidHashError):
        return False


def _replace_hash(conn: Connection, login: str, stored: str, fresh: str) -> None:
    unchanged = (_account.c.login == login, _account.c.password_hash == stored)
    conn.execute(update(_account).where(*unchanged).values(password_hash=fresh))


def _hash_of_nothing() -> str:
    """A hash that no password matches, and that takes as long to check as any other."""
    how = RFC_9106_LOW_MEMORY
    salt, digest = (_base64(secrets.token_bytes(size)) for size in (how.salt_len, how.hash_len))
    return f"$argon2id$v={how.version}$m={how.memory_cost},t={how.time_cost},p={how.parallelism}${salt}${digest}"


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii").rstrip("=")

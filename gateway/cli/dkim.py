"""The verbs of the keys that mail is signed with. Each says what to publish in the DNS, and what to type next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import typer

from gateway import roles, terminal
from gateway.cli.base import CODES, DONE, REFUSED, UNREACHABLE, Json, Yes, ask, new_app, wiring_of
from gateway.dkim import private, published
from gateway.dkim.private import KeyType
from gateway.dkim.published import Published, Seen
from gateway.dkim.ring import STAYS, Entry, KeyState, Ring, domain_name, selector_name
from gateway.model import Permanent

app = new_app("The keys that mail is signed with (DKIM).")

STRING = 255
"""Octets of one string of a TXT record (RFC 1035 3.3.14)."""


class Algorithm(StrEnum):
    """Which keys to make: RSA is known everywhere, ed25519 is small and quick; mail may bear both signatures."""

    RSA = "rsa"
    ED25519 = "ed25519"
    BOTH = "both"

    @property
    def kinds(self) -> tuple[KeyType, ...]:
        """The kinds of keys."""
        return {"rsa": ("rsa",), "ed25519": ("ed25519",)}.get(self.value, ("rsa", "ed25519"))  # type: ignore[return-value]


Domain = Annotated[str, typer.Argument(help="The domain in the From of the mail, as example.org.")]
Bits = Annotated[int, typer.Option(help="The size of an RSA key: 2048, 3072 or 4096.")]
Force = Annotated[bool, typer.Option("--force", help="Do not wait for the DNS: sign with the new key at once.")]


@app.command(epilog=CODES)
def generate(
    ctx: typer.Context,
    domain: Domain,
    algorithm: Annotated[Algorithm, typer.Option(help="Which keys.")] = Algorithm.RSA,
    selector: Annotated[str, typer.Option(help="The name of the key; otherwise of its kind and the day.")] = "",
    bits: Bits = private.BITS[0],
    json: Json = False,
) -> None:
    """Make the first key of a domain, and say what to publish. It signs as soon as its record is in the DNS.

    Example: gatepost dkim generate example.org --algorithm both
    """
    name = _domain(domain)
    if selector:
        _selector_name(selector)
    ring = _ring(ctx, create=True)
    for kind in algorithm.kinds:
        _object_to_second(ring, name, kind)
    made = [
        ring.add(name, kind, bits=_size(bits), selector=_selector(selector, kind, algorithm))
        for kind in algorithm.kinds
    ]
    _show_made(made, f"gatepost dkim show {name}", json=json)


@app.command(epilog=CODES)
def show(
    ctx: typer.Context,
    domain: Annotated[str, typer.Argument(help="One domain; otherwise all that have keys.")] = "",
    json: Json = False,
) -> None:
    """Show the keys, and whether the DNS has their records. A key that waited for its record signs from now on.

    Exits 1 where a record is missing or another one, or a key cannot be used, 3 where the DNS could not be asked.

    Example: gatepost dkim show example.org
    """
    ring = _ring(ctx)
    names = [_domain(domain)] if domain else ring.domains()
    unknown = {name: fault for name in names if (fault := _unknown(ring, name))}
    seen = [one for name in names if name not in unknown for one in _looked_at(ctx, ring, name)]
    if domain and not seen and not unknown:
        raise Permanent(f"there is no key for {names[0]}: gatepost dkim generate {names[0]}")
    _show(seen, ring, json=json, unknown=unknown)
    raise typer.Exit(REFUSED if unknown or any(_fault(ring, one.entry) for one in seen) else _code(seen))


@app.command("import", epilog=CODES)
def import_(
    ctx: typer.Context,
    domain: Domain,
    selector: Annotated[str, typer.Argument(help="The name under which its record stands in the DNS.")],
    file: Annotated[Path, typer.Argument(help="The private key: PEM, or rspamd's ed25519 key.", dir_okay=False)],
    json: Json = False,
) -> None:
    """Take over a key of rspamd, opendkim, PMG or another gateway. It signs as soon as the DNS has its record.

    The file is copied and stays as it is.

    Example: gatepost dkim import example.org mail /var/lib/rspamd/dkim/example.org.mail.key
    """
    name, which = _domain(domain), _selector_name(selector)
    ring = _ring(ctx, create=True)
    ring.take(name, which, file)
    if not json:
        terminal.say(f"{which} of {name} was imported.")
    _show(_looked_at(ctx, ring, name), ring, json=json)


@app.command(epilog=CODES)
def rotate(
    ctx: typer.Context,
    domain: Domain,
    finish: Annotated[
        bool, typer.Option("--finish", help="Make no key: sign with the one whose record is there.")
    ] = False,
    force: Force = False,
    bits: Bits = private.BITS[0],
    json: Json = False,
) -> None:
    """Replace the keys of a domain: make new ones, and sign with them when their records are in the DNS.

    Until then the old keys sign. Afterwards their records have to stay for a week: mail may be under way for days.

    Examples: gatepost dkim rotate example.org · gatepost dkim rotate example.org --finish
    """
    ring, name = _ring(ctx), _domain(domain)
    made = [] if finish else _successors(ring, name, _size(bits))
    if force:
        for one in _in_state(ring, name, KeyState.PENDING):
            ring.activate(name, one.selector)
    elif made:
        _show_made(made, f"gatepost dkim rotate {name} --finish", json=json)
        return
    seen = _looked_at(ctx, ring, name)
    _show(seen, ring, json=json)
    raise typer.Exit(_code([one for one in seen if one.entry.state is KeyState.PENDING]))


@app.command(epilog=CODES)
def remove(
    ctx: typer.Context,
    domain: Domain,
    selector: Annotated[str, typer.Argument(help="The name of the key, as show has it.")],
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Delete a key for ever. First take care that no mail with its signatures is under way.

    Example: gatepost dkim remove example.org rsa-20261123
    """
    ring, name, which = _ring(ctx), _domain(domain), _selector_name(selector)
    found = next((one for one in ring.entries(name) if one.selector == which), None)
    if found is None:
        raise Permanent(f"{name} has no key with the selector {which}")
    ask(_warning(found), yes=yes)
    ring.remove(name, which)
    if json:
        terminal.as_json({"removed": _facts(found)})
    else:
        terminal.say(f"{which} of {name} was removed; take {found.name} out of the DNS{_when(found)}")


# ---- Making -------------------------------------------------------------------------------------------------------


def _ring(ctx: typer.Context, *, create: bool = False) -> Ring:
    config = wiring_of(ctx).config()
    if create:
        roles.make_folders(config)
    return Ring(config.keys_dir)


def _domain(text: str) -> str:
    try:
        return domain_name(text)
    except Permanent as error:
        raise typer.BadParameter(str(error)) from None


def _selector_name(text: str) -> str:
    try:
        return selector_name(text)
    except Permanent as error:
        raise typer.BadParameter(str(error)) from None


def _size(bits: int) -> int:
    if bits not in private.BITS:
        raise typer.BadParameter("an RSA key has 2048, 3072 or 4096 bits")
    return bits


def _selector(wanted: str, kind: KeyType, algorithm: Algorithm) -> str:
    """Of two keys that get a name, the second gets a longer one."""
    return f"{wanted}-{kind}" if wanted and algorithm is Algorithm.BOTH and kind != "rsa" else wanted


def _in_state(ring: Ring, domain: str, state: KeyState) -> list[Entry]:
    return [one for one in ring.entries(domain) if one.state is state]


def _object_to_second(ring: Ring, domain: str, kind: KeyType) -> None:
    for one in ring.entries(domain):
        if one.kind == kind and one.state is not KeyState.RETIRING:
            typed = (
                f"gatepost dkim show {domain}" if one.state is KeyState.PENDING else f"gatepost dkim rotate {domain}"
            )
            raise Permanent(f"{domain} has the {one.state} key {one.selector} already: {typed}")


def _successors(ring: Ring, domain: str, bits: int) -> list[Entry]:
    """A new key for each that signs, where none waits to follow it."""
    active = _in_state(ring, domain, KeyState.ACTIVE)
    if not active:
        raise Permanent(f"{domain} has no key that signs: gatepost dkim generate {domain}, or show {domain}")
    waiting = {one.kind for one in _in_state(ring, domain, KeyState.PENDING)}
    return [ring.add(domain, one.kind, bits=bits) for one in active if one.kind not in waiting]


def _warning(entry: Entry) -> str:
    if entry.state is KeyState.ACTIVE:
        return f"{entry.selector} signs the mail of {entry.domain} now. Delete it for ever?"
    if entry.state is KeyState.RETIRING and entry.until > time.time():
        return f"Mail signed by {entry.selector} may be under way until {terminal.moment(entry.until)}. Delete it?"
    return f"Delete {entry.selector} of {entry.domain} for ever?"


def _when(entry: Entry) -> str:
    """When the record of a removed key may go: mail that it signed is still to be checked by others."""
    if entry.state is KeyState.PENDING:
        return ""
    return f" after {terminal.moment(entry.until or time.time() + STAYS)}"


# ---- Looking ------------------------------------------------------------------------------------------------------


def _looked_at(ctx: typer.Context, ring: Ring, domain: str) -> list[Seen]:
    dns = wiring_of(ctx).dns(wiring_of(ctx).config())
    return asyncio.run(published.look_at_all(ring, dns, domain))


def _is_over(entry: Entry) -> bool:
    """Nobody needs its record any more."""
    return entry.state is KeyState.RETIRING and entry.until <= time.time()


def _unknown(ring: Ring, domain: str) -> str:
    """Why nothing is known of the keys of *domain*; nothing where that is known."""
    try:
        ring.entries(domain)
    except Permanent as error:
        return str(error)
    return ""


def _fault(ring: Ring, entry: Entry) -> str:
    """Why *entry* cannot sign, though it has to or will have to; nothing where it can."""
    if entry.state is not KeyState.RETIRING:
        try:
            ring.key(entry)
        except Permanent as error:
            return str(error)
    return ""


def _code(seen: Iterable[Seen]) -> int:
    answers = {one.published for one in seen if not _is_over(one.entry)}
    if answers & {Published.MISSING, Published.DIFFERENT}:
        return REFUSED
    return UNREACHABLE if Published.UNKNOWN in answers else DONE


# ---- Showing ------------------------------------------------------------------------------------------------------


def _show_made(made: Sequence[Entry], typed: str, *, json: bool) -> None:
    if json:
        terminal.as_json([_facts(one) for one in made])
        return
    for one in made:
        terminal.say(f"{one.selector} of {one.domain} was made. It signs nothing before its record is in the DNS.")
    _show_records(made)
    terminal.say()
    terminal.say(f"The gateway looks for it now and then. To look now, type:  {typed}")


def _show(seen: Sequence[Seen], ring: Ring, *, json: bool, unknown: Mapping[str, str] = MappingProxyType({})) -> None:
    """*unknown* are the domains of whose keys nothing can be told, and why."""
    faults = {one.entry.name: _fault(ring, one.entry) for one in seen}
    if json:
        lost = [{"domain": domain, "fault": fault} for domain, fault in unknown.items()]
        terminal.as_json([*lost, *(_facts_seen(one, faults[one.entry.name]) for one in seen)])
        return
    if not (seen or unknown):
        terminal.say("There are no keys. To make one, type:  gatepost dkim generate example.org")
        return
    if seen:
        columns = ("domain", "selector", "kind", "state", "since", "DNS", "what to do")
        terminal.table("", columns, map(_row, seen))
    _show_records([one.entry for one in seen if _wants_record(one)])
    for fault in filter(None, [*faults.values(), *unknown.values()]):
        terminal.say(f"Mail waits, or goes unsigned (signing.toml): {fault}", style="bold")


def _wants_record(seen: Seen) -> bool:
    """Whether to say what to publish: where it is missing, and for a new key also where nobody could tell."""
    if seen.published is Published.UNKNOWN:
        return seen.entry.state is KeyState.PENDING
    return seen.published is not Published.PUBLISHED and not _is_over(seen.entry)


def _row(seen: Seen) -> tuple[object, ...]:
    one = seen.entry
    since = terminal.moment(one.since)
    return one.domain, one.selector, one.kind, one.state, since, seen.published, _advice(seen)


def _advice(seen: Seen) -> str:
    one = seen.entry
    if seen.begins:
        return "signs from now on"
    if _is_over(one):
        return f"take its record out, then: gatepost dkim remove {one.domain} {one.selector}"
    if seen.published is Published.UNKNOWN:
        return "try again later"
    if seen.published is not Published.PUBLISHED:
        return "publish its record, as below"
    return f"leave its record until {terminal.moment(one.until)}" if one.state is KeyState.RETIRING else ""


def _show_records(entries: Iterable[Entry]) -> None:
    for one in entries:
        terminal.say()
        terminal.say(f"Publish a TXT record at {one.name}, with this text on one line:", style="bold")
        terminal.say(one.record)
        terminal.say("or, in a zone file:")
        terminal.say(_zone_line(one))


def _zone_line(entry: Entry) -> str:
    """The record as BIND reads it."""
    return f"{entry.name}. IN TXT ( {' '.join(_strings(entry.record))} )"


def _strings(text: str) -> list[str]:
    """*text*, which has neither quotes nor backslashes, as strings of a zone file."""
    return [f'"{text[start : start + STRING]}"' for start in range(0, len(text), STRING)]


def _facts_seen(seen: Seen, fault: str) -> dict[str, object]:
    return {**_facts(seen.entry), "dns": seen.published, "begins": seen.begins, "fault": fault}


def _facts(entry: Entry) -> dict[str, object]:
    return {
        "domain": entry.domain,
        "selector": entry.selector,
        "algorithm": f"{entry.kind}-sha256",
        "state": entry.state,
        "since": entry.since,
        "until": entry.until,
        "name": entry.name,
        "value": entry.record,
        "strings": [one[1:-1] for one in _strings(entry.record)],
        "zone": _zone_line(entry),
    }

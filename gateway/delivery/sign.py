"""What we sign of a mail on its way out: DKIM over what is ours, an ARC set over what we only hand on.

Rule: mail that came from the world never gets a DKIM signature of ours, whatever its From says. The octets that are
signed are those that are sent: this comes last, once for each attempt.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from gateway import events
from gateway.delivery.transaction import MAX_HEADER
from gateway.dkim import canonical, making, published, reading
from gateway.dkim.making import NotSigned
from gateway.dkim.ring import KeyState, Ring, Signer
from gateway.model import Delivery, Dns, Permanent, Temporary
from gateway.pipeline import author
from gateway.pipeline.mime import Header
from gateway.stages import Signing

Octets = Callable[[], AsyncGenerator[bytes, None]]

_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")
_CHAIN = re.compile(rb"\r\n[ \t]+arc=(none|pass|fail)\b")
"""Our own field has each result on a line of its own, so nothing that a stranger wrote looks like one."""
_OURS = 12
"""Fields among which those that we put on top are."""


class Hand:
    """Signs with the keys of *ring*. *policy* gives what is in force, *now* the time in seconds since the epoch."""

    def __init__(
        self, ring: Ring, hostname: str, policy: Callable[[], Signing], *, now: Callable[[], float] = time.time
    ) -> None:
        self._ring = ring
        self._hostname = hostname.lower()
        self._policy = policy
        self._now = now

    async def sign(self, delivery: Delivery, octets: Octets) -> bytes:
        """The fields to stand above the mail that *octets* gives; empty where nothing is signed.

        `Temporary` where a key cannot be used, and the policy says that its mail has to wait.
        """
        policy = self._policy()
        if self._ring.is_empty() or not (policy.dkim if delivery.outbound else policy.arc):
            return b""
        try:
            return await (self._dkim(octets, policy) if delivery.outbound else self._arc(octets, policy))
        except NotSigned as error:
            events.say("not signed", id=delivery.message_id, why=str(error))
        except Permanent as error:
            events.say("not signed", id=delivery.message_id, why=str(error))
            # A bounce goes on: of one that waits until it expires nobody would ever hear
            if delivery.outbound and delivery.sender and policy.missing_key == "wait":
                raise Temporary("the key that signs this mail cannot be used") from None
        return b""

    async def look(self, dns: Dns) -> None:
        """Let new keys sign whose records the DNS has by now."""
        for domain in self._ring.domains():
            try:
                await self._look_at(dns, domain)
            except Permanent as error:  # the keys of the others are not to blame
                events.say("key not looked for", domain=domain, why=str(error))

    async def _look_at(self, dns: Dns, domain: str) -> None:
        if any(one.state is KeyState.PENDING for one in self._ring.entries(domain)):
            for seen in await published.look_at_all(self._ring, dns, domain, pending=True):
                if seen.begins:
                    events.say("key signs", domain=domain, selector=seen.entry.selector)

    async def keep_looking(self, dns: Dns) -> None:
        """`look` again and again; trouble is told, and ends nothing."""
        while True:
            try:
                await self.look(dns)
            except Exception as error:  # noqa: BLE001 - mail is signed with the keys that there are
                events.failure("looking for the records of keys", error)
            await asyncio.sleep(self._policy().look_every)

    async def _dkim(self, octets: Octets, policy: Signing) -> bytes:
        async with aclosing(octets()) as chunks:
            head, rest = await _header(chunks)
            writer = author.read(head, Header((), 0))
            if not writer.domain:
                raise NotSigned("it has no author whom all readers see alike")
            signers = self._ring.signers(writer.domain, parents=policy.subdomains)
            if not signers:
                return b""
            named, body = reading.by_name(_fields(head)), await _digest(chunks, rest)
        chosen, now = making.chosen(policy.oversigned, policy.signed), int(self._now())
        expires = now + int(policy.expires) if policy.expires else 0
        return b"".join(making.signature(named, body, signer, chosen, now, expires) for signer in signers)

    async def _arc(self, octets: Octets, policy: Signing) -> bytes:
        signer = self._sealer(policy)
        if signer is None:
            return b""
        async with aclosing(octets()) as chunks:
            head, rest = await _header(chunks)
            fields = _fields(head)
            results = _results(fields)
            cv = _state_of_chain(fields, results)
            body = await _digest(chunks, rest)
        chosen = making.chosen(("from",), (*policy.oversigned, *policy.signed, "dkim-signature"))
        return making.arc_set(fields, body, results, cv, signer, chosen, int(self._now()))

    def _sealer(self, policy: Signing) -> Signer | None:
        """The key that seals: an RSA one where there is one, for some who check seals know no other."""
        signers = self._ring.signers(policy.arc_domain or self._hostname, parents=not policy.arc_domain)
        return next((one for one in signers if one.key.kind == "rsa"), next(iter(signers), None))


async def _header(chunks: AsyncGenerator[bytes, None]) -> tuple[bytes, bytes]:
    """The header block, and what of the body came with it."""
    start = b""
    async for chunk in chunks:
        start += chunk
        if b"\r\n\r\n" in start or len(start) > MAX_HEADER:
            break
    head, end, rest = start.partition(b"\r\n\r\n")
    if len(head) > MAX_HEADER:
        raise NotSigned("its header is too large")
    return head + canonical.CRLF * bool(end), rest


async def _digest(chunks: AsyncGenerator[bytes, None], rest: bytes) -> bytes:
    """The hash of the body: *rest*, and what *chunks* still gives. Others have their turn between two chunks."""
    body = canonical.Body(relaxed=True)
    body.update(rest)
    async for chunk in chunks:
        body.update(chunk)
    digest = body.digest()
    assert digest is not None  # noqa: S101 - there always is one of the whole
    return digest


def _fields(head: bytes) -> list[bytes]:
    fields = canonical.fields(head)
    if not all(map(_FIELD.match, fields)):
        raise NotSigned("a line of its header is no field")
    return fields


def _results(fields: Sequence[bytes]) -> bytes:
    """The value of the Authentication-Results that we wrote: it stands above our X-Gatepost-Id, forged ones below."""
    found = b""
    for field in fields[:_OURS]:
        name = reading.name_of(field)
        if name == "authentication-results":
            found = found or field.partition(b":")[2]
        elif name == "x-gatepost-id" and found:
            return found
    raise NotSigned("it has no results of ours")


def _state_of_chain(fields: Sequence[bytes], results: bytes) -> str:
    """What we found of its ARC chain: the cv= of our seal."""
    if match := _CHAIN.search(results):
        return match[1].decode()
    if any(reading.name_of(field) in making.ARC for field in fields):
        raise NotSigned("nobody has checked its ARC chain")
    return "none"

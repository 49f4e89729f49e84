"""Verdicts -> what the store is to keep: drafts of messages, and one row for each recipient.

Where one recipient takes the mail, those who would refuse it get it held, so no bounce is ever owed for spam.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, cast

from gateway.model import Action, Direction, Found, ListenerKind, Mail, Notice, Recipient, State, Verdict, new_id
from gateway.pipeline import actions, explain, mime, results, stripping
from gateway.pipeline.actions import Piece, Splice
from gateway.pipeline.reported import Told
from gateway.pipeline.stripping import Removal, Whole
from gateway.store.messages import Draft, Row
from gateway.store.observations import Observation


@dataclass(frozen=True, slots=True)
class Judged:
    """One recipient with its verdict, and the account that it belongs to (empty: it goes on to another host)."""

    recipient: Recipient
    verdict: Verdict
    mailbox: str


@dataclass(frozen=True, slots=True)
class Spooled:
    """The message as it lies in its unlinked file: `head` is its header block, which ends at `body_start`."""

    file: BinaryIO
    size: int
    head: bytes
    body_start: int


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What else goes into the record: our name, the time, the findings and the policies they were decided by.

    `observation` is what the owner of the domain in the From shall hear of, `told` what a report in the mail tells us;
    both are kept once, whatever the variants. `sealer` is the domain that seals for us where signing.toml names one,
    `domains` are those whose mail we take in from the world, in A-labels.
    """

    hostname: str
    now: float
    found: Found
    version: str
    observation: Observation | None = None
    told: Told | None = None
    sealer: str = ""
    domains: frozenset[str] = frozenset()


def drafts(
    mail: Mail, spooled: Spooled, judged: Sequence[Judged], about: Circumstances
) -> list[tuple[Draft, list[Row]]]:
    """What to accept: the message as it came, and a variant for each set of parts that some get it without."""
    plain: list[Row] = []
    variants: dict[tuple[Removal, ...], list[Judged]] = {}
    for one in judged:
        if one.verdict.action is not Action.STRIP:
            plain.append(_row(mail, one))
            continue
        plain.append(replace(_row(mail, one), state=State.HELD, notice=None))  # the original stays to be asked for
        if removed := stripping.removals(one.verdict, mail.content):
            variants.setdefault(removed, []).append(one)
    whole = _draft(mail, mail.id, spooled, about, spooled.head, [(spooled.body_start, spooled.size)])
    report = about.told.received if about.told else None
    made = [(replace(whole, observation=about.observation, report=report), plain)]
    made += [_variant(mail, spooled, about, removed, group) for removed, group in variants.items()]
    return made


def _variant(
    mail: Mail, spooled: Spooled, about: Circumstances, removed: Sequence[Removal], group: Sequence[Judged]
) -> tuple[Draft, list[Row]]:
    whole = Whole(mail.id, about.hostname)
    head, pieces = stripping.stripped(spooled.file, spooled.head, spooled.size, removed, whole)
    draft = _draft(mail, new_id(), spooled, about, head, pieces)
    return draft, [_row(mail, one) for one in group]


def _row(mail: Mail, one: Judged) -> Row:
    state = State.MAILBOX if one.mailbox else State.QUEUED
    if one.verdict.action in {Action.QUARANTINE, Action.REJECT}:
        state = State.HELD
    top = actions.mailbox_fields(mail.envelope.sender, one.recipient.address) if one.mailbox else b""
    # What our people send to others must not tell them how we judge
    is_theirs = mail.session.direction is Direction.OUTBOUND and not one.mailbox
    header = b"" if is_theirs else top + actions.verdict_fields(mail.id, one.verdict)
    told = state is State.MAILBOX and "SUCCESS" in one.recipient.notify and mail.envelope.sender
    return Row(one.recipient, state, one.mailbox, header, one.verdict, Notice.DELIVERED if told else None)


def _draft(
    mail: Mail, mail_id: str, spooled: Spooled, about: Circumstances, head: bytes, pieces: Sequence[Piece]
) -> Draft:
    domains = about.domains if mail.session.direction is Direction.INBOUND else frozenset[str]()
    genuine = results.genuine(head, about.hostname, _own_sets(mail, about), domains=domains)
    header = b"".join(_on_top(mail, about)) + genuine + _completed(mail, about, head)
    body = Splice(spooled.file, pieces)
    shown = mime.shown(spooled.head)
    return Draft(
        id=mail_id,
        received_at=about.now,
        session=mail.session,
        envelope=mail.envelope,
        header=header,
        body=cast("BinaryIO", body),
        size=len(header) + body.size,
        subject=shown.subject,
        header_from=shown.sender,
        header_message_id=shown.message_id,
        evidence=evidence(mail, about),
    )


def _own_sets(mail: Mail, about: Circumstances) -> Collection[int]:
    """The ARC sets that stay though they bear our name. A host of ours, a list server say, got them from us."""
    if mail.session.kind is ListenerKind.RELAY:
        return range(1, 51)  # RFC 8617 5.1.1.1
    return results.own_sets(mail.content.arc, about.found, about.hostname, about.sealer)


def _on_top(mail: Mail, about: Circumstances) -> Iterator[bytes]:
    yield actions.received(mail.session, mail.envelope, mail.id, about.hostname, about.now)
    if mail.session.direction is Direction.INBOUND:
        yield results.field(about.hostname, about.found)
    yield f"X-Gatepost-Id: {mail.id}\r\n".encode()


def _completed(mail: Mail, about: Circumstances, head: bytes) -> bytes:
    if mail.session.kind is not ListenerKind.SUBMISSION:
        return b""
    return actions.completion(head, mail.id, about.hostname, about.now)


def evidence(mail: Mail, about: Circumstances) -> Mapping[str, object]:
    """What stays of the mail when its bytes are gone: enough to explain the verdict, and to decide again."""
    session, envelope = mail.session, mail.envelope
    return {
        "session": {
            "peer": str(session.peer),
            "listener": session.listener,
            "kind": session.kind.value,
            "helo": session.helo,
            "tls": session.tls,
            "user": session.user,
        },
        "direction": session.direction.value,
        "envelope": {"sender": envelope.sender, "recipients": [r.address for r in envelope.recipients]},
        "policies": about.version,
        "found": explain.as_facts(about.found),
        "content": {
            "parts": [[p.path, p.media_type, p.filename, p.sniffed, p.size] for p in mail.content.parts[:50]],
            "defects": list(mail.content.defects),
            "unscannable": mail.content.unscannable,
        },
        **({"report": about.told.sentence} if about.told else {}),
    }

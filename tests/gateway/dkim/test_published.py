"""Whether the DNS has our record, and that a key signs from the moment on at which it has."""

import asyncio

import pytest

from gateway.dkim import published
from gateway.dkim.published import Published
from gateway.dkim.ring import KeyState, Ring
from gateway.model import Temporary
from tests.gateway.delivery.fakes import FakeDns

DOMAIN = "in.example"


@pytest.fixture
def keys(tmp_path):
    return Ring(tmp_path / "dkim")


@pytest.fixture
def entry(keys):
    return keys.add(DOMAIN, "ed25519", selector="s1")


def dns(entry, *records):
    return FakeDns({f"TXT {entry.name}": list(records)})


def look(entry, *records):
    return asyncio.run(published.look(dns(entry, *records), entry))


def test_our_record_is_published_however_it_is_written(entry):
    p = entry.record.partition("p=")[2]
    for text in (
        entry.record,
        f"p={p[:9]} {p[9:]}; k=ed25519; t=y",
        f"v=DKIM1; k=ed25519; s=email; h=sha1:sha256; p={p};",
    ):
        assert look(entry, text.encode()) is Published.PUBLISHED, text


def test_another_record_is_told_apart_from_none(entry):
    assert look(entry) is Published.MISSING
    p = entry.record.partition("p=")[2]
    for text in (
        "v=DKIM1; k=ed25519; p=",
        f"v=DKIM1; k=ed25519; p={'A' if p[0] != 'A' else 'B'}{p[1:]}",
        f"v=DKIM1; p={p}",
        f"v=DKIM1; k=ed25519; h=sha1; p={p}",
        f"v=DKIM1; k=ed25519; s=chat; p={p}",
        f"v=DKIM2; k=ed25519; p={p}",
        f"k=ed25519; v=DKIM1; p={p}",
        "no tags",
        "",
    ):
        assert look(entry, text.encode()) is Published.DIFFERENT, text


def test_of_several_records_none_counts(entry):
    assert look(entry, entry.record.encode(), b"v=spf1 -all") is Published.DIFFERENT


def test_what_nobody_can_tell_is_not_missing(entry):
    asked = FakeDns({f"TXT {entry.name}": Temporary("no answer")})
    assert asyncio.run(published.look(asked, entry)) is Published.UNKNOWN


def test_a_pending_key_begins_when_its_record_is_there(keys, entry):
    (seen,) = asyncio.run(published.look_at_all(keys, dns(entry), DOMAIN))
    assert (seen.entry.state, seen.begins) == (KeyState.PENDING, False)
    (seen,) = asyncio.run(published.look_at_all(keys, dns(entry, entry.record.encode()), DOMAIN))
    assert (seen.entry.state, seen.published, seen.begins) == (KeyState.ACTIVE, Published.PUBLISHED, True)
    assert [one.selector for one in keys.signers(DOMAIN)] == ["s1"]
    (seen,) = asyncio.run(published.look_at_all(keys, dns(entry), DOMAIN))
    assert (seen.entry.state, seen.published, seen.begins) == (KeyState.ACTIVE, Published.MISSING, False)


def test_who_looks_for_pending_keys_asks_for_no_others(keys, entry):
    keys.activate(DOMAIN, entry.selector)
    asked = dns(entry)
    assert asyncio.run(published.look_at_all(keys, asked, DOMAIN, pending=True)) == []
    assert asked.asked == []


def test_each_key_of_several_is_told_of(keys, entry):
    keys.activate(DOMAIN, entry.selector)
    new = keys.add(DOMAIN, "ed25519", selector="s2")
    known = FakeDns({f"TXT {one.name}": [one.record.encode()] for one in (entry, new)})
    seen = asyncio.run(published.look_at_all(keys, known, DOMAIN))
    assert [(one.entry.selector, one.entry.state, one.begins) for one in seen] == [
        ("s1", KeyState.RETIRING, False),
        ("s2", KeyState.ACTIVE, True),
    ]

"""Key files: who may read them, what state each key is in, and that nothing is half done."""

import json
import os
import stat

import pytest

from gateway.dkim import private, ring
from gateway.dkim.ring import KeyState, Ring
from gateway.model import Permanent

DOMAIN = "in.example"


@pytest.fixture
def keys(tmp_path):
    return Ring(tmp_path / "dkim")


@pytest.fixture
def path(tmp_path):
    return lambda entry: tmp_path / "dkim" / entry.domain / f"{entry.selector}.pem"


def active(keys, domain=DOMAIN, **words):
    return keys.activate(domain, keys.add(domain, "ed25519", **words).selector)


def states(keys, domain=DOMAIN):
    return {one.selector: one.state.value for one in keys.entries(domain)}


def test_without_keys_there_is_nothing(keys, tmp_path):
    assert keys.is_empty()
    assert (keys.domains(), keys.entries(DOMAIN), keys.signers(DOMAIN)) == ([], (), ())
    assert not (tmp_path / "dkim").exists()


def test_a_new_key_is_pending_and_signs_nothing(keys):
    entry = keys.add(DOMAIN, "rsa", selector="s1")
    assert (entry.name, entry.kind, entry.state) == ("s1._domainkey.in.example", "rsa", KeyState.PENDING)
    assert keys.domains() == [DOMAIN]
    assert keys.entries(DOMAIN) == (entry,)
    assert keys.signers(DOMAIN) == ()


def test_files_are_for_us_alone(keys, path):
    file = path(keys.add(DOMAIN, "ed25519"))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((file.parent / ring.STATES).stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == stat.S_IMODE(file.parent.parent.stat().st_mode) == 0o700
    assert sorted(one.name for one in file.parent.iterdir()) == sorted([file.name, ring.STATES])


def test_an_active_key_signs_by_its_name(keys):
    entry = active(keys, selector="s1")
    (signer,) = keys.signers(DOMAIN)
    assert (signer.domain, signer.selector, signer.key.record) == (DOMAIN, "s1", entry.record)


def test_keys_of_both_kinds_sign_side_by_side(keys):
    for kind in ("rsa", "ed25519"):
        keys.activate(DOMAIN, keys.add(DOMAIN, kind).selector)
    assert [one.key.kind for one in keys.signers(DOMAIN)] == ["rsa", "ed25519"]


def test_a_key_that_follows_another_of_its_kind_retires_it_for_a_week(keys):
    rsa = keys.activate(DOMAIN, keys.add(DOMAIN, "rsa", selector="r").selector)
    old, new = active(keys, selector="one"), active(keys, selector="two")
    assert states(keys) == {"r": "active", "one": "retiring", "two": "active"}
    retired = next(one for one in keys.entries(DOMAIN) if one.selector == old.selector)
    assert retired.until == pytest.approx(new.since + ring.STAYS)
    assert {one.selector for one in keys.signers(DOMAIN)} == {rsa.selector, new.selector}


def test_only_a_pending_key_can_begin_to_sign(keys):
    entry = active(keys)
    with pytest.raises(Permanent, match="no pending key"):
        keys.activate(DOMAIN, entry.selector)
    with pytest.raises(Permanent, match="no pending key"):
        keys.activate(DOMAIN, "another")
    with pytest.raises(Permanent, match="no key for"):
        keys.activate("other.example", "s")


def test_a_key_that_cannot_be_used_does_not_replace_one_that_can(keys, path):
    old, new = active(keys), keys.add(DOMAIN, "ed25519")
    path(new).chmod(0o640)
    with pytest.raises(Permanent, match="others may read it"):
        keys.activate(DOMAIN, new.selector)
    assert [one.selector for one in keys.signers(DOMAIN)] == [old.selector]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_key_that_others_may_read_is_not_used_until_that_is_mended(keys, path, mode):
    entry = active(keys)
    assert keys.signers(DOMAIN)
    path(entry).chmod(mode)
    with pytest.raises(Permanent, match="chmod 600"):
        keys.signers(DOMAIN)
    path(entry).chmod(0o600)
    assert keys.signers(DOMAIN)


def test_a_key_that_is_gone_or_damaged_or_another_is_told(keys, path):
    entry = active(keys)
    assert keys.signers(DOMAIN)
    path(entry).write_bytes(b"nonsense")
    with pytest.raises(Permanent, match="holds no private key"):
        keys.signers(DOMAIN)
    path(entry).write_bytes(private.new("ed25519"))
    with pytest.raises(Permanent, match="holds another key"):
        keys.signers(DOMAIN)
    path(entry).unlink()
    with pytest.raises(Permanent, match="cannot be read"):
        keys.signers(DOMAIN)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"s": 1}', '{"s": {}}', '{"s": {"state": "new"}}', '{"../s": {}}', "\udcff"]
)
def test_what_is_known_of_the_keys_is_read_strictly(keys, path, text):
    (path(active(keys)).parent / ring.STATES).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(Permanent, match=r"keys.json cannot be read|a selector is"):
        keys.signers(DOMAIN)


def test_a_change_of_another_process_is_seen(keys, tmp_path):
    entry = active(keys)
    other = Ring(tmp_path / "dkim")
    newer = active(other, selector="newer")
    assert [one.selector for one in keys.signers(DOMAIN)] == [newer.selector]
    other.remove(DOMAIN, newer.selector)
    assert keys.signers(DOMAIN) == ()
    assert states(keys) == {entry.selector: "retiring"}


def test_the_nearest_domain_above_that_has_an_active_key_signs(keys):
    active(keys)
    keys.add("mail.in.example", "ed25519")  # pending: it does not count
    assert {one.domain for one in keys.signers("a.mail.in.example", parents=True)} == {DOMAIN}
    assert keys.signers("a.mail.in.example") == ()
    keys.activate("mail.in.example", keys.entries("mail.in.example")[0].selector)
    assert {one.domain for one in keys.signers("a.mail.in.example", parents=True)} == {"mail.in.example"}


def test_a_top_level_domain_signs_for_nobody(keys, path):
    entry = active(keys)
    path(entry).parent.rename(path(entry).parent.parent / "example")
    assert keys.signers("other.example", parents=True) == ()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../in.example", "in.example/..", "IN.example", "in..example", "a b.example"]
)
def test_what_is_no_domain_never_becomes_a_path(keys, name):
    active(keys)
    assert keys.signers(name, parents=True) == ()


def test_a_selector_is_used_once(keys, path):
    keys.add(DOMAIN, "ed25519", selector="s1")
    with pytest.raises(Permanent, match="selector s1 already"):
        keys.add(DOMAIN, "ed25519", selector="S1")
    one, other = keys.add(DOMAIN, "rsa", bits=1024), keys.add(DOMAIN, "rsa", bits=1024)
    assert other.selector == f"{one.selector}-2"
    path(other).with_name("stray.pem").write_text("of somebody")
    with pytest.raises(Permanent, match=r"stray\.pem is there, and of no key that is known"):
        keys.add(DOMAIN, "ed25519", selector="stray")
    assert path(other).with_name("stray.pem").read_text() == "of somebody"


def test_keys_of_which_nothing_is_known_are_a_fault_until_they_are_imported_again(keys, path):
    file = path(active(keys, selector="s1"))
    (file.parent / ring.STATES).unlink()
    assert keys.domains() == [DOMAIN]
    for ask in (keys.signers, lambda domain: keys.signers(f"sub.{domain}", parents=True), keys.entries):
        with pytest.raises(Permanent, match=r"keys\.json is missing: restore it, or import its keys again"):
            ask(DOMAIN)
    with pytest.raises(Permanent, match=r"keys\.json is missing"):
        keys.add(DOMAIN, "ed25519")
    keys.take(DOMAIN, "s1", file)
    assert states(keys) == {"s1": "pending"}
    assert keys.activate(DOMAIN, "s1")
    assert keys.signers(DOMAIN)


def test_a_maker_that_dies_beside_its_first_key_leaves_no_fault(keys, monkeypatch, tmp_path):
    def dies(*_words):
        raise KeyboardInterrupt

    monkeypatch.setattr(ring, "Entry", dies)
    with pytest.raises(KeyboardInterrupt):
        keys.add(DOMAIN, "ed25519", selector="s1")
    assert (tmp_path / "dkim" / DOMAIN / "s1.pem").exists()
    assert (keys.entries(DOMAIN), keys.signers(DOMAIN)) == ((), ())


def test_a_key_from_elsewhere_replaces_no_other(keys, path, tmp_path):
    new, old = tmp_path / "new.pem", path(keys.add(DOMAIN, "ed25519", selector="s1"))
    new.write_bytes(private.new("ed25519"))
    with pytest.raises(Permanent, match="selector s1 already"):
        keys.take(DOMAIN, "s1", new)
    kept = old.with_name("s2.pem")
    kept.write_bytes(old.read_bytes())
    with pytest.raises(Permanent, match=r"s2\.pem is there, with another key: take it away"):
        keys.take(DOMAIN, "s2", new)
    assert kept.read_bytes() == old.read_bytes()
    assert keys.take(DOMAIN, "s3", new).kind == "ed25519"
    assert stat.S_IMODE(old.with_name("s3.pem").stat().st_mode) == 0o600


def test_a_removed_key_is_gone_with_its_file(keys, path):
    entry = keys.add(DOMAIN, "ed25519")
    keys.remove(DOMAIN, entry.selector)
    assert not path(entry).exists()
    assert keys.entries(DOMAIN) == ()
    with pytest.raises(Permanent, match="has no key"):
        keys.remove(DOMAIN, entry.selector)


def test_a_change_that_cannot_be_written_changes_nothing(keys, monkeypatch, path):
    entry = active(keys)
    new = keys.add(DOMAIN, "ed25519")

    def full(_number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        keys.activate(DOMAIN, new.selector)
    monkeypatch.undo()
    assert states(keys) == {entry.selector: "active", new.selector: "pending"}
    assert not [one for one in path(entry).parent.iterdir() if one.name.startswith(".")]


def test_what_root_makes_belongs_to_the_owner_of_the_data_folder(tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", lambda path, user, group: given.update({path.name: (user, group)}))
    Ring(tmp_path / "dkim").add(DOMAIN, "ed25519", selector="s")
    owner = tmp_path.stat()
    assert {"dkim", DOMAIN} < set(given)
    assert set(given.values()) == {(owner.st_uid, owner.st_gid)}


def test_folders_that_root_made_and_did_not_give_away_are_given_the_next_time(tmp_path, monkeypatch):
    (tmp_path / "dkim" / DOMAIN).mkdir(mode=0o700, parents=True)  # it was killed there
    given = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", lambda path, user, group: given.append(path.name))
    Ring(tmp_path / "dkim").add(DOMAIN, "ed25519", selector="s")
    assert given[:2] == ["dkim", DOMAIN]


@pytest.mark.parametrize("text", ["IN.example", "in.example.", "Bücher.example"])
def test_domains_are_named_as_the_dns_knows_them(text):
    assert ring.domain_name(text) in {"in.example", "xn--bcher-kva.example"}


@pytest.mark.parametrize(
    "text", ["", "example", "a..b", "-a.example", "a b.example", "a/../b", "_x.example", "x" * 64 + ".example"]
)
def test_what_cannot_sign_is_no_domain(text):
    with pytest.raises(Permanent, match="is written like"):
        ring.domain_name(text)


@pytest.mark.parametrize("text", ["", "a..b", "-a", "a_b", "a b", "../a", "a" * 51, "schlüssel"])
def test_a_selector_is_made_of_labels(text):
    with pytest.raises(Permanent, match="letters, digits and hyphens"):
        ring.selector_name(text)
    assert ring.selector_name("S2026.Mail-1") == "s2026.mail-1"


def test_the_states_are_a_document_that_people_can_read(keys, path):
    entry = active(keys, selector="s1")
    known = json.loads((path(entry).parent / ring.STATES).read_text())
    assert known["s1"]["state"] == "active"
    assert known["s1"]["record"].startswith("v=DKIM1; k=ed25519;")


def test_what_a_killed_process_left_in_the_folder_is_taken_away_at_the_next_change(tmp_path):
    ring = Ring(tmp_path / "dkim")
    ring.add("example.org", "ed25519", selector="one")
    folder = tmp_path / "dkim/example.org"
    for name in (".two.pem.0123abcd", ".keys.json.deadbeef", ".hidden"):
        (folder / name).write_text("x")
    ring.add("example.org", "ed25519", selector="two")
    assert sorted(path.name for path in folder.iterdir()) == [".hidden", "keys.json", "one.pem", "two.pem"]

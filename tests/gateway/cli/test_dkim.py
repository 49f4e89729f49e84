"""The keys that `gatepost dkim` makes, what it says to publish, and that nothing changes hands before it is published."""

import io
import json

import pytest

from gateway import cli
from gateway.dkim import private, ring
from gateway.dkim.ring import Ring
from gateway.model import Temporary
from tests.gateway.delivery.fakes import FakeDns

DOMAIN = "in.example"


class Zone:
    """What the DNS has: *published* records by their names, or trouble."""

    def __init__(self):
        self.dns = FakeDns()

    def publish(self, keys, *, domain=DOMAIN):
        for one in keys.entries(domain):
            self.dns.table[f"TXT {one.name}"] = [one.record.encode()]

    def forget(self):
        self.dns.table.clear()

    def fail(self, keys):
        self.dns.table = {f"TXT {one.name}": Temporary("no answer") for one in keys.entries(DOMAIN)}


@pytest.fixture
def zone():
    return Zone()


@pytest.fixture
def keys(home):
    return Ring(home / "var" / "dkim")


@pytest.fixture
def dkim(gatepost, zone):
    """Run a verb of `gatepost dkim`."""
    return lambda *words: gatepost("dkim", *words, dns=lambda: zone.dns)


def states(keys):
    return {one.selector: one.state.value for one in keys.entries(DOMAIN)}


def test_a_new_key_comes_with_its_record_and_what_to_type_next(dkim, keys):
    code, out, _ = dkim("generate", DOMAIN, "--selector", "s1")
    (entry,) = keys.entries(DOMAIN)
    assert code == 0
    assert f"Publish a TXT record at s1._domainkey.in.example, with this text on one line:\n{entry.record}\n" in out
    assert "gatepost dkim show in.example" in out
    assert states(keys) == {"s1": "pending"}


def test_the_line_for_a_zone_file_holds_the_record_in_strings_that_the_dns_can_have(dkim, keys):
    _, out, _ = dkim("generate", DOMAIN, "--bits", "4096", "--json")
    (made,) = json.loads(out)
    assert "".join(made["strings"]) == made["value"] == keys.entries(DOMAIN)[0].record
    assert all(0 < len(one) <= 255 for one in made["strings"])
    assert made["zone"] == f"{made['name']}. IN TXT ( {' '.join(json.dumps(one) for one in made['strings'])} )"


def test_a_key_that_cannot_be_used_is_told_though_its_record_is_there(dkim, keys, zone, home):
    dkim("generate", DOMAIN, "--selector", "s1")
    zone.publish(keys)
    assert dkim("show")[0] == cli.DONE
    assert json.loads(dkim("show", "--json")[1])[0]["fault"] == ""
    path = home / "var/dkim/in.example/s1.pem"
    path.chmod(0o644)
    code, out, _ = dkim("show")
    assert code == cli.REFUSED
    assert "Mail waits, or goes unsigned (signing.toml): the key var/dkim/in.example/s1.pem is not used" in out
    code, out, _ = dkim("show", "--json")
    assert (code, json.loads(out)[0]["state"]) == (cli.REFUSED, "active")
    assert "chmod 600" in json.loads(out)[0]["fault"]


def test_nobody_is_told_to_publish_what_was_published_because_the_dns_is_silent(dkim, keys, zone):
    dkim("generate", DOMAIN, "--selector", "s1")
    zone.fail(keys)
    assert "Publish a TXT record at s1._domainkey.in.example" in dkim("show")[1]
    keys.activate(DOMAIN, "s1")
    code, out, _ = dkim("show")
    assert (code, "Publish" in out) == (cli.UNREACHABLE, False)
    zone.forget()
    assert "Publish a TXT record at s1._domainkey.in.example" in dkim("show")[1]


def test_the_record_of_a_removed_key_stays_as_long_as_mail_with_its_signatures_is_under_way(dkim, keys):
    for selector in ("s1", "s2"):
        keys.add(DOMAIN, "ed25519", selector=selector)
    keys.activate(DOMAIN, "s1")
    assert dkim("remove", DOMAIN, "s2", "--yes")[1].endswith("take s2._domainkey.in.example out of the DNS\n")
    assert "take s1._domainkey.in.example out of the DNS after 20" in dkim("remove", DOMAIN, "s1", "--yes")[1]


def test_both_kinds_are_made_together_and_a_second_of_a_kind_is_refused(dkim, keys):
    assert dkim("generate", DOMAIN, "--algorithm", "both", "--selector", "s")[0] == 0
    assert [(one.selector, one.kind) for one in keys.entries(DOMAIN)] == [("s", "rsa"), ("s-ed25519", "ed25519")]
    code, _, err = dkim("generate", DOMAIN, "--algorithm", "ed25519")
    assert (code, len(keys.entries(DOMAIN))) == (cli.REFUSED, 2)
    assert "pending key s-ed25519 already: gatepost dkim show in.example" in err
    keys.activate(DOMAIN, "s")
    assert "active key s already: gatepost dkim rotate in.example" in dkim("generate", DOMAIN)[2]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("generate", "example"), cli.USAGE),
        (("generate", "../../etc"), cli.USAGE),
        (("generate", DOMAIN, "--selector", "../s"), cli.USAGE),
        (("show", "-x"), cli.USAGE),
        (("rotate", "example"), cli.USAGE),
        (("remove", DOMAIN, "a_b", "--yes"), cli.USAGE),
        (("import", "example", "s", "README"), cli.USAGE),
        (("import", DOMAIN, "a_b", "README"), cli.USAGE),
        (("import", DOMAIN, "s", "nowhere.pem"), cli.REFUSED),
        (("generate", DOMAIN, "--bits", "1024"), cli.USAGE),
        (("generate", DOMAIN, "--algorithm", "dsa"), cli.USAGE),
        (("show", DOMAIN), cli.REFUSED),
        (("rotate", DOMAIN), cli.REFUSED),
        (("remove", DOMAIN, "s", "--yes"), cli.REFUSED),
    ],
)
def test_what_makes_no_sense_is_refused_and_leaves_no_key(dkim, keys, words, code):
    found, _, err = dkim(*words)
    assert found == code
    assert err
    assert keys.is_empty()


def test_a_key_of_another_program_signs_when_the_dns_is_seen_to_have_its_record(dkim, keys, zone, home):
    old = home / "old.key"
    old.write_bytes(private.new("rsa"))
    code, out, _ = dkim("import", DOMAIN, "S1", str(old))
    (entry,) = keys.entries(DOMAIN)
    assert (code, states(keys), entry.record in out) == (0, {"s1": "pending"}, True)
    assert out.startswith("s1 of in.example was imported.\n")
    dkim("remove", DOMAIN, "s1", "--yes")
    zone.dns.table[f"TXT {entry.name}"] = [entry.record.replace(" h=sha256;", "").encode()]
    code, out, _ = dkim("import", DOMAIN, "s1", str(old), "--json")
    assert (code, states(keys), json.loads(out)[0]["begins"]) == (0, {"s1": "active"}, True)
    code, _, err = dkim("import", DOMAIN, "s1", str(old))
    assert (code, "has a key with the selector s1 already" in err) == (cli.REFUSED, True)


def test_what_is_no_key_is_not_imported(dkim, keys, home):
    (home / "old.key").write_text("no key!")
    code, _, err = dkim("import", DOMAIN, "s1", str(home / "old.key"))
    assert code == cli.REFUSED
    assert "old.key holds no private key in PEM" in err
    assert keys.is_empty()


@pytest.mark.parametrize("broken", [None, "{"])
def test_keys_of_which_nothing_is_known_any_more_are_told_beside_the_others(dkim, keys, zone, home, broken):
    for domain in (DOMAIN, "other.example"):
        keys.activate(domain, keys.add(domain, "ed25519", selector="s1").selector)
        zone.publish(keys, domain=domain)
    states_file = home / "var/dkim/in.example/keys.json"
    states_file.unlink() if broken is None else states_file.write_text(broken)
    code, out, _ = dkim("show")
    assert code == cli.REFUSED
    assert "active" in out
    assert "Mail waits, or goes unsigned (signing.toml): var/dkim/in.example/keys.json" in out
    assert "gatepost dkim import in.example SELECTOR FILE.pem" in out
    lost, other = json.loads(dkim("show", "--json")[1])
    assert (lost["domain"], bool(lost["fault"]), other["domain"]) == (DOMAIN, True, "other.example")
    assert dkim("show", DOMAIN)[0] == cli.REFUSED
    states_file.unlink(missing_ok=True)
    assert dkim("import", DOMAIN, "s1", str(home / "var/dkim/in.example/s1.pem"))[0] == 0
    assert states(keys) == {"s1": "active"}
    assert dkim("show")[0] == 0


def test_show_says_whether_the_dns_has_the_record_and_the_key_signs_when_it_has(dkim, keys, zone):
    dkim("generate", DOMAIN, "--selector", "s1")
    code, out, _ = dkim("show")
    assert code == cli.REFUSED
    assert "missing" in out
    assert keys.entries(DOMAIN)[0].record in out
    zone.publish(keys)
    code, out, _ = dkim("show", DOMAIN)
    assert code == 0
    assert "signs from now on" in out
    assert keys.entries(DOMAIN)[0].record not in out
    assert states(keys) == {"s1": "active"}


def test_show_tells_another_record_and_a_dns_that_cannot_be_asked_apart(dkim, keys, zone):
    dkim("generate", DOMAIN, "--algorithm", "ed25519")
    zone.dns.table[f"TXT {keys.entries(DOMAIN)[0].name}"] = [b"v=DKIM1; p="]
    code, out, _ = dkim("show", "--json")
    assert (code, json.loads(out)[0]["dns"]) == (cli.REFUSED, "different")
    zone.fail(keys)
    code, out, _ = dkim("show", "--json")
    assert (code, json.loads(out)[0]["dns"]) == (cli.UNREACHABLE, "could not ask")
    assert list(states(keys).values()) == ["pending"]


def test_without_keys_show_says_how_to_make_one(dkim):
    code, out, _ = dkim("show")
    assert code == 0
    assert "gatepost dkim generate" in out
    assert json.loads(dkim("show", "--json")[1]) == []


@pytest.fixture
def signing(dkim, keys, zone):
    """A domain whose key "old" signs."""
    dkim("generate", DOMAIN, "--algorithm", "ed25519", "--selector", "old")
    zone.publish(keys)
    dkim("show")
    return keys


def test_a_rotation_lets_the_old_key_sign_until_the_new_record_is_there(dkim, signing, zone):
    code, out, _ = dkim("rotate", DOMAIN)
    new = signing.entries(DOMAIN)[1]
    assert code == 0
    assert new.record in out
    assert "gatepost dkim rotate in.example --finish" in out
    assert states(signing) == {"old": "active", new.selector: "pending"}
    assert dkim("rotate", DOMAIN, "--finish")[0] == cli.REFUSED
    assert dkim("rotate", DOMAIN)[0] == cli.REFUSED  # no third key
    assert states(signing) == {"old": "active", new.selector: "pending"}
    zone.publish(signing)
    code, out, _ = dkim("rotate", DOMAIN, "--finish")
    assert code == 0
    assert "signs from now on" in out
    assert "leave its record until" in out
    assert states(signing) == {"old": "retiring", new.selector: "active"}


def test_a_rotation_waits_while_the_dns_cannot_be_asked(dkim, signing, zone):
    dkim("rotate", DOMAIN)
    zone.fail(signing)
    assert dkim("rotate", DOMAIN, "--finish")[0] == cli.UNREACHABLE
    assert states(signing)["old"] == "active"


def test_a_rotation_by_force_waits_for_nobody(dkim, signing):
    code, _, _ = dkim("rotate", DOMAIN, "--force")
    assert code == 0
    assert sorted(states(signing).values()) == ["active", "retiring"]
    assert states(signing)["old"] == "retiring"


def test_a_record_that_went_too_early_is_told_and_one_that_may_go_too(dkim, signing, zone, monkeypatch):
    dkim("rotate", DOMAIN, "--force")
    zone.publish(signing)
    assert dkim("show")[0] == 0
    zone.dns.table[f"TXT {signing.entries(DOMAIN)[0].name}"] = []
    assert dkim("show")[0] == cli.REFUSED
    monkeypatch.setattr(ring, "STAYS", -1.0)
    dkim("rotate", DOMAIN, "--force")
    zone.publish(signing)
    zone.dns.table[f"TXT {signing.entries(DOMAIN)[1].name}"] = []
    code, out, _ = dkim("show", "--json")
    assert [one["dns"] for one in json.loads(out)] == ["published", "missing", "published"]
    assert code == 0
    assert f"gatepost dkim remove in.example {signing.entries(DOMAIN)[1].selector}" in dkim("show")[1]


def test_a_key_is_removed_only_after_a_question(dkim, signing, home, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert dkim("remove", DOMAIN, "old")[0] == cli.REFUSED
    assert states(signing) == {"old": "active"}
    code, out, _ = dkim("remove", DOMAIN, "old", "--yes")
    assert code == 0
    assert "take old._domainkey.in.example out of the DNS" in out
    assert not list((home / "var/dkim").glob("*/*.pem"))


def test_no_private_key_is_ever_shown(dkim, home, zone, keys):
    said = [
        dkim("generate", DOMAIN, "--algorithm", "both"),
        dkim("show"),
        dkim("show", "--json"),
        dkim("rotate", DOMAIN),
    ]
    secrets = [path.read_text() for path in (home / "var/dkim").glob("*/*.pem")]
    assert len(secrets) == 2
    lines = {line for secret in secrets for line in secret.splitlines() if not line.startswith("---")}
    assert not any(line in text for line in lines for _, *texts in said for text in texts)

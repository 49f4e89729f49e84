"""What is signed on the way out: our own mail, by the author's domain; what we hand on is sealed, and never signed."""

import asyncio
from ipaddress import ip_address

import dkim
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.delivery import sign
from gateway.delivery.sign import Hand
from gateway.dkim import canonical, tags
from gateway.dkim.ring import Ring
from gateway.model import Delivery, ListenerKind, Recipient, Session, State, Temporary
from gateway.stages import Signing
from tests.gateway.delivery.fakes import BOB, LATER, FakeDns, unreachable

NOW = 1_700_000_000.0
OURS = Session(ip_address("192.0.2.7"), kind=ListenerKind.SUBMISSION, user="ann")
MAIL = b"From: Ann <ann@us.example>\r\nTo: bob@there.example\r\nSubject: x\r\n\r\nbody\r\n"
RESULTS = b"Authentication-Results: gw.us.example;\r\n\tspf=pass smtp.mailfrom=out.example"
FORWARDED = RESULTS + b"\r\nX-Gatepost-Id: 1\r\n" + MAIL


@pytest.fixture
def keys(tmp_path):
    return Ring(tmp_path / "dkim")


def add(keys, domain="us.example", kind="rsa", **words):
    return keys.activate(domain, keys.add(domain, kind, **words).selector)


def hand(keys, **settings):
    return Hand(keys, "gw.us.example", lambda: Signing(**settings), now=lambda: NOW)


def signed(keys, mail=MAIL, *, outbound=True, size=100_000, sender="ann@us.example", **settings):
    """The fields that come to stand above *mail*."""

    async def octets():
        for start in range(0, len(mail), size):
            yield mail[start : start + size]

    one = Delivery(1, "m", sender, Recipient(BOB), State.QUEUED, "there.example", outbound=outbound)
    return asyncio.run(hand(keys, **settings).sign(one, octets))


def dns(keys):
    entries = {f"{one.name}.".encode(): one.record.encode() for name in keys.domains() for one in keys.entries(name)}
    return lambda name, **_: entries.get(name)


def holds(keys, message):
    return bool(dkim.verify(message, dnsfunc=dns(keys)))


def by(top):
    """Who signed, by which key."""
    found = [tags.parse(field.partition(b":")[2].removesuffix(b"\r\n")) for field in canonical.fields(top)]
    return [(one["d"], one["a"]) for one in found]


@pytest.fixture
def told(monkeypatch):
    lines = []
    monkeypatch.setattr(sign.events, "say", lambda event, **fields: lines.append((event, fields.get("why", ""))))
    return lines


# ---- Whose mail is signed, and by whom ----------------------------------------------------------------------------


def test_our_own_mail_is_signed_by_the_domain_of_its_author(keys):
    add(keys)
    top = signed(keys)
    assert by(top) == [("us.example", "rsa-sha256")]
    assert holds(keys, top + MAIL)


def test_mail_from_the_world_is_not_signed_whatever_its_author_claims(keys):
    add(keys)
    assert b"DKIM-Signature" not in signed(keys, outbound=False)
    assert b"DKIM-Signature" not in signed(keys, FORWARDED, outbound=False)


def test_without_a_key_for_its_author_nothing_is_signed(keys, told):
    assert signed(keys) == b""
    add(keys, "other.example", "ed25519")
    assert signed(keys) == b""
    assert told == []


def test_where_there_are_no_keys_the_mail_is_not_even_read(keys):
    def unread():
        raise AssertionError("it was read")

    one = Delivery(1, "m", "", Recipient(BOB), State.QUEUED, "there.example", outbound=True)
    assert asyncio.run(hand(keys).sign(one, unread)) == b""
    add(keys, kind="ed25519")
    assert asyncio.run(hand(keys, dkim=False).sign(one, unread)) == b""


def test_both_keys_of_a_domain_sign(keys):
    add(keys, kind="rsa")
    add(keys, kind="ed25519")
    top = signed(keys)
    assert by(top) == [("us.example", "rsa-sha256"), ("us.example", "ed25519-sha256")]
    rsa, ed25519 = canonical.fields(top)
    assert holds(keys, rsa + ed25519 + MAIL)


def test_mail_of_a_domain_below_is_signed_by_the_one_above_unless_that_is_not_wished(keys):
    add(keys, kind="ed25519")
    mail = MAIL.replace(b"us.example", b"a.b.us.example")
    assert by(signed(keys, mail)) == [("us.example", "ed25519-sha256")]
    assert signed(keys, mail, subdomains=False) == b""


def test_international_domains_are_signed_as_the_dns_knows_them(keys):
    add(keys, "xn--bcher-kva.example", "ed25519")
    for domain in ("bücher.example", "xn--bcher-kva.EXAMPLE"):
        assert by(signed(keys, MAIL.replace(b"us.example", domain.encode())))[0][0] == "xn--bcher-kva.example"


@pytest.mark.parametrize(
    "head",
    [
        b"From: a@us.example, b@us.example\r\n",
        b"From: a@us.example\r\nFrom: b@us.example\r\n",
        b"From : a@us.example\r\n",
        b"To: a@us.example\r\n",
        b"",
    ],
)
def test_mail_without_one_author_is_not_signed_and_that_is_told(keys, told, head):
    add(keys, kind="ed25519")
    assert signed(keys, head + b"\r\nbody\r\n") == b""
    assert told == [("not signed", "it has no author whom all readers see alike")]


def test_a_header_with_a_line_that_is_no_field_is_not_signed(keys, told):
    add(keys, kind="ed25519")
    for line in (b"no field\r\n", b" continues nothing\r\n"):
        head = line + MAIL if line[:1] == b" " else MAIL.replace(b"Subject", line + b"Subject")
        assert signed(keys, head) == b""
    assert {why for _, why in told} == {"a line of its header is no field"}


def test_a_header_that_does_not_end_is_not_read_for_ever(keys, told):
    add(keys, kind="ed25519")
    assert signed(keys, b"X: y\r\n" * 300_000) == b""
    assert told[0][1] == "its header is too large"


# ---- The octets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mail",
    [
        MAIL.partition(b"\r\n\r\n")[0] + b"\r\n\r\n",
        MAIL.partition(b"\r\n\r\n")[0] + b"\r\n",
        MAIL.removesuffix(b"\r\n"),
        MAIL + b"\r\n\r\n",
        MAIL + b"a  b\t \r\n" * 3000,
        MAIL.replace(b"Subject: x", "Subject: grüße".encode()) + b"\xff\xfe 8bit\r\n",
        MAIL + b".\r\n..\r\n",
    ],
)
@pytest.mark.parametrize("size", [1000, 7])
def test_what_is_sent_is_what_was_signed_in_pieces_of_any_size(keys, mail, size):
    add(keys)
    complete = mail if b"\r\n\r\n" in mail else mail + b"\r\n"
    assert holds(keys, signed(keys, mail, size=size) + complete)


def test_signatures_end_where_the_policy_says_so(keys):
    add(keys, kind="ed25519")
    (field,) = canonical.fields(signed(keys, expires="10d"))
    found = tags.parse(field.partition(b":")[2].removesuffix(b"\r\n"))
    assert (int(found["t"]), int(found["x"])) == (NOW, NOW + 864_000)


# ---- Keys that fail -----------------------------------------------------------------------------------------------


def test_mail_whose_key_cannot_be_used_waits_or_goes_unsigned_as_the_policy_says(keys, told, tmp_path):
    entry = add(keys, kind="ed25519")
    (tmp_path / f"dkim/us.example/{entry.selector}.pem").chmod(0o644)
    with pytest.raises(Temporary, match="cannot be used"):
        signed(keys)
    assert signed(keys, missing_key="send") == b""
    assert signed(keys, sender="") == b""  # a bounce
    assert len(told) == 3
    assert "others may read it" in told[0][1]


@pytest.mark.parametrize("broken", [None, "{"])
def test_mail_of_a_domain_of_whose_keys_nothing_is_known_waits_too(keys, told, tmp_path, broken):
    add(keys, kind="ed25519")
    states = tmp_path / "dkim/us.example/keys.json"
    states.unlink() if broken is None else states.write_text(broken)
    with pytest.raises(Temporary, match="cannot be used"):
        signed(keys)
    assert signed(keys, missing_key="send") == b""
    assert "keys.json" in told[0][1]


def test_a_pending_key_signs_as_soon_as_its_record_is_seen(keys, monkeypatch):
    lines = []
    monkeypatch.setattr(sign.events, "say", lambda event, **fields: lines.append((event, fields)))
    entry = keys.add("us.example", "ed25519", selector="new")
    asyncio.run(hand(keys).look(FakeDns()))
    assert signed(keys) == b""
    asyncio.run(hand(keys).look(FakeDns({f"TXT {entry.name}": [entry.record.encode()]})))
    assert by(signed(keys)) == [("us.example", "ed25519-sha256")]
    assert lines == [("key signs", {"domain": "us.example", "selector": "new"})]


def test_a_domain_whose_keys_cannot_be_read_keeps_no_other_from_signing(keys, told, tmp_path):
    add(keys, "a.example", "ed25519")
    (tmp_path / "dkim/a.example/keys.json").write_text("nonsense")
    entry = keys.add("us.example", "ed25519")
    asyncio.run(hand(keys).look(FakeDns({f"TXT {entry.name}": [entry.record.encode()]})))
    assert [what for what, _ in told] == ["key not looked for", "key signs"]
    assert by(signed(keys)) == [("us.example", "ed25519-sha256")]


def test_looking_goes_on_after_trouble(keys, monkeypatch):
    entry = keys.add("us.example", "ed25519")
    failures = []
    monkeypatch.setattr(sign.events, "failure", lambda what, error: failures.append(error))

    class Broken(FakeDns):
        async def txt(self, name):
            if not failures:
                raise ValueError("once")
            return await super().txt(name)

    async def until_active():
        own = Hand(keys, "gw.us.example", lambda: Signing.model_construct(look_every=0.001))
        task = asyncio.create_task(own.keep_looking(Broken({f"TXT {entry.name}": [entry.record.encode()]})))
        async with asyncio.timeout(10):
            while not keys.signers("us.example"):
                await asyncio.sleep(0.005)
        task.cancel()

    asyncio.run(until_active())
    assert [str(one) for one in failures] == ["once"]


# ---- Sealing ------------------------------------------------------------------------------------------------------


def chain(keys, message):
    return dkim.arc_verify(message, dnsfunc=dns(keys))[0]


def test_what_we_hand_on_is_sealed_with_the_results_that_we_found(keys):
    add(keys)
    top = signed(keys, FORWARDED, outbound=False)
    assert chain(keys, top + FORWARDED) == dkim.CV_Pass
    assert b"ARC-Authentication-Results: i=1; gw.us.example;\r\n\tspf=pass smtp.mailfrom=out.example\r\n" in top


def test_the_chain_goes_on_where_it_was_found_to_hold(keys):
    add(keys)
    first = signed(keys, FORWARDED, outbound=False) + MAIL
    found = RESULTS + b";\r\n\tarc=pass\r\nX-Gatepost-Id: 2\r\n" + first
    assert chain(keys, signed(keys, found, outbound=False) + found) == dkim.CV_Pass
    broken = RESULTS + b";\r\n\tarc=fail\r\nX-Gatepost-Id: 2\r\n" + first
    top = signed(keys, broken, outbound=False)
    assert b"cv=fail" in top
    assert chain(keys, top + broken) is None  # it ends here
    final = RESULTS + b";\r\n\tarc=fail\r\nX-Gatepost-Id: 3\r\n" + top + first
    assert signed(keys, final, outbound=False) == b""


@pytest.mark.parametrize(
    ("mail", "why"),
    [
        (MAIL, "it has no results of ours"),
        (RESULTS + b"\r\n" + MAIL, "it has no results of ours"),
        (b"X-Gatepost-Id: 1\r\n" + RESULTS + b"\r\n" + MAIL, "it has no results of ours"),
        (FORWARDED.replace(b"From:", b"ARC-Seal: i=1; cv=none\r\nFrom:"), "nobody has checked its ARC chain"),
        (
            FORWARDED.replace(b"out.example\r\n", b'"x; arc=pass"\r\nARC-Seal: i=1\r\n'),
            "nobody has checked its ARC chain",
        ),
    ],
)
def test_what_nobody_checked_is_not_sealed(keys, told, mail, why):
    add(keys, kind="ed25519")
    assert signed(keys, mail, outbound=False) == b""
    assert told == [("not signed", why)]


def test_who_seals_is_the_domain_of_the_host_or_the_one_that_the_policy_names(keys):
    add(keys, kind="ed25519")
    add(keys, "seal.example", "ed25519")
    assert {domain for domain, _ in by_seal(signed(keys, FORWARDED, outbound=False))} == {"us.example"}
    named = signed(keys, FORWARDED, outbound=False, arc_domain="seal.example")
    assert {domain for domain, _ in by_seal(named)} == {"seal.example"}
    assert signed(keys, FORWARDED, outbound=False, arc_domain="nobody.example") == b""
    assert signed(keys, FORWARDED, outbound=False, arc=False) == b""


def test_of_two_keys_the_rsa_one_seals(keys):
    add(keys, kind="ed25519")
    add(keys, kind="rsa")
    assert {kind for _, kind in by_seal(signed(keys, FORWARDED, outbound=False))} == {"rsa-sha256"}


def test_mail_does_not_wait_for_a_key_that_only_seals(keys, told, tmp_path):
    entry = add(keys, kind="ed25519")
    (tmp_path / f"dkim/us.example/{entry.selector}.pem").unlink()
    assert signed(keys, FORWARDED, outbound=False) == b""
    assert "cannot be read" in told[0][1]


def by_seal(top):
    return by(b"".join(canonical.fields(top)[:2]))


PIECES = [
    *(
        b"From: a@us.example\r\n",
        b"From",
        b"Subject: x\r\n",
        b"ARC-Seal: i=1; cv=none; b=\r\n",
        b"ARC-Seal: i=",
        b"; cv=fail; b=",
    ),
    *(
        b"ARC-Message-Signature: i=1; b=x\r\n",
        b"ARC-Authentication-Results: i=1; us\r\n",
        RESULTS + b";\r\n\tarc=pass\r\n",
    ),
    *(
        b"X-Gatepost-Id: 1\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b" ",
        b"\t",
        b":",
        b";",
        b"=",
        b"\0",
        b"\xff",
        b"\r",
        b"\n",
        "ü".encode(),
    ),
]


@settings(max_examples=150, deadline=None)
@given(pieces=st.lists(st.sampled_from(PIECES) | st.binary(max_size=8), max_size=25), outbound=st.booleans())
def test_whatever_a_header_holds_what_is_put_on_top_is_made_of_fields_of_ours(shared_keys, pieces, outbound):
    start = b"" if outbound else FORWARDED.partition(b"From:")[0]
    top = signed(shared_keys, start + b"".join(pieces), outbound=outbound)
    names = [field.partition(b":")[0].lower().decode() for field in canonical.fields(top)]
    assert names in ([], ["dkim-signature"], ["arc-seal", "arc-message-signature", "arc-authentication-results"])
    assert b"\0" not in top
    assert top.count(b"\r") == top.count(b"\n") == top.count(b"\r\n")


@pytest.fixture(scope="module")
def shared_keys(tmp_path_factory):
    made = Ring(tmp_path_factory.mktemp("keys") / "dkim")
    add(made, kind="ed25519")
    return made


# ---- In the queue -------------------------------------------------------------------------------------------------


def test_a_mail_goes_out_under_its_signature_and_the_next_host_gets_the_same(house, keys):
    add(keys)
    house.now, house.sign = NOW, hand(keys).sign
    house.dns.table |= {"MX there.example": [(1, "a.x"), (2, "b.x")], "A a.x": ["8.8.8.8"], "A b.x": ["8.8.8.9"]}
    house.hosts.answers["8.8.8.8"] = [LATER]
    house.hosts.elsewhere = True
    body = MAIL + b"line\r\n" * 100_000
    house.put(BOB, body=body, session=OURS)
    house.work_off()
    (_, first, one), (_, second, other) = house.hosts.got
    assert one == other
    assert one.endswith(b"Received: by us\r\n" + body)
    assert first.size == second.size == len(one)
    assert holds(keys, one)


def test_a_mail_is_signed_anew_when_it_is_tried_again(house, keys):
    add(keys)
    house.now, house.sign = NOW, hand(keys).sign
    house.hosts.answers["8.8.8.1"] = [unreachable()]
    mail = house.put(BOB, body=MAIL, session=OURS)
    house.work_off()
    assert house.states(mail) == ["queued"]
    house.now += 3600
    house.work_off()
    assert house.states(mail) == ["sent"]
    assert holds(keys, house.hosts.got[-1][2])


def test_a_mail_whose_key_cannot_be_used_stays_in_the_queue(house, keys, tmp_path):
    entry = add(keys, kind="ed25519")
    (tmp_path / f"dkim/us.example/{entry.selector}.pem").chmod(0o644)
    house.sign = hand(keys).sign
    mail = house.put(BOB, "carol@there.example", body=MAIL, session=OURS)
    other = house.put("dave@else.example", body=MAIL)  # from the world
    house.work_off()
    assert (house.states(mail), house.states(other)) == (["queued", "queued"], ["sent"])
    assert "the key that signs this mail cannot be used" in house.look(mail)[0].last_reply

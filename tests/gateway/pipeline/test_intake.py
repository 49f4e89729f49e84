"""The whole judgement on the real store and the real sandbox: what is taken, what is refused, what is left behind."""

import asyncio
import io
import json
import os
from dataclasses import replace
from functools import cache
from ipaddress import ip_address

import pytest

from gateway import accounts
from gateway.accounts import Authenticator
from gateway.model import Action, Envelope, ListenerKind, Mail, Recipient, Session, Stage, State, Temporary
from gateway.pipeline import policy
from gateway.pipeline.intake import Intake, Kind
from gateway.stages import files
from gateway.state import LocalState
from gateway.store import mailbox, messages, queue, tracking
from gateway.store.engine import StorageFull, Store
from tests.peers.forwarder import RECORD, Forwarder

WORLD = Session(ip_address("192.0.2.1"), helo="peer.example")
USER = Session(ip_address("127.0.0.1"), "submission", ListenerKind.SUBMISSION, "pc", "TLSv1.3", "alice")
GOOD = (
    b"From: a@s.example\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\nSubject: hi\r\nMessage-ID: <1@s>\r\n\r\nhello\r\n"
)
GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"


class Silent:
    """A DNS without records."""

    async def nothing(self, name):
        return ()

    a = aaaa = mx = txt = ptr = nothing


QUIET = {
    "antivirus": '[settings]\nsockets = ["unix:/nonexistent"]\n[actions]\nclean = 0\ninfected = "reject"\nencrypted = "quarantine"\n'
    'unscanned = "quarantine"\nerror = "accept"\n',
    "dnsbl": files(None)["dnsbl"].read_text().replace("enabled = true", "enabled = false"),
    "greylist": '[actions]\ngreylisted = "accept"\nerror = "accept"\n',
    "routes": 'local = ["ours.example"]\npostmaster = "alice@ours.example"\n'
    '[[routes]]\ndomains = ["inside.example"]\naccept_from_world = true\n[routes.via]\nhost = "10.0.0.1"\n',
}


@cache
def secret():
    return accounts.hash_password("secret")  # made once: it is meant to cost much


class Site:
    """A gateway without sockets: store, sandbox and policies of a test's own."""

    def __init__(self, folder, dns=None, **policies):
        for name, text in (QUIET | policies).items():
            (folder / f"{name}.toml").write_text(text)
        self.store = Store(f"sqlite:///{folder}/test.db")
        self.store.migrate()
        with self.store.begin() as conn:
            for name in ("alice", "bob"):
                accounts.add(conn, name, secret(), [f"{name}@ours.example"])
        state = LocalState(folder / "state")
        self.intake = Intake(
            self.store, Authenticator(self.store), dns or Silent(), state, hostname="gw.example", configured=folder
        )

    def run(self, work, processes=1):
        async def guarded():
            await self.intake.start(processes)
            try:
                return await work(self.intake)
            finally:
                await self.intake.close()
                await self.store.aclose()

        return asyncio.run(guarded())

    def send(self, data=GOOD, *recipients, session=WORLD, sender="a@s.example", **envelope):
        """The outcome at each step of one mail: a list that ends with what the data got, if there was any."""

        async def work(intake):
            return await dialog(intake, data, recipients or ("alice@ours.example",), session, sender, **envelope)

        return self.run(work, processes=int(data is not None))

    def all(self):
        with self.store.reading() as conn:
            return tracking.find(conn, limit=50)


async def dialog(intake, data, recipients, session, sender, **words):
    visit = intake.visit()
    envelope = Envelope(sender, **words)
    outcomes = [await visit.connect(session), await visit.sender(session, envelope)]
    taken = []
    for address in recipients:
        one = address if isinstance(address, Recipient) else Recipient(address)
        outcomes.append(await visit.recipient(session, envelope, one))
        if outcomes[-1].kind is Kind.OK:
            taken.append(one)
    if taken and data is not None:
        with io.FileIO(os_memfd(data), "rb+") as spool:
            outcomes.append(await visit.message(session, replace(envelope, recipients=tuple(taken)), spool, len(data)))
    return outcomes


def os_memfd(data):
    fd = os.memfd_create("test")
    os.write(fd, data)
    return fd


@pytest.fixture
def site(tmp_path):
    return lambda **policies: Site(tmp_path, **policies)


def stored(store, mail_id):
    with store.reading() as conn:
        return b"".join(messages.read_chunks(conn, mail_id))


def test_a_good_mail_is_in_the_mailbox_with_our_fields_on_top_and_its_body_untouched(site):
    here = site()
    *_, outcome = here.send(GOOD)
    assert outcome.kind is Kind.OK
    with here.store.reading() as conn:
        (message,) = mailbox.listing(conn, "alice")
        life = tracking.life(conn, outcome.id)
    data = stored(here.store, outcome.id)
    assert data.startswith(b"Received: from peer.example ([192.0.2.1])\r\n\tby gw.example")
    assert b"X-Gatepost-Id: " + outcome.id.encode() in data
    assert data.endswith(GOOD)
    assert message.size > len(data)
    assert life is not None


@pytest.mark.parametrize(
    ("recipient", "session", "kind"),
    [
        ("alice@ours.example", WORLD, Kind.OK),
        ("Alice+tag@ours.example", WORLD, Kind.OK),
        ("postmaster", WORLD, Kind.OK),
        ("Postmaster@ours.example", WORLD, Kind.OK),
        ("x@inside.example", WORLD, Kind.OK),
        ("nobody@ours.example", WORLD, Kind.NO_SUCH_USER),
        ("x@elsewhere.example", WORLD, Kind.NOT_OURS),
        ("x@[127.0.0.1]", WORLD, Kind.NOT_OURS),
        ("x@ours.example.elsewhere.example", WORLD, Kind.NOT_OURS),
        ("x%elsewhere.example@ours.example", WORLD, Kind.NO_SUCH_USER),
        ("x@elsewhere.example", USER, Kind.OK),
        ("nobody@ours.example", USER, Kind.NO_SUCH_USER),
    ],
)
def test_recipients_are_ours_or_may_be_relayed_to_or_refused(site, recipient, session, kind):
    sender = "alice@ours.example" if session.user else "a@s.example"
    assert site().send(None, recipient, session=session, sender=sender)[2].kind is kind


@pytest.mark.parametrize(
    ("sender", "kind"),
    [("alice@ours.example", Kind.OK), ("bob@ours.example", Kind.NOT_YOURS), ("x@s.example", Kind.NOT_YOURS), ("", Kind.NOT_YOURS)],
)  # fmt: skip
def test_a_user_sends_as_the_addresses_of_the_account(site, sender, kind):
    assert site().send(None, session=USER, sender=sender)[1].kind is kind


def test_what_a_user_sends_to_others_does_not_tell_them_how_we_judge(site):
    here = site()
    raw = GOOD.replace(b"a@s.example", b"Alice <alice@ours.example>")
    *_, outcome = here.send(raw, "x@elsewhere.example", "bob@ours.example", session=USER, sender="alice@ours.example")
    with here.store.reading() as conn:
        theirs, ours = queue.of_message(conn, outcome.id)
    assert theirs.header == b""
    assert b"X-Gatepost-Verdict" in ours.header


def test_a_mail_that_all_refuse_is_rejected_and_leaves_a_record_without_bytes(site):
    here = site()
    *_, outcome = here.send(GOOD + GTUBE)
    assert (outcome.kind, outcome.reference) == (Kind.REJECTED, "spam/gtube")
    (record,) = here.all()
    assert record.message_id == outcome.id
    assert stored(here.store, outcome.id) == b""


def test_what_is_refused_at_rcpt_can_be_found_by_the_id_in_the_reply(site):
    here = site(spf=shipped("spf").replace("none = 0.5", 'none = "reject"'))
    *_, outcome = here.send(GOOD)
    assert (outcome.kind, outcome.reference) == (Kind.REJECTED, "spf/none")
    (record,) = here.all()
    assert (record.message_id, record.state, record.action) == (outcome.id, State.REFUSED, Action.REJECT)


def test_one_recipient_who_defers_defers_the_mail_for_all(site):
    text = '[[exceptions]]\nrecipients = ["bob@*"]\nactions.gtube = "defer"\n[[exceptions]]\nactions.gtube = "accept"\n'
    here = site(spam=shipped("spam") + text)
    *_, outcome = here.send(GOOD + GTUBE, "alice@ours.example", "bob@ours.example")
    assert outcome.kind is Kind.DEFERRED
    with here.store.reading() as conn:
        assert mailbox.listing(conn, "alice") == []


def test_where_one_accepts_those_who_would_refuse_get_it_held(site):
    here = site(spam=shipped("spam") + '[[exceptions]]\nrecipients = ["bob@*"]\nactions.gtube = "accept"\n')
    *_, outcome = here.send(GOOD + GTUBE, "alice@ours.example", "bob@ours.example")
    assert outcome.kind is Kind.OK
    with here.store.reading() as conn:
        assert len(mailbox.listing(conn, "bob")) == 1
        assert mailbox.listing(conn, "alice") == []
        assert queue.counts(conn)[State.HELD] == 1


class Owner(Silent):
    """A DNS in which the owner of s.example says what is to become of mail that does not come from them."""

    def __init__(self, wish):
        self.wish = wish

    async def txt(self, name):
        if name == "_dmarc.s.example" and not self.wish:
            raise Temporary("nobody could tell")
        return [b"v=DMARC1; p=" + self.wish.encode()] if name == "_dmarc.s.example" else []


@pytest.mark.parametrize(
    ("wish", "kind", "held", "reference"),
    [
        ("none", Kind.OK, 0, ""),
        ("quarantine", Kind.OK, 1, ""),
        ("reject", Kind.REJECTED, 0, "dmarc/fail_reject: s.example asks for reject"),
        ("", Kind.DEFERRED, 0, "dmarc/temperror"),
    ],
)
def test_what_the_owner_of_the_domain_in_from_wishes_becomes_of_a_forged_mail(site, wish, kind, held, reference):
    here = site(dns=Owner(wish))
    *_, outcome = here.send(GOOD)
    assert (outcome.kind, outcome.reference) == (kind, reference)
    with here.store.reading() as conn:
        assert queue.counts(conn).get(State.HELD, 0) == held
        assert len(mailbox.listing(conn, "alice")) == (wish == "none")


class Forwarding(Owner):
    """There the forwarders of the tests have their key too, or nobody can tell now."""

    def __init__(self, *, silent=False):
        super().__init__("reject")
        self.silent = silent

    async def txt(self, name):
        if not name.startswith("s._domainkey."):
            return await super().txt(name)
        if self.silent:
            raise Temporary("nobody could tell")
        return [RECORD]


def trusting(*sealers):
    shipped = files(None)["arc"].read_text()
    return shipped.replace("trusted_sealers = []", f"trusted_sealers = {json.dumps(sealers)}")


@pytest.mark.parametrize(
    ("sealers", "silent", "kind", "reference"),
    [
        ([], False, Kind.REJECTED, "dmarc/fail_reject: s.example asks for reject"),
        (["other.example"], False, Kind.REJECTED, "dmarc/fail_reject: s.example asks for reject"),
        (["list.example"], False, Kind.OK, ""),
        (["list.example"], True, Kind.DEFERRED, "dmarc/temperror"),
        ([], True, Kind.REJECTED, "dmarc/fail_reject: s.example asks for reject"),
    ],
)
def test_a_list_that_the_site_trusts_may_pass_on_what_the_owner_wants_refused(site, sealers, silent, kind, reference):
    here = site(dns=Forwarding(silent=silent), arc=trusting(*sealers))
    raw = Forwarder("list.example", "dmarc=pass header.from=s.example", "from:subject").passes_on(GOOD)
    *_, outcome = here.send(raw)
    assert (outcome.kind, outcome.reference) == (kind, reference)


def test_a_stripped_copy_is_delivered_and_the_original_is_held(site):
    mail = (
        b"From: a@s.example\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
        b"--b\r\n\r\nsee attachment\r\n--b\r\nContent-Disposition: attachment; filename=run.exe\r\n\r\nMZ\r\n--b--\r\n"
    )
    text = '[[exceptions]]\nactions.executable = "strip"\n'
    here = site(attachments=shipped("attachments") + text)
    *_, outcome = here.send(mail)
    assert outcome.kind is Kind.OK
    with here.store.reading() as conn:
        assert len(mailbox.listing(conn, "alice")) == 1
        assert queue.counts(conn)[State.HELD] == 1
        ids = [found.message_id for found in tracking.find(conn, limit=9)]
    copy = next(one for one in ids if one != outcome.id)
    assert stored(here.store, outcome.id).endswith(mail)
    assert b"was removed by the mail gateway" in stored(here.store, copy)
    assert b"MZ\r\n" not in stored(here.store, copy)


def test_a_mail_with_more_bad_parts_than_are_told_is_held_and_not_stripped_of_some(site):
    part = b"--b\r\nContent-Disposition: attachment; filename=run.exe\r\n\r\nMZ\r\n"
    head = (
        b"From: a@s.example\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\nContent-Type: multipart/mixed; boundary=b\r\n"
    )
    here = site(attachments=shipped("attachments") + '[[exceptions]]\nactions.executable = "strip"\n')
    here.send(head + b"\r\n" + part * 30 + b"--b--\r\n")
    with here.store.reading() as conn:
        assert mailbox.listing(conn, "alice") == []
        assert queue.counts(conn)[State.HELD] == 1


@pytest.mark.parametrize("name", [b"Received:", b"RECEIVED :", b"received\t:"])
def test_a_mail_with_more_than_fifty_hops_is_a_loop(site, name):
    assert site().send((name + b" by x\r\n") * 51 + GOOD)[-1].kind is Kind.LOOP


def test_what_only_mentions_fifty_hops_is_none(site):
    mentions = b"X-Received: by x\r\nX: received:\r\n\tReceived: by x\r\n" * 51
    assert site().send(mentions + GOOD)[-1].kind is Kind.OK


def test_a_header_over_its_limit_is_too_big(site):
    assert site().send(b"X: " + b"a" * 300_000 + b"\r\n" + GOOD)[-1].kind is Kind.TOO_BIG


def test_a_scanner_out_of_reach_defers_by_the_shipped_policy(site):
    text = shipped("antivirus").replace("unix:/run/clamav/clamd.ctl", "unix:/nonexistent/a")
    text = text.replace("unix:var/run/clamd.sock", "unix:/nonexistent/b").replace(
        "127.0.0.1:3310", "unix:/nonexistent/c"
    )
    *_, outcome = site(antivirus=text).send(GOOD)
    assert (outcome.kind, outcome.reference) == (Kind.DEFERRED, "antivirus/error")


@pytest.mark.parametrize(("error", "kind"), [(StorageFull("full"), Kind.FULL), (Temporary("locked"), Kind.UNAVAILABLE)])
def test_a_store_that_cannot_keep_it_takes_no_mail(site, monkeypatch, error, kind):
    here = site()

    async def fail(work):
        raise error

    async def work(intake):
        monkeypatch.setattr(intake, "keep", fail)
        return await dialog(intake, GOOD, ["alice@ours.example"], WORLD, "a@s.example")

    assert here.run(work)[-1].kind is kind


def test_a_store_out_of_reach_answers_unavailable_at_rcpt(site, monkeypatch):
    here = site()

    async def fail(work):
        raise Temporary("locked")

    async def work(intake):
        monkeypatch.setattr(intake.store, "read", fail)
        return await dialog(intake, GOOD, ["alice@ours.example"], WORLD, "a@s.example")

    assert here.run(work)[-1].kind is Kind.UNAVAILABLE


def test_an_account_that_is_removed_between_rcpt_and_the_end_of_the_data_gets_nothing_and_the_next_try_is_told(site):
    here = site()

    async def work(intake):
        visit, envelope, bob = intake.visit(), Envelope("a@s.example"), Recipient("bob@ours.example")
        await visit.connect(WORLD)
        await visit.sender(WORLD, envelope)
        assert (await visit.recipient(WORLD, envelope, bob)).kind is Kind.OK
        with here.store.begin() as conn:
            accounts.remove(conn, "bob")
        with io.FileIO(os_memfd(GOOD), "rb+") as spool:
            late = await visit.message(WORLD, replace(envelope, recipients=(bob,)), spool, len(GOOD))
        return late.kind, (await visit.recipient(WORLD, envelope, bob)).kind

    assert here.run(work) == (Kind.UNAVAILABLE, Kind.NO_SUCH_USER)
    assert here.all() == []


def test_a_success_notice_is_owed_for_a_mailbox_and_never_to_the_null_sender(site):
    one = Recipient("alice@ours.example", frozenset({"SUCCESS"}))
    here = site()
    here.send(GOOD, one)
    with here.store.begin() as conn:
        assert [d.notice.value for d in queue.owed_notices(conn, "t", 9, 1e12, 60)] == ["delivered"]


def test_a_dry_run_tells_who_would_be_refused(site):
    here = site()

    async def work(intake):
        with io.FileIO(os_memfd(GOOD), "rb+") as message:
            to = ("alice@ours.example", "nobody@ours.example", "x@elsewhere.example")
            return await intake.visit().explain(WORLD, Envelope("a@s.example", tuple(map(Recipient, to))), message)

    explained = here.run(work)
    assert explained.refused == {"nobody@ours.example": Kind.NO_SUCH_USER, "x@elsewhere.example": Kind.NOT_OURS}


def test_a_dry_run_keeps_nothing_and_says_everything(site):
    here = site()

    async def work(intake):
        with io.FileIO(os_memfd(GOOD + GTUBE), "rb+") as message:
            envelope = Envelope("a@s.example", (Recipient("alice@ours.example"),))
            return await intake.visit().explain(WORLD, envelope, message)

    explained = here.run(work)
    verdict = explained.verdicts["alice@ours.example"]
    assert verdict.action is Action.REJECT
    assert "spam says gtube" in verdict.sentence
    assert here.all() == []


def test_an_edited_policy_comes_in_force_whole_or_not_at_all(site, tmp_path):
    here = site()

    async def work(intake):
        first = intake.policies.version
        (tmp_path / "score.toml").write_text("quarantine = 9.0\nreject = 1.0\n")
        refused = await intake.reload()
        same = intake.policies.version == first
        (tmp_path / "score.toml").write_text("quarantine = 1.0\nreject = 9.0\n")
        taken = await intake.reload()
        outcomes = await dialog(intake, GOOD, ["alice@ours.example"], WORLD, "a@s.example")
        return refused, same, taken, intake.policies.version != first, outcomes[-1].kind

    assert here.run(work) == (False, True, True, True, Kind.OK)


def blind():
    """Policies that look at no message: every filter of messages, and the parser itself, are switched off."""
    of_messages = [name for name, one in policy.load(None, None).by_name.items() if one.stage is Stage.MESSAGE]
    return {name: shipped(name).replace("enabled = true", "enabled = false") for name in of_messages}


def test_without_filters_of_messages_no_process_is_started_and_the_record_is_the_same(site):
    here = site(**blind())

    async def work(intake):
        outcome = (await dialog(intake, GOOD, ["alice@ours.example"], WORLD, "a@s.example"))[-1]
        return outcome, intake._sandbox

    outcome, sandbox = here.run(work)
    assert (outcome.kind, sandbox) == (Kind.OK, None)
    assert stored(here.store, outcome.id).endswith(GOOD)
    (known,) = here.all()
    assert known.subject == "hi"
    with here.store.reading() as conn:
        life = tracking.life(conn, outcome.id)
    assert (life.message.header_from, life.message.header_message_id) == ("a@s.example", "<1@s>")


def test_the_parser_is_started_and_ended_as_policies_want_it(site, tmp_path):
    here = site()

    async def work(intake):
        kinds, sandboxes = [], []
        for policies in (blind(), {name: shipped(name) for name in blind()}):
            for name, text in policies.items():
                (tmp_path / f"{name}.toml").write_text(text)
            assert await intake.reload()
            sandboxes.append(intake._sandbox is not None)
            kinds.append((await dialog(intake, GOOD + GTUBE, ["alice@ours.example"], WORLD, "a@s.example"))[-1].kind)
        return sandboxes, kinds

    assert here.run(work) == ([False, True], [Kind.OK, Kind.REJECTED])


def test_policies_whose_parser_does_not_start_are_not_taken(site, tmp_path, monkeypatch):
    here = site()

    async def fail(specification):
        raise Temporary("no")

    async def work(intake):
        first = intake.policies
        (tmp_path / "score.toml").write_text("quarantine = 1.0\nreject = 9.0\n")
        monkeypatch.setattr("gateway.pipeline.sandbox.Nursery.start", fail)
        return await intake.reload(), intake.policies is first

    assert here.run(work) == (False, True)


def test_what_was_taken_out_of_a_mail_is_lent_while_it_is_judged(site):
    mail = Mail("m1", WORLD)

    async def work(intake):
        with os.fdopen(os_memfd(GOOD), "rb+") as message, os.fdopen(os_memfd(b"payload"), "rb+") as taken:
            with intake.lent(mail, message, taken), intake._tools.open_stored(mail) as stored:
                lent = stored.read(), stored.mode
            with intake.lent(mail, message, None), pytest.raises(LookupError):
                intake._tools.open_stored(mail)
        with pytest.raises(LookupError):
            intake._tools.open_stored(mail)
        return lent

    assert site().run(work) == (b"payload", "rb")


def test_mail_flows_while_policies_are_swapped(site, tmp_path):
    here = site()

    async def work(intake):
        async def stream():
            return [
                (await dialog(intake, GOOD, ["alice@ours.example"], WORLD, "a@s.example"))[-1].kind for _ in range(15)
            ]

        streams = asyncio.gather(stream(), stream())
        for number in range(3):
            (tmp_path / "score.toml").write_text(f"quarantine = 5.{number}\nreject = 12.0\n")
            await intake.reload()
        return [kind for kinds in await streams for kind in kinds]

    assert set(here.run(work)) == {Kind.OK}


def test_a_filter_that_cannot_be_built_leaves_the_old_policies_in_force(site, tmp_path, monkeypatch):
    here = site()

    async def work(intake):
        monkeypatch.setattr("gateway.pipeline.policy.load", lambda *_: 1 / 0)
        return await intake.reload(), (await dialog(intake, GOOD, ["alice@ours.example"], WORLD, "a@s.example"))[
            -1
        ].kind

    assert here.run(work) == (False, Kind.OK)


def test_policies_that_are_swapped_in_the_middle_of_a_mail_are_asked_all_their_questions(site):
    here = site()

    async def work(intake):
        whole = intake.policies
        intake.policies = replace(whole, by_name={name: one for name, one in whole.by_name.items() if name != "spf"})
        visit, envelope, one = intake.visit(), Envelope("a@s.example"), Recipient("alice@ours.example")
        await visit.connect(WORLD)
        await visit.sender(WORLD, envelope)
        await visit.recipient(WORLD, envelope, one)
        intake.policies = whole
        with io.FileIO(os_memfd(GOOD), "rb+") as spool:
            outcome = await visit.message(WORLD, replace(envelope, recipients=(one,)), spool, len(GOOD))
        return outcome.id, whole.version

    mail_id, version = here.run(work)
    with here.store.reading() as conn:
        evidence = messages.evidence(conn, mail_id)
    assert [fact["code"] for fact in evidence["found"]["spf"]] == ["none"]
    assert evidence["policies"] == version


@pytest.mark.parametrize(
    ("word", "kind"), [("defer", Kind.DEFERRED), ("reject", Kind.REJECTED), ("quarantine", Kind.OK)]
)
def test_what_a_sandbox_out_of_reach_means_is_decided_by_content_toml(site, word, kind):
    here = site(content=f'[actions]\nunscannable = "quarantine"\nambiguous = "quarantine"\nerror = "{word}"\n')

    async def work(intake):
        await intake.close()
        return (await dialog(intake, GOOD, ["alice@ours.example"], WORLD, "a@s.example"))[-1]

    assert here.run(work).kind is kind


@pytest.mark.parametrize("address", ["postmaster", "Postmaster@ours.example", "postmaster@GW.example"])
def test_mail_for_the_postmaster_goes_on_to_where_routes_toml_says(site, address):
    here = site(routes=QUIET["routes"].replace("alice@ours.example", "admin@inside.example"))
    *_, outcome = here.send(GOOD, address)
    assert outcome.kind is Kind.OK
    with here.store.reading() as conn:
        (delivery,) = queue.of_message(conn, outcome.id)
    assert (delivery.state, delivery.recipient.address) == (State.QUEUED, "admin@inside.example")
    assert delivery.destination == "inside.example"


def test_a_notice_and_its_settlement_are_one_transaction(site):
    here = site()

    async def work(intake):
        def fail(conn):
            raise LookupError("settlement")

        with pytest.raises(LookupError):
            await intake.notify(b"Subject: x\r\n\r\n", Recipient("alice@ours.example"), fail)
        await intake.notify(b"Subject: y\r\n\r\n", Recipient("alice@ours.example"), lambda conn: None)
        await intake.notify(b"Subject: z\r\n\r\n", Recipient("gone@ours.example"), lambda conn: None)

    here.run(work)
    with here.store.reading() as conn:
        assert len(mailbox.listing(conn, "alice")) == 1
        assert len(tracking.find(conn, limit=9)) == 1


def test_a_report_of_ours_is_one_mail_to_all_and_its_sender_can_be_vouched_for(site):
    here = site()
    to = [Recipient(f"{name}", frozenset({"NEVER"})) for name in ("rua@far.example", "alice@ours.example")]
    settled = []

    async def work(intake):
        mail = b"From: <r@gw.example>\r\n\r\nx\r\n"
        first = await intake.report(mail, "r@gw.example", to, lambda _conn: settled.append(1))
        await intake.report(mail, "r@gw.example", [Recipient("gone@ours.example")], lambda _conn: settled.append(2))
        return first

    mail_id = here.run(work)
    assert settled == [1, 2]  # where nobody is left to read it, there is nothing to do any more
    assert {(one.recipient, one.state, one.sender) for one in here.all()} == {
        ("rua@far.example", State.QUEUED, "r@gw.example"),
        ("alice@ours.example", State.MAILBOX, "r@gw.example"),
    }
    with here.store.reading() as conn:
        heads = {one.recipient.address: (one.header, one.outbound) for one in queue.of_message(conn, mail_id)}
    assert heads["rua@far.example"] == (b"", True)
    assert heads["alice@ours.example"][0].startswith(b"Return-Path: <r@gw.example>\r\n")


def shipped(name: str) -> str:
    return files(None)[name].read_text()

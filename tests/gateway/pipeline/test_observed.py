"""What a mail shows for the report of its owner: what DMARC found and led to, nothing of our other judgement."""

from ipaddress import ip_address

import pytest

from gateway.model import Action, Envelope, Finding, Mail, Reason, Recipient, Result, Session, Verdict
from gateway.pipeline.observed import observation
from gateway.store import observations
from tests.gateway.pipeline.test_intake import GOOD, Site

NOW = 1_800_000_000.0
FACTS = (
    "policy.domain=owner.example", "policy.p=reject", "policy.sp=none", "policy.adkim=r", "policy.method=treewalk",
    "policy.rua=mailto:a@owner.example,mailto:b@x.example!10m", "aligned.dkim=fail", "aligned.spf=fail",
)  # fmt: skip


def mail(sender="bounce@Else.example", to=("bob@us.example",)):
    return Mail("m1", Session(ip_address("2001:db8::1")), Envelope(sender, tuple(map(Recipient, to))))


def dmarc(code="fail_reject", *facts, gone=(), policy="reject"):
    kept = tuple(fact for fact in FACTS if not fact.startswith(gone)) if gone else FACTS
    about = (("header.from", "news.owner.example"), ("policy.dmarc", policy))
    return Finding(code, facts=(*kept, *facts), result=Result("dmarc", "fail", about))


def dkim(result, domain, selector="s1"):
    return Finding(result, result=Result("dkim", result, (("header.d", domain), ("header.s", selector))))


def spf(result, **properties):
    named = tuple((f"smtp.{name}", value) for name, value in properties.items())
    return Finding(result, result=Result("spf", result, named))


def verdict(action, *effects):
    return Verdict(action, reasons=tuple(Reason(name, Finding("x"), effect) for name, effect in effects))


REJECTED = {"bob@us.example": verdict(Action.REJECT, ("dmarc", Action.REJECT))}
ACCEPTED = {"bob@us.example": verdict(Action.ACCEPT)}


def row(found, verdicts=REJECTED, of=None):
    seen = observation(of or mail(), found, verdicts, NOW)
    assert seen is not None
    return seen.row


def test_the_policy_is_told_as_it_was_published():
    published = observation(mail(), {"dmarc": [dmarc()]}, REJECTED, NOW).published
    assert (published.domain, published.p, published.sp, published.np) == ("owner.example", "reject", "none", "")
    assert published.rua == ("mailto:a@owner.example", "mailto:b@x.example!10m")


@pytest.mark.parametrize(
    "found",
    [{}, {"dmarc": []}, {"dmarc": [dmarc(gone=("policy.rua",))]}, {"dmarc": [dmarc(gone=("policy.domain",))]},
     {"dmarc": [Finding("error")]}],
)  # fmt: skip
def test_where_nobody_asks_nothing_is_kept(found):
    assert observation(mail(), found, REJECTED, NOW) is None


def test_the_mail_is_named_by_its_domains_and_address_alone():
    told = row({"dmarc": [dmarc()], "spf": [spf("pass", mailfrom="else.example")]})
    assert (told.source, told.header_from) == ("2001:db8::1", "news.owner.example")
    assert (told.envelope_from, told.envelope_to) == ("else.example", "us.example")
    assert (told.dkim, told.spf, told.checked) == ("fail", "fail", ("else.example", "pass"))


def test_recipients_of_several_domains_are_not_told():
    assert row({"dmarc": [dmarc()]}, of=mail(to=("a@us.example", "b@us.example", "c@them.example"))).envelope_to == ""


def test_without_a_sender_spf_is_of_the_host_that_said_hello():
    checked = [spf("none", helo="mx.else.example")]
    assert row({"dmarc": [dmarc()], "spf": checked}, of=mail("")).checked == ("mx.else.example", "none")
    assert row({"dmarc": [dmarc()], "spf": checked}).checked == ()


def test_signatures_stand_in_the_order_of_what_they_mean():
    found = [
        dkim("fail", "news.owner.example"), dkim("pass", "list.example"), dkim("pass", "owner.example", "a"),
        dkim("pass", "news.owner.example"), Finding("none", result=Result("dkim", "none")),
    ]  # fmt: skip
    assert row({"dmarc": [dmarc("pass")], "dkim": found}).signatures == (
        ("news.owner.example", "s1", "pass"),
        ("owner.example", "a", "pass"),
        ("list.example", "s1", "pass"),
        ("news.owner.example", "s1", "fail"),
    )


@pytest.mark.parametrize(("p", "disposition"), [("reject", "pass"), ("none", "none")])
def test_what_passed_has_passed_whatever_else_was_found(p, disposition):
    found = {"dmarc": [dmarc("pass", "aligned.dkim=pass", gone=("aligned.dkim",), policy=p)]}
    told = row(found, {"bob@us.example": verdict(Action.REJECT, ("antivirus", Action.REJECT))})
    assert (told.disposition, told.reasons, told.dkim, told.spf) == (disposition, (), "pass", "fail")


def test_a_virus_in_a_mail_that_failed_is_not_told_as_the_owner_s_wish():
    told = row(
        {"dmarc": [dmarc("fail_none")]}, {"bob@us.example": verdict(Action.REJECT, ("antivirus", Action.REJECT))}
    )
    assert (told.disposition, told.reasons) == ("none", ())


@pytest.mark.parametrize(
    ("code", "verdicts", "disposition", "reasons"),
    [
        ("fail_reject", [(Action.REJECT, Action.REJECT)], "reject", ()),
        ("fail_quarantine", [(Action.QUARANTINE, Action.QUARANTINE)], "quarantine", ()),
        ("fail_none", [(Action.ACCEPT, 1.0)], "none", ()),
        ("fail_reject", [(Action.ACCEPT, 2.5)], "none", ("local_policy",)),
        ("fail_reject", [(Action.QUARANTINE, Action.QUARANTINE)], "quarantine", ("local_policy",)),
        ("fail_reject", [(Action.REJECT, Action.REJECT), (Action.ACCEPT, 0.0)], "quarantine", ("local_policy",)),
        ("fail_quarantine", [(Action.QUARANTINE, Action.QUARANTINE), (Action.ACCEPT, 0.0)], "quarantine", ()),
        ("forwarded", [(Action.ACCEPT, 0.0)], "none", ("trusted_forwarder",)),
        ("temperror", [(Action.ACCEPT, Action.ACCEPT)], "none", ("other",)),
    ],
)
def test_what_was_done_is_the_strictest_that_dmarc_led_to(code, verdicts, disposition, reasons):
    made = {f"{n}@us.example": verdict(action, ("dmarc", effect)) for n, (action, effect) in enumerate(verdicts)}
    override = ["override=trusted_forwarder"] if code == "forwarded" else []
    told = row({"dmarc": [dmarc(code, *override)]}, made)
    assert (told.disposition, tuple(kind for kind, _ in told.reasons)) == (disposition, reasons)


def test_an_owner_who_is_still_testing_is_told_so():
    told = row({"dmarc": [dmarc("fail_quarantine", "policy.t=y", "override=policy_test_mode")]}, ACCEPTED)
    assert [kind for kind, _ in told.reasons] == ["policy_test_mode", "local_policy"]


def test_strangers_text_is_cut_and_cleaned():
    evil = "a\x1b[31m" + "x" * 5000
    told = row({"dmarc": [dmarc()], "dkim": [dkim("fail", evil, evil)]}, of=mail(f"a@{evil}"))
    for text in (told.envelope_from, *told.signatures[0][:2]):
        assert len(text) <= 253
        assert text.isprintable()


# ---- What counts --------------------------------------------------------------------------------------------------


class Publishing:
    """A DNS in which every domain has a DMARC policy, and an address for reports; nobody vouches for any mail."""

    async def nothing(self, name):
        return ()

    async def txt(self, name):
        return (b"v=DMARC1; p=none; rua=mailto:rua@s.example",) if name == "_dmarc.s.example" else ()

    a = aaaa = mx = ptr = nothing


def counted(folder, monkeypatch, to=("alice@ours.example",), **policies):
    """How many mails were observed after one mail was sent."""
    monkeypatch.setattr("tests.gateway.pipeline.test_intake.Silent", Publishing)
    here = Site(folder, **({"reports": 'send = "always"\n'} | policies))
    *_, outcome = here.send(GOOD, *to)
    with here.store.reading() as conn:
        return outcome.kind.value, observations.count(conn, "s.example", 0.0, 1e12)


def lenient(word):
    rest = "".join(f"{code} = 0.0\n" for code in (
        "pass", "none", "fail_quarantine", "fail_reject", "forwarded", "temperror", "permerror"
    ))  # fmt: skip
    return f'[actions]\nfail_none = "{word}"\n{rest}error = "defer"\n'


@pytest.mark.parametrize(
    ("word", "kind", "count"), [("accept", "ok", 1), ("reject", "rejected", 1), ("defer", "deferred", 0)]
)
def test_a_mail_counts_once_that_was_taken_or_refused_and_not_one_that_comes_again(
    tmp_path, monkeypatch, word, kind, count
):
    both = ("alice@ours.example", "bob@ours.example")
    assert counted(tmp_path, monkeypatch, both, dmarc=lenient(word)) == (kind, count)


def test_where_reports_are_off_nothing_is_kept(tmp_path, monkeypatch):
    assert counted(tmp_path, monkeypatch, dmarc=lenient("accept"), reports='send = "auto"\n') == ("ok", 0)

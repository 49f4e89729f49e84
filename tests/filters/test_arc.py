"""ARC: when a chain holds, whose word in it is believed, and what a chain may cost."""

import asyncio
import ipaddress
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from filters.arc import Filter, Settings
from gateway.model import (
    Arc,
    ArcSet,
    Author,
    Checked,
    Content,
    Finding,
    ListenerKind,
    Mail,
    Result,
    Session,
    Signature,
    Temporary,
    Tools,
)

NOW = 1_700_000_000.0
PASSED = (("spf", "pass"), ("dmarc", "pass"))
FAILED = (("spf", "fail"), ("dmarc", "fail"))
TRUSTING = Settings(trusted_sealers=("list.test", "forward.test"))
HOLDS = Checked("pass", "", 2048, fact="TXT s1._domainkey: v=DKIM1; p=AAAA")


class FakeSignatures:
    """Answers by the selector of a signature, which says whose and what it is: "seal2", "message2"."""

    def __init__(self, **answers: Any) -> None:
        self.answers, self.asked = answers, list[str]()

    async def check(self, one: Signature, now: float) -> Checked:
        assert now == NOW
        self.asked.append(one.value)
        answer = self.answers.get(one.value, HOLDS)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, float):
            await asyncio.sleep(answer)
            return HOLDS
        assert isinstance(answer, Checked)
        return answer


def arc_set(number: int, domain: str, results: Sequence[tuple[str, str]] = PASSED, **other: Any) -> ArcSet:
    message, seal = (Signature(domain, "s1", "rsa-sha256", value=f"{kind}{number}") for kind in ("message", "seal"))
    made = ArcSet(number, "pass" if number > 1 else "none", message, seal, tuple(results), "author.test")
    return replace(made, **other)


def chain(*hops: Any) -> Arc:
    """A chain of hops, each a domain, or a domain and its results."""
    pairs = [(hop, PASSED) if isinstance(hop, str) else hop for hop in hops]
    return Arc(tuple(arc_set(number, *pair) for number, pair in enumerate(pairs, 1)))


def mail(arc: Arc, author: str = "author.test", **session: Any) -> Mail:
    content = Content(author=Author(f"a@{author}", author), arc=arc)
    return Mail("id", Session(ipaddress.ip_address("192.0.2.1"), **session), content=content)


def findings(fake: FakeSignatures, mail_: Mail, settings: Settings | None = None) -> Sequence[Finding]:
    tools = Tools(None, None, "mx.demo.example", None, fake, None, None)  # type: ignore[arg-type]
    return asyncio.run(Filter(settings or TRUSTING, tools, lambda: NOW).check(mail_, {}))


def only(arc: Arc, settings: Settings | None = None, *, author: str = "author.test", **answers: Any) -> Finding:
    (finding,) = findings(FakeSignatures(**answers), mail(arc, author), settings)
    return finding


def told(finding: Finding) -> str:
    assert finding.result is not None
    return finding.result.result


# --- whether the chain holds ---------------------------------------------------------------------------------------


def test_a_mail_without_a_chain_costs_nothing_and_has_no_finding() -> None:
    fake = FakeSignatures()
    assert findings(fake, mail(Arc())) == []
    assert fake.asked == []


@pytest.mark.parametrize("session", [{"user": "jane"}, {"kind": ListenerKind.RELAY}])
def test_our_own_people_and_hosts_are_not_asked_about(session: dict[str, Any]) -> None:
    assert findings(FakeSignatures(), mail(chain("list.test"), **session)) == []


def test_a_chain_of_strangers_that_holds_passes_and_says_so() -> None:
    finding = only(chain("one.test", "two.test"))
    assert (finding.code, finding.detail) == ("pass", "the chain holds: one.test, then two.test")
    assert finding.facts == (HOLDS.fact,)
    assert finding.result == Result("arc", "pass", (("header.oldest-pass", "0"), ("smtp.remote-ip", "192.0.2.1")))


@pytest.mark.parametrize("broken", ["seal1", "seal2", "seal3", "message3"])
@pytest.mark.parametrize("result", ["fail", "permerror", "neutral", "anything"])
def test_one_seal_or_the_newest_signature_that_does_not_hold_breaks_the_chain(broken: str, result: str) -> None:
    finding = only(chain("list.test", "list.test", "list.test"), **{broken: Checked(result, "is no good")})
    assert (finding.code, told(finding)) == ("fail", "fail")
    assert "list.test" in finding.detail
    assert "is no good" in finding.detail


@pytest.mark.parametrize("broken", ["message1", "message2"])
def test_older_signatures_over_the_message_may_be_broken(broken: str) -> None:
    finding = only(chain("a.test", "a.test", "a.test"), **{broken: Checked("fail", "it was changed")})
    assert finding.code == "pass"
    assert finding.result is not None
    assert finding.result.get("header.oldest-pass") == {"message1": "2", "message2": "3"}[broken]


def test_the_key_of_an_older_signature_over_the_message_is_not_asked_for_its_own_sake() -> None:
    arc = chain("a.test", "b.test")
    old = replace(arc.sets[0], message=replace(arc.sets[0].message, selector="other"))
    fake = FakeSignatures()
    (finding,) = findings(fake, mail(Arc((old, arc.sets[1]))))
    assert fake.asked == ["message2", "seal1", "seal2"]
    assert finding.result is not None
    assert finding.result.get("header.oldest-pass") == "2"


def test_what_the_reader_found_wrong_fails_without_a_question() -> None:
    fake = FakeSignatures()
    (finding,) = findings(fake, mail(Arc(fault="there are more than 50 sets")))
    assert (finding.code, told(finding), finding.detail) == ("fail", "fail", "there are more than 50 sets")
    assert fake.asked == []


@pytest.mark.parametrize("flaw", [{"fault": "has an h= tag"}, {"broken": True}, {"partial": True}], ids=str)
@pytest.mark.parametrize("which", ["seal", "message"])
def test_a_signature_that_cannot_hold_fails_without_a_question(flaw: dict[str, Any], which: str) -> None:
    made = arc_set(1, "list.test")
    fake = FakeSignatures()
    broken = replace(getattr(made, which), **flaw)
    (finding,) = findings(fake, mail(Arc((replace(made, **{which: broken}),))))
    assert (finding.code, told(finding), fake.asked) == ("fail", "fail", [])


def test_a_chain_that_its_last_sealer_found_broken_fails_without_a_question() -> None:
    fake = FakeSignatures()
    (finding,) = findings(fake, mail(Arc((arc_set(1, "a.test"), arc_set(2, "list.test", cv="fail")))))
    assert (finding.code, finding.detail, fake.asked) == ("fail", "list.test found the chain broken", [])


# --- whose word is believed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hops", "code"),
    [
        (["list.test"], "trusted"),
        (["stranger.test"], "pass"),
        (["stranger.test", "list.test"], "trusted"),
        (["list.test", "stranger.test"], "pass"),
        (["list.test", "stranger.test", "forward.test"], "trusted"),
        ([("list.test", FAILED)], "pass"),
        ([("list.test", ())], "pass"),
        (["list.test", ("forward.test", FAILED)], "trusted"),
        (["list.test", ("forward.test", ())], "trusted"),
        (["stranger.test", ("forward.test", FAILED)], "pass"),
        (["list.test", ("stranger.test", FAILED), ("forward.test", FAILED)], "pass"),
        (["list.test", ("forward.test", (*PASSED, ("dmarc", "pass")))], "pass"),
        ([("list.test", (*FAILED, ("dmarc", "pass")))], "pass"),
        (["sub.list.test"], "pass"),
        (["list.test.evil.test"], "pass"),
    ],
)
def test_the_newest_sealers_are_believed_as_far_as_they_are_trusted(hops: list[Any], code: str) -> None:
    finding = only(chain(*hops))
    assert (finding.code, told(finding)) == (code, "pass")


def test_nobody_is_trusted_by_default() -> None:
    assert only(chain("list.test"), Settings()).code == "pass"


@pytest.mark.parametrize("author", ["", "bank.test", "sub.author.test"])
def test_a_word_about_another_author_than_the_reader_sees_is_none(author: str) -> None:
    assert only(chain("list.test"), author=author).code == "pass"


def test_a_word_that_names_no_author_is_none() -> None:
    assert only(Arc((arc_set(1, "list.test", author=""),))).code == "pass"
    assert only(Arc((arc_set(1, "list.test", author=""),)), author="").code == "pass"


@pytest.mark.parametrize("broken", ["seal1", "seal2", "message2"])
def test_nobody_is_believed_in_a_chain_that_does_not_hold(broken: str) -> None:
    arc = chain("list.test", "forward.test")
    assert only(arc, **{broken: Checked("fail", "no")}).code == "fail"
    assert only(arc, **{broken: Checked("temperror", "nobody could tell")}).code == "temperror"


def test_a_seal_that_is_broken_for_sure_outweighs_one_that_nobody_can_tell_of() -> None:
    finding = only(chain("list.test", "list.test"), seal1=Checked("fail", "no"), seal2=Checked("temperror", "late"))
    assert finding.code == "fail"


def test_what_nobody_can_tell_matters_only_where_somebody_trusted_vouches() -> None:
    late = Checked("temperror", "nobody could tell")
    for arc, code in ((chain("list.test"), "temperror"), (chain("stranger.test"), "unchecked")):
        finding = only(arc, seal1=late)
        assert (finding.code, told(finding)) == (code, "temperror")


# --- what it may cost ----------------------------------------------------------------------------------------------


def test_a_chain_of_fifty_sets_with_fifty_keys_fails_without_a_question() -> None:
    fake = FakeSignatures()
    (finding,) = findings(fake, mail(chain(*(f"d{number}.test" for number in range(50)))))
    assert (finding.code, finding.detail) == ("fail", "a chain with more than 6 different keys")
    assert fake.asked == []


def test_a_chain_of_fifty_sets_with_six_keys_is_checked() -> None:
    fake = FakeSignatures()
    (finding,) = findings(fake, mail(chain(*(f"d{number % 6}.test" for number in range(50)))))
    assert finding.code == "pass"
    assert len(fake.asked) == 100
    assert len(finding.detail) < 200


def test_a_chain_longer_than_the_site_wants_fails_without_a_question() -> None:
    fake = FakeSignatures()
    (finding,) = findings(fake, mail(chain("a.test", "a.test", "a.test")), Settings(sets=2))
    assert (finding.code, finding.detail, fake.asked) == ("fail", "a chain of more than 2 sets", [])


def test_all_keys_are_asked_for_at_the_same_time_and_only_until_the_deadline() -> None:
    begun = time.monotonic()
    fake = FakeSignatures(seal1=5.0, seal2=5.0, message2=5.0)
    (finding,) = findings(fake, mail(chain("list.test", "list.test")), replace(TRUSTING, timeout=0.05))
    assert time.monotonic() - begun < 2
    assert finding.code == "temperror"
    assert "within 0.05 s" in finding.detail


def test_a_fault_of_the_checker_is_no_answer() -> None:
    with pytest.raises(Temporary):
        findings(FakeSignatures(seal1=Temporary("gone")), mail(chain("list.test")))


@pytest.mark.parametrize(
    "settings",
    [
        Settings(sets=0),
        Settings(sets=51),
        Settings(queries=0),
        Settings(timeout=0.0),
        Settings(trusted_sealers=("test",)),
        Settings(trusted_sealers=("List.test",)),
        Settings(trusted_sealers=("*.list.test",)),
        Settings(trusted_sealers=("",)),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_told_at_once(settings: Settings) -> None:
    with pytest.raises(ValueError, match=r"is|are"):
        Filter(settings, Tools(None, None, "", None, FakeSignatures(), None, None))  # type: ignore[arg-type]

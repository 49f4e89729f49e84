"""Every verdict in a sentence, with what would have changed it."""

from ipaddress import ip_address

import pytest

from gateway.model import Action, Envelope, Finding, Mail, Reason, Recipient, Result, Session, Verdict
from gateway.pipeline import explain, views
from gateway.pipeline.policy import Policies, Policy, Rule
from gateway.stages import Score, Stages

MAIL = Mail("m1", Session(ip_address("192.0.2.1")), Envelope("a@s.example", (Recipient("b@o.example"),)))


def policies(**actions: dict[str, Action | float]) -> Policies:
    by_name = {name: Policy(name, f"{name}.toml", None, 1.0, (Rule(actions=codes),)) for name, codes in actions.items()}
    return Policies(Stages(score=Score(quarantine=6.0, reject=12.0)), by_name, "v")


SET = policies(
    spf={"fail": 4.0, "error": Action.DEFER, "pass": -1.0},
    spam={"html": 3.0, "gtube": Action.REJECT, "shout": 9.0},
    attachments={"executable": Action.QUARANTINE, "odd": Action.TAG},
)


def said(**found: list[Finding]) -> str:
    return explain.judge(SET, found, MAIL, "b@o.example").sentence


def test_a_word_names_its_finding_and_what_would_have_been_without_it():
    sentence = said(attachments=[Finding("executable", "run.exe", "2")], spf=[Finding("fail")])
    assert sentence == (
        "held because attachments says executable (run.exe, part 2); "
        "without attachments.toml `executable` it would have been delivered"
    )


def test_a_score_names_the_threshold_it_reaches_and_its_largest_share():
    sentence = said(spf=[Finding("fail", "s.example")], spam=[Finding("html")])
    assert sentence == (
        "held because the score 7.0 reaches 6 (score.toml quarantine): spf says fail +4.0 (s.example); "
        "spam says html +3.0; without spf.toml `fail` it would have been delivered"
    )


def test_a_filter_that_could_not_tell_says_so():
    assert said(spf=[Finding("error", "no answer")]).startswith("deferred because spf could not tell (no answer)")


def test_what_another_finding_would_still_do_is_told():
    sentence = said(spam=[Finding("gtube"), Finding("shout")], spf=[Finding("fail")])
    assert sentence.endswith("without spam.toml `gtube` it would still have been rejected")


def test_mail_let_through_tells_how_far_it_was_from_being_held():
    assert said() == "delivered: nothing was found against it; score 0.0, held from 6 on (score.toml quarantine)"
    assert said(spf=[Finding("pass")]).startswith("delivered: spf says pass -1.0; score -1.0")


def test_a_tag_names_its_reason():
    assert said(attachments=[Finding("odd", "x")]).startswith(
        "delivered with a tag because attachments says odd (x); "
        "without attachments.toml `odd` it would have been delivered"
    )


def test_many_findings_are_counted_not_listed():
    found = [Finding("executable", f"f{n}.exe") for n in range(9)]
    assert said(attachments=found).startswith(
        "held because attachments says executable (f0.exe; f1.exe; f2.exe; and 6 more); without"
    )


def test_findings_of_one_code_are_one_clause_with_the_sum_of_their_points():
    sentence = said(spam=[Finding("html", "a"), Finding("html", "b"), Finding("html", "b")])
    assert "spam says html +9.0 (a; b); without" in sentence


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("2.1/a.zip/b.exe", "x, part 2.1/a.zip/b.exe"),
        ("2/", "x, part 2"),
        ("mailparse/a.exe", "x, as mailparse reads the mail"),
        ("library/a.exe", "x, as Python's library reads the mail"),
        ("anywhere", "x, somewhere in the mail, in no part of it"),
        ("", "x"),
    ],
)
def test_the_part_is_named_as_people_can_find_it(path, words):
    assert f"attachments says executable ({words}); without" in said(attachments=[Finding("executable", "x", path)])


def test_a_reference_is_made_of_our_own_words():
    verdict = explain.judge(SET, {"spam": [Finding("gtube", "<stranger>\r\n")]}, MAIL, "b@o.example")
    assert explain.reference(verdict) == "spam/gtube"
    assert explain.reference(explain.judge(SET, {"spam": [Finding("shout")]}, MAIL, "b@o.example")) == "score"


def test_every_reader_of_the_parser_has_a_name_for_people():
    assert {*views.READERS, "anywhere", "around"} == explain._VIEWS.keys()


@pytest.mark.parametrize(
    ("domain", "said"),
    [
        ("bank.example", "dmarc/fail_reject: bank.example asks for reject"),
        ("xn--bcher-kva.example", "dmarc/fail_reject: xn--bcher-kva.example asks for reject"),
        ("a\r\n250 OK.example", "dmarc/fail_reject"),
        (f"{'a' * 60}.example", "dmarc/fail_reject"),
    ],
)
def test_a_refusal_that_an_owner_asked_for_names_the_domain(domain, said):
    result = Result("dmarc", "fail", (("header.from", domain), ("policy.dmarc", "reject")))
    reason = Reason("dmarc", Finding("fail_reject", result=result), Action.REJECT)
    assert explain.reference(Verdict(Action.REJECT, reasons=(reason,))) == said

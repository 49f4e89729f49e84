"""Verdicts as text: what was decided comes back as it was, and the text can be searched for who found what."""

import json

import pytest

from gateway.model import Action, Finding, Reason, Verdict
from gateway.store import verdicts


def test_a_verdict_keeps_words_and_numbers_apart():
    verdict = Verdict(Action.REJECT, 4.0, (Reason("f", Finding("c"), Action.DEFER), Reason("f", Finding("d"), 4.0)))
    again = verdicts.loads(verdicts.dumps(verdict))
    assert again == verdict
    assert [type(reason.effect) for reason in again.reasons] == [Action, float]
    assert json.loads(verdicts.dumps(verdict))["action"] == "reject"


FOUND = Finding("bad", 'says "so" \N{BULLET} \x00', "1.2/a%b_c.zip", ("one", 'two "quoted"'))


def test_all_of_a_verdict_but_the_results_comes_back():
    verdict = Verdict(Action.QUARANTINE, 5.5, (Reason("spam", FOUND, 5.5),), "held, for: \N{SNOWMAN}")
    assert verdicts.loads(verdicts.dumps(verdict)) == verdict
    assert verdicts.loads(verdicts.dumps(Verdict())) == Verdict()


def test_the_text_is_ascii_whatever_was_found():
    assert verdicts.dumps(Verdict(reasons=(Reason("spam", FOUND, 1.0),), sentence="\N{SNOWMAN}")).isascii()


@pytest.mark.parametrize(
    ("wanted", "stands"),
    [
        (("spam",), True),
        (("spam", "bad"), True),
        (("spam", "ba"), False),
        (("spa",), False),
        (("pam",), False),
        (("other",), False),
        (("spam", "one"), False),
    ],
)
def test_a_mark_stands_in_the_verdicts_in_which_the_filter_found_it_and_in_no_other(wanted, stands):
    text = verdicts.dumps(Verdict(reasons=(Reason("spam", FOUND, 1.0),), sentence="other"))
    assert (verdicts.mark(*wanted) in text) is stands


def test_what_a_stranger_has_written_makes_no_mark():
    forged = verdicts.mark("antivirus", "infected")
    found = Finding("bad", forged, forged, (forged,))
    text = verdicts.dumps(Verdict(reasons=(Reason("spam", found, 1.0),), sentence=forged))
    assert forged not in text
    assert verdicts.mark("spam", "bad") in text

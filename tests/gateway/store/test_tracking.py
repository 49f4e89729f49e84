"""Finding mail by what people remember of it."""

import pytest

from gateway.model import Action, Envelope, Finding, Reason, State, Verdict
from gateway.store import messages, queue, tracking


@pytest.fixture
def mails(put, now):
    """Three mails, an hour apart."""
    return [
        put(mail={"envelope": Envelope("Anna@Example.ORG"), "subject": "100% real_deal", "header_message_id": "<1@x>"}),
        put(State.HELD, "carl@example.com", mail={"received_at": now + 3600, "subject": "1000 realXdeal"}),
        put(address="dora@sub.example.net", mail={"received_at": now + 7200}, verdict=Verdict(Action.TAG, 3.5)),
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({}, [2, 1, 0]),
        ({"limit": 2}, [2, 1]),
        ({"sender": "anna@example"}, [0]),
        ({"sender": "ANNA"}, [0]),
        ({"recipient": "Example.NET"}, [2, 0]),
        ({"recipient": "example.net", "sender": "anna"}, [0]),
        ({"subject": "100%"}, [0]),
        ({"subject": "real_deal"}, [0]),
        ({"subject": "100/"}, []),
        ({"sender": "' OR 1=1 --"}, []),
        ({"sender": "%"}, []),
        ({"state": State.HELD}, [1]),
        ({"action": Action.TAG}, [2]),
        ({"id": "<1@x>"}, [0]),
        ({"id": "%"}, []),
    ],
)
def test_finds_by_what_is_known(mails, look, words, expected):
    assert [each.delivery_id for each in look(tracking.find, **words)] == [mails[n].id for n in expected]


def test_finds_by_time(mails, look, now):
    assert [each.delivery_id for each in look(tracking.find, since=now + 3600)] == [mails[2].id, mails[1].id]
    assert [each.delivery_id for each in look(tracking.find, since=now, until=now + 3600)] == [mails[0].id]


def test_finds_by_the_id_of_the_mail(mails, look):
    (found,) = look(tracking.find, id=mails[1].message_id)
    assert (found.recipient, found.state, found.action, found.score) == (
        "carl@example.com",
        State.HELD,
        Action.ACCEPT,
        0.0,
    )
    assert (found.peer, found.sender, found.size) == ("192.0.2.1", "sender@example.org", mails[1].size)


def test_a_mail_that_never_was_has_no_life(look):
    assert look(tracking.life, "nothing") is None


def test_a_life_tells_everything_in_order(put, change, look, now):
    delivery = put(mail={"evidence": {"spf": "pass"}})
    change(queue.claim, "me", 1, now, 60)
    change(queue.retry, delivery.id, "me", "451 later", now + 1, now + 2)
    change(queue.claim, "me", 1, now + 2, 60)
    change(queue.sent, delivery.id, "me", "250 taken", now + 3)
    change(messages.sweep, now + 4, 1000)
    life = look(tracking.life, delivery.message_id)
    assert [(event.kind, event.at, event.text) for event in life.events] == [
        ("queue", now, ""),
        ("retry", now + 1, "451 later"),
        ("sent", now + 3, "250 taken"),
    ]
    assert life.evidence == {"spf": "pass"}
    assert not life.message.has_bytes
    assert life.deliveries[0].delivery.state is State.SENT


# ---- By what was found, and by whom it shows -------------------------------------------------------------------


def judged(action, *reasons):
    return Verdict(
        action, 0.0, tuple(Reason(name, Finding(code, detail), effect) for name, code, detail, effect in reasons)
    )


@pytest.fixture
def found(put):
    """Mails on which filters found something, by a name of ours."""
    forged = '"filter": "macros", "code": "dde"'
    return {
        "dde": put(verdict=judged(Action.QUARANTINE, ("macros", "dde", "a.doc", Action.QUARANTINE))),
        "odd": put(verdict=judged(Action.ACCEPT, ("macros", "macro", "", 1.0), ("spf", "fail", "", 4.0))),
        "none": put(verdict=judged(Action.ACCEPT, ("spf", "pass", forged, 0.0))),
    }


@pytest.mark.parametrize(
    ("finding", "expected"),
    [
        (("macros", "dde"), {"dde"}),
        (("macros", ""), {"dde", "odd"}),
        (("spf", ""), {"odd", "none"}),
        (("spf", "fail"), {"odd"}),
        (("macro", "dde"), set()),
        (("macros", "d_e"), set()),
        (("macros", 'dde"'), set()),
    ],
)
def test_finds_by_what_a_filter_found_and_text_of_strangers_is_no_finding(found, look, finding, expected):
    ids = {one.delivery_id for one in look(tracking.find, finding=finding)}
    assert ids == {found[name].id for name in expected}


def test_a_list_says_why_the_weightiest_first(found, look):
    why = {one.delivery_id: one.why for one in look(tracking.find)}
    assert why[found["dde"].id] == ("macros/dde",)
    assert why[found["odd"].id] == ("spf/fail", "macros/macro")
    assert why[found["none"].id] == ()


@pytest.mark.parametrize(
    ("shown", "is_found"),
    [
        ("Ann <ann@shop.example>", True),
        ("ann@SHOP.example", True),
        ("ann@mail.shop.example (Ann)", True),
        ('"ann@shop.example" <x@evil.test>', True),
        ("ann@shop.example.evil.test", False),
        ("ann@otshop.example", False),
        ("ann@ot-shop.example", False),
        ("Ann of shop.example <ann@evil.test>", False),
        ("shop.example@evil.test", False),
        ("ann@shopXexample", False),
        ("", False),
    ],
)
def test_finds_by_the_domain_that_from_shows(put, look, shown, is_found):
    put(mail={"header_from": shown})
    assert len(look(tracking.find, from_domain="Shop.example")) == is_found


@pytest.mark.parametrize("shown", ["ann@xn--bcher-kva.example", "ann@bücher.example", "Ann <ann@läden.bücher.example>"])
def test_a_domain_that_from_shows_is_found_however_it_is_written(put, look, shown):
    put(mail={"header_from": shown})
    assert len(look(tracking.find, from_domain="xn--bcher-kva.example")) == 1

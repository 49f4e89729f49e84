"""The nouns: which action is the strictest, whose mail goes out, ids that sort by time."""

import time
from dataclasses import FrozenInstanceError, replace
from ipaddress import ip_address
from itertools import permutations, product

import pytest

from gateway.model import Action, Content, Direction, ListenerKind, Result, Session, new_id

PEER = ip_address("192.0.2.1")


def test_actions_are_strict_in_the_order_in_which_they_are_written():
    assert Action.strictest() is Action.ACCEPT
    for milder, stricter in zip(list(Action), [*Action][1:], strict=False):
        assert Action.strictest(milder, stricter) is stricter
        assert Action.strictest(stricter, milder) is stricter


def test_the_strictest_action_does_not_hang_on_the_order_in_which_they_come():
    for actions in permutations([Action.TAG, Action.REJECT, Action.STRIP, Action.TAG]):
        assert Action.strictest(*actions) is Action.REJECT


def test_who_comes_to_our_mx_without_a_login_comes_from_the_world_and_nobody_else():
    for kind, user in product(ListenerKind, ("", "alice")):
        session = Session(PEER, kind=kind, user=user)
        inbound = kind is ListenerKind.MX and not user
        assert session.direction is (Direction.INBOUND if inbound else Direction.OUTBOUND)


def test_a_value_does_not_change():
    with pytest.raises(FrozenInstanceError):
        Session(PEER).user = "mallory"


def test_fields_are_found_by_name_whatever_its_case_all_of_them_in_order():
    fields = (("Received", "1"), ("received", "2"), ("X-Received", "3"), ("RECEIVED", "4"), ("Receivex", "5"))
    content = Content(headers=fields)
    assert content.values("ReCeIvEd") == ["1", "2", "4"]
    assert content.values("Subject") == []


def test_the_first_property_of_a_result_counts_and_what_is_not_there_is_empty():
    result = Result("dkim", "pass", (("header.d", "a.example"), ("header.d", "b.example")))
    assert result.get("header.d") == "a.example"
    assert result.get("header.i") == ""


def test_ids_sort_by_time_and_are_never_the_same(monkeypatch):
    now = time.time()
    ids = []
    for moment in (0.0, now, now + 0.001, now + 86400 * 365 * 100):
        monkeypatch.setattr(time, "time", lambda moment=moment: moment)
        ids += [sorted(new_id() for _ in range(100))]
    flat = [one for several in ids for one in several]
    assert flat == sorted(flat)
    assert len(set(flat)) == len(flat)
    assert {len(one) for one in flat} == {18}


def test_an_id_can_stand_in_a_header_a_path_and_a_log_line():
    letters = set("".join(new_id() for _ in range(500)))
    assert letters <= set("0123456789abcdefghijklmnopqrstuvwxyz")
    assert not letters & set("ilou"), "nobody takes one for another when it is read out"


def test_a_peer_is_never_ipv4_within_ipv6() -> None:
    mapped = Session(ip_address("::ffff:192.0.2.1"))
    assert mapped == Session(ip_address("192.0.2.1"))
    assert replace(mapped, helo="a").peer == ip_address("192.0.2.1")
    assert Session(ip_address("2001:db8::1")).peer == ip_address("2001:db8::1")

"""The law sees each way in which mail can be lost, damaged or doubled: a proof is worth what its judge is worth."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.reliability import ledger, sink
from tests.reliability.ledger import Arrival, Book, Entry, Incident, Kept, judge
from tests.reliability.sender import Sender

TO = "r1.0@relay.example"
PROMISED = Entry(1, "accepted", (TO,), "a" * 18, at=1.0)
SENT = Kept(1, "a" * 18, "n1@ledger.example", TO, "sent", intact=True)
ARRIVED = Arrival(1, "a" * 18, SENT.sender, TO, intact=True, at=2.0)
FAILED = replace(SENT, state="failed")
BOUNCE = Kept(1, "b" * 18, "", SENT.sender, "sent", intact=True)
TOLD = Arrival(1, "b" * 18, "", SENT.sender, intact=True, told=(TO,), at=3.0)


@pytest.mark.parametrize("state", ["queued", "held", "mailbox"])
def test_what_is_kept_with_its_bytes_is_not_lost(state: str) -> None:
    assert judge([PROMISED], [], [replace(SENT, state=state)]).check().fates == {state: 1}


def test_what_arrived_and_is_said_to_be_sent_is_delivered() -> None:
    assert judge([PROMISED], [ARRIVED], [SENT]).check().fates == {"delivered": 1}


def test_what_failed_is_accounted_for_when_its_sender_is_told_or_will_be() -> None:
    for arrivals, kept in (
        ([TOLD], [FAILED, BOUNCE]),
        ([], [FAILED, replace(BOUNCE, state="queued")]),
        ([], [replace(FAILED, owed=True)]),
    ):
        assert judge([PROMISED], arrivals, kept).check().fates == {"bounced": 1}


def test_what_a_client_has_fetched_may_be_deleted() -> None:
    deleted = replace(SENT, state="dropped", ended_by="delete")
    assert judge([PROMISED], [], [deleted], fetched=[(PROMISED.id, TO)]).check().fates == {"fetched": 1}
    assert judge([PROMISED], [], [deleted]).lost


@pytest.mark.parametrize(
    "kept",
    [
        [],
        [SENT],
        [FAILED],
        [FAILED, BOUNCE],
        [replace(SENT, state="mailbox", intact=False)],
        [replace(SENT, state="dropped", ended_by="drop by root")],
        [replace(SENT, state="refused")],
        [replace(SENT, id="c" * 18)],
        [replace(SENT, recipient="other@relay.example")],
    ],
)
def test_everything_else_is_a_loss(kept: list[Kept]) -> None:
    report = judge([PROMISED], [], kept)
    assert report.fates["lost"] == 1
    with pytest.raises(AssertionError, match="is lost"):
        report.check()


def test_a_bounce_that_tells_of_another_recipient_does_not_count() -> None:
    assert judge([PROMISED], [replace(TOLD, told=("other@relay.example",))], [FAILED, BOUNCE]).lost


def test_damage_is_seen() -> None:
    assert judge([PROMISED], [replace(ARRIVED, intact=False)], [SENT]).damaged


def test_a_second_copy_needs_a_cause_between_the_two() -> None:
    again = replace(ARRIVED, at=5.0)
    assert judge([PROMISED], [ARRIVED, again], [SENT]).unexplained
    assert judge([PROMISED], [ARRIVED, again], [SENT], [Incident("a kill", at=6.0)]).unexplained
    assert judge([PROMISED], [ARRIVED, again], [SENT], [Incident("a kill", at=3.0)]).check().copies.total() == 1
    assert judge([PROMISED], [ARRIVED, again], [SENT], [Incident("just before", at=1.9)]).check().copies.total() == 1
    assert judge([PROMISED], [ARRIVED, again], [SENT], [Incident("long before", at=0.5)]).unexplained
    assert judge([PROMISED], [replace(ARRIVED, answered=False), again], [SENT]).check().copies.total() == 1


def test_what_is_kept_without_a_promise_needs_a_reply_that_was_lost() -> None:
    other = replace(SENT, id="d" * 18, state="queued")
    refused, unknown = Entry(1, "refused", reply="451"), Entry(1, "unknown", (TO,))
    assert judge([PROMISED, refused], [ARRIVED], [SENT, other]).unexplained
    assert judge([PROMISED, unknown], [ARRIVED], [SENT, other]).check().copies.total() == 1


def test_one_failure_has_one_bounce() -> None:
    assert judge([PROMISED], [TOLD], [FAILED, BOUNCE, replace(BOUNCE, id="e" * 18)]).unexplained


def test_one_delivery_is_kept_once() -> None:
    assert judge([PROMISED], [ARRIVED], [SENT, SENT]).unexplained


def test_a_mail_tells_whether_its_body_is_whole() -> None:
    raw = ledger.mail(7, ["a@b.example"], ledger.BIG).raw
    assert ledger.intact([b"Received: from somewhere\r\n", raw[:50], raw[50:9000], raw[9000:]])
    assert not ledger.intact([raw[:-4], b"x\r\n"])
    assert not ledger.intact([raw[:-100]])
    assert not ledger.intact([raw.replace(b"X-Ledger", b"X-Other")])
    assert ledger.mail(7, ["a@b.example"]).raw != ledger.mail(8, ["a@b.example"]).raw


def test_a_book_goes_on_where_it_ended(tmp_path: Path) -> None:
    book = Book(tmp_path / "book")
    assert [book.next_number(), book.next_number()] == [1, 2]
    book.write(replace(PROMISED, number=2))
    again = Book(tmp_path / "book")
    assert again.entries() == [replace(PROMISED, number=2)]
    assert again.next_number() == 3


# The sender and the sink, face to face


def test_the_sender_goes_on_until_all_is_taken_and_the_book_has_every_try(tmp_path: Path) -> None:
    answers = iter(["451 4.3.0 later", sink.DROP, "", "250 2.0.0 taken as " + "f" * 18, "421 4.3.2 closing"])
    taken = "250 2.0.0 taken as " + "0" * 18

    def script(verb: str, _: str) -> str | None:
        return next(answers, "") or taken if verb == "." else None

    book = Book(tmp_path / "book")
    with sink.running(script) as taker:
        make = ledger.mixed("relay.example", ["alice@in.example"], big_every=3)
        Sender(book, [taker.port], make, connections=1).send(3, within=20)
        arrivals = taker.arrivals()
    hows = [one.how for one in book.entries()]
    assert hows == ["refused", "unknown", "accepted", "accepted", "refused", "accepted"]
    assert all(one.intact for one in arrivals)
    assert [one.answered for one in arrivals if one.number == 1] == [False, True]


def test_the_sink_notes_bounces_by_number_and_recipient() -> None:
    raw = b"Received: by x id " + b"a" * 18 + b"\r\n\r\nFinal-Recipient: rfc822; r1.0@relay.example\r\n"
    noting = sink.Sink(sink.well, 0)
    noting.note("", ["n12@ledger.example"], raw, answered=True)
    (one,) = noting.arrivals()
    assert (one.number, one.id, one.told) == (12, "a" * 18, ("r1.0@relay.example",))


def test_a_script_answers_for_a_domain() -> None:
    script = sink.by_domain({"no.example": "550 5.1.1 No"})
    assert script("RCPT", "a@no.example") == "550 5.1.1 No"
    assert script("RCPT", "a@yes.example") is None
    assert script("MAIL", "a@no.example") is None

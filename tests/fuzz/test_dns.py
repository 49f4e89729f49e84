"""Whatever octets come as the answer of a name server: they are refused, or mean what dnspython too reads in them."""

import contextlib

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
from hypothesis import example, given
from hypothesis import strategies as st

from gateway import dns as ours
from gateway.dns import server
from gateway.dns.server import Missing, Question
from tests.peers.hostile_dns import FAULTS, FORGED, forged, reply, wire

QUESTIONS = [Question((b"a", b"example"), kind) for kind in ("A", "AAAA", "MX", "TXT", "PTR")]
LABELS = st.lists(st.text("abc-_0", min_size=1, max_size=20), max_size=4).map(".".join)
SECONDS = st.integers(0, (1 << 31) - 1)


def query(question):
    return dns.message.make_query(question.name, question.kind)


def replies(question):
    """Honest replies and faulty ones, all with the same id."""
    asked = query(question)
    honest = [wire(reply(asked, forged(asked))), wire(reply(asked)), no_such_name(asked, "example.", 60, 60)]
    faulty = [fault(asked, tcp, honest[0]) for fault in FAULTS.values() for tcp in (False, True)]
    return [one for one in (*honest, *faulty) if isinstance(one, bytes)]


def no_such_name(asked, zone, ttl, minimum):
    made = reply(asked, rcode=dns.rcode.NXDOMAIN)
    made.authority.append(dns.rrset.from_text(zone, ttl, "IN", "SOA", f"ns.example. admin.example. 1 2 3 4 {minimum}"))
    return wire(made)


REPLIES = [(question, one) for question in QUESTIONS for one in replies(question)]


@st.composite
def damaged(draw):
    """A reply with some octets changed, cut out or put in."""
    question, octets = draw(st.sampled_from(REPLIES))
    made = bytearray(octets)
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(2, max(2, len(made) - 1)))
        made[place : place + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return question, bytes(made)


def read(octets, question):
    """What the resolver makes of *octets*: values and seconds, or None where they are no answer."""
    if not server._is_reply(octets, octets[:2]):
        return None
    answer = server._answer(octets, question)
    if answer is None:
        return None
    with contextlib.suppress(ours._Useless, dns.exception.DNSException, ValueError):
        return ours._understood(answer, question.kind)
    return None


@given(damaged())
def test_damaged_answers_are_refused_or_read_and_never_a_crash(given_):
    question, octets = given_
    found = read(octets, question)
    assert found is None or all(type(value) in (str, bytes, tuple) for value in found[0])


@given(damaged())
@example((QUESTIONS[2], replies(QUESTIONS[2])[0]))
def test_what_is_read_is_what_dnspython_reads(given_):
    question, octets = given_
    found = read(octets, question)
    try:
        chain = dns.message.from_wire(octets).resolve_chaining()
    except Exception:  # what dnspython refuses it need not understand
        return
    if found is not None:
        assert set(found[0]) == set(ours._values(list(chain.answer or ()), question.kind))
        assert not chain.answer or found[1] == chain.minimum_ttl


@given(st.binary(max_size=200), st.sampled_from(QUESTIONS))
def test_noise_is_never_an_answer(octets, question):
    head = b"\0\0\x81\x80"
    found = read(head + octets, question)
    assert found is None or found[0] == ()


@given(LABELS, LABELS, SECONDS, SECONDS)
@example("", "", 1, 2)
def test_that_there_is_no_such_name_is_read_as_dnspython_reads_it(below, zone, ttl, minimum):
    labels = tuple(label.encode() for label in f"{below}.{zone}".split(".") if label)
    question = Question(labels, "A")
    octets = no_such_name(query(question), f"{zone}." if zone else ".", ttl, minimum)
    expected = dns.message.from_wire(octets).resolve_chaining().minimum_ttl
    assert server._missing(octets, question) == Missing(expected) == Missing(min(ttl, minimum))


@given(damaged())
def test_the_short_way_says_nothing_that_the_long_way_denies(given_):
    question, octets = given_
    if len(octets) < 12 or (quick := server._missing(octets, question)) is None:
        return
    long = server._understood(octets, question)
    if long is not None:  # what is damaged behind the SOA is read by the long way only
        assert long.rcode & 0xF == dns.rcode.NXDOMAIN
        assert not long.answer
    assert quick.ttl >= 0


def test_the_corpus_has_answers_of_every_kind():
    kinds = {question.kind for question, octets in REPLIES if (found := read(octets, question)) and found[0]}
    assert kinds == {"A", "AAAA", "MX", "TXT", "PTR"} <= {*FORGED, "TXT"}

"""What replies say to a question, and where their reading ends."""

import struct
import time
from itertools import pairwise

import dns.exception
import dns.message
import dns.name
import dns.rcode
import pytest
from dns.rdatatype import MX, TXT, A

from gateway.dns.reply import MAX_CHAIN, MAX_READ, WITHOUT_SOA, Contradiction, Reply, read
from tests.peers.hostile_dns import Query, record, reply, wire

NAME = dns.name.from_text("a.example")


def query(kind: str = "A") -> Query:
    return dns.message.make_query(NAME, kind)


def chain(length: int) -> Reply:
    """An answer for a name that *length* aliases lead away from."""
    names = [NAME, *(dns.name.from_text(f"c{number}.example") for number in range(length))]
    aliases = [record(name, "CNAME", str(target)) for name, target in pairwise(names)]
    return read(wire(reply(query(), *aliases, record(names[-1], "A", "192.0.2.1", ttl=5))))


def test_values_and_seconds_are_those_of_the_name_that_was_asked_for() -> None:
    other = record(dns.name.from_text("b.example"), "A", "203.0.113.66", ttl=1)
    answer = read(wire(reply(query(), other, record(NAME, "A", "192.0.2.1", "192.0.2.2", ttl=30))))
    values, ttl = answer.to(A)
    assert sorted(one.address for one in values) == ["192.0.2.1", "192.0.2.2"]
    assert ttl == 30
    assert answer.to(MX) == ([], WITHOUT_SOA)


def test_aliases_are_followed_as_far_as_the_limit_and_the_shortest_time_holds() -> None:
    values, ttl = chain(MAX_CHAIN - 1).to(A)
    assert [one.address for one in values] == ["192.0.2.1"]
    assert ttl == 5
    with pytest.raises(Contradiction):
        chain(MAX_CHAIN).to(A)


def test_aliases_that_bite_their_tail_are_no_answer() -> None:
    with pytest.raises(Contradiction):
        read(wire(reply(query(), record(NAME, "CNAME", "a.example.")))).to(A)


def test_a_name_that_does_not_exist_has_no_records() -> None:
    answer = read(wire(reply(query(), record(NAME, "A", "203.0.113.66"), rcode=dns.rcode.NXDOMAIN)))
    with pytest.raises(Contradiction):
        answer.to(A)


@pytest.mark.parametrize(("ttl", "minimum", "expected"), [(600, 60, 60), (60, 600, 60)])
def test_that_there_is_none_holds_as_long_as_the_soa_says(ttl: int, minimum: int, expected: int) -> None:
    made = reply(query())
    made.authority.append(record(NAME, "SOA", f"a. b. 1 2 3 4 {minimum}", ttl=ttl))
    assert read(wire(made)).to(A) == ([], expected)


def test_that_there_is_none_is_hardly_kept_where_nobody_says_for_how_long() -> None:
    assert read(wire(reply(query()))).to(A) == ([], WITHOUT_SOA)


@pytest.mark.parametrize(("kinds", "refers"), [(["NS"], True), (["SOA"], False), (["NS", "SOA"], False), ([], False)])
def test_servers_without_an_soa_are_a_referral(kinds: list[str], refers: bool) -> None:
    made = reply(query())
    for kind in kinds:
        made.authority.append(record(NAME, kind, "ns.example." if kind == "NS" else "a. b. 1 2 3 4 60"))
    assert read(wire(made)).is_referral is refers


def test_the_code_of_the_answer_has_the_bits_of_edns() -> None:
    made = dns.message.make_response(dns.message.make_query(NAME, "A", use_edns=0))
    made.set_rcode(dns.rcode.BADVERS)
    assert read(wire(made)).rcode == dns.rcode.BADVERS


def test_records_of_types_that_nobody_asks_for_are_not_understood_and_do_no_harm() -> None:
    answer = read(wire(reply(query("TXT"), record(NAME, "HINFO", '"x" "y"'), record(NAME, "TXT", '"z"'))))
    assert [one.value is None for one in answer.answer] == [True, False]
    assert answer.to(TXT)[0][0].strings == (b"z",)


def test_octets_behind_the_last_record_are_refused() -> None:
    whole = wire(reply(query(), record(NAME, "A", "192.0.2.1")))
    assert read(whole).to(A)[0]
    with pytest.raises(dns.exception.DNSException):
        read(whole + b"\0")


def test_an_answer_that_breaks_off_is_refused_wherever_it_does() -> None:
    whole = wire(reply(query("MX"), record(NAME, "MX", "10 mx.example.")))
    for end in range(len(whole)):
        with pytest.raises((dns.exception.DNSException, ValueError, struct.error)):
            read(whole[:end])


def test_reading_ends_after_so_many_records_however_deep_their_names_are() -> None:
    deep = ".".join("x" * 110)
    records = b"".join(
        dns.name.from_text(f"{number:04}.{deep}").to_wire() + struct.pack("!HHLH", A, 1, 60, 4) + bytes((192, 0, 2, 1))
        for number in range(4 * MAX_READ)
    )
    made = struct.pack("!HHHHHH", 7, 0x8180, 1, 4 * MAX_READ, 0, 0) + NAME.to_wire() + struct.pack("!HH", A, 1)
    began = time.process_time()
    assert len(read(made + records).answer) == MAX_READ
    assert time.process_time() - began < 0.5

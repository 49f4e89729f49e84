"""One name server: only what has our id and our question is its answer."""

import asyncio
from collections.abc import Sequence

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from gateway.dns import server as servers
from gateway.dns.reply import Reply
from gateway.dns.server import Missing, Question, Server
from tests.peers import processes
from tests.peers.hostile_dns import FAULTS, HARMLESS, Query, forged, name_server, record, reply, run, wire


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("192.0.2.1", "192.0.2.1:53"),
        ("192.0.2.1:5353", "192.0.2.1:5353"),
        ("[2001:db8::1]:5353", "[2001:db8::1]:5353"),
        ("[2001:db8::1]", "[2001:db8::1]:53"),
        ("2001:db8::1", "[2001:db8::1]:53"),
    ],
)
def test_servers_are_addresses_with_or_without_a_port(written: str, expected: str) -> None:
    assert str(servers.at(written)) == expected


@pytest.mark.parametrize(
    "written",
    ["resolver.example", "192.0.2.1:0", "192.0.2.1:70000", "192.0.2.1:53x", "", "192.0.2.999", "[]:53"],
)
def test_what_is_no_address_of_a_server_is_refused(written: str) -> None:
    with pytest.raises(ValueError):
        servers.at(written)


QUESTION = Question((b"a", b"example"), "A")
TRUTH = {("a.example", "A"): ["192.0.2.7"]}


def ask(at: str, question: Question = QUESTION, within: float = 2.0) -> Reply | Missing:
    return asyncio.run(servers.at(at).ask(question, within))


def addresses(answer: Reply | Missing) -> Sequence[str]:
    assert isinstance(answer, Reply)
    return [record.address for record in answer.to(dns.rdatatype.A)[0]]


def test_a_question_is_as_others_read_it() -> None:
    asked = dns.message.from_wire(b"\x12\x34" + QUESTION.wire)
    assert asked.question[0].to_text() == "a.example. IN A"
    assert asked.flags == dns.flags.RD
    assert asked.payload == servers.MAX_UDP
    assert QUESTION.name.to_text() == "a.example."


def test_each_question_comes_from_another_port_with_another_id() -> None:
    """Together they are what a forger has to guess (RFC 5452 4.5)."""
    seen = []

    async def listen(count: int) -> None:
        loop = asyncio.get_running_loop()

        class Listener(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
                seen.append((data[:2], addr[1]))

        transport, _ = await loop.create_datagram_endpoint(Listener, ("127.0.0.1", 0))
        try:
            one = Server(*transport.get_extra_info("sockname"))
            asks = (one.ask(QUESTION, 0.2) for _ in range(count))
            assert {type(error) for error in await asyncio.gather(*asks, return_exceptions=True)} == {TimeoutError}
        finally:
            transport.close()

    asyncio.run(listen(20))
    assert len({port for _, port in seen}) == 20
    assert len({identity for identity, _ in seen}) > 15


def test_what_is_not_ours_is_as_if_it_had_not_come() -> None:
    with run(TRUTH) as hostile:
        hostile.faults[""] = HARMLESS["forgery-first"]
        assert addresses(ask(f"127.0.0.1:{hostile.port}")) == ["192.0.2.7"]


def heard_behind(fault: str, within: float = 5.0) -> Reply | Missing:
    with run(TRUTH) as hostile:
        hostile.faults[""] = FAULTS[fault]
        return ask(f"127.0.0.1:{hostile.port}", within=within)


@pytest.mark.parametrize("fault", ["wrong-id", "wrong-question", "not-a-reply", "not-of-a-query", "garbage"])
def test_behind_a_forgery_alone_nothing_is_heard(fault: str) -> None:
    with pytest.raises(TimeoutError):
        heard_behind(fault, within=0.1)


@pytest.mark.parametrize(
    ("fault", "error"), [("flood", EOFError), ("huge", servers.TooLong), ("truncated-for-ever", servers.Truncated)]
)
def test_what_comes_without_end_or_never_whole_is_no_answer(fault: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        heard_behind(fault)


@pytest.mark.parametrize(("ttl", "expected"), [(600, 60.0), (20, 20.0)])
def test_that_there_is_no_such_name_holds_for_the_shorter_of_two_times(ttl: int, expected: float) -> None:
    """RFC 2308 5: the time to live of the SOA, or its last field."""
    with run(ttl=ttl) as honest:
        assert ask(f"127.0.0.1:{honest.port}") == Missing(expected)


def test_an_answer_that_names_an_soa_only_is_read_whole_where_anything_else_is_in_it() -> None:
    def with_more(query: Query, tcp: bool) -> bytes:
        made = reply(query, forged(query), rcode=dns.rcode.NXDOMAIN)
        made.authority.append(record(query.question[0].name, "SOA", "a. b. 1 2 3 4 60"))
        return wire(made)

    with name_server(with_more) as (at, _):
        assert isinstance(ask(at), Reply)


def test_a_refusal_may_leave_out_the_question_and_an_answer_may_not() -> None:
    def without_question(rcode: dns.rcode.Rcode) -> bytes:
        return (0x8180 | rcode).to_bytes(2, "big") + bytes(8)

    for rcode in (dns.rcode.SERVFAIL, dns.rcode.REFUSED):
        made = without_question(rcode)
        with name_server(lambda query, tcp, made=made: query.id.to_bytes(2, "big") + made) as (at, _):
            answer = ask(at)
            assert isinstance(answer, Reply)
            assert answer.rcode == rcode
    made = without_question(dns.rcode.NOERROR)
    with (
        name_server(lambda query, tcp: query.id.to_bytes(2, "big") + made) as (at, _),
        pytest.raises(TimeoutError),
    ):
        ask(at, within=0.1)


def test_silence_is_remembered_until_an_answer_comes_and_trials_have_their_time() -> None:
    async def play(port: int) -> list[bool]:
        one = Server("127.0.0.1", port)
        seen = [one.silent, one.wants_trial()]
        with pytest.raises(OSError):
            await one.ask(QUESTION, 0.5)
        seen += [one.silent, one.wants_trial()]
        one._trial = 0.0
        seen += [one.wants_trial(), one.wants_trial()]
        with run(TRUTH) as honest:
            one._port = honest.port
            await one.ask(QUESTION, 2.0)
        return [*seen, one.silent]

    assert asyncio.run(play(processes.free_port())) == [False, False, True, False, True, False, False]

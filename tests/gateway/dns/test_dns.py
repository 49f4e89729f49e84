"""The resolver against unbound, and against name servers that lie, stall and cut answers short."""

import asyncio
import time
from collections.abc import Coroutine, Iterator

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.resolver
import dns.rrset
import pytest

from gateway import dns as ours
from gateway.dns import Resolver
from gateway.dns import server as servers
from gateway.dns.cache import Cache
from gateway.model import Oversized, Temporary
from tests.peers import dns as peer
from tests.peers import processes
from tests.peers.hostile_dns import FAULTS, HARMLESS, LYING, HostileDns, name_server, run

RECORDS = {
    ("a.example", "A"): ["192.0.2.1", "192.0.2.2"],
    ("a.example", "AAAA"): ["2001:db8::1"],
    ("a.example", "MX"): ["20 Two.example.", "10 One.example."],
    ("null.example", "MX"): ["0 ."],
    ("alias.example", "CNAME"): ["a.example."],
    ("dangling.example", "CNAME"): ["nowhere.example."],
    ("loop.example", "CNAME"): ["loop2.example."],
    ("loop2.example", "CNAME"): ["loop.example."],
    ("txt.example", "TXT"): ["v=spf1 -all", "x" * 600],
    ("big.example", "TXT"): ["y" * 5000, "short"],
    ("many.example", "A"): [f"198.51.{number >> 8}.{number & 255}" for number in range(300)],
    ("1.2.0.192.in-addr.arpa", "PTR"): ["Host.example.", "evil\\013\\010name.example."],
    ("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", "PTR"): ["six.example."],
}


@pytest.fixture(scope="module")
def unbound() -> Iterator[peer.Dns]:
    with peer.run(RECORDS) as running:
        yield running


@pytest.fixture
def resolver(unbound: peer.Dns) -> Resolver:
    return Resolver([f"127.0.0.1:{unbound.port}"], 3.0)


def ask(question: Coroutine[None, None, object]) -> object:
    return asyncio.run(question)


def test_addresses_come_as_text(resolver: Resolver) -> None:
    assert sorted(ask(resolver.a("a.example"))) == ["192.0.2.1", "192.0.2.2"]
    assert list(ask(resolver.aaaa("A.EXAMPLE."))) == ["2001:db8::1"]


def test_mail_exchangers_come_best_first_in_lower_case(resolver: Resolver) -> None:
    assert list(ask(resolver.mx("a.example"))) == [(10, "one.example"), (20, "two.example")]


def test_a_null_mx_is_an_empty_name(resolver: Resolver) -> None:
    assert list(ask(resolver.mx("null.example"))) == [(0, "")]


def test_the_strings_of_a_txt_record_are_joined(resolver: Resolver) -> None:
    assert sorted(ask(resolver.txt("txt.example"))) == [b"v=spf1 -all", b"x" * 600]


def test_a_txt_record_above_the_limit_is_as_if_it_were_not_there(resolver: Resolver) -> None:
    assert list(ask(resolver.txt("big.example"))) == [b"short"]


def test_no_more_records_than_the_limit_are_looked_at(resolver: Resolver) -> None:
    assert len(ask(resolver.a("many.example"))) == ours.MAX_RECORDS


def test_aliases_are_followed(resolver: Resolver) -> None:
    assert sorted(ask(resolver.a("alias.example"))) == ["192.0.2.1", "192.0.2.2"]


def test_reverse_names_are_only_those_spelled_like_hosts(resolver: Resolver) -> None:
    assert list(ask(resolver.ptr("192.0.2.1"))) == ["host.example"]
    assert list(ask(resolver.ptr("2001:db8::1"))) == ["six.example"]


@pytest.mark.parametrize("name", ["nowhere.example", "txt.example", "dangling.example"])
def test_what_does_not_exist_is_an_empty_answer(resolver: Resolver, name: str) -> None:
    assert list(ask(resolver.a(name))) == []


def test_a_loop_of_aliases_cannot_be_told(resolver: Resolver) -> None:
    with pytest.raises(Temporary):
        ask(resolver.a("loop.example"))


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "a..example",
        ".example",
        "x" * 64 + ".example",
        "a." * 127 + "b",
        "bücher.example",
        "a\r\n.example",
        "a\0b",
    ],
)
def test_names_that_cannot_exist_are_empty_answers_without_a_question(name: str) -> None:
    nobody = Resolver(["127.0.0.1:1"], 0.2)  # would raise Temporary if it were asked
    assert list(ask(nobody.a(name))) == []


@pytest.mark.parametrize("address", ["", "example", "1.2.3.4.5", "192.0.2.1/24"])
def test_the_reverse_of_no_address_is_an_empty_answer(address: str) -> None:
    assert list(ask(Resolver(["127.0.0.1:1"], 0.2).ptr(address))) == []


def test_escapes_of_zone_files_mean_nothing_in_names() -> None:
    assert ours._labels("a\\046b.example") == (b"a\\046b", b"example")


def test_servfail_and_refused_cannot_be_told(unbound: peer.Dns) -> None:
    unbound.fail("broken.example")
    unbound.refuse("closed.example")
    try:
        for name in ("broken.example", "closed.example"):
            with pytest.raises(Temporary):
                ask(Resolver([f"127.0.0.1:{unbound.port}"], 2.0).txt(name))
    finally:
        unbound.heal("broken.example")
        unbound.heal("closed.example")


def test_silence_ends_at_the_deadline(unbound: peer.Dns) -> None:
    unbound.ignore("silent.example")
    try:
        with pytest.raises(Temporary, match=r"within 0\.2 s"):
            ask(Resolver([f"127.0.0.1:{unbound.port}"], 0.2).a("silent.example"))
    finally:
        unbound.heal("silent.example")


def test_a_dead_server_is_passed_over_for_the_next(unbound: peer.Dns) -> None:
    both = Resolver([f"127.0.0.1:{processes.free_port()}", f"127.0.0.1:{unbound.port}"], 0.5)
    assert list(ask(both.aaaa("a.example"))) == ["2001:db8::1"]


def test_answers_are_kept_also_that_there_is_none(unbound: peer.Dns) -> None:
    async def ask_twice() -> list[object]:
        resolver = Resolver([f"127.0.0.1:{unbound.port}"], 3.0)
        first = [await resolver.a("a.example"), await resolver.a("nowhere.example"), await resolver.a("txt.example")]
        resolver._servers = []
        second = [await resolver.a("a.example"), await resolver.a("nowhere.example"), await resolver.a("txt.example")]
        return [first, second]

    first, second = ask(ask_twice())
    assert first == second


def reply_to(
    query: dns.message.Message, *records: str, ttl: int = 60, rcode: dns.rcode.Rcode = dns.rcode.NOERROR
) -> bytes:
    reply = dns.message.make_response(query)
    reply.flags |= dns.flags.RA
    reply.set_rcode(rcode)
    name, kind = query.question[0].name, query.question[0].rdtype
    if records:
        reply.answer.append(dns.rrset.from_text(name, ttl, "IN", dns.rdatatype.to_text(kind), *records))
    return reply.to_wire(max_size=65535)


def truncated(query: dns.message.Message) -> bytes:
    reply = dns.message.make_response(query)
    reply.flags |= dns.flags.TC | dns.flags.RA
    return reply.to_wire()


def test_a_truncated_answer_is_asked_for_again_by_tcp() -> None:
    with name_server(lambda query, tcp: reply_to(query, "192.0.2.7") if tcp else truncated(query)) as (server, asked):
        assert list(ask(Resolver([server], 2.0).a("a.example"))) == ["192.0.2.7"]
    assert asked == ["udp a.example.", "tcp a.example."]


def test_an_answer_truncated_by_tcp_too_cannot_be_told() -> None:
    with name_server(lambda query, _: truncated(query)) as (server, asked), pytest.raises(Temporary):
        ask(Resolver([server], 0.5).a("a.example"))
    assert len(asked) < 20


TRUTH = {("a.example", "A"): ["192.0.2.7"], ("a.example", "TXT"): ["v=spf1 -all"]}


@pytest.fixture(scope="module")
def hostile() -> Iterator[HostileDns]:
    with run(TRUTH) as running:
        yield running


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("kind", ["a", "txt"])
def test_behind_each_fault_nobody_can_tell_and_afterwards_the_truth_comes(
    hostile: HostileDns, name: str, kind: str
) -> None:
    async def before_and_after() -> object:
        resolver = Resolver([f"127.0.0.1:{hostile.port}"], 20.0 if name == "huge" else 0.2)  # it is not waited for
        hostile.faults[""] = FAULTS[name]
        hostile.asked.clear()
        began = time.monotonic()
        try:
            with pytest.raises(Temporary) as told:
                await getattr(resolver, kind)("a.example")
        finally:
            hostile.faults.clear()
        assert (told.type is Oversized) is (name == "huge")
        assert time.monotonic() - began < 5.0
        assert len(hostile.asked) < 20
        resolver._timeout, resolver._try = 20.0, 5.0  # the machine may be busy
        return await getattr(resolver, kind)("a.example")

    assert ask(before_and_after()) == (("192.0.2.7",) if kind == "a" else (b"v=spf1 -all",))


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_faults_end_in_the_truth(hostile: HostileDns, name: str) -> None:
    hostile.faults[""] = HARMLESS[name]
    try:
        resolver = Resolver([f"127.0.0.1:{hostile.port}"], 2.0)
        assert ask(resolver.a("a.example")) == ("192.0.2.7",)
        assert ask(resolver.a("nowhere.example")) == ()
    finally:
        hostile.faults.clear()


def test_a_record_in_another_section_than_that_of_answers_is_not_believed(hostile: HostileDns) -> None:
    hostile.faults[""] = LYING["other-section"]
    try:
        assert ask(Resolver([f"127.0.0.1:{hostile.port}"], 2.0).a("a.example")) == ()
    finally:
        hostile.faults.clear()


DEEP = "x." * 110
LONGEST = {
    "A": [f"192.0.{number >> 8}.{number & 255}" for number in range(950)],
    "MX": [f"1 {number:03}.{DEEP}" for number in range(250)],
}


@pytest.mark.parametrize("kind", LONGEST)
def test_reading_the_longest_answer_does_not_hold_up_the_others(kind: str) -> None:
    async def longest_pause(server: str) -> tuple[int, float]:
        question = asyncio.ensure_future(Resolver([server], 2.0)._ask("a.example", kind))
        longest, before = 0.0, time.thread_time()
        while not question.done():
            await asyncio.sleep(0)
            longest, before = max(longest, time.thread_time() - before), time.thread_time()
        return len(await question), longest

    longest = reply_to(dns.message.make_query("a.example", kind), *LONGEST[kind])
    with name_server(lambda query, tcp: query.id.to_bytes(2, "big") + longest[2:] if tcp else truncated(query)) as (
        server,
        _,
    ):
        count, pause = ask(longest_pause(server))
    assert count == min(len(LONGEST[kind]), ours.MAX_RECORDS)
    assert pause < 0.25


# --- several servers -----------------------------------------------------------------------------------------------


def test_a_silent_server_costs_the_first_question_and_no_other_one(hostile: HostileDns) -> None:
    async def times(silent: str) -> list[float]:
        resolver = Resolver([silent, f"127.0.0.1:{hostile.port}"], 2.5)  # 1.0 s for one try
        took = []
        for number in range(4):
            began = time.monotonic()
            assert await resolver.a(f"n{number}.example") == ()
            took.append(time.monotonic() - began)
        return took

    with name_server(lambda query, tcp: ()) as (silent, asked):
        first, *others = ask(times(silent))
    assert first < 2.5
    assert max(others) < 1.0
    assert asked == ["udp n0.example."]


def test_a_server_that_comes_back_is_found_without_anybody_waiting(
    hostile: HostileDns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "TRIAL", 0.0)
    is_back: list[bool] = []

    async def dialog(first: str) -> list[float]:
        resolver = Resolver([first, f"127.0.0.1:{hostile.port}"], 2.5)  # 1.0 s for one try
        await resolver.a("n0.example")
        is_back.append(True)
        took = []
        for number in range(1, 4):
            began = time.monotonic()
            await resolver.a(f"n{number}.example")
            took.append(time.monotonic() - began)
            await asyncio.sleep(0.1)
        return took

    with name_server(lambda query, tcp: reply_to(query, "192.0.2.8") if is_back else ()) as (first, asked):
        assert max(ask(dialog(first))) < 1.0
    assert asked[-1] == "udp n3.example.", "it is asked first again"


def test_where_the_first_server_cannot_tell_the_next_is_asked(hostile: HostileDns) -> None:
    for fault in ("servfail", "refused", "referral", "loop", "formerr", "nxdomain-with-answer", "truncated-for-ever"):
        with run() as broken:
            broken.faults[""] = FAULTS[fault]
            both = Resolver([f"127.0.0.1:{broken.port}", f"127.0.0.1:{hostile.port}"], 2.0)
            assert ask(both.a("a.example")) == ("192.0.2.7",), fault


def test_the_servers_that_do_not_answer_are_told_one_by_one(hostile: HostileDns) -> None:
    dead = processes.free_port()
    resolver = Resolver([f"127.0.0.1:{dead}", f"127.0.0.1:{hostile.port}"], 0.5)
    assert ask(resolver.silent()) == [f"127.0.0.1:{dead}"]


def test_the_same_question_at_the_same_time_is_asked_once() -> None:
    async def ask_ten_times(server: str) -> list[object]:
        resolver = Resolver([server], 2.0)
        return list(await asyncio.gather(*(resolver.a("a.example") for _ in range(10))))

    with name_server(lambda query, _: reply_to(query, "192.0.2.7", ttl=0)) as (server, asked):
        assert ask(ask_ten_times(server)) == [("192.0.2.7",)] * 10
    assert asked == ["udp a.example."]


def test_one_caller_that_gives_up_leaves_the_others_their_answer() -> None:
    async def give_up(server: str) -> object:
        resolver = Resolver([server], 2.0)
        impatient, patient = (asyncio.ensure_future(resolver.a("a.example")) for _ in range(2))
        await asyncio.sleep(0)
        impatient.cancel()
        return await patient

    with name_server(lambda query, _: reply_to(query, "192.0.2.7")) as (server, _):
        assert ask(give_up(server)) == ("192.0.2.7",)


def test_an_answer_of_no_lasting_value_is_asked_for_again() -> None:
    async def ask_twice(server: str) -> None:
        resolver = Resolver([server], 2.0)
        await resolver.a("a.example")
        await resolver.a("a.example")

    with name_server(lambda query, _: reply_to(query, "192.0.2.7", ttl=0)) as (server, asked):
        ask(ask_twice(server))
    assert len(asked) == 2


def test_times_to_live_are_capped() -> None:
    async def expiry(server: str, name: str) -> float:
        resolver = Resolver([server], 2.0)
        resolver._cache = Cache(ours.CACHE_SIZE, lambda: 0.0)
        await resolver.a(name)
        return next(iter(resolver._cache._entries.values()))[0]

    with name_server(lambda query, _: reply_to(query, "192.0.2.7", ttl=10_000_000)) as (server, _):
        assert ask(expiry(server, "a.example")) == ours.MAX_TTL


def test_a_failure_is_not_kept() -> None:
    rcodes = [dns.rcode.SERVFAIL, dns.rcode.NOERROR]

    async def fail_first(server: str) -> object:
        resolver = Resolver([server], 2.0)
        with pytest.raises(Temporary):
            await resolver.a("a.example")
        return await resolver.a("a.example")

    with name_server(lambda query, _: reply_to(query, *["192.0.2.7"][len(rcodes) - 1 :], rcode=rcodes.pop(0))) as (
        server,
        _,
    ):
        assert ask(fail_first(server)) == ("192.0.2.7",)


def test_what_is_no_server_address_is_refused_at_once() -> None:
    with pytest.raises(ValueError):
        Resolver(["192.0.2.1", "resolver.example"])


def test_the_system_names_the_servers_where_none_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_configuration(*_: object, **__: object) -> None:
        raise dns.resolver.NoResolverConfiguration

    assert Resolver()._servers
    monkeypatch.setattr(dns.resolver.BaseResolver, "read_resolv_conf", no_configuration)
    assert [str(one) for one in Resolver()._servers] == ["127.0.0.1:53"]

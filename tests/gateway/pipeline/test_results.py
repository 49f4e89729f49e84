"""Authentication-Results: ours is one field by the grammar whatever strangers say, and no other bears our name."""

import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Arc, ArcSet, Finding, Result, Signature
from gateway.pipeline import results

HOST = "gw.peer.example"


def rows(name: str) -> list[str]:
    text = (Path(__file__).parents[2] / "results" / name).read_text("utf-8")
    return [line for line in text.splitlines() if not line.startswith("#")]


SPF = Result("spf", "pass", (("smtp.mailfrom", "s.example"),))
DKIM = Result(
    "dkim",
    "pass",
    (("header.d", "s.example"), ("header.s", "sel"), ("header.a", "rsa-sha256"), ("header.b", "aB+/c=12")),
)
ARC = Result("arc", "none")
DMARC = Result("dmarc", "fail", (("header.from", "s.example"), ("policy.dmarc", "reject")))


def found(*made: Result | None) -> dict[str, list[Finding]]:
    return {str(number): [Finding("code", result=result)] for number, result in enumerate(made)}


def unescaped(row: str) -> bytes:
    return row.encode().decode("unicode_escape").encode("latin-1")


# ---- What we write ------------------------------------------------------------------------------------------------


def test_each_result_has_a_line_in_the_order_of_the_checks() -> None:
    field = results.field(HOST, found(DMARC, None, ARC, DKIM, SPF))
    assert field.decode().split("\r\n") == [
        "Authentication-Results: gw.peer.example;",
        "\tspf=pass smtp.mailfrom=s.example;",
        '\tdkim=pass header.d=s.example header.s=sel header.a=rsa-sha256',
        '\t header.b="aB+/c=12";',
        "\tarc=none;",
        "\tdmarc=fail header.from=s.example policy.dmarc=reject",
        "",
    ]  # fmt: skip


def test_where_nothing_was_checked_it_says_none() -> None:
    assert (
        results.field(HOST, {})
        == results.field(HOST, found(None))
        == b"Authentication-Results: gw.peer.example;\r\n\tnone\r\n"
    )


def test_several_results_of_a_method_stay_and_equal_ones_are_said_once() -> None:
    other = Result("dkim", "fail", (("header.d", "o.example"),))
    assert results.field(HOST, found(DKIM, other, DKIM)).count(b"dkim=") == 2


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("s.example", "s.example"),
        ("a.b+c@s.example", "a.b+c@s.example"),
        ("@s.example", "@s.example"),
        ("2001:db8::1", '"2001:db8::1"'),
        ('x"; dkim=pass\r\nX: y', '"x?; dkim=pass??X: y"'),
        ("a\\b", '"a?b"'),
        ("a@b@c", '"a@b@c"'),
        ("müller.example", '"m?ller.example"'),
        (" ", '" "'),
        ("(x", '"(x"'),
    ],
)
def test_values_are_quoted_by_the_grammar(value: str, written: str) -> None:
    field = results.field(HOST, found(Result("spf", "pass", (("smtp.mailfrom", value),))))
    assert f"\tspf=pass smtp.mailfrom={written}\r\n".encode() in field


def test_what_is_no_word_is_left_out() -> None:
    odd = Result("spf", "pass", (("smtp", "x"), ("smtp.mailfrom=x a", "y"), ("smtp.helo", ""), ("a.b\r\n", "z")))
    assert results.field(HOST, found(odd, Result("x;y", "pass"), Result("x", "")), ).endswith(b"\tspf=pass\r\n")  # fmt: skip


TEXT = st.text(st.characters(codec="utf-8"), max_size=400) | st.text(';="\\()\r\n\t @.a', max_size=40)
RESULTS = st.builds(
    Result, TEXT | st.sampled_from(["spf", "dkim", "dmarc"]), TEXT | st.sampled_from(["pass", "fail"]),
    st.lists(st.tuples(TEXT | st.sampled_from(["smtp.helo", "header.d"]), TEXT), max_size=10).map(tuple),
)  # fmt: skip


@settings(max_examples=50)
@given(st.lists(RESULTS, max_size=60))
def test_whatever_strangers_are_called_it_is_one_field_by_the_grammar(made: list[Result]) -> None:
    field = results.field(HOST, found(*made))
    assert field.isascii()
    assert field.endswith(b"\r\n")
    lines = field.decode().split("\r\n")[:-1]
    assert all(0 < len(line) <= 998 and re.fullmatch(r"[\t -~]+", line) for line in lines)
    assert all(line.startswith("\t") and line.strip() for line in lines[1:])
    said = parsed("".join(lines))
    given_ = {(r.method, r.result) for r in made}
    assert [(method, result) for method, result, _ in said if (method, result) not in given_] == []
    for _, _, properties in said:
        assert len(properties) <= 10


def parsed(line: str) -> list[tuple[str, str, dict[str, str]]]:
    """RFC 8601 2.2 read strictly, from left to right; fails at the first octet that has no place in it."""
    keyword, token, domain = r"[A-Za-z0-9][A-Za-z0-9-]*", r"[!#$%&'*+.0-9A-Z^_`a-z{|}~-]+", r"[A-Za-z0-9_.-]+"
    value = rf'(?:"(?:[^"\\\r\n]|\\.)*"|(?:(?:{token})?@)?{domain}|{token})(?=[\s;]|$)'
    clause = rf"\s+(?P<method>{keyword})=(?P<result>{keyword})(?P<rest>(?:\s+{keyword}\.[A-Za-z0-9_-]+=(?:{value}))*)"
    head, said = f"Authentication-Results: {HOST};", []
    assert line.startswith(head)
    rest = line.removeprefix(head)
    if rest == "\tnone":
        return []
    while match := re.match(clause, rest):
        pairs = re.findall(rf"\s+({keyword}\.[A-Za-z0-9_-]+)=({value})", match["rest"])
        said.append((match["method"], match["result"], dict(pairs)))
        rest = rest[match.end() :]
        assert not rest or re.match(r";\s", rest), rest
        rest = rest[1:]
    assert not rest, rest
    return said


# ---- What others wrote --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", rows("forged.txt"))
def test_what_claims_to_be_ours_is_taken_out(row: str) -> None:
    assert results.genuine(b"A: b\r\n" + unescaped(row) + b"C: d\r\n e\r\n", HOST) == b"A: b\r\nC: d\r\n e\r\n"


@pytest.mark.parametrize(
    "forged",
    [
        b"Authentication-Results: " + b"(c)" * 2000 + b" gw.peer.example; dmarc=pass\r\n",
        b"Authentication-Results:" + b"\r\n " * 2000 + b"gw.peer.example; dmarc=pass\r\n",
        b"Authentication-Results: " + b"=?utf-8?Q?x?= " * 300 + b"=?utf-8?Q?gw.peer.example?=; dmarc=pass\r\n",
        b"Authentication-Results: " + b"x" * 20_000 + b" =?utf-8?Q?gw.peer.example?=; dmarc=pass\r\n",
    ],
    ids=["comments", "folds", "words", "long"],
)
def test_length_hides_nothing(forged: bytes) -> None:
    assert results.genuine(b"A: b\r\n" + forged, HOST) == b"A: b\r\n"


def test_a_name_of_ours_in_other_letters_is_ours() -> None:
    forged = "Authentication-Results: gw.müller.example; dmarc=pass\r\n".encode()
    assert results.genuine(forged, "gw.xn--mller-kva.example") == b""
    assert (
        results.genuine(b"Authentication-Results: gw.xn--Mller-KVA.example; dmarc=pass\r\n", "gw.xn--mller-kva.example")
        == b""
    )


def test_no_line_of_a_stranger_continues_a_field_of_ours() -> None:
    assert results.genuine(b" spf=pass\r\n\t more\r\nA: b\r\n c\r\n", HOST) == b"A: b\r\n c\r\n"


@pytest.mark.parametrize(
    "field",
    [
        b"Authentication-Results: other.example; spf=pass smtp.mailfrom=x@gw.peer.example smtp.helo=gw.peer.example\r\n",
        b"Authentication-Results: other.example; spf=pass smtp.helo=\"gw.peer.example\"\r\n",
        b"Authentication-Results: not-gw.peer.example; spf=pass\r\n",
        b"Authentication-Results: gw.peer.example.com; spf=pass\r\n",
        b"ARC-Authentication-Results: i=1; other.example; spf=pass\r\n",
        b"ARC-Seal: i=1; d=gw.peer.example; cv=none\r\n",
        b"X-Other: gw.peer.example\r\nOriginal-Authentication-Results: gw.peer.example; spf=pass\r\n",
        b"Authentication-Results:\r\n",
    ],
)  # fmt: skip
def test_the_results_of_others_stay(field: bytes) -> None:
    assert results.genuine(field, HOST) == field


# ---- In the name of another host of ours --------------------------------------------------------------------------

DOMAINS = frozenset({"peer.example", "xn--mller-kva.example"})


@pytest.mark.parametrize("row", rows("of_ours.txt"))
def test_no_results_of_another_host_of_ours_come_in_from_the_world(row: str) -> None:
    block = b"A: b\r\n" + unescaped(row)
    assert results.genuine(block, HOST, domains=DOMAINS) == b"A: b\r\n"


@pytest.mark.parametrize("row", rows("of_others.txt"))
def test_what_other_providers_say_of_our_domains_stays(row: str) -> None:
    assert results.genuine(unescaped(row), HOST, domains=DOMAINS) == unescaped(row)


def test_hosts_of_ours_may_bring_in_what_other_hosts_of_ours_found() -> None:
    field = b"Authentication-Results: gw2.peer.example; dmarc=pass\r\n"
    assert results.genuine(field, HOST) == field


# ---- Whatever else ------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from(["A", "Subject", "X-Y"]), st.text("ab \t", max_size=9)), max_size=9))
def test_genuine_fields_keep_every_octet(pairs: list[tuple[str, str]]) -> None:
    block = b"".join(f"{name}: {value}x\r\n\t{value}y\r\n".encode() for name, value in pairs)
    assert results.genuine(block, HOST) == block


@given(st.binary(max_size=200))
def test_no_octets_are_a_fault_and_once_is_enough(octets: bytes) -> None:
    once = results.genuine(b"Authentication-Results: " + octets + b"\r\n", HOST)
    assert results.genuine(once, HOST) == once


@pytest.mark.parametrize(
    "piece",
    [b"=?", b"(", b'="', b"\\", b" ", b"gw.", b"\xff", b"=?utf-8?Q?=28?=", b"a.", b"a,", b"\xc2\xad.", b"(=", b"\\("],
)
def test_hostile_fields_cost_little(piece: bytes) -> None:
    block = b"Authentication-Results: " + piece * (250_000 // len(piece)) + b"\r\n"
    begun = time.process_time()
    results.genuine(block, HOST, domains=DOMAINS)
    assert time.process_time() - begun < 0.5


# ---- Our sets in a chain of others --------------------------------------------------------------------------------


def chain(*sealers: str) -> Arc:
    sets = (ArcSet(n, "pass", Signature(), Signature(domain=name)) for n, name in enumerate(sealers, 1))
    return Arc(tuple(sets))


PASSED = {"arc": [Finding("pass", result=Result("arc", "pass"))]}
FAILED = {"arc": [Finding("fail", result=Result("arc", "fail"))]}


def test_our_own_sets_in_a_chain_that_holds_stay() -> None:
    sets = chain("gw.peer.example", "list.example", "peer.example", "example", "evil.gw.peer.example", "seal.example")
    assert results.own_sets(sets, PASSED, HOST) == {1, 3}
    assert results.own_sets(sets, PASSED, HOST, "seal.example") == {1, 3, 6}
    assert results.own_sets(sets, FAILED, HOST) == results.own_sets(sets, {}, HOST) == frozenset()
    assert results.own_sets(chain(""), PASSED, HOST) == frozenset()


def test_only_the_sets_that_are_kept_survive() -> None:
    one, two = (f"ARC-Authentication-Results: i={n}; {HOST}; dmarc=pass\r\n".encode() for n in (1, 2))
    assert results.genuine(one + two, HOST, {2}) == two
    plain = f"Authentication-Results: i=2; {HOST}; dmarc=pass\r\n".encode()
    assert results.genuine(plain, HOST, {2}) == b""

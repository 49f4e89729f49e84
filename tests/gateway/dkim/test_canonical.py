"""Canonical forms: the examples of RFC 6376, what dkimpy makes of small ones, and what large ones cost."""

import base64
import hashlib
import resource
import time

import pytest
from dkim.canonicalization import Relaxed, Simple
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dkim import canonical
from gateway.dkim.canonical import PIECE, Body

ALGORITHMS = {True: Relaxed, False: Simple}
BOTH = pytest.mark.parametrize("relaxed", [True, False], ids=["relaxed", "simple"])


def body_hash(octets: bytes, *, relaxed: bool, step: int = 1 << 30) -> str:
    body = Body(relaxed=relaxed)
    for start in range(0, len(octets), step):
        body.update(octets[start : start + step])
    return base64.b64encode(body.digest()).decode()


def sha256(octets: bytes) -> str:
    return base64.b64encode(hashlib.sha256(octets).digest()).decode()


# --- the examples of RFC 6376 3.4 ----------------------------------------------------------------------------------

HEADER = b"A: X\r\nB : Y\t\r\n\tZ  \r\n"
BODY = b" C \r\nD \t E\r\n\r\n\r\n"


def test_the_relaxed_example_of_the_rfc():
    assert [canonical.field(one, relaxed=True) for one in canonical.fields(HEADER)] == [b"a:X\r\n", b"b:Y Z\r\n"]
    assert body_hash(BODY, relaxed=True) == sha256(b" C\r\nD E\r\n")


def test_the_simple_example_of_the_rfc():
    assert b"".join(canonical.field(one, relaxed=False) for one in canonical.fields(HEADER)) == HEADER
    assert body_hash(BODY, relaxed=False) == sha256(b" C \r\nD \t E\r\n")


@pytest.mark.parametrize("empty", [b"", b"\r\n", b"\r\n\r\n"])
def test_an_empty_body_has_the_hashes_that_the_rfc_gives(empty):
    assert body_hash(empty, relaxed=False) == "frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY="  # 3.4.3
    assert body_hash(empty, relaxed=True) == "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="  # 3.4.4


def test_a_last_line_without_an_end_gets_one():
    assert body_hash(b"a\r\n\r\nb", relaxed=False) == sha256(b"a\r\n\r\nb\r\n")
    assert body_hash(b"a\r\n\r\nb \t", relaxed=True) == sha256(b"a\r\n\r\nb\r\n")
    assert body_hash(b"a\r\n\r\n \t", relaxed=True) == sha256(b"a\r\n")


@BOTH
def test_a_bare_cr_or_lf_is_an_octet_like_others(relaxed):
    for end in (b"\r", b"\n", b"\n\r", b"\r\r\n", b"\n\n\r\n\r\n"):
        canonical_end = end.removesuffix(b"\r\n\r\n").removesuffix(b"\r\n") + b"\r\n"
        assert body_hash(b"a" + end, relaxed=relaxed) == sha256(b"a" + canonical_end)


def test_fields_keep_their_lines_and_their_ends():
    block = b"A: 1\r\n 2\r\n\t3\r\nB:4\r\n\r\n"
    assert canonical.fields(block) == [b"A: 1\r\n 2\r\n\t3\r\n", b"B:4\r\n"]
    assert canonical.fields(b"A: 1") == [b"A: 1\r\n"]
    assert canonical.fields(b"") == []


# --- as dkimpy makes them ------------------------------------------------------------------------------------------

OCTETS = st.lists(
    st.sampled_from([b" ", b"\t", b"\r\n", b"\r\n\r\n", b"a", b"bc", b"\0", b"\xff", b":", b"  \r\n"])
).map(b"".join)


@BOTH
@given(octets=OCTETS, step=st.integers(1, 9))
@settings(max_examples=150, deadline=None)
def test_bodies_are_as_dkimpy_makes_them_in_pieces_of_any_size(relaxed, octets, step):
    octets = octets + b"\r\n" if octets else octets  # dkimpy takes white space before a missing CRLF for text
    assert body_hash(octets, relaxed=relaxed, step=step) == sha256(ALGORITHMS[relaxed].canonicalize_body(octets))


@BOTH
@given(
    octets=st.lists(st.sampled_from([b" ", b"\t", b"\r", b"\n", b"\r\n", b"a"])).map(b"".join), step=st.integers(1, 9)
)
@settings(max_examples=150, deadline=None)
def test_pieces_of_any_size_make_the_same_hash(relaxed, octets, step):
    assert body_hash(octets, relaxed=relaxed, step=step) == body_hash(octets, relaxed=relaxed)


@BOTH
@given(name=st.sampled_from([b"From", b"X-A ", b"b\t"]), value=OCTETS)
@settings(max_examples=150, deadline=None)
def test_fields_are_as_dkimpy_makes_them(relaxed, name, value):
    value = value.replace(b"\r\n", b"\r\n ").replace(b"\0", b"")
    ((their_name, their_value),) = ALGORITHMS[relaxed].canonicalize_headers([(name, value + b"\r\n")])
    assert canonical.field(name + b":" + value + b"\r\n", relaxed=relaxed) == their_name + b":" + their_value


# --- lengths -------------------------------------------------------------------------------------------------------


@given(octets=OCTETS, cuts=st.lists(st.integers(0, 12), max_size=4), step=st.integers(1, 5))
@settings(max_examples=150, deadline=None)
def test_the_first_octets_of_the_canonical_body_have_their_hash(octets, cuts, step):
    whole = Relaxed.canonicalize_body(octets + b"\r\n" if octets else octets)
    body = Body(relaxed=True, cuts=cuts)
    for start in range(0, len(octets), step):
        body.update(octets[start : start + step])
    for cut in cuts:
        assert body.digest(cut) == (hashlib.sha256(whole[:cut]).digest() if cut <= len(whole) else None)
    assert body.digest() == hashlib.sha256(whole).digest()
    assert body.size == len(whole)


# --- what large ones cost ------------------------------------------------------------------------------------------

BOMBS = {
    "spaces": b" ",
    "tabs": b"\t",
    "empty lines": b"\r\n",
    "spaces and empty lines": b" \r\n",
    "long runs": b" " * (PIECE - 1) + b"x",
    "short runs": b"  x",
    "CR alone": b"\r",
    "empty lines, then text": b"\r\n" * PIECE + b"x",
}


@BOTH
@pytest.mark.parametrize("name", BOMBS)
def test_5_mb_that_stall_others_cost_little_time_and_memory(name, relaxed):
    megabyte = BOMBS[name] * ((1 << 20) // len(BOMBS[name]))
    body, before, began = Body(relaxed=relaxed), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    for _ in range(5):
        body.update(megabyte)
    body.digest()
    assert time.process_time() - began < 0.5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4 << 10

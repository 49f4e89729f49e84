"""What is hashed of a header: the fields that h= names, from the bottom up, and the signature without its value."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dkim.canonical import fields
from gateway.dkim.reading import header_digest, name_of, selected, without_value

HEADER = fields(b"DKIM-Signature: v=1; h=a:b; b=xyz\r\nA: 1\r\nB: 1\r\na: 2\r\n")


def sha256(octets: bytes) -> bytes:
    return hashlib.sha256(octets).digest()


def test_fields_are_taken_from_the_bottom_up_each_once():
    assert selected(HEADER, ["a", "B", "a", "a", "c"], HEADER[0]) == [b"a: 2\r\n", b"B: 1\r\n", b"A: 1\r\n"]


def test_a_signature_never_signs_itself_by_name_but_others():
    other = b"DKIM-Signature: v=1; b=other\r\n"
    assert selected([*HEADER, other], ["dkim-signature", "dkim-signature"], HEADER[0]) == [other]


def test_the_digest_is_that_of_the_canonical_fields_and_of_the_signature_without_its_value_and_end():
    own = HEADER[0]
    assert header_digest(HEADER, ["a"], own, relaxed=True) == sha256(b"a:2\r\ndkim-signature:v=1; h=a:b; b=")
    assert header_digest(HEADER, ["a"], own, relaxed=False) == sha256(b"a: 2\r\nDKIM-Signature: v=1; h=a:b; b=")


@pytest.mark.parametrize(
    ("field", "emptied"),
    [
        (b"D: v=1; b=abc\r\n", b"D: v=1; b=\r\n"),
        (b"D: v=1; b =\r\n a=\r\n bc= ;\r\n\tbh=x\r\n", b"D: v=1; b =;\r\n\tbh=x\r\n"),
        (b"D: b=abc;\r\n", b"D: b=;\r\n"),
        (b"D:\r\n b=abc;n=b=x\r\n", b"D:\r\n b=;n=b=x\r\n"),
        (b"D: v=1; bb=1; B=2\r\n", b"D: v=1; bb=1; B=2\r\n"),
    ],
)
def test_the_value_of_b_is_taken_out_with_the_white_space_around_it(field, emptied):
    assert without_value(field) == emptied


def test_names_are_told_as_the_most_generous_reader_does():
    assert [name_of(one) for one in (b"From: x", b"From : x", b" FROM\t: x", b"From\r\n : x", b"Fro m:x")] == [
        "from", "from", "from", "from", "fro m",
    ]  # fmt: skip


@given(st.lists(st.binary(max_size=30)), st.lists(st.text(max_size=5)), st.binary(max_size=60), st.booleans())
def test_any_octets_have_a_digest(header, names, own, relaxed):
    assert len(header_digest(header, names, own, relaxed)) == 32

"""Lists of tags: what the grammar of RFC 6376 3.2 lets pass, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dkim.tags import Malformed, octets, parse, without_spaces


def test_white_space_around_names_and_values_is_dropped_and_the_one_within_kept():
    assert parse(b" v = 1; b=ab\r\n cd ;\r\n\tn=a b\t; ") == {"v": "1", "b": "ab cd", "n": "a b"}


def test_values_may_be_empty_and_may_hold_equal_signs():
    assert parse(b"p=;b=YQ==") == {"p": "", "b": "YQ=="}


def test_names_differ_by_case():
    assert parse(b"a=1;A=2") == {"a": "1", "A": "2"}


def test_values_may_be_utf8():
    assert parse("i=ü@x".encode()) == {"i": "ü@x"}


@pytest.mark.parametrize(
    "value",
    [
        b"", b" ", b";", b"v=1;;", b"v=1;;a=2", b";v=1", b"v", b"v=1;t", b"=1", b"1=1", b"_a=1", b"a-b=1", b"a b=1",
        b"v=1;v=1", b"v=\0", b"v=\x7f", b"v=a\nb", b"v=a\rb", b"v=\xff", b"\x0bv=1", b"v\xc2\xa0=1",
    ],
)  # fmt: skip
def test_all_else_is_malformed(value):
    with pytest.raises(Malformed):
        parse(value)


def test_base64_loses_its_white_space():
    assert without_spaces("ab c\td") == "abcd"


@given(st.binary(max_size=60))
def test_any_octets_are_read_or_malformed(value):
    try:
        tags = parse(value)
    except Malformed:
        return
    assert tags
    assert all(name.isascii() and name.isprintable() for name in tags)


@pytest.mark.parametrize("value", ["YWI=", "YWI", " Y W\tI = "])
def test_base64_is_read_with_white_space_and_without_its_end(value):
    assert octets(value) == b"ab"


@pytest.mark.parametrize("value", ["Y", "YW-I=", "YWI==", "=YWI", '"YWI="'])
def test_what_is_no_base64_is_refused(value):
    with pytest.raises(ValueError, match=r"."):
        octets(value)

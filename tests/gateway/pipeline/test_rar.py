"""Whether a RAR archive is locked, told by its headers."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pipeline import rar
from tests.packed import RUN, rar4, rar5


def test_encrypted_headers_are_told() -> None:
    assert rar.is_nameless(io.BytesIO(rar5(b"a", RUN, nameless=True)))
    assert rar.is_nameless(io.BytesIO(rar4(b"a", RUN, nameless=True)))


def test_encrypted_files_of_rar_5_are_told() -> None:
    assert rar.is_locked(io.BytesIO(rar5(b"a", RUN, locked=True)))


@pytest.mark.parametrize("octets", [rar5(b"a", RUN), rar4(b"a", RUN), b"", b"Rar!", rar.RAR5, rar.RAR4])
def test_what_is_open_or_torn_is_not_locked(octets: bytes) -> None:
    assert not rar.is_nameless(io.BytesIO(octets))
    assert not rar.is_locked(io.BytesIO(octets))


@given(st.binary(max_size=200))
def test_no_octets_stop_it(octets: bytes) -> None:
    for mark in (rar.RAR4, rar.RAR5):
        assert rar.is_locked(io.BytesIO(mark + octets)) in {True, False}
        assert rar.is_nameless(io.BytesIO(mark + octets)) in {True, False}

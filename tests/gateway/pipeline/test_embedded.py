"""Files that stand in a text: found by every reader, and nothing that a stranger writes stops one or keeps it busy."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.pipeline import embedded
from tests import tricks

MOST = 1 << 20


@pytest.mark.parametrize(
    "hidden", [b"MZ" + bytes(range(256)) * 3, b"%PDF-" + b"x" * 99, b"\x90\x90\x90MZ\0" + b"\x89PNG" * 40]
)
def test_what_was_put_into_a_text_comes_out_of_it(hidden: bytes):
    texts = dict(tricks.texts(hidden))
    sniffed = {name for name in texts if not name.startswith("base64") or embedded.sniff(hidden)}
    for name in sniffed:
        files = list(embedded.files(b"Good day\r\n\r\n" + texts[name] + b"\r\nbye\r\n", MOST))
        assert any(file.octets[: len(hidden)] == hidden for file in files), name


def test_names_are_those_in_the_text():
    texts = dict(tricks.texts(b"MZ\x90" * 40))
    assert [next(embedded.files(texts[name], MOST)).name for name in ("uuencode", "yEnc", "BinHex")] == [
        "letter.dat",
        "letter.dat",
        "x",
    ]


def test_no_more_is_given_than_is_asked_for():
    for _, text in tricks.texts(b"MZ\x90" * 1000):
        assert all(len(file.octets) <= 10 for file in embedded.files(text, 10))


@pytest.mark.parametrize(
    "text", [b"Good day.\r\nWe begin 100 times\r\n", b"key: " + b"0123456789abcdef" * 20, b"-- \r\nbye"]
)
def test_words_hashes_and_signatures_are_no_files(text: bytes):
    assert list(embedded.files(text, MOST)) == []


def test_a_sentence_that_begins_like_a_file_names_none():
    files = list(embedded.files(b"To install it,\r\nbegin by running setup.exe\r\n-- \r\nAnn\r\n", MOST))
    assert {file.name for file in files} <= {""}


PIECES = st.sampled_from(
    [
        b"begin 644 a\r\n", b"begin-base64 644 a\r\n", b"end\r\n", b"`\r\n", b"#0V%T\r\n", b"M", b"====\r\n", b"=ybegin name=a\r\n",
        b"=ypart begin=1\r\n", b"=yend\r\n", b"=", b"==", b"\r\n", b"\n", b"\x90", b":", b"$2mr", b"A" * 60, b"TVqQ" * 20, b"\xff",
        b"(This file must be converted with BinHex 4.0)\r\n\r\n:", b" ",
    ]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES | st.binary(max_size=8), max_size=30))
def test_no_text_makes_a_reader_raise(pieces):
    text = b"".join(pieces)
    for file in embedded.files(text, MOST):
        assert len(file.octets) <= MOST
    assert all(isinstance(octets, bytes) for octets in embedded.otherwise(text))


@pytest.mark.parametrize(
    "line",
    [
        b"begin 644 a\r\n", b"begin 644 a\r\n#0V%T\r\n", b"=ybegin name=a\r\n", b"=ybegin ", b"A", b"A" * 39 + b" ", b"A" * 76 + b"\r\n",
        b"AAAA\r\n", b"must be converted with BinHex:", b"must be converted with BinHex", b"$2mr2mr2mr2m", b"=", b"end\n", b"\r\n ",
    ],
)  # fmt: skip
def test_readers_take_time_by_length_and_by_nothing_else(line: bytes):
    def cost(size: int) -> float:
        text = b"begin 644 a\r\nBinHex " + line * (size // len(line))
        began = time.thread_time()
        for _ in embedded.files(text, MOST):
            pass
        return time.thread_time() - began

    assert cost(1_000_000) < 0.05 + 8 * cost(250_000)


PIECES = [b"A" * 39, b"A" * 40, b"zz", b"+/", b"=", b"==", b"\r\n", b"\n", b" ", b"\t", b".", b"-", b"%", b"\0"]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join))
def test_long_runs_are_those_that_the_expression_finds_anywhere(text):
    spans = [match.span() for match in embedded._long_runs(text)]
    assert spans == [match.span() for match in embedded._RUN.finditer(text)]

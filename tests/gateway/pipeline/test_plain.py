"""What is certain to be read in one way only is plain; whatever is not certain is odd."""

import base64
import quopri
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pipeline import mapped, plain
from gateway.pipeline.mime import Field, Header


def is_plain(*lines: str) -> bool:
    """Whether a header of these fields is plain; "\\n" folds one."""
    block = "\n".join(lines).replace("\n", "\r\n").encode("latin-1")
    pairs = (line.replace("\n", "").partition(":")[::2] for line in lines)
    return plain.plain_header(Header(tuple(Field(name, value.strip()) for name, value in pairs), 0), block)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["Subject: anything at all <>"],
        ["Content-Type: text/plain"],
        ["content-type: TEXT/Plain; charset=utf-8"],
        ['Content-Type: multipart/mixed;\n boundary="=_a b"', "MIME-Version: 1.0"],
        ["Content-Type: application/pdf; name=a.pdf", "Content-Transfer-Encoding: BASE64"],
        ['Content-Disposition: attachment; filename="a b.pdf"', "Content-ID: <x@y>"],
    ],
)
def test_headers_as_programs_write_them_are_plain(lines):
    assert is_plain(*lines)


@pytest.mark.parametrize(
    "lines",
    [
        ["Content-Type: text/plain", "Content-Type: text/html"],
        ["Content-Type: text"],
        ["Content-Type: text/plain; charset"],
        ["Content-Type: text/plain; name=a; NAME=b"],
        ['Content-Type: text/plain; name="a'],
        ['Content-Type: text/plain; name="a\\"b"'],
        ["Content-Type: text/plain (comment)"],
        ["Content-Type: text/plain; name*=utf-8''a"],
        ["Content-Transfer-Encoding: base64 x"],
        ["Content-Transfer-Encoding: x-uuencode"],
        ["Content-Disposition: attachment; filename=a b"],
        ["Content Type: text/plain"],
        ["Xcontent-Type: text/plain"],
        ["Subject: a\x00b"],
        ["Subject: a\x0bb"],
        ["Subject: a\n ", "Content-Type: text/plain"],
    ],
)
def test_headers_that_somebody_may_read_otherwise_are_odd(lines):
    assert not is_plain(*lines)


@pytest.mark.parametrize(
    ("boundary", "expected"),
    [
        (b"a", True),
        (b"=_Part 1'()+,-./:=?", True),
        (b"x" * 70, True),
        (b"x" * 71, False),
        (b"a ", False),
        (b" a", False),
        (b"", False),
        (b'a"b', False),
        (b"a\r\n", False),
        (b"a\n", False),
        (b"a;b", False),
        (b"a\xe4", False),
    ],
)
def test_boundaries_are_those_of_the_grammar(boundary, expected):
    assert plain.plain_boundary(boundary) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", True),
        (b"This is a multipart message in MIME format.\r\n", True),
        (b"x\r\n--other\r\n", False),
        (b"x\r\nContent-Type: text/html\r\n", False),
        (b"begin 644 run.exe\r\n", False),
        (b"=ybegin line=128 size=1 name=run.exe\r\n", False),
        (b"A" * 60, False),
        (b"hello world\r\n" * 1000, False),
    ],
)
def test_around_the_parts_there_is_short_text_and_nothing_else(text, expected):
    assert plain.plain_around(text) is expected


@given(st.binary(max_size=200))
def test_whatever_was_encoded_well_is_plain(octets):
    quoted = quopri.encodestring(octets).replace(b"=\n", b"=\r\n")
    encoded = base64.encodebytes(octets).replace(b"\n", b"\r\n")
    assert plain.plain_quoted(quoted)
    assert plain.plain_base64(encoded, 0, len(encoded))


@pytest.mark.parametrize("raw", [b"=", b"=x", b"=4", b"a=\n", b"a= \r\nb", b"=G0"])
def test_quoted_printable_with_a_sign_that_quotes_nothing_is_odd(raw):
    assert plain.plain_quoted(raw) is (raw == b"=")  # at the end it is a soft line break


@pytest.mark.parametrize(
    "raw",
    [
        b"QUJD=QUJD",
        b"QUI=QUJD",
        b"QUJ",
        b"QUJDRA",
        b"QU=D",
        b"QUJD====",
        b"QUJD!",
        b"Q U J D",
        b"QUJD\r\n--",
        b"=QUJ",
        b"QQ==\r\nQQ==",
    ],
)
def test_base64_with_anything_else_in_it_is_odd(raw):
    assert not plain.plain_base64(raw, 0, len(raw))


def test_base64_is_looked_at_between_its_places_alone():
    data = b"\xff!" + b"QUJD\r\n" + b"--B"
    assert plain.plain_base64(data, 2, 8)
    assert not plain.plain_base64(data, 1, 8)
    assert not plain.plain_base64(data, 2, 9)


@pytest.mark.parametrize("place", [0, mapped.WINDOW - 1, mapped.WINDOW, 2 * mapped.WINDOW + 3])
def test_one_odd_octet_is_found_wherever_it_stands_in_a_large_message(place):
    octets = bytearray(b"QUJD" * (mapped.WINDOW * 5 // 8))
    with tempfile.TemporaryFile() as file:
        file.write(octets)
        file.flush()
        with mapped.mapped(file.fileno()) as data:
            assert plain.plain_base64(data, 0, len(octets))
        octets[place] = ord("!")
        file.seek(0)
        file.write(octets)
        file.flush()
        with mapped.mapped(file.fileno()) as data:
            assert not plain.plain_base64(data, 0, len(octets))

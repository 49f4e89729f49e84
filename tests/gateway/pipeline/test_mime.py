"""The grammar of MIME header fields, read as mail programs read it."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pipeline import mime


def test_what_is_shown_of_a_header_is_the_first_of_each_field_decoded_and_on_one_line():
    block = (
        b"X-Subject: no\r\nSUBJECT : =?utf-8?q?gr=C3=BC?=\r\n =?utf-8?q?n?=\r\nSubject: two\r\nFrom: a\r\n\tSubject: b"
        b"\r\nMessage-ID:<1@x>\r\n"
    )
    assert mime.shown(block) == ("gr\xfcn", "a\tSubject: b", "<1@x>")
    assert mime.shown(b"") == ("", "", "")
    assert mime.shown(b"Subject: \xfc\r\n").subject == "\xfc"
    assert len(mime.shown(b"Subject:" + b"x" * 200_000 + b"\r\n").subject) == mime.MAX_SHOWN


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("text/plain", "text/plain"),
        (" Text/HTML; charset=x", "text/html"),
        ("multipart/mixed;boundary=b", "multipart/mixed"),
        ("text", ""),
        ("", ""),
        ("te xt/plain", ""),
    ],
)
def test_media_types(value, kind):
    assert mime.media_type(value) == kind


@pytest.mark.parametrize(
    ("value", "parameters"),
    [
        ("a/b; x=1; Y=2", {"x": "1", "y": "2"}),
        ('a/b; x="1; y=2"; z=3', {"x": "1; y=2", "z": "3"}),
        ("a/b; x=1; x=2", {"x": "1"}),
        ('a/b; x="unclosed', {"x": '"unclosed'}),
        ("a/b; x*0=a; x*1=b; x*2=c", {"x": "abc"}),
        ("a/b; x*1=b; x*0=a", {"x": "ab"}),
        ("a/b; x*=iso-8859-1'de'%FC", {"x": "ü"}),
        ("a/b; x*=utf-7''+ADw-", {"x": "+ADw-"}),
        ("a/b; x*=iso-8859-99''a", {"x": "a"}),
        ("a/b;;;; =; x", {}),
    ],
)
def test_parameters(value, parameters):
    assert mime.parameters(value) == parameters


def test_a_parameter_behind_many_others_is_read_too():
    assert mime.parameters("a/b" + "".join(f"; p{n}=1" for n in range(500)) + "; name=x")["name"] == "x"


@pytest.mark.parametrize(
    ("value", "readings"),
    [
        ("x; filename=a.txt; filename=b.exe", ["a.txt", "b.exe"]),
        ("x; filename=a.txt; filename*=utf-8''b%2Eexe", ["a.txt", "b.exe"]),
        ("x; filename*0=a.; filename*1=txt; filename*1=exe", ["a.txt", "a.exe"]),
        ("x; filename=a; filename=a", ["a"]),
        ("x; name=a", []),
    ],
)
def test_a_parameter_given_twice_has_two_readings(value, readings):
    assert list(mime.readings(value, "filename")) == readings


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("=?utf-8?q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
        ("=?UTF-8?B?R3LDvMOfZQ==?=", "Grüße"),
        ("=?utf-8?q?a?= =?utf-8?q?b?=", "ab"),
        ("=?utf-8?q?a?= b", "a b"),
        ("=?iso-8859-1*de?q?=FC?=", "ü"),
        ("=?utf-8?q?a_b?=", "a b"),
        ("=?unicode_escape?q?=5Cx41?=", "\\x41"),
        ("=?utf-8?b?@@@?=", ""),
        ("=?utf-8?x?a?=", "=?utf-8?x?a?="),
        ("=?utf-8?b?QQ?=", "A"),
    ],
)
def test_encoded_words(value, text):
    assert mime.decode_words(value) == text


@pytest.mark.parametrize(
    ("value", "ambiguous"),
    [
        ('multipart/mixed; boundary="Boundary_(ID_KtnWPrcWHTTzQa7OHxPjiA)"', False),  # as Sun's servers and heirs write
        ("multipart/mixed; boundary=Boundary_(ID_KtnWPrcWHTTzQa7OHxPjiA)", True),
        ('multipart/mixed; boundary="a b"', False),
        ("multipart/mixed; boundary=a b", True),
    ],
)
def test_what_ends_a_boundary_without_quotes_stands_in_one_with_quotes(value, ambiguous):
    assert mime.is_ambiguous(mime.Header((mime.Field("Content-Type", value),), 0)) == ambiguous


@given(st.text("=?utf-8bqQ \"';*%0x/\\", max_size=200))
def test_no_value_makes_the_grammar_raise(value):
    mime.decode_words(value)
    mime.parameters("a/b;" + value)
    mime.media_type(value)


@pytest.mark.parametrize(
    "charset",
    ["utf-7", "idna", "punycode", "unicode_escape", "raw_unicode_escape", "zlib_codec", "hex", "rot13", "x" * 99],
)
def test_what_is_no_charset_of_the_list_is_latin_1(charset):
    assert mime.codec_of(charset) == ""
    assert mime.decode_text(b"+ADw-\\x41\xe9", charset) == "+ADw-\\x41é"


@pytest.mark.parametrize(
    ("charset", "raw"),
    [
        ("UTF-16", b"\xff\xfeh\0i\0"),
        ("utf-16be", b"\0h\0i"),
        ("Windows-1252", b"hi"),
        ("x-unknown", b"hi"),
        ("", b"hi"),
    ],
)
def test_texts_are_read_by_their_charset(charset, raw):
    assert mime.decode_text(raw, charset) == "hi"


def test_no_codec_is_left_to_be_imported_when_mail_comes():
    script = "import sys; from gateway.pipeline import mime; mime.prepare(); before = set(sys.modules)\n"
    script += "[b'x'.decode(codec, 'replace') for codec in mime._ALLOWED if 'utf' not in codec]\n"
    script += "print(set(sys.modules) - before)"
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "set()\n"
    )


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ('attachment; filename="a%2Eexe"', ["a%2Eexe", "a.exe"]),
        ("attachment; filename=\"utf-8''a.e%78e\"", ["utf-8''a.e%78e", "utf-8''a.exe"]),
        ('attachment; filename="100%20sure.pdf"', ["100%20sure.pdf"]),
        ('attachment; filename="100%.pdf"', ["100%.pdf"]),
        ('attachment; filename="=?utf-8?q?a b.exe?="', ["=?utf-8?q?a b.exe?=", "a b.exe"]),
    ],
)
def test_names_are_read_as_forgiving_programs_read_them_too(value, names):
    header = mime.Header((mime.Field("Content-Disposition", value),), 0)
    assert mime.filenames(header) == names

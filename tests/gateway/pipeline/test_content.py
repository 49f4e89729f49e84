"""What the confined parser sees, and where it stops."""

import base64
import binascii
import gc
from functools import reduce

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.pipeline.content import parse
from gateway.pipeline.tray import Tray
from gateway.stages import Content
from tests.packed import zipped

LIMITS = Content.Settings()


def attached(data: bytes, fields: bytes = b"Content-Type: application/octet-stream") -> bytes:
    encoded = base64.encodebytes(data).replace(b"\n", b"\r\n")
    return fields + b"\r\nContent-Transfer-Encoding: base64\r\n\r\n" + encoded


def multipart(*entities: bytes, boundary: bytes = b"b", close: bytes = b"--") -> bytes:
    body = b"".join(b"--" + boundary + b"\r\n" + entity + b"\r\n" for entity in entities)
    return (
        b"Content-Type: multipart/mixed; boundary=" + boundary + b"\r\n\r\n" + body + b"--" + boundary + close + b"\r\n"
    )


def test_a_plain_mail_has_one_part_with_its_text():
    content = parse(b"Subject: hello\r\nFrom: a@b.example\r\n\r\nGood day\r\n", LIMITS)
    assert content.headers == (("Subject", "hello"), ("From", "a@b.example"))
    assert [(part.path, part.media_type, part.text) for part in content.parts] == [("1", "text/plain", "Good day\r\n")]
    assert (content.subject, content.defects, content.unscannable) == ("hello", (), "")


def test_a_mail_that_was_read_leaves_nothing_to_the_collector_of_garbage():
    mail, tray = multipart(b"\r\nhello", attached(zipped({"a.txt": b"x"})), attached(b"Subject: a\r\n\r\nb")), Tray()
    for _ in range(2):  # what was read first may have left what is made once
        gc.collect()
        parse(mail, LIMITS, tray)
        tray.clear()
    assert gc.collect() == 0


def test_parts_are_numbered_as_mail_programs_number_them_and_know_their_place():
    inner = multipart(b"Content-Type: text/html\r\n\r\n<html>", b"\r\nplain", boundary=b"bb")
    mail = multipart(b"Content-Type: text/plain\r\n\r\none", inner)
    content = parse(mail, LIMITS)
    assert [part.path for part in content.parts] == ["1", "2.1", "2.2"]
    assert [mail[slice(*part.span)] for part in content.parts] == [
        b"Content-Type: text/plain\r\n\r\none",
        b"Content-Type: text/html\r\n\r\n<html>",
        b"\r\nplain",
    ]


@pytest.mark.parametrize(
    ("field", "name"),
    [
        (b'Content-Disposition: attachment; filename="a b.exe"', "a b.exe"),
        (b"Content-Disposition: attachment; filename=a.exe; size=3", "a.exe"),
        (b"Content-Disposition: attachment; filename*=utf-8''%E2%82%AC.exe", "€.exe"),
        (b"Content-Disposition: attachment; filename*0=\"a\"; filename*1=\".exe\"", "a.exe"),
        (b"Content-Disposition: attachment; filename*0*=utf-8''%41; filename*1=b.exe", "Ab.exe"),
        (b"Content-Type: application/x; name=\"=?utf-8?q?=E2=82=AC.exe?=\"", "€.exe"),
        (b"Content-Disposition: attachment;\r\n\tfilename=folded.exe", "folded.exe"),
        (b'Content-Disposition: attachment; filename="in\\"voice.exe"', 'in"voice.exe'),
    ],
)  # fmt: skip
def test_names_of_parts_are_read_in_every_form(field, name):
    assert [part.filename for part in parse(field + b"\r\n\r\nx", LIMITS).parts] == [name]


def test_a_name_keeps_what_turns_it_round_and_loses_what_controls_a_terminal():
    field = 'Content-Disposition: attachment; filename="a\u202efdp.exe\x1b[0m"\r\n\r\nx'.encode()
    assert [part.filename for part in parse(field, LIMITS).parts] == ["a\u202efdp.exe\ufffd[0m"]


def test_a_part_with_two_names_is_seen_under_both():
    mail = b"Content-Type: a/b; name=bad.exe\r\nContent-Disposition: inline; filename=good.txt\r\n\r\nx"
    content = parse(mail, LIMITS)
    assert {part.filename for part in content.parts} == {"bad.exe", "good.txt"}
    assert "a part is given different names" in content.defects


def test_a_name_beside_its_form_in_ascii_is_no_fault():
    mail = b"Content-Type: a/b\r\nContent-Disposition: inline; filename=\"Gr??e.pdf\"; filename*=utf-8''Gr%C3%BC%C3%9Fe.pdf\r\n\r\nx"
    content = parse(mail, LIMITS)
    assert {part.filename for part in content.parts} == {"Gr??e.pdf", "Grüße.pdf"}
    assert content.defects == ()


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "8bit"])
def test_the_type_is_sniffed_through_each_encoding(encoding):
    data = b"MZ\x90" + b"A" * 5000
    body = {"base64": base64.encodebytes(data).replace(b"\n", b"\r\n"), "quoted-printable": b"=4D=5A=90", "8bit": data}
    mail = b"Content-Type: image/png\r\nContent-Transfer-Encoding: %s\r\n\r\n" % encoding.encode() + body[encoding]
    assert parse(mail, LIMITS).parts[0].sniffed == "application/x-dosexec"


def test_base64_with_rubbish_in_it_is_read_as_mail_programs_read_it():
    mail = b"Content-Transfer-Encoding: base64\r\n\r\nT*V!q\r\nQ\x80A=A"
    assert parse(mail, LIMITS).parts[0].sniffed == "application/x-dosexec"


def test_files_inside_a_zip_inside_a_zip_are_parts():
    inner = zipped({"deep/run.exe": b"MZ" + b"\0" * 100, "a.txt": b"hi"})
    content = parse(attached(zipped({"inner.zip": inner})), LIMITS)
    assert [(part.path, part.sniffed) for part in content.parts] == [
        ("1", "application/zip"),
        ("1/inner.zip", "application/zip"),
        ("1/inner.zip/deep/run.exe", "application/x-dosexec"),
        ("1/inner.zip/a.txt", ""),
    ]


def test_an_encrypted_member_is_known_as_such():
    data = bytearray(zipped({"x.exe": b"MZ"}))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert parse(attached(bytes(data)), LIMITS).parts[1].encrypted


@pytest.mark.parametrize(
    ("mail", "words"),
    [
        (attached(zipped({str(i): b"" for i in range(2100)})), "more than 2000 files"),
        (attached(zipped({"a.zip": b"PK\3\4" + b"\0" * (65 << 20)})), "more than 200 times their size"),
        (reduce(lambda mail, n: multipart(mail, boundary=b"b%d" % n), range(25), b"\r\nx"), "more than 20 deep"),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 600, "more than 500 parts"),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--bx\r\n" * 100_100, "look like a boundary"),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b--\r\n" * 1100, "more than 500 parts"),
        (b"A: b\r\n" * 1200 + b"\r\n", "more than 1000 fields"),
        (b"A: " + b"b" * 300_000 + b"\r\n\r\n", "larger than 262144"),
        (attached(reduce(lambda data, _: zipped({"z.zip": data}), range(5), b"x")), "more than 3 deep"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_exceeds_a_limit_is_unscannable(mail, words):
    assert words in parse(mail, LIMITS).unscannable


def bounded(fields: bytes, boundary: bytes = b"B") -> bytes:
    return fields + b"\r\n\r\n--" + boundary + b"\r\n\r\nhi\r\n--" + boundary + b"--\r\n"


@pytest.mark.parametrize(
    ("mail", "words"),
    [
        (bounded(b"Content-Type: text/plain\r\nContent-Type: multipart/mixed; boundary=B"), "read in two ways"),
        (bounded(b"Content-Type: multipart/mixed; boundary=B; boundary=C"), "read in two ways"),
        (bounded(b"Content-Type: multipart/mixed; boundary*=us-ascii''C; boundary=B"), "read in two ways"),
        (bounded(b'Content-Type: multipart/mixed; boundary="B', b'"B'), "read in two ways"),
        (bounded(b"Content-Type: multipart/mixed; boundary=B (x)", b"B (x)"), "read in two ways"),
        (bounded(b"Content-Type: multipart/mixed; boundary=C"), "no parts"),
        (bounded(b"Content-Type: (x) multipart/mixed; boundary=B"), "cannot be read"),
        (bounded(b"Content-Type: multipart/mixed boundary=B"), "no usable boundary"),
        (b"Content-Type: message/partial; id=x; number=1; total=2\r\n\r\nx", "a fragment"),
        (b"Content-Type: a/b\r\nContent-Transfer-Encoding: base64\r\n\r\nQQ==\r\nTVo=\r\n", "behind its end"),
    ],
)
def test_what_other_readers_may_see_otherwise_is_ambiguous(mail, words):
    content = parse(mail, LIMITS)
    assert words in "\n".join(content.ambiguities)
    assert not content.unscannable


@pytest.mark.parametrize(
    "mail",
    [
        b"Content-Type: multipart/mixed; boundary=B\r\n\r\n",
        bounded(b"Content-Type: multipart/mixed; boundary=----=_Part:1/2?", b"----=_Part:1/2?"),
        bounded(b"Content-Type: multipart/mixed; boundary=B\r\nContent-Type: multipart/mixed; boundary=B"),
        attached(b"x"),
    ],
)
def test_harmless_oddities_can_be_scanned(mail):
    assert parse(mail, LIMITS).unscannable == ""


def test_parts_behind_the_closing_delimiter_are_looked_at():
    mail = bounded(b"Content-Type: multipart/mixed; boundary=B") + b"--B\r\n" + attached(b"MZ") + b"--B--\r\n"
    assert [part.sniffed for part in parse(mail, LIMITS).parts] == ["", "application/x-dosexec"]


@pytest.mark.parametrize("kind", [b"message/global", b"message/news"])
def test_messages_by_other_names_are_walked_too(kind):
    content = parse(b"Content-Type: " + kind + b"\r\n\r\n" + attached(b"MZ"), LIMITS)
    assert content.parts[-1].sniffed == "application/x-dosexec"


@pytest.mark.parametrize(
    "value",
    [
        b"attachment; filename=a.txt; filename*=utf-8''x%2Eexe",
        b"attachment; filename=a.txt; filename=x.exe",
        b'attachment filename="x.exe"',
        b"attachment; (c) filename=x.exe",
        b"filename=x.exe",
        b"attachment;" + b" a=b;" * 48 + b" filename=x.exe",
    ],
)
def test_a_name_is_found_wherever_some_reader_would_find_it(value):
    assert "x.exe" in [part.filename for part in parse(b"Content-Disposition: " + value + b"\r\n\r\nx", LIMITS).parts]


@pytest.mark.parametrize("before", [b"JUNK", b"PK00", b"PK\7\x08", b"GIF89a"])
def test_a_zip_behind_other_octets_is_opened_where_its_name_says_zip(before):
    disposition = b"Content-Disposition: attachment; filename=a.zip"
    content = parse(attached(before + zipped({"x.exe": b"MZ"}), disposition), LIMITS)
    assert content.parts[-1].filename == "x.exe"


def test_uuencoded_files_in_a_text_are_parts():
    text = b"\r\nhello\r\nbegin 644 x.exe\r\n" + binascii.b2a_uu(b"MZ\x90\0" * 5)[:-1] + b"\r\n`\r\nend\r\n"
    file = parse(text, LIMITS).parts[-1]
    assert (file.filename, file.sniffed) == ("x.exe", "application/x-dosexec")


@pytest.mark.parametrize(
    ("mail", "defect"),
    [
        (b"no field\r\nA: b\r\n\r\n", "a header line is no field"),
        (b"From : a@b\r\n\r\n", "white space stands before the colon of a field"),
        (b"Content-Type: multipart/mixed\r\n\r\n", "a multipart has no usable boundary"),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx", "a multipart is not closed"),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\nx", "a multipart has no parts"),
        (b"Content-Type: a/b\r\nContent-Type: c/d\r\n\r\n", "a part has several Content-Type fields"),
        (b"Content-Transfer-Encoding: rot13\r\n\r\n", "a Content-Transfer-Encoding is not known"),
        (b"Content-Type: nonsense\r\n\r\n", "a Content-Type cannot be read"),
    ],
)
def test_what_contradicts_the_grammar_is_a_defect(mail, defect):
    assert defect in parse(mail, LIMITS).defects


@pytest.mark.parametrize(
    ("name", "begin", "found"),
    [("a.bin", b"<html>", True), ("a.html", b"<!-- -->", True), ("a.bin", b"x", False), ("a.html", b"%PDF-", False)],
)
def test_files_in_an_attached_page_are_parts_that_no_scanner_saw(name, begin, found):
    program = base64.b64encode(b"MZ" + bytes(100))
    page = begin + b'<script>save(atob("' + program + b'"))</script>'
    tray = Tray()
    fields = b"Content-Type: application/octet-stream; name=" + name.encode()
    content = parse(attached(page, fields), LIMITS, tray)
    assert ["application/x-dosexec" in {part.sniffed for part in content.parts}, bool(tray.unseen)] == [found, found]


def test_an_attached_message_is_walked_plain_or_encoded():
    inner = multipart(b"Content-Type: text/plain\r\n\r\nhi", attached(b"MZ" + b"\0" * 64), boundary=b"inner")
    plain = parse(b"Content-Type: message/rfc822\r\n\r\n" + inner, LIMITS)
    encoded = parse(attached(inner, b"Content-Type: message/rfc822"), LIMITS)
    assert [part.sniffed for part in plain.parts][-1] == "application/x-dosexec"
    assert [part.sniffed for part in encoded.parts][-1] == "application/x-dosexec"
    assert "an attached message is encoded" in encoded.defects


@pytest.mark.parametrize(("before", "ends"), [(b"", b"\n"), (b"", b"\r"), (b"\xef\xbb\xbf", b"\r\n")])
def test_an_attached_message_is_walked_whatever_its_lines_end_with(before, ends):
    inner = b"Subject: x\r\n" + multipart(b"\r\nhi", attached(b"MZ" + b"\0" * 64))
    content = parse(attached(before + inner.replace(b"\r\n", ends)), LIMITS)
    assert [part.sniffed for part in content.parts] == ["", "", "application/x-dosexec"]
    assert not content.ambiguities


def test_a_field_folded_with_a_tab_is_read_as_one_folded_with_a_blank():
    content = parse(b"Subject: a\r\n\tb\r\nDate: Mon, 02 Nov 2026\r\n\t10:11:12 +0100\r\n\r\n", LIMITS)
    assert content.subject == "a b"
    assert content.values("Date") == ["Mon, 02 Nov 2026 10:11:12 +0100"]


def test_no_control_character_of_a_stranger_survives_in_headers():
    content = parse("Subject: a\x1b[31m\u202eb\r\nX: \x00\x07\r\n\r\n".encode(), LIMITS)
    assert all(ord(character) >= 32 for _, value in content.headers for character in value)
    assert "\u202e" not in content.subject


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                b"Content-Type: multipart/mixed; boundary=b\r\n", b"Content-Type: message/rfc822\r\n", b"\r\n",
                b"--b\r\n", b"--b--\r\n", b"Content-Transfer-Encoding: base64\r\n", b"--b", b"\r\n--b", b"TVqQ", b" ",
                b"Content-Disposition: x; filename*0*=utf-8''%41; filename*99=\"\r\n", b"Subject: ", b"\xff\x00",
                b"PK\x03\x04", b"=?utf-8?q?",
                b"Content-Type: text/plain; charset=iso-8859-99\r\n",
            ]
        ),
        max_size=40,
    )
)  # fmt: skip
def test_no_message_makes_the_parser_raise(pieces):
    data = b"".join(pieces)
    content = parse(data, LIMITS)
    assert content.size == len(data)
    for part in content.parts:
        assert part.span is None or 0 <= part.span[0] <= part.span[1] <= len(data)

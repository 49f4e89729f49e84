"""PDFs made by hand: what each does, every way in which it can be written, and what honest ones have."""

import base64
import hashlib
import re
import time
import tomllib
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.pdf import Filter, Settings
from gateway.model import Finding, Part
from tests.laid import Laid, asked, mail_of

MB = 1 << 20
LAUNCH = b"<</S/Launch/F(calc.exe)>>"
SCRIPT = b"<</S/JavaScript/JS(app.alert\\(1\\))>>"


def check(
    *octets: bytes, settings: Settings | None = None, name: str = "a.pdf", words: Sequence[bytes] = ()
) -> list[Finding]:
    parts = [
        Part(str(n), "application/pdf", name, "application/pdf", len(one) * 4 // 3) for n, one in enumerate(octets)
    ]
    payloads = Laid({str(n): one for n, one in enumerate(octets)}, words)
    return list(asked(Filter(settings or Settings(), payloads), mail_of(*parts)))


def codes(*objects: bytes, trailer: bytes = b"/Root 1 0 R") -> list[str]:
    return [finding.code for finding in check(pdf(*objects, trailer=trailer))]


def detail(*objects: bytes) -> str:
    (found,) = check(pdf(*objects))
    return found.detail


def links(*objects: bytes, settings: Settings | None = None) -> tuple[str, ...]:
    return next((one.facts for one in check(pdf(*objects), settings=settings) if one.code == "links"), ())


def pdf(*objects: bytes, trailer: bytes = b"/Root 1 0 R") -> bytes:
    """Objects 1, 2, 3 ... of a file without a table, which readers rebuild."""
    body = b"".join(b"%d 0 obj\n%s\nendobj\n" % (number, one) for number, one in enumerate(objects, 1))
    return b"%PDF-1.7\n" + body + b"trailer\n<<" + trailer + b">>\n%%EOF\n"


def stream(octets: bytes, dictionary: bytes = b"/Filter/FlateDecode") -> bytes:
    return b"<<%s/Length %d>>\nstream\n%s\nendstream" % (dictionary, len(octets), octets)


def packed(*objects: bytes, first: int = 10) -> bytes:
    """What an object stream holds: which objects, and where, and then they themselves."""
    offsets, at = [], 0
    for number, one in enumerate(objects, first):
        offsets.append(b"%d %d " % (number, at))
        at += len(one) + 1
    return b"".join(offsets) + b" ".join(objects)


def object_stream(octets: bytes, dictionary: bytes = b"/Filter/FlateDecode") -> bytes:
    return stream(octets, b"/Type/ObjStm/N 1" + dictionary)


def catalog(action: bytes) -> bytes:
    return b"<</Type/Catalog/Pages 2 0 R/OpenAction " + action + b">>"


@pytest.mark.parametrize(
    ("action", "code"),
    [
        (SCRIPT, "javascript"),
        (b"<</S/Rendition/JS(x)>>", "javascript"),
        (b"<</S/URI/URI(javascript:alert)>>", "javascript"),
        (LAUNCH, "launch"),
        (b"<</S/GoToR/F(other.pdf)>>", "remote"),
        (b"<</S/GoToE/F(other.pdf)>>", "remote"),
        (b"<</S/ImportData/F(a.fdf)>>", "remote"),
        (b"<</S/SubmitForm/F<</FS/URL/F(http://a.example/)>>>>", "remote"),
        (b"<</S/GoToR/F(\\\\\\\\host\\\\share\\\\a.pdf)>>", "network_path"),
        (b"<</S/GoToR/F<5c5c686f73745c61>>>", "network_path"),
        (b"<</S/GoToR/F(\\134\\134host)>>", "network_path"),
        (b"<</S/GoToR/UF(\xfe\xff\0\\\\\0\\\\\0h)>>", "network_path"),
        (b"<</S/URI/URI(file://host/share)>>", "network_path"),
    ],
)
def test_an_action_behind_a_click_is_found(action, code):
    assert code in codes(b"<</Type/Annot/A " + action + b">>")


@pytest.mark.parametrize(
    "written",
    [
        b"<< /S /JavaScript /JS 5 0 R >>",
        b"<</JS(x)/S/JavaScript>>",
        b"<</S/#4aavaScript/JS(x)>>",
        b"<</S/#4A#61#76#61#53#63#72#69#70#74/JS(x)>>",
        b"<</S % a comment )\n /JavaScript\n/JS(x)>>",
        b"<</S % 9 0 obj <</A 1>> endobj\r/JavaScript/JS(x)>>",
        b"<</X(endobj)/S/JavaScript/JS<6161>>>",
        b"<</S\0/JavaScript\f/JS(x)",
    ],
)
def test_a_script_is_found_however_it_is_written(written):
    assert "javascript" in codes(written)


@pytest.mark.parametrize("name", [b"/JavaScripts", b"/Java Script", b"/Java%\nScript", b"/#4aava", b"(JavaScript)"])
def test_what_only_looks_like_a_script_is_nothing(name):
    assert codes(b"<</S" + name + b">>") == []


@pytest.mark.parametrize("prefix", [b"", b"\r\n\r\n", b"junk" * 100])
def test_junk_around_the_file_hides_nothing(prefix):
    assert [one.code for one in check(prefix + pdf(SCRIPT) + b"%%EOF\njunk")] == ["javascript"]


def test_a_header_that_stands_late_or_is_missing_hides_nothing():
    assert [one.code for one in check(b"x" * 2000 + pdf(SCRIPT))] == ["javascript"]
    assert [one.code for one in check(pdf(SCRIPT).removeprefix(b"%PDF-1.7"))] == ["javascript"]


def test_what_is_no_pdf_is_left_to_others():
    assert check(b"<html>/JavaScript</html>") == []


def test_only_pdfs_are_read():
    part = Part("0", "image/png", "a.png", "image/png", 10)
    assert asked(Filter(Settings(), Laid({"0": pdf(SCRIPT)})), mail_of(part)) == []


def test_an_update_does_not_hide_what_stood_there_before():
    assert codes(catalog(b"3 0 R"), b"", SCRIPT, trailer=b"/Root 1 0 R>>3 0 obj null endobj<<") == [
        "automatic",
        "javascript",
    ]


@pytest.mark.parametrize(
    "action", [SCRIPT, LAUNCH, b"<</S/URI/URI(http://a.example/)>>", b"<</S/Named/N/Next/Next " + LAUNCH + b">>"]
)
def test_an_action_when_the_file_is_opened_is_automatic(action):
    assert "automatic" in codes(catalog(action))
    assert "automatic" in codes(catalog(b"2 % c\n 0 R"), action)
    assert "automatic" in codes(b"<</Type/Page/AA<</O 2 0 R>>>>", action)


def test_scripts_of_the_whole_document_are_automatic():
    assert codes(b"<</Names<</JavaScript 2 0 R>>>>") == ["javascript", "automatic"]


@pytest.mark.parametrize(
    "action",
    [
        b"[3 0 R/Fit]",
        b"<</S/GoTo/D[3 0 R/XYZ 0 0 0]>>",
        b"<</S/Named/N/FirstPage>>",
        b"(chapter)",
        b"null",
        b"<</S/GoTo/D[3 0 R]/Next[<</S/Named/N/Print>>]>>",
    ],
)
def test_a_view_of_a_page_is_nothing(action):
    assert codes(catalog(action)) == []
    assert codes(catalog(b"2 0 R"), action) == []


def test_a_field_that_formats_itself_has_a_script_and_is_not_automatic():
    assert codes(b"<</FT/Tx/AA<</F " + SCRIPT + b"/K " + SCRIPT + b">>>>") == ["javascript"]


def test_actions_in_a_ring_are_followed_to_an_end():
    assert codes(catalog(b"2 0 R"), b"<</S/GoTo/Next 2 0 R>>") == []


PACKED = packed(SCRIPT, LAUNCH)
PNG_ROWS = b"".join(b"\0" + PACKED[at : at + 5].ljust(5) for at in range(0, len(PACKED), 5))
HEXADECIMAL = zlib.compress(PACKED).hex().encode() + b">"


@pytest.mark.parametrize(
    "one",
    [
        object_stream(zlib.compress(PACKED)),
        object_stream(zlib.compress(PACKED)[:-4]),
        object_stream(PACKED, b""),
        object_stream(base64.a85encode(PACKED) + b"~>", b"/Filter/ASCII85Decode"),
        object_stream(HEXADECIMAL, b"/Filter[/ASCIIHexDecode/FlateDecode]"),
        object_stream(zlib.compress(PNG_ROWS), b"/Filter/FlateDecode/DecodeParms<</Predictor 12/Columns 5>>"),
        object_stream(bytes([len(PACKED) - 1]) + PACKED + b"\x80", b"/Filter/RunLengthDecode"),
        object_stream(zlib.compress(PACKED)).replace(b"ObjStm", b"Obj#53tm"),
        object_stream(zlib.compress(PACKED)).replace(b"/Type/ObjStm", b""),
        object_stream(zlib.compress(PACKED)).replace(b"/N 1", b"/N 1%stream\n"),
        object_stream(zlib.compress(PACKED)).replace(b"/Length ", b"/Length 1"),
    ],
)
def test_objects_in_object_streams_are_seen(one):
    assert codes(one) == ["javascript", "launch"]
    assert codes(catalog(b"10 0 R"), one) == ["automatic", "javascript", "launch"]


def test_every_kind_of_prediction_is_undone():
    text, above, rows = (packed(SCRIPT) * 20)[:500], bytes(10), b""
    for number, at in enumerate(range(0, 500, 10)):
        row = text[at : at + 10]
        rows += bytes([number % 5]) + bytes(predicted(row, above, number % 5))
        above = row
    one = object_stream(zlib.compress(rows), b"/Filter/FlateDecode/DecodeParms<</Predictor 15/Columns 10>>")
    assert codes(one) == ["javascript"]


def predicted(row: bytes, above: bytes, kind: int) -> list[int]:
    left, corner = b"\0" + row, b"\0" + above
    return [(row[i] - guess(left[i], above[i], corner[i], kind)) & 255 for i in range(len(row))]


def guess(a: int, b: int, c: int, kind: int) -> int:
    """PNG, 9.2 and 9.4."""
    p = a + b - c
    nearest = a if abs(p - a) <= min(abs(p - b), abs(p - c)) else b if abs(p - b) <= abs(p - c) else c
    return [0, a, b, (a + b) // 2, nearest][kind]


def test_lzw_is_unpacked():
    codes_ = [256, *PACKED, 257]  # one code for each octet, no longer strings: 9 bits until the table has 511 entries
    bits = "".join(f"{code:09b}" for code in codes_).ljust(9 * len(codes_) + 7, "0")
    octets = int(bits[: len(bits) // 8 * 8], 2).to_bytes(len(bits) // 8, "big")
    assert codes(object_stream(octets, b"/Filter/LZWDecode")) == ["javascript", "launch"]


@pytest.mark.parametrize("how", [b"/JBIG2Decode", b"/Crypto", b"[/A85/A85/A85/A85/A85]", b" 9 0 R"])
def test_objects_that_cannot_be_unpacked_are_unreadable(how):
    assert codes(object_stream(b"x", b"/Filter" + how)) == ["unreadable"]


def test_a_broken_object_stream_is_unreadable():
    assert codes(object_stream(b"nonsense")) == ["unreadable"]


def test_the_name_of_an_object_stream_without_one_is_unreadable():
    assert codes(b"<</Type/ObjStm>>") == ["unreadable"]


def specification(name: bytes, octets: bytes) -> tuple[bytes, bytes]:
    return b"<</Type/Filespec/F(" + name + b")/EF<</F 2 0 R>>>>", stream(zlib.compress(octets), b"/Filter/FlateDecode")


@pytest.mark.parametrize(
    ("name", "octets", "expected"),
    [
        (b"a.exe", b"x", ["embedded_program"]),
        (b"A.EXE. ", b"x", ["embedded_program"]),
        (b"a.SettingContent-ms", b"<x>", ["embedded_program"]),
        (b"a.xml", b"MZ\x90", ["embedded_program"]),
        (b"a.docm", b"PK", ["embedded_file"]),
        (b"", b"abc", ["embedded_file"]),
        (b"factur-x.xml", b"<?xml?>", []),
    ],
)
def test_a_file_inside_is_judged_by_name_and_first_octets(name, octets, expected):
    assert codes(*specification(name, octets)) == expected


def test_a_file_inside_is_named_without_what_cannot_be_shown():
    assert detail(*specification(b"\xfe\xff\0a\x20\x2e\0.\0e\0x\0e", b"x")) == "a.pdf holds the file a.exe, a program"


def test_a_file_that_nothing_names_is_seen():
    assert codes(stream(b"MZ", b"/Type/EmbeddedFile")) == ["embedded_file"]


def test_a_file_inside_is_added_to_the_mail_whole():
    file = pdf(SCRIPT) * 20
    laid = Laid({"2": pdf(*specification(b"b.pdf", file))})
    part = Part("2", "application/pdf", "a.pdf", "application/pdf", 10)
    assert asked(Filter(Settings(), laid), mail_of(part)) == []
    assert laid.added == [("2", "b.pdf", file)]


def test_a_form_with_scripts_is_found():
    form = stream(zlib.compress(b"<template><event><script>x</script></event></template>"))
    assert codes(b"<</XFA[(template) 2 0 R(end) 3 0 R]>>", form) == ["javascript"]
    assert codes(b"<</XFA 2 0 R>>", form) == ["javascript"]
    assert codes(b"<</XFA 2 0 R>>", stream(zlib.compress(b"<template/>"))) == []


ASKING = b"/ID[<00>]/Encrypt<</Filter/Standard/V 2/R 3/Length 128/P 0/O(" + b"o" * 32 + b")/U(" + b"u" * 32 + b")>>"
PADDING = bytes.fromhex("28bf4e5e4e758a4164004e56fffa01082e2e00b6d0683e802f0ca9fe6453697a")


def md5(octets: bytes) -> bytes:
    return hashlib.md5(octets).digest()


def test_an_encrypted_file_is_told_and_what_can_be_seen_is_said():
    unseen = object_stream(b"\x93 not to be unpacked")
    objects = (catalog(b"2 0 R"), b"<</S/JavaScript/JS(\x81)>>", b"<</URI(\x81\x82)>>", unseen)
    found = check(pdf(*objects, trailer=b"/Root 1 0 R" + ASKING))
    assert [one.code for one in found] == ["encrypted", "automatic", "javascript"]


LYING = (b"/Encrypt 9 0 R", b"/Encrypt<</Filter/Standard/V 2/R +3>>", ASKING.replace(b"/R 3", b"/R 4711"))


@pytest.mark.parametrize("lock", [ASKING, *LYING])
def test_a_lock_hides_nothing_of_a_file_that_is_not_encrypted(lock):
    objects = (*specification(b"a.exe", b"MZ"), b"<</URI(http://a.example/)>>")
    found = codes(*objects, trailer=b"/Root 1 0 R" + lock)
    assert found == ["encrypted" if lock == ASKING else "unreadable", "embedded_program", "links"]


OTHERWISE = {
    "as it is": (16, b"/V 2/R 3/Length 128", ""),
    "of any length": (11, b"/V 2/R 3/Length 88", ""),
    "of a length for which few programs have a cipher": (8, b"/V 2/R 3/Length 64", ""),
    "of another length than it says": (16, b"/V 2/R 3/Length 40", ""),
    "of a length that stands elsewhere": (7, b"/V 4/R 4/Length 128/CF<</A<</CFM/V2/Length 7>>>>/StmF/A/StrF/A", ""),
    "of files inside alone": (16, b"/V 4/R 4/CF<</A<</CFM/V2>>>>/StmF/Identity/StrF/A/EFF/A", ""),
    "of chosen streams": (
        16,
        b"/V 4/R 4/CF<</A<</CFM/V2>>>>/StmF/Identity/StrF/A",
        "/Filter/Crypt/DecodeParms<</Name/A>>",
    ),
    "whose identifier stands elsewhere": (16, b"/V 2/R 3/Length 128", "elsewhere"),
    "whose identifier is written otherwise": (16, b"/V 2/R 3/Length 128", "#"),
}


@pytest.mark.parametrize("how", OTHERWISE)
def test_a_file_that_opens_without_a_password_is_read_however_its_lock_is_written(how):
    size, lock, more = OTHERWISE[how]
    found = check(rc4_locked(size, lock, more))
    assert [one.code for one in found] == ["embedded_program"]
    assert "a.txt" in found[0].detail


def test_objects_in_an_encrypted_stream_that_does_not_say_what_it_is_are_seen():
    hidden = zlib.compress(b"7 0 " + b" " * 6 + LAUNCH)
    (found, *_) = check(rc4_locked(16, b"/V 2/R 3/Length 128", "/F#69rst 10/N 1/Filter/FlateDecode", hidden))
    assert found.code == "launch"


def rc4_locked(size: int, lock: bytes, more: str, octets: bytes = b"MZ" + bytes(200)) -> bytes:
    """A program named a.txt, behind a *lock* whose password is empty and whose key has *size* octets (algorithm 2)."""
    identifier, owner = b"sixteen octets!!", bytes(range(65, 97))
    key = md5(PADDING + owner + bytes(4) + identifier)
    for _ in range(50):
        key = md5(key[:size])
    key = key[:size]
    proof = md5(PADDING + identifier)
    for number in range(20):
        proof = rc4(bytes(one ^ number for one in key), proof)
    name = rc4(md5(key + b"\1\0\0\0\0")[: min(16, size + 5)], b"a.txt").hex().encode()
    program = rc4(md5(key + b"\2\0\0\0\0")[: min(16, size + 5)], octets)
    given = b"[<%s>]" % identifier.hex().encode()
    ids = {"elsewhere": b"/ID 3 0 R", "#": b"/#49D" + given}.get(more, b"/ID" + given)
    whole = b"/Encrypt<</Filter/Standard%s/O<%s>/U<%s>/P 0>>" % (lock, owner.hex().encode(), proof.hex().encode())
    objects = b"<</F<%s>/EF<</F 2 0 R>>>>" % name, stream(program, more.encode() if "/" in more else b""), given
    return pdf(*objects, trailer=b"/Root 1 0 R" + whole + ids)


def rc4(key: bytes, octets: bytes) -> bytes:
    """As it is written down everywhere; libraries refuse most lengths of keys."""
    state, j, out = [*range(256)], 0, bytearray()
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    i = j = 0
    for octet in octets:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(octet ^ state[(state[i] + state[j]) % 256])
    return bytes(out)


def test_links_are_handed_on_clean_and_once():
    annotation = b"<</A<</S/URI/URI(http://a.example/\\(x\\)\\\r\n\x07)>>>>"
    utf16 = "https://é.example/".encode("utf-16-be").hex().encode()
    found = links(annotation, annotation, b"<</URI<feff" + utf16 + b">>>", b"<</URI 5 0 R>>", b"(http://b.example)")
    assert found == ("link=http://a.example/(x)", "link=https://é.example/", "link=http://b.example")


def test_the_base_of_all_links_is_one():
    assert links(b"<</URI<</Base(http://a.example/)>>>>") == ("link=http://a.example/",)


def test_of_many_links_each_host_is_shown():
    many = [b"<</URI(http://a.example/%d)>>" % n for n in range(60)]
    found = links(*many, b"<</URI(http://b.example/)>>", b"<</URI(http://[)>>")
    assert len(found) == 40
    assert found[1] == "link=http://b.example/"


def test_a_long_link_is_cut():
    assert len(links(b"<</URI(http://a.example/" + b"x" * 5000 + b")>>")[0]) == 485


def test_a_file_too_large_is_unreadable_and_read_as_far_as_may_be():
    file = pdf(SCRIPT) + b"%" * 1000
    assert [one.code for one in check(file, settings=Settings(size=len(file) - 1))] == ["unreadable", "javascript"]


def test_a_file_that_cannot_be_decoded_is_unreadable():
    part = Part("0", "application/pdf", "a.pdf", "", 10)
    assert [one.code for one in asked(Filter(Settings(), Laid({"0": b""})), mail_of(part))] == ["unreadable"]


def test_all_files_together_may_have_so_many_octets():
    file = pdf(SCRIPT)
    assert [one.code for one in check(file, file, settings=Settings(size=len(file)))] == ["javascript", "unreadable"]


def test_more_files_than_are_read_are_unreadable():
    assert [one.code for one in check(*[pdf()] * 3, settings=Settings(files=2))] == ["unreadable"]


@pytest.mark.parametrize(
    "wrong",
    [{"links": 41}, {"links": -1}, {"files": 0}, {"size": 0}, {"unpacked": 0}, {"programs": ("exe",)}, {"data": ("",)}],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError):
        Filter(Settings(**wrong), Laid({}))


MADE_BY_OTHERS = Path(__file__).parent / "pdfs"
SEEN = tomllib.loads((MADE_BY_OTHERS / "seen_by_pikepdf.toml").read_text())
OF_ACTIONS = {"JavaScript": "javascript", "Launch": "launch", "SubmitForm": "remote"}


@pytest.mark.parametrize("name", sorted(path.name for path in MADE_BY_OTHERS.glob("*.pdf")))
def test_of_files_that_others_make_as_much_is_seen_as_qpdf_sees(name):
    found = {one.code: one for one in check((MADE_BY_OTHERS / name).read_bytes())}
    seen = SEEN[name]
    if "encrypted" in found:
        assert seen.get("locked") or seen["actions"] == ["JavaScript"]
        return
    assert {f"link={link}" for link in seen["links"]} <= set(found["links"].facts if "links" in found else ())
    assert {OF_ACTIONS[one] for one in seen["actions"]} == found.keys() & set(OF_ACTIONS.values())
    assert ("embedded_program" in found) == (seen["files"] > 0 and name.startswith(("exe", "opens")))
    assert "unreadable" not in found


@pytest.mark.parametrize("name", ["asks-r3.pdf", "asks-r6.pdf"])
def test_a_password_that_stands_in_the_mail_opens_the_file(name):
    octets = (MADE_BY_OTHERS / name).read_bytes()
    assert [one.code for one in check(octets, words=[b"Dear", b"wrong"])] == ["encrypted", "embedded_file"]
    found = [one.code for one in check(octets, words=[b"Dear", b"Sesame-4711"])]
    assert found == ["password_in_mail", "automatic", "javascript", "embedded_program", "links"]


def test_a_file_that_lies_about_being_encrypted_is_read_as_it_is():
    other = (MADE_BY_OTHERS / "opens-r3-disable.pdf").read_bytes()
    lock = re.search(rb"/Encrypt (\d+) 0 R", other)
    dictionary = re.search(rb"\n%s 0 obj(.*?)endobj" % lock[1], other, re.DOTALL)[1]
    identifier = re.search(rb"/ID ?(\[.*?\])", other, re.DOTALL)[1]
    objects = (*specification(b"a.exe", b"MZ"), b"<</URI(http://a.example/)>>", object_stream(zlib.compress(PACKED)))
    honest = check(pdf(*objects))
    lying = check(pdf(*objects, trailer=b"/Root 1 0 R/Encrypt" + dictionary + b"/ID" + identifier))
    assert {(one.code, one.facts) for one in honest} <= {(one.code, one.facts) for one in lying}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["opens-r3-disable.pdf", "opens-r4-aes-disable.pdf", "opens-r6-disable.pdf"]), st.data())
def test_a_lock_that_was_changed_anywhere_opens_or_does_not(name, data):
    octets = bytearray((MADE_BY_OTHERS / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 12))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    check(bytes(octets))


COSTLY = {
    "names": b"/" * (5 * MB),
    "escapes": b"/#41#41#41" * MB,
    "comments": b"/URI" + b"%\n" * (4 * MB),
    "keys": b"/OpenAction%" * MB,
    "dictionaries": b"<<" * 100_000 + b"/EF " * 100_000,
    "object streams": b"/ObjStm " * MB,
    "streams": b"stream\nx\x9c" * MB,
    "objects": b"/OpenAction 1 0 R " + b"1 0 obj<</Next 1 0 R>>" * 500_000,
    "actions": b"/OpenAction 1 0 R " * 50_000 + b"1 0 obj<</Next[" + b"1 0 R " * 5000 + b"]>>",
    "a bomb": object_stream(zlib.compress(b"1 0 " + b" " * (100 * MB))),
    "many bombs": object_stream(zlib.compress(b"1 0 " + b" " * (3 * MB))) * 40,
    "files": b"/EF<</F 1 0 R>>" * 20_000 + b"1 0 obj" + stream(b"z" * MB, b"/Filter[/A85/A85/A85/A85]"),
    "wide rows": object_stream(
        zlib.compress(b"\4" * 250_000), b"/Filter/Fl/DecodeParms<</Predictor 15/Columns 250000>>"
    ),
    "wider rows": object_stream(
        zlib.compress(b"\4" * 10), b"/Filter/FlateDecode/DecodeParms<</Predictor 15/Columns 999999999>>"
    ),
    "deep": b"/OpenAction " + b"[" * 100_000,
}


NOT_READ = {"keys", "object streams", "a bomb", "many bombs", "wider rows", "deep"}


@pytest.mark.parametrize("name", COSTLY)
def test_what_is_made_to_cost_much_costs_little_and_is_unreadable(name):
    before = time.process_time()
    found = check(b"%PDF-1.7\n" + COSTLY[name])
    assert time.process_time() - before < 1.9
    assert name not in NOT_READ or "unreadable" in [one.code for one in found]


WHOLE = pdf(
    catalog(b"3 0 R"),
    b"<</AA<</O[3 0 R]>>/Names<</JavaScript 2 0 R>>/URI(http://a.example/)>>",
    SCRIPT,
    *specification(b"a.exe", b"MZ"),
    object_stream(zlib.compress(PACKED)),
    b"<</XFA[(a)5 0 R]>>",
    stream(zlib.compress(PNG_ROWS), b"/Type/ObjStm/Filter/FlateDecode/DecodeParms<</Predictor 12/Columns 5>>"),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(WHOLE)), st.integers(0, 8), st.binary(max_size=6)), min_size=1, max_size=12)
)
def test_a_file_that_was_changed_anywhere_is_read_or_unreadable(changes):
    octets = WHOLE
    for at, length, new in changes:
        octets = octets[:at] + new + octets[at + length :]
    before = time.process_time()
    check(octets)
    assert time.process_time() - before < 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [*b"<>[]()/% \n\\#19R", b"/EF", b"/AA", b"obj", b"/ObjStm", b"stream\n", b"/URI", b"<<", b">>", b"1 0 R "]
        )
    )
)
def test_tokens_in_any_order_are_read_or_unreadable(tokens):
    check(b"%PDF-1.7 obj" + b"".join(bytes([one]) if isinstance(one, int) else one for one in tokens))

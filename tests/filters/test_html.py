"""Every page of the collection, as attachment and as body; what is hostile costs little and is never clean."""

import base64
import ipaddress
import random
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.html import Filter, Settings
from gateway.model import Finding, Mail, Part, Session
from gateway.pipeline.content import parse
from gateway.pipeline.tray import Tray
from gateway.stages import Content as Limits
from tests.laid import Laid, asked, asked_for_print, attached, damaged, mail_of

POLICY = Path(__file__).parents[2] / "policies" / "html.toml"
CASES = tomllib.loads((Path(__file__).parent / "html" / "cases.toml").read_text("utf-8"))["case"]
CPU = 0.3
"""Seconds that a page of 256 KB may cost, whatever it holds. Twice that here: the machine is shared."""

PROGRAM = b"MZ" + bytes(62) + b"harmless " * 30
ZIP = b"PK\3\4" + bytes(range(60)) * 4
LOGIN = b'<html><form action="https://collect.example.org/"><input type="password" name="p"></form></html>'
SCRIPT = b'<script>f(atob("' + base64.b64encode(ZIP) + b'"))</script>'


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def _pieces(text: str) -> list[str]:
    return [text[at : at + 12] for at in range(0, len(text), 12)]


def _codes(octets: bytes) -> str:
    return ", ".join(map(str, octets))


FILLED = {
    "exe64": _base64(PROGRAM),
    "zip64": _base64(ZIP),
    "iso64": _base64(bytes(0x8001) + b"CD001" + bytes(99)),
    "lnk64": _base64(b"L\0\0\0\1\x14\2\0" + bytes(99)),
    "ole64": _base64(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(99)),
    "login64": _base64(LOGIN),
    "logintwice64": _base64(b'<script>document.write(atob("' + base64.b64encode(LOGIN) + b'"))</script>'),
    "filler64": _base64(random.Random(1).randbytes(3000)),
    "cipher64": _base64(random.Random(2).randbytes(3000)),
    "zipurl64": base64.urlsafe_b64encode(ZIP).decode(),
    "exehex": PROGRAM.hex(),
    "execodes": _codes(PROGRAM),
    "exehexcodes": ",".join(f"0x{octet:02x}" for octet in PROGRAM),
    "zipsigned": _codes(ZIP[:50]) + ",-1,-128,0",
    "exebackwards": _base64(PROGRAM)[::-1],
    "exepieces": " + ".join(f'"{piece}"' for piece in _pieces(_base64(PROGRAM))),
    "exelist": ", ".join(f"'{piece}'" for piece in _pieces(_base64(PROGRAM))),
    "exelines": base64.encodebytes(PROGRAM).decode(),
    "execontinued": "\\\n".join(_pieces(_base64(PROGRAM))),
    "scriptpercent": "".join(f"%{octet:02x}" for octet in SCRIPT),
    "exepercent": "".join(f"%{octet:02x}" for octet in PROGRAM),
    "loginpercent": quote(LOGIN),
    "loginescaped": "".join(f"\\x{octet:02x}" for octet in LOGIN),
    "logincodes": _codes(LOGIN),
    "evalcodes": _codes(b"eval('harmless, and long enough to be seen')"),
    "large": ",".join(str(number * 7919 % 2**31 - 2**30) for number in range(300)),
    "fractions": ",".join(f"{number}.{number}" for number in range(500)),
    "names": "".join(f"var _0x{number:04x}=_0x{number + 1:04x}(1);" for number in range(0x1000, 0x1020)),
    "brackets": "[][(![]+[])]" * 40,
}


def check(*files: tuple[Part, bytes], settings: Settings | None = None) -> Sequence[Finding]:
    payloads = Laid({part.path: octets for part, octets in files})
    return asked_for_print(Filter(settings or Settings(), payloads), mail_of(*(part for part, _ in files)))


def body(text: str, path: str = "1") -> tuple[Part, bytes]:
    return Part(path, "text/html", "", "", len(text), text=text), text.encode()


def codes(*files: tuple[Part, bytes], settings: Settings | None = None) -> list[str]:
    return sorted(finding.code for finding in check(*files, settings=settings))


def _page(case: dict[str, Any]) -> str:
    page: str = case["page"]
    for name, text in FILLED.items():
        page = page.replace(f"@{name}@", text)
    assert "@" not in page.replace("a@example.org", "")
    return page


def _file(case: dict[str, Any]) -> tuple[Part, bytes]:
    octets = _page(case).encode(case.get("charset", "utf-8"))
    return body(_page(case)) if case.get("body") else attached(case.get("file", "page.html"), octets)


@pytest.mark.parametrize("is_body", [True, False])
def test_a_file_in_a_link_is_a_file_of_the_mail_by_the_name_under_which_it_is_saved(is_body: bool) -> None:
    page = '<a download="letter.bat" href="data:x/y,echo%20hello">open</a>'
    part, octets = body(page) if is_body else attached("page.html", page.encode())
    payloads = Laid({part.path: octets})
    assert asked(Filter(Settings(), payloads), mail_of(part)) == []
    assert payloads.added == [(part.path, "letter.bat", b"echo hello")]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_what_a_page_does_is_found(case: dict[str, Any]) -> None:
    found = check(_file(case))
    assert sorted(finding.code for finding in found) == case["codes"]
    links = {fact.removeprefix("link=") for finding in found for fact in finding.facts}
    assert links >= set(case.get("links", ()))


def test_the_collection_is_large_and_has_every_code_but_one() -> None:
    assert len(CASES) >= 60
    assert {code for case in CASES for code in case["codes"]} == Filter.codes - {"unreadable"}


@pytest.mark.parametrize("case", [case for case in CASES if not case.get("body") and "file" not in case])
def test_a_page_is_one_by_its_type_its_name_or_its_beginning(case: dict[str, Any]) -> None:
    _, octets = _file(case)
    assert codes(attached("", octets, "2/1", "text/html")) == case["codes"]
    assert codes(attached("A.SHTML .", octets, "2")) == case["codes"]


def test_only_the_first_page_without_a_name_is_a_body() -> None:
    text = "<script>alert(1)</script>"
    found = check(body("<p>Hello</p>", "1.1.1"), body(text, "1.1.2"), body(text, "1.2"))
    assert [(finding.part, finding.code) for finding in found] == [("1.2", "body_active"), ("1.1.2", "script")]
    assert codes(body(text)) == ["body_active"]


def test_the_pages_of_an_office_document_are_left_to_those_who_know_it() -> None:
    page = b'<?xml version="1.0"?><?xml-stylesheet href="x"?><a><script>alert(1)</script></a>'
    document = (Part("2", "", "report.docx", "application/zip", 1), b"")
    archive = (Part("2", "", "report.zip", "application/zip", 1), b"")
    member = attached("word/document.xml", page, "2/word/document.xml")
    assert codes(document, attached("document.xml", page, "2/document.xml")) == []
    assert codes(archive, member) == ["script"]


def test_what_the_parser_has_read_as_a_message_is_not_read_again() -> None:
    assert codes((Part("2", "message/rfc822", "mail.eml", "", 500), b"")) == []


def mail_as_file(kind: str, body: bytes) -> list[str]:
    """What is found of a mail that is attached as a file of octets, when the parser has read it."""
    inner = b"From: a@example.org\r\nMIME-Version: 1.0\r\nContent-Type: %s\r\n\r\n%s" % (kind.encode(), body)
    encoded = base64.encodebytes(inner).replace(b"\n", b"\r\n")
    head = b'Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: application/octet-stream; name="fwd.eml"\r\n'
    tray = Tray()
    raw = head + b"Content-Transfer-Encoding: base64\r\n\r\n" + encoded + b"\r\n--o--\r\n"
    content = parse(raw, Limits.Settings(), tray)
    mail = Mail("id", Session(ipaddress.ip_address("192.0.2.1")), content=content)
    return [finding.code for finding in Filter(Settings(), tray).check(mail, {})]


def test_a_mail_attached_as_a_file_is_what_the_parser_saw_in_it() -> None:
    pdf = b"--i\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nJVBERi0xLjQKJSVFT0YK\r\n--i--\r\n"
    assert mail_as_file("multipart/mixed; boundary=i", pdf) == []
    assert mail_as_file("text/html", b"<form action='https://x.example/'><input type=password></form>") == ["body_form"]


def test_what_cannot_be_read_is_never_clean() -> None:
    assert codes((Part("2", "text/html", "a.html", "", 500), b"")) == ["unreadable"]
    assert codes(attached("a.html", b"<p>" * 50), settings=Settings(size=100)) == ["unreadable"]
    many = [attached("a.html", b"<p>", f"2/{number}") for number in range(3)]
    assert codes(*many, settings=Settings(pages=2)) == ["unreadable"]
    parts = b"Content-Type: multipart/related; boundary=b\n\n" + b"--b\n\n<p>\n" * 600
    assert codes(attached("a.mht", parts)) == ["unreadable"]


def test_all_bodies_and_pages_together_have_a_limit() -> None:
    text = "<script>" + "x" * 90
    mail = [body(text, f"1.{number}.1") for number in range(3)]
    assert codes(*mail, settings=Settings(size=300)) == ["body_active"] * 3
    assert codes(*mail, settings=Settings(size=150)) == ["body_active", "body_active", "unreadable", "unreadable"]
    assert codes(*mail, attached("a.html", b"<p>"), settings=Settings(size=294)) == ["body_active"] * 3 + ["unreadable"]


def test_a_large_body_is_read_to_its_end() -> None:
    octets = b"<p>" + b"x" * 300_000 + b'<img src="file://198.51.100.7/a">'
    part = Part("1", "text/html", size=len(octets), text=octets[:200_000].decode())
    assert codes((part, octets)) == ["network_path"]


def test_the_sentence_names_the_page_and_what_it_does() -> None:
    (finding,) = check(attached("a\u202e\r\n" + "x" * 500 + ".html", b"<input type=password>"))
    assert finding.detail.startswith("a???xxx")
    assert finding.detail.endswith("asks for a password")
    assert finding.part == "2"


def test_links_of_strangers_are_cleaned_and_few() -> None:
    frames = "".join(
        f'<iframe src="https://x{number}.example.org/\u202e\x1b{"y" * 900}"></iframe>' for number in range(50)
    )
    (finding,) = check(attached("a.html", frames.encode("utf-16")))
    assert len(finding.facts) == 10


def _nested(size: int) -> str:
    page = "<html><script>"
    while len(page) < size:
        page = "<html><script>" + _base64(page.encode()) + "<form>" * 1000
    return page


HOSTILE: dict[str, Callable[[int], str]] = {
    "<": lambda size: "<" * size,
    "comments": lambda size: "<!--" * (size // 4),
    "tags": lambda size: "<a " * (size // 3),
    "tags without spaces": lambda size: "<a<a" * (size // 4),
    "inputs in each other": lambda size: "<input " * (size // 7),
    "quotes in each other": lambda size: "<input a=\"<input b='" * (size // 20),
    "values without an end": lambda size: "<input x=" * (size // 9),
    "one large value": lambda size: '<input value="' + "x" * size + '" type=password>',
    "attributes": lambda size: "<input " + "a " * (size // 2) + ">",
    "scripts": lambda size: "<script>" * (size // 8),
    "references": lambda size: '<form action="' + "&#x41;" * (size // 6) + '">',
    "white space": lambda size: "<script>" + " " * size,
    "white space after location": lambda size: (
        "<script>" + "location" + " " * 5 + ("location =" + " " * 5) * (size // 15)
    ),
    "quotes": lambda size: "<script>" + '"+' * (size // 2),
    "words": lambda size: "<script>" + "A" * 52 + " " + ("B" * 52 + " ") * (size // 53),
    "base64": lambda size: "<script>" + "QUJD" * (size // 4),
    "base64 in lines": lambda size: "<script>" + ("QUJD" * 19 + "\n") * (size // 77),
    "numbers": lambda size: "<script>" + "1," * (size // 2),
    "short lists of numbers": lambda size: "<script>" + ("1," * 38 + ";") * (size // 77),
    "escapes": lambda size: "<script>" + "%41" * (size // 3),
    "escapes within escapes": lambda size: "<script>" + "%25" * (size // 3),
    "brackets": lambda size: "<script>" + ("[]()!+" * 49 + " ") * (size // 295),
    "names": lambda size: "<script>" + ("_0xabcd" * 24 + " x ") * (size // 171),
    "handlers": lambda size: " on" * (size // 3),
    "data links": lambda size: "data:text/html;a;a" * (size // 18),
    "entities": lambda size: "<!entity x '" * (size // 12),
    "large literals": lambda size: "<script>atob(x); new Blob; " + (">" + "a" * 2047 + " ") * (size // 2049),
    "UTF-7": lambda size: "utf-7" + "+ADw" * (size // 4),
    "shifts": lambda size: "\x1b(B" * (size // 3),
    "pages within pages": _nested,
    "boundaries": lambda size: "Content-Type: multipart/related\n\n" + "--\n--b\n" * (size // 7),
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_no_page_keeps_a_reader_busy(make: Callable[[int], str]) -> None:
    octets = make(1 << 18).encode("latin-1")
    begin = time.process_time()
    check(attached("a.html", octets))
    assert time.process_time() - begin < 2 * CPU
    text = octets.decode("latin-1")
    begin = time.process_time()
    check(body(text))
    assert time.process_time() - begin < 2 * CPU


@pytest.mark.parametrize("name", ["inputs in each other", "values without an end", "escapes", "boundaries"])
def test_what_is_given_up_is_told(name: str) -> None:
    assert "unreadable" in codes(attached("a.html", HOSTILE[name](1 << 20).encode("latin-1")))


def test_a_value_may_be_large() -> None:
    octets = b'<input value="' + b"x" * (1 << 20) + b'" type=password>'
    assert codes(attached("a.html", octets)) == ["password_form"]


@given(
    st.sampled_from(CASES),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=8)), max_size=20),
)
def test_no_damage_raises(case: dict[str, Any], changes: list[tuple[int, bytes]]) -> None:
    part, whole = _file(case)
    check((part, damaged(whole, changes)))


@given(st.binary(max_size=2000), st.sampled_from(["a.html", "a.svg", "a.mht", "a.xml", ""]))
def test_no_octets_raise(octets: bytes, name: str) -> None:
    check(attached(name, b"<script>" + octets))
    check(attached(name, octets, media_type="text/html"))


@given(st.text(max_size=500))
def test_no_text_hides_a_field(text: str) -> None:
    """Whatever stands before it: what one browser takes for a comment, a value or a script, another does not."""
    assert "password_form" in codes(attached("a.html", (text + '<input type="password">').encode("utf-8", "replace")))


def test_settings_that_read_nothing_are_told_when_the_policy_loads() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Filter(Settings(pages=0), Laid({}))


def test_the_shipped_policy_says_the_same_as_the_defaults() -> None:
    assert tomllib.loads(POLICY.read_text("utf-8"))["settings"] == asdict(Settings())

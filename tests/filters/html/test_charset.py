"""The octets of a page are read in every way in which some browser reads them."""

import codecs

import pytest

from filters._html import charset
from filters._html.charset import Reading

PAGE = "<script>x</script>"


def texts(octets: bytes) -> list[Reading]:
    return list(charset.readings(octets))


@pytest.mark.parametrize(
    "octets",
    [
        PAGE.encode(),
        codecs.BOM_UTF8 + PAGE.encode(),
        codecs.BOM_UTF16_LE + PAGE.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + PAGE.encode("utf-16-be"),
    ],
)
def test_a_page_is_read_by_its_mark_and_nothing_hides_it(octets: bytes) -> None:
    assert texts(octets) == [Reading(PAGE)]


@pytest.mark.parametrize("octets", [PAGE.encode("utf-16-le"), PAGE.encode("utf-16-be"), b"<scr\0ipt>x</script>"])
def test_zeros_hide_nothing_and_are_told(octets: bytes) -> None:
    assert texts(octets) == [Reading(PAGE, "NUL octets")]


@pytest.mark.parametrize("octets", [b"+ADw-script+AD4-x+ADw-/script+AD4-", b"<meta charset=utf-7> +ADw-script+AD4-"])
def test_a_page_in_utf_7_is_read_in_utf_7_too(octets: bytes) -> None:
    first, second = texts(octets)
    assert "<script>" not in first.text
    assert "<script>" in second.text
    assert second.hidden == "UTF-7"


@pytest.mark.parametrize("shift", [b"\x1b(J", b"\x1b$B", b"\x1b$@", b"\x1b(B"])
def test_shifts_amid_a_tag_hide_nothing(shift: bytes) -> None:
    (_, second) = texts(b"<scr" + shift + b"ipt>x</script>")
    assert second == Reading(PAGE, "shifts of ISO-2022")


def test_every_octet_can_be_read() -> None:
    for mark in (b"", codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        assert texts(mark + bytes(range(255, -1, -1)) + b"\xd8")[0].text

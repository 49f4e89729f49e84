"""The tray: decoded when asked, and as far as asked."""

import io
import zipfile
from collections.abc import Mapping

from gateway.model import Content, Part
from gateway.pipeline.content import gathering, grown, parse, parsed
from gateway.pipeline.tray import Tray
from gateway.stages import Content as Policy

LIMITS = Policy.Settings()
MAIL = (
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\nContent-Transfer-Encoding: base64\r\n\r\naGVsbG8=\r\n"
    b"--b\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nb=C3=A4h\r\n--b--\r\n"
)


def laid_out() -> tuple[Tray, tuple[Part, ...]]:
    tray = Tray()
    return tray, parse(MAIL, LIMITS, tray).parts


def packed(files: Mapping[str, bytes]) -> bytes:
    octets = io.BytesIO()
    with zipfile.ZipFile(octets, "w") as archive:
        for name, file in files.items():
            archive.writestr(name, file)
    return octets.getvalue()


def test_parts_are_read_decoded():
    tray, parts = laid_out()
    assert [tray.of(part, 100) for part in parts] == [b"hello", "bäh".encode()]


def test_no_more_is_given_than_was_asked_for():
    tray, parts = laid_out()
    assert tray.of(parts[0], 2) == b"he"
    assert tray.of(parts[0], 4) == b"hell"
    assert tray.of(parts[0], 3) == b"hel"


def test_what_was_asked_for_last_is_not_decoded_again():
    asked: list[int] = []
    tray = Tray()
    tray.put("1", lambda most: asked.append(most) or b"x" * min(most, 10))
    assert [tray.of(Part("1"), most) for most in (20, 5, 30)] == [b"x" * 10, b"x" * 5, b"x" * 10]
    assert asked == [20]


def test_a_part_that_is_not_there_is_empty_and_so_is_a_tray_that_was_cleared():
    tray, parts = laid_out()
    assert tray.of(Part("9"), 10) == b""
    tray.clear()
    assert tray.of(parts[0], 10) == b""


def test_no_two_files_get_one_path_whatever_their_names_are():
    tray = Tray()
    wanted = ["1/a", "1/a (2)", "1/a", "1/a", "1/a (2)", "1/a (3)"]
    assert len({tray.free(path) for path in wanted}) == len(wanted)
    tray.clear()
    assert tray.free("1/a") == "1/a"


def test_what_no_scanner_would_see_is_named_once_and_in_order():
    tray = Tray()
    for path, unseen in [("2", True), ("1", False), ("3", True), ("2", True), ("1", True)]:
        tray.put(path, lambda most: b"x"[:most], unseen=unseen)
    assert tray.unseen == ["2", "3"]
    tray.clear()
    assert tray.unseen == []


def test_a_file_that_was_found_in_a_part_is_a_part_with_what_it_holds_and_scanners_get_it():
    tray, parts = laid_out()
    content = Content(parts=parts)
    tray.add(parts[1], "a.zip", packed({"b.txt": b"harmless"}))
    found = gathering(LIMITS, tray)
    after = grown(content, found)
    assert [part.path for part in after.parts] == ["1", "2", "2/a.zip", "2/a.zip/b.txt"]
    assert tray.unseen == ["2/a.zip"]
    assert tray.of(after.parts[3], 100) == b"harmless"
    assert grown(after, found) is after


def test_files_that_exceed_a_limit_make_the_mail_unscannable():
    tray, parts = laid_out()
    tray.add(parts[0], "a", bytes(LIMITS.archive_size + 1))
    assert "more than" in grown(Content(parts=parts), gathering(LIMITS, tray)).unscannable


def test_the_limits_are_for_the_mail_and_all_that_filters_find_in_it_together():
    limits = Policy.Settings(archive_members=5, archive_size=1000)
    for file in (packed(dict.fromkeys("abc", b"a")), bytes(600)):
        tray = Tray()
        found = gathering(limits, tray)
        content = parsed(MAIL, found)
        tray.add(content.parts[0], "a", file)
        assert not (once := grown(content, found)).unscannable
        tray.add(content.parts[0], "b", file)
        assert "more than" in grown(once, found).unscannable


def test_words_that_may_be_a_password_are_those_of_the_mail():
    tray = Tray()
    parse(b"Subject: Your file\r\n\r\nThe password is Sesame\r\n", LIMITS, tray)
    assert tray.words()[0] == b"Sesame"
    tray.clear()
    assert tray.words() == []

"""What is gathered of one message: each file is a part that scanners get, and limits hold for all together."""

import gc
import weakref

import pytest

from gateway.model import Part
from gateway.pipeline.gathered import MAX_DEFECTS, Gathered, digest_of
from gateway.pipeline.tray import Tray, Unscannable
from gateway.stages import Content
from tests.packed import zipped

EML = b"From: a@b.example\r\nSubject: inner\r\nTo: c@d.example\r\n\r\nhello\r\n"


class Walk:
    """What has gathered under *limits*, and the mails that it was asked to walk."""

    def __init__(self, **limits):
        self.tray, self.mails = Tray(), []
        walked = self.mails  # not self, which would make a circle
        settings = Content.Settings.model_validate(limits)
        self.found = Gathered(settings, self.tray, lambda _, octets, path: walked.append((path, octets)))

    @property
    def paths(self):
        return [part.path for part in self.found.parts]


def test_a_file_is_a_part_that_scanners_get():
    walk = Walk()
    walk.found.file("run.exe", b"MZ harmless", "1")
    assert walk.found.parts == [Part("1/run.exe", "", "run.exe", "application/x-dosexec", 11)]
    assert walk.tray.unseen == ["1/run.exe"]
    assert walk.tray.of(walk.found.parts[0], 2) == b"MZ"


def test_files_of_one_name_stay_apart():
    walk = Walk()
    for octets in (b"one", b"two"):
        walk.found.file("a.txt", octets, "1")
    assert len(set(walk.paths)) == 2
    assert [walk.tray.of(part, 9) for part in walk.found.parts] == [b"one", b"two"]


def test_a_name_leads_to_no_other_folder():
    walk = Walk()
    walk.found.file("../../etc/passwd\r\n\x1b[2J", b"x", "1")
    (part,) = walk.found.parts
    assert part.filename.isprintable()
    assert part.path == f"1/{part.filename}"


def test_what_a_file_holds_is_gathered_in_turn():
    walk = Walk()
    walk.found.file("a.zip", zipped({"b.zip": zipped({"run.exe": b"MZ harmless"})}), "1")
    assert walk.paths == ["1/a.zip", "1/a.zip/b.zip", "1/a.zip/b.zip/run.exe"]


def test_a_mail_in_a_file_is_walked_as_a_mail():
    walk = Walk()
    walk.found.file("a.eml", EML, "1")
    assert walk.mails == [("1/a.eml", EML)]


def test_a_file_that_only_another_reading_saw_says_so():
    walk = Walk()
    walk.found.file("run.exe", b"MZ harmless", "1", view="lf")
    assert [part.view for part in walk.found.parts] == ["lf"]


def test_what_is_taken_out_has_one_limit_for_all_files_together():
    walk = Walk(archive_size=100)
    walk.found.file("a", b"x" * 60, "1")
    with pytest.raises(Unscannable, match="more than 100 octets"):
        walk.found.file("b", b"x" * 41, "1")


def test_parts_have_a_limit_wherever_they_come_from():
    walk = Walk(parts=2, archive_members=1)
    for number in range(3):
        walk.found.keep(Part(str(number)))
    with pytest.raises(Unscannable, match="more than 2 parts"):
        walk.found.file("a", b"x", "1")


def test_files_in_files_have_a_limit():
    walk = Walk(archive_depth=2)
    walk.found.file("a", b"x", "1/b/c")
    with pytest.raises(Unscannable, match="more than 2 deep"):
        walk.found.file("a", b"x", "1/b/c/d")


@pytest.mark.parametrize("tell", [Gathered.defect, Gathered.ambiguous])
def test_what_is_wrong_is_told_once_and_makes_the_mail_odd_and_has_a_limit(tell):
    walk = Walk()
    assert not walk.found.odd
    for number in [*range(MAX_DEFECTS + 5), 0]:
        tell(walk.found, f"fault {number}")
    assert walk.found.odd
    told = [*walk.found.defects, *walk.found.ambiguities]
    assert told == [f"fault {number}" for number in range(MAX_DEFECTS)]


def test_the_kinds_of_all_names_are_known_as_parts_come():
    walk = Walk()
    walk.found.keep(Part("1", filename="A.PDF"))
    assert walk.found.kinds() == {"pdf"}
    walk.found.keep(Part("2", filename="b.exe"))
    assert walk.found.kinds() == {"pdf", "exe"}


def test_line_ends_and_blanks_make_no_other_file():
    assert digest_of(b"a b\r\nc\r\n") == digest_of(b"ab\nc\t")
    assert digest_of(b"ab") != digest_of(b"ba")


def test_a_torn_winmail_dat_or_signed_message_is_ambiguous_and_never_empty():
    walk = Walk()
    walk.found.tnef(b"\x78\x9f\x3e\x22\0\0\1torn", "1")
    walk.found.cms(b"\x30\x80\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02\xa0\x80\x30", "2", "smime.p7m")
    assert len(walk.found.ambiguities) == 2
    assert all("breaks off" in words for words in walk.found.ambiguities)


def test_when_a_mail_was_read_nobody_has_to_collect_it():
    gc.disable()
    try:
        walk = Walk()
        walk.found.file("a.zip", zipped({"run.exe": b"MZ harmless"}), "1")
        seen = weakref.ref(walk.found.archives)
        del walk
        assert seen() is None
    finally:
        gc.enable()

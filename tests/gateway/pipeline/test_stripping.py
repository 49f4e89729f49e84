"""What is cut out of a mail leaves a well-formed mail, a note that says why, and every other octet."""

import email
import email.policy
import io

import pytest

from gateway.model import Action, Finding, Reason, Verdict
from gateway.pipeline import actions, stripping
from gateway.pipeline.actions import Splice
from gateway.pipeline.content import parse
from gateway.pipeline.stripping import Whole
from gateway.stages import Content

WHOLE = Whole("m1", "gw.example")


def crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


def cut(mail: bytes, *paths: str, why: str = "run.exe") -> bytes:
    """*mail* without what stands at *paths*; nothing where that cannot be."""
    reasons = tuple(Reason("attachments", Finding("executable", why, path), Action.STRIP) for path in paths)
    removed = stripping.removals(Verdict(Action.STRIP, 0.0, reasons), parse(mail, Content.Settings()))
    if not removed:
        return b""
    end = actions.header_end(io.BytesIO(mail), 10_000)
    head, pieces = stripping.stripped(io.BytesIO(mail), mail[:end], len(mail), removed, WHOLE)
    return head + Splice(io.BytesIO(mail), pieces).read()


def read(octets: bytes) -> email.message.EmailMessage:
    """*octets*, which have to be a message without a defect, for us and for the library."""
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert not [part.defects for part in message.walk() if part.defects]
    content = parse(octets, Content.Settings())
    assert (content.defects, content.ambiguities, content.unscannable) == ((), (), "")
    assert max(map(len, octets.split(b"\r\n"))) <= 78
    return message


def leaves(message: email.message.EmailMessage) -> list[str]:
    return [
        part.get_content().replace("\r\n", "\n") for part in message.walk() if part.get_content_maintype() == "text"
    ]


def mixed(*parts: str, kind: str = "mixed", boundary: str = "b") -> str:
    body = "".join(f"--{boundary}\n{part}\n" for part in parts)
    return f'Content-Type: multipart/{kind}; boundary="{boundary}"\n\n{body}--{boundary}--\n'


HEAD = "From: a@far.example\nSubject: s\nMIME-Version: 1.0\n"
TEXT = "Content-Type: text/plain\n\nkeep me"
BAD = "Content-Type: application/x\nContent-Disposition: attachment; filename=run.exe\n\nMZ..."
FINE = "Content-Disposition: attachment; filename=ok.txt\n\nfine"
MULTI = crlf(HEAD + mixed(TEXT, BAD, FINE))
ALONE = "From: b@far.example\nSubject: inner\nContent-Type: application/x; name=run.exe\n\nMZ..."


def test_a_part_gives_way_to_a_note_and_the_rest_keeps_its_octets() -> None:
    octets = cut(MULTI, "2/inside.zip/run.exe", why="run.exe is application/x-dosexec")
    before, after = MULTI.split(crlf(BAD))
    assert octets.startswith(before)
    assert octets.endswith(after)
    kept, note, fine = leaves(read(octets))
    assert (kept.strip(), fine.strip()) == ("keep me", "fine")
    assert "    run.exe\n" in note
    assert "    run.exe is application/x-dosexec (attachments: executable)\n" in note
    assert "postmaster@gw.example" in note
    assert "    m1\n" in note
    assert b"MZ" not in octets


def test_two_parts_give_way_to_two_notes() -> None:
    kept, *notes = leaves(read(cut(MULTI, "3", "2")))
    assert [kept.strip(), *(note.split("\n")[2].strip() for note in notes)] == ["keep me", "run.exe", "ok.txt"]


def test_what_is_said_twice_of_a_part_stands_there_once_and_no_more_than_five_things() -> None:
    reasons = [Reason("pdf", Finding(f"c{n % 9}", "it acts", "2"), Action.STRIP) for n in range(30)]
    (removed,) = stripping.removals(Verdict(Action.STRIP, 0.0, tuple(reasons)), parse(MULTI, Content.Settings()))
    assert len(set(removed.why)) == len(removed.why) == 6
    assert removed.why[-1] == "and more"


@pytest.mark.parametrize("kind", ["alternative", "related", "digest", "x-unknown"])
def test_multiparts_of_every_kind_keep_their_shape(kind: str) -> None:
    first, second = read(cut(crlf(HEAD + mixed(TEXT, BAD, kind=kind)), "2")).iter_parts()
    assert (first.get_content_type(), second.get_content_type()) == ("text/plain", "text/plain")
    assert "quarantine" in second.get_content()


def test_a_part_of_a_multipart_in_a_multipart_goes_alone() -> None:
    inner = mixed(TEXT, BAD, kind="alternative", boundary="inner")
    message = read(cut(crlf(HEAD + mixed(inner, FINE)), "1.2"))
    assert [part.get_content_type() for part in message.walk()] == [
        "multipart/mixed", "multipart/alternative", "text/plain", "text/plain", "text/plain",
    ]  # fmt: skip


def test_a_mail_that_is_one_bad_part_becomes_the_note_and_keeps_its_header() -> None:
    bad = "Content-Type: application/x; name=run.exe\nContent-Transfer-Encoding: base64\nContent-ID: <x>\n\nTVo=\n"
    message = read(cut(crlf("From: a@far.example\nSubject: s\nX-Else: y\n" + bad), "1"))
    assert (message["Subject"], message["X-Else"], message["Content-ID"]) == ("s", "y", None)
    assert message["MIME-Version"] == "1.0"
    assert "run.exe" in message.get_content()


def test_a_line_that_is_no_field_does_not_end_the_header_of_the_new_mail() -> None:
    octets = cut(b"Subject: s\r\nno field\r\n folded\r\n\r\nhello\r\n", "1")
    assert "quarantine" in read(octets).get_content()
    assert b"no field" not in octets


def test_a_message_that_is_attached_goes_whole() -> None:
    attached = "Content-Type: message/rfc822\n\n" + ALONE
    message = read(cut(crlf(HEAD + mixed(TEXT, attached)), "2"))
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/plain"]
    assert "inner" not in str(message)


def test_of_an_attached_message_that_is_one_bad_part_the_header_stays() -> None:
    attached = "Content-Type: message/rfc822\n\n" + ALONE
    _, second = read(cut(crlf(HEAD + mixed(TEXT, attached)), "2.1")).iter_parts()
    (inner,) = second.iter_parts()
    assert (second.get_content_type(), inner["Subject"], inner.get_content_type()) == (
        "message/rfc822", "inner", "text/plain",
    )  # fmt: skip
    assert "quarantine" in inner.get_content()


def test_a_part_in_an_attached_message_goes_alone() -> None:
    attached = f"Content-Type: message/rfc822\n\nSubject: inner\nMIME-Version: 1.0\n{mixed(TEXT, BAD, boundary='i')}"
    message = read(cut(crlf(HEAD + mixed(FINE, attached)), "2.2"))
    assert [text.strip()[:7] for text in leaves(message)] == ["fine", "keep me", "An atta"]


def test_what_is_in_a_message_that_is_encoded_goes_with_all_of_that_message() -> None:
    coded = email.base64mime.body_encode(crlf(HEAD + mixed(TEXT, BAD)), eol="\n")
    attached = f"Content-Type: application/octet-stream; name=a.eml\nContent-Transfer-Encoding: base64\n\n{coded}"
    message = read(cut(crlf(HEAD + mixed(FINE, attached)), "2.2"))
    assert [text.strip()[:7] for text in leaves(message)] == ["fine", "An atta"]


def test_a_part_inside_a_part_that_goes_is_gone_with_it() -> None:
    attached = "Content-Type: message/rfc822\n\n" + ALONE
    message = read(cut(crlf(HEAD + mixed(attached)), "1", "1.1"))
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain"]


@pytest.mark.parametrize(
    "name",
    ["Отчёт.exe", "--b", "x\r\n--b\r\n", "=?utf-8?q?--b?=", "a " * 500, "ж" * 300, "--b-- " * 30, "\u202egnp.exe"],
)
def test_no_name_breaks_the_mail(name: str) -> None:
    part = f"Content-Type: application/x\nContent-Disposition: attachment; filename*=utf-8''{email.utils.quote('')}"
    part += "".join(f"%{octet:02X}" for octet in name.encode()) + "\n\nMZ"
    octets = cut(crlf(HEAD + mixed(TEXT, part)), "2", why=name)
    first, second = read(octets).iter_parts()
    assert first.get_content() == "keep me"
    assert second.get_content().count("    ") >= 4
    assert "\u202e" not in second.get_content()


def test_a_name_beyond_ascii_can_be_read_in_the_note() -> None:
    part = "Content-Type: application/x; name*=utf-8''%D0%9E%D1%82%D1%87%D1%91%D1%82.exe\n\nMZ"
    assert "Отчёт.exe" in leaves(read(cut(crlf(HEAD + mixed(TEXT, part)), "2")))[1]


def test_a_multipart_that_is_not_closed_or_has_an_empty_part_stays_what_it_is() -> None:
    open_ = crlf(HEAD + 'Content-Type: multipart/mixed; boundary="b"\n\n--b\n\n--b\n' + BAD)
    first, second = email.message_from_bytes(cut(open_, "1", "2"), policy=email.policy.default).iter_parts()
    assert [part.get_content_type() for part in (first, second)] == ["text/plain", "text/plain"]


@pytest.mark.parametrize("path", ["", "7", "around/x", "library/a.exe", "9.2"])
def test_what_names_no_part_cannot_be_stripped(path: str) -> None:
    assert cut(MULTI, path) == b""
    assert cut(MULTI, "2", path) == b""


def test_what_other_readers_may_see_elsewhere_cannot_be_stripped() -> None:
    two = MULTI.replace(b"Subject: s", b"Content-Type: text/plain\r\nSubject: s")
    assert cut(two, "2") == b""


def test_what_cannot_be_stripped_is_held_and_says_so() -> None:
    for path, action in {"2": Action.STRIP, "7": Action.QUARANTINE}.items():
        wanted = Verdict(Action.STRIP, 0.0, (Reason("pdf", Finding("acts", part=path), Action.STRIP),), "it acts")
        got = stripping.feasible(wanted, parse(MULTI, Content.Settings()))
        assert got.action is action
        assert got.sentence.startswith("held because what should be stripped cannot be cut out") == (path == "7")
        assert [one.effect for one in got.reasons] == [action]  # what did it, for lists and tracking


def test_a_mail_with_more_findings_than_are_named_is_held_and_says_so() -> None:
    reasons = (Finding("acts", part="2"), Finding("acts", "and 7 more"))
    wanted = Verdict(Action.STRIP, 0.0, tuple(Reason("pdf", one, Action.STRIP) for one in reasons), "it acts")
    got = stripping.feasible(wanted, parse(MULTI, Content.Settings()))
    assert got.action is Action.QUARANTINE
    assert "and 7 more" in got.sentence

"""What a worker does with one mail: what it takes along, leaves behind, and never reads of whose mail."""

import base64
import importlib
import io
import subprocess
import tempfile
import zipfile
from ipaddress import ip_address

import pytest

from gateway.model import Envelope, Mail, Part, Recipient, Session
from gateway.pipeline import confined, policy
from gateway.pipeline.confined import TRAY, Luggage, Task, scan
from gateway.pipeline.tray import Unscannable
from gateway.stages import Content
from tests import feedback

LIMITS = Content.Settings()
WORLD = Session(ip_address("192.0.2.1"))
OURS = Session(ip_address("192.0.2.1"), user="alice")
SIGNED = (
    b"DKIM-Signature: v=1; a=rsa-sha256; d=a.example; s=s; h=from; bh=AAAA; b=AAAA\r\n"
    b"From: a@a.example\r\nSubject: hi\r\n\r\nhello\r\n"
)


def scanned(message, session=WORLD, to="bob@ours.example", luggage=None, limits=LIMITS, **task):
    mail = Mail("m1", session, Envelope(recipients=(Recipient(to),)))
    with tempfile.TemporaryFile() as file:
        file.write(message)
        file.flush()
        return scan(mail, file.fileno(), Task(limits, task.pop("policies", ()), **task), luggage)


def hiding(**files):
    """A mail with a zip that is packed in a way that scanners do not know."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_LZMA) as archive:
        for name, octets in files.items():
            archive.writestr(name, octets)
    fields = b"Content-Type: application/zip; name=a.zip\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    return fields + base64.encodebytes(packed.getvalue()).replace(b"\n", b"\r\n")


@pytest.fixture(autouse=True)
def empty_tray():
    yield
    TRAY.clear()


def lay(**files):
    for path, octets in files.items():
        TRAY.put(path, lambda most, octets=octets: octets[:most])


def test_luggage_has_the_same_octets_once_and_says_where_they_stand():
    lay(a=b"first", b=b"second", c=b"first", d=b"")
    luggage = Luggage(100)
    places = [luggage.packed(Part(path)).stored for path in "abcd"]
    assert places == [(0, 5), (5, 11), (0, 5), (11, 11)]
    assert b"".join(luggage.taken) == b"firstsecond"
    assert luggage.size == 11


def test_luggage_has_a_limit_to_the_octet():
    lay(a=b"12345", b=b"67890", c=b"x")
    luggage = Luggage(10)
    for path in "ab":
        luggage.packed(Part(path))
    with pytest.raises(Unscannable):
        luggage.packed(Part("c"))
    assert b"".join(luggage.taken) == b"1234567890"
    luggage.clear()
    assert (luggage.taken, luggage.size) == ([], 0)


def test_no_more_is_decoded_for_luggage_than_there_is_room_for():
    asked = []
    TRAY.put("a", lambda most: asked.append(most) or b"x" * most)
    with pytest.raises(Unscannable):
        Luggage(10).packed(Part("a"))
    assert asked == [11]


def test_what_nobody_else_sees_is_taken_along_and_what_is_too_much_leaves_all_behind():
    luggage = Luggage(1000)
    parts = scanned(hiding(one=b"1" * 100), luggage=luggage).content.parts
    assert [luggage.taken[0] for part in parts if part.stored == (0, 100)] == [b"1" * 100]
    luggage = Luggage(150)
    content = scanned(hiding(one=b"1" * 100, two=b"2" * 100), luggage=luggage).content
    assert content.unscannable == "what it hides is too large to be scanned"
    assert (luggage.taken, luggage.size) == ([], 0)
    assert not any(part.stored for part in content.parts)


def test_signatures_are_read_of_mail_from_outside_alone():
    assert [one.domain for one in scanned(SIGNED).content.signatures] == ["a.example"]
    assert scanned(SIGNED, OURS).content.signatures == ()


def test_reports_are_read_in_mail_for_who_receives_them_alone_whatever_the_case():
    mail = feedback.mail(feedback.attachment(feedback.report(), "text/xml", "r.xml"))
    receive = frozenset({"dmarc@ours.example"})
    report = scanned(mail, to="DMARC@ours.example", receive=receive).content.report
    assert (report.fault, report.domain) == ("", "ours.example")
    assert scanned(mail, receive=receive).content.report is None
    assert scanned(mail, to="dmarc@ours.example").content.report is None


def test_the_text_of_a_mail_and_its_octets_stay_in_the_worker():
    content = scanned(b"From: a@a.example\r\n\r\nhello\r\n").content
    assert [(part.media_type, part.text) for part in content.parts] == [("text/plain", "")]
    assert TRAY.of(content.parts[0], 100) == b""
    assert not TRAY.texts


def test_filters_are_asked_of_what_the_parser_saw():
    asked = policy.waves(one for one in policy.load(None, None).pure if one.name == "attachments")
    mail = b"From: a@b.example\r\nContent-Disposition: attachment; filename=run.exe\r\n\r\nMZ"
    found = scanned(mail, policies=asked).found
    assert [finding.code for finding in found["attachments"]] == ["executable"]


def test_every_module_is_asked_to_load_what_it_needs(monkeypatch):
    module = importlib.import_module("filters.headers")
    prepared = []
    monkeypatch.setattr(module, "prepare", lambda: prepared.append("asked"), raising=False)
    confined.prepare([module, base64])  # which has none
    assert prepared == ["asked"]


def test_fates_of_workers_are_remembered_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(confined, "_fates", {})
    monkeypatch.setattr(confined, "_workers", {1})
    for pid in range(1, 100):
        confined._bury(pid, 256)
    assert len(confined._fates) == confined._MAX_FATES
    assert 99 in confined._fates
    assert confined._workers == set()


def test_who_is_no_worker_is_never_killed():
    with subprocess.Popen(["sleep", "30"]) as other:
        confined._kill(other.pid)
        assert confined._fate(other.pid) == 0
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.05)
        other.kill()

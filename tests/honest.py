"""Mails as honest people and their programs send them, with what they attach: made by us, small, and each to be delivered."""

from __future__ import annotations

import base64
import gzip
import io
import struct
import textwrap
import zlib
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from tests import office, packed, tricks

PDFS = Path(__file__).parent / "filters" / "pdfs"
_NOISE = zlib.compress(b"".join(b"%d" % (number * number) for number in range(3000)))
"""Octets that look like those of a picture, a drawing or a program for a device."""


def _mail(kind: str, body: bytes, *more: str, subject: str = "Invoice 4711") -> bytes:
    head = (
        "From: Ann Other <ann@out.example>",
        "To: Bob <bob@in.example>",
        f"Subject: {subject}",
        "Date: Mon, 23 Nov 2026 10:00:00 +0100",
        "Message-ID: <20261123.4711@out.example>",
        "MIME-Version: 1.0",
        f"Content-Type: {kind}",
        *more,
    )
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def _multipart(kind: str, *parts: bytes, boundary: str = "=_b0undary_4711", before: bytes = b"") -> bytes:
    """A multipart with its field: its body and the boundary in that are one."""
    mark = b"--" + boundary.encode()
    inside = b"".join(mark + b"\r\n" + part + b"\r\n" for part in parts)
    return f'Content-Type: {kind}; boundary="{boundary}"\r\n\r\n'.encode() + before + inside + mark + b"--\r\n"


def _whole(entity: bytes, *more: str, subject: str = "Invoice 4711") -> bytes:
    """The mail that *entity* is, with its own Content-Type."""
    head, _, body = entity.partition(b"\r\n\r\n")
    return _mail(head.decode().removeprefix("Content-Type: "), body, *more, subject=subject)


def _text(
    words: str = "Dear Bob,\r\n\r\nplease find it attached.\r\n\r\nKind regards\r\nAnn", kind: str = "plain"
) -> bytes:
    return f"Content-Type: text/{kind}; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{words}".encode()


def _file(name: str, octets: bytes, kind: str = "application/octet-stream", *more: str) -> bytes:
    head = (
        f'Content-Type: {kind}; name="{name}"',
        f'Content-Disposition: attachment; filename="{name}"',
        "Content-Transfer-Encoding: base64",
        *more,
    )
    return "\r\n".join(head).encode() + b"\r\n\r\n" + base64.encodebytes(octets).replace(b"\n", b"\r\n").rstrip()


def _with(name: str, octets: bytes, kind: str = "application/octet-stream", subject: str = "Invoice 4711") -> bytes:
    return _whole(_multipart("multipart/mixed", _text(), _file(name, octets, kind)), subject=subject)


def _picture(kind: str, size: int = 40) -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize((size, size)).convert("RGB").save(out, kind)
    return out.getvalue()


def _box(kind: bytes, *inside: bytes) -> bytes:
    """A box of ISO base media files (ISO/IEC 14496-12 4.2)."""
    octets = b"".join(inside)
    return struct.pack(">I4s", 8 + len(octets), kind) + octets


_DOCX = {
    "[Content_Types].xml": '<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>',
    "_rels/.rels": '<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"/>',
    "word/document.xml": office.body("<w:r><w:t>Dear Bob</w:t></w:r>"),
}
_XLSM = {
    "[Content_Types].xml": _DOCX["[Content_Types].xml"],
    "xl/workbook.xml": "<workbook/>",
    "xl/vbaProject.bin": office.compound(
        office.project({"Module1": "Function Tax(n)\r\n  Tax = n * 0.19\r\nEnd Function\r\n"}, storage="")
    ),
}
_CALENDAR = (
    "BEGIN:VCALENDAR\r\nPRODID:-//Google Inc//Google Calendar 70.9054//EN\r\nVERSION:2.0\r\nMETHOD:REQUEST\r\n"
    "BEGIN:VEVENT\r\nDTSTART:20261130T090000Z\r\nDTEND:20261130T100000Z\r\nUID:4711@google.com\r\n"
    "ORGANIZER;CN=Ann:mailto:ann@out.example\r\nSUMMARY:Review\r\nBEGIN:VALARM\r\nACTION:DISPLAY\r\n"
    "TRIGGER:-P0DT0H10M0S\r\nDESCRIPTION:This is an event reminder\r\nEND:VALARM\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
)
_REPORT = (
    b'<?xml version="1.0"?><feedback><report_metadata><org_name>out.example</org_name></report_metadata></feedback>'
)
_LETTER = _mail("text/plain; charset=us-ascii", b"See you on Monday.\r\n", subject="Monday")


def _msg() -> bytes:
    """A message of Outlook as a file ([MS-OXMSG]): its subject, its body, and a file that it carries."""
    return office.compound(
        {
            "__properties_version1.0": bytes(32),
            "__substg1.0_0037001F": "Monday".encode("utf-16-le"),
            "__substg1.0_1000001F": "See you on Monday.".encode("utf-16-le"),
            "__nameid_version1.0/__substg1.0_00020102": bytes(16),
            "__attach_version1.0_#00000000/__properties_version1.0": bytes(8),
            "__attach_version1.0_#00000000/__substg1.0_3707001F": "plan.pdf".encode("utf-16-le"),
            "__attach_version1.0_#00000000/__substg1.0_37010102": _pdf("plain-generate"),
        }
    )


def _pdf(name: str) -> bytes:
    return (PDFS / f"{name}.pdf").read_bytes()


_ENVELOPED, _AUTH_ENVELOPED = bytes.fromhex("2a864886f70d010703"), bytes.fromhex("2a864886f70d0109100117")


def _sealed(kind: bytes, *, open_ended: bool) -> bytes:
    """A CMS message that is encrypted for its reader (RFC 5652 6.1), its length said or not."""
    content = tricks.ber(0x30, tricks.ber(0x06, tricks.DATA), tricks.ber(0x30, tricks.ber(0x06, _ENVELOPED)),
                         tricks.ber(0x80, _NOISE), open_ended=open_ended)  # fmt: skip
    message = tricks.ber(0x30, tricks.ber(0x02, b"\0"), tricks.ber(0x31, bytes(200)), content, open_ended=open_ended)
    return tricks.ber(
        0x30, tricks.ber(0x06, kind), tricks.ber(0xA0, message, open_ended=open_ended), open_ended=open_ended
    )


def _smime(octets: bytes, kind: str) -> bytes:
    return _mail(
        f'application/pkcs7-mime; smime-type={kind}; name="smime.p7m"',
        base64.encodebytes(octets).replace(b"\n", b"\r\n"),
        "Content-Transfer-Encoding: base64",
        'Content-Disposition: attachment; filename="smime.p7m"',
    )


def _packet(tag: int, octets: bytes) -> bytes:
    """A packet of OpenPGP (RFC 9580 4.2.1)."""
    return bytes((0xC0 | tag, 0xFF)) + struct.pack(">I", len(octets)) + octets


_FOR_BOB = _packet(1, b"\3" + bytes(8) + b"\1" + _NOISE[:258]) + _packet(18, b"\1" + _NOISE)
"""An OpenPGP message that is encrypted: the key of the session for its reader, then the octets (5.1, 5.13)."""
_KEY = _packet(6, b"\4" + _NOISE[:270]) + _packet(13, b"Ann Other <ann@out.example>")


def _armoured(kind: str, octets: bytes) -> bytes:
    """*octets* in the form of text (RFC 9580 6.2)."""
    lines = textwrap.wrap(base64.b64encode(octets).decode(), 64)
    return "\r\n".join((f"-----BEGIN PGP {kind}-----", "", *lines, f"-----END PGP {kind}-----", "")).encode()


def honest() -> Iterator[tuple[str, bytes]]:
    """Each mail, by what it is."""
    yield from _documents()
    yield from _pictures_and_drawings()
    yield from _archives()
    yield from _signed_and_sealed()
    yield from _by_programs()


def _documents() -> Iterator[tuple[str, bytes]]:
    pdf = "application/pdf"
    yield "a letter of Word", _with("letter.docx", office.zipped(_DOCX))
    yield "an old letter of Word", _with("letter.doc", office.word(), "application/msword")
    yield "the workbook of a tax adviser, with macros", _with("tax.xlsm", office.zipped(_XLSM))
    yield "an old workbook", _with("list.xls", office.workbook(), "application/vnd.ms-excel")
    yield "rich text", _with("letter.rtf", office.rich(), "application/rtf")
    yield "a PDF", _with("offer.pdf", _pdf("plain-generate"), pdf)
    yield "a PDF that reportlab wrote", _with("offer.pdf", _pdf("reportlab"), pdf)
    yield "an electronic invoice in a PDF (ZUGFeRD)", _with("invoice.pdf", _pdf("zugferd"), pdf)
    yield "a form in a PDF", _with("form.pdf", _pdf("form"), pdf)
    yield "a payslip in a PDF that asks for a password", _with("payslip.pdf", _pdf("asks-r6"), pdf)
    yield "a payslip in a PDF, asking in an older way", _with("payslip.pdf", _pdf("asks-r3"), pdf)
    yield (
        "an electronic invoice alone (XRechnung)",
        _with("invoice.xml", b'<?xml version="1.0"?><Invoice/>', "text/xml"),
    )
    yield "a table", _with("list.csv", b"name;sum\r\nBob;100,00\r\n", "text/csv")
    yield "a message of Outlook", _with("Monday.msg", _msg(), "application/vnd.ms-outlook")
    yield "a certificate of DocuSign", _whole(
        _multipart("multipart/mixed", _multipart("multipart/alternative", _text(), _text("<p>Completed.</p>", "html"),
                   boundary="inner_4711"), _file("contract.pdf", _pdf("fpdf2"), pdf), _file("Summary.pdf", _pdf("view-generate"), pdf)),
        subject="Completed: please sign",
    )  # fmt: skip


def _pictures_and_drawings() -> Iterator[tuple[str, bytes]]:
    heic = _box(b"ftyp", b"heic", bytes(4), b"mif1heic") + _box(b"meta", bytes(4)) + _box(b"mdat", _NOISE)
    yield "a photo", _with("IMG_4711.JPG", _picture("JPEG"), "image/jpeg")
    yield "a photo of an iPhone", _with("IMG_4711.HEIC", heic, "image/heic")
    yield "a picture of the web", _with("logo.webp", _picture("WEBP"), "image/webp")
    yield "a scan", _with("scan.tif", _picture("TIFF"), "image/tiff")
    yield "a drawing of AutoCAD", _with("plan.dwg", b"AC1032" + bytes(7) + _NOISE, "image/vnd.dwg")
    yield (
        "a model (STEP)",
        _with("part.step", b"ISO-10303-21;\r\nHEADER;\r\nENDSEC;\r\nDATA;\r\nENDSEC;\r\nEND-ISO-10303-21;\r\n"),
    )
    yield "a model (STL)", _with("part.stl", b"exported".ljust(80) + struct.pack("<I", 0))
    yield "software of a device", _with("firmware.bin", b"\x12\x34" + bytes(1000) + _NOISE + b"\xff" * 500)
    yield (
        "software of a device, in hex",
        _with("firmware.hex", b":10010000214601360121470136007EFE09D2190140\r\n:00000001FF\r\n"),
    )
    yield (
        "a film",
        _with("clip.mp4", _box(b"ftyp", b"isom", bytes(4), b"isommp41") + _box(b"mdat", _NOISE), "video/mp4"),
    )
    yield (
        "a voice message",
        _with("voice.wav", b"RIFF" + struct.pack("<I", 4 + len(_NOISE)) + b"WAVE" + _NOISE, "audio/wav"),
    )
    yield "a page with its pictures", _whole(_multipart(
        "multipart/related", _text('<p>Dear Bob</p><img src="cid:logo">', "html"),
        _file("logo.png", _picture("PNG"), "image/png", "Content-ID: <logo>")))  # fmt: skip


def _archives() -> Iterator[tuple[str, bytes]]:
    photos = {f"holiday/IMG_{number}.jpg": _picture("JPEG", 60 + number) for number in range(30)}
    yield "photos, zipped", _with("photos.zip", packed.zipped(photos), "application/zip")
    yield "a folder of documents, zipped", _with("docs.zip", packed.zipped({
        "a/letter.docx": office.zipped(_DOCX), "a/offer.pdf": _pdf("plain-generate"), "a/Thumbs.db": office.compound({"Catalog": bytes(64)}),
        "__MACOSX/a/._offer.pdf": b"\0\x05\x16\x07\0\2\0\0Mac OS X        " + bytes(60)}), "application/x-zip-compressed")  # fmt: skip
    yield (
        "sources",
        _with("sources.tar.gz", gzip.compress(packed.tarred({"src/main.c": b"int main() {}\n"})), "application/gzip"),
    )
    yield (
        "a log",
        _with("syslog.1.gz", gzip.compress(b"Nov 23 10:00:00 host cron[1]: started\n" * 20), "application/gzip"),
    )
    yield (
        "a DMARC report, zipped",
        _with("out.example!in.example!1!2.zip", packed.zipped({"report.xml": _REPORT}), "application/zip"),
    )
    yield "a DMARC report", _with("out.example!in.example!1!2.xml.gz", gzip.compress(_REPORT), "application/gzip")
    yield (
        "a report on TLS",
        _with("out.example!in.example!1!2.json.gz", gzip.compress(b'{"policies": []}'), "application/tlsrpt+gzip"),
    )


def _signed_and_sealed() -> Iterator[tuple[str, bytes]]:
    entity = _multipart("multipart/mixed", _text(), _file("offer.pdf", _pdf("plain-generate"), "application/pdf"))
    signature = _file("smime.p7s", tricks.cms(b"", detached=True), "application/pkcs7-signature")
    yield "signed by S/MIME", _whole(_multipart(
        "multipart/signed; protocol=\"application/pkcs7-signature\"; micalg=sha-256", entity, signature, boundary="outer_4711",
        before=b"This is an S/MIME signed message\r\n\r\n"))  # fmt: skip
    yield "signed by S/MIME, in its signature", _smime(tricks.cms(entity), "signed-data")
    yield "signed by S/MIME, in its signature, in pieces", _smime(tricks.cms(entity, pieces=1000), "signed-data")
    yield "certificates alone", _smime(tricks.cms(b"", detached=True), "certs-only")
    for open_ended in (False, True):
        yield (
            f"encrypted by S/MIME{', in pieces' * open_ended}",
            _smime(_sealed(_ENVELOPED, open_ended=open_ended), "enveloped-data"),
        )
    yield (
        "encrypted by S/MIME, in a newer way",
        _smime(_sealed(_AUTH_ENVELOPED, open_ended=False), "authEnveloped-data"),
    )
    invoice = b'<?xml version="1.0"?><FatturaElettronica/>' * 5
    yield "an invoice of Italy, signed", _with("invoice.xml.p7m", tricks.cms(invoice), "application/pkcs7-mime")
    yield "documents and their signature (ASiC-E)", _with("offer.asice", packed.zipped({
        "mimetype": b"application/vnd.etsi.asic-e+zip", "offer.pdf": _pdf("plain-generate"),
        "META-INF/signature.p7s": tricks.cms(b"", detached=True)}))  # fmt: skip
    yield "a key with its certificate", _with("ann.p12", tricks.ber(0x30, tricks.ber(2, b"\3"), tricks.ber(
        0x30, tricks.ber(6, tricks.DATA), tricks.ber(0xA0, tricks.ber(4, _NOISE)))))  # fmt: skip
    yield "a backup, encrypted by OpenPGP", _with("backup.tar.gpg", _FOR_BOB)
    yield "signed by OpenPGP", _whole(_multipart(
        'multipart/signed; micalg=pgp-sha256; protocol="application/pgp-signature"', _text(),
        b'Content-Type: application/pgp-signature; name="OpenPGP_signature.asc"\r\nContent-Disposition: attachment; filename="OpenPGP_signature.asc"'
        b"\r\n\r\n" + _armoured("SIGNATURE", _packet(2, b"\4" + _NOISE[:300])), before=b"This is an OpenPGP/MIME signed message (RFC 4880 and 3156)\r\n"))  # fmt: skip
    yield "encrypted by OpenPGP", _whole(_multipart(
        'multipart/encrypted; protocol="application/pgp-encrypted"',
        b"Content-Type: application/pgp-encrypted\r\nContent-Description: PGP/MIME version identification\r\n\r\nVersion: 1\r\n",
        b'Content-Type: application/octet-stream; name="encrypted.asc"\r\nContent-Disposition: inline; filename="encrypted.asc"\r\n\r\n'
        + _armoured("MESSAGE", _FOR_BOB), before=b"This is an OpenPGP/MIME encrypted message (RFC 4880 and 3156)\r\n"))  # fmt: skip
    yield "encrypted by OpenPGP, in the text", _mail("text/plain; charset=us-ascii", _armoured("MESSAGE", _FOR_BOB))
    yield "a key of OpenPGP", _with("0x4711.asc", _armoured("PUBLIC KEY BLOCK", _KEY), "application/pgp-keys")


def _by_programs() -> Iterator[tuple[str, bytes]]:
    yield "an appointment of Google", _whole(_multipart(
        "multipart/mixed", _multipart("multipart/alternative", _text(), _text("<p>Review</p>", "html"),
        b"Content-Type: text/calendar; charset=\"UTF-8\"; method=REQUEST\r\nContent-Transfer-Encoding: 7bit\r\n\r\n" + _CALENDAR.encode(),
        boundary="inner_4711"), _file("invite.ics", _CALENDAR.encode(), "application/ics")))  # fmt: skip
    yield "a card", _with("ann.vcf", b"BEGIN:VCARD\r\nVERSION:3.0\r\nFN:Ann Other\r\nEND:VCARD\r\n", "text/vcard")
    yield "a winmail.dat", _with("winmail.dat", tricks.tnef(_pdf("plain-generate"), mapi=True), "application/ms-tnef")
    yield "a file of a Mac", _whole(_multipart(
        "multipart/mixed", _text(), _multipart(
            "multipart/appledouble", _file("offer.pdf", b"\0\x05\x16\x07\0\2\0\0" + bytes(16) + struct.pack(">HIII", 1, 9, 38, 32) + bytes(32),
            "application/applefile"), _file("offer.pdf", _pdf("plain-generate"), "application/pdf"), boundary="Apple-Mail-2")))  # fmt: skip
    yield "a mail that is nothing but a file", _mail(
        'application/pdf; name="scan.pdf"', base64.encodebytes(_pdf("plain-generate")).replace(b"\n", b"\r\n"),
        "Content-Transfer-Encoding: base64", 'Content-Disposition: attachment; filename="scan.pdf"')  # fmt: skip
    yield "a mail, forwarded as a file", _whole(_multipart(
        "multipart/mixed", _text(), b"Content-Type: message/rfc822; name=\"Monday.eml\"\r\nContent-Disposition: attachment; filename=\"Monday.eml\"\r\n\r\n" + _LETTER))  # fmt: skip
    yield "a mail, forwarded as a file in base64", _with("Monday.eml", _LETTER)
    yield "an answer below what it answers", _mail("text/plain; charset=utf-8", (
        b"-----Original Message-----\r\nFrom: Bob\r\nContent of the order:\r\n\r\n> To install it,\r\n> begin by running setup.exe\r\n\r\n-- \r\nAnn\r\n"))  # fmt: skip
    yield "a digest of a list", _whole(_multipart(
        "multipart/mixed", _text("Send submissions to list@out.example"),
        _multipart("multipart/digest", b"\r\n" + _LETTER, b"\r\n" + _LETTER, boundary="digest_4711"), _text("_____\r\nlist mailing list")))  # fmt: skip
    yield "a post of a list, with its footer", _whole(_multipart(
        "multipart/mixed", _multipart("multipart/alternative", _text(), _text("<p>Dear all</p>", "html"), boundary="inner_4711"),
        b'Content-Type: text/plain; charset="us-ascii"\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: 7bit\r\nContent-Disposition: inline\r\n\r\n'
        b"_______________________________________________\r\nusers mailing list\r\nusers@out.example\r\n"))  # fmt: skip
    status = (
        b"Content-Description: Delivery report\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; out.example\r\n\r\n"
        b"Final-Recipient: rfc822; x@out.example\r\nAction: failed\r\nStatus: 5.1.1\r\n"
    )
    for kind, original in (
        ("message/rfc822", _with("offer.pdf", _pdf("plain-generate"))),
        ("text/rfc822-headers", _LETTER.partition(b"\r\n\r\n")[0]),
    ):
        yield f"a bounce with the original ({kind})", _whole(_multipart(
            "multipart/report; report-type=delivery-status", _text("This is the mail system at host out.example."), status,
            f"Content-Description: Undelivered Message\r\nContent-Type: {kind}\r\n\r\n".encode() + original,
            boundary="4711/mx.out.example", before=b"This is a MIME-encapsulated message.\r\n\r\n"), "Auto-Submitted: auto-replied", subject="Undelivered Mail Returned to Sender")  # fmt: skip
    torn = _with("offer.pdf", _pdf("reportlab"))[:1804]
    yield "a bounce with the beginning of the original", _whole(_multipart(
        "multipart/report; report-type=delivery-status", _text("This is the mail system."), status,
        b"Content-Type: message/rfc822\r\n\r\n" + torn, boundary="4711/mx.out.example"), "Auto-Submitted: auto-replied", subject="Undelivered Mail Returned to Sender")  # fmt: skip
    yield "a receipt", _whole(_multipart(
        "multipart/report; report-type=disposition-notification", _text("Your message was displayed."),
        b"Content-Type: message/disposition-notification\r\n\r\nReporting-UA: out.example; Mail\r\nFinal-Recipient: rfc822;ann@out.example\r\n"
        b"Disposition: manual-action/MDN-sent-manually; displayed\r\n",
        b"Content-Type: text/rfc822-headers\r\n\r\n" + _LETTER.partition(b"\r\n\r\n")[0]), subject="Read: Invoice")  # fmt: skip
    yield "a reaction of Outlook", _whole(_multipart(
        "multipart/alternative", _text("Ann reacted to your message:"), _text("<p>Ann reacted</p>", "html"),
        b"Content-Type: text/vnd.google.email-reaction+json; charset=\"UTF-8\"\r\n\r\n{\"version\":1,\"emoji\":\"x\"}"))  # fmt: skip
    yield (
        "a large photo behind a link (Apple Mail Drop)",
        _mail("text/html; charset=utf-8", b'<p><a href="https://www.icloud.com/x">Click to Download</a></p>\r\n'),
    )
    yield (
        "source, in the text",
        _mail(
            "text/plain; charset=utf-8",
            b"diff --git a/x b/x\r\n--- a/x\r\n+++ b/x\r\n@@ -1 +1 @@\r\n-a\r\n+b\r\n--\r\n2.43.0\r\n",
            subject="[PATCH] x",
        ),
    )
    yield "keys and hashes, in the text", _mail("text/plain; charset=utf-8", (
        "ssh-rsa " + base64.b64encode(_NOISE[:279]).decode() + " ann@host\r\nSHA256 (a.iso) = " + "ab" * 32 + "\r\n").encode())  # fmt: skip

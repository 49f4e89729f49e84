"""Mails as they come in real life: each with what careless programs damage. All with CRLF, and a Message-ID of their own."""

import base64
import email
import hashlib
import io
import itertools
import random
import textwrap
import zipfile
from collections.abc import Sequence
from email.message import Message

from tests.peers.wire import body, crlf, lf

_numbers = itertools.count(1)

HEADER = """From: {name} <{sender}>
To: {recipient}
Date: Mon, 02 Nov 2026 10:11:12 +0100
Message-ID: <{token}>
Subject: {subject}
MIME-Version: 1.0
"""


def mail(
    text: str | bytes = "Nothing to say.\n",
    *,
    subject: str = "About the garden",
    kind: str = "text/plain; charset=us-ascii",
    more: str = "",
    sender: str = "ann@out.example",
    recipient: str = "alice@in.example",
    name: str = "Ann Other",
    encoding: str = "7bit",
) -> bytes:
    """A mail with CRLF; *more* are further header lines, each with its line end."""
    token = f"e2e.{next(_numbers)}.{random.getrandbits(48):012x}@out.example"
    head = HEADER.format(name=name, sender=sender, recipient=recipient, token=token, subject=subject)
    head += f"Content-Type: {kind}\nContent-Transfer-Encoding: {encoding}\n{more}\n"
    return crlf(head.encode() + (text.encode() if isinstance(text, str) else text))


def token(raw: bytes) -> bytes:
    """What tells this mail from all others: its Message-ID."""
    return (
        next(line for line in lf(raw).split(b"\n") if line.lower().startswith(b"message-id:"))
        .partition(b":")[2]
        .strip()
    )


def digest(raw: bytes) -> str:
    """SHA-256 of the body; line ends do not count, as a maildir has LF."""
    return hashlib.sha256(body(raw)).hexdigest()


def same(arrived: bytes, sent: bytes) -> bool:
    """Has nothing been done to the mail, but fields put above it?"""
    return digest(arrived) == digest(sent) and lf(arrived).endswith(lf(sent))


def find(arrived: Sequence[bytes], sent: bytes) -> bytes:
    """The one of *arrived* that is the mail *sent*."""
    found = [raw for raw in arrived if token(sent) in raw]
    assert len(found) == 1, f"{len(found)} copies of {token(sent)!r} among {len(arrived)} mails"
    return found[0]


def header(raw: bytes) -> str:
    return lf(raw).partition(b"\n\n")[0].decode("utf-8", "replace") + "\n"


def report(raw: bytes) -> tuple[Message, list[Message]]:
    """The fields of a delivery status notification: of the mail, and of each recipient. Asserts that it is one (RFC 3464)."""
    notice = email.message_from_bytes(raw)
    assert notice.get_content_type() == "multipart/report"
    assert notice.get_param("report-type") == "delivery-status"
    text, status, original = notice.get_payload()
    assert text.get_content_type() == "text/plain"
    assert status.get_content_type() == "message/delivery-status"
    assert original.get_content_type() in ("message/rfc822", "text/rfc822-headers")
    about_mail, *about_recipients = status.get_payload()
    assert about_mail["Reporting-MTA"].startswith("dns;")
    return about_mail, about_recipients


def attachment(name: str, content: bytes, kind: str = "application/octet-stream", **more: str) -> bytes:
    """A mail with one file in base64."""
    encoded = base64.encodebytes(content).decode()
    boundary = "=_the_boundary_of_it"
    text = f"""--{boundary}
Content-Type: text/plain; charset=us-ascii

See the file.
--{boundary}
Content-Type: {kind}; name="{name}"
Content-Disposition: attachment; filename="{name}"
Content-Transfer-Encoding: base64

{encoded}
--{boundary}--
"""
    return mail(text, kind=f'multipart/mixed; boundary="{boundary}"', **more)


def zipped(name: str, content: bytes) -> bytes:
    """A zip archive with one file."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return made.getvalue()


def program() -> bytes:
    """What begins like a program of Windows, and does nothing."""
    return b"MZ\x90\0\3\0\0\0\4\0\0\0\xff\xff\0\0" + b"\0" * 44 + b"\x80\0\0\0" + b"\0" * 64 + b"PE\0\0" + b"\0" * 400


def noise(size: int) -> bytes:
    """The same octets every time, as hard to compress as a photograph."""
    return random.Random(size).randbytes(size)


def dots(**more: str) -> bytes:
    """What a careless program changes: dots, From_, blanks at the end, tabs, empty lines first and last."""
    text = "\n.\n..\n...\n.dot\n. \nFrom here on\n>From there\ntwo blanks  \n\ttab\t\n--\n-- \nQUIT\nDATA\n\n\n.\nend\n\n\n"
    return mail(text, subject="dots", **more)


def latin(**more: str) -> bytes:
    """Eight bits that are no UTF-8."""
    octets = bytes(range(0xA0, 0x100)) + b"\n" + "Grüße aus Köln, schöne Straße\n".encode("latin-1") * 40
    return mail(octets, subject="acht Bit", kind="text/plain; charset=iso-8859-1", encoding="8bit", **more)


def encoded_words(**more: str) -> bytes:
    """A header as mail programs write it: encoded words, folded, and a body in quoted-printable."""
    subject = (
        "=?utf-8?B?VmVyYWJyZWR1bmcgZsO8ciBkZW4gQWJlbmQg4pi6IGltIEthZmZlZWhhdXM=?=\n =?utf-8?Q?_an_der_Br=C3=BCcke?="
    )
    text = "Gr=C3=BC=C3=9Fe=20\nan alle, die diese sehr lange Zeile lesen, weil sie erst hier =\nendet.=20\n=2E\n.=\n"
    kind = "text/plain;\n\tcharset=utf-8; format=flowed"
    return mail(text, subject=subject, kind=kind, encoding="quoted-printable", name="=?utf-8?Q?J=C3=B6rg?=", **more)


def utf8_header(**more: str) -> bytes:
    """UTF-8 in the header as it is (RFC 6532)."""
    return mail(
        "Příliš žluťoučký kůň\n日本語\n",
        subject="Привет, 日本 ☺",
        kind="text/plain; charset=utf-8",
        encoding="8bit",
        **more,
    )


def newsletter(**more: str) -> bytes:
    """Plain text and HTML with a picture inside, as programs nest it, and lines as long as they may be."""
    picture = base64.encodebytes(b"\x89PNG\r\n\x1a\n" + noise(3000)).decode()
    row = "<td style='padding: 0'>garden</td>"
    html = f"<html><body><p>{'x' * 983}\n{row * 29}\n<img src='cid:a@b'></body></html>"
    text = f"""--outer
Content-Type: multipart/alternative; boundary="inner"

--inner
Content-Type: text/plain; charset=us-ascii

The garden in autumn.

--inner
Content-Type: text/html; charset=us-ascii

{html}

--inner--

--outer
Content-Type: image/png
Content-ID: <a@b>
Content-Transfer-Encoding: base64

{picture}
--outer--
epilogue without meaning
"""
    return mail(text, kind='multipart/related; boundary="outer"', subject="autumn", **more)


def forwarded(**more: str) -> bytes:
    """A mail in a mail, and a signature that a changed blank would break."""
    inner = lf(latin()).decode("latin-1").encode("latin-1")
    parts = [b"--f\nContent-Type: text/plain\n\nlook  \n\t\n", b"--f\nContent-Type: message/rfc822\n\n" + inner]
    parts += [b"--f\nContent-Type: application/pgp-signature; name=signature.asc\n\n-----BEGIN PGP SIGNATURE-----\n\n"]
    lines = textwrap.wrap(base64.b64encode(noise(400)).decode(), 64)
    parts += ["\n".join([*lines, "=abcd", "-----END PGP SIGNATURE-----", ""]).encode(), b"--f--\n"]
    return mail(b"\n".join(parts), kind="multipart/mixed; boundary=f", encoding="8bit", subject="Fwd: look", **more)


def empty(**more: str) -> bytes:
    return mail("", subject="nothing inside", **more)


def large(**more: str) -> bytes:
    """Some megabytes of base64, beyond what is kept in memory on any way."""
    return attachment("photograph.jpg", b"\xff\xd8\xff\xe0" + noise(3_000_000), "image/jpeg", **more)


SMALL = (dots, latin, encoded_words, utf8_header, newsletter, forwarded, empty)
EVERY = (*SMALL, large)
